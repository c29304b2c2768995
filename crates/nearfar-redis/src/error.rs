use std::fmt;
use std::sync::Arc;

use fred::error::{Error as FredError, ErrorKind};
use nearfar_core::backend::L2Error;

use crate::tls::{TlsProblem, TlsSettingProblem};

/// What the server or the network said, as text. It never holds a URL or a password.
///
/// ```
/// fn shown(cause: &nearfar_redis::Cause) -> String {
///     cause.to_string()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause(Arc<str>);

impl Cause {
    pub(crate) fn new(error: &FredError) -> Self {
        Self(plain(error.details()).into())
    }

    #[cfg(feature = "tls")]
    pub(crate) fn of(reason: &impl fmt::Display) -> Self {
        Self(reason.to_string().into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {}

/// fred formats I/O errors for debugging: `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
/// Redis repeats the arguments of a command that it does not know; those of HELLO hold the password.
fn plain(details: &str) -> &str {
    let details = details.split_once(", with args").map_or(details, |(command, _)| command);
    let message = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    message.map_or(details, |(message, _)| message)
}

/// Why [`connect`](crate::connect) failed.
///
/// ```
/// use nearfar_redis::{ConnectError, UrlProblem};
///
/// let error = ConnectError::BadUrl(UrlProblem::Scheme);
/// assert!(error.to_string().contains("redis://"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be used.
    BadUrl(UrlProblem),
    /// The settings for TLS cannot be used.
    BadTls(TlsSettingProblem),
    /// The server is there, and no connection comes about for want of TLS, or with TLS.
    Tls {
        /// `host:port`, of several the ones that were tried.
        server: String,
        /// What is wrong.
        problem: TlsProblem,
    },
    /// Nothing answered within the time limit, or the connection was refused.
    Unreachable {
        /// `host:port`, of several the ones that were tried.
        server: String,
        /// What went wrong last; `None` if nothing was heard at all.
        cause: Option<Cause>,
    },
    /// The server does not accept the user or the password.
    AuthRefused {
        /// `host:port`.
        server: String,
        /// What it said.
        cause: Cause,
    },
    /// The server is older than Redis 6.2.
    TooOld {
        /// `host:port`.
        server: String,
        /// Its version; `None` if it is too old even to say.
        version: Option<String>,
    },
    /// The server is a replica that takes no writes.
    ReadOnlyReplica {
        /// `host:port`.
        server: String,
        /// Its primary's `host:port`, as the replica knows it.
        primary: String,
    },
    /// The server is one of a cluster, and the URL does not say so.
    IsOfCluster {
        /// `host:port`.
        server: String,
    },
    /// The URL asks for a cluster, and the server is none of one.
    IsNoCluster {
        /// `host:port`.
        server: String,
    },
    /// The cluster has given its slots to nobody yet.
    NoSlots {
        /// `host:port` of the server that said so.
        server: String,
    },
    /// The sentinels watch no primary of that name.
    UnknownService {
        /// `host:port` of a sentinel.
        server: String,
        /// The name in the URL, `sentinelServiceName`.
        service: String,
    },
    /// The user may not do something that is needed from the start.
    MissingRight {
        /// `host:port`.
        server: String,
        /// What it said, with the name of the command.
        cause: Cause,
    },
    /// The server does not run scripts, without which no step is atomic.
    ScriptsDisabled {
        /// `host:port`.
        server: String,
        /// The command that it does not know: `EVAL` or `EVALSHA`.
        command: &'static str,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl(problem) => write!(f, "the Redis URL cannot be used: {problem}"),
            Self::BadTls(problem) => write!(f, "the TLS settings cannot be used: {problem}"),
            Self::Tls { server, problem } => write!(f, "cannot talk to Redis at {server}: {problem}"),
            Self::Unreachable { server, cause: Some(cause) } => {
                write!(f, "cannot reach Redis at {server}: {cause}")
            }
            Self::Unreachable { server, cause: None } => {
                write!(f, "cannot reach Redis at {server}: no answer in time")
            }
            Self::AuthRefused { server, cause } => write!(f, "Redis at {server} refused the login: {cause}"),
            Self::TooOld { server, version: Some(version) } => {
                write!(f, "Redis at {server} is version {version}, and 6.2 is the oldest that works")
            }
            Self::TooOld { server, version: None } => {
                write!(f, "Redis at {server} is older than 6.2, the oldest that works")
            }
            Self::ReadOnlyReplica { server, primary } => {
                write!(f, "Redis at {server} is a read-only replica; connect to its primary, {primary}")
            }
            Self::IsOfCluster { server } => {
                write!(f, "Redis at {server} is one of a cluster; connect with redis-cluster://")
            }
            Self::IsNoCluster { server } => {
                write!(f, "Redis at {server} is not of a cluster; connect with redis://")
            }
            Self::NoSlots { server } => {
                write!(f, "the cluster of Redis at {server} has no slots yet, so it can hold nothing")
            }
            Self::UnknownService { server, service } => {
                write!(f, "the sentinel at {server} watches no primary of the name {service:?}")
            }
            Self::MissingRight { server, cause } => {
                write!(f, "Redis at {server} does not give this user a right that is needed: {cause}")
            }
            Self::ScriptsDisabled { server, command } => write!(
                f,
                "Redis at {server} does not run scripts: {command} is disabled or renamed there (`rename-command`)"
            ),
        }
    }
}

impl std::error::Error for ConnectError {}

/// What is wrong with a URL. Nothing of the URL itself is kept, because a mistyped one may have its password anywhere.
///
/// ```
/// use nearfar_redis::UrlProblem;
///
/// assert!(UrlProblem::TlsUnused.to_string().contains("TLS"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlProblem {
    /// It begins with none of the known schemes.
    Scheme,
    /// It asks for TLS, and the cargo feature `tls` is off. Going on in plain text would give the password away.
    TlsNotBuilt,
    /// There are settings for TLS, and it does not ask for it. Going on in plain text would give the password away.
    TlsUnused,
    /// It names a user without a password. Going on would be as the default user.
    UserWithoutPassword,
    /// It asks for a socket of the file system, and does not go on with the path of one.
    SocketPath,
    /// What should be a database number is none.
    Database,
    /// It cannot be parsed, or has no host.
    Malformed(Cause),
}

