use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::Version;

use crate::bus::RedisBus;
use crate::connection::Connection;
use crate::error::{Cause, ConnectError, is_noperm, is_unknown_command};
use crate::inspect::Info;
use crate::link::Link;
use crate::options::{OnUnreachable, RedisOptions};
use crate::scripts::probe;
use crate::server::Server;
use crate::store::RedisL2;
use crate::tls::TlsProblem;
use crate::warning::Warning;
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
    warning: Option<Warning>,
}

fn opening(server: &Arc<Server>) -> Parts {
    let wire = Wire::open(server.command_client());
    let connection = Connection::opening(wire, &server.once());
    Parts { connection, link: Link::open(server), warning: None }
}

async fn established(server: &Arc<Server>, limit: Duration) -> Result<Parts, ConnectError> {
    // What went wrong last, for when the time is up.
    let last = Mutex::new(None);
    let note =
        |error: &FredError| *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Cause::new(error));
    let work = async {
        let mut work = pin!(checked(server, note));
        if let Ok(outcome) = tokio::time::timeout(limit / 2, &mut work).await {
            return outcome;
        }
        tokio::select! {
            outcome = work => outcome,
            problem = silence(server) => Err(ConnectError::Tls { server: server.address(), problem }),
        }
    };
    let outcome = tokio::time::timeout(limit, work).await;
    outcome.unwrap_or_else(|_| {
        let cause = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        Err(ConnectError::Unreachable { server: server.address(), cause })
    })
}

/// What is wrong with a server that has said nothing for so long; does not return if that is not known.
async fn silence(server: &Server) -> TlsProblem {
    if server.is_plain().await { TlsProblem::ServerIsPlain } else { std::future::pending().await }
}

async fn checked(server: &Arc<Server>, note: impl Fn(&FredError)) -> Result<Parts, ConnectError> {
    let (mut wire, mut link) = (Wire::open(server.command_client()), Link::open(server));
    let both = tokio::try_join!(wire.established(&note), link.established(&note));
    if let Err(error) = both {
        return Err(refusal(server, &error).await);
    }
    check_version(server, wire.client.server_version())?;
    let client = wire.client.with_options(&server.once());
    let info = Info::of(&client).await;
    if let Some(primary) = info.primary() {
        return Err(ConnectError::ReadOnlyReplica { server: server.address(), primary });
    }
    probe(&client).await.map_err(|(command, error)| probe_refusal(server, command, &error))?;
    let connection = Connection::established(wire, &server.once());
    Ok(Parts { connection, link, warning: info.memory_warning() })
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
fn probe_refusal(server: &Server, command: &'static str, error: &FredError) -> ConnectError {
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
fn check_version(server: &Server, version: Option<Version>) -> Result<(), ConnectError> {
    match version {
        Some(version) if (version.major, version.minor) < (6, 2) => {
            Err(ConnectError::TooOld { server: server.address(), version: Some(version.to_string()) })
        }
        _ => Ok(()),
    }
}
