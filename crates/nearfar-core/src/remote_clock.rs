use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::Moment;

/// What a node knows of L2's clock: bounds, renewed by each beat.
///
/// A beat sent at `s` and answered at `r` that executed at `t` on L2's clock puts L2's time at local time `n` between
/// `t + (n - r)` and `t + (n - s)`. Decisions take the bound that errs on the safe side; no wall clock of a node is
/// ever used.
///
/// ```
/// use nearfar_core::{Moment, RemoteClock};
///
/// let clock = RemoteClock::default();
/// let now = Moment::from_micros(120);
/// assert_eq!(clock.latest(now), None, "nothing is known before the first beat");
///
/// clock.observe(Moment::from_micros(100), Moment::from_micros(110), Moment::from_micros(5_000));
/// assert_eq!(clock.earliest(now), Some(Moment::from_micros(5_010)));
/// assert_eq!(clock.latest(now), Some(Moment::from_micros(5_020)));
/// ```
#[derive(Debug, Default)]
pub struct RemoteClock {
    /// Guards the beat that tells most, so that the three numbers are of one beat.
    beat: Mutex<Option<Beat>>,
}

#[derive(Clone, Copy, Debug)]
struct Beat {
    sent: Moment,
    answered: Moment,
    executed: Moment,
}

/// By what part of its age a beat's knowledge is reckoned to fade: ten times what clocks drift apart.
const FADING: u32 = 1_000;

impl Beat {
    fn uncertainty(self) -> Duration {
        self.answered.since(self.sent)
    }

    fn tells_more_than(self, old: Beat) -> bool {
        let age = self.answered.since(old.answered);
        self.uncertainty() <= old.uncertainty() + age / FADING || self.contradicts(old)
    }

    /// Whether no offset of the clocks fits both: L2's clock was set, or it is another server's.
    fn contradicts(self, old: Beat) -> bool {
        let earliest = old.executed + self.answered.since(old.answered);
        let latest = old.executed + self.answered.since(old.sent);
        self.executed > latest || self.executed + self.uncertainty() < earliest
    }
}

/// `moment` moved by the time from `from` to `to`, which may be the earlier one.
fn shifted(moment: Moment, from: Moment, to: Moment) -> Moment {
    Moment::from_micros(moment.micros().saturating_add(to.micros()).saturating_sub(from.micros()))
}

impl RemoteClock {
    /// Takes in a beat: when it was sent and answered on the local clock, when it executed on L2's. One whose answer
    /// was long under way tells little; then an earlier one is kept for a while.
    pub fn observe(&self, sent: Moment, answered: Moment, executed: Moment) {
        let new = Beat { sent, answered, executed };
        let mut beat = self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        if beat.is_none_or(|old| new.tells_more_than(old)) {
            *beat = Some(new);
        }
    }

    /// L2's time is not before this; `None` before the first beat.
    pub fn earliest(&self, now: Moment) -> Option<Moment> {
        self.beat().map(|beat| shifted(beat.executed, beat.answered, now))
    }

    /// L2's time is not after this; `None` before the first beat.
    pub fn latest(&self, now: Moment) -> Option<Moment> {
        self.beat().map(|beat| shifted(beat.executed, beat.sent, now))
    }

    /// How far apart the two bounds are: the round trip of the beat they come from.
    pub fn uncertainty(&self) -> Option<Duration> {
        self.beat().map(Beat::uncertainty)
    }

    fn beat(&self) -> Option<Beat> {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Moment {
        Moment::from_micros(micros)
    }

    /// L2's clock is 1,000 ahead; each beat executes as it is sent.
    fn beat(clock: &RemoteClock, sent: u64, answered: u64) {
        clock.observe(at(sent), at(answered), at(sent + 1_000));
    }

    #[test]
    fn an_exact_beat_outweighs_a_later_vague_one_for_a_while() {
        let clock = RemoteClock::default();
        beat(&clock, 100, 110);
        beat(&clock, 200, 900);
        assert_eq!(clock.uncertainty(), Some(Duration::from_micros(10)));
        beat(&clock, 700_000, 700_700);
        assert_eq!(clock.uncertainty(), Some(Duration::from_micros(700)), "by then the exact one has faded");
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        for set_to in [1, 9_000_000] {
            let clock = RemoteClock::default();
            beat(&clock, 100, 110);
            clock.observe(at(200_000), at(200_500), at(set_to));
            assert_eq!(clock.earliest(at(200_500)), Some(at(set_to)));
        }
    }

    #[test]
    fn the_bounds_enclose_the_truth() {
        let clock = RemoteClock::default();
        beat(&clock, 100, 180);
        beat(&clock, 500, 520);
        for now in [0, 100, 510, 10_000] {
            let (now, truth) = (at(now), at(now + 1_000));
            assert!(clock.earliest(now) <= Some(truth) && Some(truth) <= clock.latest(now), "{now:?}");
        }
    }
}
