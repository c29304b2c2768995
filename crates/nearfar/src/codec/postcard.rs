use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecError};

/// The compact binary format of `postcard`; with the cargo feature `postcard`.
///
/// Fields have neither names nor types on the wire, so it is the smallest, and says least about what it is: **change
/// [`schema`](crate::CacheBuilder::schema) with every change of the type**, or entries of another version may be misread.
/// Bytes left over are an error, which notices some of that.
///
/// Not for types that contain themselves: it knows no limit of depth, so bytes that somebody has made up could exhaust the
/// stack, which ends the process. Nor for collections of what takes no bytes, such as `Vec<()>`, whose length nothing
/// bounds.
///
/// ```
/// use nearfar::{Bytes, Codec, Postcard};
///
/// let payload = Postcard.encode(&(300_u32, true)).unwrap();
/// assert_eq!(&payload[..], b"\xac\x02\x01");
/// let value: (u32, bool) = Postcard.decode(&payload).unwrap();
/// assert_eq!(value, (300, true));
///
/// let of_a_longer_type: Result<u32, _> = Postcard.decode(&payload);
/// assert!(of_a_longer_type.is_err());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<V: Serialize + DeserializeOwned> Codec<V> for Postcard {
    fn id(&self) -> u8 {
        3
    }

    fn encode(&self, value: &V) -> Result<Bytes, CodecError> {
        Ok(postcard::to_stdvec(value)?.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<V, CodecError> {
        match postcard::take_from_bytes(payload)? {
            (value, []) => Ok(value),
            (_, rest) => Err(format!("{} bytes behind the value", rest.len()).into()),
        }
    }
}
