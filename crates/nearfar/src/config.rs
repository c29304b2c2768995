//! Settings as data: read from a file or from the environment, and read back.

use std::time::Duration;

use nearfar_core::Disconnected;
use serde::{Deserialize, Serialize};

use crate::compression::Compression;
use crate::error::Error;
use crate::log::LogKeys;
use crate::outcome::Unacknowledged;
use crate::refresh::RefreshAhead;

mod environment;
mod named;
mod node;
mod switch;
mod words;

pub use node::NearfarConfig;
pub use switch::Switch;

/// The settings of a cache as data, for [`CacheBuilder::config`](crate::CacheBuilder::config): every setter of
/// [`CacheBuilder`](crate::CacheBuilder) by its name, but for the codec, which is code. What is not said stays as it is.
///
/// Any format of serde will do. Durations are text: `"250ms"`, `"5m"`, `"1h 30m"`, or `"forever"`; what can be off is off
/// by `"off"`. An unknown setting is an error that names it, and so is a value that cannot be read; values that contradict
/// each other are an error of [`build`](crate::CacheBuilder::build), as if they had been set by hand.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfar::{Cache, CacheConfig, Nearfar};
/// use std::time::Duration;
///
/// let config: CacheConfig = toml::from_str(
///     r#"
///     ttl = "5m"
///     jitter = 0.1
///     hard_timeout = "off"
///     refresh_ahead = { after = 0.8 }
///     disconnected = { serve_for = "10s" }
///     "#,
/// )?;
/// let users: Cache<u64, String> = Nearfar::in_process().cache("users").config(&config).build().await?;
/// assert_eq!(users.config().ttl, Some(Duration::from_secs(300)));
/// assert_eq!(users.config().l1_max_entries, Some(10_000), "the default");
///
/// let wrong = toml::from_str::<CacheConfig>("tll = '5m'").unwrap_err();
/// assert!(wrong.to_string().contains("unknown field `tll`"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheConfig {
    /// See [`CacheBuilder::ttl`](crate::CacheBuilder::ttl).
    #[serde(with = "words::duration")]
    pub ttl: Option<Duration>,
    /// See [`CacheBuilder::idle`](crate::CacheBuilder::idle).
    pub idle: Option<Switch<Duration>>,
    /// See [`CacheBuilder::grace`](crate::CacheBuilder::grace).
    #[serde(with = "words::duration")]
    pub grace: Option<Duration>,
    /// See [`CacheBuilder::absent_ttl`](crate::CacheBuilder::absent_ttl).
    pub absent_ttl: Option<Switch<Duration>>,
    /// See [`CacheBuilder::stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate).
    #[serde(with = "words::duration")]
    pub stale_while_revalidate: Option<Duration>,
    /// See [`CacheBuilder::retry_interval`](crate::CacheBuilder::retry_interval).
    #[serde(with = "words::duration")]
    pub retry_interval: Option<Duration>,
    /// See [`CacheBuilder::refresh_ahead`](crate::CacheBuilder::refresh_ahead): `{ after = 0.8 }` or
    /// `{ probabilistic = 1.0 }`, as text `after:0.8`.
    pub refresh_ahead: Option<Switch<RefreshAhead>>,
    /// See [`CacheBuilder::cluster_single_flight`](crate::CacheBuilder::cluster_single_flight).
    pub cluster_single_flight: Option<Switch<Duration>>,
    /// See [`CacheBuilder::soft_timeout`](crate::CacheBuilder::soft_timeout).
    pub soft_timeout: Option<Switch<Duration>>,
    /// See [`CacheBuilder::hard_timeout`](crate::CacheBuilder::hard_timeout).
    pub hard_timeout: Option<Switch<Duration>>,
    /// See [`CacheBuilder::finish_timed_out_loads`](crate::CacheBuilder::finish_timed_out_loads).
    pub finish_timed_out_loads: Option<bool>,
    /// See [`CacheBuilder::jitter`](crate::CacheBuilder::jitter).
    pub jitter: Option<f64>,
    /// See [`CacheBuilder::l1_ttl`](crate::CacheBuilder::l1_ttl).
    #[serde(with = "words::duration")]
    pub l1_ttl: Option<Duration>,
    /// See [`CacheBuilder::l1_max_entries`](crate::CacheBuilder::l1_max_entries).
    pub l1_max_entries: Option<u64>,
    /// See [`CacheBuilder::l1_max_bytes`](crate::CacheBuilder::l1_max_bytes).
    pub l1_max_bytes: Option<Switch<u64>>,
    /// See [`CacheBuilder::max_staleness`](crate::CacheBuilder::max_staleness).
    #[serde(with = "words::duration")]
    pub max_staleness: Option<Duration>,
    /// See [`CacheBuilder::disconnected`](crate::CacheBuilder::disconnected): `bypass`, `serve`, or
    /// `{ serve_for = "10s" }`, as text `serve_for:10s`.
    #[serde(with = "words::disconnected")]
    pub disconnected: Option<Disconnected>,
    /// See [`CacheBuilder::unacknowledged`](crate::CacheBuilder::unacknowledged): `queue` or `fail`.
    pub unacknowledged: Option<Unacknowledged>,
    /// See [`CacheBuilder::fence_window`](crate::CacheBuilder::fence_window).
    #[serde(with = "words::duration")]
    pub fence_window: Option<Duration>,
    /// See [`CacheBuilder::partitions`](crate::CacheBuilder::partitions).
    pub partitions: Option<u16>,
    /// See [`CacheBuilder::schema`](crate::CacheBuilder::schema).
    pub schema: Option<u32>,
    /// See [`CacheBuilder::compression`](crate::CacheBuilder::compression): `lz4` or `zstd`, with how many bytes a payload has
    /// at least behind a colon if it is to be another number: `zstd:2048`.
    pub compression: Option<Switch<Compression>>,
    /// See [`CacheBuilder::max_value_bytes`](crate::CacheBuilder::max_value_bytes).
    pub max_value_bytes: Option<usize>,
    /// See [`CacheBuilder::log_keys`](crate::CacheBuilder::log_keys): `hashed`, `plain` or `never`.
    pub log_keys: Option<LogKeys>,
}

