use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecError};

/// JSON by `serde_json`; with the cargo feature `json`.
///
/// For entries that people or programs in other languages read. As tolerant in a rolling deploy as
/// [`MessagePack`](crate::MessagePack), and larger. It does not have all that serde has: NaN is written as `null`, which
/// does not read back as a number, and the keys of maps must be text, numbers or booleans.
///
/// ```
/// use nearfar::{Codec, Json};
///
/// let payload = Json.encode(&vec![1_u8, 2]).unwrap();
/// assert_eq!(&payload[..], b"[1,2]");
/// let value: Vec<u8> = Json.decode(&payload).unwrap();
/// assert_eq!(value, [1, 2]);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    fn id(&self) -> u8 {
        2
    }

    fn encode(&self, value: &V) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<V, CodecError> {
        Ok(serde_json::from_slice(payload)?)
    }
}
