//! What the service on a node does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nearfar::{Entry, Error, Outcome, Tier};
use nearfar_testkit::Read;

use crate::clock::{micros, millis, sleep};
use crate::database::Value;
use crate::fleet::Values;
use crate::world::{Id, World};

pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) id: Id,
    pub(crate) cache: Values,
}

/// What to do, with which key, and when to lose patience.
#[derive(Clone, Copy)]
struct Task {
    what: What,
    key: u64,
    patience: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Get,
    Load,
    Set,
    Invalidate,
    Clear,
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
                What::Get => drop(self.get(task.key, task.patience).await),
                What::Load => drop(self.load(task.key, task.patience).await),
                What::Set | What::Invalidate => self.write(task).await,
                What::Clear => drop(self.clear(task.patience).await),
            }
        }
    }

    fn next(&self) -> Task {
        let rng = &mut self.world.lock().rng;
        let what = match rng.u32(..100) {
            0..42 => What::Get,
            42..74 => What::Load,
            74..85 => What::Set,
            85..97 => What::Invalidate,
            _ => What::Clear,
        };
        let patience = (rng.u32(..10) == 0).then(|| millis(rng.u64(0..=80)));
        Task { what, key: rng.u64(..self.world.plan.keys), patience }
    }

    pub(crate) async fn get(&self, key: u64, patience: Option<Duration>) -> Option<Value> {
        let began = self.world.now();
        let entry = self.within(patience, self.cache.get(&key)).await?.ok()??;
        Some(self.judge(key, &entry, began))
    }

    /// The loader reads the database, and takes its time to come back with what it has read.
    pub(crate) async fn load(&self, key: u64, patience: Option<Duration>) -> Option<Value> {
        let began = self.world.now();
        let (world, id) = (Arc::clone(&self.world), self.id);
        let loader = move |key| async move {
            let value = world.lock().database.value(key);
            let slowest = world.plan.slowest_load;
            world.doze(0..=slowest).await;
            world.awake(id).await;
            Ok::<_, Infallible>(value)
        };
        let entry = self.within(patience, self.cache.get_or_load(&key, loader)).await?.ok()?;
        Some(self.judge(key, &entry, began))
    }

    fn judge(&self, key: u64, entry: &Entry<Value>, began: Duration) -> Value {
        if entry.tier() == Tier::L2 && self.cache.peek(&key).is_none() && self.cache.stats().trusted {
            self.world.lock().count("copies refused by the fence");
        }
        let (id, value) = (self.id, **entry);
        let mut state = self.world.lock();
        let now = state.now();
        let (tier, version) = (entry.tier(), entry.version());
        state.note(|| format!("node {id} reads {value:?} of {version} from {tier:?}, begun at {began:.3?}"));
        if value.key != key {
            state.blame(format!("node {id} asked for key {key} and got {value:?}"));
        }
        let read = Read { key, revision: value.revision, start: micros(began), end: micros(now) };
        state.judge.read(id, read);
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
            self.get(key, task.patience).await;
            return true;
        };
        let value = Value { key, revision };
        let outcome = if task.what == What::Set {
            let mut alone = Alone { world: &self.world, value, may_follow: false };
            let outcome = self.within(task.patience, self.cache.set(&key, value)).await;
            alone.may_follow = matches!(outcome, Some(Ok(Outcome::Applied(_))));
            outcome
        } else {
            self.within(task.patience, self.cache.invalidate(&key)).await
        };
        self.changed(&[(key, revision)], outcome.as_ref());
        matches!(outcome, Some(Ok(Outcome::Applied(_))))
    }

    fn commit(&self, key: u64, is_set: bool) -> Option<u64> {
        let mut state = self.world.lock();
        let now = state.now();
        let revision = state.database.commit(key, self.id, now)?;
        if is_set {
            state.database.set_begins(key, self.id);
        }
        let id = self.id;
        state.note(|| format!("node {id} commits {revision} of key {key}, set: {is_set}"));
        Some(revision)
    }

    pub(crate) async fn clear(&self, patience: Option<Duration>) -> Option<Outcome> {
        let committed: Vec<_> = {
            let state = self.world.lock();
            state.database.keys().map(|key| (key, state.database.revision(key))).collect()
        };
        let outcome = self.within(patience, self.cache.clear()).await;
        self.changed(&committed, outcome.as_ref());
        outcome?.ok()
    }

    fn changed(&self, revisions: &[(u64, u64)], outcome: Option<&Result<Outcome, Error>>) {
        let mut state = self.world.lock();
        let (id, now) = (self.id, state.now());
        let version = outcome.and_then(|outcome| outcome.as_ref().ok()?.version());
        state.count(match outcome {
            Some(Ok(Outcome::Applied(_))) => "changes applied",
            Some(Ok(Outcome::Queued)) => "changes answered by Queued",
            Some(Err(_)) => "changes answered by an error",
            None => "changes whose caller left",
        });
        state.note(|| format!("node {id} has changed {revisions:?}: {outcome:?}"));
        for change in revisions {
            state.judge.changed(id, *change, version, now);
        }
    }

    /// Drops what takes too long.
    async fn within<T>(&self, patience: Option<Duration>, operation: impl Future<Output = T>) -> Option<T> {
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
