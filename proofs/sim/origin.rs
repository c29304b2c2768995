//! Where loaders load from: the database, which takes its time, and at times does not answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nearfar::{Entry, Loaded};

use crate::client::Client;
use crate::clock::millis;
use crate::database::{Value, tag_of};
use crate::plan::Plan;
use crate::world::{Id, State, World};

/// The loader of one call.
pub(crate) struct Origin {
    world: Arc<World>,
    id: Id,
    /// When the call began.
    began: Duration,
    /// Whether the call's own flight began with it: what another's has brought was neither too old nor disowned by a tag.
    flies_at_once: bool,
    /// Whoever counts them sees which calls have loads that may still run.
    _under_way: Arc<()>,
}

#[derive(Debug)]
pub(crate) enum NoValue {
    Unreachable,
    /// For a loader that has to give a value.
    Absent,
}

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for NoValue {}

impl Origin {
    pub(crate) fn of(client: &Client, flies_at_once: bool) -> Self {
        let (world, id) = (Arc::clone(&client.world), client.id);
        let began = world.now();
        let under_way = Arc::clone(&world.lock().under_way);
        Self { world, id, began, flies_at_once, _under_way: under_way }
    }

    pub(crate) async fn value(self, key: u64) -> Result<Value, NoValue> {
        self.ask(key, |_| ()).await?.0.ok_or(NoValue::Absent)
    }

    pub(crate) async fn find(self, key: u64) -> Result<Loaded<Value>, NoValue> {
        let value = self.ask(key, |_| ()).await?.0;
        Ok(self.world.plan.loaded(key, value))
    }

    /// One answer for all, about one moment.
    pub(crate) async fn find_many(&self, keys: Vec<u64>) -> Result<Vec<(u64, Loaded<Value>)>, NoValue> {
        let Some(&first) = keys.first() else { return Ok(Vec::new()) };
        let find =
            move |state: &mut State| keys.into_iter().map(|key| (key, state.database.find(key))).collect();
        let found: Vec<(u64, Option<Value>)> = self.ask(first, find).await?.1;
        Ok(found.into_iter().map(|(key, value)| (key, self.world.plan.loaded(key, value))).collect())
    }

    /// Says only that nothing has changed if what is cached is what there is.
    pub(crate) async fn revalidate(
        self,
        key: u64,
        cached: Option<Entry<Value>>,
    ) -> Result<Loaded<Value>, NoValue> {
        let is_current = |state: &mut State| {
            let cached = cached.as_ref()?;
            let (id, began) = (self.id, self.began);
            // What was wrong for longer than the bound when the call began is given to no loader.
            state.judge_read(id, key, Some(**cached), began);
            state.count(if cached.staleness().is_some() { "loads of what is stale" } else { "loads ahead" });
            let now = state.database.find(key).map(etag);
            (cached.etag().is_some() && cached.etag() == now.as_deref()).then_some(())
        };
        let (value, not_modified) = self.ask(key, is_current).await?;
        if not_modified.is_some() {
            self.world.lock().count("answers not modified");
            return Ok(Loaded::not_modified());
        }
        let loaded = self.world.plan.loaded(key, value);
        Ok(value.map_or(loaded.clone(), |value| loaded.etag(etag(value))))
    }

    /// What the database has, and what `look` makes of it in the same moment. The answer takes its time.
    async fn ask<T>(
        &self,
        key: u64,
        look: impl FnOnce(&mut State) -> T,
    ) -> Result<(Option<Value>, T), NoValue> {
        self.check_wait(key);
        let answer = {
            let mut state = self.world.lock();
            let fails = state.origin_fails();
            let looked = look(&mut state);
            if fails { Err(NoValue::Unreachable) } else { Ok((state.database.find(key), looked)) }
        };
        let slowest = self.world.plan.slowest_load;
        self.world.doze(0..=slowest).await;
        self.world.awake(self.id).await;
        answer
    }

    /// A load that waits for the claim of another waits for twice the time that claims last, and not longer. Around that,
    /// L2 is asked at most three times: for the value, for the claim when the wait is all but over, and for the value
    /// again. Each takes a command's time at most, unless the process stands still.
    fn check_wait(&self, key: u64) {
        let mut state = self.world.lock();
        let (id, waited) = (self.id, state.now().saturating_sub(self.began));
        let station = &state.stations[id];
        let stood_still = station.frozen || station.thawed_at >= self.began;
        let lasts = station.plan.freshness.claims.unwrap_or_default();
        let longest = lasts * 2 + (self.world.plan.command_timeout + SLACK) * 3;
        if self.flies_at_once && !stood_still && waited > longest {
            state
                .blame(format!("node {id} has waited {waited:?} to load key {key}, {longest:?} is the most"));
        }
        let by_claim = !stood_still && waited + lasts > longest;
        state.count_many("loads that a claim kept waiting for long", by_claim.into());
    }
}

/// What the millisecond timers add to a command's time.
const SLACK: Duration = millis(5);

pub(crate) fn etag(value: Value) -> String {
    format!("{}/{}", value.key, value.revision)
}

impl State {
    fn origin_fails(&mut self) -> bool {
        let percent = self.plan.failing_loads;
        let fails = !self.quiet && (self.origin_down || self.chance(percent));
        self.count_many("loads failed", fails.into());
        fails
    }
}

impl Plan {
    /// What a loader has found, with its tag.
    pub(crate) fn loaded(&self, key: u64, value: Option<Value>) -> Loaded<Value> {
        let loaded = value.map_or_else(Loaded::absent, Loaded::new);
        if self.tagged { loaded.tags([tag_of(key)]) } else { loaded }
    }
}
