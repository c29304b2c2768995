use crate::bytes_in::{BytesIn, wire_len};
use crate::{Envelope, Moment, Tags};

/// By what the origin of a value tells whether it has changed since, as HTTP does.
///
/// ```
/// use nearfar_core::{Envelope, EnvelopeHeader, Kind, Validators};
///
/// let validators = Validators { etag: Some("v7".into()), last_modified: None };
/// let bytes = Envelope::encode(&EnvelopeHeader::of(Kind::Value), &validators.encode(), b"payload");
/// let envelope = Envelope::decode(&bytes).unwrap();
/// assert_eq!(Validators::of(&envelope), Some(validators));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Validators {
    /// The origin's name for this very value; not empty, and at most [`MAX_ETAG_LEN`](Self::MAX_ETAG_LEN) bytes.
    pub etag: Option<Box<str>>,
    /// When the origin last changed it, by the origin's clock.
    pub last_modified: Option<Moment>,
}

impl Validators {
    /// The longest etag that is stored.
    pub const MAX_ETAG_LEN: usize = 1024;

    /// As they end the notes of an envelope, behind its tags; empty if there is nothing to note.
    pub fn encode(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let etag = self.etag.as_deref().filter(|etag| etag.len() <= Self::MAX_ETAG_LEN).unwrap_or_default();
        let modified = self.last_modified.map_or(0, |moment| moment.micros().max(1));
        let mut out = modified.to_be_bytes().to_vec();
        out.extend(wire_len(etag.as_bytes()).to_be_bytes());
        out.extend_from_slice(etag.as_bytes());
        out
    }

    /// Those of an envelope; `None` if its notes cannot be read.
    pub fn of(envelope: &Envelope) -> Option<Self> {
        let mut notes = BytesIn::new(&envelope.notes);
        Tags::read(&mut notes, envelope.header.tag_count)?;
        if notes.len() == 0 {
            return Some(Self::default());
        }
        let modified = notes.u64()?;
        let len = usize::try_from(notes.u32()?).ok().filter(|&len| len <= Self::MAX_ETAG_LEN)?;
        let etag = std::str::from_utf8(notes.take(len)?).ok()?;
        (notes.len() == 0).then(|| Self {
            etag: (!etag.is_empty()).then(|| etag.into()),
            last_modified: (modified != 0).then(|| Moment::from_micros(modified)),
        })
    }
}
