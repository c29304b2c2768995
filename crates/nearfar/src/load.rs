//! Loading: one flight per key, whose value goes to both tiers if nothing newer came meanwhile.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use nearfar_core::{EnvelopeHeader, Fill, FillOutcome, Gate, KeyWrite, Moment, Ticket, Version};

use crate::engine::{Engine, Found, weight};
use crate::entry::{Entry, Slot, Staleness, Tier};
use crate::error::Error;
use crate::flight::{Boarding, Departure};
use crate::key::{self, CacheKey};
use crate::lifetime::Left;
use crate::loaded::Loaded;
use crate::refresh::RefreshAhead;
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
    /// Whether something stale, or due to be loaded again, may be: not for who refreshes it.
    pub(crate) or_old: bool,
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
        if let Some(entry) = self.stale_at_once(&key) {
            if entry.staleness() == Some(Staleness::Revalidating)
                && let Boarding::Led(flight) =
                    self.board(&key, encoded, loader, Wanted { or_old: false, ..wanted })
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
    fn stale_at_once(&self, key: &K) -> Option<Entry<V>> {
        let (slot, now) = self.held.l1.get_stale(key, || self.now())?;
        self.excused(slot, Tier::L1, now)
    }

    /// A stale value, if it may be served without waiting for a load.
    fn excused(&self, slot: Arc<Slot<V>>, tier: Tier, now: Moment) -> Option<Entry<V>> {
        let expired_at = slot.life.expires_at();
        let why = if now < expired_at {
            // L1 does not serve it any more, but it is not stale.
            None
        } else if now < slot.life.retry_at() {
            Some(Staleness::LoadFailed)
        } else {
            let at_once = now < expired_at + self.options.stale_while_revalidate;
            at_once.then_some(Staleness::Revalidating)
        };
        why.map(|why| Entry::stale(slot, tier, now, why))
    }

    /// Whether a caller who comes now may have the value of a flight that began then (race R19). Invalidations that
    /// were heard of have retired it. While they may go unheard, it must be young enough for the bound.
    fn may_join(&self, gate: &Gate, departure: Departure, now: Moment) -> bool {
        let age = now.since(departure.at);
        let heard_of_all = gate.serves(now) || age < self.options.max_staleness;
        // What takes longer is stored nowhere, and may never come.
        let is_of_use = age < self.options.fence_window;
        // The generation last: trust that was given for forgetting is not for flights from before.
        heard_of_all && is_of_use && departure.generation == gate.generation()
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
        // What is to be loaded again is in L1 already, together with who has the right to do so.
        let is_worth_it = |slot: &Slot<V>| wanted.or_old || slot.taken_at < slot.life.refresh_from();
        let (answer, stale_in_l2, head) = match self.read_l2_and_keep(&key, &encoded, is_worth_it).await {
            Ok(Found::Fresh(entry, head)) if !wanted.or_absent && entry.is_absent() => (None, false, head),
            Ok(Found::Fresh(entry, _)) if !self.is_to_refresh(&entry, wanted) => return Ok(entry),
            Ok(Found::Fresh(entry, head)) => (Some(entry), false, head),
            Ok(Found::Stale(slot, head)) => (self.excused(slot, Tier::L2, self.now()), true, head),
            Ok(Found::Nothing(head)) => (None, false, head),
            // The load works without L2; `snapshot` has counted the failure.
            Err(error) if error.is_closed() => return Err(error),
            Err(_) => (None, false, None),
        };
        let ticket = self.held.part_of(&encoded).gate.ticket(&encoded);
        let base = head.map(|head| head.sequence);
        let start = Start { ticket, base, asked_at, fenced_until, began_at: self.now() };
        let landing = Arc::clone(&self).land(key.clone(), encoded, loader, start, stale_in_l2);
        let Some(entry) = answer.filter(|_| wanted.or_old) else { return landing.await };
        if entry.staleness() != Some(Staleness::LoadFailed) {
            in_background(self.held.flights.go_on(&key, landing));
        }
        Ok(entry)
    }

    /// Loads a value again, in the background, if this read is to do that and nobody does it already.
    #[cold]
    #[inline(never)]
    pub(crate) fn refresh_ahead<F, Fut>(self: &Arc<Self>, entry: &Entry<V>, key: &K, loader: F)
    where
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, Error>> + Send + 'static,
    {
        if !self.claims_refresh(entry) {
            return;
        }
        // A key that cannot be encoded is not in L1.
        let Ok(encoded) = key::encode(key) else { return };
        let wanted = Wanted { or_absent: true, or_old: false };
        if let Boarding::Led(flight) = self.board(key, encoded, loader, wanted) {
            in_background(flight);
        }
    }

    /// Whether a fresh value that L2 has is to be loaded again nevertheless.
    fn is_to_refresh(&self, entry: &Entry<V>, wanted: Wanted) -> bool {
        entry.may_be_due() && (!wanted.or_old || self.claims_refresh(entry))
    }

    fn claims_refresh(&self, entry: &Entry<V>) -> bool {
        let (life, now) = (entry.life(), entry.read_at());
        let draws = |ahead: RefreshAhead| ahead.draws(now, life.expires_at(), life.load_cost());
        self.options.refresh_ahead.is_some_and(draws)
            && life.claim_refresh(now, now + self.options.retry_interval)
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
        if let Some(entry) = self.stand_in_from_l1(key, why) {
            return Some(entry);
        }
        match self.read_l2(key, encoded).await.ok()? {
            Found::Fresh(entry, _) => entry.present(),
            Found::Stale(slot, _) => Some(self.standing_in(slot, Tier::L2, self.now(), why)),
            Found::Nothing(_) => None,
        }
    }

    pub(crate) fn stand_in_from_l1(&self, key: &K, why: Staleness) -> Option<Entry<V>> {
        let (slot, now) = self.held.l1.get_stale(key, || self.now())?;
        Some(self.standing_in(slot, Tier::L1, now, why))
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
        let header = EnvelopeHeader {
            load_cost: loaded_at.since(start.began_at),
            ..self.header(loaded.kind(), lifetime)
        };
        let envelope = stored.map(|_| self.envelope(&header, loaded.value.as_ref()));
        let slot = Arc::new(Slot {
            value: loaded.value,
            version: start.base.unwrap_or(Version::UNKNOWN),
            age_when_taken: Duration::ZERO,
            taken_at: loaded_at,
            life: self.options.life(loaded_at, Left::all(lifetime), lifetime.ttl, header.load_cost),
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
