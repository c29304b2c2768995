use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nearfar_core::CircuitState;
use nearfar_core::backend::{Bus, L2, ServerId};
use nearfar_redis::{Diagnosis, Expected, Finding, OnUnreachable, RedisOptions, Subject, Tls, diagnose};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::CacheBuilder;
use crate::clock::Clock;
use crate::codec::{Codec, MessagePack};
use crate::config::NearfarConfig;
use crate::error::{ConfigProblem, Error};
use crate::in_process::InProcess;
use crate::key::CacheKey;
use crate::log;
use crate::node::{LiveNode, Node, Timeouts};
use crate::outbox::Undelivered;

/// One node's connection to the shared store and the bus, from which its caches are built.
///
/// Cheap to clone. The connections stay open while a clone or one of the caches exists; when the last is dropped, all
/// tasks and connections of the node end, and what waits in its outboxes is lost. [`shutdown`](Self::shutdown) ends
/// them in order and says what is left.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar};
///
/// let nearfar = Nearfar::in_process(); // `Nearfar::connect("redis://127.0.0.1:6379").await?` in production
/// let users: Cache<u64, String> = nearfar.cache("users").build().await?;
/// users.set(&1, "Ada".to_owned()).await?;
/// assert_eq!(users.get(&1).await?.as_deref().map(String::as_str), Some("Ada"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Nearfar {
    node: Arc<Node>,
    /// How the server is reached; `None` with another backend.
    redis: Option<Arc<RedisOptions>>,
    warnings: Arc<[Finding]>,
}

