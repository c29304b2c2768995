//! Loading: one flight per key, whose value goes to both tiers if nothing newer came meanwhile.

use std::any::Any;
use std::borrow::Borrow;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nearfar_core::{Gate, Moment};
use tokio::runtime::Handle;
use tracing::Instrument;

use crate::call::{CallOptions, Source};
use crate::claim::Turn;
use crate::engine::Engine;
use crate::entry::{Entry, Staleness, Tier};
use crate::error::{Error, Operation};
use crate::event::Event;
use crate::flight::{Boarding, Departure, FlightId};
use crate::key::{self, CacheKey};
use crate::loaded::Loaded;
use crate::log;
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

/// Which flights a caller may join.
#[derive(Clone, Copy)]
pub(crate) enum Flights {
    All,
    /// Those that began at this moment or later: an earlier one may have begun before what the caller knows of.
    Since(Moment),
    /// Those of others answer with something that is too old, however late they begin.
    None,
}

impl Flights {
    /// Those that may bring what a caller who arrives then asks for.
    pub(crate) fn of(call: &CallOptions, arrived: Moment) -> Self {
        if call.source == Source::Any { Self::All } else { Self::Since(arrived) }
    }

    fn include(self, departure: Moment) -> bool {
        match self {
            Self::All => true,
            Self::Since(moment) => departure >= moment,
            Self::None => false,
        }
    }

    /// Which of them are left, after one of them has brought something that would not do.
    fn narrowed<V>(self, entry: &Entry<V>, call: &CallOptions, arrived: Moment) -> Self {
        match self {
            // It is stale alone: a load runs in its place.
            flights
                if call.takes(entry.slot()) && !entry.slot().is_overtaken_by_tags() && !call.is_to_load() =>
            {
                flights
            }
            Self::All => Self::Since(arrived),
            Self::Since(_) | Self::None => Self::None,
        }
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
        let key = errand.encoded.clone();
        let entry = self.answer(errand, loader, self.now()).await?;
        self.count_if_stale(&key, &entry);
        Ok(entry)
    }

    pub(crate) fn count_if_stale(&self, key: &Bytes, entry: &Entry<V>) {
        let Some(why) = entry.staleness() else { return };
        self.held.counters.stale_hits.add(1);
        self.held.counters.outlet.tell(|| Event::StaleServed { key: key.clone(), why });
        let (namespace, key) = (self.namespace().as_str(), self.shown(key));
        tracing::debug!(target: log::CACHE, namespace, key, ?why, "something stale was served");
    }

