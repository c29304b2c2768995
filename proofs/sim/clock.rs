//! The one place of the simulation where time enters. It is virtual: it stands still while anything can run.

use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds, the grain of Tokio's timers.
pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) async fn sleep(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module, and the time is virtual")]
    tokio::time::sleep(duration).await;
}

/// Time since the world began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("no simulation is that long")
}
