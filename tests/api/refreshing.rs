//! Values that are loaded again before they expire.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use nearfar::{Cache, InProcess, Nearfar, RefreshAhead, Tier};
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::{Node, on_every_backend};

use crate::origin::Origin;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Whose every value is due at once, though not twice within an hour.
async fn eager(node: &Node) -> Cache<String, String> {
    let builder = node.nearfar.cache("texts").refresh_ahead(RefreshAhead::After(0.0));
    builder.retry_interval(HOUR).build().await.unwrap()
}

on_every_backend! {
    async fn readers_get_what_is_there_while_one_load_runs(world: World) {
        let cache = eager(&world.node().await).await;
        let origin = Origin::default();
        cache.get_or_load("k", origin.load()).await.unwrap();
        origin.loading.close();
        for _ in 0..50 {
            let entry = cache.get_or_load("k", origin.load()).await.unwrap();
            assert_eq!((entry.as_str(), entry.tier(), entry.staleness()), ("load 1", Tier::L1, None));
        }
        origin.loading.holds(1).await;
        origin.loading.open();
        eventually("it is refreshed", async || cache.peek("k").is_some_and(|entry| *entry == "load 2")).await;
        assert_eq!(origin.loads(), 2);
    }

    async fn what_another_node_has_in_l2_is_due_as_well(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (eager(&a).await, eager(&b).await);
        let origin = Origin::default();
        here.get_or_load("k", origin.load()).await.unwrap();
        let entry = there.get_or_load("k", origin.load()).await.unwrap();
        assert_eq!((entry.as_str(), entry.tier()), ("load 1", Tier::L2));
        eventually("it is refreshed", async || there.peek("k").is_some_and(|entry| *entry == "load 2")).await;
    }

    /// R4: a refresh has read the old row when the key is invalidated.
    async fn a_refresh_never_puts_an_old_value_back(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (eager(&a).await, eager(&b).await);
        let origin = Origin::default();
        here.get_or_load("k", origin.load()).await.unwrap();
        origin.loading.close();
        here.get_or_load("k", origin.load()).await.unwrap();
        origin.loading.holds(1).await;
        there.invalidate("k").await.unwrap();
        eventually("it is heard of", async || here.stats().invalidations_received == 1).await;
        origin.loading.open();
        eventually("the refresh is refused", async || here.stats().fills_refused == 1).await;
        assert!(here.get("k").await.unwrap().is_none() && there.get("k").await.unwrap().is_none());
    }

    async fn a_refresh_that_fails_hurts_nobody(world: World) {
        let cache = eager(&world.node().await).await;
        let origin = Origin::default();
        cache.get_or_load("k", origin.load()).await.unwrap();
        assert_eq!(*cache.get_or_load("k", origin.fail()).await.unwrap(), "load 1");
        eventually("it has failed", async || cache.stats().load_failures == 1).await;
        let entry = cache.get_or_load("k", origin.panic()).await.unwrap();
        assert_eq!((entry.as_str(), entry.staleness()), ("load 1", None));
        assert_eq!(origin.loads(), 2, "it is not tried again at once");
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_node_refreshes_and_the_others_take_it_from_l2() {
    let shared = InProcess::new();
    let node = async || {
        let builder = Nearfar::builder().in_process(&shared).cache("texts").ttl(10 * SECOND);
        builder.refresh_ahead(RefreshAhead::After(0.5)).build().await.unwrap()
    };
    let (here, there): (Cache<String, String>, Cache<String, String>) = (node().await, node().await);
    let origin = Origin::default();
    for cache in [&here, &there] {
        cache.get_or_load("k", origin.load()).await.unwrap();
    }
    pass(4 * SECOND).await;
    here.get_or_load("k", origin.load()).await.unwrap();
    assert_eq!(origin.loads(), 1, "it is not due yet");
    pass(SECOND).await;
    here.get_or_load("k", origin.load()).await.unwrap();
    pass(Duration::from_millis(1)).await;
    assert_eq!(*here.peek("k").unwrap(), "load 2");
    assert_eq!(*there.get_or_load("k", origin.load()).await.unwrap(), "load 1");
    pass(Duration::from_millis(1)).await;
    assert_eq!(*there.peek("k").unwrap(), "load 2");
    assert_eq!(origin.loads(), 2);
}

/// Each of many readers waits for the load of what has expired, unless one of them has come before.
#[tokio::test(start_paused = true)]
async fn what_is_read_often_never_expires_if_it_is_refreshed_by_chance() {
    let builder = Nearfar::in_process().cache("texts").ttl(10 * SECOND);
    let cache: Cache<u8, u8> = builder.refresh_ahead(RefreshAhead::Probabilistic(1.0)).build().await.unwrap();
    let load = |key| async move {
        let_pass(SECOND).await;
        Ok::<_, Infallible>(key)
    };
    cache.get_or_load(&1, load).await.unwrap();
    for _ in 0..6_000 {
        cache.get_or_load(&1, load).await.unwrap();
        pass(Duration::from_millis(10)).await;
    }
    // The last refresh may be under way.
    pass(2 * SECOND).await;
    let stats = cache.stats();
    assert_eq!(stats.misses, 1, "only the first has waited");
    assert!((6..=30).contains(&stats.loads), "{} loads in six lifetimes", stats.loads);

    cache.set(&2, 2).await.unwrap();
    pass(9 * SECOND).await;
    cache.get_or_load(&2, |_| ready(Ok::<_, Infallible>(3))).await.unwrap();
    assert_eq!(cache.stats().loads, stats.loads, "what was set has no cost");
}

#[tokio::test]
async fn a_refresh_that_makes_no_sense_is_refused() {
    let nearfar = Nearfar::in_process();
    for wrong in [1.0, -0.1, f64::NAN].map(RefreshAhead::After) {
        let refused = nearfar.cache::<u8, u8>("n").refresh_ahead(wrong).build().await.unwrap_err();
        assert!(refused.to_string().starts_with("`refresh_ahead` is after a fraction"), "{refused}");
    }
    for wrong in [0.0, -1.0, f64::INFINITY, f64::NAN].map(RefreshAhead::Probabilistic) {
        let refused = nearfar.cache::<u8, u8>("n").refresh_ahead(wrong).build().await.unwrap_err();
        assert!(refused.to_string().starts_with("`refresh_ahead` takes a positive number"), "{refused}");
    }
}
