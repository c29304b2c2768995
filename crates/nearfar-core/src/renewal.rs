use std::time::Duration;

use bytes::Bytes;

use crate::{Envelope, Moment, Stamp, Version};

/// The proposal to keep what stands under a key for longer: its origin says that it is still true. As with a
/// [`Fill`](crate::Fill), nothing that has changed the key since is undone, and nobody is told. The value does not move.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Envelope, EnvelopeHeader, Kind, Moment, Renewal, Version};
///
/// let stored = Envelope::encode(&EnvelopeHeader::of(Kind::Value), &[], b"a long value");
/// let renewal = Renewal {
///     key: Bytes::from_static(b"k"),
///     identity: stored.slice_ref(Envelope::identity(&stored)),
///     header: stored.slice(..Envelope::HEADER_LEN),
///     base: Version::new(3),
///     deadline: Moment::NEVER,
///     keep: None,
/// };
/// assert!(renewal.header.len() < stored.len());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// The encoded key.
    pub key: Bytes,
    /// Of what must stand there, see [`Envelope::identity`].
    pub identity: Bytes,
    /// The unstamped header that it gets.
    pub header: Bytes,
    /// The partition's sequence before the origin was asked; it becomes the version.
    pub base: Version,
    /// L2 refuses to act after this moment of its own clock.
    pub deadline: Moment,
    /// For how long L2 keeps it from now on; `None` for ever.
    pub keep: Option<Duration>,
}

impl Renewal {
    /// The bytes that take the place of what stands there, unless something else does.
    pub(crate) fn applied_to(&self, present: &[u8], now: Moment) -> Option<Bytes> {
        let is_meant = Envelope::identity(present) == self.identity;
        let is_older = Envelope::peek_version(present)? <= self.base;
        let rest = present.get(Envelope::HEADER_LEN..).filter(|_| is_meant && is_older)?;
        Some(Envelope::stamped(&[&self.header, rest].concat(), Stamp::of(self.base, now)))
    }
}
