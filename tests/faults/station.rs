//! One node with its readers and its writer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nearfar::{Cache, Nearfar, Outcome};
use nearfar_testkit::{FaultProxy, Read, Stopwatch, Write, eventually, let_pass};
use nearfar_tests::Truth;

/// The pauses between the reads of a reader, and the changes of a writer: all that runs beside each other shall not
/// want for processors.
const READ_EVERY: Duration = Duration::from_millis(2);
const WRITE_EVERY: Duration = Duration::from_millis(10);

/// The longest that a load may take: changes of the key that come meanwhile are frequent.
const SLOW_LOAD: Duration = Duration::from_millis(50);

/// A node, and its way to the server.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) nearfar: Nearfar,
    pub(crate) cache: Cache<u64, u64>,
    /// What all its connections go through, if it has only one server.
    pub(crate) proxy: Option<FaultProxy>,
}

/// What stops readers or writers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whistle(Arc<AtomicBool>);

impl Whistle {
    pub(crate) fn blow(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_blown(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What one task has seen and done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) reads: Vec<Read>,
    pub(crate) failed_reads: u64,
    pub(crate) writes: Vec<Write>,
    pub(crate) queued: u64,
    pub(crate) refused: u64,
}

impl Tally {
    pub(crate) fn absorb(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
        self.failed_reads += other.failed_reads;
        self.queued += other.queued;
        self.refused += other.refused;
    }
}

/// How to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// From L1 alone: what hangs on L2 does not keep this reader from finding what is stale.
    L1,
    /// From L1 or L2.
    WithoutLoading,
    /// From L1 or L2, else by loading.
    Loading,
    /// By one of these, as it comes.
    Any,
}

impl Station {
    pub(crate) fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("its trial is on one server")
    }

    pub(crate) async fn read(
        &self,
        way: Way,
        truth: &Truth,
        key: u64,
    ) -> Result<Option<u64>, nearfar::Error> {
        match way {
            Way::L1 => Ok(self.cache.peek(&key).as_deref().copied()),
            Way::Loading => self.load(truth, key).await.map(Some),
            Way::Any if fastrand::bool() => self.load(truth, key).await.map(Some),
            Way::WithoutLoading | Way::Any => Ok(self.cache.get(&key).await?.as_deref().copied()),
        }
    }

    /// A row now and then takes its time.
    async fn load(&self, truth: &Truth, key: u64) -> Result<u64, nearfar::Error> {
        let truth = truth.clone();
        let loader = move |key| async move {
            let revision = truth.revision(key);
            if fastrand::u8(..4) == 0 {
                let_pass(SLOW_LOAD.mul_f64(fastrand::f64())).await;
            }
            Ok::<_, Infallible>(revision)
        };
        Ok(*self.cache.get_or_load(&key, loader).await?)
    }

    pub(crate) async fn read_on(
        self: Arc<Self>,
        way: Way,
        truth: Truth,
        clock: Stopwatch,
        whistle: Whistle,
    ) -> Tally {
        let mut tally = Tally::default();
        while !whistle.is_blown() {
            let_pass(READ_EVERY).await;
            let key = fastrand::u64(..truth.keys());
            if self.leaves_alone(key) {
                continue;
            }
            let start = clock.micros();
            match self.read(way, &truth, key).await {
                Ok(Some(revision)) => tally.reads.push(Read { key, revision, start, end: clock.micros() }),
                Ok(None) => {}
                Err(_) => tally.failed_reads += 1,
            }
        }
        tally
    }

    /// While L1 is not served, half of the keys are not read: their copies are as old as the fault when it is over.
    fn leaves_alone(&self, key: u64) -> bool {
        key % 2 == 1 && !self.cache.stats().trusted
    }

    /// Changes keys from 0 up to this one.
    pub(crate) async fn write_on(
        self: Arc<Self>,
        keys: Arc<AtomicU64>,
        truth: Truth,
        clock: Stopwatch,
        whistle: Whistle,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut owed = Vec::new();
        while !whistle.is_blown() {
            if self.owes_nothing() {
                deliver(&mut owed, &mut tally, clock);
            }
            let key = fastrand::u64(..keys.load(Ordering::SeqCst));
            let (outcome, write) = self.write(&truth, key, clock).await;
            match outcome {
                Ok(Outcome::Applied(_)) => tally.writes.push(write),
                Ok(Outcome::Queued) => tally.queued += 1,
                Err(_) => tally.refused += 1,
            }
            if !outcome.is_ok_and(Outcome::is_applied) {
                owed.push(write);
            }
            let_pass(WRITE_EVERY).await;
        }
        eventually("the outbox is empty", async || self.owes_nothing()).await;
        deliver(&mut owed, &mut tally, clock);
        tally
    }

    async fn write(
        &self,
        truth: &Truth,
        key: u64,
        clock: Stopwatch,
    ) -> (Result<Outcome, nearfar::Error>, Write) {
        let turn = truth.turn(key).await;
        let start = clock.micros();
        let revision = turn.commit();
        let outcome = if fastrand::bool() {
            self.cache.invalidate(&key).await
        } else {
            self.cache.set(&key, revision).await
        };
        (outcome, Write { key, revision, start, end: clock.micros() })
    }

    /// Whether L2 has acknowledged every change, or an invalidation in its place.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.cache.stats().outbox_keys == 0
    }
}

/// A change that was queued counts as acknowledged once the outbox is empty.
fn deliver(owed: &mut Vec<Write>, tally: &mut Tally, clock: Stopwatch) {
    let end = clock.micros();
    tally.writes.extend(owed.drain(..).map(|write| Write { end, ..write }));
}
