use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nearfar_core::{Disconnected, Namespace};

use crate::cache::Cache;
use crate::codec::Codec;
use crate::compression::Compression;
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::error::{ConfigProblem, Error};
use crate::key::CacheKey;
use crate::log::LogKeys;
use crate::node::Node;
use crate::options::Options;
use crate::outcome::Unacknowledged;
use crate::payload::Payloads;
use crate::refresh::RefreshAhead;
use crate::seal::KeyRing;

/// Settings of a [`Cache`]; made by [`Nearfar::cache`](crate::Nearfar::cache).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar};
/// use std::time::Duration;
///
/// let nearfar = Nearfar::in_process();
/// let sessions: Cache<String, Vec<u8>> = nearfar
///     .cache("sessions")
///     .ttl(Duration::from_secs(1800))
///     .jitter(0.1)
///     .l1_max_entries(50_000)
///     .max_staleness(Duration::from_millis(500))
///     .build()
///     .await?;
/// assert!(sessions.get("nobody").await?.is_none());
///
/// let zero = nearfar.cache::<u64, u64>("zero").ttl(Duration::ZERO).build().await;
/// assert_eq!(zero.unwrap_err().to_string(), "`ttl` must not be zero");
/// # Ok(())
/// # }
/// ```
pub struct CacheBuilder<K, V> {
    node: Arc<Node>,
    namespace: String,
    options: Options,
    codec: Box<dyn Codec<V>>,
    ring: Option<KeyRing>,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K, V> CacheBuilder<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(node: Arc<Node>, namespace: &str, codec: impl Codec<V>) -> Self {
        Self {
            node,
            namespace: namespace.to_owned(),
            options: Options::default(),
            codec: Box::new(codec),
            ring: None,
            key: std::marker::PhantomData,
        }
    }

