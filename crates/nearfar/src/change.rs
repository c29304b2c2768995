//! Changes of truth: set, invalidate, clear.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use nearfar_core::backend::L2Error;
use nearfar_core::{Batch, Change, EnvelopeHeader, KeyWrite, Kind, Moment, Validators, Version};

use crate::agreement::Disagreement;
use crate::engine::{Engine, boxed, weight};
use crate::entry::Slot;
use crate::error::{ConfigProblem, Error, Operation};
use crate::holdings::{Holdings, Part};
use crate::key::CacheKey;
use crate::lifetime::{Left, Lifetime};
use crate::loaded::Loaded;
use crate::node::deadline;
use crate::outcome::{Outcome, Unacknowledged};

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) async fn set(&self, key: K, encoded: Bytes, loaded: Loaded<V>) -> Result<Outcome, Error> {
        let lifetime = self.options.lifetime(&loaded);
        let kind = loaded.kind();
        let stored = lifetime
            .zip(loaded.answer.content())
            .ok_or_else(|| Error::config(ConfigProblem::StoresNothing))?;
        let (lifetime, content) = stored;
        let envelope =
            self.envelope(&encoded, &self.header(kind, lifetime), &loaded.validators, content.value())?;
        let encoded_len = weight(&envelope);
        let write = KeyWrite { key: encoded.clone(), envelope, keep: self.options.keep(lifetime) };
        let part = self.held.part_of(&encoded);
        let ticket = part.gate.ticket(&encoded);
        let set_at = self.now();
        let change = Change::set(self.node().id, write);
        let Outcome::Applied(version) = self.change_key(&key, &encoded, Operation::Set, change).await? else {
            return Ok(Outcome::Queued);
        };
        self.held.counters.sets.add(1);
        let slot = Slot {
            content,
            version,
            age_when_taken: Duration::ZERO,
            taken_at: set_at,
            life: self.options.life(set_at, Left::all(lifetime), lifetime, Duration::ZERO),
            partition: part.id.index(),
            generation: ticket.generation(),
            encoded_len,
            validators: boxed(loaded.validators),
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

    pub(crate) async fn expire(&self, key: K, encoded: Bytes) -> Result<Outcome, Error> {
        let change = Change::expire(self.node().id, vec![encoded.clone()], self.options.fence_window);
        self.change_key(&key, &encoded, Operation::Expire, change).await
    }

    /// All partitions at once. It is applied when it is in each of them.
    pub(crate) async fn clear(&self) -> Result<Outcome, Error> {
        let outcomes = join_all(self.held.parts.iter().map(|part| self.clear_part(part))).await;
        outcomes.into_iter().reduce(|all, one| Ok(all?.and(one?))).expect("there is a partition")
    }

    async fn clear_part(&self, part: &Part) -> Result<Outcome, Error> {
        let mut unsettled = Unsettled::new(self, Operation::Clear, part, None);
        match self.change(&mut unsettled, Change::clear(self.node().id)).await {
            Ok(version) => {
                unsettled.remember(version);
                self.held.settle_clear(part, version);
                unsettled.acknowledged(version)
            }
            Err(cause) => unsettled.failed(cause),
        }
    }

    async fn change_key(
        &self,
        key: &K,
        encoded: &Bytes,
        doing: Operation,
        change: Change,
    ) -> Result<Outcome, Error> {
        let part = self.held.part_of(encoded);
        let mut unsettled = Unsettled::new(self, doing, part, Some((key, encoded)));
        match self.change(&mut unsettled, change).await {
            Ok(version) => {
                unsettled.remember(version);
                // This node does not wait for its own message: the caller must not read the old value now.
                match doing {
                    Operation::Expire => self.held.settle_expired(key, encoded, version, self.now()),
                    _ => self.held.settle(key, encoded, version),
                }
                unsettled.acknowledged(version)
            }
            Err(cause) => unsettled.failed(cause),
        }
    }

    async fn change(&self, unsettled: &mut Unsettled<'_, K, V>, change: Change) -> Result<Version, Failure> {
        self.agree().await.map_err(Failure::Disagreement)?;
        let l2 = self.node().l2().map_err(|_| Failure::L2(L2Error::Closed))?;
        // One reading of the clock for both: until when L2 may execute it, and from when on it cannot have.
        let now = self.now();
        let deadline = deadline(&unsettled.part.remote, now, self.node().timeouts.command);
        let deadline = deadline.ok_or(Failure::L2(L2Error::Unreachable))?;
        if !unsettled.may_be_sent(now) {
            return Err(Failure::MayBeOvertaken);
        }
        l2.change(&unsettled.part.id, change.by(deadline)).await.map_err(Failure::L2)
    }

    pub(crate) fn header(&self, kind: Kind, lifetime: Lifetime) -> EnvelopeHeader {
        EnvelopeHeader {
            ttl: lifetime.ttl,
            idle: lifetime.idle,
            grace: lifetime.grace,
            ..self.payloads.header(kind)
        }
    }

    /// The unstamped envelope of a value, or of there being none.
    pub(crate) fn envelope(
        &self,
        encoded: &[u8],
        header: &EnvelopeHeader,
        validators: &Validators,
        value: Option<&V>,
    ) -> Result<Bytes, Error> {
        self.payloads.envelope(encoded, header, &validators.encode(), value)
    }
}

/// Why a change was not acknowledged.
enum Failure {
    Disagreement(Disagreement),
    /// An earlier `set` of the key, of unknown outcome, may still be executed, and would then be the last.
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
        match self {
            Self::Disagreement(Disagreement::Settings { .. }) => true,
            Self::Disagreement(Disagreement::Unasked(cause)) | Self::L2(cause) => {
                matches!(cause, L2Error::Closed)
            }
            Self::MayBeOvertaken => false,
        }
    }

    /// Whether the caller is to hear of it whatever happens next: somebody has to do something about it.
    fn is_refusal(&self) -> bool {
        let asked = match self {
            Self::Disagreement(Disagreement::Unasked(L2Error::Unexpected)) => return true,
            Self::Disagreement(Disagreement::Unasked(cause)) | Self::L2(cause) => cause,
            Self::Disagreement(Disagreement::Settings { .. }) | Self::MayBeOvertaken => return false,
        };
        matches!(asked, L2Error::Rejected(_))
    }
}

