//! What kind of server it is, and whether it will do at all.

use std::future::ready;

use fred::interfaces::ClientLike;

use crate::connect::{check_version, probe_refusal};
use crate::doctor::finding::Finding;
use crate::doctor::kinds::FindingKind;
use crate::doctor::refused;
use crate::doctor::visit::{Answered, Over, Visit};
use crate::error::{ConnectError, is_noperm, is_refusal};
use crate::inspect::{Config, Info};
use crate::scripts;
use crate::server::Server;

/// Whether it is the kind of server that the URL says.
pub(crate) fn examine_mode(visit: &mut Visit, info: &Info) -> Answered<()> {
    let finding = wrong_mode(mode(info), visit.of_cluster, visit.server());
    let pointless = finding.is_some();
    visit.note(finding);
    // A Sentinel has next to none of the commands, a server of a cluster next to none of the keys, and each of them
    // would be a finding.
    if pointless { Err(Over::Pointless) } else { Ok(()) }
}

pub(crate) async fn examine(
    visit: &mut Visit,
    server: &Server,
    info: &Info,
    config: &Config,
) -> Answered<()> {
    if let Some(name) = name(info) {
        visit.fact("server", format!("{name}, {}", standing(info)));
    }
    let version = visit.client().server_version();
    let newer = version.as_ref().is_none_or(|version| version.major >= 7);
    match check_version(server, version.as_ref()) {
        Err(error) => visit.note(Some(refused(&error))),
        Ok(()) if !newer => visit.found(FindingKind::Before7, name(info).unwrap_or_default()),
        Ok(()) => {}
    }
    let address = visit.server().to_owned();
    visit.note(
        info.primary().map(|primary| refused(&ConnectError::ReadOnlyReplica { server: address, primary })),
    );
    scripts(visit, server, config).await
}

async fn scripts(visit: &mut Visit, server: &Server, config: &Config) -> Answered<()> {
    match scripts::probe(visit.client()).await {
        // The rights will tell, and not only of the first that is missing.
        Err((_, error)) if is_noperm(&error) => {}
        Err((command, error)) if is_refusal(&error) => {
            visit.note(Some(refused(&probe_refusal(server, command, &error))));
        }
        outcome => visit.bounded("a script", ready(outcome.map_err(|(_, error)| error))).await?,
    }
    let timeout = visit.command_timeout;
    // 0 is no limit.
    let limit = config.number("lua-time-limit").filter(|&limit| limit > 0);
    if let Some(limit) = limit.filter(|&limit| u128::from(limit) < timeout.as_millis()) {
        let seen = format!("`lua-time-limit` is {limit} ms, `command_timeout` {timeout:?}");
        visit.found(FindingKind::BusyThreshold, seen);
    }
    Ok(())
}

fn name(info: &Info) -> Option<String> {
    match (info.get("valkey_version"), info.get("redis_version")) {
        (Some(version), _) => Some(format!("Valkey {version}")),
        (None, version) => Some(format!("Redis {}", version?)),
    }
}

fn standing(info: &Info) -> String {
    let role = match info.get("role") {
        Some("slave") => "replica",
        Some("master") => "primary",
        _ => "role unknown",
    };
    format!("{role}, {}", mode(info).unwrap_or("mode unknown"))
}

/// In the words of Redis, or of Valkey.
fn mode(info: &Info) -> Option<&str> {
    info.get("redis_mode").or_else(|| info.get("server_mode"))
}

fn wrong_mode(mode: Option<&str>, url_is_for_cluster: bool, server: &str) -> Option<Finding> {
    let (kind, seen) = match mode? {
        "cluster" if !url_is_for_cluster => {
            (FindingKind::ClusterMode, "`cluster-enabled` is yes, and the URL is for a single server")
        }
        "sentinel" => (FindingKind::SentinelItself, "what answers is a Sentinel"),
        _ => return None,
    };
    Some(Finding::new(kind, server, seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_must_be_that_of_the_url() {
        let kind = |mode, clustered| wrong_mode(mode, clustered, "a:1").map(|finding| finding.kind());
        assert_eq!(kind(Some("standalone"), false), None);
        assert_eq!(kind(Some("cluster"), false), Some(FindingKind::ClusterMode));
        assert_eq!(kind(Some("cluster"), true), None);
        assert_eq!(kind(Some("sentinel"), false), Some(FindingKind::SentinelItself));
        assert_eq!(kind(None, false), None);
    }
}
