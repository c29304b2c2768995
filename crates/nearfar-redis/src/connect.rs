use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::Version;

use crate::bus::RedisBus;
use crate::connection::Connection;
use crate::doctor::{Finding, full};
use crate::error::{Cause, ConnectError};
use crate::inspect::Info;
use crate::link::Link;
use crate::options::{OnUnreachable, RedisOptions};
use crate::scripts::probe;
use crate::server::Server;
use crate::store::RedisL2;
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
    let server = Arc::new(Server::new(&options).map_err(ConnectError::BadUrl)?);
    let Parts { connection, link, warning } = match options.on_unreachable {
        OnUnreachable::Fail => established(&server, options.connect_timeout).await?,
        OnUnreachable::StartDegraded => opening(&server),
    };
    let store = RedisL2::new(Arc::clone(&server), connection, options.log_len, options.command_timeout);
    Ok((store.warned(warning), RedisBus::new(server, link)))
}

struct Parts {
    connection: Connection,
    link: Link,
    warning: Option<Finding>,
}

fn opening(server: &Arc<Server>) -> Parts {
    let wire = Wire::open(server.command_client());
    let connection = Connection::opening(wire, &server.once());
    Parts { connection, link: Link::open(server), warning: None }
}

async fn established(server: &Arc<Server>, limit: Duration) -> Result<Parts, ConnectError> {
    let last = LastFailure::default();
    in_time(server, limit, &last, checked(server, &last)).await
}

/// A connection for commands alone, with nothing asked of the server yet.
pub(crate) async fn first_connection(server: &Server, limit: Duration) -> Result<Wire, ConnectError> {
    let last = LastFailure::default();
    let opening = async {
        let mut wire = Wire::open(server.command_client());
        wire.established(|error| last.note(error)).await.map_err(|error| refusal(server, &error))?;
        Ok(wire)
    };
    in_time(server, limit, &last, opening).await
}

/// What went wrong last, for when the time is up.
#[derive(Default)]
struct LastFailure(Mutex<Option<Cause>>);

impl LastFailure {
    fn note(&self, error: &FredError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Cause::new(error));
    }
}

async fn in_time<T>(
    server: &Server,
    limit: Duration,
    last: &LastFailure,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let cause = last.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(ConnectError::Unreachable { server: server.address(), cause })
    })
}

async fn checked(server: &Arc<Server>, last: &LastFailure) -> Result<Parts, ConnectError> {
    let note = |error: &FredError| last.note(error);
    let (mut wire, mut link) = (Wire::open(server.command_client()), Link::open(server));
    let both = tokio::try_join!(wire.established(&note), link.established(&note));
    both.map_err(|error| refusal(server, &error))?;
    check_version(server, wire.client.server_version())?;
    let client = wire.client.with_options(&server.once());
    let info = Info::of(&client).await;
    if let Some(primary) = info.primary() {
        return Err(ConnectError::ReadOnlyReplica { server: server.address(), primary });
    }
    probe(&client).await.map_err(|error| probe_refusal(server, &error))?;
    let connection = Connection::established(wire, &server.once());
    Ok(Parts { connection, link, warning: full(&info, &server.address()) })
}

fn refusal(server: &Server, error: &FredError) -> ConnectError {
    let (server, cause) = (server.address(), Cause::new(error));
    match error.kind() {
        ErrorKind::Auth => ConnectError::AuthRefused { server, cause },
        // Before Redis 6 there was no HELLO.
        _ if error.details().contains("unknown command") => ConnectError::TooOld { server, version: None },
        _ => ConnectError::Unreachable { server, cause: Some(cause) },
    }
}

/// A server that is still loading its data, say, does not forbid scripts.
pub(crate) fn probe_refusal(server: &Server, error: &FredError) -> ConnectError {
    let (server, cause) = (server.address(), Cause::new(error));
    let details = error.details();
    if details.starts_with("NOPERM") || details.contains("unknown command") {
        ConnectError::ScriptsRefused { server, cause }
    } else {
        ConnectError::Unreachable { server, cause: Some(cause) }
    }
}

/// A user without the right to INFO hides the version; then the scripts will tell.
pub(crate) fn check_version(server: &Server, version: Option<Version>) -> Result<(), ConnectError> {
    match version {
        Some(version) if (version.major, version.minor) < (6, 2) => {
            Err(ConnectError::TooOld { server: server.address(), version: Some(version.to_string()) })
        }
        _ => Ok(()),
    }
}