/// A change that L2 has not acknowledged yet. If its caller goes away or it fails, it may have happened all the same:
/// this node drops its own copies, lets nobody join a flight from before, and puts an invalidation into the outbox.
struct Unsettled<'a, K: CacheKey, V: Send + Sync + 'static> {
    engine: &'a Engine<K, V>,
    doing: Operation,
    part: &'a Part,
    /// Which key; `None` for all of the part.
    key: Option<(&'a K, &'a Bytes)>,
    began: Moment,
    /// Until when L2 may execute it, by this node's clock, if it would do harm behind the invalidation that repeats it.
    executed_by: Moment,
    /// Whether an earlier `set` may be executed behind it, so that it is not the last word.
    may_be_overtaken: bool,
    is_settled: bool,
}

impl<'a, K: CacheKey, V: Send + Sync + 'static> Unsettled<'a, K, V> {
    fn new(
        engine: &'a Engine<K, V>,
        doing: Operation,
        part: &'a Part,
        key: Option<(&'a K, &'a Bytes)>,
    ) -> Self {
        let began = engine.now();
        Self {
            engine,
            doing,
            part,
            key,
            began,
            executed_by: began,
            may_be_overtaken: false,
            is_settled: false,
        }
    }

    /// Called when it is sent, or would be.
    fn may_be_sent(&mut self, now: Moment) -> bool {
        let key = self.key.map(|(_, encoded)| &encoded[..]);
        self.may_be_overtaken = self.part.outbox.with(|outbox| outbox.may_be_overtaken(key, now));
        self.began = now;
        if !self.sets() {
            // An invalidation helps at once, whatever comes behind it; that is invalidated in turn.
            return true;
        }
        if !self.may_be_overtaken {
            let limit = self.engine.node().timeouts.command;
            self.executed_by = now + limit + limit / DRIFT + CLOCK_STEP;
        }
        !self.may_be_overtaken
    }

    /// L2 may lose what it has acknowledged. Before it is settled, see [`Outbox::remember`](nearfar_core::Outbox::remember).
    fn remember(&self, version: Version) {
        let now = self.engine.now();
        self.part.outbox.with(|outbox| outbox.remember(now, self.as_batch(), version));
    }

    fn acknowledged(mut self, version: Version) -> Result<Outcome, Error> {
        // What was only declared stale may be wrong as well, and has to be invalidated still.
        if let Some((_, encoded)) = self.key.filter(|_| self.doing != Operation::Expire) {
            self.part.outbox.with(|outbox| outbox.strike_out(encoded, self.began));
        }
        self.is_settled = true;
        if self.may_be_overtaken {
            self.queued(Error::may_be_overtaken())
        } else {
            Ok(Outcome::Applied(version))
        }
    }

    fn failed(mut self, failure: Failure) -> Result<Outcome, Error> {
        if !failure.outcome_is_unknown() {
            self.executed_by = self.began;
        }
        self.is_settled = true;
        let is_queued = !failure.is_final() && self.queue();
        self.discard();
        let is_refusal = failure.is_refusal();
        let error = self.error(failure);
        if is_queued && !is_refusal { self.queued(error) } else { Err(error) }
    }

    /// What the caller is told of a change that waits in the outbox.
    fn queued(&self, error: Error) -> Result<Outcome, Error> {
        match self.engine.options.unacknowledged {
            Unacknowledged::Queue => Ok(Outcome::Queued),
            Unacknowledged::Fail => Err(error),
        }
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Disagreement(Disagreement::Unasked(L2Error::Closed)) => Error::closed(),
            Failure::Disagreement(disagreement) => self.engine.disagreement(disagreement),
            Failure::MayBeOvertaken => Error::may_be_overtaken(),
            Failure::L2(cause) => Error::l2(self.doing, cause),
        }
    }

    /// Puts an invalidation into the outbox, unless nobody would send it any more.
    fn queue(&self) -> bool {
        let now = self.engine.now();
        let is_queued = self.part.outbox.queue(now, self.as_batch(), self.executed_by);
        self.held().counters.queued.add(is_queued.into());
        is_queued
    }

    /// A copy may be wrong now. Once it is queued: a read that begins after this must know that L2 has something wrong.
    fn discard(&self) {
        match self.key {
            Some((key, encoded)) => self.held().discard(key, encoded),
            None => self.held().discard_all(self.part),
        }
    }

    fn sets(&self) -> bool {
        matches!(self.doing, Operation::Set)
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

/// The clocks of a node and of L2 drift apart by less than a part in so many.
const DRIFT: u32 = 1_000;

/// Its caller has gone away.
impl<K: CacheKey, V: Send + Sync + 'static> Drop for Unsettled<'_, K, V> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.queue();
            self.discard();
        }
    }
}
