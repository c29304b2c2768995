//! Several keys in one call: what L1 lacks is read in one step per partition, and what L2 lacks is loaded in one call.
//!
//! Each key has a flight of its own, which others may join and which joins others, as if it were alone; those that a call
//! leads share one trip. Who is refused what a batch brings (it is stale, or too old for the call) goes on alone.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join, join_all};
use nearfar_core::Moment;
use tokio::sync::oneshot;

use crate::call::CallOptions;
use crate::chunks::chunks;
use crate::claim::{ClaimGuard, Claimed};
use crate::engine::Engine;
use crate::entry::{Entry, Staleness};
use crate::error::Error;
use crate::fill::Candidate;
use crate::flight::{Boarding, Flight, FlightId};
use crate::holdings::Part;
use crate::key::CacheKey;
use crate::load::{Flights, Load};
use crate::loaded::Loaded;
use crate::look::{Errand, Look, Verdict, Wanted};
use crate::read::{Asked, Found};
use crate::wait::{Share, in_background};

/// A user's loader of several keys. What it does not name is not there.
pub(crate) type LoadMany<K, V> =
    Arc<dyn Fn(Vec<K>) -> BoxFuture<'static, Result<HashMap<K, Loaded<V>>, Error>> + Send + Sync>;

/// A key on a trip. Each lands as soon as it is known what becomes of it: nobody waits for what others have loaded.
struct Passenger<K, V> {
    errand: Errand<K>,
    landing: oneshot::Sender<Result<Entry<V>, Error>>,
}

/// A key with its encoded form, and its place among those that were asked for.
type Placed<K> = (usize, (K, Bytes));

/// One that is to be loaded.
type Wanting<K, V> = (Passenger<K, V>, Look<V>);

impl<K, V> Passenger<K, V> {
    fn lands(self, landed: Result<Entry<V>, Error>) {
        // Whoever wanted it may have gone.
        let _ = self.landing.send(landed);
    }
}

/// The flight of one key on a trip, which it helps to drive.
async fn share<V>(
    trip: Flight<Result<(), Error>>,
    mut landed: oneshot::Receiver<Result<Entry<V>, Error>>,
) -> Result<Entry<V>, Error> {
    let ended = tokio::select! {
        biased;
        Ok(entry) = &mut landed => return entry,
        ended = trip => ended,
    };
    // It may have landed with the end of the trip, or gone down with it.
    landed.try_recv().unwrap_or_else(|_| Err(ended.err().unwrap_or_else(Error::closed)))
}

/// How far a key is.
enum Progress<V> {
    Done(Result<Entry<V>, Error>),
    Waits(Share<V>),
    /// It waits for a flight of others, which may bring what will not do.
    Joined(Share<V>),
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Reads keys of L2, in one step per partition, and takes what it finds into L1. The answers come in the order of the keys.
    pub(crate) async fn read_l2_many(
        self: &Arc<Self>,
        keys: Vec<(K, Bytes)>,
        call: &CallOptions,
    ) -> Vec<Result<Option<Entry<V>>, Error>> {
        let count = keys.len();
        let placed = keys.into_iter().enumerate().collect();
        let read = |(part, keys)| self.read_step(part, keys, call);
        let read = join_all(self.steps(placed, |(_, (_, encoded))| encoded).into_iter().map(read)).await;
        let mut answers: Vec<_> = (0..count).map(|_| None).collect();
        for (place, answer) in read.into_iter().flatten() {
            answers[place] = Some(answer);
        }
        answers.into_iter().map(|answer| answer.expect("each was asked for in some step")).collect()
    }

