use std::fmt;
use std::time::Duration;

use crate::tls::Tls;

/// How to reach the server.
///
/// ```
/// use nearfar_redis::{OnUnreachable, RedisOptions};
/// use std::time::Duration;
///
/// let options = RedisOptions {
///     url: "redis://user:secret@cache.internal:6379/0".into(),
///     tls: None,
///     connect_timeout: Duration::from_secs(5),
///     command_timeout: Duration::from_millis(500),
///     log_len: 10_000,
///     on_unreachable: OnUnreachable::Fail,
/// };
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host[:port][/database]`, with TLS `rediss://`; the same behind Sentinel with
    /// `redis-sentinel://`, `rediss-sentinel://` and `?sentinelServiceName=`; a socket of the file system with
    /// `redis+unix://[user:password@]/path[?db=number]`. A `valkey` scheme means the same as `redis`.
    pub url: String,
    /// Whom to believe with TLS, and what to show. `None` is as [`Tls::new`]; anything else is refused if the URL does
    /// not ask for TLS.
    pub tls: Option<Tls>,
    /// How long [`connect`](crate::connect) tries.
    pub connect_timeout: Duration,
    /// How long one operation may take, however it ends.
    pub command_timeout: Duration,
    /// About how many messages the log of a partition keeps; 0 for none.
    pub log_len: u64,
    /// What to do if the server is not there.
    pub on_unreachable: OnUnreachable,
}

/// What [`connect`](crate::connect) does when the server cannot be reached.
///
/// ```
/// use nearfar_redis::OnUnreachable;
///
/// assert_eq!(OnUnreachable::default(), OnUnreachable::Fail);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnreachable {
    /// It fails, and says why. The default.
    #[default]
    Fail,
    /// It returns at once; connecting goes on in the background, and operations fail until it succeeds. What `Fail`
    /// would report (wrong password, old server, forbidden scripts) then shows as failed operations only.
    StartDegraded,
}

impl fmt::Debug for RedisOptions {
    /// Leaves the URL out: it may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("command_timeout", &self.command_timeout)
            .field("log_len", &self.log_len)
            .field("on_unreachable", &self.on_unreachable)
            .finish_non_exhaustive()
    }
}
