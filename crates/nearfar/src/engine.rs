//! What a cache does: reading through the tiers.
//!
//! Loads are in `load`, changes of truth in `change`.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use nearfar_core::backend::L2Error;
use nearfar_core::{Envelope, Kind, Moment, Namespace, PartitionId, Snapshot, Validators};

use crate::agreement::{Agreement, Disagreement};
use crate::call::CallOptions;
use crate::codec::Codec;
use crate::config::CacheConfig;
use crate::entry::{Content, Entry, Slot, Tier};
use crate::error::{ConfigProblem, Error, Operation};
use crate::holdings::{FollowedPart, Holdings, Part};
use crate::key::CacheKey;
use crate::lifetime::{Left, Lifetime};
use crate::member::Subscription;
use crate::node::{NameClaim, Node};
use crate::options::Options;
use crate::stats::Stats;

/// One cache on one node.
pub(crate) struct Engine<K, V> {
    claim: NameClaim,
    pub(crate) options: Options,
    pub(crate) codec: Box<dyn Codec<V>>,
    pub(crate) held: Arc<Holdings<K, V>>,
    agreement: Arc<Agreement>,
}

/// What reading L2 found.
pub(crate) struct Found<V> {
    /// What may be served, if only as a fallback. It may be fresh that there is no such thing.
    pub(crate) slot: Option<Arc<Slot<V>>>,
    /// What stands there, and where the partition stood.
    pub(crate) snapshot: Snapshot,
}

impl<V> Found<V> {
    /// What it is, if it is fresh.
    pub(crate) fn fresh(&self) -> Option<Entry<V>> {
        let slot = self.slot.as_ref().filter(|slot| slot.is_fresh())?;
        Some(Entry::new(Arc::clone(slot), Tier::L2, slot.taken_at))
    }
}