impl CacheConfig {
    /// What the environment says: of each variable that begins with the prefix, the rest is a setting, in upper case.
    ///
    /// No prefix may begin with another: with `SHOP_` for one cache, `SHOP_USERS_TTL` is a setting `users_ttl` of it.
    ///
    /// # Errors
    /// Of kind [`Config`](crate::ErrorKind::Config), naming the variable that is no setting or cannot be read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, CacheConfig, Nearfar};
    ///
    /// let from_env = CacheConfig::from_env("NEARFAR_USERS_")?; // NEARFAR_USERS_TTL=5m, say
    /// let users: Cache<u64, String> = Nearfar::in_process().cache("users").config(&from_env).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_env(prefix: &str) -> Result<Self, Error> {
        Self::from_vars(prefix, environment::variables())
    }

    /// As [`from_env`](Self::from_env), with variables from elsewhere.
    ///
    /// ```
    /// use nearfar::{CacheConfig, Switch};
    /// use std::time::Duration;
    ///
    /// let variables = [("USERS_TTL", "1h 30m"), ("USERS_SOFT_TIMEOUT", "off"), ("HOME", "/root")];
    /// let config = CacheConfig::from_vars("USERS_", variables)?;
    /// assert_eq!(config.ttl, Some(Duration::from_secs(5400)));
    /// assert_eq!(config.soft_timeout, Some(Switch::Off));
    ///
    /// let wrong = CacheConfig::from_vars("USERS_", [("USERS_TLL", "5m")]).unwrap_err();
    /// assert!(wrong.to_string().starts_with("`USERS_TLL`: there is no setting `tll`"));
    /// # Ok::<_, nearfar::Error>(())
    /// ```
    pub fn from_vars<N, T>(prefix: &str, variables: impl IntoIterator<Item = (N, T)>) -> Result<Self, Error>
    where
        N: Into<String>,
        T: Into<String>,
    {
        environment::read(prefix, variables, Self::deserialize)
    }
}

named::deserialize_named!(CacheConfig);
