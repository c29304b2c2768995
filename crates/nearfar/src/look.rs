//! What is known of a key when a load of it may have to begin.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{Envelope, Moment, Ticket, Version};

use crate::call::CallOptions;
use crate::engine::Engine;
use crate::entry::{Entry, Slot, Staleness, Tier};
use crate::error::Error;
use crate::holdings::Part;
use crate::key::CacheKey;
use crate::read::{Asked, Found};

/// Which key a caller wants, and what will do.
#[derive(Clone)]
pub(crate) struct Errand<K> {
    pub(crate) key: K,
    pub(crate) encoded: Bytes,
    pub(crate) wanted: Wanted,
}

/// What will do for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether it is an answer that there is no such thing.
    pub(crate) or_absent: bool,
    /// Whether something stale, or due to be loaded again, may be: not for who refreshes it.
    pub(crate) or_old: bool,
    pub(crate) call: CallOptions,
}

/// What L2 was found to have.
pub(crate) struct Look<V> {
    pub(crate) verdict: Verdict<V>,
    pub(crate) previous: Option<Previous<V>>,
    pub(crate) start: Start,
}

/// What the loader is told of: it may be stale, but is not known to be wrong.
pub(crate) struct Previous<V> {
    pub(crate) slot: Arc<Slot<V>>,
    /// The envelope in L2 that has it; `None` if only L1 could be asked.
    pub(crate) stored: Option<Bytes>,
}

impl<V> Previous<V> {
    pub(crate) fn entry(&self, now: Moment) -> Entry<V> {
        let (slot, tier) = (Arc::clone(&self.slot), if self.stored.is_some() { Tier::L2 } else { Tier::L1 });
        if now < slot.life.expires_at() {
            Entry::new(slot, tier, now)
        } else {
            Entry::stale(slot, tier, now, Staleness::Revalidating)
        }
    }
}

/// What it means for who looked.
pub(crate) enum Verdict<V> {
    /// This will do.
    Answer(Entry<V>),
    /// This will do, while it is loaded again in the background.
    Meanwhile(Entry<V>),
    Load,
}

/// What is known of a load when it begins.
pub(crate) struct Start {
    pub(crate) ticket: Ticket,
    /// The partition's sequence before the load; `None` if L2 could not say.
    pub(crate) base: Option<Version>,
    /// What stood in L2 then, see [`Envelope::identity`].
    pub(crate) seen: Bytes,
    /// When L2 was asked, or a moment before.
    pub(crate) asked_at: Moment,
    /// Until when, on L2's clock, a tombstone from since then is there for certain. Reckoned when L2 was asked: what
    /// is learnt of its clock later would say something else.
    pub(crate) fenced_until: Option<Moment>,
    pub(crate) began_at: Moment,
    /// Changes of tags up to here are known to the load.
    pub(crate) tags_as_of: Version,
}

