use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::{Envelope, Head, Moment, Version};

/// What a look at a key has found that a store says was written to.
///
/// ```
/// use nearfar_core::Sighting;
///
/// assert_ne!(Sighting::Gone, Sighting::NoEnvelope);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Nothing.
    Gone,
    /// Nothing, and the store is short of memory and evicts.
    PerhapsEvicted,
    /// Something that no node has written.
    NoEnvelope,
    /// An envelope with this version and this time of writing.
    Envelope {
        /// The version.
        version: Version,
        /// When it was written, on the store's clock, as far as it was not declared stale since.
        written_at: Moment,
        /// When the store will delete it by itself, if ever.
        expires_at: Option<Moment>,
    },
}

impl Sighting {
    /// How many bytes of what stands under a key tell.
    pub const LOOKED_AT: usize = 24;

    /// What it is that begins with these bytes.
    pub fn of(first: &[u8], expires_at: Option<Moment>) -> Self {
        let written_at = first.get(16..Self::LOOKED_AT).and_then(|bytes| bytes.try_into().ok());
        match (Envelope::peek_version(first), written_at.map(u64::from_be_bytes)) {
            (Some(version), Some(written_at)) => {
                // The highest bit says that it was declared stale since.
                let written_at = Moment::from_micros(written_at & (u64::MAX >> 1));
                Self::Envelope { version, written_at, expires_at }
            }
            _ => Self::NoEnvelope,
        }
    }
}

/// What is to be made of a [`Sighting`].
///
/// ```
/// assert!(nearfar_core::Verdict::Explained < nearfar_core::Verdict::Unexplained);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nodes did it, or time, and whoever has to know of it is told by a message.
    Explained,
    /// A node may have done it, and no message tells of it: a copy in L1 may be older than what stands there.
    Replaced,
    /// No node did it: the key has to be invalidated.
    Unexplained,
}

/// Tells what nodes do to the keys of a store from what others do, by what it has seen of the keys before.
///
/// What it errs in is safe: a key that it does not remember is taken for changed.
///
/// ```
/// use nearfar_core::{Head, Moment, Sighting, Verdict, Version, Watchman};
///
/// let (now, head) = (Moment::from_micros(500), Some(Head::untagged(Version::new(400), Version::new(1))));
/// let set = |expires_at| Sighting::Envelope {
///     version: Version::new(400),
///     written_at: Moment::from_micros(400),
///     expires_at,
/// };
/// let mut watchman = Watchman::new(1000);
/// assert_eq!(watchman.judge(b"k", set(None), head, now), Verdict::Explained, "a message has told of it");
/// assert_eq!(watchman.judge(b"k", Sighting::Gone, head, now), Verdict::Unexplained, "somebody has deleted it");
/// ```
#[derive(Debug)]
pub struct Watchman {
    /// Of each generation at the most.
    capacity: usize,
    young: HashMap<u64, Seen>,
    /// What was seen before there were enough young ones; forgotten with the next such time.
    old: HashMap<u64, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    version: Version,
    written_at: Moment,
    expires_at: Option<Moment>,
    /// It was unexplained; the version is that of the head then.
    is_wrong: bool,
}

impl Seen {
    fn wrong(head: Head) -> Self {
        Self { version: head.sequence, written_at: Moment::NEVER, expires_at: None, is_wrong: true }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        (self.version, self.written_at) == (other.version, other.written_at)
    }

    fn is_over(&self, now: Moment) -> bool {
        self.expires_at.is_some_and(|end| end <= now + SLACK)
    }
}

/// Times to live are told in milliseconds, and rounded.
const SLACK: Duration = Duration::from_millis(5);

