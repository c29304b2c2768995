//! The nodes: they start, work, crash, and others come.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearfar::{Cache, Nearfar, Stats};
use tokio::task::{JoinHandle, JoinSet};

use crate::backend::{SimBus, SimL2};
use crate::client::Client;
use crate::clock::millis;
use crate::database::Value;
use crate::network::Which;
use crate::plan::NodePlan;
use crate::world::{Id, World};

pub(crate) type Values = Cache<u64, Value>;

/// A process.
pub(crate) struct Process {
    pub(crate) id: Id,
    task: JoinHandle<()>,
    /// Its cache, once it is built.
    cache: Arc<Mutex<Option<Values>>>,
}

impl Process {
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let (id, plan) = world.station();
        if !world.lock().server.up {
            world.cut(id, Which::Both);
        }
        let cache = Arc::default();
        let task = tokio::spawn(live(Arc::clone(world), id, plan, Arc::clone(&cache)));
        Self { id, task, cache }
    }

    pub(crate) fn cache(&self) -> Option<Values> {
        self.cache.lock().expect("whoever panics ends the simulation").clone()
    }

    /// Whether its clients have stopped.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.task.is_finished()
    }

    /// Without a goodbye. What is in its outbox is lost with it.
    pub(crate) fn crash(self, world: &Arc<World>) {
        self.report(world);
        self.task.abort();
        let mut state = world.lock();
        let id = self.id;
        state.note(|| format!("node {id} crashes"));
        let station = &mut state.stations[id];
        station.gone = true;
        station.wanted = None;
        station.registered = false;
        station.inbox.clear();
        station.doubts.clear();
        station.commands.cut();
        station.subscriber.cut();
        station.changed.notify_waiters();
    }

    /// Adds what the node has counted to what the world has.
    pub(crate) fn report(&self, world: &World) {
        let Some(cache) = self.cache() else { return };
        let counts = counted(&cache.stats());
        let mut state = world.lock();
        for (what, count) in counts {
            state.count_many(what, count);
        }
    }
}

fn counted(stats: &Stats) -> [(&'static str, u64); 13] {
    [
        ("L1 hits", stats.l1_hits),
        ("L2 hits", stats.l2_hits),
        ("misses", stats.misses),
        ("reads of L2 failed", stats.l2_failures),
        ("loads", stats.loads),
        ("flights joined", stats.joined),
        ("fills refused at the node", stats.fills_refused),
        ("changes queued", stats.queued),
        ("keys reissued", stats.reissued),
        ("invalidations received", stats.invalidations_received),
        ("doubts", stats.doubts),
        ("messages replayed", stats.replayed),
        // The first is the start.
        ("resyncs", stats.resyncs.saturating_sub(1)),
    ]
}

async fn live(world: Arc<World>, id: Id, plan: NodePlan, place: Arc<Mutex<Option<Values>>>) {
    let cache = build(&world, id, &plan).await;
    *place.lock().expect("whoever panics ends the simulation") = Some(cache.clone());
    world.lock().note(|| format!("node {id} works"));
    let mut clients = JoinSet::new();
    for _ in 0..plan.clients {
        clients.spawn(Client { world: Arc::clone(&world), id, cache: cache.clone() }.work());
    }
    drop(cache);
    clients.join_all().await;
}

/// Tries until it is built, each time with new connections: a watchdog watches over the links of caches that exist.
async fn build(world: &Arc<World>, id: Id, plan: &NodePlan) -> Values {
    loop {
        let settings = world.plan;
        let built = nearfar(world, id, plan)
            .cache("values")
            .max_staleness(plan.max_staleness)
            .disconnected(plan.disconnected())
            .unacknowledged(plan.unacknowledged())
            .fence_window(settings.fence_window)
            .ttl(settings.ttl)
            .jitter(settings.jitter)
            .build()
            .await;
        match built {
            Ok(cache) => return cache,
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
