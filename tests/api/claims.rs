//! One load per cluster: who has the claim loads, the others wait, and nobody for ever.

use std::time::Duration;

use futures_util::future::join_all;
use nearfar::backend::{BusEvent, Doubt};
use nearfar::{Cache, CallOptions, ErrorKind, InProcess, Nearfar, Tier};
use nearfar_testkit::eventually;
use nearfar_tests::{Node, World, on_every_backend, trusted};
use tokio::task::JoinHandle;

use crate::origin::{Origin, Outcome, call};

const SECOND: Duration = Duration::from_secs(1);
/// Long enough for every load of a test that is not about its end.
const LONG: Duration = Duration::from_secs(50);

async fn claiming(node: &Node, claim: Duration) -> Cache<String, String> {
    node.nearfar.cache("texts").cluster_single_flight(claim).build().await.unwrap()
}

async fn pair(world: &World, claim: Duration) -> ([Node; 2], [Cache<String, String>; 2]) {
    let nodes = [world.node().await, world.node().await];
    let caches = [claiming(&nodes[0], claim).await, claiming(&nodes[1], claim).await];
    (nodes, caches)
}

/// A caller whose load has begun, with the claim if there is one, and does not end before the origin lets it.
async fn held_up(cache: &Cache<String, String>, origin: &Origin) -> JoinHandle<Outcome> {
    origin.loading.close();
    let caller = call(cache, origin.load());
    origin.loading.holds(1).await;
    caller
}

/// Waits until a node waits for another's load.
async fn waits(cache: &Cache<String, String>) {
    eventually("it waits", async || cache.stats().claim_waits > 0).await;
}

