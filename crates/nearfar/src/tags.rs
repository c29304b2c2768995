//! What a node knows of the tags of a partition.
//!
//! A change of a tag finds no entry: an entry finds its tags. Each slot in L1 holds the cells of its tags, in which the
//! receive loop notes the numbers of their changes, so a hit compares a number per tag and looks nothing up.
//!
//! What is read from L2 is compared with what was heard of. That is all there is to know of an entry which is not older
//! than the last change of any tag, as the partition's head says, nor of one that has come since this node listens. For
//! others L2 is asked, once per tag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nearfar_core::{Head, Moment, TagMark, Tags, Version};

/// What happens to what carries a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TagChange {
    Wrong,
    Stale,
}

/// The last changes of one tag.
#[derive(Debug, Default)]
struct TagCell {
    wrong: AtomicU64,
    stale: AtomicU64,
    /// When the latter was noted, in microseconds of this node's clock.
    stale_at: AtomicU64,
}

impl TagCell {
    fn at(mark: TagMark) -> Self {
        Self { wrong: mark.wrong.number().into(), stale: mark.stale.number().into(), ..Self::default() }
    }

    fn mark(&self) -> TagMark {
        let version = |number: &AtomicU64| Version::new(number.load(Ordering::Acquire));
        TagMark { wrong: version(&self.wrong), stale: version(&self.stale) }
    }

    fn raise(&self, change: TagChange, version: Version, now: Moment) {
        match change {
            TagChange::Wrong => self.wrong.fetch_max(version.number(), Ordering::AcqRel),
            TagChange::Stale => {
                if version.number() > self.stale.load(Ordering::Acquire) {
                    // First: who sees the number sees since when.
                    self.stale_at.store(now.micros(), Ordering::Release);
                }
                self.stale.fetch_max(version.number(), Ordering::AcqRel)
            }
        };
    }

    /// Nobody hears of its tag any more.
    fn abandon(&self) {
        self.wrong.store(u64::MAX, Ordering::Release);
    }
}

/// The tags of a slot.
#[derive(Debug)]
pub(crate) struct SlotTags {
    /// Changes up to this number do not concern it.
    as_of: Version,
    cells: Box<[Arc<TagCell>]>,
}

impl SlotTags {
    /// Whether one of them was declared wrong.
    pub(crate) fn are_wrong(&self) -> bool {
        self.cells.iter().any(|cell| cell.mark().wrong > self.as_of)
    }

    /// Since when one of them is declared stale, if one is.
    pub(crate) fn stale_since(&self) -> Option<Moment> {
        let stale = self.cells.iter().filter(|cell| cell.mark().stale > self.as_of);
        stale.map(|cell| Moment::from_micros(cell.stale_at.load(Ordering::Acquire))).min()
    }

    /// The same tags, of what was found to be still true.
    pub(crate) fn renewed(&self, as_of: Version) -> Self {
        Self { as_of, cells: self.cells.clone() }
    }
}

/// What became of the tags of an entry since its version.
pub(crate) enum Judgement {
    Alive,
    /// Since the change of that number.
    Stale(Version),
    Wrong,
}

impl Judgement {
    fn of(version: Version, marks: impl Iterator<Item = TagMark>) -> Self {
        let marks = marks.reduce(|one, other| TagMark {
            wrong: one.wrong.max(other.wrong),
            stale: one.stale.max(other.stale),
        });
        let mark = marks.unwrap_or_default();
        if mark.wrong > version {
            Self::Wrong
        } else if mark.stale > version {
            Self::Stale(mark.stale)
        } else {
            Self::Alive
        }
    }
}

/// The tags that this node has to do with.
#[derive(Debug, Default)]
pub(crate) struct TagLedger {
    /// Guards the map; cells are read without it.
    known: Mutex<Known>,
    /// All messages up to here are noted.
    applied: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    cells: HashMap<Bytes, Listed>,
    /// Of a tag that is not listed as complete, changes from here on are known, and no others.
    since: Version,
    /// How often something was forgotten: what L2 was asked for before that may lack what was noted since.
    epoch: u64,
    /// How many there may be before those that no slot has are forgotten.
    sweep_at: usize,
}

#[derive(Debug)]
struct Listed {
    cell: Arc<TagCell>,
    /// Whether the changes before `since` are known as well. Until then it says "wrong" as of then.
    complete: bool,
}

impl Listed {
    /// What was heard of. What a cell that is not complete says of "wrong" is no more than a guess.
    fn heard(&self) -> TagMark {
        let mark = self.cell.mark();
        TagMark { wrong: if self.complete { mark.wrong } else { Version::UNKNOWN }, ..mark }
    }
}

