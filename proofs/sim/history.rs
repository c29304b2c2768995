//! One history: clients and faults for a while, then peace, and then the reckoning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nearfar::Outcome;

use crate::chaos::Fault;
use crate::client::{Client, Task};
use crate::clock::{millis, sleep};
use crate::fleet::Process;
use crate::judge::Verdict;
use crate::world::World;

/// What one history has shown.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) violations: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) reads: u64,
    pub(crate) stale_reads: u64,
    /// The worst staleness as a part of its bound, in percent.
    pub(crate) worst: u64,
    /// How long it took to settle when the faults were over, at the most.
    pub(crate) settled_in: Duration,
    pub(crate) trace: Vec<String>,
}

/// Runs the history of a seed.
pub(crate) fn run(seed: u64, traced: bool) -> Account {
    on_virtual_time(seed, async {
        let mut history = History::begin(World::new(seed, traced));
        history.trouble().await;
        let settled_in = history.peace().await;
        history.end(settled_in)
    })
}

pub(crate) fn on_virtual_time<T>(seed: u64, simulation: impl Future<Output = T>) -> T {
    // The library's own draws: node ids and jitter.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without sockets starts").block_on(simulation)
}

struct History {
    world: Arc<World>,
    processes: Vec<Process>,
}

impl History {
    fn begin(world: Arc<World>) -> Self {
        let processes = (0..world.plan.nodes).map(|_| Process::start(&world)).collect();
        Self { world, processes }
    }

    /// Clients work, faults strike.
    async fn trouble(&mut self) {
        let plan = self.world.plan;
        while self.world.now() < plan.length {
            self.world.doze(1..=plan.faults_every).await;
            let (fault, victim) = {
                let mut state = self.world.lock();
                (Fault::draw(&mut state), state.rng.usize(..self.processes.len()))
            };
            fault.strike(&self.world, self.processes[victim].id);
            self.come_and_go(fault, victim).await;
        }
    }

    async fn come_and_go(&mut self, fault: Fault, victim: usize) {
        match fault {
            Fault::Crash => self.processes.swap_remove(victim).crash(&self.world),
            Fault::Leave => self.processes.swap_remove(victim).leave(&self.world).await,
            Fault::Join => {}
            _ => return,
        }
        let joins = fault == Fault::Join || self.world.lock().chance(70);
        if self.processes.is_empty() || joins && self.processes.len() < MOST_NODES {
            self.processes.push(Process::start(&self.world));
        }
    }

    /// No more faults. Everything settles, and all agree. Returns how long settling took.
    async fn peace(&mut self) -> Duration {
        self.world.lock().quiet = true;
        self.world.lock().note(|| "peace".to_owned());
        let began = self.world.now();
        while !self.is_settled() {
            sleep(LOOK_EVERY).await;
            if self.world.now() > began + PATIENCE {
                self.blame_unsettled();
                return PATIENCE;
            }
        }
        let settled_in = self.world.now().saturating_sub(began);
        self.world.lock().note(|| "settled".to_owned());
        sleep(self.longest_bound()).await;
        self.agree().await;
        self.clear().await;
        settled_in
    }

    fn is_settled(&self) -> bool {
        let at_rest = |process: &Process| {
            let Some(cache) = process.cache().filter(|_| process.is_at_rest()) else { return false };
            let stats = cache.stats();
            stats.trusted && stats.outbox_keys == 0
        };
        self.network_is_well() && self.debts().is_empty() && self.processes.iter().all(at_rest)
    }

    fn network_is_well(&self) -> bool {
        let state = self.world.lock();
        let server = &state.server;
        let well = |process: &Process| state.stations[process.id].is_well(server.incarnation);
        server.up && !server.paused && self.processes.iter().all(well)
    }

    /// The keys whose last revision L2 has not heard of, though a node that lives has to tell it. What a node has not
    /// delivered, or what L2 has lost of it, dies with the node.
    fn debts(&self) -> Vec<u64> {
        let state = self.world.lock();
        let lives = |id| self.processes.iter().any(|process| process.id == id);
        let open = |key: &u64| state.judge.owed(*key) < state.database.revision(*key);
        let owed = |key: &u64| open(key) && state.database.author(*key).is_some_and(lives);
        state.database.keys().filter(owed).collect()
    }

    /// The keys whose last revision died with a node.
    fn orphans(&self) -> Vec<u64> {
        let state = self.world.lock();
        let open = |key: &u64| state.judge.owed(*key) < state.database.revision(*key);
        state.database.keys().filter(open).collect()
    }

