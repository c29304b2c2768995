//! Changes of truth: set, invalidate, clear.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::L2Error;
use nearfar_core::{Change, Envelope, EnvelopeHeader, KeyWrite, Kind, Version};

use crate::engine::{Engine, weight};
use crate::entry::Slot;
use crate::error::{Error, MAX_VALUE_LEN, Operation};
use crate::holdings::Holdings;
use crate::key::CacheKey;

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) async fn set(&self, key: K, encoded: Bytes, value: V) -> Result<Version, Error> {
        let lifetime = self.options.lifetime();
        let envelope = self.envelope(&self.header(Kind::Value, lifetime), &value)?;
        let encoded_len = weight(&envelope);
        let write = KeyWrite { key: encoded.clone(), envelope, keep: self.options.keep(lifetime) };
        let ticket = self.held.gate.ticket(&encoded);
        let set_at = self.now();
        let version =
            self.change_key(&key, &encoded, Operation::Set, Change::set(self.node().id, write)).await?;
        self.held.counters.sets.add(1);
        let slot = Slot {
            value,
            version,
            age_when_taken: Duration::ZERO,
            taken_at: set_at,
            expires_at: self.l1_expiry(set_at, lifetime),
            generation: ticket.generation(),
            encoded_len,
        };
        self.held.l1.admit(key, ticket, Arc::new(slot));
        Ok(version)
    }

    pub(crate) async fn invalidate(&self, key: K, encoded: Bytes) -> Result<Version, Error> {
        let change = Change::invalidate(self.node().id, vec![encoded.clone()], self.options.fence_window);
        let version = self.change_key(&key, &encoded, Operation::Invalidate, change).await?;
        self.held.counters.invalidations_sent.add(1);
        Ok(version)
    }

    pub(crate) async fn clear(&self) -> Result<Version, Error> {
        let unsettled = Unsettled { held: &self.held, key: None };
        let version = self.change(Operation::Clear, Change::clear(self.node().id)).await?;
        unsettled.settled();
        self.held.settle_clear(version);
        Ok(version)
    }

    async fn change_key(
        &self,
        key: &K,
        encoded: &Bytes,
        doing: Operation,
        change: Change,
    ) -> Result<Version, Error> {
        let unsettled = Unsettled { held: &self.held, key: Some(key) };
        let version = self.change(doing, change).await?;
        unsettled.settled();
        // This node does not wait for its own message: the caller must not read the old value now.
        self.held.settle(key, encoded, version);
        Ok(version)
    }

    async fn change(&self, doing: Operation, change: Change) -> Result<Version, Error> {
        self.agree().await?;
        let l2 = self.node().l2()?;
        let deadline = self.node().deadline().ok_or_else(|| Error::l2(doing, L2Error::Unreachable))?;
        l2.change(self.namespace(), change.by(deadline)).await.map_err(|cause| Error::l2(doing, cause))
    }

    pub(crate) fn header(&self, kind: Kind, lifetime: Option<Duration>) -> EnvelopeHeader {
        EnvelopeHeader {
            codec: self.codec.id(),
            schema: self.options.schema,
            ttl: lifetime,
            ..EnvelopeHeader::of(kind)
        }
    }

    /// The unstamped envelope of a value.
    pub(crate) fn envelope(&self, header: &EnvelopeHeader, value: &V) -> Result<Bytes, Error> {
        let payload = self.codec.encode(value).map_err(Error::encode)?;
        if payload.len() > MAX_VALUE_LEN {
            return Err(Error::value_too_large(payload.len()));
        }
        Ok(Envelope::encode(header, &Bytes::new(), &payload))
    }
}

/// A change whose outcome is not known yet. If its caller goes away or it fails, this node drops its own copies and
/// lets nobody join a flight from before: the change may have happened.
struct Unsettled<'a, K: CacheKey, V: Send + Sync + 'static> {
    held: &'a Holdings<K, V>,
    /// Which key; `None` for all of them.
    key: Option<&'a K>,
}

impl<K: CacheKey, V: Send + Sync + 'static> Unsettled<'_, K, V> {
    fn settled(self) {
        std::mem::forget(self);
    }
}

impl<K: CacheKey, V: Send + Sync + 'static> Drop for Unsettled<'_, K, V> {
    fn drop(&mut self) {
        match self.key {
            Some(key) => self.held.discard(key),
            None => self.held.forget(),
        }
    }
}
