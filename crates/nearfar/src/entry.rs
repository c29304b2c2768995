use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nearfar_core::{Moment, Validators, Version};

use crate::lifetime::Life;
use crate::tags::SlotTags;

/// Where an [`Entry`] came from.
///
/// ```
/// assert_ne!(nearfar::Tier::L1, nearfar::Tier::L2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The memory of this node.
    L1,
    /// The store that all nodes share.
    L2,
    /// The loader: this caller's, or that of the flight it joined.
    Loader,
}

/// Why a value is served although its ttl is over.
///
/// ```
/// assert_ne!(nearfar::Staleness::Revalidating, nearfar::Staleness::LoadFailed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Staleness {
    /// It is being loaded in the background; see
    /// [`stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate).
    Revalidating,
    /// The last load failed, and the value is within its [`grace`](crate::CacheBuilder::grace).
    LoadFailed,
    /// The load takes longer than [`soft_timeout`](crate::CacheBuilder::soft_timeout), or even
    /// [`hard_timeout`](crate::CacheBuilder::hard_timeout), and the value is within its grace.
    LoadSlow,
}

/// What [`Cache::look_up`](crate::Cache::look_up) has found.
///
/// ```
/// let nothing: nearfar::LookUp<u8> = nearfar::LookUp::Absent;
/// assert!(nothing.value().is_none());
/// ```
#[derive(Clone, Debug)]
pub enum LookUp<V> {
    /// A value.
    Value(Entry<V>),
    /// It is cached that there is no such thing.
    Absent,
    /// Nothing is cached.
    Miss,
}

impl<V> LookUp<V> {
    pub(crate) fn of(entry: Option<Entry<V>>) -> Self {
        match entry {
            Some(entry) if entry.is_absent() => Self::Absent,
            Some(entry) => Self::Value(entry),
            None => Self::Miss,
        }
    }

    /// The value, if there is one.
    pub fn value(self) -> Option<Entry<V>> {
        match self {
            Self::Value(entry) => Some(entry),
            Self::Absent | Self::Miss => None,
        }
    }
}

/// A value out of the cache. Derefs to the value, which it shares with L1: cloning an entry copies no value.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar, Tier};
///
/// let lengths: Cache<String, usize> = Nearfar::in_process().cache("lengths").build().await?;
/// lengths.set("nearfar", 7).await?;
///
/// let entry = lengths.get("nearfar").await?.expect("just set");
/// assert_eq!(*entry, 7);
/// assert_eq!(entry.tier(), Tier::L1);
/// assert!(entry.age().as_secs() < 60);
/// # Ok(())
/// # }
/// ```
pub struct Entry<V> {
    slot: Arc<Slot<V>>,
    tier: Tier,
    staleness: Option<Staleness>,
    read_at: Moment,
}

impl<V> Entry<V> {
    pub(crate) fn new(slot: Arc<Slot<V>>, tier: Tier, read_at: Moment) -> Self {
        Self { slot, tier, staleness: None, read_at }
    }

    pub(crate) fn stale(slot: Arc<Slot<V>>, tier: Tier, read_at: Moment, why: Staleness) -> Self {
        Self { slot, tier, staleness: Some(why), read_at }
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.slot.is_absent
    }

    /// Whether a read may have to load it again, or has to say that there was one.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.read_at >= self.slot.life.due_from()
    }

    /// The same of a value. That there is none is just forgotten in time.
    #[inline]
    pub(crate) fn is_due_value(&self) -> bool {
        self.is_due() && !self.is_absent()
    }

    pub(crate) fn slot(&self) -> &Arc<Slot<V>> {
        &self.slot
    }

    pub(crate) fn life(&self) -> &Life {
        &self.slot.life
    }

    pub(crate) fn read_at(&self) -> Moment {
        self.read_at
    }

    /// `None` if there is known to be no such thing. No other entry is handed out.
    pub(crate) fn present(self) -> Option<Self> {
        (!self.is_absent()).then_some(self)
    }

    /// Why it is served although it is stale; `None` if it is fresh. Only callers with a loader are served stale values.
    pub fn staleness(&self) -> Option<Staleness> {
        self.staleness
    }

    /// Where it came from.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// How long before it was read the value had been written or loaded, by L2's clock. For a value out of L2 the
    /// round trip of the last beat is the precision.
    pub fn age(&self) -> Duration {
        self.slot.age_when_taken + self.read_at.since(self.slot.taken_at)
    }

    /// The sequence as of which the value is known true. Of two values of one key, the one with the greater version
    /// is the newer. A value that was loaded while L2 was away has version 0: nobody could number it.
    pub fn version(&self) -> Version {
        self.slot.version
    }

    /// The origin's name for this value, as its loader [gave it](crate::Loaded::etag).
    pub fn etag(&self) -> Option<&str> {
        self.slot.validators().etag.as_deref()
    }

    /// When the origin changed it last, as its loader [said](crate::Loaded::last_modified).
    pub fn last_modified(&self) -> Option<SystemTime> {
        let time = self.slot.validators().last_modified?;
        SystemTime::UNIX_EPOCH.checked_add(time.since(Moment::default()))
    }
}

