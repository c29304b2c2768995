//! What the service on a node does.

use std::sync::Arc;
use std::time::Duration;

use nearfar::{CallOptions, Entry, Error, ErrorKind, Outcome, Staleness, Tier, Version};
use nearfar_testkit::Read;

use crate::clock::{micros, millis, sleep};
use crate::database::Value;
use crate::docket::Steps;
use crate::fleet::Values;
use crate::origin::{Origin, etag};
use crate::plan::{chance, pick};
use crate::world::{Id, Letter, State, World};

pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) id: Id,
    pub(crate) cache: Values,
}

/// What to do, with which key.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    pub(crate) what: What,
    pub(crate) key: u64,
    /// When to lose it.
    pub(crate) patience: Option<Duration>,
    /// What a read must not be older than.
    pub(crate) letter: Option<Letter>,
    /// Waits for a load however long it takes.
    waits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Get,
    Load(How),
    Set,
    Invalidate,
    Expire,
    Clear,
    /// All keys, or some.
    GetMany,
    LoadMany,
    InvalidateMany,
    /// Half of the keys, by their tag.
    InvalidateTag,
    ExpireTag,
    Purge,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Plain,
    Optional,
    Revalidated,
}

/// Longer than everything.
const HOWEVER_LONG: Duration = millis(1_000_000);

impl Task {
    /// A read of whatever there is, without haste.
    pub(crate) fn calm(key: u64) -> Self {
        Self { what: What::Get, key, patience: None, letter: None, waits: true }
    }

    /// One of those of a task about several keys.
    pub(crate) fn of_another(self, key: u64) -> Self {
        Self { key, letter: None, ..self }
    }

    pub(crate) fn call(&self) -> CallOptions {
        let mut call = CallOptions::new();
        if let Some(letter) = self.letter {
            call = call.not_older_than(letter.version);
        }
        if self.waits {
            call = call.soft_timeout(HOWEVER_LONG).hard_timeout(HOWEVER_LONG);
        }
        call
    }
}

impl Client {
    pub(crate) async fn work(self) {
        loop {
            let longest = self.world.plan.longest_gap;
            self.world.doze(0..=longest).await;
            self.world.awake(self.id).await;
            if self.world.lock().quiet {
                return;
            }
            let task = self.next();
            match task.what {
                What::Get => drop(self.get(task).await),
                What::Load(how) => drop(self.load(task, how).await),
                What::Set | What::Invalidate => self.write(task).await,
                What::Expire => self.expire(task).await,
                What::Clear => drop(self.clear(task.patience).await),
                What::GetMany | What::LoadMany => self.read_many(task).await,
                What::InvalidateMany => self.invalidate_many(task).await,
                What::InvalidateTag => self.invalidate_tag(task).await,
                What::ExpireTag => self.expire_tag(task).await,
                What::Purge => self.purge(task).await,
            }
        }
    }

    fn next(&self) -> Task {
        let state = &mut *self.world.lock();
        let rng = &mut state.rng;
        let what = match rng.u32(..100) {
            0..30 => What::Get,
            30..34 => What::GetMany,
            34..61 if chance(rng, self.world.plan.revalidations) => What::Load(How::Revalidated),
            // A plain value has no tag.
            34..61 if self.world.plan.tagged => What::Load(How::Optional),
            34..61 => What::Load(pick(rng, &[How::Plain, How::Optional])),
            61..73 => What::LoadMany,
            73..82 => What::Set,
            82..88 => What::Invalidate,
            88..91 if self.world.plan.tagged => What::InvalidateTag,
            88..93 => What::InvalidateMany,
            93..96 => What::Expire,
            96..97 if self.world.plan.tagged => What::ExpireTag,
            97..98 => What::Purge,
            _ => What::Clear,
        };
        let patience = (rng.u32(..10) == 0).then(|| millis(rng.u64(0..=80)));
        let key = rng.u64(..self.world.plan.keys);
        let letter = chance(rng, 20).then(|| state.letters.get(&key).copied()).flatten();
        Task { what, key, patience, letter, waits: false }
    }

    pub(crate) async fn get(&self, task: Task) -> Option<Value> {
        let (key, began) = (task.key, self.world.now());
        let cache = self.cache.with(task.call());
        let entry = self.within(task.patience, cache.get(&key)).await?.ok()??;
        if let Some(why) = entry.staleness() {
            self.world
                .lock()
                .blame(format!("a reader without a loader gets what is stale, {why:?}: {entry:?}"));
        }
        self.judge(task, Some(&entry), began)
    }

