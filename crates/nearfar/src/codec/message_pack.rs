use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecError};

/// MessagePack by `rmp-serde`, structs as maps with named fields.
///
/// Names make a rolling deploy possible: a field that has a serde default can be added, and a field can be dropped,
/// while old and new nodes share entries.
///
/// ```
/// use nearfar::{Codec, MessagePack};
///
/// let payload = MessagePack.encode(&vec![1_u8, 2]).unwrap();
/// let value: Vec<u8> = MessagePack.decode(&payload).unwrap();
/// assert_eq!(value, [1, 2]);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

impl<V: Serialize + DeserializeOwned> Codec<V> for MessagePack {
    fn id(&self) -> u8 {
        1
    }

    fn encode(&self, value: &V) -> Result<Bytes, CodecError> {
        Ok(rmp_serde::to_vec_named(value)?.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<V, CodecError> {
        Ok(rmp_serde::from_slice(payload)?)
    }
}