    async fn read_step(
        self: &Arc<Self>,
        part: &Part,
        keys: Vec<Placed<K>>,
        call: &CallOptions,
    ) -> Vec<(usize, Result<Option<Entry<V>>, Error>)> {
        let encoded: Vec<&Bytes> = keys.iter().map(|(_, (_, encoded))| encoded).collect();
        let found = match self.read_part(part, &encoded).await {
            Ok(found) => found,
            Err(error) => return keys.into_iter().map(|(place, _)| (place, Err(error.clone()))).collect(),
        };
        let take = |((place, (key, _)), (asked, found)): (Placed<K>, (Asked, Found<V>))| {
            if !call.skips_l1 {
                self.keep(&key, asked, &found);
            }
            let entry = found.fresh().filter(|entry| call.takes_cached(entry.slot()));
            if let Some(entry) = entry.as_ref().filter(|entry| entry.is_due()) {
                self.touch(entry, &key);
            }
            (place, Ok(entry.and_then(Entry::present)))
        };
        keys.into_iter().zip(found).map(take).collect()
    }

    /// What is to be done about keys, by partition, in steps that are not too large.
    fn steps<T>(&self, keys: Vec<T>, encoded: impl Fn(&T) -> &Bytes) -> Vec<(&Part, Vec<T>)> {
        let steps = self.held.by_part(keys, &encoded).flat_map(|(part, keys)| {
            chunks(keys, |key| encoded(key).len()).into_iter().map(move |chunk| (part, chunk))
        });
        steps.collect()
    }

    /// Finds or loads keys that L1 has no fresh value of.
    pub(crate) async fn read_or_load_many(
        self: &Arc<Self>,
        errands: Vec<Errand<K>>,
        loader: LoadMany<K, V>,
    ) -> HashMap<K, Result<Entry<V>, Error>> {
        let arrived = self.now();
        let mut refresh = Vec::new();
        let mut progress = Vec::new();
        let mut absent = Vec::new();
        for errand in errands {
            match self.stale_at_once(&errand.key, &errand.wanted.call) {
                Some(entry) => {
                    if entry.staleness() == Some(Staleness::Revalidating) {
                        refresh.push(errand.clone());
                    }
                    progress.push((errand, Progress::Done(Ok(entry))));
                }
                None => absent.push(errand),
            }
        }
        self.refresh_many(refresh, &loader, None);
        progress.extend(self.board_many(absent, &loader, |errand| Flights::of(&errand.wanted.call, arrived)));
        let landed = progress.into_iter().map(|(errand, progress)| {
            let key = errand.key.clone();
            Box::pin(self.see_to(errand, progress, arrived, &loader)).map(|entry| (key, entry))
        });
        join_all(landed).await.into_iter().collect()
    }

    async fn see_to(
        self: &Arc<Self>,
        errand: Errand<K>,
        progress: Progress<V>,
        arrived: Moment,
        loader: &LoadMany<K, V>,
    ) -> Result<Entry<V>, Error> {
        let key = errand.encoded.clone();
        let entry = match progress {
            Progress::Done(outcome) => outcome?,
            Progress::Waits(flight) => self.wait_for(&errand, flight, arrived).await?,
            Progress::Joined(flight) => {
                self.held.counters.joined.add(1);
                let entry = self.wait_for(&errand, flight, arrived).await?;
                let call = errand.wanted.call;
                if self.suits(&entry, Flights::of(&call, arrived), &call) {
                    entry
                } else {
                    self.answer(errand, one_of(loader), arrived).await?
                }
            }
        };
        self.count_if_stale(&key, &entry);
        Ok(entry)
    }

    /// Has keys loaded again in the background. Not those that others are loading, unless these are of a flight from
    /// before.
    pub(crate) fn refresh_many(
        self: &Arc<Self>,
        errands: Vec<Errand<K>>,
        loader: &LoadMany<K, V>,
        since: Option<Moment>,
    ) {
        if errands.is_empty() {
            return;
        }
        let anew = |errand: Errand<K>| Errand { wanted: Wanted { or_old: false, ..errand.wanted }, ..errand };
        let flights = since.map_or(Flights::All, Flights::Since);
        for (_, progress) in self.board_many(errands.into_iter().map(anew).collect(), loader, |_| flights) {
            if let Progress::Waits(flight) = progress {
                in_background(flight);
            }
        }
    }

