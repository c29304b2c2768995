//! Changes of truth: set, invalidate, expire, of keys and of tags, and clear.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use nearfar_core::backend::L2Error;
use nearfar_core::{
    Change, EnvelopeHeader, KeyWrite, Kind, NodeId, Precondition, Ticket, Validators, Version,
};

use crate::chunks::chunks;
use crate::engine::{Engine, boxed, weight};
use crate::entry::{Content, Slot};
use crate::error::{ConfigProblem, Error, Operation};
use crate::gathering::Written;
use crate::holdings::Part;
use crate::key::CacheKey;
use crate::lifetime::{Left, Lifetime};
use crate::loaded::Loaded;
use crate::node::deadline;
use crate::outcome::Outcome;
use crate::tags::TagChange;
use crate::unsettled::{About, Failure, Unsent, Unsettled};

/// A value that is to be set, and what L1 is to hold of it then.
struct Prepared<K, V> {
    /// In the form in which a change is about it.
    named: (K, Bytes),
    write: KeyWrite,
    content: Content<V>,
    lifetime: Lifetime,
    validators: Validators,
    tags: nearfar_core::Tags,
}

/// A key, its encoded form, and what it is to be set to.
pub(crate) type Setting<K, V> = (K, Bytes, Loaded<V>);

/// What is to be done about names of one partition, one step after the other.
type Steps<T> = Vec<Vec<(Bytes, T)>>;