on_every_backend! {
    async fn however_many_want_a_key_on_however_many_nodes_it_is_loaded_once(world: World) {
        let mut caches = Vec::new();
        for _ in 0..4 {
            caches.push(claiming(&world.node().await, LONG).await);
        }
        let origin = Origin::default();
        origin.loading.close();
        let callers: Vec<_> =
            caches.iter().flat_map(|cache| (0..50).map(|_| call(cache, origin.load()))).collect();
        origin.loading.holds(1).await;
        for cache in &caches {
            eventually("all are there", async || cache.stats().joined == 49).await;
        }
        origin.loading.open();
        let entries = join_all(callers).await.into_iter().map(|entry| entry.unwrap().unwrap());
        assert!(entries.into_iter().all(|entry| *entry == "load 1"));
        assert_eq!(origin.loads(), 1);
        assert_eq!(caches.iter().map(|cache| cache.stats().loads).sum::<u64>(), 1);
        let own = caches.iter().filter(|cache| cache.peek("k").is_some()).count();
        assert_eq!(own, 4, "all have a copy");
    }

    /// Its fill is there before the other asks for the claim, but came after the other had looked.
    async fn a_load_that_ended_between_the_look_and_the_claim_is_not_repeated(world: World) {
        let (nodes, [here, there]) = pair(&world, LONG).await;
        let origin = Origin::default();
        nodes[1].valves.claims.close();
        let late = call(&there, origin.load());
        nodes[1].valves.claims.holds(1).await;
        here.get_or_load("k", origin.load()).await.unwrap();
        nodes[1].valves.claims.open();
        let entry = late.await.unwrap().unwrap();
        assert_eq!((entry.as_str(), entry.tier(), origin.loads()), ("load 1", Tier::L2, 1));
    }

    /// It says nothing any more, neither a value nor that it lets go.
    async fn when_the_claimer_hangs_another_takes_over_after_the_claim(world: World) {
        let (_nodes, [here, there]) = pair(&world, Duration::from_millis(300)).await;
        let (stuck, origin) = (Origin::default(), Origin::default());
        let hung = held_up(&here, &stuck).await;
        let entry = there.get_or_load("k", origin.load()).await.unwrap();
        assert_eq!((entry.as_str(), entry.tier(), origin.loads()), ("load 1", Tier::Loader, 1));
        stuck.loading.open();
        assert_eq!(*hung.await.unwrap().unwrap(), "load 1", "its own callers get what it loaded");
    }

    async fn what_a_slow_claimer_loads_does_not_replace_what_is_newer(world: World) {
        let (_nodes, [here, there]) = pair(&world, Duration::from_millis(300)).await;
        let slow = Origin::default();
        let load = held_up(&here, &slow).await;
        there.invalidate("k").await.unwrap();
        let newer = Origin::named("newer");
        assert_eq!(*there.get_or_load("k", newer.load()).await.unwrap(), "newer 1");
        slow.loading.open();
        load.await.unwrap().unwrap();
        assert_eq!(here.stats().fills_refused, 1);
        assert_eq!(*here.get("k").await.unwrap().unwrap(), "newer 1");
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "newer 1");
    }

    async fn a_load_that_fails_lets_the_next_node_try_at_once(world: World) {
        let (_nodes, [here, there]) = pair(&world, LONG).await;
        let (broken, origin) = (Origin::default(), Origin::default());
        broken.loading.close();
        let failing = call(&here, broken.fail());
        broken.loading.holds(1).await;
        let waiting = call(&there, origin.load());
        waits(&there).await;
        broken.loading.open();
        assert_eq!(failing.await.unwrap().unwrap_err().kind(), ErrorKind::Loader);
        assert_eq!(*waiting.await.unwrap().unwrap(), "load 1");
    }

    async fn callers_who_go_away_let_the_claim_go(world: World) {
        let (_nodes, [here, there]) = pair(&world, LONG).await;
        let (stuck, origin) = (Origin::default(), Origin::default());
        let caller = held_up(&here, &stuck).await;
        let waiting = call(&there, origin.load());
        waits(&there).await;
        caller.abort();
        assert_eq!(*waiting.await.unwrap().unwrap(), "load 1");
    }

    /// The one who waits gets a notice for its key alone, and is not told again.
    async fn claims_of_different_keys_have_nothing_to_do_with_each_other(world: World) {
        let (_nodes, [here, there]) = pair(&world, LONG).await;
        let stuck = Origin::default();
        let hung = held_up(&here, &stuck).await;
        let entry = there.get_or_load("another", Origin::default().load()).await.unwrap();
        assert_eq!(entry.tier(), Tier::Loader);
        stuck.loading.open();
        hung.await.unwrap().unwrap();
    }

    async fn who_is_not_told_of_the_end_of_a_claim_looks_all_the_same(world: World) {
        let nodes = [world.node().await, world.node().await];
        let here = claiming(&nodes[0], LONG).await;
        let builder = nodes[1].nearfar.cache("texts").cluster_single_flight(LONG);
        let there: Cache<String, String> =
            builder.max_staleness(Duration::from_millis(500)).build().await.unwrap();
        let (origin, own) = (Origin::default(), Origin::named("own"));
        origin.loading.close();
        nodes[0].valves.releases.close();
        let load = call(&here, origin.load());
        origin.loading.holds(1).await;
        let waiting = call(&there, own.load());
        waits(&there).await;
        origin.loading.open();
        load.await.unwrap().unwrap();
        let entry = waiting.await.unwrap().unwrap();
        assert_eq!((entry.as_str(), entry.tier(), own.loads()), ("load 1", Tier::L2, 0));
        nodes[0].valves.releases.open();
    }

    /// What the one who has the claim is about to load cannot be stored, so nobody waits for it.
    async fn after_an_invalidation_nobody_waits_for_a_load_from_before(world: World) {
        let (_nodes, [here, there]) = pair(&world, LONG).await;
        let (old, new) = (Origin::named("old"), Origin::named("new"));
        let load = held_up(&here, &old).await;
        there.invalidate("k").await.unwrap();
        assert_eq!(*there.get_or_load("k", new.load()).await.unwrap(), "new 1");
        assert_eq!((new.loads(), there.stats().claim_waits), (1, 0));
        old.loading.open();
        assert_eq!(*load.await.unwrap().unwrap(), "old 1");
        assert_eq!(*here.get("k").await.unwrap().unwrap(), "new 1");
    }

    /// It would hear of nothing, so it looks.
    async fn a_node_without_messages_finds_what_another_has_loaded(world: World) {
        let (nodes, [here, there]) = pair(&world, LONG).await;
        trusted(&there).await;
        let (origin, own) = (Origin::default(), Origin::named("own"));
        let load = held_up(&here, &origin).await;
        nodes[1].valves.bus.close();
        nodes[1].valves.inject(BusEvent::Doubt(Doubt::Disconnected));
        let waiting = call(&there, own.load());
        waits(&there).await;
        origin.loading.open();
        load.await.unwrap().unwrap();
        let entry = waiting.await.unwrap().unwrap();
        assert_eq!((entry.as_str(), entry.tier(), own.loads()), ("load 1", Tier::L2, 0));
        nodes[1].valves.bus.open();
    }

    async fn a_caller_waits_for_a_claim_no_longer_than_its_timeout(world: World) {
        let (_nodes, [here, there]) = pair(&world, LONG).await;
        let (stuck, origin) = (Origin::default(), Origin::default());
        let hung = held_up(&here, &stuck).await;
        let hurried = there.with(CallOptions::new().hard_timeout(Duration::from_millis(100)));
        let error = hurried.get_or_load("k", origin.load()).await.unwrap_err();
        assert_eq!((error.kind(), origin.loads()), (ErrorKind::LoadTimedOut, 0));
        stuck.loading.open();
        hung.await.unwrap().unwrap();
    }

    async fn what_was_invalidated_while_a_node_waits_is_not_what_it_gets(world: World) {
        let (nodes, [here, there]) = pair(&world, LONG).await;
        let (old, new) = (Origin::named("old"), Origin::named("new"));
        old.loading.close();
        nodes[0].valves.fills.close();
        let load = call(&here, old.load());
        old.loading.holds(1).await;
        let waiting = call(&there, new.load());
        waits(&there).await;
        old.loading.open();
        nodes[0].valves.fills.holds(1).await;
        there.invalidate("k").await.unwrap();
        nodes[0].valves.fills.open();
        load.await.unwrap().unwrap();
        assert_eq!(*waiting.await.unwrap().unwrap(), "new 1");
    }

    async fn without_l2_every_node_loads_for_itself(world: World) {
        let (nodes, [here, there]) = pair(&world, LONG).await;
        world.cut_off(&nodes[0]).await;
        world.cut_off(&nodes[1]).await;
        let origin = Origin::default();
        origin.loading.close();
        let callers = [call(&here, origin.load()), call(&there, origin.load())];
        origin.loading.holds(2).await;
        origin.loading.open();
        for caller in callers {
            assert_eq!(caller.await.unwrap().unwrap().tier(), Tier::Loader);
        }
    }

    /// A refresh in the background is a load like any other.
    async fn a_stale_value_is_refreshed_by_one_node(world: World) {
        let nodes = [world.node().await, world.node().await];
        let mut caches = Vec::new();
        for node in &nodes {
            let builder = node.nearfar.cache("texts").cluster_single_flight(LONG);
            let builder = builder.grace(LONG).stale_while_revalidate(LONG);
            caches.push(builder.build().await.unwrap());
        }
        let [here, there]: [Cache<String, String>; 2] = caches.try_into().unwrap();
        here.set("k", "old".to_owned()).await.unwrap();
        there.get("k").await.unwrap().unwrap();
        here.expire("k").await.unwrap();
        eventually("it is heard of", async || there.peek("k").is_none()).await;
        let origin = Origin::default();
        origin.loading.close();
        for cache in [&here, &there] {
            assert_eq!(*cache.get_or_load("k", origin.load()).await.unwrap(), "old");
        }
        origin.loading.holds(1).await;
        eventually("the other waits", async || here.stats().claim_waits + there.stats().claim_waits > 0).await;
        origin.loading.open();
        for cache in [&here, &there] {
            eventually("it is fresh", async || cache.peek("k").is_some()).await;
        }
        assert_eq!(origin.loads(), 1);
    }
}

