//! The one place of the testkit that asks what time it is, or waits for it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long [`eventually`] waits: long enough for a loaded machine, short enough to read the failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look whether a condition holds.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Counts microseconds from one moment, for the stamps of a [`History`](crate::History).
///
/// `Copy`, so that all tasks of a test stamp from the same zero; and the [`zero`](Self::zero) can be told to another
/// process of this machine.
///
/// ```
/// use nearfar_testkit::Stopwatch;
///
/// let clock = Stopwatch::start();
/// let same = Stopwatch::since(clock.zero());
/// assert!(clock.micros() <= same.micros());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    /// On the clock that all processes share.
    zero: Duration,
}

impl Stopwatch {
    /// Starts at zero.
    pub fn start() -> Self {
        Self { zero: monotonic() }
    }

    /// One that another process has started.
    pub fn since(zero: u64) -> Self {
        Self { zero: Duration::from_nanos(zero) }
    }

    /// What to tell another process, for its [`since`](Self::since).
    pub fn zero(&self) -> u64 {
        u64::try_from(self.zero.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        monotonic().saturating_sub(self.zero)
    }

    /// Microseconds since the start.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("this clock begins at zero and only grows")
}

/// For how long processors have worked for this thread.
///
/// ```
/// let before = nearfar_testkit::thread_time();
/// assert!((0..1_000_000_u64).map(std::hint::black_box).sum::<u64>() > 0);
/// assert!(nearfar_testkit::thread_time() > before);
/// ```
pub fn thread_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// For how long processors have worked for this process, all its threads together.
///
/// ```
/// let of_this_thread = nearfar_testkit::thread_time();
/// assert!(nearfar_testkit::process_time() >= of_this_thread);
/// ```
pub fn process_time() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// After 20 seconds, naming `what` was waited for.
///
/// # Examples
///
/// ```
/// # use nearfar_testkit::{RedisServer, eventually};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let server = RedisServer::start().await;
/// server.command(&["SET", "key", "value", "PX", "20"]).await;
/// eventually("the key expires", async || {
///     server.command(&["EXISTS", "key"]).await.int() == Some(0)
/// })
/// .await;
/// # }
/// ```
// Not `AsyncFnMut`: its futures are not known to be `Send`, so no spawned task could wait.
pub async fn eventually<C: Future<Output = bool>>(what: &str, condition: impl FnMut() -> C) {
    within(PATIENCE, what, condition).await;
}

/// As [`eventually`], for what several servers have to agree on: one that could not run for two seconds, on a busy
/// machine, may stand back for 30 more.
pub(crate) async fn in_the_end<C: Future<Output = bool>>(what: &str, condition: impl FnMut() -> C) {
    within(3 * PATIENCE, what, condition).await;
}

async fn within<C: Future<Output = bool>>(patience: Duration, what: &str, mut condition: impl FnMut() -> C) {
    let waited = Stopwatch::start();
    while !condition().await {
        assert!(waited.elapsed() < patience, "{patience:?} passed and still not: {what}");
        let_pass(LOOK_EVERY).await;
    }
}

/// Lets real time pass, where the duration is itself what the test is about ("paused for 3 s").
///
/// To wait for an effect, use [`eventually`].
#[expect(clippy::disallowed_methods, reason = "the one sleep of the testkit")]
pub async fn let_pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}
