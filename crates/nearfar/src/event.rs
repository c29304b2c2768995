//! What happens in a cache, told to whoever listens.

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::ServerId;
use nearfar_core::{Batch, NodeId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::entry::{Staleness, Tier};
use crate::error::Error;
use crate::stats::Counters;

/// Something that has happened in a cache, on this node or by way of the bus.
///
/// Keys and tags are given as bytes, as they stand in L2: [`CacheKey::decode`](crate::CacheKey::decode) reads a key back.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{By, Cache, CacheKey, Event, Nearfar};
///
/// let users: Cache<u64, String> = Nearfar::in_process().cache("users").build().await?;
/// let mut events = users.events();
/// users.invalidate(&42).await?;
///
/// let Some(Event::Invalidated { keys, by: By::ThisNode }) = events.next().await else { panic!() };
/// assert_eq!(u64::decode(&keys[0]), Some(42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A tier answered a read with something fresh, be it that there is no such thing.
    Hit {
        /// Of which key.
        key: Bytes,
        /// Which tier: [`Tier::L1`] or [`Tier::L2`].
        tier: Tier,
    },
    /// Neither tier did.
    Miss {
        /// Of which key.
        key: Bytes,
    },
    /// A read was answered with something stale.
    StaleServed {
        /// Of which key.
        key: Bytes,
        /// Why that was served.
        why: Staleness,
    },
    /// A loader has found a value, or that there is none. Told for each key of one that loads several.
    Loaded {
        /// Of which key.
        key: Bytes,
        /// How long the loader took.
        took: Duration,
    },
    /// A loader failed or panicked.
    LoadFailed {
        /// Of which key.
        key: Bytes,
        /// What all who wait are told, unless something stale stands in.
        error: Error,
    },
    /// What was loaded is stored nowhere: L2 has something newer, or the load took too long.
    FillRefused {
        /// Of which key.
        key: Bytes,
    },
    /// This node set values, and L2 has acknowledged it. That other nodes did is told as [`Invalidated`](Self::Invalidated),
    /// which is what it is for this node.
    Set {
        /// Of which keys.
        keys: Vec<Bytes>,
    },
    /// Keys were invalidated, or set by another node: what L1 had of them is gone.
    Invalidated {
        /// Which keys.
        keys: Vec<Bytes>,
        /// Who did it.
        by: By,
    },
    /// Keys were declared stale: what L1 has of them is a fallback at most.
    Expired {
        /// Which keys.
        keys: Vec<Bytes>,
        /// Who did it.
        by: By,
    },
    /// What carries one of these tags was invalidated. Told for each partition.
    TagsInvalidated {
        /// Which tags.
        tags: Vec<Bytes>,
        /// Who did it.
        by: By,
    },
    /// What carries one of these tags was declared stale. Told for each partition.
    TagsExpired {
        /// Which tags.
        tags: Vec<Bytes>,
        /// Who did it.
        by: By,
    },
    /// Everything was invalidated. Told for each partition.
    Cleared {
        /// Who did it.
        by: By,
    },
    /// An entry left L1 by itself. L1 looks for what has expired now and then, so that is told late.
    Evicted {
        /// Of which key.
        key: Bytes,
        /// Why it left.
        why: Eviction,
    },
    /// L2 did not acknowledge a change: it waits in the outbox.
    Queued {
        /// What is going to be invalidated.
        what: Batch,
    },
    /// L2 has acknowledged what waited in the outbox.
    Delivered {
        /// What was invalidated.
        what: Batch,
    },
    /// There is proof that this node hears of every change in a partition: L1 is served.
    TrustGained {
        /// The number of the partition.
        partition: u16,
    },
    /// There is none any more: reads go to L2, or as [`disconnected`](crate::CacheBuilder::disconnected) says.
    TrustLost {
        /// The number of the partition.
        partition: u16,
    },
    /// Messages of a partition may be missing.
    Doubted {
        /// The number of the partition.
        partition: u16,
    },
    /// Messages that were missing have been fetched from the log and applied.
    Replayed {
        /// The number of the partition.
        partition: u16,
        /// How many messages. What they say is not told again, one by one.
        messages: u64,
    },
    /// Nothing could prove what L1 had of a partition: it was forgotten.
    Resynced {
        /// The number of the partition.
        partition: u16,
        /// How many keys of this node's own recent changes are invalidated again, since L2 may have lost them.
        reissued: u64,
    },
    /// A server did not answer several times in a row: operations on it fail at once. Told to every cache of the node.
    CircuitOpened {
        /// Which server, as in [`Nearfar::circuits`](crate::Nearfar::circuits).
        server: ServerId,
    },
    /// It answers again.
    CircuitClosed {
        /// Which server.
        server: ServerId,
    },
    /// This listener was too slow: that many events were lost to it, the oldest ones.
    Missed {
        /// How many.
        events: u64,
    },
}

/// Who made a change.
///
/// ```
/// assert_ne!(nearfar::By::ThisNode, nearfar::By::Node(nearfar::NodeId::new(7)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// This node.
    ThisNode,
    /// Another; [`Nearfar::nodes`](crate::Nearfar::nodes) lists those that live.
    Node(NodeId),
}

/// Why an entry left L1 by itself.
///
/// ```
/// assert_ne!(nearfar::Eviction::Full, nearfar::Eviction::Expired);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Eviction {
    /// There was no space for it.
    Full,
    /// Its lifetime was over.
    Expired,
}

/// How many events wait for a listener: a burst of some thousand keys, in some 100 KiB. Longer than that, it is told how
/// many it missed.
pub(crate) const CAPACITY: usize = 1024;

/// What happens in a cache from the moment on that this was made, by [`Cache::events`](crate::Cache::events).
///
/// The cache never waits for a listener. Up to 1024 events wait for it; if there are more, the oldest are lost to it, and
/// it is told [how many](Event::Missed).
pub struct Events {
    counters: Weak<Counters>,
    events: broadcast::Receiver<Event>,
}

impl Events {
    pub(crate) fn new(counters: Weak<Counters>, events: broadcast::Receiver<Event>) -> Self {
        Self { counters, events }
    }

    /// The next event; `None` once the cache is gone. Listening does not keep it.
    ///
    /// # Cancel safety
    /// No event is lost if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, Event, Nearfar, Tier};
    ///
    /// let names: Cache<String, u8> = Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// let mut events = names.events();
    /// names.get("Ada").await?;
    /// assert!(matches!(events.next().await, Some(Event::Hit { tier: Tier::L1, .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Event> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => Some(Event::Missed { events }),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event, if there is one already.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// let mut events = names.events();
    /// names.get("Ada").await?;
    /// assert!(matches!(events.try_next(), Some(nearfar::Event::Miss { .. })));
    /// assert!(events.try_next().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_next(&mut self) -> Option<Event> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Lagged(events)) => Some(Event::Missed { events }),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(counters) = self.counters.upgrade() {
            counters.outlet.leave();
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("waiting", &self.events.len()).finish_non_exhaustive()
    }
}
