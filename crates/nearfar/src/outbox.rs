//! The outbox of a cache's partition, shared by those who fill it and the receive loop, which empties it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nearfar_core::{Batch, Moment, Outbox, Subject, Tags};
use tokio::sync::mpsc;

use crate::link::Order;

/// What a node that was shut down leaves undone: invalidations that L2 did not acknowledge. Other nodes may serve what
/// was there before, until it expires.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::backend::Batch;
/// use nearfar::{InProcess, Nearfar};
///
/// let shared = InProcess::new();
/// let nearfar = Nearfar::builder().in_process(&shared);
/// let names = nearfar.cache::<u64, String>("names").build().await?;
/// shared.cut_store();
/// names.invalidate(&42).await?;
///
/// let left = nearfar.shutdown().await;
/// assert_eq!(left[0].namespace, "names");
/// assert_eq!(left[0].what, Batch::Keys(vec!["42".into()]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered {
    /// Of which cache. One with several partitions may be named several times.
    pub namespace: String,
    /// The encoded keys, or the tags, or everything in a partition.
    pub what: Batch,
}

pub(crate) struct SharedOutbox {
    outbox: Mutex<Outbox>,
    /// Whether nobody sends it any more. Changed under the lock.
    closed: AtomicBool,
    /// Whether anything waits: a read of L2 asks without taking the lock.
    in_use: AtomicBool,
    /// To the receive loop.
    orders: mpsc::WeakUnboundedSender<Order>,
}

impl SharedOutbox {
    pub(crate) fn new(orders: mpsc::WeakUnboundedSender<Order>) -> Self {
        Self {
            outbox: Mutex::default(),
            closed: AtomicBool::new(false),
            in_use: AtomicBool::new(false),
            orders,
        }
    }

    /// Whether nothing waits. Takes no lock.
    pub(crate) fn is_empty(&self) -> bool {
        !self.in_use.load(Ordering::Acquire)
    }

    /// Whether what L2 has under this key is known to be wrong, though L2 does not know.
    pub(crate) fn holds(&self, key: &Bytes) -> bool {
        !self.is_empty() && self.lock().holds(&Subject::Key(key.clone()))
    }

    /// Whether what carries one of these tags is known to be wrong, though L2 does not know.
    pub(crate) fn holds_any(&self, tags: &Tags) -> bool {
        !self.is_empty() && tags.iter().any(|tag| self.lock().holds(&Subject::Tag(tag.clone())))
    }

    /// Adds a change that was not acknowledged and may be executed until then. `false` if nobody would send it.
    pub(crate) fn queue(&self, now: Moment, change: Batch, executed_by: Moment) -> bool {
        self.with(|outbox| {
            let open = !self.closed.load(Ordering::Relaxed);
            if open {
                outbox.add_batch(now, change, executed_by);
            }
            open
        })
    }

    /// Nobody sends it from here on. Returns what is left, the first time.
    pub(crate) fn close(&self) -> Vec<Batch> {
        self.with(|outbox| {
            let is_closed = self.closed.swap(true, Ordering::Relaxed);
            if is_closed { Vec::new() } else { outbox.left() }
        })
    }

    /// Does something with the outbox, and wakes the loop if there is something to send now.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Outbox) -> T) -> T {
        let mut outbox = self.lock();
        let (due, outcome) = (outbox.due(), work(&mut outbox));
        self.in_use.store(outbox.depth() > 0, Ordering::Release);
        let sooner = outbox.due() < due;
        drop(outbox);
        if sooner && let Some(orders) = self.orders.upgrade() {
            // A loop that has ended sends nothing any more.
            let _ = orders.send(Order::Look);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
