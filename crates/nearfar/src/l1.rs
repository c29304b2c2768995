//! L1: the only file that names `moka`.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use moka::notification::RemovalCause;
use moka::sync::Cache as Moka;
use nearfar_core::{Gate, Gates, Moment, PartitionId, Raised, Ticket};

use crate::entry::Slot;
use crate::event::Eviction;
use crate::front::{At, Favourite, Front, Sighting};
use crate::lifetime::Life;
use crate::options::L1Options;

/// So many threads seldom meet at one of them.
const LOCKS: usize = 1024;

/// The values that one node holds in memory.
///
/// What the map holds of a key is changed under a lock of that key: admitting and evicting one key never overlap, which is what
/// [`Gate::admits`] asks for. Reads take no lock.
pub(crate) struct L1<K, V> {
    /// With seeded hashes of low cost: a hit costs an eighth less than with the standard library's.
    map: Moka<K, Arc<Slot<V>>, RandomState>,
    hashes: RandomState,
    /// Each for all keys whose hashes end alike. A change by moka's own `and_compute_with` costs more, above all where there
    /// is nothing to change. Beware: moka may drop values of other keys under such a lock.
    locks: Box<[Mutex<()>]>,
    gates: Gates,
    /// `None` where the map has to see each hit, since it lets go what was not read for long.
    front: Option<Arc<Front<K, V>>>,
    /// What its entries may weigh, and whether that is bytes.
    capacity: u64,
    weighs: bool,
}

