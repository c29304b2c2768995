//! Codecs: values to payload bytes and back.

use std::error::Error as StdError;

use bytes::Bytes;

#[cfg(feature = "json")]
mod json;
mod message_pack;
#[cfg(feature = "postcard")]
mod postcard;
mod raw_bytes;

#[cfg(feature = "json")]
pub use json::Json;
pub use message_pack::MessagePack;
#[cfg(feature = "postcard")]
pub use postcard::Postcard;
pub use raw_bytes::RawBytes;

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
/// use nearfar::{Bytes, Codec, CodecError};
///
/// /// Text as it is.
/// struct Utf8;
///
/// impl Codec<String> for Utf8 {
///     fn id(&self) -> u8 {
///         128
///     }
///
///     fn encode(&self, value: &String) -> Result<Bytes, CodecError> {
///         Ok(value.clone().into())
///     }
///
///     fn decode(&self, payload: &Bytes) -> Result<String, CodecError> {
///         Ok(std::str::from_utf8(payload)?.to_owned())
///     }
/// }
///
/// assert_eq!(Utf8.decode(&Utf8.encode(&"héllo".to_owned()).unwrap()).unwrap(), "héllo");
/// assert!(Utf8.decode(&Bytes::from_static(b"\xff")).is_err());
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// Names the codec on the wire. Ids from 128 up are for your own; nearfar takes those below.
    fn id(&self) -> u8;

    /// The payload of a value.
    fn encode(&self, value: &V) -> Result<Bytes, CodecError>;

    /// The value of a payload. The bytes come from a shared store: they may be anything. An error is a miss and is
    /// counted; it never reaches a reader.
    ///
    /// A value that keeps a clone or a slice of the payload keeps more: that may be the buffer into which the connection
    /// was read, for as long as the value is in L1. See how [`RawBytes`] does it.
    fn decode(&self, payload: &Bytes) -> Result<V, CodecError>;
}