    /// How long a value lives in both tiers after it was written or loaded, by L2's clock. `Duration::MAX` is for
    /// ever. Defaults to 5 minutes: what writers that bypass nearfar do to the database is then seen after that.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = ttl;
        self
    }

    /// How long a value stays fresh in both tiers after it was read last, on whatever node, within its ttl. L2 is told of a
    /// read when the last that it was told of is an eighth of this ago, and not of each. So that no value goes early for
    /// that, it goes up to an eighth late. `get` and the like are reads, [`contains`](Cache::contains) and
    /// [`peek`](Cache::peek) are not. Defaults to no limit.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.options.idle = Some(limit);
        self
    }

    /// How long past its ttl a value may still be served, stale, when a load fails. It is kept in both tiers for so much
    /// longer. What was invalidated is not served, however long its grace; what was [expired](Cache::expire) is.
    /// Defaults to 0: nothing stale is served unless you say for how long it is better than an error.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }

    /// For how long it is cached that a loader has found nothing; see
    /// [`get_or_load_optional`](Cache::get_or_load_optional). Defaults to not at all: who creates a thing does not always
    /// know that somebody has asked for it, and to invalidate it.
    pub fn absent_ttl(mut self, ttl: Duration) -> Self {
        self.options.absent_ttl = Some(ttl);
        self
    }

    /// For how long past its ttl, within `grace`, a value is served at once to callers with a loader, while one load
    /// runs in the background. Later, callers wait for the load. Defaults to 0: callers wait, which keeps what they get
    /// fresh. `Duration::MAX` is for all of `grace`.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.options.stale_while_revalidate = window;
        self
    }

    /// After a failed load, how long a stale value is served without another try, per key. Defaults to 1 s: a dead
    /// origin is asked once a second and key, and one that is back is noticed as soon.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.options.retry_interval = interval;
        self
    }

    /// Whether, and when, a value that is still fresh is loaded again in the background, by a read of it with a loader. One
    /// load per key and node, and fenced as any; one that fails is tried again after
    /// [`retry_interval`](Self::retry_interval) at the earliest. Defaults to not at all: it costs loads of values that
    /// nobody may ask for again.
    pub fn refresh_ahead(mut self, when: RefreshAhead) -> Self {
        self.options.refresh_ahead = Some(when);
        self
    }

    /// One load per key in the whole cluster: the node that misses claims the key in L2, and the others wait for what it
    /// stores, or until it has failed. A claim holds for this long: longer than a load usually takes, since after it, or if
    /// the node dies, another takes over. No node waits for longer than twice this before it loads for itself. That a node
    /// was too slow does no harm: what it stores late is [fenced](Self::fence_window) as ever. Defaults to off: one load per
    /// key and node, at no cost; a claim takes a round trip before the load. At most the fence window, after which nothing
    /// is stored.
    pub fn cluster_single_flight(mut self, claim: Duration) -> Self {
        self.options.claims = Some(claim);
        self
    }

    /// How long a caller waits for a load while there is something stale to serve within [`grace`](Self::grace). Then it
    /// gets that, and the load goes on in the background, and its value is stored. Defaults to no limit.
    pub fn soft_timeout(mut self, limit: Duration) -> Self {
        self.options.soft_timeout = Some(limit);
        self
    }

    /// How long a caller waits for a load, whatever there is. Then it gets what is stale, or else an error of kind
    /// [`LoadTimedOut`](crate::ErrorKind::LoadTimedOut). Defaults to no limit: loaders know their own.
    pub fn hard_timeout(mut self, limit: Duration) -> Self {
        self.options.hard_timeout = Some(limit);
        self
    }

    /// Whether a load that its last caller has given up on by [`hard_timeout`](Self::hard_timeout) goes on in the
    /// background, for the next. Defaults to `true`: otherwise an origin that takes longer is asked again and again, and
    /// never gets to an end.
    pub fn finish_timed_out_loads(mut self, finish: bool) -> Self {
        self.options.finish_timed_out_loads = finish;
        self
    }

    /// Shortens each value's ttl by a random share of up to this fraction, so that values written together do not
    /// expire together. Defaults to 0.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.options.jitter = fraction;
        self
    }

    /// How long a value may be served from L1 before it is read from L2 again. It never outlives its ttl. Defaults
    /// to no limit of its own: invalidations keep L1 right.
    pub fn l1_ttl(mut self, ttl: Duration) -> Self {
        self.options.l1_ttl = ttl;
        self
    }

    /// How many entries L1 holds. Defaults to 10,000: about 10 MB of values of 1 KiB.
    pub fn l1_max_entries(mut self, entries: u64) -> Self {
        self.options.l1_max_entries = entries;
        self
    }

    /// How many bytes of encoded values L1 holds, besides [`l1_max_entries`](Self::l1_max_entries). Values in memory
    /// are as large as their type makes them; the encoded length is the measure that needs no help. Defaults to no
    /// limit in bytes.
    pub fn l1_max_bytes(mut self, bytes: u64) -> Self {
        self.options.l1_max_bytes = Some(bytes);
        self
    }

    /// The bound: how long after it was overwritten a value may still be served from L1, whatever happens to the
    /// link. A node proves about five times in that span that it hears of invalidations, at least once a second;
    /// without proof it reads from L2. Defaults to 5 s: failing over takes about that long, and one small command
    /// per second and node is no load. At least 20 ms.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.options.max_staleness = bound;
        self
    }

    /// What to do with L1 when there is no such proof. Defaults to [`Disconnected::Bypass`], which keeps the bound.
    pub fn disconnected(mut self, policy: Disconnected) -> Self {
        self.options.disconnected = policy;
        self
    }

    /// How `set`, `invalidate` and `clear` tell that L2 was not there to acknowledge them. Defaults to
    /// [`Unacknowledged::Queue`]: the database has changed already, the outbox will tell L2, and a request need not
    /// fail for it.
    pub fn unacknowledged(mut self, policy: Unacknowledged) -> Self {
        self.options.unacknowledged = policy;
        self
    }

    /// How long tombstones and short-lived values stay in L2 to fence off loads that began before them. A load that
    /// takes longer is returned to its caller and stored nowhere. All nodes must agree. Defaults to 60 s: longer
    /// than loads take, and a tombstone is some 100 bytes. At least 100 ms.
    pub fn fence_window(mut self, window: Duration) -> Self {
        self.options.fence_window = window;
        self
    }

    /// Into how many partitions the namespace is divided, from 1 to 1024. Each has its own order of changes and its own
    /// proof of trust, and is one slot of a cluster. All nodes must agree, and it cannot be changed while the namespace
    /// has data. Defaults to 1 on a single server and to 16 on a cluster: enough to spread over its servers, and each
    /// costs a beat of its own.
    pub fn partitions(mut self, count: u16) -> Self {
        self.options.partitions = Some(count);
        self
    }

    /// A number for the value's type. Entries with another number are misses, counted in
    /// [`other_versions`](crate::Stats::other_versions): change it when a change of the type could be misread rather than
    /// fail to decode. Defaults to 0.
    pub fn schema(mut self, number: u32) -> Self {
        self.options.schema = number;
        self
    }

    /// How values become bytes. Defaults to [`MessagePack`](crate::MessagePack), whose field names let old and new versions
    /// of a service share entries.
    pub fn codec(mut self, codec: impl Codec<V>) -> Self {
        self.codec = Box::new(codec);
        self
    }

    /// Compresses payloads that are long enough and get smaller by it. What is read may be compressed in any way that is
    /// compiled in, whatever this says, so it can be changed while nodes run. Defaults to none: it saves memory of Redis
    /// and costs time of this process, and only you know which is short.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = Some(compression);
        self
    }

    /// How many bytes a value may have, encoded and before it is compressed. Setting a longer one is an error of kind
    /// [`ValueTooLarge`](crate::ErrorKind::ValueTooLarge), and changes nothing. A loaded one is returned, stored in neither
    /// tier, and counted in [`unstorable`](crate::Stats::unstorable). One that stands in L2 is a miss: memory for it is not
    /// even asked for. Defaults to 64 MiB: larger ones hold up everything behind them on a connection. At most 511 MiB,
    /// which is what Redis takes.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.options.max_value_bytes = bytes;
        self
    }

    /// Seals values, and that there is none: who can read Redis learns their keys and lengths and no more, and what
    /// somebody without a key has written, changed or moved to another key is a miss, counted in
    /// [`seal_failures`](crate::Stats::seal_failures). So is what is not sealed. `docs/security.md` says what is left to
    /// who can write to Redis. Defaults to not at all. All nodes of a namespace should agree, or they miss each other's
    /// entries.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, KeyRing, Nearfar};
    ///
    /// let key = [7; 32]; // from your secrets
    /// let tokens: Cache<u64, String> =
    ///     Nearfar::in_process().cache("tokens").sealed(KeyRing::new(1, key)).build().await?;
    /// tokens.set(&42, "secret".to_owned()).await?;
    /// assert_eq!(*tokens.get(&42).await?.unwrap(), "secret");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "sealed")]
    pub fn sealed(mut self, ring: KeyRing) -> Self {
        self.ring = Some(ring);
        self
    }

    /// How keys are shown in what is logged. Defaults to [`LogKeys::Hashed`]: they may be personal data, which a log is no
    /// place for.
    pub fn log_keys(mut self, how: LogKeys) -> Self {
        self.options.log_keys = how;
        self
    }

    /// Takes over what is said by data, in place of what was set before. What is set afterwards goes over it in turn, as does
    /// another configuration: one from the environment over one from a file, say.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nearfar::{Cache, CacheConfig, Nearfar};
    /// use std::time::Duration;
    ///
    /// let file: CacheConfig = serde_json::from_str(r#"{"ttl": "5m", "grace": "1h"}"#)?;
    /// let users: Cache<u64, String> = Nearfar::in_process()
    ///     .cache("users")
    ///     .jitter(0.1)
    ///     .config(&file)
    ///     .config(&CacheConfig::from_env("SHOP_USERS_")?)
    ///     .ttl(Duration::from_secs(60))
    ///     .build()
    ///     .await?;
    /// let in_force = users.config();
    /// assert_eq!((in_force.ttl, in_force.jitter), (Some(Duration::from_secs(60)), Some(0.1)));
    /// assert_eq!(in_force.grace, Some(Duration::from_secs(3600)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn config(mut self, config: &CacheConfig) -> Self {
        self.options.apply(config);
        self
    }

    /// Builds the cache: checks the settings against each other and against those recorded in L2, subscribes, and
    /// waits until the subscription is proved.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a wrong or contradicting setting, or a namespace that this
    /// `Nearfar` has a cache of; [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if the user lacks a right, which the
    /// error names; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if L2 cannot be reached or
    /// the subscription cannot be proved in time, unless the `Nearfar` may start degraded.
    ///
    /// # Cancel safety
    /// Dropping the future takes everything back.
    pub async fn build(self) -> Result<Cache<K, V>, Error> {
        let namespace = Namespace::new(&self.namespace)
            .map_err(|problem| Error::config(ConfigProblem::Namespace(problem)))?;
        self.options.check()?;
        if let Some(id) = self.ring.as_ref().and_then(KeyRing::twice) {
            return Err(Error::config(ConfigProblem::KeyIdTwice { id }));
        }
        let claim = self.node.claim_name(&namespace, &self.options)?;
        let payloads = Payloads::new(&namespace, &self.options, self.codec, self.ring);
        let engine = Engine::start(claim, &self.options, payloads).await?;
        Ok(Cache::new(engine))
    }
}

impl<K, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("namespace", &self.namespace)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
