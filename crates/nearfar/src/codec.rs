use std::error::Error as StdError;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a codec fails with.
///
/// ```
/// let error: nearfar::CodecError = "not a number".into();
/// assert_eq!(error.to_string(), "not a number");
/// ```
pub type CodecError = Box<dyn StdError + Send + Sync>;

/// Turns values into payload bytes and back.
///
/// [`MessagePack`] is the default. The id goes into every envelope; an entry that another codec wrote is a miss.
///
/// ```
/// use nearfar::{Codec, CodecError};
///
/// /// Text as it is.
/// struct Utf8;
///
/// impl Codec<String> for Utf8 {
///     fn id(&self) -> u8 {
///         128
///     }
///
///     fn encode(&self, value: &String) -> Result<Vec<u8>, CodecError> {
///         Ok(value.clone().into_bytes())
///     }
///
///     fn decode(&self, payload: &[u8]) -> Result<String, CodecError> {
///         Ok(std::str::from_utf8(payload)?.to_owned())
///     }
/// }
///
/// assert_eq!(Utf8.decode(&Utf8.encode(&"héllo".to_owned()).unwrap()).unwrap(), "héllo");
/// assert!(Utf8.decode(b"\xff").is_err());
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// Names the codec on the wire. Ids from 128 up are for your own; nearfar takes those below.
    fn id(&self) -> u8;

    /// The payload of a value.
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError>;

    /// The value of a payload. The bytes come from a shared store: they may be anything. An error is a miss and is
    /// counted; it never reaches a reader.
    fn decode(&self, payload: &[u8]) -> Result<V, CodecError>;
}

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

    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError> {
        Ok(rmp_serde::to_vec_named(value)?)
    }

    fn decode(&self, payload: &[u8]) -> Result<V, CodecError> {
        Ok(rmp_serde::from_slice(payload)?)
    }
}
