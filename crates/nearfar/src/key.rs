use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;

use bytes::Bytes;
use nearfar_core::MAX_KEY_LEN;

use crate::error::{Error, KeyProblem};

/// A key: something that every node writes as the same bytes, and can read back.
///
/// Every `Display + FromStr` type is one: numbers, `String`, UUIDs, your own newtypes. A type that is not can
/// implement this itself. Reading back is what lets a node find its copy when another node's invalidation names the
/// key, so an encoding that does not read back to an equal key is refused with an [`Error`] of kind
/// [`Key`](crate::ErrorKind::Key) when it is used.
///
/// ```
/// use nearfar::CacheKey;
///
/// #[derive(Clone, Debug, PartialEq, Eq, Hash)]
/// struct Page {
///     user: u32,
///     number: u16,
/// }
///
/// impl CacheKey for Page {
///     fn encode(&self, out: &mut Vec<u8>) {
///         out.extend(self.user.to_be_bytes());
///         out.extend(self.number.to_be_bytes());
///     }
///
///     fn decode(bytes: &[u8]) -> Option<Self> {
///         let (user, number) = bytes.split_first_chunk()?;
///         Some(Self { user: u32::from_be_bytes(*user), number: u16::from_be_bytes(number.try_into().ok()?) })
///     }
/// }
///
/// let page = Page { user: 7, number: 2 };
/// let mut bytes = Vec::new();
/// page.encode(&mut bytes);
/// assert_eq!(Page::decode(&bytes), Some(page));
/// ```
pub trait CacheKey: Clone + Eq + Hash + Send + Sync + 'static {
    /// Appends the key's bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the key back; `None` for bytes that are not a key of this type.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl<T> CacheKey for T
where
    T: Display + FromStr + Clone + Eq + Hash + Send + Sync + 'static,
{
    fn encode(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        write!(out, "{self}").expect("writing to memory does not fail");
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
}

/// The bytes of a key, checked to be short enough and to read back.
pub(crate) fn encode<K: CacheKey>(key: &K) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    if bytes.len() > MAX_KEY_LEN {
        return Err(Error::key::<K>(KeyProblem::TooLong { len: bytes.len() }));
    }
    if K::decode(&bytes).as_ref() != Some(key) {
        return Err(Error::key::<K>(KeyProblem::DoesNotReadBack));
    }
    Ok(bytes.into())
}