/// In process on paused time, which goes on while everybody waits.
#[tokio::test(start_paused = true)]
async fn no_node_waits_for_longer_than_two_claims() {
    let shared = InProcess::new();
    let origin = Origin::default();
    origin.loading.close();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let nearfar = Nearfar::builder().in_process(&shared);
        let cache: Cache<String, String> =
            nearfar.cache("texts").cluster_single_flight(SECOND).build().await.unwrap();
        nodes.push((call(&cache, origin.load()), nearfar, cache));
        origin.loading.holds(1).await;
    }
    let began = tokio::time::Instant::now();
    // The first has the claim; then one of the others, and the last has waited for both.
    origin.loading.holds(3).await;
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn a_claim_that_outlasts_the_fence_is_refused_when_the_cache_is_built() {
    let nearfar = Nearfar::in_process();
    let builder = nearfar.cache::<u64, u64>("n").fence_window(SECOND);
    let refused = builder.cluster_single_flight(2 * SECOND).build().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    let text = "`cluster_single_flight` of 2s must not be longer than `fence_window` of 1s";
    assert_eq!(refused.to_string(), text);
    let zero = nearfar.cache::<u64, u64>("n").cluster_single_flight(Duration::ZERO).build().await;
    assert_eq!(zero.unwrap_err().to_string(), "`cluster_single_flight` must not be zero");
}