    /// What a caller gets who has come then.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        errand: Errand<K>,
        loader: impl Load<K, V>,
        arrived: Moment,
    ) -> Result<Entry<V>, Error> {
        let call = errand.wanted.call;
        if let Some(entry) = self.stale_at_once(&errand.key, &call) {
            if entry.staleness() == Some(Staleness::Revalidating) {
                self.refresh(errand, loader);
            }
            return Ok(entry);
        }
        let mut load = self.flight(errand.clone(), loader);
        let mut flights = Flights::of(&call, arrived);
        loop {
            match self.board(&errand, FlightId::fresh(), load, flights) {
                Boarding::Led(flight) => return self.wait_for(&errand, flight, arrived).await,
                Boarding::Joined(flight, unused) => {
                    self.held.counters.joined.add(1);
                    let entry = self.wait_for(&errand, flight, arrived).await?;
                    if self.suits(&entry, flights, &call) {
                        return Ok(entry);
                    }
                    (load, flights) = (unused, flights.narrowed(&entry, &call, arrived));
                }
                Boarding::Itself => return Err(Error::loader_waits_for_itself()),
            }
        }
    }

    /// Whether what another caller's flight has brought will do.
    pub(crate) fn suits(&self, entry: &Entry<V>, flights: Flights, call: &CallOptions) -> bool {
        // A tag that it turned out to have was changed since it was begun (race R25).
        if entry.slot().is_overtaken_by_tags() || call.is_to_load() && entry.tier() != Tier::Loader {
            return false;
        }
        let was_loaded_since = matches!(flights, Flights::Since(_)) && entry.tier() == Tier::Loader;
        let may_be_stale = entry.staleness() != Some(Staleness::Revalidating)
            || entry.read_at() < entry.life().expires_at() + self.revalidation_window(call);
        may_be_stale && (was_loaded_since || call.takes(entry.slot()))
    }

    /// Loads in the background, unless somebody does.
    fn refresh(self: &Arc<Self>, errand: Errand<K>, loader: impl Load<K, V>) {
        let errand = Errand { wanted: Wanted { or_old: false, ..errand.wanted }, ..errand };
        let load = self.flight(errand.clone(), loader);
        if let Boarding::Led(flight) = self.board(&errand, FlightId::fresh(), load, Flights::All) {
            in_background(flight);
        }
    }

    /// Joins one of these flights of the key, or begins one.
    pub(crate) fn board<F>(
        self: &Arc<Self>,
        errand: &Errand<K>,
        id: FlightId,
        load: F,
        flights: Flights,
    ) -> Boarding<Result<Entry<V>, Error>, F>
    where
        F: Future<Output = Result<Entry<V>, Error>> + Send + 'static,
    {
        let encoded = &errand.encoded;
        let gate = &self.held.part_of(encoded).gate;
        let departure =
            Departure { at: self.now(), generation: gate.generation(), fence: gate.height(encoded) };
        let may_join =
            |other: Departure| flights.include(other.at) && self.may_join(gate, other, departure.at);
        self.held.flights.board(&errand.key, id, departure, may_join, load)
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

    /// Boxed here: everything that passes it on would have room for it, twice.
    fn flight(
        self: &Arc<Self>,
        errand: Errand<K>,
        loader: impl Load<K, V>,
    ) -> BoxFuture<'static, Result<Entry<V>, Error>> {
        Arc::clone(self).caught(errand.encoded.clone(), Arc::clone(self).fly(errand, loader)).boxed()
    }

    /// Turns a panic, be it in the loader or in the codec, into an error, so that those who joined are told.
    pub(crate) fn caught(
        self: Arc<Self>,
        key: Bytes,
        load: impl Future<Output = Result<Entry<V>, Error>>,
    ) -> impl Future<Output = Result<Entry<V>, Error>> {
        let or_error = move |panic: Box<dyn Any + Send>| {
            let error = Error::loader_panicked(&*panic);
            self.count_failed_loads([key.as_ref()], &error);
            Err(error)
        };
        AssertUnwindSafe(load).catch_unwind().map(|landed| landed.unwrap_or_else(or_error))
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
                let (key, encoded) = (errand.key.clone(), errand.encoded.clone());
                let landing = Arc::clone(&self).caught(encoded, Arc::clone(&self).land(errand, loader, look));
                in_background(self.held.flights.go_on(&key, landing.boxed()));
                Ok(entry)
            }
            Verdict::Load => self.land(errand, loader, look).await,
        }
    }

    /// Loads, and proposes the value to both tiers. If that fails, what is stale is served, if anything is.
    pub(crate) async fn land(
        self: Arc<Self>,
        errand: Errand<K>,
        loader: impl Load<K, V>,
        mut look: Look<V>,
    ) -> Result<Entry<V>, Error> {
        let claim = match self.turn(&errand, &mut look).await? {
            Turn::Loaded(entry) => return Ok(entry),
            Turn::Load(claim) => claim,
        };
        let (stale, start) = (look.previous, look.start);
        let has_stale = stale.is_some();
        let load = async {
            let given = stale.as_ref().map(|previous| previous.entry(self.now()));
            let found = self.load(&errand, given, loader).await?;
            self.fill(&errand, found.or(&errand.wanted.call), start, stale).await
        };
        let landed = Arc::clone(&self).caught(errand.encoded.clone(), load).await;
        drop(claim);
        match landed {
            Err(error) => self.after_failure(&errand, has_stale, error).await,
            landed => landed,
        }
    }

    /// A stale value in place of a load that failed, if there is one in L2 or in L1.
    pub(crate) async fn after_failure(
        &self,
        errand: &Errand<K>,
        has_stale: bool,
        error: Error,
    ) -> Result<Entry<V>, Error> {
        let may_stand_in = has_stale || self.held.l1.get_stale(&errand.key, || self.now()).is_some();
        if !may_stand_in {
            return Err(error);
        }
        self.stand_in(errand, Staleness::LoadFailed).await.ok_or(error)
    }

    async fn load(
        &self,
        errand: &Errand<K>,
        previous: Option<Entry<V>>,
        loader: impl Load<K, V>,
    ) -> Result<Loaded<V>, Error> {
        let (began, key) = (self.now(), &errand.encoded);
        let (namespace, shown) = (self.namespace().as_str(), self.shown(key));
        let span = tracing::debug_span!(target: log::CACHE, "load", namespace, key = shown);
        let found = loader.load(errand.key.clone(), previous).instrument(span).await;
        match &found {
            Ok(_) => self.count_loads([key.as_ref()], began),
            Err(error) => self.count_failed_loads([key.as_ref()], error),
        }
        found
    }

    /// A loader has found something for these keys.
    pub(crate) fn count_loads<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>, began: Moment) {
        let took = self.now().since(began);
        let (counters, namespace) = (&self.held.counters, self.namespace().as_str());
        #[cfg(feature = "metrics")]
        crate::metrics::loaded(namespace, took);
        for key in keys {
            counters.loads.add(1);
            counters.outlet.tell(|| Event::Loaded { key: Bytes::copy_from_slice(key), took });
            tracing::debug!(target: log::CACHE, namespace, key = self.shown(key), ?took, "loaded");
        }
    }

    pub(crate) fn count_failed_loads<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>, error: &Error) {
        let (counters, namespace) = (&self.held.counters, self.namespace().as_str());
        for key in keys {
            counters.load_failures.add(1);
            let event = || Event::LoadFailed { key: Bytes::copy_from_slice(key), error: error.clone() };
            counters.outlet.tell(event);
            // What the text of a user's error says is the user's, who is told it.
            let kind = error.kind();
            tracing::debug!(target: log::CACHE, namespace, key = self.shown(key), ?kind, "a load failed");
        }
    }

    /// What a hit that is due brings with it: others are told that the value was read, and it is loaded again in the
    /// background, if this read is to do that and nobody does it already.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend<Q>(
        self: &Arc<Self>,
        entry: &Entry<V>,
        key: &Q,
        call: CallOptions,
        loader: impl Load<K, V>,
    ) where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        self.touch(entry, key);
        if !self.takes_refresh(entry) {
            return;
        }
        let key = key.to_owned();
        // A key that cannot be encoded is not in L1.
        let Ok(encoded) = key::encode(&key) else { return };
        let wanted = Wanted { or_absent: true, or_old: false, call };
        self.refresh(Errand { key, encoded, wanted }, loader);
    }

    /// Whether this read is to have it loaded again.
    pub(crate) fn takes_refresh(&self, entry: &Entry<V>) -> bool {
        let (life, now) = (entry.life(), entry.read_at());
        let draws = |ahead: RefreshAhead| ahead.draws(now, life.expires_at(), life.load_cost());
        self.options.refresh_ahead.is_some_and(draws)
            && life.take_refresh(now, now + self.options.retry_interval)
    }

    /// Has the other nodes know that a value was read, if its lifetime depends on that and they have not just been told.
    #[cold]
    #[inline(never)]
    pub(crate) fn touch<Q>(self: &Arc<Self>, entry: &Entry<V>, key: &Q)
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        if !entry.life().touch(entry.read_at()) {
            return;
        }
        // A hit needs no runtime.
        let (Ok(encoded), Ok(runtime)) = (key::encode(&key.to_owned()), Handle::try_current()) else {
            return;
        };
        let engine = Arc::clone(self);
        drop(runtime.spawn(async move {
            // That it fails was counted.
            let _ = engine.touch_l2(&encoded).await;
        }));
    }

    /// Has L2 know that a value was read.
    pub(crate) async fn touch_l2(&self, encoded: &Bytes) -> Result<(), Error> {
        // What the others fence with must not be shortened.
        self.agree().await.map_err(|disagreement| self.disagreement(disagreement))?;
        let partition = &self.held.part_of(encoded).id;
        let touched = self.node().l2()?.touch(partition, encoded, self.options.fence_window).await;
        touched.map_err(|cause| {
            self.held.counters.l2_failures.add(1);
            Error::l2(Operation::Touch, cause)
        })
    }
}