impl Nearfar {
    /// Connects to Redis 6.2 or newer, or Valkey, with default settings; see [`NearfarBuilder::connect`].
    ///
    /// ```no_run
    /// # // Needs a server.
    /// # async fn f() -> Result<(), nearfar::Error> {
    /// let nearfar = nearfar::Nearfar::connect("redis://127.0.0.1:6379").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(url: &str) -> impl Future<Output = Result<Self, Error>> + Send {
        Self::builder().connect(url)
    }

    /// A node with an [`InProcess`] store of its own: the same semantics without Redis.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// let squares = nearfar::Nearfar::in_process().cache::<u64, u64>("squares").build().await?;
    /// assert!(squares.get(&3).await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_process() -> Self {
        Self::builder().in_process(&InProcess::new())
    }

    /// For a node with settings other than the default ones.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let shared = nearfar::InProcess::new();
    /// let builder = nearfar::Nearfar::builder().command_timeout(std::time::Duration::from_millis(300));
    /// assert!(builder.in_process(&shared).cache::<u64, u64>("squares").build().await.is_ok());
    /// # }
    /// ```
    pub fn builder() -> NearfarBuilder {
        NearfarBuilder::default()
    }

    /// Begins a cache in this namespace: 1 to 64 characters out of `A-Z a-z 0-9 _ - . :`. Nodes that build a cache
    /// of the same namespace on the same store share its entries.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, Nearfar};
    /// use std::time::Duration;
    ///
    /// let prices: Cache<String, u32> =
    ///     Nearfar::in_process().cache("prices").ttl(Duration::from_secs(30)).build().await?;
    /// assert_eq!(prices.namespace(), "prices");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cache<K, V>(&self, namespace: &str) -> CacheBuilder<K, V>
    where
        K: CacheKey,
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        CacheBuilder::new(Arc::clone(&self.node), namespace, MessagePack)
    }

    /// As [`cache`](Self::cache), of values that need not be known to serde, but to this codec.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Bytes, Cache, Nearfar, RawBytes};
    ///
    /// let images: Cache<String, Bytes> = Nearfar::in_process().cache_with("images", RawBytes).build().await?;
    /// images.set("logo", Bytes::from_static(b"\x89PNG")).await?;
    /// assert_eq!(images.get("logo").await?.unwrap().len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cache_with<K, V>(&self, namespace: &str, codec: impl Codec<V>) -> CacheBuilder<K, V>
    where
        K: CacheKey,
        V: Send + Sync + 'static,
    {
        CacheBuilder::new(Arc::clone(&self.node), namespace, codec)
    }

    /// The nodes that live: those that share a namespace with this one and have been heard of in the last minute. One
    /// that ended without a goodbye stays listed for that minute; nothing else depends on the list.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, InProcess, Nearfar};
    ///
    /// let shared = InProcess::new();
    /// let (a, b) = (Nearfar::builder().in_process(&shared), Nearfar::builder().in_process(&shared));
    /// let _here: Cache<u64, String> = a.cache("names").build().await?;
    /// let _there: Cache<u64, String> = b.cache("names").build().await?;
    /// assert_eq!(a.nodes().await?.len(), 2);
    ///
    /// b.shutdown().await;
    /// assert_eq!(a.nodes().await?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn nodes(&self) -> Result<Vec<LiveNode>, Error> {
        self.node.live_nodes().await
    }

    /// Whether operations on each server of L2 are tried, by the number that the backend gives it: of one server, or the
    /// primary behind Sentinel, 0. After three in a row without an answer, they fail at once, as if the server were known
    /// to be unreachable, until a heartbeat is answered or, after a second, another operation is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{CircuitState, Nearfar, backend::ServerId};
    ///
    /// let nearfar = Nearfar::in_process();
    /// let names = nearfar.cache::<u64, String>("names").build().await?;
    /// assert!(names.get(&1).await?.is_none());
    /// assert_eq!(nearfar.circuits(), [(ServerId::new(0), CircuitState::Closed)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn circuits(&self) -> Vec<(ServerId, CircuitState)> {
        self.node.circuits()
    }

    /// What of the server's settings will hurt one day, as far as it says so while it is connected to: what it will do
    /// when its memory is full. It has been logged as well, as `tracing` events of level `WARN`. Nothing for a node that
    /// started degraded, or that has another backend. [`doctor`](Self::doctor) has all of it, and as it is now.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let nearfar = nearfar::Nearfar::in_process();
    /// for warning in nearfar.warnings() {
    ///     eprintln!("{warning}"); // what it leads to, and what to do about it
    /// }
    /// assert!(nearfar.warnings().is_empty(), "no server, no settings");
    /// # }
    /// ```
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// Examines the server for whatever weakens nearfar's guarantees, with the namespaces of the caches of this node:
    /// see [`NearfarBuilder::doctor`], which needs no node. It uses connections of its own, and works also while the
    /// node cannot reach the server, and after [`shutdown`](Self::shutdown). With another backend there is nothing to
    /// examine.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let diagnosis = nearfar::Nearfar::in_process().doctor().await;
    /// assert_eq!(diagnosis.to_string(), "Nothing to do.\n");
    /// # }
    /// ```
    pub async fn doctor(&self) -> Diagnosis {
        let Some(options) = &self.redis else { return Diagnosis::default() };
        let subjects = self.node.namespaces().into_iter().map(|(namespace, options)| {
            let expected = Expected {
                settings: options.settings(self.node.default_partitions()),
                max_staleness: options.max_staleness,
            };
            Subject { name: namespace.to_string(), expected: Some(expected) }
        });
        let mut subjects: Vec<_> = subjects.collect();
        subjects.sort_by(|a, b| a.name.cmp(&b.name));
        diagnose(options, &subjects).await
    }

    /// Tells the recorder of the crate `metrics` where the figures stand now, as happens every
    /// [5 s](crate::metrics::INTERVAL) by itself: for who is asked for them and wants them to be fresh.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// // In the handler of `/metrics`, before the recorder is asked what to answer.
    /// nearfar::Nearfar::in_process().report_metrics();
    /// # }
    /// ```
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        self.node.reporter.report();
    }

    /// Ends the node in order: L1 is served no more, the outboxes are emptied, the other nodes see this one leave,
    /// connections close. Waits about three command timeouts at the most, whatever the server does. Returns what L2 did not
    /// acknowledge, to each who calls it. Later
    /// operations, of any clone and cache, fail with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// Once polled, it goes on when dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// let nearfar = nearfar::Nearfar::in_process();
    /// let squares = nearfar.cache::<u64, u64>("squares").build().await?;
    /// assert!(nearfar.shutdown().await.is_empty(), "nothing was left to deliver");
    /// assert_eq!(squares.get(&3).await.unwrap_err().kind(), nearfar::ErrorKind::Closed);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self) -> Vec<Undelivered> {
        self.node.shut_down().await
    }
}

impl fmt::Debug for Nearfar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nearfar").field("node", &self.node.id).finish_non_exhaustive()
    }
}

/// `connect` refuses a time limit of zero; what cannot refuse takes this instead.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// Settings of a [`Nearfar`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// let refused = nearfar::Nearfar::builder()
///     .connect_timeout(Duration::from_secs(2))
///     .connect("redis://127.0.0.1:1") // nobody listens there
///     .await;
/// assert!(refused.unwrap_err().is_unavailable());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct NearfarBuilder {
    timeouts: Timeouts,
    start_degraded: bool,
    log_len: u64,
    clock: ClockChoice,
    tls: Option<Tls>,
}

