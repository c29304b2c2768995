//! One load per key per node.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use nearfar_core::{Height, Moment};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One caller's share in a load. All callers drive it together: any of them can go, and it goes on while one is left.
pub(crate) struct Flight<T> {
    load: Shared<Boxed<T>>,
    rouser: Arc<Rouser>,
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) at: Moment,
    pub(crate) generation: u64,
    /// Invalidations of the key up to here were known; the flight need not fear them.
    pub(crate) fence: Height,
}

/// What a caller gets.
pub(crate) enum Boarding<T> {
    /// It leads a flight of its own.
    Led(Flight<T>),
    /// It joined one.
    Joined(Flight<T>),
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

    /// Joins the key's flight if it may be joined, else begins one.
    pub(crate) fn board<F>(
        self: &Arc<Self>,
        key: &K,
        departure: Departure,
        may_join: impl FnOnce(Departure) -> bool,
        load: F,
    ) -> Boarding<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(listed) = flights.get(key)
            && may_join(listed.departure)
            && let Some(load) = listed.load.upgrade()
        {
            let (id, rouser) = (listed.id, Arc::clone(&listed.rouser));
            drop(flights);
            let flight = Flight { load, rouser };
            return if id.is_polled_here() { Boarding::Itself } else { Boarding::Joined(flight) };
        }
        let (id, rouser) = (FlightId::fresh(), Arc::new(Rouser::default()));
        let listing = Listing { table: Arc::clone(self), key: key.clone(), id };
        let load: Boxed<T> = Box::pin(driven(load, id, Arc::clone(&rouser), listing));
        let load = load.shared();
        let weak = load.downgrade().expect("a flight that was not polled yet is not finished");
        let listed = Listed { id, departure, load: weak, rouser: Arc::clone(&rouser) };
        flights.insert(key.clone(), listed);
        Boarding::Led(Flight { load, rouser })
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

/// Names a flight in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlightId(u64);

thread_local! {
    /// The flights that this thread is polling at this moment, the inner ones last.
    static POLLED: RefCell<Vec<FlightId>> = const { RefCell::new(Vec::new()) };
}

impl FlightId {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn is_polled_here(self) -> bool {
        POLLED.with_borrow(|polled| polled.contains(&self))
    }

    fn polled(self) -> impl Drop {
        struct Polled;
        impl Drop for Polled {
            fn drop(&mut self) {
                POLLED.with_borrow_mut(Vec::pop);
            }
        }
        POLLED.with_borrow_mut(|polled| polled.push(self));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Wake;
    use std::thread;

    use futures_util::task::noop_waker;
    use nearfar_core::{Disconnected, Gate};

    use super::*;

    fn departure() -> Departure {
        let fence = Gate::new(Disconnected::Bypass).height(b"k");
        Departure { at: Moment::default(), generation: 0, fence }
    }

    fn board<F>(table: &Arc<FlightTable<u8, u8>>, load: F) -> Flight<u8>
    where
        F: Future<Output = u8> + Send + 'static,
    {
        match table.board(&1, departure(), |_| true, load) {
            Boarding::Led(flight) | Boarding::Joined(flight) => flight,
            Boarding::Itself => panic!("nothing is being polled"),
        }
    }

    /// A task that notes that it was woken.
    #[derive(Default)]
    struct Task(AtomicU64);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The load wakes while the leader polls it; the joiner, woken, sees that somebody is at it, and waits; the leader
    /// leaves before it polls again. Without rousing, nobody ever polls again.
    #[test]
    fn a_leader_that_leaves_when_the_load_has_just_woken_strands_nobody() {
        let table = FlightTable::new();
        let (woken, load_woke) = mpsc::channel();
        let (resume, resumed) = mpsc::channel();
        let mut landed = false;
        let leader = board(
            &table,
            poll_fn(move |cx| {
                if landed {
                    return Poll::Ready(7);
                }
                landed = true;
                cx.waker().wake_by_ref();
                woken.send(()).expect("the test waits for it");
                resumed.recv().expect("the test sends it");
                Poll::Pending
            }),
        );
        let mut joiner = board(&table, std::future::pending());
        let leading = thread::spawn(move || {
            let mut leader = leader;
            assert!(leader.poll_unpin(&mut Context::from_waker(&noop_waker())).is_pending());
        });

        load_woke.recv().expect("the leader polls");
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        assert!(joiner.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        resume.send(()).expect("the leader waits");
        leading.join().expect("it does not panic");

        assert!(task.0.load(Ordering::SeqCst) > 0, "the leader's leaving wakes the joiner");
        assert_eq!(joiner.poll_unpin(&mut Context::from_waker(&waker)), Poll::Ready(7));
    }

    #[test]
    fn a_flight_that_everybody_left_is_off_the_table() {
        let table = FlightTable::new();
        let flights = [board(&table, std::future::pending()), board(&table, std::future::pending())];
        assert_eq!(table.lock().len(), 1);
        drop(flights);
        assert_eq!(table.lock().len(), 0);
    }
}
