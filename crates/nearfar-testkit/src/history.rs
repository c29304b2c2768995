//! The judge: how stale was what nodes read?

use std::collections::HashMap;
use std::time::Duration;

/// What a node read.
///
/// Times are microseconds of one clock for all nodes, such as a [`Stopwatch`](crate::Stopwatch).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Number of the key.
    pub key: u64,
    /// Revision of the value that was returned; 0 for the key as it was before the first write.
    pub revision: u64,
    /// When the read was begun.
    pub start: u64,
    /// When it returned.
    pub end: u64,
}

/// A write that was acknowledged.
///
/// One whose outcome is unknown is left out: no read can be blamed for not seeing it, nor for seeing
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Number of the key.
    pub key: u64,
    /// Revision that was written, from 1 up. Of two values of a key, the one with the higher revision
    /// is the newer.
    pub revision: u64,
    /// When the write was begun.
    pub start: u64,
    /// When it was acknowledged.
    pub end: u64,
}

/// What all nodes read and wrote in one run.
///
/// Each task keeps a history of its own while it runs, without a lock; [`absorb`](Self::absorb) brings
/// them together and [`check`](Self::check) judges them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use nearfar_testkit::{History, Read, Write};
///
/// let mut history = History::default();
/// history.write(Write { key: 7, revision: 1, start: 0, end: 100 });
/// history.read(Read { key: 7, revision: 0, start: 350, end: 360 });
///
/// let report = history.check();
/// assert_eq!(report.stale_reads(), 1);
/// assert_eq!(report.worst().unwrap().staleness, Duration::from_micros(250));
/// assert!(report.violations(Duration::from_micros(250)).is_empty());
/// ```
#[derive(Debug, Clone, Default)]
pub struct History {
    reads: Vec<Read>,
    writes: Vec<Write>,
}

impl History {
    /// Records a read.
    pub fn read(&mut self, read: Read) {
        self.reads.push(read);
    }

    /// Records an acknowledged write.
    pub fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Takes over all that another history has recorded.
    pub fn absorb(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
    }

    /// Judges every read.
    ///
    /// A read is stale if a write of a higher revision was acknowledged before the read was begun, and
    /// its staleness is the time from the earliest such acknowledgement to the beginning of the read.
    /// A read that overlaps the write is not stale: it may have been the first to happen.
    pub fn check(&self) -> Report {
        let timelines = timelines(&self.writes);
        let mut stale: Vec<_> =
            self.reads.iter().filter_map(|read| timelines.get(&read.key)?.judge(*read)).collect();
        stale.sort_by_key(|stale| std::cmp::Reverse(stale.staleness));
        Report { reads: self.reads.len(), writes: self.writes.len(), stale }
    }
}

/// What [`History::check`] found.
#[derive(Debug, Clone)]
pub struct Report {
    reads: usize,
    writes: usize,
    /// The stalest first.
    stale: Vec<StaleRead>,
}

/// A read that returned less than had been acknowledged before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleRead {
    /// The read.
    pub read: Read,
    /// The write that the read missed: of all newer ones, the first to be acknowledged.
    pub missed: Write,
    /// Time from the acknowledgement of `missed` to the start of `read`.
    pub staleness: Duration,
}

impl Report {
    /// How many reads were judged.
    pub fn reads(&self) -> usize {
        self.reads
    }

    /// How many writes they were judged by. A run without any proves nothing.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// How many reads were stale at all.
    pub fn stale_reads(&self) -> usize {
        self.stale.len()
    }

    /// The stalest read.
    pub fn worst(&self) -> Option<&StaleRead> {
        self.stale.first()
    }

    /// The reads that were stale by more than `bound`, the stalest first.
    pub fn violations(&self, bound: Duration) -> &[StaleRead] {
        let count = self.stale.partition_point(|stale| stale.staleness > bound);
        &self.stale[..count]
    }
}

/// The writes of one key, by revision, each replaced by the earliest acknowledged one from there on:
/// the answer to "which newer write should this read have seen" is one binary search away.
struct Timeline {
    steps: Vec<(u64, Write)>,
}

impl Timeline {
    fn new(mut writes: Vec<Write>) -> Self {
        writes.sort_unstable_by_key(|write| std::cmp::Reverse(write.revision));
        let mut steps: Vec<_> = writes
            .into_iter()
            .scan(None, |earliest: &mut Option<Write>, write| {
                let first = earliest.filter(|known| known.end <= write.end).unwrap_or(write);
                *earliest = Some(first);
                Some((write.revision, first))
            })
            .collect();
        steps.reverse();
        Self { steps }
    }

    fn judge(&self, read: Read) -> Option<StaleRead> {
        let newer = self.steps.partition_point(|(revision, _)| *revision <= read.revision);
        let (_, missed) = self.steps.get(newer)?;
        let staleness = read.start.checked_sub(missed.end).filter(|micros| *micros > 0)?;
        Some(StaleRead { read, missed: *missed, staleness: Duration::from_micros(staleness) })
    }
}

