use std::time::{Duration, SystemTime};

use nearfar_core::{Envelope, Moment, Validators, Version};

use crate::clock;
use crate::entry::Slot;

/// What is different for one call, or for some: [`Cache::with`](crate::Cache::with) takes it. What is not said is as the
/// cache has it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, CallOptions, Nearfar};
/// use std::time::Duration;
///
/// let prices: Cache<u64, u64> = Nearfar::in_process().cache("prices").build().await?;
/// let load = |id| async move { Ok::<_, std::io::Error>(id * 100) };
///
/// let hurried = CallOptions::new().hard_timeout(Duration::from_millis(50));
/// assert_eq!(*prices.with(hurried).get_or_load(&3, load).await?, 300);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct CallOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) grace: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    not_older_than: Option<Version>,
    modified_since: Option<Moment>,
    reload: bool,
}

impl CallOptions {
    /// Nothing is different.
    pub fn new() -> Self {
        Self::default()
    }

    /// The ttl of what is set, or loaded by this call, unless the loader says another or finds nothing. Zero stores nothing:
    /// [`set`](crate::Cache::set) refuses it. Callers who join the load of another get what that one stores.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The [idle](crate::CacheBuilder::idle) time of what is set, or loaded by this call, unless the loader says another.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// When what is set, or loaded by this call, stops being fresh, unless the loader says otherwise; see
    /// [`Loaded::expires_at`](crate::Loaded::expires_at).
    pub fn expires_at(mut self, deadline: SystemTime) -> Self {
        self.expires_at = Some(deadline);
        self
    }

    /// The grace of what is set, or loaded by this call, unless the loader says another.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// See [`CacheBuilder::stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate).
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// See [`CacheBuilder::soft_timeout`](crate::CacheBuilder::soft_timeout).
    pub fn soft_timeout(mut self, limit: Duration) -> Self {
        self.soft_timeout = Some(limit);
        self
    }

    /// See [`CacheBuilder::hard_timeout`](crate::CacheBuilder::hard_timeout).
    pub fn hard_timeout(mut self, limit: Duration) -> Self {
        self.hard_timeout = Some(limit);
        self
    }

    /// Entries older than this version are misses: those that may not know of a change that the caller knows of. A
    /// service that passes the version of its [`Outcome`](crate::Outcome) on with a request has the next one read its own
    /// writes, on whatever node. What was loaded for this call will do, whatever its version.
    ///
    /// Versions of one key compare. Those of two keys do so only in one partition: one from elsewhere may be ahead of all
    /// that this key has, and then each call loads.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, CallOptions, Nearfar, Version};
    ///
    /// let names: Cache<u64, String> = Nearfar::in_process().cache("names").build().await?;
    /// let version = names.set(&7, "Ada".to_owned()).await?.version().expect("L2 is there");
    ///
    /// let mine = CallOptions::new().not_older_than(version);
    /// assert!(names.with(mine).get(&7).await?.is_some());
    /// let next = CallOptions::new().not_older_than(Version::new(version.number() + 1));
    /// assert!(names.with(next).get(&7).await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "newer_than")]
    pub fn not_older_than(mut self, version: Version) -> Self {
        self.not_older_than = Some(version);
        self
    }

    /// Entries that the origin changed last before this, by their [`last_modified`](crate::Loaded::last_modified), are
    /// misses; so are those that say nothing of it.
    #[doc(alias = "newer_than")]
    pub fn modified_since(mut self, time: SystemTime) -> Self {
        self.modified_since = Some(Moment::default() + clock::since_1970(time));
        self
    }

    /// Whatever is cached is a miss: the loader is asked, and what it gives is stored.
    pub fn reload(mut self) -> Self {
        self.reload = true;
        self
    }

    /// Whether an entry is recent enough.
    #[inline]
    pub(crate) fn takes<V>(&self, slot: &Slot<V>) -> bool {
        self.takes_what_is(slot.version, || slot.validators().last_modified)
    }

    /// The same of what L2 has.
    pub(crate) fn takes_envelope(&self, envelope: &Envelope) -> bool {
        self.takes_what_is(envelope.stamp.version, || Validators::of(envelope)?.last_modified)
    }

    #[inline]
    fn takes_what_is(&self, version: Version, last_modified: impl FnOnce() -> Option<Moment>) -> bool {
        !self.reload
            && self.not_older_than.is_none_or(|least| least <= version)
            && self.modified_since.is_none_or(|least| last_modified() >= Some(least))
    }
}