    fn longest_bound(&self) -> Duration {
        let state = self.world.lock();
        let bounds = self.processes.iter().map(|process| state.stations[process.id].plan.bound());
        bounds.max().unwrap_or_default() + LOOK_EVERY
    }

    /// Every node reads nothing or the last revision, and then loads it.
    async fn agree(&self) {
        let orphans = self.orphans();
        self.world.lock().count_many("keys orphaned by a crash", orphans.len() as u64);
        for key in (0..self.world.plan.keys).filter(|key| !orphans.contains(key)) {
            self.all_agree_on(key).await;
        }
    }

    async fn all_agree_on(&self, key: u64) {
        let truth = self.world.lock().database.find(key);
        let task = Task::calm(key);
        for client in self.clients() {
            let (got, found) = (client.get(task).await, client.find(task).await);
            // Nothing is no mistake: the value's life, or its load, may have been too short or too long to be kept.
            let then = client.get(task).await;
            let agrees = found == Some(truth) && [got, then].iter().flatten().all(|got| Some(*got) == truth);
            if !agrees {
                let id = client.id;
                self.world.lock().blame(format!(
                    "node {id} does not agree on {truth:?}: got {got:?}, found {found:?}, then got {then:?}"
                ));
            }
        }
    }

    /// What was lost with a node ends with a clear.
    async fn clear(&self) {
        let Some(client) = self.clients().next() else { return };
        if !matches!(client.clear(None).await, Some(Outcome::Applied(_))) {
            self.world.lock().blame("a clear is not applied though all is well".to_owned());
        }
        sleep(self.longest_bound()).await;
        for key in 0..self.world.plan.keys {
            self.all_agree_on(key).await;
        }
        self.all_loads_end().await;
    }

    /// Be they in the background, or of nodes that have crashed: nothing keeps them any more.
    async fn all_loads_end(&self) {
        let began = self.world.now();
        let under_way = Arc::clone(&self.world.lock().under_way);
        // Besides the world's share and this one.
        while Arc::strong_count(&under_way) > 2 {
            sleep(LOOK_EVERY).await;
            if self.world.now() > began + PATIENCE {
                let left = Arc::strong_count(&under_way) - 2;
                return self.world.lock().blame(format!("{left} loads have not ended after {PATIENCE:?}"));
            }
        }
    }

    fn clients(&self) -> impl Iterator<Item = Client> {
        self.processes.iter().filter_map(|process| {
            let (world, id) = (Arc::clone(&self.world), process.id);
            Some(Client { world, id, cache: process.cache()? })
        })
    }

    fn blame_unsettled(&self) {
        let nodes: String = self.processes.iter().map(|process| self.describe(process)).collect();
        let debts = self.debts();
        self.world.lock().blame(format!("not settled after {PATIENCE:?}: keys {debts:?} are owed{nodes}"));
    }

    fn describe(&self, process: &Process) -> String {
        let facts = process.cache().map(|cache| {
            let stats = cache.stats();
            format!("trusted {}, outbox {}", stats.trusted, stats.outbox_keys)
        });
        let (id, at_rest) = (process.id, process.is_at_rest());
        let station = &self.world.lock().stations[id];
        let (registered, commands, subscriber) =
            (station.is_registered(), station.commands, station.subscriber);
        format!(
            "\n  node {id}: at rest {at_rest}, {facts:?}, registered {registered}, {commands:?}, {subscriber:?}"
        )
    }

    fn end(self, settled_in: Duration) -> Account {
        self.processes.iter().for_each(|process| process.report(&self.world));
        let mut state = self.world.lock();
        let bounds: Vec<_> = state.stations.iter().map(|station| station.plan.bound()).collect();
        let Verdict { violations, reads, stale_reads, worst } = state.judge.judge(&bounds);
        for violation in violations {
            state.blame(violation);
        }
        Account {
            violations: std::mem::take(&mut state.violations),
            counts: std::mem::take(&mut state.counts),
            reads,
            stale_reads,
            worst,
            settled_in,
            trace: state.take_trace(),
        }
    }
}

const MOST_NODES: usize = 5;
const LOOK_EVERY: Duration = millis(20);
/// A watchdog waits for two seconds and a command; twice that, and time to connect and to catch up.
const PATIENCE: Duration = millis(10_000);
