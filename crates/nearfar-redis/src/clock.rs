//! The one place where time enters. Nothing here decides what is cached: these times are for the doctor's figures.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// For measuring how long something takes.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// This machine's wall clock, since 1970.
pub(crate) fn wall_time() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
