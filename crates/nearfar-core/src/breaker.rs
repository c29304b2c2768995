use std::time::Duration;

use crate::Moment;
use crate::sync::{AtomicU64, Ordering};

/// How many failures in a row open a breaker: one may be chance, and each costs somebody a time limit.
const FAILURES: u64 = 3;

/// For how long an open breaker lets nothing through, until the next operation finds out.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps operations from waiting, each for its own time limit, for a server that does not answer.
///
/// ```text
///             3 failures in a row              1 s is over
///   ┌────────┐ ───────────────▶ ┌──────┐ ───────────────▶ ┌───────────┐
///   │ closed │                  │ open │                  │ half open │ one operation goes through
///   └────────┘ ◀─────────────── └──────┘ ◀─────────────── └───────────┘
///        ▲         an answer                 a failure          │
///        └──────────────────────────────────────────────────────┘ an answer
/// ```
///
/// ```
/// use nearfar_core::{Breaker, CircuitState, Moment};
/// use std::time::Duration;
///
/// let (breaker, now) = (Breaker::default(), Moment::default());
/// (0..3).for_each(|_| breaker.failed(now, now));
/// assert_eq!(breaker.state(now), CircuitState::Open);
/// assert!(!breaker.admits(now));
///
/// let later = now + Duration::from_secs(1);
/// assert!(breaker.admits(later), "one finds out");
/// assert!(!breaker.admits(later), "and no other");
/// breaker.answered(later);
/// assert_eq!(breaker.state(later), CircuitState::Closed);
/// ```
#[derive(Debug, Default)]
pub struct Breaker {
    /// Failures since the last answer.
    failures: AtomicU64,
    /// Until when nothing goes through; 0 while closed.
    open_until: AtomicU64,
    /// When the last answer came.
    answered_at: AtomicU64,
}

/// Whether operations on a server are tried.
///
/// ```
/// assert_ne!(nearfar_core::CircuitState::Open, nearfar_core::CircuitState::HalfOpen);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// They are.
    Closed,
    /// The next one is, and tells whether the server answers again.
    HalfOpen,
    /// They fail at once: several in a row have had no answer.
    Open,
}

impl Breaker {
    /// Whether an operation may be tried now. Then tell what became of it: that it was [`answered`](Self::answered), or
    /// [`failed`](Self::failed).
    pub fn admits(&self, now: Moment) -> bool {
        let open_until = self.open_until.load(Ordering::Acquire);
        if open_until == 0 {
            return true;
        }
        let next = (now + PAUSE).micros();
        let over = now.micros() >= open_until;
        over && self
            .open_until
            .compare_exchange(open_until, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The server has answered, be it that it refused.
    pub fn answered(&self, now: Moment) {
        self.answered_at.fetch_max(now.micros(), Ordering::AcqRel);
        // Also after a failure that was counted before an answer and opened it behind that.
        if self.failures.load(Ordering::Acquire) != 0 || self.open_until.load(Ordering::Acquire) != 0 {
            self.failures.store(0, Ordering::Release);
            self.open_until.store(0, Ordering::Release);
        }
    }

    /// The server has not answered an operation that began then. One that began before the last answer says nothing of how
    /// the server is now.
    pub fn failed(&self, began: Moment, now: Moment) {
        if began.micros() < self.answered_at.load(Ordering::Acquire) {
            return;
        }
        if self.failures.fetch_add(1, Ordering::AcqRel) + 1 >= FAILURES {
            self.open_until.fetch_max((now + PAUSE).micros(), Ordering::AcqRel);
        }
    }

    /// Whether operations are tried at this moment.
    pub fn state(&self, now: Moment) -> CircuitState {
        match self.open_until.load(Ordering::Acquire) {
            0 => CircuitState::Closed,
            open_until if now.micros() < open_until => CircuitState::Open,
            _ => CircuitState::HalfOpen,
        }
    }
}
