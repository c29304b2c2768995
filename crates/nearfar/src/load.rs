//! Loading: one flight per key, whose value goes to both tiers if nothing newer came meanwhile.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use nearfar_core::{Gate, Moment};

use crate::call::CallOptions;
use crate::claim::Turn;
use crate::engine::Engine;
use crate::entry::{Entry, Staleness, Tier};
use crate::error::Error;
use crate::flight::{Boarding, Departure};
use crate::key::{self, CacheKey};
use crate::loaded::Loaded;
use crate::look::{Errand, Look, Verdict, Wanted};
use crate::refresh::RefreshAhead;
use crate::wait::in_background;

/// A user's loader: of a key, given what is there already.
pub(crate) trait Load<K, V>: Send + 'static {
    fn load(
        self,
        key: K,
        previous: Option<Entry<V>>,
    ) -> impl Future<Output = Result<Loaded<V>, Error>> + Send;
}

impl<K, V, F, Fut> Load<K, V> for F
where
    F: FnOnce(K, Option<Entry<V>>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Loaded<V>, Error>> + Send,
{
    fn load(
        self,
        key: K,
        previous: Option<Entry<V>>,
    ) -> impl Future<Output = Result<Loaded<V>, Error>> + Send {
        self(key, previous)
    }
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Serves what is stale in L1 if that will do; else joins or leads the flight of the key.
    pub(crate) async fn read_or_load(
        self: &Arc<Self>,
        errand: Errand<K>,
        loader: impl Load<K, V>,
    ) -> Result<Entry<V>, Error> {
        let entry = self.answer(errand, loader).await?;
        self.held.counters.stale_hits.add(entry.staleness().is_some().into());
        Ok(entry)
    }

    async fn answer(self: &Arc<Self>, errand: Errand<K>, loader: impl Load<K, V>) -> Result<Entry<V>, Error> {
        let call = errand.wanted.call;
        if let Some(entry) = self.stale_at_once(&errand.key, &call) {
            if entry.staleness() == Some(Staleness::Revalidating) {
                self.refresh(errand, loader);
            }
            return Ok(entry);
        }
        // A flight of others may have begun before what this caller knows of. One that begins from now on has not.
        let (mut load, mut since) = (self.flight(errand.clone(), loader), Moment::default());
        loop {
            match self.board(&errand, load, since) {
                Boarding::Led(flight) => return self.wait_for(&errand, flight).await,
                Boarding::Joined(flight, unused) => {
                    self.held.counters.joined.add(1);
                    let entry = self.wait_for(&errand, flight).await?;
                    let is_loaded_since = since > Moment::default() && entry.tier() == Tier::Loader;
                    if is_loaded_since || call.takes(entry.slot()) {
                        return Ok(entry);
                    }
                    (load, since) = (unused, self.now());
                }
                Boarding::Itself => return Err(Error::loader_waits_for_itself()),
            }
        }
    }

    /// Loads in the background, unless somebody does.
    fn refresh(self: &Arc<Self>, errand: Errand<K>, loader: impl Load<K, V>) {
        let errand = Errand { wanted: Wanted { or_old: false, ..errand.wanted }, ..errand };
        let load = self.flight(errand.clone(), loader);
        if let Boarding::Led(flight) = self.board(&errand, load, Moment::default()) {
            in_background(flight);
        }
    }

    /// Joins a flight of the key that began at that moment or later, or begins one.
    fn board<F>(
        self: &Arc<Self>,
        errand: &Errand<K>,
        load: F,
        since: Moment,
    ) -> Boarding<Result<Entry<V>, Error>, F>
    where
        F: Future<Output = Result<Entry<V>, Error>> + Send + 'static,
    {
        let encoded = &errand.encoded;
        let gate = &self.held.part_of(encoded).gate;
        let departure =
            Departure { at: self.now(), generation: gate.generation(), fence: gate.height(encoded) };
        let may_join = |other: Departure| other.at >= since && self.may_join(gate, other, departure.at);
        self.held.flights.board(&errand.key, departure, may_join, load)
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

    fn flight<L: Load<K, V>>(
        self: &Arc<Self>,
        errand: Errand<K>,
        loader: L,
    ) -> impl Future<Output = Result<Entry<V>, Error>> + Send + use<K, V, L> {
        Arc::clone(self).caught(Arc::clone(self).fly(errand, loader))
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

    async fn fly(self: Arc<Self>, errand: Errand<K>, loader: impl Load<K, V>) -> Result<Entry<V>, Error> {
        let mut look = self.look(&errand).await?;
        match std::mem::replace(&mut look.verdict, Verdict::Load) {
            Verdict::Answer(entry) => {
                if entry.is_due() {
                    self.touch(&entry, &errand.key);
                }
                Ok(entry)
            }
            Verdict::Meanwhile(entry) => {
                let errand = Errand { wanted: Wanted { or_old: false, ..errand.wanted }, ..errand };
                let key = errand.key.clone();
                let landing = Arc::clone(&self).land(errand, loader, look);
                in_background(self.held.flights.go_on(&key, landing));
                Ok(entry)
            }
            Verdict::Load => self.land(errand, loader, look).await,
        }
    }

    /// Loads, and proposes the value to both tiers. If that fails, what is stale is served, if anything is.
    async fn land(
        self: Arc<Self>,
        errand: Errand<K>,
        loader: impl Load<K, V>,
        look: Look<V>,
    ) -> Result<Entry<V>, Error> {
        let (look, claim) = match self.turn(&errand, look).await? {
            Turn::Loaded(entry) => return Ok(entry),
            Turn::Load(look, claim) => (look, claim),
        };
        let stale_in_l2 = look.previous.is_some();
        let load = async {
            let Look { previous, start, .. } = look;
            let given = previous.as_ref().map(|previous| previous.entry(self.now()));
            let loaded = self.load(errand.key.clone(), given, loader).await?;
            self.fill(&errand, loaded.or(&errand.wanted.call), start, previous).await
        };
        let landed = Arc::clone(&self).caught(load).await;
        drop(claim);
        let Err(error) = landed else { return landed };
        let may_stand_in = stale_in_l2 || self.held.l1.get_stale(&errand.key, || self.now()).is_some();
        if !may_stand_in {
            return Err(error);
        }
        self.stand_in(&errand, Staleness::LoadFailed).await.ok_or(error)
    }

    async fn load(
        &self,
        key: K,
        previous: Option<Entry<V>>,
        loader: impl Load<K, V>,
    ) -> Result<Loaded<V>, Error> {
        let loaded = loader.load(key, previous).await;
        let counters = &self.held.counters;
        let counter = if loaded.is_ok() { &counters.loads } else { &counters.load_failures };
        counter.add(1);
        loaded
    }

    /// What a hit that is due brings with it: others are told that the value was read, and it is loaded again in the
    /// background, if this read is to do that and nobody does it already.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend(
        self: &Arc<Self>,
        entry: &Entry<V>,
        key: &K,
        call: CallOptions,
        loader: impl Load<K, V>,
    ) {
        self.touch(entry, key);
        if !self.claims_refresh(entry) {
            return;
        }
        // A key that cannot be encoded is not in L1.
        let Ok(encoded) = key::encode(key) else { return };
        let wanted = Wanted { or_absent: true, or_old: false, call };
        self.refresh(Errand { key: key.clone(), encoded, wanted }, loader);
    }

    pub(crate) fn claims_refresh(&self, entry: &Entry<V>) -> bool {
        let (life, now) = (entry.life(), entry.read_at());
        let draws = |ahead: RefreshAhead| ahead.draws(now, life.expires_at(), life.load_cost());
        self.options.refresh_ahead.is_some_and(draws)
            && life.claim_refresh(now, now + self.options.retry_interval)
    }

    /// Has the other nodes know that a value was read, if its lifetime depends on that and they have not just been told.
    pub(crate) fn touch(self: &Arc<Self>, entry: &Entry<V>, key: &K) {
        if !entry.life().touch(entry.read_at()) {
            return;
        }
        let Ok(encoded) = key::encode(key) else { return };
        let engine = Arc::clone(self);
        drop(tokio::spawn(async move {
            let Ok(l2) = engine.node().l2() else { return };
            let partition = &engine.held.part_of(&encoded).id;
            if l2.touch(partition, &encoded, engine.options.fence_window).await.is_err() {
                engine.held.counters.l2_failures.add(1);
            }
        }));
    }
}
