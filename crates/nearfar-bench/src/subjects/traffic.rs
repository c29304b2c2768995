//! Nodes under load: readers and writers of an origin, timed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use nearfar::{Cache, Disconnected, Error, Nearfar};
use nearfar_bench::Row;
use nearfar_testkit::{RedisServer, Stopwatch, let_pass};
use tokio::task::JoinSet;

const NODES: usize = 3;
/// Per node.
const READERS: usize = 16;
const WRITERS: usize = 2;

/// Keys that all nodes have in L1.
const RESIDENT: u64 = 500;
/// Keys that are written, after those.
const CHANGED: u64 = 1_000;
/// Keys that nobody has read before, from here on.
const COLD: u64 = 1 << 32;
/// It is full of cold keys before anything is measured.
const L1_ENTRIES: u64 = 2_500;

const LOAD_TIME: Duration = Duration::from_millis(2);
/// Of a reader, between rounds of reads: the processors must not be what is measured.
const READ_PAUSE: Duration = Duration::from_millis(20);
const RESIDENT_READS: usize = 10;
const WRITE_PAUSE: Duration = Duration::from_millis(10);
/// Until L1 is full.
const WARM_UP: Duration = Duration::from_secs(4);
pub(crate) const MAX_STALENESS: Duration = Duration::from_secs(1);

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// A read of a key that all nodes have in L1.
    Resident,
    /// A read of a key that nobody has read before.
    Cold,
    /// A read of a key that is written.
    Changed,
    Write,
}

/// Latencies in nanoseconds, by [`Work`], in memory that does not grow.
type Times = [Histogram<u64>; 4];

/// Who waited for longer has met a time limit.
const SLOW: Duration = Duration::from_millis(500);

fn no_times() -> Times {
    let longest = nanos(Duration::from_secs(60));
    [(); 4].map(|()| Histogram::new_with_max(longest, 2).expect("the bounds are constant and valid"))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What the caches are beside, and what befell those who asked them.
struct Scene {
    /// The versions of the keys that are written.
    truth: Vec<AtomicU64>,
    loads: AtomicU64,
    next_cold: AtomicU64,
    times: Mutex<Times>,
    over: AtomicBool,
}

impl Scene {
    /// What the origin has under a key that is written.
    fn truth(&self, key: u64) -> Option<&AtomicU64> {
        let index = usize::try_from(key.checked_sub(RESIDENT)?).ok()?;
        self.truth.get(index)
    }

    async fn load(&self, key: u64) -> Result<Row, Error> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        // Before the time that the load takes: nothing else makes an old value come late.
        let version = self.truth(key).map_or(0, |version| version.load(Ordering::SeqCst));
        let_pass(LOAD_TIME).await;
        Ok(Row { description: String::new(), ..Row::new(version) })
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    async fn timed<T>(&self, work: Work, operation: impl Future<Output = T>) -> T {
        let watch = Stopwatch::start();
        let outcome = operation.await;
        let nanos = nanos(watch.elapsed());
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times[work as usize].saturating_record(nanos);
        outcome
    }
}

/// What was seen over some time.
pub(crate) struct Seen {
    span: Duration,
    times: Times,
    loads: u64,
}

impl Seen {
    /// Milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn time(&self, work: Work, quantile: f64) -> f64 {
        self.times[work as usize].value_at_quantile(quantile) as f64 / 1e6
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.span.as_secs_f64()
    }

    pub(crate) fn reads(&self) -> f64 {
        let reads = [Work::Resident, Work::Cold, Work::Changed];
        self.per_second(reads.map(|work| self.times[work as usize].len()).iter().sum())
    }

    /// How many reads and writes met a time limit.
    pub(crate) fn slow(&self) -> u64 {
        self.times.iter().map(|times| times.count_between(nanos(SLOW), u64::MAX)).sum()
    }

    pub(crate) fn loads(&self) -> f64 {
        self.per_second(self.loads)
    }
}

pub(crate) struct Traffic {
    nodes: Vec<Cache<u64, Row>>,
    scene: Arc<Scene>,
    tasks: JoinSet<()>,
}

