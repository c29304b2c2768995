//! All that exists beside the nodes: one lock, one source of randomness, one trace.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use nearfar::Version;
use tokio::sync::Notify;

use crate::clock::{Clock, millis, sleep};
use crate::database::Database;
use crate::judge::Judge;
use crate::plan::{self, NodePlan, Plan};
use crate::server::Server;
use crate::station::Station;

/// The number of a node. A node that comes after a crash is another one.
pub(crate) type Id = usize;

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) plan: Plan,
    /// Guards everything. All tasks run on one thread, so nobody ever waits for it.
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) server: Server,
    pub(crate) stations: Vec<Station>,
    pub(crate) database: Database,
    pub(crate) judge: Judge,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) violations: Vec<String>,
    /// Clients stop when it is set, and loads do not fail.
    pub(crate) quiet: bool,
    pub(crate) origin_down: bool,
    /// What clients tell each other of their last changes.
    pub(crate) letters: BTreeMap<u64, Letter>,
    /// Each call with a load that may still run has a share of it.
    pub(crate) under_way: Arc<()>,
    trace: Option<Vec<String>>,
}

/// L2 has acknowledged a revision of a key under this version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    pub(crate) version: Version,
    pub(crate) revision: u64,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        Self::of(&plan, rng, traced)
    }

    pub(crate) fn of(plan: &Plan, rng: Rng, traced: bool) -> Arc<Self> {
        let clock = Clock::start();
        let state = State {
            clock,
            plan: *plan,
            server: Server::new(plan.log_len),
            stations: Vec::new(),
            database: Database::new(plan.keys),
            judge: Judge::default(),
            counts: BTreeMap::new(),
            violations: Vec::new(),
            quiet: false,
            origin_down: false,
            letters: BTreeMap::new(),
            under_way: Arc::default(),
            trace: traced.then(|| vec![format!("{plan:?}")]),
            rng,
        };
        Arc::new(Self { clock, plan: *plan, state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whoever panics ends the simulation")
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Makes room for a node.
    pub(crate) fn station(&self) -> (Id, NodePlan) {
        let mut state = self.lock();
        let settings = state.plan;
        let plan = NodePlan::draw(&mut state.rng, &settings);
        let server = state.server.incarnation;
        state.stations.push(Station::new(plan, server));
        let id = state.stations.len() - 1;
        state.note(|| format!("node {id} is there: {plan:?}"));
        (id, plan)
    }

    /// Waits until something is so at a node's station, or at the server. `look` may change what it finds.
    pub(crate) async fn until<T>(&self, id: Id, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let changed = Arc::clone(&self.lock().stations[id].changed);
        loop {
            let mut notified = pin!(changed.notified());
            notified.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            notified.await;
        }
    }

    /// Waits while the node's process stands still.
    pub(crate) async fn awake(&self, id: Id) {
        self.until(id, |state| (!state.stations[id].frozen).then_some(())).await;
    }

    /// Sleeps for a random time.
    pub(crate) async fn doze(&self, range: std::ops::RangeInclusive<u64>) {
        let pause = self.lock().rng.u64(range);
        sleep(millis(pause)).await;
    }

    /// Does something later.
    pub(crate) fn later(self: &Arc<Self>, delay: Duration, act: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(delay).await;
            act(&world);
        });
    }
}

impl State {
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        plan::chance(&mut self.rng, percent)
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        self.count_many(what, 1);
    }

    pub(crate) fn count_many(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let line = format!("{:>9.3?} {}", self.clock.now(), what());
            self.trace.get_or_insert_default().push(line);
        }
    }

    pub(crate) fn blame(&mut self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.violations.push(what);
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// The server has changed: whoever waits for it looks again.
    pub(crate) fn tell_everybody(&self) {
        self.stations.iter().for_each(|station| station.changed.notify_waiters());
    }
}

/// A way to wake those who wait at a station.
pub(crate) fn changed() -> Arc<Notify> {
    Arc::new(Notify::new())
}
