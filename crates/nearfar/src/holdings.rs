//! What a node holds of a cache: the part that follows the bus.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Arc;
#[cfg(feature = "metrics")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "metrics")]
use nearfar_core::Namespace;
use nearfar_core::{Gate, Gates, Moment, PartitionId, RemoteClock, Version};

use crate::entry::Entry;
use crate::error::Error;
use crate::event::{Event, Eviction};
use crate::flight::FlightTable;
use crate::gathering::{Changes, Fills, Gathering, Reads};
use crate::key::{self, CacheKey};
use crate::l1::L1;
use crate::member::Follows;
use crate::node::Node;
use crate::options::Options;
use crate::outbox::SharedOutbox;
use crate::outlet::Outlet;
use crate::stats::{Counters, Stats};
use crate::tags::{TagChange, TagLedger};
use crate::waiting::Waiting;
use crate::watched::Watched;

/// Copies of values and flights in progress, and the gates that say what they are worth.
pub(crate) struct Holdings<K, V> {
    pub(crate) parts: Box<[Part]>,
    pub(crate) l1: L1<K, V>,
    pub(crate) flights: Arc<FlightTable<K, Result<Entry<V>, Error>>>,
    pub(crate) counters: Arc<Counters>,
    /// What of the counts the recorder of figures has been told. Guards nothing else.
    #[cfg(feature = "metrics")]
    reported: Mutex<Stats>,
}

/// What is held of one partition.
pub(crate) struct Part {
    pub(crate) id: PartitionId,
    pub(crate) gate: Arc<Gate>,
    pub(crate) outbox: Arc<SharedOutbox>,
    pub(crate) reads: Arc<Gathering<Reads>>,
    pub(crate) changes: Arc<Gathering<Changes>>,
    pub(crate) fills: Arc<Gathering<Fills>>,
    /// What is known of the clock of its server.
    pub(crate) remote: RemoteClock,
    /// What is known of its tags.
    pub(crate) tags: TagLedger,
    /// Its loads that wait for those of other nodes.
    pub(crate) waiting: Waiting,
    /// The last clear of this node's own that was settled.
    own_clear: AtomicU64,
}

impl<K, V> Holdings<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// For these partitions of a node, in the order of their numbers. Must be called inside the runtime.
    pub(crate) fn new(options: &Options, node: &Node, partitions: Vec<PartitionId>) -> Self {
        let count = u16::try_from(partitions.len()).expect("the settings were checked");
        let gates = Gates::new(options.disconnected, count);
        let counters = Arc::new(Counters::default());
        let part = |id: PartitionId| {
            let (gate, outbox) = (Arc::clone(gates.of(id.index())), node.outbox(&id));
            let reads = Gathering::new(Reads::new(node.store(), id.clone(), Arc::clone(&counters)));
            let changes = Gathering::new(Changes {
                l2: node.store(),
                partition: id.clone(),
                node: node.id,
                clock: node.clock,
                outbox: Arc::clone(&outbox),
                counters: Arc::clone(&counters),
            });
            let fills = Fills { l2: node.store(), partition: id.clone(), counters: Arc::clone(&counters) };
            let fills = Gathering::new(fills);
            let (remote, tags, waiting, own_clear) = Default::default();
            Part { id, gate, outbox, reads, changes, fills, remote, tags, waiting, own_clear }
        };
        let parts = partitions.into_iter().map(part).collect();
        let counts = Arc::clone(&counters);
        let l1 = L1::new(&options.l1(), gates, move |key, why| count_eviction(&counts, key, why));
        Self {
            parts,
            l1,
            flights: FlightTable::new(),
            counters,
            #[cfg(feature = "metrics")]
            reported: Mutex::default(),
        }
    }

    /// The part that a key is in.
    pub(crate) fn part_of(&self, encoded: &[u8]) -> &Part {
        let count = u16::try_from(self.parts.len()).expect("the settings were checked");
        &self.parts[usize::from(PartitionId::index_of(encoded, count))]
    }

    /// These by the part that their encoded keys are in, in the order of the parts.
    pub(crate) fn by_part<T>(
        &self,
        all: impl IntoIterator<Item = T>,
        encoded: impl Fn(&T) -> &Bytes,
    ) -> impl Iterator<Item = (&Part, Vec<T>)> {
        let mut parts: BTreeMap<u16, Vec<T>> = BTreeMap::new();
        for one in all {
            parts.entry(self.part_of(encoded(&one)).id.index()).or_default().push(one);
        }
        parts.into_iter().map(|(index, some)| (&self.parts[usize::from(index)], some))
    }

    /// An invalidation is known: no older copy stays, no older flight is joined.
    pub(crate) fn settle(&self, key: &K, encoded: &[u8], version: Version) {
        let gate = &self.part_of(encoded).gate;
        let raised = gate.raise(encoded, version);
        self.flights.retire(key, raised.height());
        self.l1.evict(key, &raised, gate);
    }

    /// The key was declared stale: older copies are, and no older flight is joined.
    pub(crate) fn settle_expired(&self, key: &K, encoded: &[u8], version: Version, now: Moment) {
        let gate = &self.part_of(encoded).gate;
        let raised = gate.raise(encoded, version);
        self.flights.retire(key, raised.height());
        self.l1.expire(key, &raised, now, gate);
    }

    /// Every copy of the part so far is wrong.
    fn clear(&self, part: &Part, version: Version) {
        part.gate.clear(version);
        self.l1.reclaim(&part.id);
    }

    /// Everything may have been cleared, nobody knows with which number.
    pub(crate) fn discard_all(&self, part: &Part) {
        part.gate.forget_copies();
        self.l1.reclaim(&part.id);
    }

    /// This node cleared the part and knows it: its own message need not forget what has come since.
    pub(crate) fn settle_clear(&self, part: &Part, version: Version) {
        self.clear(part, version);
        part.own_clear.store(version.number(), Ordering::Release);
    }

    /// A change of the key may have happened, nobody knows which: no copy stays, no flight is joined.
    pub(crate) fn discard(&self, key: &K, encoded: &[u8]) {
        let gate = &self.part_of(encoded).gate;
        let stripe = gate.raise_unsettled(encoded);
        self.flights.retire_any(key);
        self.l1.discard(key, stripe, gate);
    }
}

