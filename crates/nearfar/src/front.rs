//! The most popular of what L1 holds, in places that a hit finds without going through L1's map.
//!
//! The map pays at each hit for its policy of eviction. Most hits are of few keys, and need not: the front has a fixed number
//! of places, a key may stand in one of them, and it stands there together with the [number](nearfar_core::Gate::changes)
//! that tells whether L1 has changed anything of its stripe since.
//!
//! The policy has to go on seeing what is popular, the more the more it has to decide. So time is counted in what an L1 takes
//! in that is not half empty: while it takes in as many entries as it holds, some [`ERAS`] eras pass, and in each the first hit of
//! every place goes to the map all the same. That is about as far as the policy counts, and a small part of what the
//! entries that it takes in cost. Of the others one in [`PASSED_ON`] goes there, for an L1 that has long had nothing to decide.
//!
//! A key gets a place when it has missed it twice and nobody has come for another key in between, which happens soon to
//! popular ones and seldom to others.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use foldhash::fast::RandomState;

use crate::entry::Slot;

/// How many places there are at the most: at some 40 bytes each, a few megabytes.
const MOST: u64 = 65_536;

/// About how many eras pass while L1 takes in as many entries as it holds.
const ERAS: u64 = 16;

/// One hit in so many goes to the map in any case.
const PASSED_ON: u32 = 128;

pub(crate) struct Front<K, V> {
    /// Each guarded for the moment that it takes to read it. Who finds another at it goes to the map.
    places: Box<[Mutex<Place<K, V>>]>,
    hashes: RandomState,
    era: AtomicU16,
}

/// The challenger that is no key, or one in sixty thousand.
const NOBODY: u16 = 0;

struct Place<K, V> {
    /// What the hash of its key ends with.
    tag: u32,
    /// What that of the key ends with which was the last to miss it, unless somebody has found the other since.
    challenger: u16,
    /// In which a hit has gone to the map last.
    era: u16,
    favourite: Option<Favourite<K, V>>,
}

/// What stands in a place.
pub(crate) struct Favourite<K, V> {
    pub(crate) key: K,
    pub(crate) sighting: Sighting<V>,
}

/// What L1 was seen to hold.
pub(crate) struct Sighting<V> {
    pub(crate) slot: Arc<Slot<V>>,
    /// What its gate had said of its stripe before.
    pub(crate) changes: u64,
}

impl<V> Clone for Sighting<V> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot), changes: self.changes }
    }
}

/// Where a key may stand.
#[derive(Clone, Copy)]
pub(crate) struct At {
    place: usize,
    tag: u32,
}

impl At {
    #[expect(clippy::cast_possible_truncation, reason = "its last bits")]
    fn challenger(self) -> u16 {
        self.tag as u16
    }
}

impl<K, V> Front<K, V>
where
    K: Eq + Hash,
{
    /// For an L1 of so many entries.
    pub(crate) fn new(entries: u64) -> Self {
        let places = entries.clamp(1, MOST).next_power_of_two();
        let place = |_| Mutex::new(Place { tag: 0, challenger: NOBODY, era: 0, favourite: None });
        Self {
            places: (0..places).map(place).collect(),
            hashes: RandomState::default(),
            era: AtomicU16::new(0),
        }
    }

    #[inline]
    pub(crate) fn at<Q>(&self, key: &Q) -> At
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let hash = self.hashes.hash_one(key);
        #[expect(clippy::cast_possible_truncation, reason = "both take some of its bits")]
        let (place, tag) = (hash as usize & (self.places.len() - 1), (hash >> 32) as u32);
        At { place, tag }
    }

    /// What stands there, if it is the key's. If not, whether the key is to get the place, once it is found in the map.
    #[inline]
    pub(crate) fn find<Q>(&self, at: At, key: &Q) -> Result<Sighting<V>, bool>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut place = match self.places[at.place].try_lock() {
            Ok(place) => place,
            // A key's `eq` has panicked; what stands there is whole.
            Err(TryLockError::Poisoned(place)) => place.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(false),
        };
        match &place.favourite {
            Some(favourite) if place.tag == at.tag && favourite.key.borrow() == key => {
                let (sighting, era) = (favourite.sighting.clone(), self.era.load(Ordering::Relaxed));
                place.challenger = NOBODY;
                if place.era != era || is_passed_on() {
                    place.era = era;
                    return Err(false);
                }
                Ok(sighting)
            }
            _ => {
                let again = place.challenger == at.challenger();
                place.challenger = at.challenger();
                Err(again)
            }
        }
    }

    pub(crate) fn put(&self, at: At, favourite: Favourite<K, V>) {
        let mut place = self.places[at.place].lock().unwrap_or_else(PoisonError::into_inner);
        place.tag = at.tag;
        let before = place.favourite.replace(favourite);
        // What a value's `drop` does is not for under the lock.
        drop(place);
        drop(before);
    }

    /// L1, which holds so many entries, has taken in one more. By chance, so that no counter is in the way.
    pub(crate) fn taken_in(&self, entries: u64) {
        if fastrand::u64(..=entries / ERAS) == 0 {
            self.era.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives back the memory of a key that L1 does not hold any more.
    pub(crate) fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let at = self.at(key);
        let mut place = self.places[at.place].lock().unwrap_or_else(PoisonError::into_inner);
        let present = place.favourite.take_if(|present| present.key.borrow() == key);
        drop(place);
        drop(present);
    }
}

/// By chance: in turn, the same keys could always be passed on, and others never.
#[inline]
fn is_passed_on() -> bool {
    fastrand::u32(..PASSED_ON) == 0
}
