//! What a node holds of a cache: the part that follows the bus.

use std::hash::Hash;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nearfar_core::{Gate, Version};

use crate::entry::Entry;
use crate::error::Error;
use crate::flight::FlightTable;
use crate::key::CacheKey;
use crate::l1::L1;
use crate::member::Follows;
use crate::options::Options;
use crate::outbox::SharedOutbox;
use crate::stats::Counters;

/// Copies of values and flights in progress, and the gate that says what they are worth.
pub(crate) struct Holdings<K, V> {
    pub(crate) gate: Arc<Gate>,
    pub(crate) l1: L1<K, V>,
    pub(crate) flights: Arc<FlightTable<K, Result<Entry<V>, Error>>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) outbox: SharedOutbox,
    /// The last clear of this node's own that was settled.
    own_clear: AtomicU64,
}

impl<K, V> Holdings<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(options: &Options, outbox: SharedOutbox) -> Self {
        let gate = Arc::new(Gate::new(options.disconnected));
        let counters = Arc::new(Counters::default());
        let l1 = L1::new(&options.l1(), Arc::clone(&gate), Arc::clone(&counters));
        Self { gate, l1, flights: FlightTable::new(), counters, outbox, own_clear: AtomicU64::new(0) }
    }

    /// An invalidation is known: no older copy stays, no older flight is joined.
    pub(crate) fn settle(&self, key: &K, encoded: &[u8], version: Version) {
        let raised = self.gate.raise(encoded, version);
        self.flights.retire(key, raised.height());
        self.l1.evict(key.clone(), &raised);
    }

    /// Every copy so far is wrong, or may be. The version is that of the clear, if it is known.
    pub(crate) fn forget(&self, version: Version) {
        self.gate.clear(version);
        self.l1.reclaim();
    }

    /// This node cleared the cache and knows it: its own message need not forget what has come since.
    pub(crate) fn settle_clear(&self, version: Version) {
        self.forget(version);
        self.own_clear.store(version.number(), Ordering::Release);
    }

    /// A change of the key may have happened, nobody knows which: no copy stays, no flight is joined.
    pub(crate) fn discard(&self, key: &K, encoded: &[u8]) {
        self.gate.raise_unsettled(encoded);
        self.flights.retire_any(key);
        self.l1.discard(key.clone());
    }
}

impl<K, V> Follows for Holdings<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    fn apply(&self, version: Version, keys: &[Bytes]) {
        for encoded in keys {
            // Bytes that are no key of this type are the key of no copy here: keys are used only if they read back.
            // A decoder that panics over them says the same.
            match catch_unwind(|| K::decode(encoded)) {
                Ok(Some(key)) => self.settle(&key, encoded, version),
                Ok(None) | Err(_) => drop(self.gate.raise(encoded, version)),
            }
        }
    }

    fn apply_clear(&self, version: Version, own: bool) {
        let known = own && self.own_clear.load(Ordering::Acquire) == version.number();
        if !known {
            self.forget(version);
        }
    }

    fn reclaim(&self) {
        self.l1.reclaim();
    }

    fn close(&self) {
        self.gate.close();
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn outbox(&self) -> &SharedOutbox {
        &self.outbox
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}
