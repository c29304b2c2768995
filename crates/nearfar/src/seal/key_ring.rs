use std::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use crate::codec::CodecError;

/// The keys that seal values; for [`CacheBuilder::sealed`](crate::CacheBuilder::sealed), with the cargo feature `sealed`.
///
/// The first seals, all of them open. A key is 32 random bytes, from wherever the service has its secrets. Its id stands in
/// the sealed payload, where everybody can read it, and is any number that the keys of the cache do not share.
///
/// To replace a key, in three deployments: add the new one by [`also`](Self::also), so that every node can open it; then
/// let it seal, and the old one be the other; then, when the longest lifetime is over, leave the old one out.
///
/// `Debug` shows the ids alone. What the ring keeps is wiped from memory when it is dropped; the arrays that it was made of
/// are the caller's to wipe.
///
/// ```
/// use nearfar::KeyRing;
///
/// let (new, old) = ([7; 32], [3; 32]); // from your secrets
/// let ring = KeyRing::new(2, new).also(1, old);
/// assert_eq!(format!("{ring:?}"), "KeyRing { ids: [2, 1] }");
/// ```
#[derive(Clone)]
pub struct KeyRing {
    /// Never empty; the first seals.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: u32,
    cipher: XChaCha20Poly1305,
}

const ID_LEN: usize = 4;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

impl KeyRing {
    /// A ring with one key, which seals.
    pub fn new(id: u32, key: [u8; 32]) -> Self {
        Self { keys: vec![Key::new(id, key)] }
    }

    /// Adds a key that opens what it has sealed elsewhere. Two keys with one id are refused when the cache is built.
    pub fn also(mut self, id: u32, key: [u8; 32]) -> Self {
        self.keys.push(Key::new(id, key));
        self
    }

    /// An id that more than one key has.
    pub(crate) fn twice(&self) -> Option<u32> {
        let ids = || self.keys.iter().map(|key| key.id);
        ids().enumerate().find(|(at, id)| ids().skip(at + 1).any(|other| other == *id)).map(|(_, id)| id)
    }

    /// Fails only if the system has no random bytes.
    pub(crate) fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, CodecError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)?;
        self.seal_with(nonce, context, plain)
    }

    pub(crate) fn seal_with(
        &self,
        nonce: [u8; NONCE_LEN],
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, CodecError> {
        let Key { id, cipher } = &self.keys[0];
        let mut out = Vec::with_capacity(ID_LEN + NONCE_LEN + plain.len() + TAG_LEN);
        out.extend(id.to_be_bytes());
        out.extend(nonce);
        out.extend_from_slice(plain);
        let text = &mut out[ID_LEN + NONCE_LEN..];
        let tag = cipher.encrypt_inout_detached(&XNonce::from(nonce), context, text.into())?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// `None` if no key of the ring has sealed this for this place.
    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = sealed.split_first_chunk::<ID_LEN>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (text, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let key = self.keys.iter().find(|key| key.id == u32::from_be_bytes(*id))?;
        let mut plain = text.to_vec();
        let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
        key.cipher.decrypt_inout_detached(&nonce, context, plain.as_mut_slice().into(), &tag).ok()?;
        Some(plain)
    }
}

impl Key {
    fn new(id: u32, key: [u8; 32]) -> Self {
        Self { id, cipher: XChaCha20Poly1305::new(&key.into()) }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id).collect();
        f.debug_struct("KeyRing").field("ids", &ids).finish()
    }
}