#[derive(Clone, Copy, Debug)]
enum ClockChoice {
    System,
    Tokio,
}

impl Default for NearfarBuilder {
    fn default() -> Self {
        let timeouts = Timeouts { connect: Duration::from_secs(5), command: Duration::from_secs(1) };
        Self { timeouts, start_degraded: false, log_len: 10_000, clock: ClockChoice::System, tls: None }
    }
}

impl NearfarBuilder {
    /// How long connecting, and proving a new cache's subscription, may take.
    /// Defaults to 5 s: long enough for a slow handshake, short enough for a deployment to notice.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.connect = timeout;
        self
    }

    /// How long any one operation on L2 may take. A change is refused by the server once this is over, so that it
    /// cannot land after its caller has given up.
    /// Defaults to 1 s: a hundred times a slow round trip, and still bearable for a request that waits for it.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.command = timeout;
        self
    }

    /// Starts although the server cannot be reached: loads work, changes are
    /// [`Queued`](crate::Outcome::Queued), and the node heals when the server comes. Defaults to failing, so that a wrong address is noticed at the start.
    pub fn start_degraded(mut self) -> Self {
        self.start_degraded = true;
        self
    }

    /// About how many recent messages the log in Redis keeps per namespace, 0 for no log. A node that missed messages
    /// fetches them from it; if they are gone, it forgets its L1. A message takes its keys and
    /// some 40 bytes. Defaults to 10,000: minutes of changes for most services. An in-process store always keeps as
    /// many as that, and a backend of your own decides for itself.
    pub fn log_len(mut self, messages: u64) -> Self {
        self.log_len = messages;
        self
    }

    /// Whom to believe on a connection with TLS, and what to show, for URLs that begin with `rediss` or `valkeys`; with
    /// others, connecting fails, lest a password goes out in plain text. Defaults to the system's certificate
    /// authorities, and to no certificate of this side.
    ///
    /// ```no_run
    /// # // Needs a server.
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use nearfar::{Nearfar, Tls};
    ///
    /// let tls = Tls::new().ca_pem(std::fs::read("/etc/cache/ca.pem")?);
    /// let nearfar = Nearfar::builder().tls(tls).connect("rediss://app:secret@cache.internal").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Takes over what is said by data, in place of what was set before; what is set afterwards goes over it in turn. The
    /// url is for [`connect`](Self::connect), or [`NearfarConfig::connect`] does both; the settings of caches are for their
    /// [builders](crate::CacheBuilder::config).
    ///
    /// # Errors
    /// Of kind [`Config`](crate::ErrorKind::Config) if a file of TLS cannot be read, or a certificate has no key.
    ///
    /// ```
    /// use nearfar::{Nearfar, NearfarConfig};
    ///
    /// let config: NearfarConfig = toml::from_str("command_timeout = '300ms'\ntls_ca_file = '/no/ca.pem'").unwrap();
    /// let refused = Nearfar::builder().config(&config).unwrap_err();
    /// assert!(refused.to_string().starts_with("`tls_ca_file`: /no/ca.pem cannot be read"));
    /// ```
    pub fn config(mut self, config: &NearfarConfig) -> Result<Self, Error> {
        // Both are taken apart, so that no option can be forgotten.
        let NearfarConfig {
            url: _,
            connect_timeout,
            command_timeout,
            start_degraded: degraded,
            log_len: messages,
            tls_ca_file: _,
            tls_certificate_file: _,
            tls_key_file: _,
            caches: _,
        } = config;
        let Self { timeouts: Timeouts { connect, command }, start_degraded, log_len, clock: _, tls } =
            &mut self;
        *connect = connect_timeout.unwrap_or(*connect);
        *command = command_timeout.unwrap_or(*command);
        *start_degraded = degraded.unwrap_or(*start_degraded);
        *log_len = messages.unwrap_or(*log_len);
        *tls = config.tls()?.or(tls.take());
        Ok(self)
    }

    /// Takes time from Tokio's clock, which a test may pause, also with a [`backend`](Self::backend) of your own.
    /// [`in_process`](Self::in_process) does so by itself. Defaults to the system's clock, which counts suspended
    /// time.
    pub fn tokio_time(mut self) -> Self {
        self.clock = ClockChoice::Tokio;
        self
    }

    /// Connects to the server at a URL: `redis://[user:password@]host[:port][/database]`, with TLS `rediss://...`, to a
    /// socket of the file system `redis+unix://[user:password@]/path[?db=number]`, or the same with `valkey`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a URL or a setting that cannot be used. Unless it may
    /// [start degraded](Self::start_degraded): [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the server
    /// cannot be reached in time, cannot be talked to with or without TLS, or is too old;
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if it refuses the login, a right or scripts, or is a
    /// read-only replica. No error text contains the URL's user or password.
    ///
    /// Settings of the server that will hurt one day are no error: see [`Nearfar::warnings`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let wrong = nearfar::Nearfar::builder().connect("http://:secret@localhost").await.unwrap_err();
    /// assert!(!wrong.to_string().contains("secret"));
    /// # }
    /// ```
    pub async fn connect(self, url: &str) -> Result<Nearfar, Error> {
        self.check()?;
        let options = self.redis(url);
        let (l2, bus) = nearfar_redis::connect(options.clone()).await.map_err(Error::connect)?;
        tracing::info!(target: log::SERVER, "connected");
        for warning in l2.warnings() {
            tracing::warn!(target: log::SERVER, "{warning}");
        }
        let warnings = l2.warnings().into();
        let redis = Some(Arc::new(options));
        Ok(Nearfar { redis, warnings, ..self.backend(Arc::new(l2), Box::new(bus)) })
    }

    /// Examines the server at a URL for whatever weakens nearfar's guarantees on it: its settings, its state, its
    /// distance, the rights of the user, and what stands in it of these namespaces. Meant for when `connect` fails, too:
    /// then that is the finding. `docs/doctor.md` has all findings, each with its remedy.
    ///
    /// Behind Sentinels that is the primary; of a Redis Cluster it is every server that has slots.
    ///
    /// Nothing is stored on the server. A question that may not be asked is a note. Takes some 30 round trips, on a
    /// cluster two more per partition, and if the server stops answering, two
    /// [`command_timeout`](Self::command_timeout)s more; [`connect_timeout`](Self::connect_timeout), on a cluster twice
    /// that, and 30 `command_timeout`s at the most.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use nearfar::{FindingKind, Nearfar, Severity};
    ///
    /// let diagnosis = Nearfar::builder().doctor("redis://127.0.0.1:1", &["users"]).await; // nobody listens there
    /// assert_eq!(diagnosis.worst(), Some(Severity::Critical));
    /// assert_eq!(diagnosis.findings().next().unwrap().kind(), FindingKind::Unreachable);
    /// println!("{diagnosis}"); // a report for people
    /// # }
    /// ```
    pub async fn doctor(self, url: &str, namespaces: &[&str]) -> Diagnosis {
        let subject = |&name: &&str| Subject { name: name.to_owned(), expected: None };
        let subjects: Vec<_> = namespaces.iter().map(subject).collect();
        diagnose(&self.redis(url), &subjects).await
    }

    fn redis(&self, url: &str) -> RedisOptions {
        RedisOptions {
            url: url.to_owned(),
            tls: self.tls.clone(),
            connect_timeout: self.timeouts.connect.max(LEAST_TIMEOUT),
            command_timeout: self.timeouts.command.max(LEAST_TIMEOUT),
            log_len: self.log_len,
            on_unreachable: if self.start_degraded {
                OnUnreachable::StartDegraded
            } else {
                OnUnreachable::Fail
            },
        }
    }

    /// A node on an in-process store.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn in_process(self, shared: &InProcess) -> Nearfar {
        let (l2, bus) = shared.backend();
        self.tokio_time().backend(l2, bus)
    }

    /// A node on a backend of your own, or on a wrapped one; see [`nearfar::backend`](crate::backend).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn backend(self, l2: Arc<dyn L2>, bus: Box<dyn Bus>) -> Nearfar {
        let clock = match self.clock {
            ClockChoice::System => Clock::System,
            ClockChoice::Tokio => Clock::tokio(),
        };
        let Timeouts { connect, command } = self.timeouts;
        let timeouts = Timeouts { connect: connect.max(LEAST_TIMEOUT), command: command.max(LEAST_TIMEOUT) };
        let node = Node::start((l2, bus), clock, timeouts, self.start_degraded);
        Nearfar { node, redis: None, warnings: Arc::default() }
    }

    fn check(&self) -> Result<(), Error> {
        let timeouts =
            [("connect_timeout", self.timeouts.connect), ("command_timeout", self.timeouts.command)];
        match timeouts.iter().find(|(_, timeout)| timeout.is_zero()) {
            Some((setting, _)) => Err(Error::config(ConfigProblem::Zero { setting })),
            None => Ok(()),
        }
    }
}
