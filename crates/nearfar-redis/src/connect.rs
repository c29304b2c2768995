use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::{ClientLike, ClusterInterface};
use fred::types::{Value, Version};
use futures_util::future::join_all;
use nearfar_core::backend::ServerId;

use crate::bus::RedisBus;
use crate::connection::Connection;
use crate::doctor::{Finding, full};
use crate::error::{Cause, ConnectError, is_noperm, is_unknown_command};
use crate::inspect::Info;
use crate::lane::Lane;
use crate::lanes::Lanes;
use crate::link::Link;
use crate::options::{OnUnreachable, RedisOptions};
use crate::scripts::probe;
use crate::sentinel::{self, Place};
use crate::server::Server;
use crate::store::RedisL2;
use crate::tls::TlsProblem;
use crate::topology::{Sentinels, SlotRange, Topology};
use crate::wire::Wire;

/// Connects to a server: a store and a bus, each with a connection of its own.
///
/// # Errors
/// [`ConnectError`], within [`RedisOptions::connect_timeout`]. With [`OnUnreachable::StartDegraded`] only for a URL that
/// cannot be used.
///
/// # Panics
/// Outside of a tokio runtime.
///
/// # Examples
/// ```
/// use nearfar_redis::{ConnectError, OnUnreachable, RedisOptions, connect};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let options = RedisOptions {
///     url: "redis://127.0.0.1:1".into(), // where nobody listens
///     tls: None,
///     connect_timeout: Duration::from_secs(5),
///     command_timeout: Duration::from_millis(500),
///     log_len: 10_000,
///     on_unreachable: OnUnreachable::Fail,
/// };
/// let error = connect(options).await.unwrap_err();
/// assert!(matches!(error, ConnectError::Unreachable { .. }));
/// assert!(error.to_string().contains("127.0.0.1:1"));
/// # }
/// ```
pub async fn connect(options: RedisOptions) -> Result<(RedisL2, RedisBus), ConnectError> {
    let server = Arc::new(Server::new(&options)?);
    let limit = options.command_timeout;
    let (fails, time) = (options.on_unreachable == OnUnreachable::Fail, options.connect_timeout);
    let parts = if let Some(seeds) = server.seeds() {
        if fails {
            in_time(&server, time, |note| cluster(seeds, limit, note)).await?
        } else {
            Parts::without_connections(Topology::cluster(seeds))
        }
    } else if let Some((council, service)) = server.sentinels() {
        let sentinels = Sentinels { council, service, primary: Arc::clone(&server) };
        if fails {
            in_time(&server, time, |note| watched(&server, sentinels, limit, note)).await?
        } else {
            // Until the sentinels are heard, one of them stands for the primary, and refuses everything.
            Parts::without_connections(Topology::sentinel(Arc::clone(&sentinels.council[0]), sentinels))
        }
    } else if fails {
        in_time(&server, time, |note| single(&server, limit, note)).await?
    } else {
        Parts::opening(server, limit)
    };
    let Parts { topology, lanes, link, warnings } = parts;
    let bus = RedisBus::new(Arc::clone(&topology), link);
    Ok((RedisL2::new(Lanes::new(topology, lanes, limit), options.log_len, warnings), bus))
}

struct Parts {
    topology: Arc<Topology>,
    lanes: BTreeMap<ServerId, Arc<Lane>>,
    link: Option<Link>,
    warnings: Vec<Finding>,
}

impl Parts {
    fn opening(server: Arc<Server>, limit: Duration) -> Self {
        let topology = Arc::new(Topology::single(Arc::clone(&server)));
        let link = Some(Link::open(&server, &topology));
        let lanes = [(ServerId::default(), Arc::new(Lane::opening(server, limit)))].into();
        Self { topology, lanes, link, warnings: Vec::new() }
    }

    /// Its connections come when they are needed.
    fn without_connections(topology: Topology) -> Self {
        Self { topology: Arc::new(topology), lanes: BTreeMap::new(), link: None, warnings: Vec::new() }
    }
}

/// A connection for commands alone, with nothing asked of the server yet.
pub(crate) async fn first_connection(server: &Server, limit: Duration) -> Result<Wire, ConnectError> {
    in_time(server, limit, |note| reached(server, note)).await
}

/// What servers there are, as far as a URL, a Sentinel or one of a cluster's servers tells.
pub(crate) async fn surveyed(server: Arc<Server>, limit: Duration) -> Result<Topology, ConnectError> {
    in_time(&server, limit, |note| survey_of(&server, note)).await
}

async fn survey_of(server: &Arc<Server>, note: Note) -> Result<Topology, ConnectError> {
    if let Some(seeds) = server.seeds() {
        let topology = Topology::cluster(seeds.clone());
        survey(&topology, seeds, &note).await?;
        Ok(topology)
    } else if let Some((council, service)) = server.sentinels() {
        let sentinels = Sentinels { council, service, primary: Arc::clone(server) };
        let (host, port) = ask_for_primary(&sentinels, &note).await?;
        Ok(Topology::sentinel(Arc::new(server.at(&host, port)), sentinels))
    } else {
        Ok(Topology::single(Arc::clone(server)))
    }
}

