//! A key that many read through the table, as `nearfar`'s `load` does, while others change it.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use nearfar_core::{Disconnected, Gate, Moment, Version};
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use crate::flight::{Boarding, Departure, Flight, FlightId, FlightTable};

pub(crate) const KEY: u8 = 1;

pub(crate) type Answer = Result<u64, Arc<str>>;

/// Everything here is in the order in which it happens: what shuttle explores is who acts when.
pub(crate) struct World {
    pub(crate) table: Arc<FlightTable<u8, Answer>>,
    pub(crate) gate: Gate,
    /// What the database holds.
    truth: AtomicU64,
    /// Up to where it is known to the node that it was changed.
    settled: AtomicU64,
    pub(crate) loads: AtomicU64,
}

/// A load lets others act while it is being polled, after it has woken whoever waits for it.
async fn pause() {
    let mut paused = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        thread::yield_now();
        Poll::Pending
    })
    .await;
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            table: FlightTable::new(),
            gate: Gate::new(Disconnected::Bypass),
            truth: AtomicU64::new(1),
            settled: AtomicU64::new(1),
            loads: AtomicU64::new(0),
        })
    }

    pub(crate) fn departure(&self) -> Departure {
        let (generation, fence) = (self.gate.generation(), self.gate.height(&[KEY]));
        // Others may act between this and boarding.
        thread::yield_now();
        Departure { at: Moment::default(), generation, fence }
    }

    pub(crate) fn board<F>(self: &Arc<Self>, load: F) -> Boarding<Answer, impl Future<Output = Answer>>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let may_join = |other: Departure| other.generation == self.gate.generation();
        self.table.board(&KEY, FlightId::fresh(), self.departure(), may_join, caught(load))
    }

    /// Boards a flight that loads from the database.
    pub(crate) fn fly(self: &Arc<Self>) -> Flight<Answer> {
        boarded(self.board(Arc::clone(self).load()))
    }

    /// What the database holds when the load begins, told when it is over.
    pub(crate) async fn load(self: Arc<Self>) -> Answer {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let value = self.truth.load(Ordering::SeqCst);
        pause().await;
        pause().await;
        Ok(value)
    }

    /// A caller that knows of a change must not get what was there before.
    pub(crate) async fn read(self: Arc<Self>) {
        let known = self.settled.load(Ordering::SeqCst);
        let read = self.fly().await.expect("this load does not fail");
        assert!(read >= known, "the value from before a change that was known");
    }

    /// Changes the database, makes it known in this way, and has it known.
    pub(crate) fn change(&self, settle: fn(&World, Version)) {
        let changed = self.truth.fetch_add(1, Ordering::SeqCst) + 1;
        settle(self, Version::new(changed));
        self.settled.store(changed, Ordering::SeqCst);
    }

    /// As `Holdings::settle` does.
    pub(crate) fn retire(&self, version: Version) {
        let raised = self.gate.raise(&[KEY], version);
        thread::yield_now();
        self.table.retire(&KEY, raised.height());
    }

    /// As `Holdings::discard` does.
    pub(crate) fn retire_any(&self, _: Version) {
        self.gate.raise_unsettled(&[KEY]);
        thread::yield_now();
        self.table.retire_any(&KEY);
    }

    /// As `Holdings::forget` does.
    pub(crate) fn forget(&self, _: Version) {
        self.gate.forget();
    }

    pub(crate) fn assert_table_is_empty(&self) {
        let asked = |_: Departure| panic!("a flight is still listed");
        drop(self.table.board(&KEY, FlightId::fresh(), self.departure(), asked, std::future::pending()));
    }
}

pub(crate) fn boarded<F>(boarding: Boarding<Answer, F>) -> Flight<Answer> {
    match boarding {
        Boarding::Led(flight) | Boarding::Joined(flight, _) => flight,
        Boarding::Itself => panic!("no load asks for its own key"),
    }
}

/// As `Engine::caught` does.
async fn caught(load: impl Future<Output = Answer>) -> Answer {
    AssertUnwindSafe(load).catch_unwind().await.unwrap_or_else(|_| Err("it panicked".into()))
}

/// Runs it under many schedules: random ones, and such with few but well-placed switches.
pub(crate) fn explore(test: fn()) {
    shuttle::check_random(test, 5_000);
    shuttle::check_pct(test, 5_000, 3);
}

/// Runs it under schedules that are the same each time, one of which is known to break it.
pub(crate) fn explore_again(test: fn()) {
    shuttle::check_random_with_seed(test, 1, 10_000);
}
