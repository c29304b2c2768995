//! Changes of truth: set, invalidate, clear.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::L2Error;
use nearfar_core::{Batch, Change, Envelope, EnvelopeHeader, KeyWrite, Kind, Moment, Version};

use crate::agreement::Disagreement;
use crate::engine::{Engine, weight};
use crate::entry::Slot;
use crate::error::{Error, MAX_VALUE_LEN, Operation};
use crate::holdings::Holdings;
use crate::key::CacheKey;
use crate::outcome::{Outcome, Unacknowledged};

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) async fn set(&self, key: K, encoded: Bytes, value: V) -> Result<Outcome, Error> {
        let lifetime = self.options.lifetime();
        let envelope = self.envelope(&self.header(Kind::Value, lifetime), &value)?;
        let encoded_len = weight(&envelope);
        let write = KeyWrite { key: encoded.clone(), envelope, keep: self.options.keep(lifetime) };
        let ticket = self.held.gate.ticket(&encoded);
        let set_at = self.now();
        let change = Change::set(self.node().id, write);
        let Outcome::Applied(version) = self.change_key(&key, &encoded, Operation::Set, change).await? else {
            return Ok(Outcome::Queued);
        };
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
        Ok(Outcome::Applied(version))
    }

    pub(crate) async fn invalidate(&self, key: K, encoded: Bytes) -> Result<Outcome, Error> {
        let change = Change::invalidate(self.node().id, vec![encoded.clone()], self.options.fence_window);
        let outcome = self.change_key(&key, &encoded, Operation::Invalidate, change).await?;
        self.held.counters.invalidations_sent.add(outcome.is_applied().into());
        Ok(outcome)
    }

    pub(crate) async fn clear(&self) -> Result<Outcome, Error> {
        let unsettled = Unsettled::new(self, None);
        match self.change(None, Change::clear(self.node().id)).await {
            Ok(version) => {
                self.held.settle_clear(version);
                unsettled.acknowledged(version);
                Ok(Outcome::Applied(version))
            }
            Err(cause) => unsettled.failed(Operation::Clear, cause),
        }
    }

    async fn change_key(
        &self,
        key: &K,
        encoded: &Bytes,
        doing: Operation,
        change: Change,
    ) -> Result<Outcome, Error> {
        let unsettled = Unsettled::new(self, Some((key, encoded)));
        match self.change(Some(encoded), change).await {
            Ok(version) => {
                // This node does not wait for its own message: the caller must not read the old value now.
                self.held.settle(key, encoded, version);
                unsettled.acknowledged(version);
                Ok(Outcome::Applied(version))
            }
            Err(cause) => unsettled.failed(doing, cause),
        }
    }

    async fn change(&self, key: Option<&Bytes>, change: Change) -> Result<Version, Failure> {
        self.agree().await.map_err(Failure::Disagreement)?;
        let key = key.map(|key| &key[..]);
        if self.held.outbox.with(|outbox| outbox.may_be_overtaken(key, self.now())) {
            return Err(Failure::MayBeOvertaken);
        }
        let l2 = self.node().l2().map_err(|_| Failure::L2(L2Error::Closed))?;
        let deadline = self.node().deadline().ok_or(Failure::L2(L2Error::Unreachable))?;
        l2.change(self.namespace(), change.by(deadline)).await.map_err(Failure::L2)
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

/// Why a change was not acknowledged.
enum Failure {
    Disagreement(Disagreement),
    /// An earlier change of the key, of unknown outcome, may still be executed, and would then be the last.
    MayBeOvertaken,
    L2(L2Error),
}

impl Failure {
    /// Whether the change may still be executed.
    fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::L2(cause) if cause.outcome_is_unknown())
    }

    /// Whether trying again is hopeless.
    fn is_final(&self) -> bool {
        matches!(self, Self::Disagreement(Disagreement::Settings { .. }) | Self::L2(L2Error::Closed))
    }
}

/// A change that L2 has not acknowledged yet. If its caller goes away or it fails, it may have happened all the same:
/// this node drops its own copies, lets nobody join a flight from before, and puts an invalidation into the outbox.
struct Unsettled<'a, K: CacheKey, V: Send + Sync + 'static> {
    engine: &'a Engine<K, V>,
    /// Which key; `None` for all of them.
    key: Option<(&'a K, &'a Bytes)>,
    /// Until when L2 may execute it, by this node's clock.
    executed_by: Moment,
    fate: Fate,
}

/// What is known of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not acknowledged.
    Open,
    /// Not acknowledged, and never will be.
    Hopeless,
    Acknowledged,
}

impl<'a, K: CacheKey, V: Send + Sync + 'static> Unsettled<'a, K, V> {
    fn new(engine: &'a Engine<K, V>, key: Option<(&'a K, &'a Bytes)>) -> Self {
        let executed_by = engine.now() + engine.node().timeouts.command + CLOCK_STEP;
        Self { engine, key, executed_by, fate: Fate::Open }
    }

    fn acknowledged(mut self, version: Version) {
        let (now, change) = (self.engine.now(), self.as_batch());
        self.held().outbox.with(|outbox| outbox.remember(now, change, version));
        self.fate = Fate::Acknowledged;
    }

    fn failed(mut self, doing: Operation, failure: Failure) -> Result<Outcome, Error> {
        if !failure.outcome_is_unknown() {
            self.executed_by = self.engine.now();
        }
        if failure.is_final() {
            self.fate = Fate::Hopeless;
        }
        let queues = self.engine.options.unacknowledged == Unacknowledged::Queue;
        match failure {
            Failure::Disagreement(Disagreement::Unasked(L2Error::Closed)) => Err(Error::closed()),
            Failure::Disagreement(refusal @ Disagreement::Settings { .. }) => {
                Err(self.engine.disagreement(refusal))
            }
            Failure::L2(cause @ (L2Error::Rejected(_) | L2Error::Closed)) => Err(Error::l2(doing, cause)),
            _ if queues => Ok(Outcome::Queued),
            Failure::L2(cause) | Failure::Disagreement(Disagreement::Unasked(cause)) => {
                Err(Error::l2(doing, cause))
            }
            Failure::MayBeOvertaken => Err(Error::may_be_overtaken()),
        }
    }

    fn queue(&self, may_be_sent_at: Moment) {
        let now = self.engine.now();
        self.held().outbox.with(|outbox| match self.key {
            Some((_, encoded)) => outbox.add(now, encoded.clone(), may_be_sent_at),
            None => outbox.add_everything(now, may_be_sent_at),
        });
    }

    fn as_batch(&self) -> Batch {
        self.key.map_or(Batch::Everything, |(_, encoded)| Batch::Keys(vec![encoded.clone()]))
    }

    fn held(&self) -> &'a Holdings<K, V> {
        &self.engine.held
    }
}

/// L2 refuses what comes after a deadline, not at it.
const CLOCK_STEP: Duration = Duration::from_millis(1);

impl<K: CacheKey, V: Send + Sync + 'static> Drop for Unsettled<'_, K, V> {
    fn drop(&mut self) {
        if self.fate == Fate::Acknowledged {
            return;
        }
        // Queued first: a read that begins after the copy was dropped must know that L2 has something wrong.
        if self.fate == Fate::Open {
            self.held().counters.queued.add(1);
            self.queue(self.executed_by);
        }
        match self.key {
            Some((key, encoded)) => self.held().discard(key, encoded),
            None => self.held().forget(Version::UNKNOWN),
        }
    }
}
