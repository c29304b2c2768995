use std::fmt;

use bytes::Bytes;

use crate::bytes_in::BytesIn;
use crate::{Envelope, Version};

/// The tags of an entry, each once, in order.
///
/// ```
/// use nearfar_core::{TagError, Tags};
///
/// let tags = Tags::new(["news", "home", "news"]).unwrap();
/// assert_eq!(tags.iter().collect::<Vec<_>>(), [&b"home"[..], b"news"]);
/// assert_eq!(Tags::new([""]), Err(TagError::Length { given: 0 }));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags(Vec<Bytes>);

/// Why something cannot be a tag, or the tags of an entry.
///
/// ```
/// let error = nearfar_core::TagError::Count { given: 300 };
/// assert_eq!(error.to_string(), "an entry has at most 64 tags, not 300");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagError {
    /// It is empty, or too long.
    Length {
        /// How many bytes it has.
        given: usize,
    },
    /// There are too many.
    Count {
        /// How many there are.
        given: usize,
    },
}

impl Tags {
    /// How many bytes a tag has at the most.
    pub const MAX_LEN: usize = 255;
    /// How many tags an entry has at the most: each is compared at every hit.
    pub const MAX_COUNT: usize = 64;

    /// These tags.
    pub fn new<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Result<Self, TagError> {
        let tags: Result<Vec<_>, _> = tags.into_iter().map(|tag| Self::encode_one(tag.as_ref())).collect();
        let mut tags = tags?;
        tags.sort_unstable();
        tags.dedup();
        match tags.len() {
            given if given > Self::MAX_COUNT => Err(TagError::Count { given }),
            _ => Ok(Self(tags)),
        }
    }

    /// The bytes of one tag.
    pub fn encode_one(tag: &str) -> Result<Bytes, TagError> {
        let given = tag.len();
        if (1..=Self::MAX_LEN).contains(&given) {
            Ok(Bytes::copy_from_slice(tag.as_bytes()))
        } else {
            Err(TagError::Length { given })
        }
    }

    /// Those of an envelope; `None` if its notes cannot be read.
    pub fn of(envelope: &Envelope) -> Option<Self> {
        let mut notes = BytesIn::new(&envelope.notes);
        Self::read(&mut notes, envelope.header.tag_count)
            .map(|tags| Self(tags.into_iter().map(|tag| envelope.notes.slice_ref(tag)).collect()))
    }

    pub(crate) fn read<'a>(notes: &mut BytesIn<'a>, count: u16) -> Option<Vec<&'a [u8]>> {
        if usize::from(count) > Self::MAX_COUNT {
            return None;
        }
        let next = |_| {
            let len = usize::from(notes.u16()?);
            notes.take(len).filter(|tag| (1..=Self::MAX_LEN).contains(&tag.len()))
        };
        (0..count).map(next).collect()
    }

    /// As they begin the notes of an envelope, of which [`count`](Self::count) says how many to read.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.iter().map(|tag| 2 + tag.len()).sum());
        for tag in self.iter() {
            let [.., high, low] = tag.len().to_be_bytes();
            out.extend([high, low]);
            out.extend_from_slice(tag);
        }
        out
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.0.iter().map(|_| 1).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of each.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter()
    }

    /// The bytes of each.
    pub fn as_slice(&self) -> &[Bytes] {
        &self.0
    }
}

/// The numbers of the last changes of a tag; entries that carry it and have a smaller version are concerned.
///
/// ```
/// use nearfar_core::{TagMark, Version};
///
/// assert_eq!(TagMark::default(), TagMark { wrong: Version::UNKNOWN, stale: Version::UNKNOWN });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagMark {
    /// They are wrong.
    pub wrong: Version,
    /// They are stale.
    pub stale: Version,
}

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { given } => write!(f, "a tag has 1 to {} bytes, not {given}", Tags::MAX_LEN),
            Self::Count { given } => write!(f, "an entry has at most {} tags, not {given}", Tags::MAX_COUNT),
        }
    }
}

impl std::error::Error for TagError {}
