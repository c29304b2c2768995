//! Server-assisted tracking: which keys are written to, whoever does it.
//!
//! A server in broadcast mode tells the names of all keys with a prefix that are written to, expire or are evicted. It tells
//! neither by whom nor what, so each is looked at, and a [`Watchman`] says what to make of it. fred's support is not used: it
//! drops the push of `FLUSHALL`, does not ask again after a reconnect, and knows one server of a cluster.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Value;
use nearfar_core::backend::{ForeignWrite, ForeignWrites, L2Error, ServerId};
use nearfar_core::{Head, Moment, PartitionId, Sighting, Verdict, Version, Watchman};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::keys::Keys;
use crate::rights;
use crate::scripts::LOOK;
use crate::store::RedisL2;
use crate::wire::Owned;
use inbox::{Inbox, News};
use listener::Listener;

mod inbox;
mod listener;
mod talk;

/// How many keys a script looks at: a script holds up everything else at the server.
const LOOKED_AT_ONCE: usize = 200;
/// How many keys the watchman remembers, twice over.
const REMEMBERED: usize = 65_536;
/// Nodes look at what is unexplained again within this, each at a moment of its own, so that one of them invalidates it and
/// the others find it done.
const SPREAD_MILLIS: u64 = 50;
/// How long a server that could not be asked is left alone.
const REST: Duration = Duration::from_millis(200);
/// More than this is not asked about again: copies of it are gone already.
const MOST_SUSPECTS: usize = 10_000;
/// For how long after an eviction what is gone may have been evicted: a key may be told of later than a look that has counted
/// it.
const EVICTING: Duration = Duration::from_secs(5);
/// How often to look whether the store was closed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Tracking {
    store: RedisL2,
    partitions: Vec<Partition>,
    /// By the prefix of its values' names.
    by_prefix: HashMap<Bytes, usize>,
    moves: watch::Receiver<()>,
    request: Arc<[String]>,
    inbox: Arc<Inbox>,
    listeners: BTreeMap<ServerId, Owned<()>>,
    watchman: Watchman,
    /// What is to be looked at again, and when.
    suspects: HashSet<(usize, Bytes)>,
    again_at: Instant,
    /// Grows by an odd number.
    spread: u64,
    pending: VecDeque<ForeignWrite>,
    /// Whether all servers told when they were last asked.
    is_complete: bool,
}

struct Partition {
    id: PartitionId,
    /// How many keys its server had evicted as of the last look that asked; unknown if the user may not ask.
    evicted: i64,
    /// Until when what is gone may have been evicted.
    evicts_until: Instant,
}

/// What a look has found.
struct Looked {
    now: Moment,
    head: Option<Head>,
    evicted: Option<i64>,
    /// First bytes, and milliseconds left as `PTTL` tells them.
    found: Vec<(Bytes, i64)>,
}

impl Partition {
    fn new(id: &PartitionId) -> Self {
        Self { id: id.clone(), evicted: 0, evicts_until: clock::now() }
    }
}

impl Tracking {
    /// Must be called inside the runtime.
    pub(crate) fn new(store: RedisL2, partitions: &[PartitionId], spread: u64) -> Self {
        let prefixes: Vec<String> = partitions.iter().map(|id| Keys::of(id).values()).collect();
        let mut request: Vec<String> = ["CLIENT", "TRACKING", "ON", "BCAST"].map(str::to_owned).into();
        request.extend(prefixes.iter().flat_map(|prefix| ["PREFIX".to_owned(), prefix.clone()]));
        let mut tracking = Self {
            moves: store.lanes().topology.changes(),
            store,
            partitions: partitions.iter().map(Partition::new).collect(),
            by_prefix: prefixes.into_iter().map(Bytes::from).zip(0..).collect(),
            request: request.into(),
            inbox: Arc::default(),
            listeners: BTreeMap::new(),
            watchman: Watchman::new(REMEMBERED),
            suspects: HashSet::new(),
            again_at: clock::now(),
            spread,
            pending: VecDeque::new(),
            is_complete: false,
        };
        tracking.follow_moves();
        tracking
    }

    /// Listens to the servers that have slots now, and to no others.
    fn follow_moves(&mut self) {
        let topology = &self.store.lanes().topology;
        let owners = topology.owners();
        self.listeners.retain(|id, _| {
            let stays = owners.contains(id);
            if !stays {
                self.inbox.fell(*id);
            }
            stays
        });
        for id in owners {
            self.listeners.entry(id).or_insert_with(|| {
                let (request, inbox) = (Arc::clone(&self.request), Arc::clone(&self.inbox));
                let listener = Listener { id, server: topology.server(id), request, inbox };
                Owned(tokio::spawn(listener.listen()))
            });
        }
    }

