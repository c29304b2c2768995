//! What is on disk and on replicas: what a crash or a failover brings back.

use crate::doctor::kinds::FindingKind;
use crate::doctor::visit::Visit;
use crate::inspect::{Config, Info};

/// Replicas report every second.
const IN_STEP: u64 = 5;

/// What nodes issue again after a loss reaches back this many seconds: `docs/consistency.md`, G11.
const REISSUED: u64 = 30;

pub(crate) fn examine(visit: &mut Visit, info: &Info, config: &Config) {
    disk(visit, info, config);
    replicas(visit, info);
    min_replicas(visit, info, config);
}

fn disk(visit: &mut Visit, info: &Info, config: &Config) {
    let (Some(save), Some(append)) = (config.get("save"), config.get("appendonly")) else { return };
    let fsync = config.get("appendfsync").unwrap_or_default();
    let (shown, finding) = match (append, fsync) {
        ("yes", "no") => (format!("append-only file, `appendfsync` is {fsync}"), Some(FindingKind::FsyncNo)),
        ("yes", "always") => ("append-only file, `appendfsync` is always".to_owned(), None),
        ("yes", _) => {
            (format!("append-only file, `appendfsync` is {fsync}"), Some(FindingKind::FsyncEverySecond))
        }
        _ if save.is_empty() => ("keeps nothing".to_owned(), None),
        _ => (format!("snapshots, `save` is \"{save}\""), Some(FindingKind::Snapshots)),
    };
    if let Some(kind) = finding {
        visit.found(kind, shown.clone());
    }
    visit.fact("disk", shown);
    let stops = config.get("stop-writes-on-bgsave-error") == Some("yes");
    let failed = |name| info.get(name) == Some("err");
    if failed("aof_last_write_status") && append == "yes" {
        visit.found(FindingKind::WritesStopped, "`aof_last_write_status` is err");
    } else if failed("rdb_last_bgsave_status") && stops && !save.is_empty() {
        visit.found(
            FindingKind::WritesStopped,
            "`rdb_last_bgsave_status` is err, and `stop-writes-on-bgsave-error` is yes",
        );
    }
}

fn replicas(visit: &mut Visit, info: &Info) {
    let replicas = Replica::all(info);
    if !replicas.is_empty() {
        visit.fact("replicas", shown(&replicas));
    }
    let late: Vec<_> = replicas.iter().filter(|replica| replica.is_late()).collect();
    if !late.is_empty() {
        visit.found(FindingKind::ReplicaLags, shown(late));
    }
}

fn min_replicas(visit: &mut Visit, info: &Info, config: &Config) {
    let number = |name| config.number(name);
    let (Some(least), Some(lag)) = (number("min-replicas-to-write"), number("min-replicas-max-lag")) else {
        return;
    };
    let replicas = Replica::all(info);
    let seen = format!("`min-replicas-to-write` is {least}, `min-replicas-max-lag` {lag}");
    // A 0 in either switches both off.
    if least == 0 || lag == 0 {
        if !replicas.is_empty() {
            visit.found(FindingKind::NoMinReplicas, seen);
        }
        return;
    }
    // As the server counts them.
    let good = replicas.iter().filter(|replica| replica.online && replica.lag <= lag).count();
    if u64::try_from(good).is_ok_and(|good| good < least) {
        visit.found(FindingKind::TooFewReplicas, format!("{seen}, replicas in step: {good}"));
    }
    if lag > REISSUED {
        visit.found(FindingKind::MinReplicasLagLong, seen);
    }
}

/// As a primary sees it: a line `slave0:ip=10.0.0.1,port=6379,state=online,offset=123,lag=0`.
struct Replica<'a> {
    ip: &'a str,
    port: &'a str,
    online: bool,
    /// In seconds since it last reported.
    lag: u64,
}

impl<'a> Replica<'a> {
    fn all(info: &'a Info) -> Vec<Self> {
        let count = info.number("connected_slaves").unwrap_or_default();
        // A hostile count ends where the lines end.
        (0..count).map_while(|number| Self::parse(info.get(&format!("slave{number}"))?)).collect()
    }

    fn parse(line: &'a str) -> Option<Self> {
        let field =
            |name: &str| line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let online = field("state")? == "online";
        Some(Self { ip: field("ip")?, port: field("port")?, online, lag: field("lag")?.parse().ok()? })
    }

    fn is_late(&self) -> bool {
        !self.online || self.lag >= IN_STEP
    }
}

fn shown<'a>(replicas: impl IntoIterator<Item = &'a Replica<'a>>) -> String {
    let one = |replica: &Replica<'_>| {
        let Replica { ip, port, online, lag } = replica;
        let state = if *online { "online" } else { "not online" };
        format!("{ip}:{port} {state}, last heard of {lag} s ago")
    };
    replicas.into_iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_late_when_it_is_not_online_or_silent() {
        let late =
            |rest: &str| Replica::parse(&format!("ip=::1,port=7,{rest}")).map(|replica| replica.is_late());
        assert_eq!(late("state=online,offset=1,lag=1"), Some(false));
        assert_eq!(late("state=online,offset=1,lag=5"), Some(true));
        assert_eq!(late("state=wait_bgsave,offset=0,lag=0"), Some(true));
        assert_eq!(late("state=online"), None);
    }

    #[test]
    fn a_count_without_lines_is_no_replica() {
        assert!(Replica::all(&Info::new("connected_slaves:99999999999999".to_owned())).is_empty());
    }
}
