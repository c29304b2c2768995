//! One load per key per node.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use nearfar_core::{Height, Moment};

use crate::sync::{Mutex, MutexGuard, PoisonError, thread_local};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One caller's share in a load. All callers drive it together: any of them can go, and it goes on while one is left.
pub(crate) struct Flight<T> {
    load: Shared<Boxed<T>>,
    rouser: Arc<Rouser>,
}

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Self { load: self.load.clone(), rouser: Arc::clone(&self.rouser) }
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// One that no caller can join but through its clones, with the id of those that it is part of.
    pub(crate) fn private(id: FlightId, load: impl Future<Output = T> + Send + 'static) -> Self {
        Self::driven(id, load, ())
    }

    fn driven<L: Send + 'static>(
        id: FlightId,
        load: impl Future<Output = T> + Send + 'static,
        listing: L,
    ) -> Self {
        let rouser = Arc::new(Rouser::default());
        let load: Boxed<T> = Box::pin(driven(load, id, Arc::clone(&rouser), listing));
        Self { load: load.shared(), rouser }
    }
}

impl<T: Clone> Future for Flight<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.load.poll_unpin(cx)
    }
}

/// Whoever leaves may have been the one who was to poll next: the load woke while it was polling, and the others saw
/// that somebody was at it (<https://github.com/rust-lang/futures-rs/issues/2706>). So the others are woken.
impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.rouser.rouse();
    }
}

/// Wakes everybody who waits for a load.
#[derive(Default)]
struct Rouser {
    /// What the load was last polled with, which wakes all who share it; `None` before and after.
    waker: Mutex<Option<Waker>>,
}

impl Rouser {
    fn set(&self, waker: Option<&Waker>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = waker.cloned();
    }

    fn rouse(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The loads in progress of one cache.
pub(crate) struct FlightTable<K, T> {
    /// Guards the table only; no flight is polled or dropped under it.
    flights: Mutex<HashMap<K, Listed<T>>>,
}

struct Listed<T> {
    id: FlightId,
    departure: Departure,
    /// Weak: a load that nobody waits for any more is dropped, not kept for later.
    load: WeakShared<Boxed<T>>,
    rouser: Arc<Rouser>,
}

/// When a flight began, and what its node knew then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Departure {
    pub(crate) at: Moment,
    pub(crate) generation: u64,
    /// Invalidations of the key up to here were known; the flight need not fear them.
    pub(crate) fence: Height,
}

/// What a caller gets.
pub(crate) enum Boarding<T, F> {
    /// It leads a flight of its own.
    Led(Flight<T>),
    /// It joined one, and has its own load left.
    Joined(Flight<T>, F),
    /// It is the loader of the very flight that it would join, and would wait for itself.
    Itself,
}

impl<K, T> FlightTable<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { flights: Mutex::default() })
    }

    /// Joins the key's flight if it may be joined, else begins one with this id.
    pub(crate) fn board<F>(
        self: &Arc<Self>,
        key: &K,
        id: FlightId,
        departure: Departure,
        may_join: impl FnOnce(Departure) -> bool,
        load: F,
    ) -> Boarding<T, F>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(listed) = flights.get(key)
            && may_join(listed.departure)
            && let Some(joined) = listed.load.upgrade()
        {
            let (its_id, rouser) = (listed.id, Arc::clone(&listed.rouser));
            drop(flights);
            let flight = Flight { load: joined, rouser };
            return if its_id.is_polled_here() { Boarding::Itself } else { Boarding::Joined(flight, load) };
        }
        let (flight, listed) = self.begin(key, id, departure, load);
        flights.insert(key.clone(), listed);
        Boarding::Led(flight)
    }

    /// Goes on with a load of the flight that is being polled in another one, which takes its place on the table. If that
    /// flight may not be joined any more, neither may this one.
    pub(crate) fn go_on<F>(self: &Arc<Self>, key: &K, load: F) -> Flight<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.lock();
        let place = flights.get_mut(key).filter(|listed| listed.id.is_polled_here());
        let departure = place.as_ref().map(|listed| listed.departure).unwrap_or_default();
        let (flight, listed) = self.begin(key, FlightId::fresh(), departure, load);
        if let Some(place) = place {
            *place = listed;
        }
        flight
    }

    fn begin<F>(
        self: &Arc<Self>,
        key: &K,
        id: FlightId,
        departure: Departure,
        load: F,
    ) -> (Flight<T>, Listed<T>)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let listing = Listing { table: Arc::clone(self), key: key.clone(), id };
        let flight = Flight::driven(id, load, listing);
        let load = flight.load.downgrade().expect("a flight that was not polled yet is not finished");
        let listed = Listed { id, departure, load, rouser: Arc::clone(&flight.rouser) };
        (flight, listed)
    }

    /// Lets nobody join the key's flight any more if it began before this invalidation was known (race R19). Those
    /// who joined get its value.
    pub(crate) fn retire(&self, key: &K, below: Height) {
        self.remove_if(key, |listed| listed.departure.fence < below);
    }

    /// Lets nobody join the key's flight any more, whenever it began.
    pub(crate) fn retire_any(&self, key: &K) {
        self.remove_if(key, |_| true);
    }

    fn remove_if(&self, key: &K, unwanted: impl FnOnce(&Listed<T>) -> bool) {
        let mut flights = self.lock();
        if flights.get(key).is_some_and(unwanted) {
            flights.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Listed<T>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load that knows how to wake those who wait for it and who polls it, and that is listed while it lasts.
async fn driven<F: Future, L>(load: F, id: FlightId, rouser: Arc<Rouser>, _listing: L) -> F::Output {
    let mut load = std::pin::pin!(load);
    let landed = poll_fn(|cx| {
        rouser.set(Some(cx.waker()));
        let _polled = id.polled();
        load.as_mut().poll(cx)
    })
    .await;
    rouser.set(None);
    landed
}

/// Names a flight in this process, or several that are loaded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlightId(u64);

thread_local! {
    /// The flights that this thread is polling at this moment, the inner ones last.
    static POLLED: RefCell<Vec<FlightId>> = const { RefCell::new(Vec::new()) };
}

impl FlightId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn is_polled_here(self) -> bool {
        POLLED.with(|polled| polled.borrow().contains(&self))
    }

    fn polled(self) -> impl Drop {
        struct Polled;
        impl Drop for Polled {
            fn drop(&mut self) {
                POLLED.with(|polled| polled.borrow_mut().pop());
            }
        }
        POLLED.with(|polled| polled.borrow_mut().push(self));
        Polled
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
    id: FlightId,
}

impl<K, T> Drop for Listing<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.table.remove_if(&self.key, |listed| listed.id == self.id);
    }
}