impl Watchman {
    /// One that remembers so many keys at least, and twice as many at the most, with some 50 bytes each.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, young: HashMap::new(), old: HashMap::new() }
    }

    /// What is to be made of what was found under a key at this moment of the store's clock, with the head of its partition
    /// as it stood then.
    pub fn judge(&mut self, key: &[u8], found: Sighting, head: Option<Head>, now: Moment) -> Verdict {
        let id = id_of(key);
        let before = self.recall(id);
        // Without a head the history is over, which beats find out.
        let Some(head) = head else { return Verdict::Replaced };
        let verdict = match (found, before) {
            (Sighting::Envelope { version, written_at, expires_at }, _) => {
                self.compare(id, before, Seen { version, written_at, expires_at, is_wrong: false }, head)
            }
            (Sighting::Gone | Sighting::PerhapsEvicted, Some(seen))
                if seen.is_over(now) || seen.version < head.floor =>
            {
                Verdict::Explained
            }
            (Sighting::Gone | Sighting::NoEnvelope, _) => Verdict::Unexplained,
            (Sighting::PerhapsEvicted, _) => Verdict::Replaced,
        };
        match (verdict, found) {
            (Verdict::Unexplained, _) => self.remember(id, Seen::wrong(head)),
            (_, Sighting::Gone | Sighting::PerhapsEvicted) => self.forget(id),
            (_, Sighting::Envelope { .. } | Sighting::NoEnvelope) => {}
        }
        verdict
    }

    fn compare(&mut self, id: u64, before: Option<Seen>, mut seen: Seen, head: Head) -> Verdict {
        // A change is numbered by its time. A fill carries the number of an earlier change, and is not published, so a
        // foreign write that it has covered up would not be heard of.
        let is_change = seen.written_at.micros() <= seen.version.number();
        // What was wrong is put right by a change alone. What is older than before is a fill over a fence that somebody has
        // deleted: they yield to what is newer.
        let was_there = before.filter(|before| head.covers(before.version));
        let is_wrong = was_there.is_some_and(|before| {
            seen.version < before.version
                || (before.is_wrong && !(is_change && seen.version > before.version))
        });
        if seen.version > head.sequence || is_wrong {
            return Verdict::Unexplained;
        }
        let same = was_there.filter(|before| before.is_same_as(&seen));
        if let Some(before) = same {
            // Nodes prolong lives and never shorten them: who has shortened this one has as good as deleted it.
            seen.expires_at = before.expires_at.zip(seen.expires_at).map(|(before, now)| before.max(now));
        }
        self.remember(id, seen);
        let is_told = is_change && head.covers(seen.version);
        if same.is_some() || is_told { Verdict::Explained } else { Verdict::Replaced }
    }

    fn recall(&self, id: u64) -> Option<Seen> {
        self.young.get(&id).or_else(|| self.old.get(&id)).copied()
    }

    fn remember(&mut self, id: u64, seen: Seen) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, seen);
    }

    fn forget(&mut self, id: u64) {
        self.young.remove(&id);
        self.old.remove(&id);
    }
}

