//! Reading: L1 first, then L2.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::L2Error;
use nearfar_core::{Envelope, Head, Kind, Moment, Snapshot, TagMark, Tags, Ticket, Validators};

use crate::call::CallOptions;
use crate::chunks::chunks;
use crate::engine::{Engine, boxed, weight};
use crate::entry::{Content, Entry, Slot, Tier};
use crate::error::{Error, Operation};
use crate::event::Event;
use crate::holdings::Part;
use crate::key::{self, CacheKey};
use crate::lifetime::{Left, Lifetime};
use crate::log;
use crate::payload::Unreadable;
use crate::tags::{Judgement, judge_by};

/// What reading L2 found.
pub(crate) struct Found<V> {
    /// What may be served, if only as a fallback. It may be fresh that there is no such thing.
    pub(crate) slot: Option<Arc<Slot<V>>>,
    /// What stands there, and where the partition stood.
    pub(crate) snapshot: Snapshot,
    /// Whether something stands there that this node cannot read.
    pub(crate) is_unreadable: bool,
}

impl<V> Found<V> {
    /// What it is, if it is fresh.
    pub(crate) fn fresh(&self) -> Option<Entry<V>> {
        let slot = self.slot.as_ref().filter(|slot| slot.is_fresh())?;
        Some(Entry::new(Arc::clone(slot), Tier::L2, slot.taken_at))
    }
}

/// What was known of a key before L2 was asked: an invalidation from then on is one that the read may have missed (race
/// R1, and R2 for several keys).
pub(crate) struct Asked {
    pub(crate) ticket: Ticket,
    /// Whether what L2 has of it is known to be wrong.
    is_wrong: bool,
}

/// What stands under a key, for this node.
enum Seen {
    /// Nothing that may be served.
    Nothing,
    /// Something that this node cannot read.
    Unreadable,
    Live(Box<Live>),
}