    /// `None` if nothing could be loaded, `Some(None)` if there is no such thing.
    pub(crate) async fn find(&self, task: Task) -> Option<Option<Value>> {
        self.load(task, How::Optional).await
    }

    async fn load(&self, task: Task, how: How) -> Option<Option<Value>> {
        let (key, began) = (&task.key, self.world.now());
        let (cache, origin) = (
            self.cache.with(task.call()),
            Origin::of(self, task.letter.is_none() && !self.world.plan.tagged),
        );
        let patience = task.patience;
        let loaded = match how {
            How::Plain => {
                let load = cache.get_or_load(key, move |key| origin.value(key));
                self.within(patience, load).await?.map(Some)
            }
            How::Optional => {
                let load = cache.get_or_load_with(key, move |key| origin.find(key));
                self.within(patience, load).await?
            }
            How::Revalidated => {
                let load = cache.get_or_revalidate(key, move |key, cached| origin.revalidate(key, cached));
                self.within(patience, load).await?
            }
        };
        let late = loaded.as_ref().is_err_and(|error| error.kind() == ErrorKind::LoadTimedOut);
        self.world.lock().count_many("loads timed out", late.into());
        Some(self.judge(task, loaded.ok()?.as_ref(), began))
    }

    /// No entry is the answer that there is no such thing.
    pub(crate) fn judge(&self, task: Task, entry: Option<&Entry<Value>>, began: Duration) -> Option<Value> {
        let (id, key) = (self.id, task.key);
        let is_copied = || self.cache.peek(&key).is_some() || !self.cache.stats().trusted;
        let is_fresh = |entry: &&Entry<Value>| entry.staleness().is_none();
        let refused = entry.filter(is_fresh).is_some_and(|entry| entry.tier() == Tier::L2 && !is_copied());
        let mut state = self.world.lock();
        state.count_many("copies refused by the fence", refused.into());
        state.note(|| format!("node {id} reads of key {key} {entry:?}, begun at {began:.3?}"));
        let value = entry.map(|entry| **entry);
        let read = state.judge_read(id, key, value, began);
        if let Some(entry) = entry {
            state.judge_freshness(id, entry, read);
        } else {
            state.count("answers of absence");
        }
        if let Some(letter) = task.letter {
            state.count("reads by who knew a version");
            state.judge.read_informed(id, letter, read);
        }
        value
    }

    /// A caller whose change was not acknowledged may come back with another one at once.
    async fn write(&self, task: Task) {
        while !self.write_once(task).await && self.world.lock().chance(30) {}
    }

    /// Commits to the database, then tells the cache. Whether L2 has acknowledged it, or nothing was to be done.
    async fn write_once(&self, task: Task) -> bool {
        let key = task.key;
        let Some(revision) = self.commit(key, task.what == What::Set) else {
            self.get(task).await;
            return true;
        };
        let value = Value { key, revision };
        let outcome = if task.what == What::Set {
            let mut alone = Alone { world: &self.world, value, may_follow: false };
            let loaded = self.world.plan.loaded(key, Some(value)).etag(etag(value));
            let set = self.cache.set_with(&key, loaded);
            let outcome = self.within(task.patience, set).await;
            alone.may_follow = matches!(outcome, Some(Ok(Outcome::Applied(_))));
            outcome
        } else {
            self.within(task.patience, self.cache.invalidate(&key)).await
        };
        let version = self.changed(&[(key, revision)], outcome.as_ref(), Steps::One);
        let letter = version.map(|version| Letter { version, revision });
        self.world.lock().letters.extend(letter.map(|letter| (key, letter)));
        letter.is_some()
    }

    pub(crate) fn commit(&self, key: u64, is_set: bool) -> Option<u64> {
        let mut state = self.world.lock();
        let (now, deletions) = (state.now(), state.plan.deletions);
        let revision = state.database.commit(key, self.id, now)?;
        let is_deletion = !is_set && state.chance(deletions);
        if is_set {
            state.database.set_begins(key, self.id);
        } else if is_deletion {
            state.database.delete(key);
        }
        let id = self.id;
        state.note(|| {
            format!("node {id} commits {revision} of key {key}, {is_set} set, {is_deletion} deletion")
        });
        Some(revision)
    }

