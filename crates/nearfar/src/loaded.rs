use std::time::{Duration, SystemTime};

use nearfar_core::{Kind, Moment, Validators};

use crate::call::CallOptions;
use crate::clock;
use crate::entry::Content;

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
    pub(crate) answer: Answer<V>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) validators: Validators,
    pub(crate) is_stored: bool,
}

/// What a loader has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<V> {
    Value(V),
    /// There is no such thing.
    Absent,
    /// What the loader was given is still true.
    NotModified,
}

impl<V> Answer<V> {
    /// What a slot holds of it; `None` if that is what was there before.
    pub(crate) fn content(self) -> Option<Content<V>> {
        match self {
            Self::Value(value) => Some(Content::Value(value)),
            Self::Absent => Some(Content::Absent),
            Self::NotModified => None,
        }
    }
}

impl<V> Loaded<V> {
    /// A value, cached as the cache is set.
    pub fn new(value: V) -> Self {
        Self::of(Answer::Value(value))
    }

    fn of(answer: Answer<V>) -> Self {
        Self {
            answer,
            ttl: None,
            idle: None,
            grace: None,
            expires_at: None,
            validators: Validators::default(),
            is_stored: true,
        }
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
        Self::of(Answer::Absent)
    }

    /// The entry that a loader of [`get_or_revalidate`](crate::Cache::get_or_revalidate) was given is still true: it is as
    /// fresh as if it had been loaded now, and keeps its etag and last-modified.
    pub fn not_modified() -> Self {
        Self::of(Answer::NotModified)
    }

    /// What an envelope of it is.
    pub(crate) fn kind(&self) -> Kind {
        if matches!(self.answer, Answer::Absent) { Kind::Absent } else { Kind::Value }
    }

    /// Its own ttl, until its own deadline at the longest; `None` if it has neither.
    pub(crate) fn own_ttl(&self) -> Option<Duration> {
        let left = |deadline: SystemTime| deadline.duration_since(clock::wall_now()).unwrap_or_default();
        self.ttl.into_iter().chain(self.expires_at.map(left)).min()
    }

    /// With the lifetime of the call, where it says nothing of its own.
    pub(crate) fn or(mut self, call: &CallOptions) -> Self {
        if matches!(self.answer, Answer::Absent) {
            return self;
        }
        if self.ttl.is_none() && self.expires_at.is_none() {
            (self.ttl, self.expires_at) = (call.ttl, call.expires_at);
        }
        self.idle = self.idle.or(call.idle);
        self.grace = self.grace.or(call.grace);
        self
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

    /// For how long it is fresh after it was last read, in place of the cache's [`idle`](crate::CacheBuilder::idle).
    pub fn idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// When it stops being fresh, in place of the cache's ttl, or at the latest if it has a [`ttl`](Self::ttl) of its own.
    /// By the clock of the node that stores it; what is over already is not stored.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Cache, Loaded, Nearfar};
    /// # use std::time::{Duration, SystemTime};
    /// # let offers: Cache<u64, String> = Nearfar::in_process().cache("offers").build().await?;
    /// let midnight = SystemTime::now() + Duration::from_secs(3600);
    /// offers.set_with(&7, Loaded::new("today only".to_owned()).expires_at(midnight)).await?;
    /// assert!(offers.contains(&7).await?);
    ///
    /// let yesterday = SystemTime::now() - Duration::from_secs(3600);
    /// assert!(offers.set_with(&8, Loaded::new("too late".to_owned()).expires_at(yesterday)).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn expires_at(mut self, deadline: SystemTime) -> Self {
        self.expires_at = Some(deadline);
        self
    }

    /// The origin's name for this very value, which it takes in a conditional request;
    /// see [`get_or_revalidate`](crate::Cache::get_or_revalidate). An empty one, or one of over 1,024 bytes, is not stored.
    pub fn etag(mut self, etag: impl Into<Box<str>>) -> Self {
        let etag = etag.into();
        self.validators.etag = (1..=Validators::MAX_ETAG_LEN).contains(&etag.len()).then_some(etag);
        self
    }

    /// When the origin changed it last. Microsecond precision; nothing before 1970.
    pub fn last_modified(mut self, time: SystemTime) -> Self {
        self.validators.last_modified = Some(Moment::default() + clock::since_1970(time));
        self
    }

    /// Tags by which it can be invalidated.
    pub fn tags(self, tags: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        tags.into_iter().for_each(|tag| drop(tag.into()));
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