/// An envelope that may be served now, if only as a fallback.
struct Live {
    envelope: Envelope,
    tags: Tags,
    /// Where the partition stood.
    head: Head,
    /// When it had that age, and so much left.
    at: Moment,
    age: Duration,
    left: Left,
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// The value in L1, if there is one and it may be served.
    #[inline]
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let clock = self.node().clock;
        let (slot, read_at) = self.held.l1.peek(key, || clock.now())?;
        Entry::new(slot, Tier::L1, read_at).present()
    }

    /// The value in L1, counted as a hit.
    #[inline]
    pub(crate) fn l1_hit<Q>(&self, key: &Q, call: &CallOptions) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let entry = self.in_l1(key, call)?.present()?;
        self.count_l1_hit(key);
        Some(entry)
    }

    /// As [`l1_hit`](Self::l1_hit), and also if L1 knows that there is no such thing.
    #[inline]
    pub(crate) fn l1_answer<Q>(&self, key: &Q, call: &CallOptions) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let entry = self.in_l1(key, call)?;
        self.count_l1_hit(key);
        Some(entry)
    }

    #[inline]
    fn in_l1<Q>(&self, key: &Q, call: &CallOptions) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if !call.reads_l1() {
            return None;
        }
        let clock = self.node().clock;
        let (slot, read_at) = self.held.l1.get(key, || clock.now())?;
        call.takes(&slot).then(|| Entry::new(slot, Tier::L1, read_at))
    }

    #[inline]
    fn count_l1_hit<Q>(&self, key: &Q)
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let counters = &self.held.counters;
        counters.l1_hits.add(1);
        if counters.outlet.is_heard() {
            self.tell_l1_hit(key);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_l1_hit<Q>(&self, key: &Q)
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        // A key that cannot be encoded is not in L1.
        let Ok(key) = key::encode(&key.to_owned()) else { return };
        self.held.counters.outlet.tell(|| Event::Hit { key, tier: Tier::L1 });
    }

    /// Reads a key in L2 and takes what it finds into L1.
    pub(crate) async fn read_l2(
        &self,
        key: &K,
        encoded: &Bytes,
        call: &CallOptions,
    ) -> Result<Found<V>, Error> {
        let part = self.held.part_of(encoded);
        let (asked, found) = self.read_part(part, &[encoded]).await?.pop().expect("one was asked for");
        if !call.skips_l1 {
            self.keep(key, asked, &found);
        }
        Ok(found)
    }

    /// Takes what was found into L1.
    pub(crate) fn keep(&self, key: &K, asked: Asked, found: &Found<V>) {
        if let Some(slot) = &found.slot {
            self.held.l1.admit(key.clone(), asked.ticket, Arc::clone(slot));
        }
    }

    /// Reads keys of one partition in L2, in one step. What it finds is returned in their order, for [`keep`](Self::keep).
    pub(crate) async fn read_part(
        &self,
        part: &Part,
        keys: &[&Bytes],
    ) -> Result<Vec<(Asked, Found<V>)>, Error> {
        let ask = |key: &&Bytes| Asked { ticket: part.gate.ticket(key), is_wrong: part.outbox.holds(key) };
        let asked: Vec<Asked> = keys.iter().map(ask).collect();
        let keys: Vec<Bytes> = keys.iter().map(|&key| key.clone()).collect();
        let snapshots = self.snapshots(part, &keys).await?;
        let now = self.now();
        let look = |(asked, snapshot): (&Asked, &Snapshot)| {
            if asked.is_wrong { Seen::Nothing } else { self.see(snapshot, part, now) }
        };
        let seen = asked.iter().zip(&snapshots).map(look).collect();
        let seen = self.heed_tags(part, seen, now).await?;
        let read = keys.iter().zip(asked).zip(snapshots.into_iter().zip(seen));
        let found = read.map(|((key, asked), (snapshot, seen))| {
            let (slot, is_unreadable) = match seen {
                Seen::Nothing => (None, false),
                Seen::Unreadable => (None, true),
                Seen::Live(live) => {
                    let slot = self.slot(key, *live, &snapshot, part, &asked.ticket);
                    slot.map_or((None, true), |slot| (slot.map(Arc::new), false))
                }
            };
            let found = Found { slot, snapshot, is_unreadable };
            self.count_l2_read(key, found.fresh().is_some());
            (asked, found)
        });
        Ok(found.collect())
    }

    fn count_l2_read(&self, key: &Bytes, is_hit: bool) {
        let counters = &self.held.counters;
        let counter = if is_hit { &counters.l2_hits } else { &counters.misses };
        counter.add(1);
        counters.outlet.tell(|| match key.clone() {
            key if is_hit => Event::Hit { key, tier: Tier::L2 },
            key => Event::Miss { key },
        });
        let (namespace, key) = (self.namespace().as_str(), self.shown(key));
        let what = if is_hit { "a hit in L2" } else { "a miss" };
        tracing::trace!(target: log::CACHE, namespace, key, "{what}");
    }

    /// Whether L2 holds something for the key that may be served.
    pub(crate) async fn l2_contains(&self, encoded: &Bytes, call: &CallOptions) -> Result<bool, Error> {
        let part = self.held.part_of(encoded);
        if part.outbox.holds(encoded) {
            return Ok(false);
        }
        let snapshots = self.snapshots(part, std::slice::from_ref(encoded)).await?;
        let now = self.now();
        let seen = snapshots.iter().map(|snapshot| self.see(snapshot, part, now)).collect();
        let seen = self.heed_tags(part, seen, now).await?;
        Ok(seen.into_iter().any(|seen| match seen {
            Seen::Live(live) => {
                live.envelope.header.kind == Kind::Value
                    && live.left.is_fresh()
                    && call.takes_envelope(&live.envelope)
            }
            Seen::Nothing | Seen::Unreadable => false,
        }))
    }

    async fn snapshots(&self, part: &Part, keys: &[Bytes]) -> Result<Vec<Snapshot>, Error> {
        self.node().l2()?;
        let reading = part.reads.ask(keys.to_vec()).await.map_err(|cause| self.unread(cause))?;
        Ok(reading.snapshots().collect())
    }

    /// Drops those of which a tag was declared wrong since they were stored, and makes stale those of which one was
    /// declared stale. L2 is asked, in one step, about tags that this node cannot know enough of.
    async fn heed_tags(&self, part: &Part, mut seen: Vec<Seen>, now: Moment) -> Result<Vec<Seen>, Error> {
        let mut unknown = Vec::new();
        for (at, place) in seen.iter_mut().enumerate() {
            let Seen::Live(entry) = place else { continue };
            if entry.tags.is_empty() {
                continue;
            }
            if part.outbox.holds_any(&entry.tags) {
                *place = Seen::Nothing;
                continue;
            }
            match part.tags.judge(&entry.tags, entry.envelope.stamp.version, entry.head) {
                Ok(judgement) => place.heed(&judgement, part, now),
                Err(epoch) => unknown.push((at, epoch)),
            }
        }
        let Some(&(_, epoch)) = unknown.first() else { return Ok(seen) };
        let tags_of = |(at, _): &(usize, u64)| match &seen[*at] {
            Seen::Live(entry) => entry.tags.iter().cloned().collect(),
            Seen::Nothing | Seen::Unreadable => Vec::new(),
        };
        let marks = self.look_up_tags(part, unknown.iter().flat_map(tags_of).collect(), epoch).await?;
        for (at, _) in unknown {
            if let Seen::Live(entry) = &seen[at] {
                let judgement = judge_by(&entry.tags, entry.envelope.stamp.version, &marks);
                seen[at].heed(&judgement, part, now);
            }
        }
        Ok(seen)
    }

    async fn look_up_tags(
        &self,
        part: &Part,
        mut tags: Vec<Bytes>,
        epoch: u64,
    ) -> Result<HashMap<Bytes, TagMark>, Error> {
        tags.sort_unstable();
        tags.dedup();
        self.held.counters.tag_lookups.add(tags.len() as u64);
        let mut known = HashMap::new();
        for tags in chunks(tags, Bytes::len) {
            let marks = self.node().l2()?.tag_marks(&part.id, &tags).await;
            let marks = marks.map_err(|cause| self.unread(cause))?;
            part.tags.learn(&tags, &marks, epoch, self.now());
            known.extend(tags.into_iter().zip(marks));
        }
        Ok(known)
    }

    /// What to tell of a read that failed.
    fn unread(&self, cause: L2Error) -> Error {
        self.held.counters.l2_failures.add(1);
        Error::l2(Operation::Read, cause)
    }

    /// Decodes what L2 holds: `None` for what is no fallback, an error for what cannot be read.
    fn slot(
        &self,
        encoded: &Bytes,
        live: Live,
        snapshot: &Snapshot,
        part: &Part,
        ticket: &Ticket,
    ) -> Result<Option<Slot<V>>, ()> {
        let Live { envelope, tags, head, at, age, left } = live;
        let is_absent = envelope.header.kind == Kind::Absent;
        if is_absent && !left.is_fresh() {
            // Of nothing there is no stale form.
            return Ok(None);
        }
        let opened = self.payloads.open(encoded, &envelope);
        let with_validators = |value| Some((value, Validators::of(&envelope)?));
        let opened = opened.and_then(|value| with_validators(value).ok_or(Unreadable::Damaged));
        let (value, validators) = opened.map_err(|why| why.count(&self.held.counters))?;
        let (lifetime, load_cost) = (Lifetime::of(&envelope.header), envelope.header.load_cost);
        let content = value.map_or(Content::Absent, Content::Value);
        Ok(Some(Slot {
            is_absent: content.is_absent(),
            content,
            version: envelope.stamp.version,
            age_when_taken: age,
            taken_at: at,
            life: self.options.life(at, left, lifetime, load_cost),
            partition: part.id.index(),
            stripe: ticket.stripe(),
            generation: ticket.generation(),
            encoded_len: snapshot.envelope.as_ref().map_or(0, weight),
            validators: boxed(validators),
            tags: part.tags.slot_tags(&tags, head.sequence),
        }))
    }

    fn see(&self, snapshot: &Snapshot, part: &Part, at: Moment) -> Seen {
        match self.live(snapshot, part, at) {
            Ok(None) => Seen::Nothing,
            Ok(Some(live)) => Seen::Live(Box::new(live)),
            Err(why) => {
                why.count(&self.held.counters);
                Seen::Unreadable
            }
        }
    }

    fn live(&self, snapshot: &Snapshot, part: &Part, at: Moment) -> Result<Option<Live>, Unreadable> {
        let Some(bytes) = &snapshot.envelope else { return Ok(None) };
        let envelope = Envelope::decode(bytes).map_err(|_| Unreadable::Damaged)?;
        // Without a head, or above it, the history of the entry is over; below the floor, so is its life.
        let Some(head) = snapshot.head.filter(|head| head.covers(envelope.stamp.version)) else {
            return Ok(None);
        };
        if !matches!(envelope.header.kind, Kind::Value | Kind::Absent) {
            return Ok(None);
        }
        self.payloads.understands(&envelope.header)?;
        let tags = Tags::of(&envelope).ok_or(Unreadable::Damaged)?;
        // The later bound of L2's time: an entry may die a round trip early here, never late.
        let Some(now) = part.remote.latest(at) else { return Ok(None) };
        let age = now.since(envelope.stamp.written_at);
        let left = Left::of(&envelope, age, now);
        Ok(left.map(|left| Live { envelope, tags, head, at, age, left }))
    }
}

impl Seen {
    /// Does to an entry what became of its tags.
    fn heed(&mut self, judgement: &Judgement, part: &Part, now: Moment) {
        let Self::Live(entry) = self else { return };
        match *judgement {
            Judgement::Alive => {}
            Judgement::Wrong => *self = Self::Nothing,
            Judgement::Stale(version) => {
                // A change has its number from L2's clock.
                let declared = Moment::from_micros(version.number());
                let since = part.remote.latest(now).map_or(Duration::ZERO, |now| now.since(declared));
                entry.left = entry.left.declared_stale(since);
            }
        }
    }
}