/// So many tags are kept that no slot has.
const MOST_IDLE: usize = 16_384;

impl TagLedger {
    /// All messages up to this one are noted.
    pub(crate) fn advance(&self, applied: Version) {
        self.applied.fetch_max(applied.number(), Ordering::AcqRel);
    }

    pub(crate) fn applied(&self) -> Version {
        Version::new(self.applied.load(Ordering::Acquire))
    }

    /// Notes a change of these tags.
    pub(crate) fn note(&self, tags: &[Bytes], change: TagChange, version: Version, now: Moment) {
        let mut known = self.lock();
        for tag in tags {
            let listed = known.listed(tag);
            listed.cell.raise(change, version, now);
            // What is wrong as of now was wrong before, whatever happened then.
            listed.complete |= change == TagChange::Wrong;
        }
        known.limit();
    }

    /// Messages were missed, and are from here on not any more. The slots so far are worth nothing.
    pub(crate) fn start_over(&self, since: Version) {
        let mut known = self.lock();
        known.cells.values().for_each(|listed| listed.cell.abandon());
        *known = Known { since, epoch: known.epoch + 1, ..Known::default() };
        self.applied.store(since.number(), Ordering::Release);
    }

    /// The cells of these tags, for a slot of which no change up to that number is news.
    pub(crate) fn slot_tags(&self, tags: &Tags, as_of: Version) -> Option<Box<SlotTags>> {
        if tags.is_empty() {
            return None;
        }
        let mut known = self.lock();
        let cells = tags.iter().map(|tag| Arc::clone(&known.listed(tag).cell)).collect();
        known.limit();
        Some(Box::new(SlotTags { as_of, cells }))
    }

    /// What became of an entry of this version, read when the partition stood there; `Err` if L2 is to be asked, and then
    /// in which epoch.
    pub(crate) fn judge(&self, tags: &Tags, version: Version, head: Head) -> Result<Judgement, u64> {
        if tags.is_empty() {
            return Ok(Judgement::Alive);
        }
        let known = self.lock();
        // Under the lock: what was applied is noted in this map, and not in one that was forgotten.
        let heard_of_all = head.tags.changed <= self.applied();
        let listed = |tag| known.cells.get(tag);
        let judgement = Judgement::of(version, tags.iter().filter_map(listed).map(Listed::heard));
        let is_known =
            |tag| version >= known.since || listed(tag).is_some_and(|listed: &Listed| listed.complete);
        let is_all_known = || heard_of_all && tags.iter().all(is_known);
        // What was heard of after L2 was read counts as well.
        if matches!(judgement, Judgement::Wrong) || head.tags.changed <= version || is_all_known() {
            Ok(judgement)
        } else {
            Err(known.epoch)
        }
    }

