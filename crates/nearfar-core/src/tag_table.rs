//! What a partition remembers of changes of tags.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::{Head, Moment, TagHead, TagMark, Version};

/// The last changes of each tag, for as long as an entry may be there that they concern. On Redis it is a key of its own,
/// which may be lost; so it says since when it is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TagTable {
    marks: BTreeMap<Bytes, TagMark>,
    /// Of older entries nobody knows what became of their tags; `None` if there is no table.
    since: Option<Version>,
}

impl TagTable {
    /// Remembers a change of these tags, and forgets what concerns nobody any more.
    pub(crate) fn change(
        &mut self,
        tags: impl Iterator<Item = Bytes>,
        version: Version,
        head: &mut Head,
        of: impl Fn(&mut TagMark) -> &mut Version,
    ) {
        // Where there was a change before, a table that is not there is one that was lost.
        let was_changed = head.tags.changed > Version::UNKNOWN;
        self.since.get_or_insert(if was_changed { version } else { Version::UNKNOWN });
        head.tags.changed = version;
        for tag in tags {
            *of(self.marks.entry(tag).or_default()) = version;
        }
    }

    /// Forgets what is of no use any more. An entry that is older than a mark was stored by a fill that began before it, so at
    /// most a fence window after it, and lived no longer than the longest. Should one be there all the same, after L2's clock
    /// was set, it counts as wrong.
    pub(crate) fn prune(&mut self, now: Moment, tags: TagHead, fence_window: Duration) {
        if tags.longest_millis >= TagHead::ENDLESS {
            return;
        }
        let longest = Duration::from_millis(tags.longest_millis);
        let least = Version::new((now - longest.saturating_add(fence_window)).micros());
        let mut since = self.since.unwrap_or_default();
        let mut forget = |version: &mut Version| {
            if *version < least {
                since = since.max(*version);
                *version = Version::UNKNOWN;
            }
        };
        self.marks.retain(|_, mark| {
            forget(&mut mark.wrong);
            forget(&mut mark.stale);
            *mark != TagMark::default()
        });
        self.since = Some(since);
    }

    /// The last changes of a tag. What is not known counts as wrong.
    pub(crate) fn mark(&self, tag: &[u8], head: Head) -> TagMark {
        let since = self.since.unwrap_or(head.tags.changed);
        let mark = self.marks.get(tag).copied().unwrap_or_default();
        TagMark { wrong: mark.wrong.max(since), ..mark }
    }
}
