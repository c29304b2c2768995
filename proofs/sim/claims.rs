//! One load per cluster, in histories that are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use nearfar::{Entry, Error, Tier};
use tokio::task::JoinSet;

use crate::clock::{millis, sleep};
use crate::database::Value;
use crate::directed::{plain, quiet_node};
use crate::fleet::{Process, Values};
use crate::freshness::Freshness;
use crate::history::on_virtual_time;
use crate::plan::Plan;
use crate::world::{Id, World};

const CLAIM: Duration = millis(400);
const LOAD: Duration = millis(100);
const KEY: u64 = 0;

/// Nodes that load one at a time, and how often that was.
struct Cluster {
    world: Arc<World>,
    nodes: Vec<(Process, Values)>,
    loads: Arc<AtomicUsize>,
}

impl Cluster {
    async fn of(nodes: usize) -> Self {
        let mut rng = Rng::with_seed(1);
        let freshness = Freshness { claims: Some(CLAIM), ..Freshness::PLAIN };
        let times = Plan { command_timeout: millis(200), fence_window: millis(60_000), ..plain(&mut rng) };
        let world = World::of(&Plan { freshness, ..times }, rng, false);
        let mut cluster = Self { world, nodes: Vec::new(), loads: Arc::default() };
        for _ in 0..nodes {
            cluster.nodes.push(quiet_node(&cluster.world).await);
        }
        cluster
    }

    fn cache(&self, node: Id) -> &Values {
        &self.nodes[node].1
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    /// Reads the database, comes back after a while, or when its process goes on.
    fn load(&self, node: Id, time: Duration) -> impl Future<Output = Result<Entry<Value>, Error>> + use<> {
        let (cache, world, loads) =
            (self.cache(node).clone(), Arc::clone(&self.world), Arc::clone(&self.loads));
        let loader = move |key| async move {
            loads.fetch_add(1, Ordering::Relaxed);
            let value = world.lock().database.find(key);
            sleep(time).await;
            world.awake(node).await;
            value.ok_or(std::io::Error::other("nobody deletes it"))
        };
        async move { cache.get_or_load(&KEY, loader).await }
    }

    fn count(&self, what: &str) -> u64 {
        self.world.lock().counts.get(what).copied().unwrap_or_default()
    }

    fn end(self) {
        assert_eq!(self.world.lock().violations, Vec::<String>::new());
    }
}

fn revision(found: Result<Entry<Value>, Error>) -> u64 {
    found.expect("it is loaded or found").revision
}

#[test]
fn however_many_nodes_and_callers_want_a_key_it_is_loaded_once() {
    on_virtual_time(1, async {
        let cluster = Cluster::of(5).await;
        let mut callers = JoinSet::new();
        (0..25).for_each(|caller| drop(callers.spawn(cluster.load(caller % 5, LOAD))));
        let began = cluster.world.now();
        let found = callers.join_all().await;
        assert!(found.into_iter().all(|found| revision(found) == 0));
        assert_eq!(cluster.loads(), 1);
        assert!(
            cluster.world.now() < began + CLAIM,
            "they are told of the release and need not wait for its end"
        );
        assert_eq!(cluster.count("nodes told of a release"), 4);
        cluster.end();
    });
}

#[test]
fn one_other_node_takes_over_when_the_claimer_has_crashed() {
    on_virtual_time(1, async {
        let mut cluster = Cluster::of(4).await;
        let began = cluster.world.now();
        let first = tokio::spawn(cluster.load(0, LOAD));
        sleep(LOAD / 2).await;
        let mut callers = JoinSet::new();
        (1..4).for_each(|node| drop(callers.spawn(cluster.load(node, LOAD))));
        sleep(LOAD / 4).await;
        assert_eq!(cluster.loads(), 1, "the others wait");
        cluster.nodes.remove(0).0.crash(&cluster.world);
        first.abort();

        assert!(callers.join_all().await.into_iter().all(|found| revision(found) == 0));
        let took = cluster.world.now().saturating_sub(began);
        assert_eq!(cluster.loads(), 2);
        assert!(took >= CLAIM + LOAD, "not before the claim was over: {took:?}");
        assert!(took < CLAIM * 2, "at once then: {took:?}");
        cluster.end();
    });
}

/// The claimer has read the database and stands still. Its claim ends, another node changes the row and invalidates it,
/// and loads the new one. Then the claimer goes on, and proposes the old one to L2.
#[test]
fn a_claimer_that_comes_back_late_does_not_put_an_old_value_over_a_newer_one() {
    on_virtual_time(1, async {
        let cluster = Cluster::of(2).await;
        let late = tokio::spawn(cluster.load(0, LOAD));
        sleep(LOAD / 2).await;
        cluster.world.lock().freeze(0, true);
        cluster.world.lock().tell_everybody();
        sleep(CLAIM).await;
        let now = cluster.world.now();
        assert_eq!(cluster.world.lock().database.commit(KEY, 1, now), Some(1));
        assert!(cluster.cache(1).invalidate(&KEY).await.expect("L2 is there").is_applied());
        assert_eq!(revision(cluster.load(1, LOAD).await), 1);
        assert_eq!(cluster.loads(), 2);

        cluster.world.lock().freeze(0, false);
        cluster.world.lock().tell_everybody();
        assert_eq!(revision(late.await.expect("it was not aborted")), 0, "it was read before the change");
        assert_eq!(cluster.count("old fills refused"), 1);
        let found = cluster.load(0, LOAD).await.expect("L2 is there");
        assert_eq!((found.revision, found.tier()), (1, Tier::L2));
        assert_eq!(cluster.loads(), 2);
        cluster.end();
    });
}

/// The late one lets go of a claim that is not its own any more: whoever holds it now keeps it.
#[test]
fn a_claimer_that_comes_back_late_does_not_end_the_claim_of_another() {
    on_virtual_time(1, async {
        let cluster = Cluster::of(3).await;
        let late = tokio::spawn(cluster.load(0, LOAD));
        sleep(LOAD / 2).await;
        cluster.world.lock().freeze(0, true);
        cluster.world.lock().tell_everybody();
        sleep(CLAIM).await;
        let now = cluster.world.now();
        cluster.world.lock().database.commit(KEY, 2, now);
        assert!(cluster.cache(2).invalidate(&KEY).await.expect("L2 is there").is_applied());
        let second = tokio::spawn(cluster.load(1, LOAD * 3));
        sleep(LOAD / 2).await;

        // Its fill is refused, so that L2 has nothing of the key.
        cluster.world.lock().freeze(0, false);
        cluster.world.lock().tell_everybody();
        assert_eq!(revision(late.await.expect("it was not aborted")), 0);
        sleep(LOAD / 2).await;
        let third = tokio::spawn(cluster.load(2, LOAD));
        sleep(LOAD / 2).await;
        assert_eq!(cluster.loads(), 2, "the second has it still");
        assert_eq!(revision(second.await.expect("it was not aborted")), 1);
        assert_eq!(revision(third.await.expect("it was not aborted")), 1);
        assert_eq!(cluster.loads(), 2);
        cluster.end();
    });
}
