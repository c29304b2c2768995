//! The second way in: sources that say what has changed, so that writers who know nothing of nearfar invalidate all the
//! same.

use std::future::Future;

use bytes::Bytes;

use crate::cache::Cache;
use crate::error::Error;
use crate::key::CacheKey;

mod channel;
mod follow;
mod following;
mod foreign;

pub use channel::{ChangeReceiver, ChangeSender, change_channel};
pub use following::{FeedEnd, FeedStats, Following};

use follow::Driver;
use foreign::Lookout;

/// What a source says has changed.
///
/// ```
/// use nearfar::Changed;
///
/// let renamed = Changed::Keys(vec![42_u64]);
/// assert_ne!(renamed, Changed::Everything);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changed<K> {
    /// What these keys stand for.
    Keys(Vec<K>),
    /// The same, by keys as [`CacheKey`] encodes them. Bytes that are no key of the cache's type are passed over: nothing is
    /// cached under them.
    EncodedKeys(Vec<Bytes>),
    /// Whatever carries one of these tags.
    Tags(Vec<String>),
    /// Nobody knows what: something may have been missed. The whole namespace is [cleared](Cache::clear).
    Everything,
}

/// A source that says what has changed: notifications of a database, a stream of its changes, a message queue.
///
/// [`Cache::follow`] makes of each change a real invalidation, which reaches all nodes and L2; so one node that follows is
/// enough, and if several do, each tells the others the same once more, which does no harm.
///
/// # What an implementation owes
///
/// * **Nothing is lost in silence.** Where it may have missed something, after a reconnect say, it reconnects by itself, with
///   pauses, listens first, and then reports [`Changed::Everything`]. At the start too, unless it can tell what happened
///   before.
/// * **After the commit.** What it reports is committed, where a loader reads it.
/// * **Position.** `next` is called again only when what it returned last is invalidated, or waits in the cache's outbox. So
///   a source that can be read again may move its position on at the next call, not before.
/// * **At once what is at hand.** The keys of one report are invalidated together, reports one after the other. While one is,
///   `next` is not polled: sources wait, by TCP's own back pressure or by a bounded queue such as [`change_channel`]'s.
///
/// ```
/// use nearfar::{Cache, ChangeFeed, Changed, Nearfar};
///
/// /// The rows that were changed, by a table that triggers write to.
/// struct Journal {
///     unread: Vec<u64>,
/// }
///
/// impl ChangeFeed<u64> for Journal {
///     async fn next(&mut self) -> Option<Changed<u64>> {
///         // A real one waits for more, and ends only if there can be no more.
///         (!self.unread.is_empty()).then(|| Changed::Keys(std::mem::take(&mut self.unread)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// let users: Cache<u64, String> = Nearfar::in_process().cache("users").build().await?;
/// users.set(&42, "Ada".to_owned()).await?;
///
/// let mut following = users.follow(Journal { unread: vec![42] });
/// following.ended().await;
/// assert!(users.get(&42).await?.is_none());
/// # Ok(())
/// # }
/// ```
pub trait ChangeFeed<K>: Send + 'static {
    /// Waits for the next change. `None` if there will be no more: then the cache is told of nothing any longer, which is
    /// logged as a warning.
    ///
    /// A panic ends the feed as well. Dropped in the middle when the [`Following`] is.
    fn next(&mut self) -> impl Future<Output = Option<Changed<K>>> + Send;
}

impl<K, V> Cache<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Invalidates what a source says has changed, until the handle that this returns is dropped; see [`ChangeFeed`].
    ///
    /// # Consistency
    /// As [`invalidate`](Self::invalidate) and [`clear`](Self::clear), from when the source reports. What a source reports
    /// late is served for so much longer. While L2 cannot be told, what is reported waits in the outbox.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, Changed, Nearfar, change_channel};
    /// use std::num::NonZeroUsize;
    ///
    /// let prices: Cache<String, u32> = Nearfar::in_process().cache("prices").build().await?;
    /// prices.set("apple", 30).await?;
    ///
    /// let (tell, feed) = change_channel(NonZeroUsize::new(1024).unwrap());
    /// let mut following = prices.follow(feed);
    /// tell.keys(["apple".to_owned()]); // a consumer of a message queue, say
    /// drop(tell);
    /// following.ended().await;
    /// assert!(prices.get("apple").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow(&self, feed: impl ChangeFeed<K>) -> Following {
        let driver = Driver::new(self.engine());
        Following::spawn(driver.counts(), driver.follow(feed))
    }

    /// Notices what others than nodes do to the entries in L2: `DEL`, `SET`, `EXPIRE` or `FLUSHALL` by `redis-cli`, or by a
    /// program in another language. Until the handle that this returns is dropped, this node drops its copies of what was
    /// written to, and invalidates what was changed or deleted behind nearfar's back.
    ///
    /// It is meant for every node, since each has copies of its own to drop. It costs each node one small message, and a
    /// share of one read of L2, for every entry that anybody writes. Returns when all servers tell.
    ///
    /// # Consistency
    /// Between such a write and its being noticed, usually within milliseconds, old copies are served, and a load that began
    /// before it may be stored. `docs/change-feeds.md` says what is not noticed at all.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) on a backend that cannot tell, as an in-process one;
    /// [`Rejected`](crate::ErrorKind::Rejected) if the server refuses, for want of rights say;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if it cannot be reached within `connect_timeout`. A node that
    /// [may start degraded](crate::NearfarBuilder::start_degraded) goes on waiting for it in the background then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// let nobody_else = names.follow_foreign_writes().await.unwrap_err();
    /// assert_eq!(nobody_else.kind(), nearfar::ErrorKind::Config, "memory is written to by nodes alone");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn follow_foreign_writes(&self) -> Result<Following, Error> {
        Lookout::new(Driver::new(self.engine()))?.follow().await
    }
}
