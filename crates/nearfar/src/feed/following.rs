//! The handle of a feed that is followed.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A feed that a cache follows; see [`Cache::follow`](crate::Cache::follow). Dropping it ends that, and drops the feed. It
/// keeps the cache alive.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// # use nearfar::{FeedEnd, change_channel};
/// # use std::num::NonZeroUsize;
/// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
/// let (tell, feed) = change_channel(NonZeroUsize::new(100).unwrap());
/// let mut following = names.follow(feed);
/// assert_eq!(following.end(), None, "it is followed");
///
/// tell.everything();
/// drop(tell);
/// assert_eq!(following.ended().await, FeedEnd::Source);
/// assert_eq!(following.stats().everything, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "the feed is followed until this is dropped"]
pub struct Following {
    task: JoinHandle<()>,
    end: watch::Receiver<Option<FeedEnd>>,
    counts: Arc<Counts>,
}

/// Why a feed is not followed any more.
///
/// ```
/// assert_ne!(nearfar::FeedEnd::Source, nearfar::FeedEnd::Closed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedEnd {
    /// The source says that there will be no more.
    Source,
    /// The source has panicked.
    Panicked,
    /// The [`Nearfar`](crate::Nearfar) was shut down.
    Closed,
}

/// What has come of a feed so far.
///
/// ```
/// assert_eq!(nearfar::FeedStats::default().keys, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedStats {
    /// Keys that were invalidated, or went to the outbox to be.
    pub keys: u64,
    /// Tags that were invalidated, or went to the outbox to be.
    pub tags: u64,
    /// How often the whole namespace was cleared.
    pub everything: u64,
    /// Keys whose copies this node alone has dropped, because L2 had something else already.
    pub dropped: u64,
    /// How often this node alone has forgotten all its copies, because what was done to L2 may have been missed: at the
    /// start, and after a connection was lost.
    pub missed: u64,
    /// Encoded keys that are none of the cache's type.
    pub unreadable: u64,
    /// Changes that L2 refused, or that were not tried because nodes disagree on the settings. Each is logged.
    pub failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) keys: AtomicU64,
    pub(super) tags: AtomicU64,
    pub(super) everything: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl Following {
    pub(super) fn spawn(
        counts: Arc<Counts>,
        following: impl Future<Output = FeedEnd> + Send + 'static,
    ) -> Self {
        let (ends, end) = watch::channel(None);
        let task = tokio::spawn(async move {
            let outcome = AssertUnwindSafe(following).catch_unwind().await.unwrap_or(FeedEnd::Panicked);
            match outcome {
                FeedEnd::Closed => {}
                FeedEnd::Source => {
                    tracing::warn!("a change feed has ended: the cache is told of no more changes");
                }
                FeedEnd::Panicked => {
                    tracing::warn!("a change feed has panicked: the cache is told of no more changes");
                }
            }
            ends.send_replace(Some(outcome));
        });
        Self { task, end, counts }
    }

    /// Why it is not followed any more; `None` while it is.
    pub fn end(&self) -> Option<FeedEnd> {
        *self.end.borrow()
    }

    /// Waits until it is not followed any more, and everything that it said is invalidated or in the outbox.
    pub async fn ended(&mut self) -> FeedEnd {
        let end = self.end.wait_for(Option::is_some).await;
        // Without an end, the runtime that it was followed in has ended.
        end.ok().and_then(|end| *end).unwrap_or(FeedEnd::Closed)
    }

    /// What has come of it so far.
    pub fn stats(&self) -> FeedStats {
        let Counts { keys, tags, everything, dropped, missed, unreadable, failures } = &*self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FeedStats {
            keys: read(keys),
            tags: read(tags),
            everything: read(everything),
            dropped: read(dropped),
            missed: read(missed),
            unreadable: read(unreadable),
            failures: read(failures),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("end", &self.end()).field("stats", &self.stats()).finish()
    }
}
