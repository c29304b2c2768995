//! A bounded queue between whoever hears of changes and the cache that follows.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{ChangeFeed, Changed};

/// A feed that is told by whoever hears of changes, and the means to tell it: for a consumer that calls back, and must not
/// wait.
///
/// It holds so many keys; a key that waits already takes no second place. When there are more, they become
/// [`Changed::Everything`]: nothing is lost, at the price of a clear.
///
/// ```
/// use nearfar::{ChangeFeed, Changed, change_channel};
/// use std::num::NonZeroUsize;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (tell, mut feed) = change_channel(NonZeroUsize::new(2).unwrap());
/// tell.keys([1, 2, 2]);
/// let Some(Changed::Keys(keys)) = feed.next().await else { panic!("keys were told") };
/// assert_eq!(keys.len(), 2);
///
/// tell.keys([1, 2, 3]);
/// assert_eq!(feed.next().await, Some(Changed::Everything));
/// # }
/// ```
pub fn change_channel<K: Eq + Hash + Send + 'static>(
    capacity: NonZeroUsize,
) -> (ChangeSender<K>, ChangeReceiver<K>) {
    let queue = Queue { waiting: HashSet::new(), is_everything: false, senders: 1 };
    let shared = Arc::new(Shared { capacity: capacity.get(), queue: Mutex::new(queue), news: Notify::new() });
    (ChangeSender(Arc::clone(&shared)), ChangeReceiver(shared))
}

/// Tells a [`ChangeReceiver`] what has changed. Clones tell the same one; when the last is dropped, the feed ends.
pub struct ChangeSender<K>(Arc<Shared<K>>);

/// The feed of a [`change_channel`].
pub struct ChangeReceiver<K>(Arc<Shared<K>>);

struct Shared<K> {
    capacity: usize,
    /// Guards what was told and not heard yet.
    queue: Mutex<Queue<K>>,
    news: Notify,
}

struct Queue<K> {
    waiting: HashSet<K>,
    /// Then the keys do not matter.
    is_everything: bool,
    senders: usize,
}

impl<K> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Queue<K>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> ChangeSender<K> {
    /// These keys have changed. Never waits.
    pub fn keys(&self, keys: impl IntoIterator<Item = K>) {
        let mut queue = self.0.lock();
        queue.waiting.extend(keys);
        if queue.waiting.len() > self.0.capacity {
            queue.is_everything = true;
        }
        if queue.is_everything {
            queue.waiting = HashSet::new();
        }
        drop(queue);
        self.0.news.notify_one();
    }

    /// Something may have been missed.
    pub fn everything(&self) {
        let mut queue = self.0.lock();
        queue.is_everything = true;
        queue.waiting = HashSet::new();
        drop(queue);
        self.0.news.notify_one();
    }
}

impl<K: Eq + Hash + Send + 'static> ChangeFeed<K> for ChangeReceiver<K> {
    async fn next(&mut self) -> Option<Changed<K>> {
        loop {
            {
                let mut queue = self.0.lock();
                if std::mem::take(&mut queue.is_everything) {
                    return Some(Changed::Everything);
                }
                if !queue.waiting.is_empty() {
                    return Some(Changed::Keys(std::mem::take(&mut queue.waiting).into_iter().collect()));
                }
                if queue.senders == 0 {
                    return None;
                }
            }
            self.0.news.notified().await;
        }
    }
}

impl<K> Clone for ChangeSender<K> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<K> Drop for ChangeSender<K> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.news.notify_one();
    }
}

impl<K> fmt::Debug for ChangeSender<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeSender").field("capacity", &self.0.capacity).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for ChangeReceiver<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeReceiver").field("capacity", &self.0.capacity).finish_non_exhaustive()
    }
}