impl fmt::Display for UrlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => write!(
                f,
                "it does not begin with redis://, rediss://, redis-cluster://, rediss-cluster://, redis-sentinel://, \
                 rediss-sentinel://, redis+unix://, or the same with valkey"
            ),
            Self::TlsNotBuilt => write!(f, "it asks for TLS, and the cargo feature `tls` of nearfar is off"),
            Self::TlsUnused => {
                write!(f, "there are TLS settings, and it does not ask for TLS: `rediss://` does")
            }
            Self::UserWithoutPassword => write!(f, "it names a user and no password"),
            Self::SocketPath => {
                write!(f, "it does not go on with the path of a socket, as in redis+unix:///run/redis.sock")
            }
            Self::Database => write!(f, "what stands for the database is not its number"),
            Self::Malformed(cause) => write!(f, "{cause}"),
        }
    }
}

/// What an error of the client means to the caller of an operation.
pub(crate) fn l2_error(error: &FredError) -> L2Error {
    match error.kind() {
        ErrorKind::Timeout => L2Error::TimedOut,
        ErrorKind::Backpressure => L2Error::Unreachable,
        // It did nothing, and will when it is in order again.
        _ if is_passing(error.details()) => L2Error::Unreachable,
        // fred ends the connection over this reply, and tells everything that was under way on it the same.
        _ if is_cluster_down(error) => L2Error::ConnectionLost(Arc::new(Cause::new(error))),
        _ if is_reply(error.details()) => L2Error::Rejected(Arc::new(Cause::new(error))),
        _ => L2Error::ConnectionLost(Arc::new(Cause::new(error))),
    }
}

/// Whether the server answered, with an error.
pub(crate) fn is_refusal(error: &FredError) -> bool {
    is_reply(error.details())
}

/// Whether a server refuses something for a while: a slot that is on its way to another server, a replica whose primary is away, a server that is reading its data.
fn is_passing(details: &str) -> bool {
    let code = details.split_whitespace().next().unwrap_or_default();
    matches!(code, "ASK" | "TRYAGAIN" | "MASTERDOWN" | "LOADING")
}

/// Whether nobody has the slot, or the cluster works only as a whole and a part of it is missing.
pub(crate) fn is_cluster_down(error: &FredError) -> bool {
    error.details().starts_with("CLUSTERDOWN")
}

/// Whether the server refuses this to the user.
pub(crate) fn is_noperm(error: &FredError) -> bool {
    error.details().starts_with("NOPERM")
}

/// Whether the server has no such command, at least not by this name.
pub(crate) fn is_unknown_command(error: &FredError) -> bool {
    error.details().contains("unknown command")
}

/// Whether the server said this. fred has no kind for it; the server's errors begin with a code such as `READONLY`.
pub(crate) fn is_reply(details: &str) -> bool {
    let code = details.split_whitespace().next().unwrap_or_default();
    code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Whether the server does not know a script by its hash: after a restart, a failover or a flush.
pub(crate) fn is_noscript(error: &FredError) -> bool {
    error.details().starts_with("NOSCRIPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_the_server_are_told_from_failures_of_the_link() {
        let said = |details| l2_error(&FredError::new(ErrorKind::Unknown, details));
        assert!(matches!(said("OOM command not allowed"), L2Error::Rejected(_)));
        assert!(matches!(said("Client is not initialized."), L2Error::ConnectionLost(_)));
    }

    #[test]
    fn the_arguments_of_an_unknown_command_are_not_repeated() {
        let details = "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'app' 'hunter2'";
        let cause = Cause::new(&FredError::new(ErrorKind::Unknown, details));
        assert_eq!(cause.to_string(), "ERR unknown command 'HELLO'");
    }

    #[test]
    fn an_io_error_reads_like_a_sentence() {
        let details = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        assert_eq!(Cause::new(&FredError::new(ErrorKind::IO, details)).to_string(), "Connection refused");
    }
}
