//! Makes invalidations of what a feed says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nearfar_core::Tags;

use super::following::{Counts, FeedEnd};
use super::{ChangeFeed, Changed};
use crate::engine::Engine;
use crate::error::Error;
use crate::key::{self, CacheKey};
use crate::outcome::Outcome;
use crate::tags::TagChange;

/// One cache that follows.
pub(super) struct Driver<K, V> {
    pub(super) engine: Arc<Engine<K, V>>,
    counts: Arc<Counts>,
}

/// The node was shut down.
pub(super) struct Closed;

impl<K, V> Driver<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(super) fn new(engine: &Arc<Engine<K, V>>) -> Self {
        Self { engine: Arc::clone(engine), counts: Arc::default() }
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    pub(super) async fn follow(self, mut feed: impl ChangeFeed<K>) -> FeedEnd {
        while let Some(changed) = feed.next().await {
            if self.apply(changed).await.is_err() {
                return FeedEnd::Closed;
            }
        }
        FeedEnd::Source
    }

    async fn apply(&self, changed: Changed<K>) -> Result<(), Closed> {
        match changed {
            Changed::Keys(keys) => self.invalidate(keys).await,
            Changed::EncodedKeys(keys) => self.invalidate_encoded(keys).await,
            Changed::Tags(tags) => self.invalidate_tags(&tags).await,
            Changed::Everything => self.clear().await,
        }
    }

    async fn invalidate(&self, keys: Vec<K>) -> Result<(), Closed> {
        let named = |key: K| {
            let encoded = key::encode(&key)?;
            Ok((key, encoded))
        };
        let outcomes = self.engine.invalidate_many(keys.into_iter().map(named).collect()).await;
        let counted = outcomes.into_iter().map(|outcome| self.count(&self.counts.keys, 1, outcome));
        counted.fold(Ok(()), Result::and)
    }

    pub(super) async fn invalidate_encoded(&self, keys: Vec<Bytes>) -> Result<(), Closed> {
        let read = |encoded: Bytes| self.read(&encoded);
        self.invalidate(keys.into_iter().filter_map(read).collect()).await
    }

    async fn invalidate_tags(&self, tags: &[String]) -> Result<(), Closed> {
        // What cannot be a tag is carried by nothing.
        let tags: Vec<Bytes> = tags.iter().filter_map(|tag| Tags::encode_one(tag).ok()).collect();
        if tags.is_empty() {
            return Ok(());
        }
        let outcome = self.engine.change_tags(&tags, TagChange::Wrong).await;
        self.count(&self.counts.tags, tags.len() as u64, outcome)
    }

    async fn clear(&self) -> Result<(), Closed> {
        let outcome = self.engine.clear().await;
        self.count(&self.counts.everything, 1, outcome)
    }

    /// Has this node drop its copies of what L2 has something else of already.
    pub(super) fn drop_copies(&self, keys: &[Bytes]) {
        for encoded in keys {
            match self.read(encoded) {
                Some(key) => self.engine.held.discard(&key, encoded),
                // A key of no copy. Something else may share its stripe, which costs that one fill of L1.
                None => {
                    self.engine.held.part_of(encoded).gate.raise_unsettled(encoded);
                }
            }
        }
        self.counts.dropped.fetch_add(keys.len() as u64, Ordering::Relaxed);
    }

    /// Has this node forget all its copies.
    pub(super) fn forget_copies(&self) {
        let held = &self.engine.held;
        held.parts.iter().for_each(|part| held.discard_all(part));
        self.counts.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// The key that bytes stand for. A decoder that panics over them says that they are none, as it does over those of a
    /// message.
    fn read(&self, encoded: &Bytes) -> Option<K> {
        let key = std::panic::catch_unwind(|| K::decode(encoded)).ok().flatten();
        self.counts.unreadable.fetch_add(key.is_none().into(), Ordering::Relaxed);
        key
    }

    fn count(&self, counter: &AtomicU64, count: u64, outcome: Result<Outcome, Error>) -> Result<(), Closed> {
        match outcome {
            Ok(_) => counter.fetch_add(count, Ordering::Relaxed),
            Err(closed) if closed.is_closed() => return Err(Closed),
            // It is in the outbox: that L2 was away is what it is for.
            Err(error) if error.is_unavailable() => counter.fetch_add(count, Ordering::Relaxed),
            Err(error) => {
                let namespace = self.engine.namespace();
                tracing::warn!("what a change feed said of {namespace} could not be invalidated: {error}");
                self.counts.failures.fetch_add(1, Ordering::Relaxed)
            }
        };
        Ok(())
    }
}
