use std::fmt;
use std::sync::Arc;

use fred::error::{Error as FredError, ErrorKind};
use nearfar_core::backend::L2Error;

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
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {}

/// fred formats I/O errors for debugging: `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
fn plain(details: &str) -> &str {
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
    /// The user may not run scripts, without which no step is atomic.
    ScriptsRefused {
        /// `host:port`.
        server: String,
        /// What it said.
        cause: Cause,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl(problem) => write!(f, "the Redis URL cannot be used: {problem}"),
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
            Self::ScriptsRefused { server, cause } => {
                write!(f, "Redis at {server} does not run scripts: {cause}")
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// What is wrong with a URL. Nothing of the URL itself is kept, because a mistyped one may have its password anywhere.
///
/// ```
/// use nearfar_redis::UrlProblem;
///
/// assert!(UrlProblem::Tls.to_string().contains("TLS"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlProblem {
    /// It begins with none of the known schemes.
    Scheme,
    /// It asks for TLS, which is not supported yet. Going on in plain text would give the password away.
    Tls,
    /// It asks for Redis Cluster, which is not supported yet.
    Cluster,
    /// The part after the last slash is no database number.
    Database,
    /// It cannot be parsed, or has no host.
    Malformed(Cause),
}

impl fmt::Display for UrlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => write!(f, "it does not begin with redis://, valkey:// or redis-sentinel://"),
            Self::Tls => write!(f, "TLS is not supported yet"),
            Self::Cluster => write!(f, "Redis Cluster is not supported yet"),
            Self::Database => write!(f, "what follows the host is not a database number"),
            Self::Malformed(cause) => write!(f, "{cause}"),
        }
    }
}

/// What an error of the client means to the caller of an operation.
pub(crate) fn l2_error(error: &FredError) -> L2Error {
    match error.kind() {
        ErrorKind::Timeout => L2Error::TimedOut,
        ErrorKind::Backpressure => L2Error::Unreachable,
        _ if is_reply(error.details()) => L2Error::Rejected(Arc::new(Cause::new(error))),
        _ => L2Error::ConnectionLost(Arc::new(Cause::new(error))),
    }
}

/// Whether the server answered, with an error.
pub(crate) fn is_refusal(error: &FredError) -> bool {
    matches!(l2_error(error), L2Error::Rejected(_))
}

/// Whether the server said this. fred has no kind for it; the server's errors begin with a code such as `READONLY`.
fn is_reply(details: &str) -> bool {
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
    fn an_io_error_reads_like_a_sentence() {
        let details = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        assert_eq!(Cause::new(&FredError::new(ErrorKind::IO, details)).to_string(), "Connection refused");
    }
}
