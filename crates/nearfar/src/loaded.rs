use std::time::Duration;

use nearfar_core::Kind;

/// What a loader has found, and how it is to be cached.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Loaded, Nearfar};
/// use std::time::Duration;
///
/// let tokens: Cache<String, String> = Nearfar::in_process().cache("tokens").build().await?;
/// let fetch = |user: String| async move {
///     let valid_for = Duration::from_secs(90); // as the issuer says
///     Ok::<_, std::io::Error>(Loaded::new(format!("token of {user}")).ttl(valid_for))
/// };
/// let token = tokens.get_or_load_with("Ada", fetch).await?.expect("everybody gets one");
/// assert_eq!(*token, "token of Ada");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Loaded<V> {
    /// `None` if there is no such thing.
    pub(crate) value: Option<V>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) is_stored: bool,
}

impl<V> Loaded<V> {
    /// A value, cached as the cache is set.
    pub fn new(value: V) -> Self {
        Self { value: Some(value), ttl: None, grace: None, is_stored: true }
    }

    /// There is no such thing. That is cached for [`absent_ttl`](crate::CacheBuilder::absent_ttl), or for a
    /// [`ttl`](Self::ttl) of its own, and not at all if there is neither.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Cache, Loaded, Nearfar};
    /// # use std::{io, time::Duration};
    /// # let users: Cache<u64, String> = Nearfar::in_process().cache("users").build().await?;
    /// let nobody = |_| async { Ok::<_, io::Error>(Loaded::absent().ttl(Duration::from_secs(5))) };
    /// assert!(users.get_or_load_with(&7, nobody).await?.is_none());
    ///
    /// let unreachable = |_| async { Err(io::Error::other("nobody asks the database")) };
    /// assert!(users.get_or_load_optional(&7, unreachable).await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn absent() -> Self {
        Self { value: None, ttl: None, grace: None, is_stored: true }
    }

    /// What an envelope of it is.
    pub(crate) fn kind(&self) -> Kind {
        if self.value.is_some() { Kind::Value } else { Kind::Absent }
    }

    /// For how long it is fresh, in place of the cache's [`ttl`](crate::CacheBuilder::ttl); the cache's jitter shortens it.
    /// Zero stores nothing. L1 keeps it for no longer than it would keep others.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// For how long past its ttl it may be served stale, in place of the cache's
    /// [`grace`](crate::CacheBuilder::grace).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Whoever waits for it gets it, and nobody else.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Cache, Loaded, Nearfar};
    /// # let users: Cache<u64, String> = Nearfar::in_process().cache("users").build().await?;
    /// let guest = |_| async { Ok::<_, std::io::Error>(Loaded::new("guest".to_owned()).do_not_store()) };
    /// assert!(users.get_or_load_with(&7, guest).await?.is_some());
    /// assert!(!users.contains(&7).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn do_not_store(mut self) -> Self {
        self.is_stored = false;
        self
    }
}