    /// Looks at what is known by now, if anything is. There may always be something, so nothing waits for a pause.
    async fn work(&mut self) -> Result<(), L2Error> {
        if self.moves.has_changed().unwrap_or(false) {
            self.moves.mark_unchanged();
            self.follow_moves();
        }
        match self.inbox.take() {
            Some(News::Refused(reason)) => self.pending.push_back(ForeignWrite::Refused(reason)),
            Some(News::Missed) => self.pending.push_back(ForeignWrite::Missed),
            Some(News::Keys(names)) => {
                let keys = names.iter().filter_map(|name| self.place_of(name)).collect();
                self.look_at(keys, Look::First).await?;
            }
            None => {}
        }
        self.check_whether_complete().await?;
        if !self.suspects.is_empty() && clock::now() >= self.again_at {
            let suspects = std::mem::take(&mut self.suspects).into_iter().collect();
            self.look_at(suspects, Look::Again).await?;
        }
        Ok(())
    }

    /// Whether there is something to do at once.
    async fn wait(&mut self) {
        let until = clock::now() + LOOK_EVERY;
        let until = if self.suspects.is_empty() { until } else { until.min(self.again_at) };
        let woken = async {
            tokio::select! {
                () = self.inbox.news() => {}
                // What has changed is still to be seen.
                _ = self.moves.changed() => self.moves.mark_changed(),
            }
        };
        let _ = tokio::time::timeout_at(until, woken).await;
    }

    /// The partition and the key that a name stands for. What stands where no node would look for it is none.
    fn place_of(&self, name: &Bytes) -> Option<(usize, Bytes)> {
        // A namespace has no closing brace.
        let behind_tag = name.iter().position(|byte| *byte == b'}')? + 2;
        let (prefix, key) = (name.get(..behind_tag)?, name.get(behind_tag..)?);
        let index = *self.by_prefix.get(prefix)?;
        let count = u16::try_from(self.partitions.len()).ok()?;
        let belongs = usize::from(PartitionId::index_of(key, count)) == index;
        belongs.then(|| (index, Bytes::copy_from_slice(key)))
    }

    async fn look_at(&mut self, keys: Vec<(usize, Bytes)>, look: Look) -> Result<(), L2Error> {
        let mut by_partition: BTreeMap<usize, Vec<Bytes>> = BTreeMap::new();
        for (index, key) in keys {
            by_partition.entry(index).or_default().push(key);
        }
        for (index, keys) in by_partition {
            for keys in keys.chunks(LOOKED_AT_ONCE) {
                match self.look(index, keys).await {
                    Ok(looked) => self.judge(index, keys, &looked, look),
                    Err(L2Error::Closed) => return Err(L2Error::Closed),
                    Err(_) => self.look_later(index, keys, look),
                }
            }
        }
        Ok(())
    }

    async fn look(&self, index: usize, keys: &[Bytes]) -> Result<Looked, L2Error> {
        let partition = &self.partitions[index].id;
        let names = Keys::of(partition);
        let keys = [names.head()].into_iter().chain(keys.iter().map(|key| names.value(key)));
        let answer = self.store.run(partition, &LOOK, (keys.collect(), Vec::new())).await?;
        Looked::read(answer).ok_or(L2Error::Unexpected)
    }

    fn judge(&mut self, index: usize, keys: &[Bytes], looked: &Looked, look: Look) {
        let evicts = self.notice_evictions(index, looked.evicted);
        let (mut replaced, mut unexplained) = (Vec::new(), Vec::new());
        for (key, (first, left)) in keys.iter().zip(&looked.found) {
            let sighting = match *left {
                -2 if evicts => Sighting::PerhapsEvicted,
                -2 => Sighting::Gone,
                left => Sighting::of(first, end_of_life(looked.now, left)),
            };
            match self.watchman.judge(key, sighting, looked.head, looked.now) {
                Verdict::Explained => {}
                Verdict::Replaced => replaced.push(key.clone()),
                Verdict::Unexplained => unexplained.push(key.clone()),
            }
        }
        if look == Look::First {
            // Copies go at once; whether it is to be invalidated still, a second look tells.
            replaced.extend_from_slice(&unexplained);
            self.suspect(index, unexplained);
        } else if !unexplained.is_empty() {
            self.pending.push_back(ForeignWrite::Unexplained(unexplained));
        }
        if !replaced.is_empty() {
            self.pending.push_back(ForeignWrite::Replaced(replaced));
        }
    }