/// Expiry in Redis has milliseconds, and deadlines have microseconds; a fill must not slip in between.
const ROUNDING: Duration = Duration::from_millis(2);

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Looks into L2, for something that will do or for where a load begins.
    pub(crate) async fn look(&self, errand: &Errand<K>) -> Result<Look<V>, Error> {
        let part = self.held.part_of(&errand.encoded);
        Ok(self.look_part(part, &[errand]).await?.pop().expect("one was looked for"))
    }

    /// The same for keys of one partition, in one step.
    pub(crate) async fn look_part(&self, part: &Part, errands: &[&Errand<K>]) -> Result<Vec<Look<V>>, Error> {
        let asked_at = self.now();
        let window = self.options.fence_window.saturating_sub(ROUNDING);
        let fenced_until = part.remote.earliest(asked_at).map(|asked_at| asked_at + window);
        let keys: Vec<&Bytes> = errands.iter().map(|errand| &errand.encoded).collect();
        let found = match self.read_part(part, &keys).await {
            Ok(found) => found.into_iter().map(Some).collect(),
            // The load works without L2; the failure was counted.
            Err(error) if !error.is_closed() => errands.iter().map(|_| None).collect::<Vec<_>>(),
            Err(error) => return Err(error),
        };
        let began_at = self.now();
        let look = |(errand, found): (&&Errand<K>, _)| {
            let start = Start {
                ticket: part.gate.ticket(&errand.encoded),
                base: None,
                seen: Bytes::new(),
                asked_at,
                fenced_until,
                began_at,
                tags_as_of: part.tags.applied(),
            };
            match found {
                Some((asked, found)) => self.look_at(errand, part, asked, found, start),
                None => self.look_without_l2(errand, start),
            }
        };
        Ok(errands.iter().zip(found).map(look).collect())
    }

    fn look_without_l2(&self, errand: &Errand<K>, start: Start) -> Look<V> {
        let in_l1 = self.held.l1.get_stale(&errand.key, || self.now());
        let previous = in_l1.map(|(slot, _)| Previous { slot, stored: None });
        Look { verdict: Verdict::Load, previous, start }
    }

    fn look_at(
        &self,
        errand: &Errand<K>,
        part: &Part,
        asked: Asked,
        found: Found<V>,
        start: Start,
    ) -> Look<V> {
        let Errand { key, wanted, .. } = errand;
        // Not what was invalidated while it was read.
        let may_be_true =
            |slot: &Arc<Slot<V>>| slot.value().is_some() && part.gate.admits(&asked.ticket, slot.version);
        let previous_slot = found.slot.clone().filter(may_be_true);
        // What is to be loaded again is in L1 already, together with who has the right to do so.
        let is_worth_it = |slot: &Arc<Slot<V>>| wanted.or_old || slot.taken_at < slot.life.refresh_from();
        if !wanted.call.skips_l1 && found.slot.as_ref().is_some_and(is_worth_it) {
            self.keep(key, asked, &found);
        }
        let Found { slot, snapshot, .. } = found;
        let base = snapshot.head.map(|head| head.sequence);
        let stored = snapshot.envelope;
        let seen =
            stored.as_ref().map_or_else(Bytes::new, |bytes| bytes.slice_ref(Envelope::identity(bytes)));
        let start = Start { base, seen, tags_as_of: base.unwrap_or(start.tags_as_of), ..start };
        let verdict = self.judge(slot.as_ref(), *wanted);
        let previous = previous_slot.map(|slot| Previous { slot, stored });
        Look { verdict, previous, start }
    }

    fn judge(&self, slot: Option<&Arc<Slot<V>>>, wanted: Wanted) -> Verdict<V> {
        let Some(slot) = slot.filter(|slot| wanted.call.takes_cached(slot)) else { return Verdict::Load };
        if !slot.is_fresh() {
            let entry = self.excused(Arc::clone(slot), Tier::L2, self.now(), &wanted.call);
            return match entry.filter(|_| wanted.or_old) {
                Some(entry) if entry.staleness() == Some(Staleness::LoadFailed) => Verdict::Answer(entry),
                Some(entry) => Verdict::Meanwhile(entry),
                None => Verdict::Load,
            };
        }
        let entry = Entry::new(Arc::clone(slot), Tier::L2, slot.taken_at);
        if entry.is_absent() && !wanted.or_absent {
            Verdict::Load
        } else if !entry.is_due() || !self.is_to_refresh(&entry, wanted) {
            Verdict::Answer(entry)
        } else if wanted.or_old {
            Verdict::Meanwhile(entry)
        } else {
            Verdict::Load
        }
    }

    /// Whether a fresh value that L2 has is to be loaded again nevertheless.
    fn is_to_refresh(&self, entry: &Entry<V>, wanted: Wanted) -> bool {
        let is_due = entry.read_at() >= entry.life().refresh_from();
        is_due && (!wanted.or_old || self.takes_refresh(entry))
    }

    /// What L1 has, if it is stale and may be served without waiting for a load.
    pub(crate) fn stale_at_once(&self, key: &K, call: &CallOptions) -> Option<Entry<V>> {
        if !call.reads_l1() {
            return None;
        }
        let (slot, now) = self.held.l1.get_stale(key, || self.now())?;
        self.excused(slot, Tier::L1, now, call).filter(|entry| call.takes(entry.slot()))
    }

    /// A stale value, if it may be served without waiting for a load.
    fn excused(&self, slot: Arc<Slot<V>>, tier: Tier, now: Moment, call: &CallOptions) -> Option<Entry<V>> {
        let expired_at = slot.life.expires_at();
        let window = self.revalidation_window(call);
        let why = if now < expired_at {
            // L1 does not serve it any more, but it is not stale.
            None
        } else if now < slot.life.retry_at() {
            Some(Staleness::LoadFailed)
        } else {
            (now < expired_at + window).then_some(Staleness::Revalidating)
        };
        why.map(|why| Entry::stale(slot, tier, now, why))
    }

    pub(crate) fn revalidation_window(&self, call: &CallOptions) -> Duration {
        call.stale_while_revalidate.unwrap_or(self.options.stale_while_revalidate)
    }

    /// What may be served in place of a loaded value: what was invalidated since the load began is not.
    pub(crate) async fn stand_in(&self, errand: &Errand<K>, why: Staleness) -> Option<Entry<V>> {
        if let Some(entry) = self.stand_in_from_l1(errand, why) {
            return Some(entry);
        }
        let slot = self.read_l2(&errand.key, &errand.encoded, &errand.wanted.call).await.ok()?.slot?;
        let tier = Tier::L2;
        let entry = if slot.is_fresh() {
            Entry::new(slot, tier, self.now()).present()?
        } else {
            self.standing_in(slot, tier, self.now(), why)
        };
        Some(entry).filter(|entry| errand.wanted.call.takes(entry.slot()))
    }

    pub(crate) fn stand_in_from_l1(&self, errand: &Errand<K>, why: Staleness) -> Option<Entry<V>> {
        let (slot, now) = self.held.l1.get_stale(&errand.key, || self.now())?;
        errand.wanted.call.takes(&slot).then(|| self.standing_in(slot, Tier::L1, now, why))
    }

    fn standing_in(&self, slot: Arc<Slot<V>>, tier: Tier, now: Moment, why: Staleness) -> Entry<V> {
        if now < slot.life.expires_at() {
            return Entry::new(slot, tier, now);
        }
        if why == Staleness::LoadFailed {
            slot.life.retry_not_before(now + self.options.retry_interval);
        }
        Entry::stale(slot, tier, now, why)
    }
}