/// Somewhere to put what went wrong last, for when the time is up.
#[derive(Clone, Default)]
struct Note(Arc<Mutex<Option<Cause>>>);

impl Note {
    fn take_down(&self, error: &FredError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Cause::new(error));
    }

    fn read(&self) -> Option<Cause> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn in_time<T, F>(
    server: &Server,
    limit: Duration,
    connecting: impl FnOnce(Note) -> F,
) -> Result<T, ConnectError>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let note = Note::default();
    within(limit, server, &note, connecting(note.clone())).await
}

async fn within<T>(
    limit: Duration,
    server: &Server,
    note: &Note,
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    // Boxed, since connecting takes some 8 KiB, and this is done within this.
    let connecting = Box::pin(connecting);
    let outcome = tokio::time::timeout(limit, or_silence(server, limit / 2, connecting)).await;
    outcome
        .unwrap_or_else(|_| Err(ConnectError::Unreachable { server: server.address(), cause: note.read() }))
}

/// Waits for `connecting`, and looks after a while whether the server waits as well.
async fn or_silence<T>(
    server: &Server,
    after: Duration,
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let mut connecting = pin!(connecting);
    if let Ok(outcome) = tokio::time::timeout(after, &mut connecting).await {
        return outcome;
    }
    tokio::select! {
        outcome = connecting => outcome,
        problem = silence(server) => Err(ConnectError::Tls { server: server.address(), problem }),
    }
}

/// What is wrong with a server that has said nothing for so long; does not return if that is not known.
async fn silence(server: &Server) -> TlsProblem {
    if server.is_plain().await { TlsProblem::ServerIsPlain } else { std::future::pending().await }
}

/// Connects to the one server, which must not be one of a cluster.
async fn single(server: &Arc<Server>, limit: Duration, note: Note) -> Result<Parts, ConnectError> {
    let topology = Arc::new(Topology::single(Arc::clone(server)));
    let mut link = Link::open(server, &topology);
    let linked = async {
        match link.established(|error| note.take_down(error)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(refusal(server, &error).await),
        }
    };
    let (arrival, ()) = tokio::try_join!(arrive(server, &note), linked)?;
    if arrival.info.is_of_cluster() {
        return Err(ConnectError::IsOfCluster { server: server.address() });
    }
    let lane = Lane::new(Arc::clone(server), arrival.connection, limit);
    let lanes = [(ServerId::default(), Arc::new(lane))].into();
    let warnings = full(&arrival.info, &server.address()).into_iter().collect();
    Ok(Parts { topology, lanes, link: Some(link), warnings })
}

/// Connects to the primary that the sentinels name.
async fn watched(
    server: &Server,
    sentinels: Sentinels,
    limit: Duration,
    note: Note,
) -> Result<Parts, ConnectError> {
    let (host, port) = ask_for_primary(&sentinels, &note).await?;
    let primary = Arc::new(server.at(&host, port));
    let arrival = or_silence(&primary, primary.attempt() / 2, arrive(&primary, &note)).await?;
    let warnings = full(&arrival.info, &primary.address()).into_iter().collect();
    let lane = Lane::new(Arc::clone(&primary), arrival.connection, limit);
    let lanes = [(ServerId::default(), Arc::new(lane))].into();
    let topology = Arc::new(Topology::sentinel(primary, sentinels));
    Ok(Parts { topology, lanes, link: None, warnings })
}

/// The first sentinel that can be asked says who is the primary.
async fn ask_for_primary(sentinels: &Sentinels, note: &Note) -> Result<Place, ConnectError> {
    let mut last = None;
    for sentinel in &sentinels.council {
        match ask_sentinel(sentinel, &sentinels.service, note).await {
            Ok(Some(place)) => return Ok(place),
            Ok(None) => {
                let (server, service) = (sentinel.address(), sentinels.service.clone());
                last = Some(ConnectError::UnknownService { server, service });
            }
            Err(error) => last = last.or(Some(error)),
        }
    }
    Err(last.expect("a URL names one at least"))
}

async fn ask_sentinel(sentinel: &Server, service: &str, note: &Note) -> Result<Option<Place>, ConnectError> {
    let wire = ready(sentinel, note).await?;
    let answer = sentinel::named(&wire.client.with_options(&sentinel.once()), service.to_owned()).await;
    answer.map_err(|error| probe_refusal(sentinel, "SENTINEL", &error))
}

