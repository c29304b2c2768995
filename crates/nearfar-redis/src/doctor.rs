//! What an operator must know of a server: which of its settings, its state and its distance weaken what nearfar
//! guarantees, and what to do about it.

mod clients;
mod diagnosis;
mod durability;
mod figures;
mod finding;
mod kinds;
mod memory;
mod namespaces;
mod rights;
mod standing;
mod timing;
mod visit;

pub use diagnosis::{Diagnosis, Examination, Fact};
pub use finding::{Finding, Severity};
pub use kinds::FindingKind;
pub(crate) use memory::full;
pub use namespaces::{Expected, Subject};

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Options, Server as Address};
use nearfar_core::Namespace;
use tokio::time::Instant;

use crate::connect::first_connection;
use crate::error::ConnectError;
use crate::options::RedisOptions;
use crate::server::Server;
use visit::{Answered, Visit, patience};

/// However many questions there are, and however slowly they are answered.
const COMMAND_TIMEOUTS: u32 = 30;

/// What is asked by `CONFIG GET`.
const SETTINGS: &[&str] = &[
    "client-output-buffer-limit",
    "lua-time-limit",
    "save",
    "appendonly",
    "appendfsync",
    "stop-writes-on-bgsave-error",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "timeout",
    "tcp-keepalive",
];

/// Connects as [`connect`](crate::connect) does, with connections of its own, and looks for what weakens nearfar's
/// guarantees on this server. That it cannot connect is a finding too, and then the only one.
///
/// Nothing is stored, and nothing is sent to the nodes of a namespace. Rights are found out by trying, on the
/// namespaces of `subjects`, so a user who lacks one gets a line in `ACL LOG`. What may not be asked is a note.
///
/// Takes as long as connecting, and some 30 round trips. A server that stops answering costs two
/// [`command_timeout`](RedisOptions::command_timeout)s; 30 of them is the most that it takes after
/// [`connect_timeout`](RedisOptions::connect_timeout).
/// [`on_unreachable`](RedisOptions::on_unreachable) and [`log_len`](RedisOptions::log_len) do not matter.
///
/// # Panics
/// Outside of a tokio runtime.
///
/// # Examples
/// ```
/// use nearfar_redis::{FindingKind, OnUnreachable, RedisOptions, Severity, diagnose};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let options = RedisOptions {
///     url: "redis://127.0.0.1:1".into(), // where nobody listens
///     tls: None,
///     connect_timeout: Duration::from_secs(5),
///     command_timeout: Duration::from_secs(1),
///     log_len: 0,
///     on_unreachable: OnUnreachable::Fail,
/// };
/// let diagnosis = diagnose(&options, &[]).await;
/// assert_eq!(diagnosis.worst(), Some(Severity::Critical));
/// assert!(diagnosis.to_string().contains("critical (unreachable)"));
/// # }
/// ```
pub async fn diagnose(options: &RedisOptions, subjects: &[Subject]) -> Diagnosis {
    let server = match Server::new(options) {
        Ok(server) => server,
        Err(error) => return failed(String::new(), &error),
    };
    let wire = match first_connection(&server, options.connect_timeout).await {
        Ok(wire) => wire,
        Err(error) => return failed(server.address(), &error),
    };
    let limit = options.command_timeout.saturating_mul(COMMAND_TIMEOUTS);
    let round = Round { client: &wire.client, server: &server, options, until: patience(limit) };
    Diagnosis::new(round.examinations(subjects).await)
}

fn failed(server: String, error: &ConnectError) -> Diagnosis {
    let findings = vec![refused(error)];
    let server = if server.is_empty() { "no server".to_owned() } else { server };
    Diagnosis::new(vec![Examination { server, facts: Vec::new(), findings }])
}

