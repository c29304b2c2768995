//! The one place where time enters.

use std::time::{Duration, SystemTime};

use nearfar_core::Moment;

/// A node's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    /// The system's clock that goes on while the machine is suspended, so that a laptop lid or a paused virtual
    /// machine cannot stretch a lifetime.
    System,
    /// Tokio's clock since this instant: tests may pause it.
    Tokio(tokio::time::Instant),
}

impl Clock {
    pub(crate) fn tokio() -> Self {
        Self::Tokio(tokio::time::Instant::now())
    }

    #[inline]
    pub(crate) fn now(self) -> Moment {
        match self {
            Self::System => system_now(),
            Self::Tokio(origin) => Moment::default() + origin.elapsed(),
        }
    }

    pub(crate) async fn sleep_until(self, moment: Moment) {
        // A far-off moment is looked at again after an hour; tokio's timers do not take an end of time.
        let pause = moment.since(self.now()).min(Duration::from_secs(3600));
        #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
        tokio::time::sleep(pause).await;
    }
}

/// `CLOCK_BOOTTIME` counts suspended time on Linux; elsewhere the monotonic clock is the nearest thing.
#[inline]
fn system_now() -> Moment {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let id = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let micros = u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000;
    Moment::from_micros(seconds * 1_000_000 + micros)
}

/// What users' deadlines are measured against. No decision about coherence is.
pub(crate) fn wall_now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    SystemTime::now()
}

/// Zero for what was before.
pub(crate) fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
