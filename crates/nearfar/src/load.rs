//! Loading: one flight per key, whose value goes to both tiers if nothing newer came meanwhile.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use nearfar_core::{EnvelopeHeader, Fill, FillOutcome, Gate, KeyWrite, Kind, Moment, Ticket, Version};

use crate::engine::{Engine, Found, weight};
use crate::entry::{Entry, Slot, Staleness, Tier};
use crate::error::Error;
use crate::flight::{Boarding, Departure};
use crate::key::CacheKey;
use crate::lifetime::{Left, Life};
use crate::loaded::Loaded;
use crate::wait::in_background;

/// What is known of a load when it begins.
struct Start {
    ticket: Ticket,
    /// The partition's sequence before the load; `None` if L2 could not say.
    base: Option<Version>,
    /// When L2 was asked for the base, or a moment before.
    asked_at: Moment,
    /// Until when, on L2's clock, a tombstone from since then is there for certain. Reckoned when L2 was asked: what
    /// is learnt of its clock later would say something else.
    fenced_until: Option<Moment>,
    began_at: Moment,
}

/// What will do for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether it is an answer that there is no such thing.
    pub(crate) or_absent: bool,
    /// Whether something stale may be: not for who refreshes it.
    pub(crate) or_stale: bool,
}

/// Expiry in Redis has milliseconds, and deadlines have microseconds; a fill must not slip in between.
const ROUNDING: Duration = Duration::from_millis(2);

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Serves what is stale in L1 if that will do; else joins or leads the flight of the key.
    pub(crate) async fn read_or_load<F, Fut>(
        self: &Arc<Self>,
        key: K,
        encoded: Bytes,
        loader: F,
        wanted: Wanted,
    ) -> Result<Entry<V>, Error>
    where
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, Error>> + Send + 'static,
    {
        let entry = self.answer(key, encoded, loader, wanted).await?;
        self.held.counters.stale_hits.add(entry.staleness().is_some().into());
        Ok(entry)
    }

    async fn answer<F, Fut>(
        self: &Arc<Self>,
        key: K,
        encoded: Bytes,
        loader: F,
        wanted: Wanted,
    ) -> Result<Entry<V>, Error>
    where
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, Error>> + Send + 'static,
    {
        if let Some((entry, why)) = self.stale_at_once(&key) {
            if why == Staleness::Revalidating
                && let Boarding::Led(flight) =
                    self.board(&key, encoded, loader, Wanted { or_stale: false, ..wanted })
            {
                in_background(flight);
            }
            return Ok(entry);
        }
        match self.board(&key, encoded.clone(), loader, wanted) {
            Boarding::Led(flight) => self.wait_for(&key, &encoded, flight).await,
            Boarding::Joined(flight) => {
                self.held.counters.joined.add(1);
                self.wait_for(&key, &encoded, flight).await
            }
            Boarding::Itself => Err(Error::loader_waits_for_itself()),
        }
    }

    fn board<F, Fut>(
        self: &Arc<Self>,
        key: &K,
        encoded: Bytes,
        loader: F,
        wanted: Wanted,
    ) -> Boarding<Result<Entry<V>, Error>>
    where
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, Error>> + Send + 'static,
    {
        let gate = Arc::clone(&self.held.part_of(&encoded).gate);
        let departure =
            Departure { at: self.now(), generation: gate.generation(), fence: gate.height(&encoded) };
        let may_join = |other: Departure| self.may_join(&gate, other, departure.at);
        let load = Arc::clone(self).caught(Arc::clone(self).fly(key.clone(), encoded, loader, wanted));
        self.held.flights.board(key, departure, may_join, load)
    }

    /// What L1 has, if it is stale and may be served without waiting for a load.
    fn stale_at_once(&self, key: &K) -> Option<(Entry<V>, Staleness)> {
        let (slot, now) = self.held.l1.get_stale(key, || self.now())?;
        let why = self.excuse(&slot, now)?;
        Some((Entry::stale(slot, Tier::L1, now, why), why))
    }

    /// Why a stale value may be served without waiting for a load, if it may.
    fn excuse(&self, slot: &Slot<V>, now: Moment) -> Option<Staleness> {
        let expired_at = slot.life.expires_at();
        if now < expired_at {
            // L1 does not serve it any more, but it is not stale.
            return None;
        }
        if now < slot.life.retry_at() {
            return Some(Staleness::LoadFailed);
        }
        let at_once = now < expired_at + self.options.stale_while_revalidate;
        at_once.then_some(Staleness::Revalidating)
    }

    /// Whether a caller who comes now may have the value of a flight that began then (race R19). Invalidations that
    /// were heard of have retired it. While they may go unheard, it must be young enough for the bound.
    fn may_join(&self, gate: &Gate, departure: Departure, now: Moment) -> bool {
        let heard_of_all = gate.serves(now) || now.since(departure.at) < self.options.max_staleness;
        // The generation last: trust that was given for forgetting is not for flights from before.
        heard_of_all && departure.generation == gate.generation()
    }

    /// Turns a panic, be it in the loader or in the codec, into an error, so that those who joined are told.
    async fn caught(
        self: Arc<Self>,
        load: impl Future<Output = Result<Entry<V>, Error>>,
    ) -> Result<Entry<V>, Error> {
        AssertUnwindSafe(load).catch_unwind().await.unwrap_or_else(|panic| {
            self.held.counters.load_failures.add(1);
            Err(Error::loader_panicked(&*panic))
        })
    }

    async fn fly<F, Fut>(
        self: Arc<Self>,
        key: K,
        encoded: Bytes,
        loader: F,
        wanted: Wanted,
    ) -> Result<Entry<V>, Error>
    where
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, Error>> + Send + 'static,
    {
        let asked_at = self.now();
        let window = self.options.fence_window.saturating_sub(ROUNDING);
        let remote = &self.held.part_of(&encoded).remote;
        let fenced_until = remote.earliest(asked_at).map(|asked_at| asked_at + window);
        let (stale, head) = match self.read_l2(&key, &encoded).await {
            Ok(Found::Fresh(entry, head)) if !wanted.or_absent && entry.is_absent() => (None, head),
            Ok(Found::Fresh(entry, _)) => return Ok(entry),
            Ok(Found::Stale(slot, head)) => (Some(slot), head),
            Ok(Found::Nothing(head)) => (None, head),
            // The load works without L2; `snapshot` has counted the failure.
            Err(error) if error.is_closed() => return Err(error),
            Err(_) => (None, None),
        };
        let ticket = self.held.part_of(&encoded).gate.ticket(&encoded);
        let base = head.map(|head| head.sequence);
        let start = Start { ticket, base, asked_at, fenced_until, began_at: self.now() };
        let in_l2 = stale.is_some();
        let landing = Arc::clone(&self).land(key.clone(), encoded, loader, start, in_l2);
        let now = self.now();
        let answer = stale.filter(|_| wanted.or_stale);
        let Some((slot, why)) = answer.and_then(|slot| self.excuse(&slot, now).map(|why| (slot, why))) else {
            return landing.await;
        };
        if why == Staleness::Revalidating {
            in_background(self.held.flights.go_on(&key, landing));
        }
        Ok(Entry::stale(slot, Tier::L2, now, why))
    }

    /// Loads, and proposes the value to both tiers. If that fails, what is stale is served, if anything is.
    async fn land<F, Fut>(
        self: Arc<Self>,
        key: K,
        encoded: Bytes,
        loader: F,
        start: Start,
        stale_in_l2: bool,
    ) -> Result<Entry<V>, Error>
    where
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, Error>> + Send + 'static,
    {
        let load = async {
            let found = self.load(key.clone(), loader).await?;
            Ok(self.fill(key.clone(), encoded.clone(), found, start).await)
        };
        match Arc::clone(&self).caught(load).await {
            Err(error) if stale_in_l2 || self.held.l1.get_stale(&key, || self.now()).is_some() => {
                self.stand_in(&key, &encoded, Staleness::LoadFailed).await.ok_or(error)
            }
            landed => landed,
        }
    }

    /// What may be served in place of a loaded value: what was invalidated since the load began is not.
    pub(crate) async fn stand_in(&self, key: &K, encoded: &Bytes, why: Staleness) -> Option<Entry<V>> {
        let (slot, tier, now) = match self.held.l1.get_stale(key, || self.now()) {
            Some((slot, now)) => (slot, Tier::L1, now),
            None => match self.read_l2(key, encoded).await.ok()? {
                Found::Fresh(entry, _) => return entry.present(),
                Found::Stale(slot, _) => (slot, Tier::L2, self.now()),
                Found::Nothing(_) => return None,
            },
        };
        if now < slot.life.expires_at() {
            return Some(Entry::new(slot, tier, now));
        }
        if why == Staleness::LoadFailed {
            slot.life.retry_not_before(now + self.options.retry_interval);
        }
        Some(Entry::stale(slot, tier, now, why))
    }

    async fn load<F, Fut>(&self, key: K, loader: F) -> Result<Loaded<V>, Error>
    where
        F: FnOnce(K) -> Fut + Send,
        Fut: Future<Output = Result<Loaded<V>, Error>> + Send,
    {
        let found = loader(key).await;
        let counters = &self.held.counters;
        let counter = if found.is_ok() { &counters.loads } else { &counters.load_failures };
        counter.add(1);
        found
    }

    /// Proposes what was loaded to both tiers. The caller gets it in any case (race R18).
    async fn fill(&self, key: K, encoded: Bytes, loaded: Loaded<V>, start: Start) -> Entry<V> {
        let loaded_at = self.now();
        let stored = self.options.lifetime_of_loaded(&loaded);
        let lifetime = stored.unwrap_or_else(|| self.options.lifetime());
        let kind = if loaded.value.is_some() { Kind::Value } else { Kind::Absent };
        let header =
            EnvelopeHeader { load_cost: loaded_at.since(start.began_at), ..self.header(kind, lifetime) };
        let envelope = stored.map(|_| self.envelope(&header, loaded.value.as_ref()));
        let slot = Arc::new(Slot {
            value: loaded.value,
            version: start.base.unwrap_or(Version::UNKNOWN),
            age_when_taken: Duration::ZERO,
            taken_at: loaded_at,
            life: Life::new(loaded_at, Left::all(lifetime), self.options.l1_ttl),
            partition: self.held.part_of(&encoded).id.index(),
            generation: start.ticket.generation(),
            encoded_len: envelope.as_ref().and_then(|envelope| envelope.as_ref().ok()).map_or(0, weight),
        });
        let entry = Entry::new(Arc::clone(&slot), Tier::Loader, loaded_at);
        let envelope = match envelope {
            Some(Ok(envelope)) => envelope,
            Some(Err(_)) => {
                self.held.counters.unstorable.add(1);
                return entry;
            }
            None => return entry,
        };
        let write = KeyWrite { key: encoded, envelope, keep: self.options.keep(lifetime) };
        if self.fill_l2(write, &start).await {
            self.held.l1.admit(key, start.ticket, slot);
        } else {
            self.held.counters.fills_refused.add(1);
        }
        entry
    }

    /// Whether the value may go to L1 as well: not if L2 knows of something newer, or the load outlasted its fence.
    async fn fill_l2(&self, write: KeyWrite, start: &Start) -> bool {
        if self.now().since(start.asked_at) >= self.options.fence_window {
            return false;
        }
        let (Some(base), Some(deadline)) = (start.base, start.fenced_until) else { return true };
        if self.agree().await.is_err() {
            return true;
        }
        let Ok(l2) = self.node().l2() else { return false };
        let partition = &self.held.part_of(&write.key).id;
        match l2.fill(partition, Fill { write, base, deadline }).await {
            Ok(FillOutcome::Stored) => true,
            Ok(FillOutcome::Refused | FillOutcome::Late) => false,
            // L2 has it or not; the ticket decides about L1.
            Err(_) => {
                self.held.counters.l2_failures.add(1);
                true
            }
        }
    }
}