/// An envelope that may be served now, if only as a fallback.
struct Live {
    envelope: Envelope,
    age: Duration,
    left: Left,
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) async fn start(
        claim: NameClaim,
        options: &Options,
        codec: Box<dyn Codec<V>>,
    ) -> Result<Arc<Self>, Error> {
        let settings = options.settings(claim.node.default_partitions());
        let partition = |index| PartitionId::new(claim.namespace.clone(), index);
        let partitions =
            (0..settings.partitions).map(partition).map(|id| (id.clone(), claim.node.outbox(&id)));
        let held = Arc::new(Holdings::new(options, partitions.collect()));
        let agreement = Arc::new(Agreement::new(claim.namespace.clone(), settings));
        let engine = Arc::new(Self { claim, options: *options, codec, held, agreement });
        let reachable = match engine.agree().await {
            Ok(()) => true,
            Err(Disagreement::Unasked(cause)) if engine.node().start_degraded && cause.is_absence() => false,
            Err(disagreement) => return Err(engine.disagreement(disagreement)),
        };
        engine.follow(reachable).await?;
        Ok(engine)
    }

    pub(crate) fn config(&self) -> CacheConfig {
        self.options.config(self.node().default_partitions())
    }

    /// Makes sure that the other nodes fence for as long as this one.
    pub(crate) async fn agree(&self) -> Result<(), Disagreement> {
        // After the shutdown there is nothing to ask.
        let l2 = self.node().l2().map_err(|_| Disagreement::Unasked(L2Error::Closed))?;
        self.agreement.reach(l2).await
    }

    pub(crate) fn disagreement(&self, disagreement: Disagreement) -> Error {
        match disagreement {
            Disagreement::Unasked(cause) => Error::l2(Operation::Open, cause),
            Disagreement::Settings { ours, theirs } => {
                let namespace = self.namespace().to_string();
                Error::config(ConfigProblem::Disagrees { namespace, ours, theirs })
            }
        }
    }

    /// Subscribes, and waits for the proof of it if L2 is there to give one.
    async fn follow(&self, reachable: bool) -> Result<(), Error> {
        let attach = |(index, part): (usize, &Part)| {
            let held = Arc::new(FollowedPart::new(&self.held, index));
            self.node().attach(part.id.clone(), &self.options, held, Arc::clone(&self.agreement))
        };
        let proofs: Vec<_> = self.held.parts.iter().enumerate().map(attach).collect();
        if !reachable {
            return Ok(());
        }
        let patience = self.node().timeouts.connect;
        let all_proved =
            async { try_join_all(proofs).await.map(|proofs| proofs.into_iter().collect::<Subscription>()) };
        match tokio::time::timeout(patience, all_proved).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(reason))) => Err(Error::subscription_refused(reason)),
            Ok(Err(_)) => Err(Error::closed()),
            Err(_) if self.node().start_degraded => Ok(()),
            Err(_) => Err(Error::subscription_unproven(patience)),
        }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.claim.node
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.claim.namespace
    }

    pub(crate) fn now(&self) -> Moment {
        self.node().clock.now()
    }

    pub(crate) fn stats(&self) -> Stats {
        let now = self.now();
        let parts = &self.held.parts;
        let trusted = parts.iter().filter(|part| part.gate.trusts(now)).count();
        let mut stats = self.held.counters.snapshot(self.held.l1.len(), trusted == parts.len());
        (stats.partitions, stats.partitions_trusted) = (parts.len() as u64, trusted as u64);
        for part in parts {
            part.outbox.with(|outbox| {
                stats.outbox_keys += outbox.depth() as u64;
                let waited = outbox.oldest().map_or(Duration::ZERO, |since| now.since(since));
                stats.outbox_oldest = stats.outbox_oldest.max(waited);
                stats.outbox_overflows += outbox.overflows();
            });
        }
        stats
    }

    /// The value in L1, if there is one and it may be served.
    #[inline]
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let clock = self.node().clock;
        let (slot, read_at) = self.held.l1.get(key, || clock.now())?;
        Entry::new(slot, Tier::L1, read_at).present()
    }

    /// Whether L1 knows that there is no such thing; counted as a hit.
    pub(crate) fn l1_knows_absent(&self, key: &K, call: &CallOptions) -> bool {
        let found = self.held.l1.get(key, || self.now());
        let absent = found.is_some_and(|(slot, _)| slot.value().is_none() && call.takes(&slot));
        self.held.counters.l1_hits.add(absent.into());
        absent
    }

    /// The value in L1, counted as a hit.
    #[inline]
    pub(crate) fn l1_hit<Q>(&self, key: &Q, call: &CallOptions) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.peek(key).filter(|entry| call.takes(entry.slot()))?;
        self.held.counters.l1_hits.add(1);
        Some(entry)
    }

    /// Reads L2 and takes what it finds into L1.
    pub(crate) async fn read_l2(&self, key: &K, encoded: &Bytes) -> Result<Found<V>, Error> {
        self.read_l2_and_keep(key, encoded, |_| true).await
    }

    /// Reads L2 and takes what it finds into L1, if it is worth it.
    pub(crate) async fn read_l2_and_keep(
        &self,
        key: &K,
        encoded: &Bytes,
        is_worth_it: impl FnOnce(&Slot<V>) -> bool,
    ) -> Result<Found<V>, Error> {
        // The ticket comes first: an invalidation from here on is one that the read may have missed (race R1).
        let part = self.held.part_of(encoded);
        let ticket = part.gate.ticket(encoded);
        let wrong = part.outbox.holds(encoded);
        let snapshot = self.snapshot(part, encoded).await?;
        let opened = if wrong { None } else { self.open(&snapshot, part, ticket.generation()) };
        let found = Found { slot: opened.map(Arc::new), snapshot };
        if let Some(slot) = found.slot.as_ref().filter(|slot| is_worth_it(slot)) {
            self.held.l1.admit(key.clone(), ticket, Arc::clone(slot));
        }
        let counters = &self.held.counters;
        let counter = if found.fresh().is_some() { &counters.l2_hits } else { &counters.misses };
        counter.add(1);
        Ok(found)
    }

    /// Whether L2 holds something for the key that may be served.
    pub(crate) async fn l2_contains(&self, encoded: &Bytes, call: &CallOptions) -> Result<bool, Error> {
        let part = self.held.part_of(encoded);
        if part.outbox.holds(encoded) {
            return Ok(false);
        }
        let snapshot = self.snapshot(part, encoded).await?;
        let live = self.live(&snapshot, part, self.now());
        Ok(live.is_some_and(|Live { envelope, left, .. }| {
            envelope.header.kind == Kind::Value && left.is_fresh() && call.takes_envelope(&envelope)
        }))
    }

    async fn snapshot(&self, part: &Part, encoded: &Bytes) -> Result<Snapshot, Error> {
        let read = self.node().l2()?.read(&part.id, encoded).await;
        read.map_err(|cause: L2Error| {
            self.held.counters.l2_failures.add(1);
            Error::l2(Operation::Read, cause)
        })
    }

    /// Decodes what L2 holds; anything that cannot be served is a miss.
    fn open(&self, snapshot: &Snapshot, part: &Part, generation: u64) -> Option<Slot<V>> {
        let now = self.now();
        let bytes = snapshot.envelope.as_ref()?;
        let Live { envelope, age, left } = self.live(snapshot, part, now)?;
        let is_absent = envelope.header.kind == Kind::Absent;
        if is_absent && !left.is_fresh() {
            // Of nothing there is no stale form.
            return None;
        }
        let decoded = (!is_absent).then(|| self.codec.decode(&envelope.payload)).transpose();
        let (Ok(value), Some(validators)) = (decoded, Validators::of(&envelope)) else {
            self.held.counters.unreadable.add(1);
            return None;
        };
        let (lifetime, load_cost) = (Lifetime::of(&envelope.header), envelope.header.load_cost);
        Some(Slot {
            content: value.map_or(Content::Absent, Content::Value),
            version: envelope.stamp.version,
            age_when_taken: age,
            taken_at: now,
            life: self.options.life(now, left, lifetime, load_cost),
            partition: part.id.index(),
            generation,
            encoded_len: weight(bytes),
            validators: boxed(validators),
        })
    }

    fn live(&self, snapshot: &Snapshot, part: &Part, now: Moment) -> Option<Live> {
        let bytes = snapshot.envelope.as_ref()?;
        let Ok(envelope) = Envelope::decode(bytes) else {
            self.held.counters.unreadable.add(1);
            return None;
        };
        // Without a head, or above it, the history of the entry is over; below the floor, so is its life.
        let alive = snapshot.head?.covers(envelope.stamp.version);
        if !matches!(envelope.header.kind, Kind::Value | Kind::Absent) || !alive {
            return None;
        }
        if !self.understands(&envelope) {
            self.held.counters.unreadable.add(1);
            return None;
        }
        // The later bound of L2's time: an entry may die a round trip early here, never late.
        let now = part.remote.latest(now)?;
        let age = now.since(envelope.stamp.written_at);
        let left = Left::of(&envelope, age, now)?;
        Some(Live { envelope, age, left })
    }

    /// Compressed and tagged entries are for nodes that know what to do with them.
    fn understands(&self, envelope: &Envelope) -> bool {
        let header = &envelope.header;
        header.codec == self.codec.id()
            && header.schema == self.options.schema
            && header.compression == 0
            && header.tag_count == 0
    }
}

/// Most values have none.
pub(crate) fn boxed(validators: Validators) -> Option<Box<Validators>> {
    (validators != Validators::default()).then(|| Box::new(validators))
}

/// L1's measure of a value: the bytes that it has in L2.
pub(crate) fn weight(envelope: &Bytes) -> u32 {
    u32::try_from(envelope.len()).unwrap_or(u32::MAX)
}
