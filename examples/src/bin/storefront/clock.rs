//! The one place where time enters.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Microseconds of the monotonic clock, which all processes of a machine share: what one stamps, another compares.
pub(crate) fn micros() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let micros = u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000;
    seconds * 1_000_000 + micros
}

/// Time since a moment that [`micros`] told.
pub(crate) fn since(start: u64) -> Duration {
    Duration::from_micros(micros().saturating_sub(start))
}

/// Ticks again and again, first after this period.
pub(crate) fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