    /// Whether what is gone may have been evicted.
    fn notice_evictions(&mut self, index: usize, evicted: Option<i64>) -> bool {
        let (now, partition) = (clock::now(), &mut self.partitions[index]);
        if let Some(count) = evicted.filter(|count| *count != partition.evicted) {
            (partition.evicted, partition.evicts_until) = (count, now + EVICTING);
        }
        now < partition.evicts_until
    }

    fn suspect(&mut self, index: usize, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        self.spread = self.spread.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let pause = Duration::from_millis((self.spread >> 32) % SPREAD_MILLIS);
        self.look_again(index, keys, pause);
    }

    /// What cannot be looked at may be anything.
    fn look_later(&mut self, index: usize, keys: &[Bytes], look: Look) {
        if look == Look::First {
            self.pending.push_back(ForeignWrite::Replaced(keys.to_vec()));
        }
        self.look_again(index, keys.to_vec(), REST);
    }

    fn look_again(&mut self, index: usize, keys: Vec<Bytes>, pause: Duration) {
        if self.suspects.is_empty() {
            self.again_at = clock::now() + pause;
        }
        let room = MOST_SUSPECTS.saturating_sub(self.suspects.len());
        self.suspects.extend(keys.into_iter().take(room).map(|key| (index, key)));
    }

    /// Says so once, when it is the case that all servers tell, and that they may be asked about what they tell.
    async fn check_whether_complete(&mut self) -> Result<(), L2Error> {
        let stand = self.inbox.all_stand(self.store.lanes().topology.owners());
        if !stand || self.is_complete {
            self.is_complete = stand;
            return Ok(());
        }
        match self.try_look().await {
            Ok(_) => self.pending.push_back(ForeignWrite::Complete),
            Err(L2Error::Closed) => return Err(L2Error::Closed),
            Err(L2Error::Rejected(cause)) => {
                let reason = rights::of_looking(&cause.to_string());
                self.pending.push_back(ForeignWrite::Refused(reason));
            }
            // Asked again after a while.
            Err(_) => return Ok(()),
        }
        self.is_complete = true;
        Ok(())
    }

    async fn try_look(&self) -> Result<Value, L2Error> {
        let partition = &self.partitions[0].id;
        let names = Keys::of(partition);
        self.store.run(partition, &LOOK, (vec![names.head(), names.trial()], Vec::new())).await
    }
}

/// Which look at a key it is.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    First,
    Again,
}

impl Looked {
    fn read(answer: Value) -> Option<Self> {
        let Value::Array(answer) = answer else { return None };
        let (numbers, rest) = answer.split_first_chunk::<4>()?;
        let known = |value: &Value| value.as_i64().and_then(|number| u64::try_from(number).ok());
        let head = known(&numbers[1]).zip(known(&numbers[2]));
        let found = rest.chunks_exact(2).map(|pair| {
            let [first, left] = pair else { return None };
            Some((first.as_bytes().map(Bytes::copy_from_slice)?, left.as_i64()?))
        });
        Some(Self {
            now: Moment::from_micros(known(&numbers[0])?),
            head: head.map(|(sequence, floor)| Head::untagged(Version::new(sequence), Version::new(floor))),
            evicted: numbers[3].as_i64().filter(|count| *count >= 0),
            found: found.collect::<Option<_>>()?,
        })
    }
}

fn end_of_life(now: Moment, left: i64) -> Option<Moment> {
    u64::try_from(left).ok().map(|millis| now + Duration::from_millis(millis))
}

#[async_trait]
impl ForeignWrites for Tracking {
    async fn next(&mut self) -> Option<ForeignWrite> {
        loop {
            if let Some(write) = self.pending.pop_front() {
                return Some(write);
            }
            if self.store.lanes().is_closed() || self.work().await.is_err() {
                self.listeners.clear();
                return None;
            }
            if self.pending.is_empty() && !self.inbox.has_news() {
                self.wait().await;
            }
        }
    }
}

impl fmt::Debug for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracking").field("partitions", &self.partitions.len()).finish_non_exhaustive()
    }
}
