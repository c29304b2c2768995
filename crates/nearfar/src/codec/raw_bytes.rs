use bytes::Bytes;

use crate::codec::{Codec, CodecError};

/// [`Bytes`] as they are, for what is encoded already; see [`Nearfar::cache_with`](crate::Nearfar::cache_with).
///
/// Setting copies nothing but into the command that is sent, and L1 shares what was given. Reading from L2 copies once, out
/// of the buffer of the connection: L1 would otherwise hold all of that buffer for as long as it has the value.
///
/// ```
/// use nearfar::{Bytes, Codec, RawBytes};
///
/// let value = Bytes::from(vec![1, 2, 3]);
/// let payload = RawBytes.encode(&value).unwrap();
/// assert_eq!(payload.as_ptr(), value.as_ptr());
/// assert_eq!(RawBytes.decode(&payload).unwrap(), value);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RawBytes;

impl Codec<Bytes> for RawBytes {
    fn id(&self) -> u8 {
        4
    }

    fn encode(&self, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(&self, payload: &Bytes) -> Result<Bytes, CodecError> {
        // What was decompressed or unsealed has a buffer of its own.
        Ok(if payload.is_unique() { payload.clone() } else { Bytes::copy_from_slice(payload) })
    }
}