impl<V> Deref for Entry<V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.slot.value().expect("what is absent is not handed out")
    }
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot), ..*self }
    }
}

impl<V: fmt::Debug> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("value", &**self)
            .field("tier", &self.tier)
            .field("staleness", &self.staleness)
            .field("version", &self.slot.version)
            .field("age", &self.age())
            .finish_non_exhaustive()
    }
}

/// What was written so much later is the newer of two values of one version: a load may have replaced the other. What is
/// known of L2's clock is less exact than this, and values of one version that are closer are taken as they come.
const CLEARLY_LATER: Duration = Duration::from_millis(10);

impl<V> Slot<V> {
    #[inline]
    pub(crate) fn value(&self) -> Option<&V> {
        self.content.value()
    }

    /// What another slot of this one's value holds.
    pub(crate) fn shared(slot: &Arc<Self>) -> Content<V> {
        match &slot.content {
            Content::Of(other) => Content::Of(Arc::clone(other)),
            Content::Value(_) | Content::Absent => Content::Of(Arc::clone(slot)),
        }
    }

    pub(crate) fn validators(&self) -> &Validators {
        static NONE: Validators = Validators { etag: None, last_modified: None };
        self.validators.as_deref().unwrap_or(&NONE)
    }

    /// Whether it is not to be replaced by the other.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        if other.version == Version::UNKNOWN && self.life.expires_at() <= other.taken_at {
            // Nobody could number what was loaded while L2 was away. It may replace what is stale: that nothing has come
            // since it was begun, its ticket knows.
            return false;
        }
        let written_at = |slot: &Self| slot.taken_at - slot.age_when_taken;
        match self.version.cmp(&other.version) {
            Ordering::Greater => true,
            Ordering::Equal => written_at(self) > written_at(other) + CLEARLY_LATER,
            Ordering::Less => false,
        }
    }

    /// Whether one of its tags was declared wrong.
    #[inline]
    pub(crate) fn is_disowned(&self) -> bool {
        self.tags.as_ref().is_some_and(|tags| tags.are_wrong())
    }

    /// Takes notice of a tag that was declared stale.
    #[inline]
    pub(crate) fn heed_stale_tags(&self) {
        if let Some(since) = self.tags.as_ref().and_then(|tags| tags.stale_since()) {
            self.life.expire(since);
        }
    }

    /// Whether one of its tags was declared wrong, or stale, since it was taken in.
    pub(crate) fn is_overtaken_by_tags(&self) -> bool {
        self.tags.as_ref().is_some_and(|tags| tags.are_wrong() || tags.stale_since().is_some())
    }

    /// Whether it was not stale when it was taken in.
    pub(crate) fn is_fresh(&self) -> bool {
        self.taken_at < self.life.expires_at()
    }
}

/// What L1 holds of a key, shared with the entries handed out.
///
/// In this order: what a hit looks at, down to the beginning of `life`, is next to the count of those who share it, which a hit
/// writes to in any case.
#[repr(C)]
pub(crate) struct Slot<V> {
    /// The gate's generation when the read or load behind it began.
    pub(crate) generation: u64,
    /// In which partition its key is, and on which stripe of its fence.
    pub(crate) partition: u16,
    pub(crate) stripe: u32,
    /// Whether there is known to be no such thing: so a hit need not go as far as `content`.
    pub(crate) is_absent: bool,
    /// `None` if it has none.
    pub(crate) tags: Option<Box<SlotTags>>,
    pub(crate) version: Version,
    pub(crate) life: Life,
    pub(crate) content: Content<V>,
    /// How old the value was when this node took it in, and when that was: entries may be older than the node.
    pub(crate) age_when_taken: Duration,
    pub(crate) taken_at: Moment,
    /// Length of the encoded value, for a capacity in bytes.
    pub(crate) encoded_len: u32,
    /// `None` if the origin gave none.
    pub(crate) validators: Option<Box<Validators>>,
}

pub(crate) enum Content<V> {
    Value(V),
    /// There is known to be no such thing.
    Absent,
    /// The value that the other slot has, which was found to be still true. That one has a value of its own.
    Of(Arc<Slot<V>>),
}

impl<V> Content<V> {
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// `None` if there is known to be no such thing.
    #[inline]
    pub(crate) fn value(&self) -> Option<&V> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent => None,
            Self::Of(other) => other.value(),
        }
    }
}
