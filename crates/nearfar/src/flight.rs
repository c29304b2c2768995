//! One load per key per node.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use nearfar_core::{Height, Moment};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A load that all its callers drive together: any one of them can be dropped, and it goes on while one is left.
pub(crate) type Flight<T> = Shared<Boxed<T>>;

/// The loads in progress of one cache.
pub(crate) struct FlightTable<K, T> {
    /// Guards the table only; no flight is polled or dropped under it.
    flights: Mutex<Flights<K, T>>,
}

struct Flights<K, T> {
    by_key: HashMap<K, Listed<T>>,
    next_id: u64,
}

struct Listed<T> {
    id: u64,
    departure: Departure,
    /// Weak: a load that nobody waits for any more is dropped, not kept for later.
    flight: WeakShared<Boxed<T>>,
}

/// When a flight began, and what its node knew then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) at: Moment,
    pub(crate) generation: u64,
    /// Invalidations of the key up to here were known; the flight need not fear them.
    pub(crate) fence: Height,
}

impl<K, T> FlightTable<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { flights: Mutex::new(Flights { by_key: HashMap::new(), next_id: 0 }) })
    }

    /// Joins the key's flight if it may be joined, else begins one. Says whether it joined.
    pub(crate) fn join_or_lead<F>(
        self: &Arc<Self>,
        key: &K,
        departure: Departure,
        may_join: impl FnOnce(Departure) -> bool,
        load: F,
    ) -> (Flight<T>, bool)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(listed) = flights.by_key.get(key)
            && may_join(listed.departure)
            && let Some(flight) = listed.flight.upgrade()
        {
            return (flight, true);
        }
        flights.next_id += 1;
        let id = flights.next_id;
        let listing = Listing { table: Arc::clone(self), key: key.clone(), id };
        let listed_load = async move {
            let _listing = listing;
            load.await
        };
        let flight = (Box::pin(listed_load) as Boxed<T>).shared();
        let weak = flight.downgrade().expect("a flight that was not polled yet is not finished");
        flights.by_key.insert(key.clone(), Listed { id, departure, flight: weak });
        (flight, false)
    }

    /// Lets nobody join the key's flight any more if it began before this invalidation was known (race R19). Those
    /// who joined get its value.
    pub(crate) fn retire(&self, key: &K, below: Height) {
        let mut flights = self.lock();
        if flights.by_key.get(key).is_some_and(|listed| listed.departure.fence < below) {
            flights.by_key.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flights<K, T>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delist(&self, key: &K, id: u64) {
        let mut flights = self.lock();
        if flights.by_key.get(key).is_some_and(|listed| listed.id == id) {
            flights.by_key.remove(key);
        }
    }
}

/// Takes a flight off the table when it ends or when its last caller leaves.
struct Listing<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    table: Arc<FlightTable<K, T>>,
    key: K,
    id: u64,
}

impl<K, T> Drop for Listing<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.table.delist(&self.key, self.id);
    }
}