fn timelines(writes: &[Write]) -> HashMap<u64, Timeline> {
    let mut by_key = HashMap::<u64, Vec<Write>>::new();
    for write in writes {
        by_key.entry(write.key).or_default().push(*write);
    }
    by_key.into_iter().map(|(key, writes)| (key, Timeline::new(writes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 1;

    fn write(revision: u64, start: u64, end: u64) -> Write {
        Write { key: KEY, revision, start, end }
    }

    fn read(revision: u64, start: u64) -> Read {
        Read { key: KEY, revision, start, end: start + 1 }
    }

    fn check(writes: &[Write], reads: &[Read]) -> Report {
        History { reads: reads.to_vec(), writes: writes.to_vec() }.check()
    }

    fn staleness(writes: &[Write], read: Read) -> Option<u64> {
        let report = check(writes, &[read]);
        report.worst().map(|stale| u64::try_from(stale.staleness.as_micros()).unwrap())
    }

    #[test]
    fn a_read_of_the_newest_revision_is_fresh() {
        assert_eq!(staleness(&[write(1, 0, 10), write(2, 20, 30)], read(2, 1_000)), None);
    }

    #[test]
    fn a_read_of_an_old_revision_is_as_stale_as_the_acknowledgement_is_old() {
        assert_eq!(staleness(&[write(1, 0, 10), write(2, 20, 30)], read(1, 1_000)), Some(970));
    }

    #[test]
    fn staleness_counts_from_the_first_write_missed_not_from_the_last() {
        let writes = [write(1, 0, 10), write(2, 20, 30), write(3, 500, 510)];
        assert_eq!(staleness(&writes, read(1, 1_000)), Some(970));
        assert_eq!(staleness(&writes, read(2, 1_000)), Some(490));
    }

    #[test]
    fn writes_may_be_acknowledged_out_of_the_order_of_their_revisions() {
        let writes = [write(1, 0, 10), write(2, 20, 900), write(3, 25, 40)];
        assert_eq!(staleness(&writes, read(1, 1_000)), Some(960));
        assert_eq!(staleness(&writes, read(2, 1_000)), Some(960));
        assert_eq!(staleness(&writes, read(3, 1_000)), None);
    }

    #[test]
    fn a_read_that_overlaps_the_write_may_return_either() {
        let writes = [write(1, 100, 200)];
        assert_eq!(staleness(&writes, read(0, 150)), None);
        assert_eq!(staleness(&writes, read(1, 150)), None);
    }

    #[test]
    fn a_read_that_begins_at_the_very_acknowledgement_is_not_stale() {
        assert_eq!(staleness(&[write(1, 100, 200)], read(0, 200)), None);
        assert_eq!(staleness(&[write(1, 100, 200)], read(0, 201)), Some(1));
    }

    #[test]
    fn a_key_that_was_never_written_is_never_stale() {
        assert_eq!(staleness(&[], read(0, 1_000)), None);
    }

    #[test]
    fn a_revision_newer_than_every_acknowledged_one_is_not_stale() {
        assert_eq!(staleness(&[write(1, 0, 10)], read(2, 1_000)), None);
    }

    #[test]
    fn writes_of_other_keys_do_not_count() {
        let elsewhere = Write { key: KEY + 1, ..write(1, 0, 10) };
        assert_eq!(staleness(&[elsewhere], read(0, 1_000)), None);
    }

    #[test]
    fn violations_are_those_beyond_the_bound_the_stalest_first() {
        let report = check(&[write(1, 0, 100)], &[read(0, 150), read(0, 400), read(1, 500), read(0, 300)]);
        let beyond = |bound| report.violations(Duration::from_micros(bound));
        let starts: Vec<_> = beyond(50).iter().map(|stale| stale.read.start).collect();
        assert_eq!(starts, [400, 300]);
        assert_eq!(beyond(300), []);
        assert_eq!((report.reads(), report.writes(), report.stale_reads()), (4, 1, 3));
    }

    /// The quick answer against the definition, taken literally, on every read of a dense history.
    #[test]
    fn the_judgement_is_the_definition() {
        let scattered = |index: u64| index.wrapping_mul(2_654_435_761) % 1_000;
        let writes: Vec<_> = (1..60).map(|revision| write(revision, 0, scattered(revision))).collect();
        for start in (0..1_100).step_by(7) {
            for revision in 0..61 {
                let read = read(revision, start);
                let newer = writes.iter().filter(|write| write.revision > revision);
                let earliest = newer.map(|write| write.end).filter(|end| *end < start).min();
                assert_eq!(staleness(&writes, read), earliest.map(|end| start - end));
            }
        }
    }
}