/// Why connecting fails, as a finding.
pub(crate) fn refused(error: &ConnectError) -> Finding {
    let (kind, server) = match error {
        ConnectError::BadUrl(_) | ConnectError::BadTls(_) => (FindingKind::BadUrl, "no server"),
        ConnectError::Tls { server, .. } => (FindingKind::Tls, server.as_str()),
        ConnectError::Unreachable { server, .. } => (FindingKind::Unreachable, server.as_str()),
        ConnectError::AuthRefused { server, .. } => (FindingKind::LoginRefused, server.as_str()),
        ConnectError::TooOld { server, .. } => (FindingKind::TooOld, server.as_str()),
        ConnectError::ReadOnlyReplica { server, .. } => (FindingKind::Replica, server.as_str()),
        ConnectError::IsOfCluster { server } => (FindingKind::ClusterMode, server.as_str()),
        ConnectError::IsNoCluster { server } => (FindingKind::NoCluster, server.as_str()),
        ConnectError::NoSlots { server } => (FindingKind::NoSlots, server.as_str()),
        ConnectError::MissingRight { server, .. } => (FindingKind::RightsMissing, server.as_str()),
        ConnectError::ScriptsDisabled { server, .. } => (FindingKind::ScriptsRefused, server.as_str()),
    };
    Finding::new(kind, server, error.to_string())
}

/// One round over all servers that a client is connected to: the one server, behind Sentinel the primary, of a cluster
/// all primaries.
struct Round<'a> {
    client: &'a Client,
    server: &'a Server,
    options: &'a RedisOptions,
    until: Instant,
}

impl Round<'_> {
    async fn examinations(&self, subjects: &[Subject]) -> Vec<Examination> {
        let bound = subjects.iter().filter_map(|subject| Some(subject.expected?.max_staleness)).min();
        let addresses = self.client.active_connections();
        if !self.client.is_clustered() {
            let address = addresses.first().map_or_else(|| self.server.address(), shown);
            let mut visit = self.visit(address, None);
            let outcome = self.both(&mut visit, bound, subjects).await;
            return vec![visit.ended(outcome)];
        }
        let mut examinations = Vec::new();
        for address in &addresses {
            let mut visit = self.visit(shown(address), Some(address.clone()));
            let outcome = self.one_server(&mut visit, bound).await;
            examinations.push(visit.ended(outcome));
        }
        // What stands in the cluster is found by its keys, wherever it is.
        let all: Vec<_> = addresses.iter().map(shown).collect();
        let mut visit = self.visit(all.join(","), None);
        let outcome = self.shared(&mut visit, subjects).await;
        examinations.push(visit.ended(outcome));
        examinations
    }

    fn visit(&self, address: String, cluster_node: Option<Address>) -> Visit {
        let options = Options { cluster_node, ..self.server.once() };
        Visit::new(self.client, options, address, self.options.command_timeout, self.until)
    }

    async fn both(&self, visit: &mut Visit, bound: Option<Duration>, subjects: &[Subject]) -> Answered<()> {
        self.one_server(visit, bound).await?;
        self.shared(visit, subjects).await
    }

    async fn one_server(&self, visit: &mut Visit, bound: Option<Duration>) -> Answered<()> {
        let info = visit.info().await?;
        standing::examine_mode(visit, &info)?;
        let config = visit.config(SETTINGS).await?;
        standing::examine(visit, self.server, &info, &config).await?;
        memory::examine(visit, &info, &config);
        durability::examine(visit, &info, &config);
        clients::examine(visit, &info, &config);
        timing::examine(visit, bound).await
    }

    async fn shared(&self, visit: &mut Visit, subjects: &[Subject]) -> Answered<()> {
        let mut named = Vec::new();
        for Subject { name, expected } in subjects {
            match Namespace::new(name) {
                Ok(namespace) => named.push((namespace, *expected)),
                Err(problem) => visit.found(FindingKind::BadNamespace, format!("{name:?}: {problem}")),
            }
        }
        rights::examine(visit, self.server, named.iter().map(|(namespace, _)| namespace)).await?;
        for (namespace, expected) in &named {
            namespaces::examine(visit, namespace, *expected).await?;
        }
        Ok(())
    }
}

fn shown(address: &Address) -> String {
    format!("{}:{}", address.host, address.port)
}
