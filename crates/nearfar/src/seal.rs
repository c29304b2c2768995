//! Payloads that only who has a key can read or make.

use nearfar_core::{EnvelopeHeader, Namespace};

#[cfg(feature = "sealed")]
mod key_ring;

#[cfg(not(feature = "sealed"))]
pub(crate) use absent::KeyRing;
#[cfg(feature = "sealed")]
pub use key_ring::KeyRing;

/// What a seal is good for: where it stands, and all of the envelope that says how it is to be read and that nobody
/// changes later. The lifetime is not in it, since a renewal replaces that in L2 without the payload, nor is the stamp,
/// which is L2's.
pub(crate) struct Context<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) key: &'a [u8],
    pub(crate) header: &'a EnvelopeHeader,
    pub(crate) notes: &'a [u8],
    pub(crate) plain_len: Option<usize>,
}

impl Context<'_> {
    /// The associated data, as `docs/wire-format.md` has it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { namespace, key, header, notes, plain_len } = self;
        let mut out = b"NFS\x01".to_vec();
        out.extend([header.kind.to_wire(), header.codec, header.compression]);
        out.extend(header.tag_count.to_be_bytes());
        out.extend(header.schema.to_be_bytes());
        out.extend(wire_len(plain_len.unwrap_or_default()));
        for part in [namespace.as_str().as_bytes(), key, notes] {
            out.extend(wire_len(part.len()));
            out.extend_from_slice(part);
        }
        out
    }
}

fn wire_len(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("what is framed is bounded far below 4 GiB").to_be_bytes()
}

#[cfg(not(feature = "sealed"))]
mod absent {
    use crate::codec::CodecError;

    /// There is none without the feature.
    #[derive(Clone, Debug)]
    pub(crate) enum KeyRing {}

    impl KeyRing {
        pub(crate) fn seal(&self, _context: &[u8], _plain: &[u8]) -> Result<Vec<u8>, CodecError> {
            match *self {}
        }

        pub(crate) fn open(&self, _context: &[u8], _sealed: &[u8]) -> Option<Vec<u8>> {
            match *self {}
        }

        pub(crate) fn twice(&self) -> Option<u32> {
            match *self {}
        }
    }
}