    /// Nothing has changed, but who wants it fresh is to load it.
    async fn expire(&self, task: Task) {
        let (id, key) = (self.id, task.key);
        let outcome = self.within(task.patience, self.cache.expire(&key)).await;
        let mut state = self.world.lock();
        let now = state.now();
        state.note(|| format!("node {id} has expired key {key}: {outcome:?}"));
        if let Some(version) = state.outcome(outcome.as_ref()) {
            state.judge.has_expired(id, key, version, now);
        }
    }

    pub(crate) async fn clear(&self, patience: Option<Duration>) -> Option<Outcome> {
        let committed: Vec<_> = {
            let state = self.world.lock();
            state.database.keys().map(|key| (key, state.database.revision(key))).collect()
        };
        let outcome = self.within(patience, self.cache.clear()).await;
        self.changed(&committed, outcome.as_ref(), Steps::OnePerPartition);
        outcome?.ok()
    }

    /// The version, if it is applied.
    pub(crate) fn changed(
        &self,
        revisions: &[(u64, u64)],
        outcome: Option<&Result<Outcome, Error>>,
        steps: Steps,
    ) -> Option<Version> {
        let mut state = self.world.lock();
        let (id, now) = (self.id, state.now());
        let version = state.outcome(outcome);
        state.note(|| format!("node {id} has changed {revisions:?}: {outcome:?}"));
        for change in revisions {
            state.judge.changed(id, *change, (version, steps), now);
        }
        version
    }

    /// Drops what takes too long.
    pub(crate) async fn within<T>(
        &self,
        patience: Option<Duration>,
        operation: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(patience) = patience else { return Some(operation.await) };
        tokio::select! {
            biased;
            outcome = operation => Some(outcome),
            () = sleep(patience) => {
                self.world.lock().count("callers that left");
                None
            }
        }
    }
}

/// A `set` under way, which no other commit of its key may overtake. It ends also if its client is gone.
struct Alone<'a> {
    world: &'a World,
    value: Value,
    /// It was acknowledged. If not, it may still be executed for as long as a command may take.
    may_follow: bool,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut state = self.world.lock();
        let now = state.now();
        let until = if self.may_follow { now } else { now + self.world.plan.command_timeout };
        state.database.set_ends(self.value.key, until);
    }
}

impl State {
    fn outcome(&mut self, outcome: Option<&Result<Outcome, Error>>) -> Option<Version> {
        self.count(match outcome {
            Some(Ok(Outcome::Applied(_))) => "changes applied",
            Some(Ok(Outcome::Queued)) => "changes answered by Queued",
            Some(Err(_)) => "changes answered by an error",
            None => "changes whose caller left",
        });
        outcome?.as_ref().ok()?.version()
    }

    /// Whoever finds nothing may owe it to the last time that there was nothing.
    pub(crate) fn judge_read(&mut self, id: Id, key: u64, value: Option<Value>, began: Duration) -> Read {
        let deleted = self.database.deleted(key);
        let Some(revision) = value.map(|value| value.revision).or(deleted) else {
            self.blame(format!("node {id} finds nothing for key {key}, which was never deleted"));
            return Read { key, revision: 0, start: 0, end: 0 };
        };
        if let Some(value) = value.filter(|value| value.key != key) {
            self.blame(format!("node {id} asked for key {key} and got {value:?}"));
        }
        let read = Read { key, revision, start: micros(began), end: micros(self.now()) };
        self.judge.read(id, read);
        read
    }

    fn judge_freshness(&mut self, id: Id, entry: &Entry<Value>, read: Read) {
        match entry.staleness() {
            None if entry.tier() == Tier::Loader => {}
            None => {
                let written_as = self.number_of(entry, read.key);
                self.judge.read_as_fresh(id, read, written_as);
            }
            Some(Staleness::Revalidating) => self.count("served stale, revalidating"),
            Some(Staleness::LoadFailed) => self.count("served stale, load failed"),
            Some(Staleness::LoadSlow) => self.count("served stale, load slow"),
            Some(other) => self.blame(format!("stale for a new reason: {other:?}")),
        }
    }

    /// As what it was written. L2 takes nothing from before an expiration. L1 may: the number of a load is that of L2
    /// before it, and may be from long before. Numbers follow the clock, so that they can be compared with when a copy
    /// was written.
    fn number_of(&self, entry: &Entry<Value>, key: u64) -> Version {
        let written_at = self.now().saturating_sub(entry.age());
        let clock = self.server.time(self.index_of(key), written_at);
        let latest = if entry.tier() == Tier::L1 { Version::new(clock.micros()) } else { Version::UNKNOWN };
        entry.version().max(latest)
    }
}