impl Traffic {
    /// Returns when all nodes are warm.
    pub(crate) async fn start(server: &RedisServer, policy: Disconnected) -> Result<Self, Error> {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let nearfar = Nearfar::connect(&server.url()).await?;
            let cache = nearfar.cache("rows").max_staleness(MAX_STALENESS).l1_max_entries(L1_ENTRIES);
            nodes.push(cache.disconnected(policy).build().await?);
        }
        let scene = Arc::new(Scene {
            truth: (0..CHANGED).map(|_| AtomicU64::new(0)).collect(),
            loads: AtomicU64::new(0),
            next_cold: AtomicU64::new(COLD),
            times: Mutex::new(no_times()),
            over: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for node in &nodes {
            let user = || User { cache: node.clone(), scene: Arc::clone(&scene) };
            (0..READERS).for_each(|_| drop(tasks.spawn(user().read_on())));
            (0..WRITERS).for_each(|_| drop(tasks.spawn(user().write_on())));
        }
        let_pass(WARM_UP).await;
        Ok(Self { nodes, scene, tasks })
    }

    /// Who hangs is seen when it is over.
    pub(crate) async fn observe(&self, span: Duration) -> Seen {
        let (watch, loads) = (Stopwatch::start(), self.loads());
        *self.scene.times.lock().unwrap_or_else(PoisonError::into_inner) = no_times();
        let_pass(span).await;
        let times = std::mem::replace(
            &mut *self.scene.times.lock().unwrap_or_else(PoisonError::into_inner),
            no_times(),
        );
        Seen { span: watch.elapsed(), times, loads: self.loads() - loads }
    }

    fn loads(&self) -> u64 {
        self.scene.loads.load(Ordering::Relaxed)
    }

    /// Keys in the outbox of the fullest.
    pub(crate) fn queued(&self) -> u64 {
        self.nodes.iter().map(|node| node.stats().outbox_keys).max().expect("there are nodes")
    }

    pub(crate) fn are_trusted(&self) -> bool {
        self.nodes.iter().all(|node| node.stats().trusted)
    }

    /// Returns when nobody asks any more.
    pub(crate) async fn stop(&mut self) {
        self.scene.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no user panics");
        }
    }

    /// How many copies, of all nodes, are not what the origin has.
    pub(crate) async fn wrong(&self) -> usize {
        let mut wrong = 0;
        for node in &self.nodes {
            for key in RESIDENT..RESIDENT + CHANGED {
                let user = User { cache: node.clone(), scene: Arc::clone(&self.scene) };
                let truth = self.scene.truth(key).map(|version| version.load(Ordering::SeqCst));
                wrong += usize::from(Some(user.get(key).await) != truth);
            }
        }
        wrong
    }
}

/// Who asks one node.
struct User {
    cache: Cache<u64, Row>,
    scene: Arc<Scene>,
}

impl User {
    async fn get(&self, key: u64) -> u64 {
        let scene = Arc::clone(&self.scene);
        let row = self.cache.get_or_load(&key, async move |key| scene.load(key).await).await;
        row.expect("the origin is up").id
    }

    async fn read_on(self) {
        while !self.scene.is_over() {
            for _ in 0..RESIDENT_READS {
                self.timed_get(Work::Resident, fastrand::u64(..RESIDENT)).await;
            }
            let cold = self.scene.next_cold.fetch_add(1, Ordering::Relaxed);
            self.timed_get(Work::Cold, cold).await;
            self.timed_get(Work::Changed, changed()).await;
            let_pass(READ_PAUSE).await;
        }
    }

    async fn timed_get(&self, work: Work, key: u64) {
        self.scene.timed(work, self.get(key)).await;
    }

    async fn write_on(self) {
        while !self.scene.is_over() {
            let key = changed();
            self.scene.truth(key).expect("it is written").fetch_add(1, Ordering::SeqCst);
            let told = self.scene.timed(Work::Write, self.cache.invalidate(&key)).await;
            told.expect("it is queued at least");
            let_pass(WRITE_PAUSE).await;
        }
    }
}

fn changed() -> u64 {
    fastrand::u64(RESIDENT..RESIDENT + CHANGED)
}
