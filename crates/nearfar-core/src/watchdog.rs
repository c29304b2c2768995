use std::time::Duration;

use crate::Moment;

/// Says when a link that proves nothing is to be replaced.
///
/// A half-open connection never reports an error; only the absence of echoes shows it. What counts is the time since
/// the first beat that is unanswered, so that a process which stood still does not blame the link for it.
///
/// ```
/// use nearfar_core::{Moment, Watchdog};
/// use std::time::Duration;
///
/// let at = Moment::from_micros;
/// let mut watchdog = Watchdog::new(Duration::from_micros(10));
/// watchdog.beat(at(5));
/// watchdog.proof();
/// assert!(!watchdog.poll(at(100)), "nothing is unanswered");
///
/// watchdog.beat(at(100));
/// watchdog.beat(at(105));
/// assert!(!watchdog.poll(at(109)));
/// assert!(watchdog.poll(at(110)));
/// assert!(!watchdog.poll(at(111)), "a new link gets its time");
/// ```
#[derive(Debug)]
pub struct Watchdog {
    patience: Duration,
    /// When the first beat that is unanswered was sent, or the link replaced since.
    waiting_since: Option<Moment>,
}

impl Watchdog {
    /// A watchdog that waits so long for an answer.
    pub fn new(patience: Duration) -> Self {
        Self { patience, waiting_since: None }
    }

    /// A beat was sent.
    pub fn beat(&mut self, now: Moment) {
        self.waiting_since.get_or_insert(now);
    }

    /// The link proved that it carries messages.
    pub fn proof(&mut self) {
        self.waiting_since = None;
    }

    /// Whether the link is to be replaced now. Then it waits afresh.
    pub fn poll(&mut self, now: Moment) -> bool {
        let barks = now >= self.due();
        if barks {
            self.waiting_since = Some(now);
        }
        barks
    }

    /// When to poll next.
    pub fn due(&self) -> Moment {
        self.waiting_since.map_or(Moment::NEVER, |since| since + self.patience)
    }
}
