//! From a value to the payload of its envelope, and back: codec, limit, compression, seal.

use bytes::{Buf, Bytes};
use nearfar_core::{Envelope, EnvelopeHeader, Kind, Namespace};

use crate::codec::Codec;
use crate::compression::{Compression, Method};
use crate::error::Error;
use crate::options::Options;
use crate::seal::{Context, KeyRing};
use crate::stats::Counters;

#[cfg(all(
    test,
    feature = "json",
    feature = "postcard",
    feature = "lz4",
    feature = "zstd",
    feature = "sealed"
))]
mod tests;

/// How a cache writes payloads, and which it reads.
pub(crate) struct Payloads<V> {
    codec: Box<dyn Codec<V>>,
    schema: u32,
    max_len: usize,
    compression: Option<Compression>,
    /// With it, what is not sealed is not believed.
    ring: Option<KeyRing>,
    namespace: Namespace,
}

/// Why an entry is a miss for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Another codec, schema or compression: the service has several versions.
    OtherVersion,
    /// Not sealed by who has a key, or not in this place.
    Seal,
    /// Damaged, too large, or refused by the codec.
    Damaged,
}

impl Unreadable {
    pub(crate) fn count(self, counters: &Counters) {
        counters.unreadable.add(1);
        match self {
            Self::OtherVersion => counters.other_versions.add(1),
            Self::Seal => counters.seal_failures.add(1),
            Self::Damaged => {}
        }
    }
}

impl<V: 'static> Payloads<V> {
    pub(crate) fn new(
        namespace: &Namespace,
        options: &Options,
        codec: Box<dyn Codec<V>>,
        ring: Option<KeyRing>,
    ) -> Self {
        let Options { schema, max_value_bytes: max_len, compression, .. } = *options;
        Self { codec, schema, max_len, compression, ring, namespace: namespace.clone() }
    }

    /// A header that says how the payload is to be read.
    pub(crate) fn header(&self, kind: Kind) -> EnvelopeHeader {
        EnvelopeHeader { codec: self.codec.id(), schema: self.schema, ..EnvelopeHeader::of(kind) }
    }

    /// The unstamped envelope of a value, or of there being none.
    pub(crate) fn envelope(
        &self,
        key: &[u8],
        header: &EnvelopeHeader,
        notes: &[u8],
        value: Option<&V>,
    ) -> Result<Bytes, Error> {
        let encoded = value.map(|value| self.codec.encode(value)).transpose();
        let plain = encoded.map_err(Error::encode)?.unwrap_or_default();
        if plain.len() > self.max_len {
            return Err(Error::value_too_large(plain.len(), self.max_len));
        }
        let packed = Packed::of(plain, self.compression);
        let mut header = EnvelopeHeader { compression: packed.compression_id(), ..*header };
        let payload = match &self.ring {
            None => packed.into_payload(),
            Some(ring) => {
                header.compression |= EnvelopeHeader::SEALED;
                let context = self.context(key, &header, notes, packed.plain_len);
                let sealed = ring.seal(&context, &packed.bytes).map_err(Error::encode)?;
                Packed { bytes: sealed.into(), ..packed }.into_payload()
            }
        };
        Ok(Envelope::encode(&header, notes, &payload))
    }

    /// Whether payloads with such a header are for this node: others are not even looked at.
    pub(crate) fn understands(&self, header: &EnvelopeHeader) -> Result<(), Unreadable> {
        let id = header.compression_id();
        if header.is_sealed() != self.ring.is_some() {
            // A node without a ring cannot tell a seal from a compression that it does not know.
            return Err(if self.ring.is_some() { Unreadable::Seal } else { Unreadable::OtherVersion });
        }
        let is_known = header.codec == self.codec.id()
            && header.schema == self.schema
            && (id == 0 || Method::from_wire(id).is_some());
        is_known.then_some(()).ok_or(Unreadable::OtherVersion)
    }

    /// The value of an envelope that [is understood](Self::understands); `None` if it says that there is none.
    pub(crate) fn open(&self, key: &[u8], envelope: &Envelope) -> Result<Option<V>, Unreadable> {
        let header = &envelope.header;
        let packed = Packed::from_payload(header, envelope.payload.clone())
            .filter(|packed| packed.plain_len.is_none_or(|len| len <= self.max_len))
            .ok_or(Unreadable::Damaged)?;
        let packed = match &self.ring {
            None => packed,
            Some(ring) => {
                let context = self.context(key, header, &envelope.notes, packed.plain_len);
                let bytes = ring.open(&context, &packed.bytes).ok_or(Unreadable::Seal)?;
                Packed { bytes: bytes.into(), ..packed }
            }
        };
        if header.kind == Kind::Absent {
            return Ok(None);
        }
        let plain = packed.unpack().filter(|plain| plain.len() <= self.max_len).ok_or(Unreadable::Damaged)?;
        self.codec.decode(&plain).map(Some).map_err(|_| Unreadable::Damaged)
    }

    /// What a seal is good for, and nothing else.
    fn context(
        &self,
        key: &[u8],
        header: &EnvelopeHeader,
        notes: &[u8],
        plain_len: Option<usize>,
    ) -> Vec<u8> {
        Context { namespace: &self.namespace, key, header, notes, plain_len }.bytes()
    }
}

/// A payload that may be compressed.
struct Packed {
    method: Option<Method>,
    /// How many bytes they are when they are not compressed, if they are.
    plain_len: Option<usize>,
    bytes: Bytes,
}

impl Packed {
    fn of(plain: Bytes, compression: Option<Compression>) -> Self {
        match compression.and_then(|compression| compression.compress(&plain)) {
            Some((method, compressed)) => {
                Self { method: Some(method), plain_len: Some(plain.len()), bytes: compressed.into() }
            }
            None => Self { method: None, plain_len: None, bytes: plain },
        }
    }

    fn compression_id(&self) -> u8 {
        self.method.map_or(0, Method::to_wire)
    }

    fn into_payload(self) -> Bytes {
        let Some(len) = self.plain_len else { return self.bytes };
        let len = u32::try_from(len).expect("values are bounded far below 4 GiB");
        [&len.to_be_bytes(), &self.bytes[..]].concat().into()
    }

    /// `None` if it is too short, or compressed in a way that is not known.
    fn from_payload(header: &EnvelopeHeader, mut payload: Bytes) -> Option<Self> {
        if header.compression_id() == 0 {
            return Some(Self { method: None, plain_len: None, bytes: payload });
        }
        let method = Method::from_wire(header.compression_id())?;
        let plain_len = payload.try_get_u32().ok()?;
        Some(Self { method: Some(method), plain_len: Some(plain_len as usize), bytes: payload })
    }

    fn unpack(self) -> Option<Bytes> {
        let Some((method, len)) = self.method.zip(self.plain_len) else { return Some(self.bytes) };
        method.decompress(&self.bytes, len).map(Bytes::from)
    }
}