fn count_eviction<K: CacheKey>(counters: &Counters, key: &K, why: Eviction) {
    if why == Eviction::Full {
        counters.evictions.add(1);
    }
    if counters.outlet.is_heard()
        && let Ok(key) = key::encode(key)
    {
        counters.outlet.tell(|| Event::Evicted { key, why });
    }
}

impl<K, V> Watched for Holdings<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    fn outlet(&self) -> &Outlet {
        &self.counters.outlet
    }

    fn stats(&self, now: Moment) -> Stats {
        let parts = &self.parts;
        let trusted = parts.iter().filter(|part| part.gate.trusts(now)).count();
        let mut stats = self.counters.snapshot();
        (stats.l1_entries, stats.l1_bytes) = (self.l1.len(), self.l1.bytes());
        (stats.partitions, stats.partitions_trusted) = (parts.len() as u64, trusted as u64);
        stats.trusted = trusted == parts.len();
        for part in parts {
            part.outbox.with(|outbox| {
                stats.outbox_keys += outbox.depth() as u64;
                let waited = outbox.oldest().map_or(Duration::ZERO, |since| now.since(since));
                stats.outbox_oldest = stats.outbox_oldest.max(waited);
                stats.outbox_overflows += outbox.overflows();
            });
        }
        stats
    }

    #[cfg(feature = "metrics")]
    fn namespace(&self) -> &Namespace {
        self.parts[0].id.namespace()
    }

    #[cfg(feature = "metrics")]
    fn reported(&self) -> &Mutex<Stats> {
        &self.reported
    }
}

impl Part {
    /// What carries one of these tags is wrong, or stale, if it is older.
    pub(crate) fn settle_tags(&self, tags: &[Bytes], change: TagChange, version: Version, now: Moment) {
        self.tags.note(tags, change, version, now);
        // No copy is left behind by which to see that L2 has lost it.
        self.gate.note(version);
    }
}

/// One part of what is held, as the receive loop knows it.
pub(crate) struct FollowedPart<K, V> {
    held: Arc<Holdings<K, V>>,
    index: usize,
}

impl<K, V> FollowedPart<K, V> {
    pub(crate) fn new(held: &Arc<Holdings<K, V>>, index: usize) -> Self {
        Self { held: Arc::clone(held), index }
    }

    fn part(&self) -> &Part {
        &self.held.parts[self.index]
    }
}

impl<K, V> FollowedPart<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    fn settle_all(&self, version: Version, keys: &[Bytes], settle: impl Fn(&K, &Bytes)) {
        for encoded in keys {
            // Bytes that are no key of this type are the key of no copy here: keys are used only if they read back.
            // A decoder that panics over them says the same.
            match catch_unwind(|| K::decode(encoded)) {
                Ok(Some(key)) => settle(&key, encoded),
                Ok(None) | Err(_) => drop(self.part().gate.raise(encoded, version)),
            }
        }
    }
}

impl<K, V> Follows for FollowedPart<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    fn apply(&self, version: Version, keys: &[Bytes]) {
        self.settle_all(version, keys, |key, encoded| self.held.settle(key, encoded, version));
    }

    fn apply_expired(&self, version: Version, keys: &[Bytes], now: Moment) {
        self.settle_all(version, keys, |key, encoded| self.held.settle_expired(key, encoded, version, now));
    }

    fn apply_tags(&self, version: Version, tags: &[Bytes], change: TagChange, now: Moment) {
        self.part().settle_tags(tags, change, version, now);
    }

    fn advance(&self, applied: Version) {
        self.part().tags.advance(applied);
    }

    fn start_over(&self, since: Version) {
        self.part().tags.start_over(since);
    }

    fn apply_clear(&self, version: Version, own: bool) {
        let known = own && self.part().own_clear.load(Ordering::Acquire) == version.number();
        if !known {
            self.held.clear(self.part(), version);
        }
    }

    fn reclaim(&self) {
        self.held.l1.reclaim(&self.part().id);
    }

    fn wake(&self, key: &[u8]) {
        self.part().waiting.wake(key);
    }

    fn close(&self) {
        self.part().gate.close();
    }

    fn gate(&self) -> &Gate {
        &self.part().gate
    }

    fn outbox(&self) -> &SharedOutbox {
        &self.part().outbox
    }

    fn remote(&self) -> &RemoteClock {
        &self.part().remote
    }

    fn counters(&self) -> &Counters {
        &self.held.counters
    }
}
