//! What an operator must know of a server: which of its settings, its state and its distance weaken what nearfar
//! guarantees, and what to do about it.

mod clients;
mod cluster;
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

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use nearfar_core::Namespace;
use nearfar_core::backend::ServerId;

use crate::connect::{first_connection, surveyed};
use crate::error::ConnectError;
use crate::options::RedisOptions;
use crate::server::Server;
use crate::store::default_partitions;
use crate::topology::Topology;
use visit::{Answered, Visit};

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
    "cluster-require-full-coverage",
    "cluster-node-timeout",
];

/// Connects as [`connect`](crate::connect) does, with connections of its own, and looks for what weakens nearfar's
/// guarantees on this server. That it cannot connect is a finding too, and then the only one.
///
/// Nothing is stored, and nothing is sent to the nodes of a namespace. Rights are found out by trying, on the
/// namespaces of `subjects`, so a user who lacks one gets a line in `ACL LOG`. What may not be asked is a note.
///
/// Of a cluster, each server that has slots is examined, all at once, and the partitions of a namespace where they are.
///
/// Takes as long as connecting, some 30 round trips, and two per partition. A server that stops answering costs two
/// [`command_timeout`](RedisOptions::command_timeout)s; 30 of them is the most that it takes after
/// [`connect_timeout`](RedisOptions::connect_timeout), which a cluster takes twice.
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
        Ok(server) => Arc::new(server),
        Err(error) => return Diagnosis::new(vec![failed(String::new(), &error)]),
    };
    let topology = match surveyed(Arc::clone(&server), options.connect_timeout).await {
        Ok(topology) => topology,
        Err(error) => return Diagnosis::new(vec![failed(server.address(), &error)]),
    };
    let mut round = Round { options, topology, failed: Vec::new(), visits: BTreeMap::new() };
    round.servers(subjects).await;
    round.namespaces(subjects).await;
    Diagnosis::new(round.ended())
}

fn failed(server: String, error: &ConnectError) -> Examination {
    let server = if server.is_empty() { "no server".to_owned() } else { server };
    Examination { findings: vec![refused(error)], ..Examination::new(server) }
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
        ConnectError::UnknownService { server, .. } => (FindingKind::UnknownService, server.as_str()),
        ConnectError::MissingRight { server, .. } => (FindingKind::RightsMissing, server.as_str()),
        ConnectError::ScriptsDisabled { server, .. } => (FindingKind::ScriptsRefused, server.as_str()),
    };
    Finding::new(kind, server, error.to_string())
}

/// One round over all servers: the one of the URL, behind Sentinels the primary, of a cluster all that have slots.
struct Round<'a> {
    options: &'a RedisOptions,
    topology: Topology,
    /// Those that could not be connected to.
    failed: Vec<Examination>,
    visits: BTreeMap<ServerId, Visit>,
}

impl Round<'_> {
    /// Examines all servers at once, each for itself.
    async fn servers(&mut self, subjects: &[Subject]) {
        let ids = self.topology.owners();
        let visits = join_all(ids.iter().map(|&id| self.visit(self.topology.server(id), subjects))).await;
        for (id, visit) in ids.into_iter().zip(visits) {
            match visit {
                Ok(visit) => drop(self.visits.insert(id, visit)),
                Err(failed) => self.failed.push(failed),
            }
        }
    }

    async fn visit(&self, server: Arc<Server>, subjects: &[Subject]) -> Result<Visit, Examination> {
        let (limit, timeout) = (self.options.connect_timeout, self.options.command_timeout);
        let wire = first_connection(&server, limit).await;
        let wire = wire.map_err(|error| failed(server.address(), &error))?;
        let mut visit = Visit::new(wire, &server, timeout, self.topology.is_cluster());
        let outcome = examine(&mut visit, &server, subjects).await;
        visit.kept(outcome);
        Ok(visit)
    }

    /// Looks at what stands of the namespaces, wherever that is.
    async fn namespaces(&mut self, subjects: &[Subject]) {
        for Subject { name, expected } in subjects {
            match Namespace::new(name) {
                Ok(namespace) => namespaces::examine(self, &namespace, *expected).await,
                Err(problem) => {
                    if let Some(first) = self.visits.values_mut().next() {
                        first.found(FindingKind::BadNamespace, format!("{name:?}: {problem}"));
                    }
                }
            }
        }
    }

    /// The visit to a server, as long as it answers.
    fn at(&mut self, server: ServerId) -> Option<&mut Visit> {
        self.visits.get_mut(&server).filter(|visit| !visit.is_over())
    }

    fn ended(self) -> Vec<Examination> {
        self.failed.into_iter().chain(self.visits.into_values().map(Visit::ended)).collect()
    }
}

/// Examines one server, and the rights on it of namespaces that may be anywhere.
async fn examine(visit: &mut Visit, server: &Server, subjects: &[Subject]) -> Answered<()> {
    let info = visit.info().await?;
    standing::examine_mode(visit, &info)?;
    let config = visit.config(SETTINGS).await?;
    standing::examine(visit, server, &info, &config).await?;
    memory::examine(visit, &info, &config);
    durability::examine(visit, &info, &config);
    clients::examine(visit, &info, &config);
    if visit.of_cluster {
        cluster::examine(visit, &info, &config).await?;
    }
    let bound = subjects.iter().filter_map(|subject| Some(subject.expected?.max_staleness)).min();
    timing::examine(visit, bound).await?;
    rights::examine(visit, server, &with_partitions(subjects, visit.of_cluster)).await
}

/// How many partitions the namespaces have, or will have if nobody says otherwise.
fn with_partitions(subjects: &[Subject], on_a_cluster: bool) -> Vec<(Namespace, u16)> {
    let named = subjects.iter().filter_map(|Subject { name, expected }| {
        let partitions = expected.map(|expected| expected.settings.partitions);
        Some((Namespace::new(name).ok()?, partitions.unwrap_or_else(|| default_partitions(on_a_cluster))))
    });
    named.collect()
}
