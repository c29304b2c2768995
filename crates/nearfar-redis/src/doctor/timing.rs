//! How far away the server is, and how its clock runs.

use std::time::Duration;

use fred::types::Value;
use tokio::time::Instant;

use crate::clock;
use crate::doctor::kinds::FindingKind;
use crate::doctor::visit::{Answered, Visit};

const SAMPLES: usize = 8;

/// Clocks that are as far apart as this are worth a note.
const FAR_OFF: Duration = Duration::from_secs(1);

/// Beyond this and the round trips, the server's clock has not run as time did.
const UNSTEADY: Duration = Duration::from_millis(50);

pub(crate) async fn examine(visit: &mut Visit, max_staleness: Option<Duration>) -> Answered<()> {
    let mut readings = Vec::new();
    for _ in 0..SAMPLES {
        readings.extend(Reading::take(visit).await?);
    }
    let mut trips: Vec<_> = readings.iter().map(|reading| reading.round_trip).collect();
    trips.sort_unstable();
    if let (Some(&median), Some(&worst)) = (trips.get(trips.len() / 2), trips.last()) {
        visit.fact("round trip", format!("{median:.2?} (median), {worst:.2?} (worst) of {}", trips.len()));
        distance(visit, median, worst, max_staleness);
    }
    let Some(best) = readings.iter().min_by_key(|reading| reading.round_trip) else { return Ok(()) };
    visit.fact("clock", best.shown());
    if best.apart() > FAR_OFF + best.round_trip {
        visit.found(FindingKind::ClockOff, best.shown());
    }
    if let Some(strayed) = strayed(&readings) {
        visit.found(FindingKind::ClockSteps, format!("by {strayed:.1?} within the examination"));
    }
    Ok(())
}

fn distance(visit: &mut Visit, median: Duration, worst: Duration, max_staleness: Option<Duration>) {
    let timeout = visit.command_timeout;
    if worst >= timeout / 2 {
        visit.found(
            FindingKind::SlowRoundTrips,
            format!("{worst:.1?} at worst, `command_timeout` is {timeout:?}"),
        );
    }
    if let Some(bound) = max_staleness.filter(|&bound| median >= bound / 2) {
        visit.found(
            FindingKind::StalenessTight,
            format!("{median:.1?} (median), `max_staleness` is {bound:?}"),
        );
    }
}

/// One look at the server's clock, which is as quick as a PING.
struct Reading {
    sent: Instant,
    round_trip: Duration,
    /// This machine's clock when it was sent, and the server's, since 1970.
    here: Duration,
    there: Duration,
}

impl Reading {
    async fn take(visit: &mut Visit) -> Answered<Option<Self>> {
        let (sent, here) = (clock::now(), clock::wall_time());
        let there = time(visit).await?;
        Ok(there.map(|there| Self { sent, round_trip: sent.elapsed(), here, there }))
    }

    /// The server read its clock about halfway.
    fn expected(&self) -> Duration {
        self.here + self.round_trip / 2
    }

    fn apart(&self) -> Duration {
        self.there.abs_diff(self.expected())
    }

    fn shown(&self) -> String {
        let side = if self.there > self.expected() { "ahead of" } else { "behind" };
        format!("{:.1?} {side} this machine's, give or take {:.1?}", self.apart(), self.round_trip / 2)
    }
}

/// The server's clock, since 1970.
pub(crate) async fn time(visit: &mut Visit) -> Answered<Option<Duration>> {
    Ok(visit.ask(&["TIME"]).await?.and_then(parse_time))
}

fn parse_time(answer: Value) -> Option<Duration> {
    let (seconds, micros): (u64, u64) = answer.convert().ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// By how much the server's clock has run faster or slower than time between two readings, if it cannot be the
/// network.
fn strayed(readings: &[Reading]) -> Option<Duration> {
    let stray = |pair: &[Reading]| {
        let [before, after] = pair else { return None };
        let passed = after.sent.saturating_duration_since(before.sent);
        let strayed = after.there.abs_diff(before.there + passed);
        (strayed > UNSTEADY + before.round_trip + after.round_trip).then_some(strayed)
    };
    readings.windows(2).filter_map(stray).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reading(start: Instant, after: Duration, there: Duration, round_trip: Duration) -> Reading {
        Reading { sent: start + after, round_trip, here: SECOND * 1000 + after, there }
    }

    #[test]
    fn a_step_is_told_from_a_slow_network_and_a_slow_program() {
        let (start, quick) = (clock::now(), Duration::from_millis(1));
        let at = |seconds: u32, there: u32, trip| reading(start, SECOND * seconds, SECOND * there, trip);
        assert_eq!(strayed(&[at(0, 900, quick), at(7, 907, quick), at(8, 908, quick)]), None);
        assert_eq!(strayed(&[at(0, 900, quick), at(1, 904, quick)]), Some(SECOND * 3));
        assert_eq!(strayed(&[at(0, 900, quick), at(1, 898, quick)]), Some(SECOND * 3));
        assert_eq!(strayed(&[at(0, 900, quick), at(1, 904, SECOND * 4)]), None);
    }

    #[test]
    fn an_offset_counts_from_the_middle_of_the_round_trip() {
        let reading = reading(clock::now(), Duration::ZERO, SECOND * 1003, SECOND * 2);
        assert_eq!(reading.apart(), SECOND * 2);
        assert_eq!(reading.shown(), "2.0s ahead of this machine's, give or take 1.0s");
    }
}