fn id_of(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_micros(1_000_000);
    const HEAD: Option<Head> = Some(Head::untagged(Version::new(900), Version::new(100)));

    fn envelope(version: u64, written_at: u64) -> Sighting {
        living(version, written_at, None)
    }

    fn living(version: u64, written_at: u64, expires_at: Option<u64>) -> Sighting {
        let expires_at = expires_at.map(Moment::from_micros);
        Sighting::Envelope {
            version: Version::new(version),
            written_at: Moment::from_micros(written_at),
            expires_at,
        }
    }

    fn judged(sightings: &[Sighting]) -> Vec<Verdict> {
        let mut watchman = Watchman::new(10);
        sightings.iter().map(|found| watchman.judge(b"k", *found, HEAD, NOW)).collect()
    }

    #[test]
    fn what_time_takes_is_explained_and_what_goes_before_its_time_is_not() {
        let over = |micros| judged(&[living(500, 500, Some(micros)), Sighting::Gone])[1];
        assert_eq!(over(NOW.micros()), Verdict::Explained);
        assert_eq!(over(NOW.micros() + 1_000_000), Verdict::Unexplained);
        assert_eq!(judged(&[envelope(500, 500), Sighting::Gone])[1], Verdict::Unexplained, "it had no end");
        assert_eq!(judged(&[Sighting::Gone]), [Verdict::Unexplained], "nothing is known of it");
    }

    /// `EXPIRE key 1` deletes as well as `DEL key`, only later.
    #[test]
    fn a_life_that_was_shortened_ends_before_its_time() {
        let sightings = [
            living(500, 500, Some(9_000_000)),
            living(500, 500, Some(900_000)),
            Sighting::Gone,
            Sighting::Gone,
        ];
        let [set, shortened, gone, again] = judged(&sightings)[..] else { panic!("four") };
        assert_eq!((set, shortened, gone), (Verdict::Explained, Verdict::Explained, Verdict::Unexplained));
        assert_eq!(again, Verdict::Unexplained, "until it is invalidated");
    }

    /// A fill is published to nobody, so one that comes behind a foreign `DEL` would hide it.
    #[test]
    fn a_fill_may_hide_something_once_and_a_change_never_does() {
        assert_eq!(judged(&[envelope(500, 500)]), [Verdict::Explained]);
        assert_eq!(judged(&[envelope(500, 499)]), [Verdict::Explained], "the clock may stand still");
        let fill = envelope(500, 700);
        assert_eq!(judged(&[fill, fill]), [Verdict::Replaced, Verdict::Explained]);
        assert_eq!(judged(&[fill, envelope(500, 800)])[1], Verdict::Replaced, "another fill");
    }

    #[test]
    fn what_no_node_writes_is_unexplained() {
        assert_eq!(judged(&[Sighting::NoEnvelope]), [Verdict::Unexplained]);
        assert_eq!(judged(&[envelope(901, 901)]), [Verdict::Unexplained], "of a number that nothing has");
    }

    /// The fence was deleted, and an old load has come through.
    #[test]
    fn an_older_version_than_before_is_unexplained_until_it_is_invalidated() {
        let (fence, late) = (envelope(500, 500), envelope(400, 600));
        assert_eq!(judged(&[fence, late, late])[1..], [Verdict::Unexplained, Verdict::Unexplained]);
        assert_eq!(judged(&[fence, late, envelope(900, 900)])[2], Verdict::Unexplained, "from before that");
    }

    /// The story: a key is deleted, and before it is invalidated, a load from before the deletion is stored. If that were taken
    /// for an explanation, all nodes would get the old value out of L2.
    #[test]
    fn what_was_deleted_is_put_right_by_a_later_change_alone() {
        let mut watchman = Watchman::new(10);
        let head = |sequence| Some(Head::untagged(Version::new(sequence), Version::new(100)));
        assert_eq!(watchman.judge(b"k", Sighting::Gone, head(900), NOW), Verdict::Unexplained);
        for fill in [envelope(800, 950), envelope(900, 950)] {
            assert_eq!(watchman.judge(b"k", fill, head(900), NOW), Verdict::Unexplained);
        }
        assert_eq!(watchman.judge(b"k", envelope(960, 960), head(960), NOW), Verdict::Explained);
    }

    #[test]
    fn where_the_store_evicts_what_is_gone_costs_copies_and_no_more() {
        assert_eq!(judged(&[envelope(500, 500), Sighting::PerhapsEvicted])[1], Verdict::Replaced);
        assert_eq!(judged(&[living(500, 500, Some(0)), Sighting::PerhapsEvicted])[1], Verdict::Explained);
    }

    #[test]
    fn without_a_head_and_below_the_floor_only_copies_go() {
        assert_eq!(judged(&[envelope(99, 99)]), [Verdict::Replaced]);
        let mut watchman = Watchman::new(10);
        assert_eq!(watchman.judge(b"k", envelope(500, 500), None, NOW), Verdict::Replaced);
    }

    /// What a clear has killed is served by nobody, and fences nothing that the floor does not.
    #[test]
    fn what_is_dead_may_go() {
        assert_eq!(judged(&[envelope(99, 99), Sighting::Gone])[1], Verdict::Explained);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_last_keys_are_among_it() {
        let mut watchman = Watchman::new(10);
        for key in 0..100_u8 {
            watchman.judge(&[key], living(500, 500, Some(0)), HEAD, NOW);
        }
        assert!(watchman.young.len() + watchman.old.len() <= 20);
        for key in 90..100_u8 {
            assert_eq!(watchman.judge(&[key], Sighting::Gone, HEAD, NOW), Verdict::Explained, "{key}");
        }
    }

    #[test]
    fn the_first_bytes_of_an_envelope_tell() {
        let header = crate::EnvelopeHeader::of(crate::Kind::Value);
        let bytes = Envelope::encode(&header, &[], b"payload");
        assert_eq!(Sighting::of(&bytes[..Sighting::LOOKED_AT], None), envelope(0, 0));
        for rubbish in [&b""[..], b"NF", b"rubbish of some length, and more"] {
            assert_eq!(Sighting::of(rubbish, None), Sighting::NoEnvelope);
        }
    }
}