    /// Joins the flights that these keys have, and begins one trip for the others.
    fn board_many(
        self: &Arc<Self>,
        errands: Vec<Errand<K>>,
        loader: &LoadMany<K, V>,
        flights: impl Fn(&Errand<K>) -> Flights,
    ) -> Vec<(Errand<K>, Progress<V>)> {
        // Which keys are its own shows only when all have boarded.
        let (tell, told) = oneshot::channel::<Vec<Passenger<K, V>>>();
        let (engine, loader, id) = (Arc::clone(self), Arc::clone(loader), FlightId::fresh());
        let trip: Flight<Result<(), Error>> = Flight::private(id, async move {
            let passengers = told.await.unwrap_or_default();
            let flown = AssertUnwindSafe(engine.fly_many(passengers, &loader)).catch_unwind().await;
            flown.map_err(|panic| Error::loader_panicked(&*panic))
        });
        let (mut led, mut progress) = (Vec::new(), Vec::new());
        for errand in errands {
            let (landing, landed) = oneshot::channel();
            let boarded = match self.board(&errand, id, share(trip.clone(), landed), flights(&errand)) {
                Boarding::Led(flight) => {
                    led.push(Passenger { errand: errand.clone(), landing });
                    Progress::Waits(flight)
                }
                Boarding::Joined(flight, _unused) => Progress::Joined(flight),
                Boarding::Itself => Progress::Done(Err(Error::loader_waits_for_itself())),
            };
            progress.push((errand, boarded));
        }
        // Nobody waits for a trip without keys.
        let _ = tell.send(led);
        progress
    }

    async fn fly_many(self: Arc<Self>, passengers: Vec<Passenger<K, V>>, loader: &LoadMany<K, V>) {
        let began = self.now();
        let look = |(part, passengers)| self.look_step(part, passengers);
        let steps = self.steps(passengers, |passenger| &passenger.errand.encoded);
        let looks = join_all(steps.into_iter().map(look)).await;
        let (mut wanting, mut refresh) = (Vec::new(), Vec::new());
        for (passenger, look) in looks.into_iter().flatten() {
            match look.map(|mut look| (std::mem::replace(&mut look.verdict, Verdict::Load), look)) {
                Err(error) => passenger.lands(Err(error)),
                Ok((Verdict::Answer(entry), _)) => {
                    if entry.is_due() {
                        self.touch(&entry, &passenger.errand.key);
                    }
                    passenger.lands(Ok(entry));
                }
                Ok((Verdict::Meanwhile(entry), _)) => {
                    refresh.push(passenger.errand.clone());
                    passenger.lands(Ok(entry));
                }
                Ok((Verdict::Load, look)) => wanting.push((passenger, look)),
            }
        }
        // Not by joining the very flights that this trip lands.
        self.refresh_many(refresh, loader, Some(began + Duration::from_micros(1)));
        self.land_many(wanting, loader).await;
    }

    async fn look_step(
        &self,
        part: &Part,
        passengers: Vec<Passenger<K, V>>,
    ) -> Vec<(Passenger<K, V>, Result<Look<V>, Error>)> {
        let errands: Vec<&Errand<K>> = passengers.iter().map(|passenger| &passenger.errand).collect();
        match self.look_part(part, &errands).await {
            Ok(looks) => passengers.into_iter().zip(looks.into_iter().map(Ok)).collect(),
            Err(error) => passengers.into_iter().map(|passenger| (passenger, Err(error.clone()))).collect(),
        }
    }