/// Connects to all servers that have slots, which the first of the seeds tells that can be asked.
async fn cluster(seeds: Vec<Arc<Server>>, limit: Duration, note: Note) -> Result<Parts, ConnectError> {
    let topology = Topology::cluster(seeds.clone());
    survey(&topology, seeds, &note).await?;
    let owners: Vec<_> = topology.owners().into_iter().map(|id| (id, topology.server(id))).collect();
    let arrivals = owners.into_iter().map(|(id, server)| {
        let note = &note;
        async move { (id, within(server.attempt(), &server, note, arrive(&server, note)).await, server) }
    });
    let (mut parts, mut sharded) = (Parts::without_connections(topology), true);
    for (id, arrival, server) in join_all(arrivals).await {
        let lane = match arrival {
            Ok(arrival) => {
                parts.warnings.extend(full(&arrival.info, &server.address()));
                sharded &= arrival.info.has_sharded_channels();
                Lane::new(server, arrival.connection, limit)
            }
            // It may be the one that is being replaced just now. Whether its partitions are there, `build` will see.
            Err(ConnectError::Unreachable { .. }) => Lane::opening(server, limit),
            Err(error) => return Err(error),
        };
        parts.lanes.insert(id, Arc::new(lane));
    }
    parts.topology.set_sharded(sharded);
    Ok(parts)
}

/// Has one of the seeds tell what the cluster looks like.
async fn survey(topology: &Topology, seeds: Vec<Arc<Server>>, note: &Note) -> Result<(), ConnectError> {
    let mut seeds = seeds.into_iter().peekable();
    while let Some(seed) = seeds.next() {
        match (ask_for_slots(&seed, note).await, seeds.peek()) {
            (Ok(ranges), _) if !ranges.is_empty() => {
                topology.learn(&ranges, &seed);
                return Ok(());
            }
            (Ok(_), None) => return Err(ConnectError::NoSlots { server: seed.address() }),
            (Err(error), None) => return Err(error),
            (_, Some(_)) => {}
        }
    }
    Ok(())
}

async fn ask_for_slots(seed: &Server, note: &Note) -> Result<Vec<SlotRange>, ConnectError> {
    let wire = ready(seed, note).await?;
    let client = wire.client.with_options(&seed.once());
    match Box::pin(client.cluster_slots::<Value>()).await {
        Ok(answer) => Ok(SlotRange::parse_all(answer)),
        Err(error) if error.details().contains("cluster support disabled") => {
            Err(ConnectError::IsNoCluster { server: seed.address() })
        }
        Err(error) => Err(probe_refusal(seed, "CLUSTER", &error)),
    }
}

/// A connection to one of several servers that could be asked, within the time of one attempt.
async fn ready(server: &Server, note: &Note) -> Result<Wire, ConnectError> {
    within(server.attempt(), server, note, reached(server, note.clone())).await
}

/// A server that was connected to and found fit.
struct Arrival {
    connection: Connection,
    info: Info,
}

async fn arrive(server: &Server, note: &Note) -> Result<Arrival, ConnectError> {
    let wire = reached(server, note.clone()).await?;
    check_version(server, wire.client.server_version().as_ref())?;
    let client = wire.client.with_options(&server.once());
    let info = Info::of(&client).await;
    if let Some(primary) = info.primary() {
        return Err(ConnectError::ReadOnlyReplica { server: server.address(), primary });
    }
    probe(&client).await.map_err(|(command, error)| probe_refusal(server, command, &error))?;
    Ok(Arrival { connection: Connection::established(wire, &server.once()), info })
}

async fn reached(server: &Server, note: Note) -> Result<Wire, ConnectError> {
    let mut wire = Wire::open(server.command_client());
    match wire.established(|error| note.take_down(error)).await {
        Ok(()) => Ok(wire),
        Err(error) => Err(refusal(server, &error).await),
    }
}

async fn refusal(server: &Server, error: &FredError) -> ConnectError {
    let (address, cause) = (server.address(), Cause::new(error));
    match error.kind() {
        ErrorKind::Auth => ConnectError::AuthRefused { server: address, cause },
        // Before Redis 6 there was no HELLO.
        _ if is_unknown_command(error) => ConnectError::TooOld { server: address, version: None },
        _ if is_noperm(error) => ConnectError::MissingRight { server: address, cause },
        _ => match server.tls_problem().await {
            Some(problem) => ConnectError::Tls { server: address, problem },
            None => ConnectError::Unreachable { server: address, cause: Some(cause) },
        },
    }
}

/// A server that is still loading its data, say, does not forbid scripts.
pub(crate) fn probe_refusal(server: &Server, command: &'static str, error: &FredError) -> ConnectError {
    let (server, cause) = (server.address(), Cause::new(error));
    if is_noperm(error) {
        ConnectError::MissingRight { server, cause }
    } else if is_unknown_command(error) {
        ConnectError::ScriptsDisabled { server, command }
    } else {
        ConnectError::Unreachable { server, cause: Some(cause) }
    }
}

/// A user without the right to INFO hides the version; then the scripts will tell.
pub(crate) fn check_version(server: &Server, version: Option<&Version>) -> Result<(), ConnectError> {
    match version {
        Some(version) if (version.major, version.minor) < (6, 2) => {
            Err(ConnectError::TooOld { server: server.address(), version: Some(version.to_string()) })
        }
        _ => Ok(()),
    }
}