/// How a change makes its keys what they are then.
type MakeChange = fn(NodeId, Vec<Bytes>, Duration) -> Change;

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) async fn set(&self, key: K, encoded: Bytes, loaded: Loaded<V>) -> Result<Outcome, Error> {
        let prepared = self.prepare(key, encoded, loaded)?;
        let part = self.held.part_of(&prepared.named.1);
        self.set_all(part, vec![prepared], Precondition::None).await
    }

    /// Sets a value if the precondition is met; else the error [says so](Error::is_unmet). It is never queued.
    pub(crate) async fn set_if(
        &self,
        key: K,
        encoded: Bytes,
        loaded: Loaded<V>,
        precondition: Precondition,
    ) -> Result<Version, Error> {
        let prepared = self.prepare(key, encoded, loaded)?;
        let part = self.held.part_of(&prepared.named.1);
        let outcome = self.set_all(part, vec![prepared], precondition).await?;
        outcome.version().ok_or_else(Error::may_be_overtaken)
    }

    /// Sets values, in one step per partition; of several for one key the last one counts. What became of each is told in
    /// their order.
    pub(crate) async fn set_many(
        &self,
        entries: Vec<Result<Setting<K, V>, Error>>,
    ) -> Vec<Result<Outcome, Error>> {
        let (mut names, mut by_name) = (Vec::new(), BTreeMap::new());
        for entry in entries {
            let prepared = entry.and_then(|(key, encoded, loaded)| self.prepare(key, encoded, loaded));
            names.push(prepared.as_ref().map(|one| one.named.1.clone()).map_err(Error::clone));
            by_name.extend(prepared.ok().map(|one| (one.named.1.clone(), one)));
        }
        let steps = self.steps_of(by_name, |one| one.write.envelope.len());
        told(names, join_all(steps.into_iter().map(|(part, steps)| self.set_steps(part, steps))).await)
    }

    async fn set_steps(
        &self,
        part: &Part,
        steps: Steps<Prepared<K, V>>,
    ) -> Vec<(Bytes, Result<Outcome, Error>)> {
        let named =
            |step: &Vec<(Bytes, Prepared<K, V>)>| step.iter().map(|(_, one)| one.named.clone()).collect();
        let mut unsent = Unsent::new(self, Operation::Set, part, steps.iter().map(named).collect());
        let mut told = Vec::new();
        for step in steps {
            let (of_step, prepared): (Vec<_>, Vec<_>) = step.into_iter().unzip();
            unsent.send();
            let outcome = Box::pin(self.set_all(part, prepared, Precondition::None)).await;
            told.extend(of_step.into_iter().map(|name| (name, outcome.clone())));
        }
        told
    }

    fn prepare(&self, key: K, encoded: Bytes, loaded: Loaded<V>) -> Result<Prepared<K, V>, Error> {
        let lifetime = self.options.lifetime(&loaded);
        let (kind, notes) = (loaded.kind(), loaded.notes()?);
        let stored = lifetime
            .zip(loaded.answer.content())
            .ok_or_else(|| Error::config(ConfigProblem::StoresNothing))?;
        let (lifetime, content) = stored;
        let header = self.header(kind, lifetime);
        let envelope = self.envelope(&encoded, &header, &notes, content.value())?;
        let write = KeyWrite { key: encoded.clone(), envelope, keep: self.options.keep(lifetime) };
        let (validators, tags) = (loaded.validators, loaded.tags.unwrap_or_default());
        Ok(Prepared { named: (key, encoded), write, content, lifetime, validators, tags })
    }

    /// Sets values of one partition, each key once.
    async fn set_all(
        &self,
        part: &Part,
        prepared: Vec<Prepared<K, V>>,
        precondition: Precondition,
    ) -> Result<Outcome, Error> {
        let tickets: Vec<Ticket> = prepared.iter().map(|one| part.gate.ticket(&one.named.1)).collect();
        let set_at = self.now();
        let writes = prepared.iter().map(|one| one.write.clone()).collect();
        let named: Vec<(K, Bytes)> = prepared.iter().map(|one| one.named.clone()).collect();
        let doing = if precondition == Precondition::None { Operation::Set } else { Operation::SetIf };
        let change = Change::set_many(self.node().id, writes).only_if(precondition);
        let (outcome, replaced) = self.write_part(part, About::Keys(&named), doing, change).await?;
        let Outcome::Applied(version) = outcome else { return Ok(outcome) };
        let counters = &self.held.counters;
        counters.sets.add(prepared.len() as u64);
        counters.l2_bytes_written.add(prepared.iter().map(|one| one.write.envelope.len() as u64).sum());
        for (one, ticket) in prepared.into_iter().zip(tickets) {
            // Another `set` has the same number, and has the last word.
            if replaced.contains(&one.named.1) {
                continue;
            }
            let slot = Slot {
                is_absent: one.content.is_absent(),
                content: one.content,
                version,
                age_when_taken: Duration::ZERO,
                taken_at: set_at,
                life: self.options.life(set_at, Left::all(one.lifetime), one.lifetime, Duration::ZERO),
                partition: part.id.index(),
                stripe: ticket.stripe(),
                generation: ticket.generation(),
                encoded_len: weight(&one.write.envelope),
                validators: boxed(one.validators),
                tags: part.tags.slot_tags(&one.tags, version),
            };
            self.held.l1.admit(one.named.0, ticket, Arc::new(slot));
        }
        Ok(outcome)
    }

    pub(crate) async fn invalidate(&self, key: K, encoded: Bytes) -> Result<Outcome, Error> {
        let part = self.held.part_of(&encoded);
        self.change_keys(part, &[(key, encoded)], Operation::Invalidate, Change::invalidate).await
    }

    pub(crate) async fn expire(&self, key: K, encoded: Bytes) -> Result<Outcome, Error> {
        let part = self.held.part_of(&encoded);
        self.change_keys(part, &[(key, encoded)], Operation::Expire, Change::expire).await
    }

    /// Invalidates keys, in one step per partition. What became of each is told in their order.
    pub(crate) async fn invalidate_many(
        &self,
        keys: Vec<Result<(K, Bytes), Error>>,
    ) -> Vec<Result<Outcome, Error>> {
        let names =
            keys.iter().map(|key| key.as_ref().map(|(_, encoded)| encoded.clone()).map_err(Error::clone));
        let names = names.collect();
        let by_name = keys.into_iter().flatten().map(|(key, encoded)| (encoded, key)).collect();
        let steps = self.steps_of(by_name, |_| 0);
        told(names, join_all(steps.into_iter().map(|(part, steps)| self.invalidate_steps(part, steps))).await)
    }

    async fn invalidate_steps(&self, part: &Part, steps: Steps<K>) -> Vec<(Bytes, Result<Outcome, Error>)> {
        let named = |step: Vec<(Bytes, K)>| step.into_iter().map(|(encoded, key)| (key, encoded)).collect();
        let mut unsent =
            Unsent::new(self, Operation::Invalidate, part, steps.into_iter().map(named).collect());
        let mut told = Vec::new();
        while let Some(keys) = unsent.send() {
            let outcome = self.change_keys(part, &keys, Operation::Invalidate, Change::invalidate).await;
            told.extend(keys.into_iter().map(|(_, encoded)| (encoded, outcome.clone())));
        }
        told
    }

    /// What is to be done about names, by partition: those of one go one after the other, in steps that are not too large.
    fn steps_of<T>(&self, by_name: BTreeMap<Bytes, T>, len: impl Fn(&T) -> usize) -> Vec<(&Part, Steps<T>)> {
        let steps = |(part, named)| (part, chunks(named, |(name, one): &(Bytes, T)| name.len() + len(one)));
        self.held.by_part(by_name, |(name, _)| name).map(steps).collect()
    }

    async fn change_keys(
        &self,
        part: &Part,
        keys: &[(K, Bytes)],
        doing: Operation,
        change: MakeChange,
    ) -> Result<Outcome, Error> {
        let encoded = keys.iter().map(|(_, encoded)| encoded.clone()).collect();
        let change = change(self.node().id, encoded, self.options.fence_window);
        let outcome = self.change_part(part, About::Keys(keys), doing, change).await?;
        if doing == Operation::Invalidate && outcome.is_applied() {
            self.held.counters.invalidations_sent.add(keys.len() as u64);
        }
        Ok(outcome)
    }

    /// All partitions at once. It is applied when it is in each of them.
    pub(crate) async fn clear(&self) -> Result<Outcome, Error> {
        let clear =
            |part| self.change_part(part, About::Everything, Operation::Clear, Change::clear(self.node().id));
        all(join_all(self.held.parts.iter().map(clear)).await)
    }

    /// Declares what carries one of these tags wrong, or stale, in all partitions at once.
    pub(crate) async fn change_tags(&self, tags: &[Bytes], change: TagChange) -> Result<Outcome, Error> {
        let (doing, make): (_, MakeChange) = match change {
            TagChange::Wrong => (Operation::InvalidateTags, Change::invalidate_tags),
            TagChange::Stale => (Operation::ExpireTags, Change::expire_tags),
        };
        let change = make(self.node().id, tags.to_vec(), self.options.fence_window);
        let of_part = |part| self.change_part(part, About::Tags(tags), doing, change.clone());
        all(join_all(self.held.parts.iter().map(of_part)).await)
    }

    async fn change_part(
        &self,
        part: &Part,
        about: About<'_, K>,
        doing: Operation,
        change: Change,
    ) -> Result<Outcome, Error> {
        self.write_part(part, about, doing, change).await.map(|(outcome, _)| outcome)
    }

    /// Changes something in one partition, together with what others change there now. Tells with the outcome which of
    /// its keys have been changed again in the same step, and by the same number.
    async fn write_part(
        &self,
        part: &Part,
        about: About<'_, K>,
        doing: Operation,
        change: Change,
    ) -> Result<(Outcome, Vec<Bytes>), Error> {
        let mut unsettled = Unsettled::new(self, doing, part, about);
        match self.change(&mut unsettled, change).await {
            Ok(Written { version, replaced }) => {
                self.settle(part, about, doing, version);
                self.held.counters.outlet.tell(|| about.event(doing));
                unsettled.acknowledged(version).map(|outcome| (outcome, replaced))
            }
            Err(cause) => unsettled.failed(cause).map(|outcome| (outcome, Vec::new())),
        }
    }

    /// This node does not wait for its own message: the caller must not read the old value now.
    fn settle(&self, part: &Part, about: About<'_, K>, doing: Operation, version: Version) {
        match about {
            About::Everything => self.held.settle_clear(part, version),
            About::Tags(tags) => {
                let is_stale = doing == Operation::ExpireTags;
                let change = if is_stale { TagChange::Stale } else { TagChange::Wrong };
                part.settle_tags(tags, change, version, self.now());
            }
            About::Keys(keys) if doing == Operation::Expire => {
                let now = self.now();
                for (key, encoded) in keys {
                    self.held.settle_expired(key, encoded, version, now);
                }
            }
            About::Keys(keys) => {
                for (key, encoded) in keys {
                    self.held.settle(key, encoded, version);
                }
            }
        }
    }

    async fn change(&self, unsettled: &mut Unsettled<'_, K, V>, change: Change) -> Result<Written, Failure> {
        self.agree().await.map_err(Failure::Disagreement)?;
        self.node().l2().map_err(|_| Failure::L2(L2Error::Closed))?;
        // One reading of the clock for both: until when L2 may execute it, and from when on it cannot have.
        let now = self.now();
        let deadline = deadline(&unsettled.part.remote, now, self.node().timeouts.command);
        let deadline = deadline.ok_or(Failure::L2(L2Error::Unreachable))?;
        if !unsettled.may_be_sent(now) {
            return Err(Failure::MayBeOvertaken);
        }
        unsettled.part.changes.ask(change.by(deadline)).await.map_err(|cause| match cause {
            L2Error::Unmet => Failure::Unmet,
            cause => Failure::L2(cause),
        })
    }

    pub(crate) fn header(&self, kind: Kind, lifetime: Lifetime) -> EnvelopeHeader {
        EnvelopeHeader {
            ttl: lifetime.ttl,
            idle: lifetime.idle,
            grace: lifetime.grace,
            ..self.payloads.header(kind)
        }
    }

    /// The unstamped envelope of a value, or of there being none, with its notes and how many tags those begin with.
    pub(crate) fn envelope(
        &self,
        encoded: &[u8],
        header: &EnvelopeHeader,
        (notes, tag_count): &(Vec<u8>, u16),
        value: Option<&V>,
    ) -> Result<Bytes, Error> {
        let header = EnvelopeHeader { tag_count: *tag_count, ..*header };
        self.payloads.envelope(encoded, &header, notes, value)
    }
}

/// What becomes of a change in several partitions.
fn all(outcomes: Vec<Result<Outcome, Error>>) -> Result<Outcome, Error> {
    outcomes.into_iter().reduce(|all, one| Ok(all?.and(one?))).expect("there is a partition")
}

/// What became of each of these names.
fn told(
    names: Vec<Result<Bytes, Error>>,
    outcomes: Vec<Vec<(Bytes, Result<Outcome, Error>)>>,
) -> Vec<Result<Outcome, Error>> {
    let by_name: HashMap<_, _> = outcomes.into_iter().flatten().collect();
    names.into_iter().map(|name| by_name[&name?].clone()).collect()
}