    /// Loads, in one call, what no other node is loading; the rest one by one, as those let them.
    async fn land_many(self: &Arc<Self>, wanting: Vec<Wanting<K, V>>, loader: &LoadMany<K, V>) {
        let claimed = join_all(wanting.into_iter().map(|(passenger, look)| async move {
            let claimed = self.claim(&passenger.errand, &look).await;
            (passenger, look, claimed)
        }));
        let (mut own, mut guards, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (passenger, look, claimed) in claimed.await {
            match claimed {
                Claimed::Granted(guard) => {
                    guards.push(guard);
                    own.push((passenger, look));
                }
                Claimed::Unasked => own.push((passenger, look)),
                Claimed::Held { .. } | Claimed::Overtaken => others.push((passenger, look)),
            }
        }
        let others = others.into_iter().map(|(passenger, look)| {
            let landing = Box::pin(Arc::clone(self).land(passenger.errand.clone(), one_of(loader), look));
            landing.map(|landed| passenger.lands(landed))
        });
        join(self.load_many(own, guards, loader), join_all(others)).await;
    }

    /// Loads in one call, and proposes the values to both tiers. If that fails, what is stale is served, if anything is.
    async fn load_many(
        self: &Arc<Self>,
        wanting: Vec<Wanting<K, V>>,
        claims: Vec<ClaimGuard>,
        loader: &LoadMany<K, V>,
    ) {
        if wanting.is_empty() {
            return;
        }
        let keys: Vec<K> = wanting.iter().map(|(passenger, _)| passenger.errand.key.clone()).collect();
        let encoded =
            wanting.iter().map(|(passenger, _)| passenger.errand.encoded.clone()).collect::<Vec<Bytes>>();
        let (encoded, began) = (encoded.iter().map(AsRef::as_ref), self.now());
        let mut found = match Self::asked(loader, keys).await {
            Ok(found) => found,
            Err(error) => {
                self.count_failed_loads(encoded, &error);
                drop(claims);
                let stand_in = |(passenger, look): Wanting<K, V>| {
                    let error = error.clone();
                    async move {
                        let has_stale = look.previous.is_some();
                        let landed = self.after_failure(&passenger.errand, has_stale, error).await;
                        passenger.lands(landed);
                    }
                };
                join_all(wanting.into_iter().map(stand_in)).await;
                return;
            }
        };
        self.count_loads(encoded, began);
        let (mut landing, mut candidates): (Vec<_>, Vec<Candidate<K, V>>) = (Vec::new(), Vec::new());
        for (passenger, look) in wanting {
            let news = found.remove(&passenger.errand.key).unwrap_or_else(Loaded::absent);
            let candidate = self.candidate_of(&passenger.errand, news, look);
            let landed = candidate.as_ref().map(Candidate::entry).map_err(Error::clone);
            landing.push((passenger, landed));
            candidates.extend(candidate);
        }
        self.propose_all(candidates).await;
        drop(claims);
        for (passenger, landed) in landing {
            passenger.lands(landed);
        }
    }

    /// What one key is to become. A codec that panics over it does not fail the others.
    fn candidate_of(
        &self,
        errand: &Errand<K>,
        news: Loaded<V>,
        look: Look<V>,
    ) -> Result<Candidate<K, V>, Error> {
        let Look { previous, start, .. } = look;
        let make = || self.candidate(errand, news.or(&errand.wanted.call), start, previous);
        catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
            self.held.counters.load_failures.add(1);
            Err(Error::loader_panicked(&*panic))
        })
    }

    /// What the loader finds. A panic is an error, of which all who wait are told.
    async fn asked(loader: &LoadMany<K, V>, keys: Vec<K>) -> Result<HashMap<K, Loaded<V>>, Error> {
        let call = async { loader(keys).await };
        let found = AssertUnwindSafe(call).catch_unwind().await;
        found.unwrap_or_else(|panic| Err(Error::loader_panicked(&*panic)))
    }
}

/// The same loader, of one key.
fn one_of<K: CacheKey, V: Send + Sync + 'static>(loader: &LoadMany<K, V>) -> impl Load<K, V> + use<K, V> {
    let loader = Arc::clone(loader);
    move |key: K, _previous| async move {
        let found = loader(vec![key.clone()]).await;
        found.map(|mut found| found.remove(&key).unwrap_or_else(Loaded::absent))
    }
}
