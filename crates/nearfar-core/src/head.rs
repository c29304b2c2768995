use std::time::Duration;

use crate::{EnvelopeHeader, Moment, Version};

/// Where a partition stands.
///
/// ```
/// use nearfar_core::{Head, Version};
///
/// let head = Head::untagged(Version::new(9), Version::new(4));
/// assert!(head.covers(Version::new(4)) && !head.covers(Version::new(10)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// The number of the last change.
    pub sequence: Version,
    /// Entries with a smaller version are dead.
    pub floor: Version,
    /// What is known of tags, whichever they are.
    pub tags: TagHead,
}

/// What a partition knows of its tags without looking at any: it stands in the head, so it is lost with it alone.
///
/// ```
/// use nearfar_core::{TagHead, Version};
///
/// assert_eq!(TagHead::default().changed, Version::UNKNOWN);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagHead {
    /// The number of the last change of a tag. To an entry that is not older, no tag matters.
    pub changed: Version,
    /// The longest life that a tagged entry was given, in milliseconds; what was declared wrong of its tags must be
    /// remembered for so long. 0 if there was none.
    pub longest_millis: u64,
}

impl TagHead {
    /// A life without end.
    pub const ENDLESS: u64 = 1 << 53;

    /// An entry with this header is stored.
    pub(crate) fn note(&mut self, header: &EnvelopeHeader) {
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let life = header.ttl.map_or(Self::ENDLESS, |ttl| millis(ttl).saturating_add(millis(header.grace)));
        if header.tag_count > 0 {
            self.longest_millis = self.longest_millis.max(life.min(Self::ENDLESS));
        }
    }
}

impl Head {
    /// One of a partition in which nothing has, or had, a tag.
    pub const fn untagged(sequence: Version, floor: Version) -> Self {
        Self { sequence, floor, tags: TagHead { changed: Version::UNKNOWN, longest_millis: 0 } }
    }

    /// Whether an entry of this version is of this history and has not been cleared.
    pub fn covers(self, version: Version) -> bool {
        self.floor <= version && version <= self.sequence
    }

    /// A new history: it begins at the clock, and nothing older counts.
    pub(crate) fn begin(now: Moment) -> Self {
        let sequence = Version::new(now.micros().max(1));
        Self::untagged(sequence, sequence)
    }

    /// The number of the change after this head.
    pub(crate) fn next(self, now: Moment) -> Version {
        Version::new((self.sequence.number() + 1).max(now.micros()))
    }
}