    /// Takes in what L2 was asked for in that epoch.
    pub(crate) fn learn(&self, tags: &[Bytes], marks: &[TagMark], epoch: u64, now: Moment) {
        let mut known = self.lock();
        if known.epoch != epoch {
            return;
        }
        for (tag, mark) in tags.iter().zip(marks) {
            let listed = known.listed(tag);
            let wrong = mark.wrong.max(listed.heard().wrong);
            listed.cell.wrong.store(wrong.number(), Ordering::Release);
            listed.cell.raise(TagChange::Stale, mark.stale, now);
            listed.complete = true;
        }
        known.limit();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What these marks say of an entry of this version.
pub(crate) fn judge_by(tags: &Tags, version: Version, marks: &HashMap<Bytes, TagMark>) -> Judgement {
    Judgement::of(version, tags.iter().filter_map(|tag| marks.get(tag).copied()))
}

impl Known {
    fn listed(&mut self, tag: &Bytes) -> &mut Listed {
        if !self.cells.contains_key(tag) {
            let guess = TagMark { wrong: self.since, stale: Version::UNKNOWN };
            let listed = Listed { cell: Arc::new(TagCell::at(guess)), complete: false };
            // A copy: the tag may be a slice of a large value.
            self.cells.insert(Bytes::copy_from_slice(tag), listed);
        }
        self.cells.get_mut(tag).expect("it was just inserted")
    }

    /// Forgets tags that no slot has, if there are too many: those whose changes say no more than `since` does, and then the
    /// older half. What is older than these has to be looked up.
    fn limit(&mut self) {
        if self.cells.len() <= self.sweep_at.max(MOST_IDLE) {
            return;
        }
        let is_idle = |listed: &Listed| Arc::strong_count(&listed.cell) == 1;
        let greatest = |listed: &Listed| {
            let mark = listed.cell.mark();
            mark.wrong.max(mark.stale)
        };
        let mut idle: Vec<Version> =
            self.cells.values().filter(|listed| is_idle(listed)).map(greatest).collect();
        idle.retain(|mark| *mark > self.since);
        if idle.len() > MOST_IDLE / 2 {
            idle.sort_unstable();
            self.since = idle[idle.len() / 2];
        }
        let since = self.since;
        self.cells.retain(|_, listed| !is_idle(listed) || greatest(listed) > since);
        (self.sweep_at, self.epoch) = (2 * self.cells.len(), self.epoch + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Tags {
        Tags::new(names).expect("these can be tags")
    }

    fn head(sequence: u64, changed: u64) -> Head {
        let mut head = Head::untagged(Version::new(sequence), Version::new(1));
        head.tags.changed = Version::new(changed);
        head
    }

    fn noted(ledger: &TagLedger, tag: &str, version: u64) {
        let tag = Bytes::copy_from_slice(tag.as_bytes());
        ledger.note(&[tag], TagChange::Wrong, Version::new(version), Moment::default());
        ledger.advance(Version::new(version));
    }

    fn is_alive(judgement: &Result<Judgement, u64>) -> bool {
        matches!(judgement, Ok(Judgement::Alive))
    }

    #[test]
    fn only_what_cannot_be_known_is_looked_up() {
        let ledger = TagLedger::default();
        ledger.start_over(Version::new(100));
        let red = tags(&["red"]);
        assert!(is_alive(&ledger.judge(&red, Version::new(50), head(100, 50))), "no tag has changed since");
        assert!(ledger.judge(&red, Version::new(50), head(100, 60)).is_err(), "before it listened");
        noted(&ledger, "blue", 110);
        assert!(is_alive(&ledger.judge(&red, Version::new(100), head(110, 110))));
        assert!(
            ledger.judge(&red, Version::new(100), head(120, 120)).is_err(),
            "it has not heard of that yet"
        );
        noted(&ledger, "red", 120);
        assert!(matches!(ledger.judge(&red, Version::new(100), head(120, 120)), Ok(Judgement::Wrong)));
        assert!(matches!(ledger.judge(&red, Version::new(50), head(120, 120)), Ok(Judgement::Wrong)));
    }

    #[test]
    fn what_was_looked_up_is_known_from_then_on() {
        let ledger = TagLedger::default();
        ledger.start_over(Version::new(100));
        let red = tags(&["red"]);
        let Err(epoch) = ledger.judge(&red, Version::new(50), head(100, 60)) else {
            panic!("it is to be asked")
        };
        ledger.learn(red.as_slice(), &[TagMark::default()], epoch, Moment::default());
        assert!(is_alive(&ledger.judge(&red, Version::new(50), head(100, 60))));
        let slot = ledger.slot_tags(&red, Version::new(100)).expect("it has a tag");
        assert!(!slot.are_wrong());
        noted(&ledger, "red", 110);
        assert!(slot.are_wrong());
    }

    #[test]
    fn a_slot_from_before_messages_were_missed_is_dead() {
        let ledger = TagLedger::default();
        let slot = ledger.slot_tags(&tags(&["red"]), Version::new(100)).expect("it has a tag");
        ledger.start_over(Version::new(200));
        assert!(slot.are_wrong());
    }

    /// L2 is asked about a tag; the tag changes, is noted, and is forgotten with many others; the answer from before comes.
    #[test]
    fn an_answer_from_before_tags_were_forgotten_is_not_learned() {
        let ledger = TagLedger::default();
        ledger.start_over(Version::new(100));
        let red = tags(&["red"]);
        let Err(epoch) = ledger.judge(&red, Version::new(50), head(100, 60)) else {
            panic!("it is to be asked")
        };
        noted(&ledger, "red", 130);
        for number in 0..=MOST_IDLE as u64 {
            noted(&ledger, &format!("tag {number}"), 131 + number);
        }
        ledger.learn(red.as_slice(), &[TagMark::default()], epoch, Moment::default());
        let slot = ledger.slot_tags(&red, Version::new(100)).expect("it has a tag");
        assert!(slot.are_wrong(), "a load from before the change is not served");
        assert!(ledger.lock().cells.len() <= MOST_IDLE);
    }

    #[test]
    fn tags_that_slots_have_are_never_forgotten() {
        let ledger = TagLedger::default();
        let slot = ledger.slot_tags(&tags(&["red"]), Version::new(1)).expect("it has a tag");
        for number in 0..3 * MOST_IDLE as u64 {
            noted(&ledger, &format!("tag {number}"), 10 + number);
        }
        assert!(!slot.are_wrong());
        noted(&ledger, "red", 1_000_000);
        assert!(slot.are_wrong());
    }
}
