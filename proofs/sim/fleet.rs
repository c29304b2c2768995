//! The nodes: they start, work, crash, and others come.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use nearfar::backend::Batch;
use nearfar::{Cache, Nearfar, Stats, Undelivered};
use tokio::task::{JoinHandle, JoinSet};

use crate::backend::{SimBus, SimL2};
use crate::client::Client;
use crate::clock::millis;
use crate::database::{Value, tag_of};
use crate::network::Which;
use crate::plan::NodePlan;
use crate::world::{Id, World};

pub(crate) type Values = Cache<u64, Value>;

/// A process.
pub(crate) struct Process {
    pub(crate) id: Id,
    task: JoinHandle<()>,
    place: Place,
}

/// Where a process has its node, once it is built.
type Place = Arc<Mutex<Option<(Nearfar, Values)>>>;

impl Process {
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let (id, plan) = world.station();
        if !world.lock().server.up {
            world.cut(id, Which::Both);
        }
        let place = Place::default();
        let task = tokio::spawn(live(Arc::clone(world), id, plan, Arc::clone(&place)));
        Self { id, task, place }
    }

    pub(crate) fn node(&self) -> Option<(Nearfar, Values)> {
        self.place.lock().expect("whoever panics ends the simulation").clone()
    }

    pub(crate) fn cache(&self) -> Option<Values> {
        self.node().map(|(_, cache)| cache)
    }

    /// Whether its clients have stopped.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.task.is_finished()
    }

    /// Without a goodbye. What is in its outbox is lost with it.
    pub(crate) fn crash(self, world: &World) {
        self.report(world);
        self.task.abort();
        self.disappear(world);
    }

    /// With a goodbye: what its node does not say it leaves undone, L2 has heard of.
    pub(crate) async fn leave(self, world: &World) {
        self.task.abort();
        // Its clients, too, have gone by then.
        world.doze(1..=1).await;
        if let Some((nearfar, _)) = self.node() {
            let left = nearfar.shutdown().await;
            self.check_goodbye(world, &left);
        }
        self.report(world);
        self.disappear(world);
    }

    fn check_goodbye(&self, world: &World, left: &[Undelivered]) {
        let mut state = world.lock();
        let id = self.id;
        state.note(|| format!("node {id} leaves, and leaves undone {left:?}"));
        let names = |key: &u64| left.iter().any(|undelivered| names(&undelivered.what, *key));
        for key in
            state.database.keys().filter(|key| state.database.author(*key) == Some(id)).collect::<Vec<_>>()
        {
            let revision = state.database.revision(key);
            if names(&key) {
                state.count("keys left undone at a goodbye");
            } else if !state.judge.has_seen(key, revision) {
                state.blame(format!("node {id} left and said nothing of revision {revision} of key {key}"));
            }
        }
    }

    fn disappear(self, world: &World) {
        let mut state = world.lock();
        let id = self.id;
        state.note(|| format!("node {id} is gone"));
        let station = &mut state.stations[id];
        station.gone = true;
        station.wanted.clear();
        station.registered.clear();
        station.inbox.clear();
        station.doubts.clear();
        station.commands.cut();
        station.subscriber.cut();
        station.changed.notify_waiters();
    }

    /// Adds what the node has counted to what the world has.
    pub(crate) fn report(&self, world: &World) {
        let Some(cache) = self.cache() else { return };
        let own = cache.stats();
        let counts = counted(&own);
        let mut state = world.lock();
        if own.unreadable + own.unstorable > 0 {
            state.blame(format!("node {} cannot read what others store, or store: {own:?}", self.id));
        }
        for (what, count) in counts {
            state.count_many(what, count);
        }
    }
}

fn counted(stats: &Stats) -> [(&'static str, u64); 17] {
    [
        ("L1 hits", stats.l1_hits),
        ("L2 hits", stats.l2_hits),
        ("misses", stats.misses),
        ("reads of L2 failed", stats.l2_failures),
        ("loads", stats.loads),
        ("stale hits", stats.stale_hits),
        ("flights joined", stats.joined),
        ("fills refused at the node", stats.fills_refused),
        ("reads together with others", stats.coalesced_reads),
        ("changes together with others", stats.coalesced_changes),
        ("fills together with others", stats.coalesced_fills),
        ("changes queued", stats.queued),
        ("keys reissued", stats.reissued),
        ("invalidations received", stats.invalidations_received),
        ("doubts", stats.doubts),
        ("messages replayed", stats.replayed),
        // The first is the start.
        ("resyncs", stats.resyncs.saturating_sub(1)),
    ]
}

fn names(batch: &Batch, key: u64) -> bool {
    match batch {
        Batch::Keys(keys) => keys.contains(&Bytes::from(key.to_string())),
        Batch::Tags(tags) => tags.contains(&Bytes::from(tag_of(key))),
        Batch::Everything => true,
    }
}

async fn live(world: Arc<World>, id: Id, plan: NodePlan, place: Place) {
    let (nearfar, cache) = build(&world, id, &plan).await;
    *place.lock().expect("whoever panics ends the simulation") = Some((nearfar, cache.clone()));
    world.lock().note(|| format!("node {id} works"));
    let mut clients = JoinSet::new();
    for _ in 0..plan.clients {
        clients.spawn(Client { world: Arc::clone(&world), id, cache: cache.clone() }.work());
    }
    drop(cache);
    clients.join_all().await;
}

/// Tries until it is built, each time with new connections: a watchdog watches over the links of caches that exist.
async fn build(world: &Arc<World>, id: Id, plan: &NodePlan) -> (Nearfar, Values) {
    loop {
        let (settings, nearfar) = (world.plan, nearfar(world, id, plan));
        let builder = nearfar
            .cache("values")
            .max_staleness(plan.max_staleness)
            .disconnected(plan.disconnected())
            .unacknowledged(plan.unacknowledged())
            .fence_window(settings.fence_window);
        match plan.freshness.applied_to(builder).build().await {
            Ok(cache) => return (nearfar, cache),
            Err(_) => world.lock().count("starts failed"),
        }
        world.cut(id, Which::Both);
        world.doze(70..=150).await;
    }
}

fn nearfar(world: &Arc<World>, id: Id, plan: &NodePlan) -> Nearfar {
    let builder = Nearfar::builder()
        .tokio_time()
        .command_timeout(world.plan.command_timeout)
        .connect_timeout(CONNECT_TIMEOUT);
    let builder = if plan.starts_degraded { builder.start_degraded() } else { builder };
    let (l2, bus) = (SimL2 { world: Arc::clone(world), id }, SimBus { world: Arc::clone(world), id });
    builder.backend(Arc::new(l2), Box::new(bus))
}

const CONNECT_TIMEOUT: Duration = millis(300);