impl<K, V> L1<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(
        options: &L1Options,
        gates: Gates,
        evicted: impl Fn(&K, Eviction) + Send + Sync + 'static,
    ) -> Self {
        let front: Option<Arc<Front<K, V>>> =
            options.longest_rest.is_none().then(|| Arc::new(Front::new(options.max_entries)));
        let of_listener = front.clone();
        let mut builder = Moka::builder().eviction_listener(move |key, _, cause| {
            if let Some(front) = &of_listener {
                front.remove(&*key);
            }
            match cause {
                RemovalCause::Size => evicted(&key, Eviction::Full),
                RemovalCause::Expired => evicted(&key, Eviction::Expired),
                RemovalCause::Explicit | RemovalCause::Replaced => {}
            }
        });
        if gates.count() > 1 {
            // A partition that is forgotten leaves the copies of the others.
            builder = builder.support_invalidation_closures();
        }
        // Precise lifetimes are checked at each read; this gives the memory back.
        if let Some(longest) = options.longest_stay {
            builder = builder.time_to_live(longest);
        }
        if let Some(longest) = options.longest_rest {
            builder = builder.time_to_idle(longest);
        }
        let hashes = RandomState::default();
        let map = match options.max_bytes {
            None => builder.max_capacity(options.max_entries).build_with_hasher(hashes.clone()),
            // One weight for both limits: no entry weighs less than its share of the bytes.
            Some(max_bytes) => {
                let least = u32::try_from(max_bytes.div_ceil(options.max_entries)).unwrap_or(u32::MAX);
                builder
                    .max_capacity(max_bytes)
                    .weigher(move |_, slot: &Arc<Slot<V>>| slot.encoded_len.max(least))
                    .build_with_hasher(hashes.clone())
            }
        };
        let locks = (0..LOCKS).map(|_| Mutex::default()).collect();
        let capacity = options.max_bytes.unwrap_or(options.max_entries);
        Self { map, hashes, locks, gates, front, capacity, weighs: options.max_bytes.is_some() }
    }

    /// The value of a key, if it may be served. `now` is asked after the look-up, so that a process that slept in
    /// between does not serve what it should not; for the rest of the order see [`Gates::serve_until`].
    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q, now: impl Fn() -> Moment) -> Option<(Arc<Slot<V>>, Moment)>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let Some(front) = &self.front else { return self.peek(key, now) };
        let at = front.at(key);
        let is_to_stand_there = match front.find(at, key) {
            Ok(sighting) => match self.look_at(&sighting, &now) {
                Some(now) => return Some((sighting.slot, now)),
                None => true,
            },
            Err(is_to_stand_there) => is_to_stand_there,
        };
        let found = self.peek(key, now)?;
        if is_to_stand_there {
            self.promote(front, at, key, &found.0);
        }
        Some(found)
    }

    /// As [`get`](Self::get), past the front.
    #[inline]
    pub(crate) fn peek<Q>(&self, key: &Q, now: impl FnOnce() -> Moment) -> Option<(Arc<Slot<V>>, Moment)>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.find(|| self.map.get(key), now, Life::served_until)
    }

    /// Whether L1 still holds what was seen and may serve it, and what time it is then. If not, the map says what is so.
    #[inline]
    fn look_at(&self, sighting: &Sighting<V>, now: impl FnOnce() -> Moment) -> Option<Moment> {
        let slot = &*sighting.slot;
        let look_up = self.gates.look_up();
        if self.gates.of(slot.partition).changes(slot.stripe) != sighting.changes {
            return None;
        }
        let until = self.gates.serve_until(&look_up, slot.partition)?;
        let now = now();
        self.is_alive(slot, now, until, Life::served_until).then_some(now)
    }

    #[cold]
    #[inline(never)]
    fn promote<Q>(&self, front: &Front<K, V>, at: At, key: &Q, slot: &Arc<Slot<V>>)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        // The number first: then what is found is not what was changed before it.
        let changes = self.gates.of(slot.partition).changes(slot.stripe);
        let is_held = || self.map.get(key).is_some_and(|present| Arc::ptr_eq(&present, slot));
        if !is_held() {
            return;
        }
        let sighting = Sighting { slot: Arc::clone(slot), changes };
        front.put(at, Favourite { key: key.to_owned(), sighting });
        // The map may have let it go for want of space meanwhile, with nobody left to take it from the front. A value that is
        // then taken in counts as no change, and would stand behind it.
        if !is_held() {
            front.remove(key);
        }
    }

    /// As [`peek`](Self::peek), also if it is stale, for who has just asked for it: a miss is not counted twice. Of nothing there
    /// is no stale form.
    pub(crate) fn get_stale(&self, key: &K, now: impl FnOnce() -> Moment) -> Option<(Arc<Slot<V>>, Moment)> {
        self.find(|| self.held(key), now, Life::ends_at).filter(|(slot, _)| slot.value().is_some())
    }

    #[inline]
    fn find(
        &self,
        look: impl Fn() -> Option<Arc<Slot<V>>>,
        now: impl FnOnce() -> Moment,
        limit: impl FnOnce(&Life) -> Moment,
    ) -> Option<(Arc<Slot<V>>, Moment)> {
        let (slot, until) = loop {
            let look_up = self.gates.look_up();
            let slot = look()?;
            if let Some(until) = self.gates.serve_until(&look_up, slot.partition) {
                break (slot, until);
            }
        };
        let now = now();
        self.is_alive(&slot, now, until, limit).then_some((slot, now))
    }

    /// Whether a copy may be served that was found before, by who may serve such until then.
    #[inline]
    fn is_alive(
        &self,
        slot: &Slot<V>,
        now: Moment,
        until: Moment,
        limit: impl FnOnce(&Life) -> Moment,
    ) -> bool {
        slot.heed_stale_tags();
        let of_now = slot.generation == self.gates.of(slot.partition).generation();
        of_now && now < until && now < limit(&slot.life) && !slot.is_disowned()
    }

    /// Takes a value in, unless the fence has passed the ticket or something newer is there.
    pub(crate) fn admit(&self, key: K, ticket: Ticket, slot: Arc<Slot<V>>) {
        let gate = self.gates.of(slot.partition);
        let locked = self.lock(&key);
        let present = self.held(&key);
        let newer_present = present.as_ref().is_some_and(|present| {
            if present.version == slot.version && !slot.is_fresh() {
                slot.life.retry_not_before(present.life.retry_at());
            }
            present.generation == slot.generation && present.is_newer_than(&slot) && !present.is_disowned()
        });
        if !newer_present && gate.admits(&ticket, slot.version) {
            let stripe = slot.stripe;
            self.map.insert(key, slot);
            if present.is_some() {
                gate.changed(stripe);
            } else if let Some(front) = self.front.as_ref().filter(|_| self.has_to_choose()) {
                front.taken_in(self.map.entry_count());
            }
        }
        drop((locked, ticket));
    }

    /// Drops a key's copy if it is older than the invalidation that raised the fence.
    pub(crate) fn evict(&self, key: &K, raised: &Raised, gate: &Gate) {
        self.drop_if(key, |slot| slot.version < raised.version());
        gate.changed(raised.stripe());
    }

    /// Makes a key's copy stale if it is older than the change that declared it so.
    pub(crate) fn expire(&self, key: &K, raised: &Raised, now: Moment, gate: &Gate) {
        let locked = self.lock(key);
        if let Some(slot) = self.held(key).filter(|slot| slot.version < raised.version()) {
            slot.life.expire(now);
        }
        drop(locked);
        gate.changed(raised.stripe());
    }

    /// Drops a key's copy, whatever it is: a write of unknown outcome may have made it wrong.
    pub(crate) fn discard(&self, key: &K, stripe: u32, gate: &Gate) {
        self.drop_if(key, |_| true);
        gate.changed(stripe);
    }

    /// Gives back the memory of a partition's forgotten entries. They are not served any more in any case.
    pub(crate) fn reclaim(&self, partition: &PartitionId) {
        if self.gates.count() == 1 {
            return self.map.invalidate_all();
        }
        let index = partition.index();
        let current = self.gates.of(index).generation();
        let forgotten =
            move |_: &K, slot: &Arc<Slot<V>>| slot.partition == index && slot.generation < current;
        self.map.invalidate_entries_if(forgotten).expect("closures are supported where there are partitions");
    }

    /// About how many entries it holds.
    pub(crate) fn len(&self) -> u64 {
        self.map.run_pending_tasks();
        self.map.entry_count()
    }

    /// About how many bytes of its limit its entries take; `None` if it has no such limit.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.weighs.then(|| self.map.weighted_size())
    }

    fn drop_if(&self, key: &K, wrong: impl FnOnce(&Slot<V>) -> bool) {
        let locked = self.lock(key);
        let present = self.held(key);
        if present.as_ref().is_some_and(|slot| wrong(slot)) {
            self.map.invalidate(key);
        }
        // The value goes after the lock: what its `drop` does is not for under it.
        drop(locked);
        drop(present);
    }

    /// Whether the policy of eviction has something to decide, or soon will: like moka, which counts accesses from then on.
    fn has_to_choose(&self) -> bool {
        self.map.weighted_size() >= self.capacity / 2
    }

    /// What the map holds of a key. Where that is nothing, nobody has asked for it, as far as the policy of eviction knows.
    fn held(&self, key: &K) -> Option<Arc<Slot<V>>> {
        if self.map.contains_key(key) { self.map.get(key) } else { None }
    }

    /// The lock under which what the map holds of a key is changed.
    fn lock(&self, key: &K) -> MutexGuard<'_, ()> {
        let hash = self.hashes.hash_one(key);
        #[expect(clippy::cast_possible_truncation, reason = "its last bits")]
        let lock = &self.locks[hash as usize % LOCKS];
        // It guards no data of its own.
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
