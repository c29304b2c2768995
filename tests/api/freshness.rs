//! What is stale: when it is served, and when it is not.

use std::time::Duration;

use nearfar::{Cache, Disconnected, Entry, ErrorKind, InProcess, Nearfar, Staleness, Tier};
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::{Node, on_every_backend, trusted};

use crate::origin::{Broken, Origin, call};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// With a fallback for whatever is stale.
async fn forgiving(node: &Node) -> Cache<String, String> {
    node.nearfar.cache("texts").grace(HOUR).build().await.unwrap()
}

/// With stale values at once.
async fn hasty(node: &Node) -> Cache<String, String> {
    let builder = node.nearfar.cache("texts").grace(HOUR);
    builder.stale_while_revalidate(Duration::MAX).build().await.unwrap()
}

async fn set(cache: &Cache<String, String>, value: &str) {
    assert!(cache.set("k", value.to_owned()).await.unwrap().is_applied());
}

fn seen(entry: &Entry<String>) -> (&str, Option<Staleness>) {
    (entry, entry.staleness())
}

on_every_backend! {
    async fn what_was_expired_is_a_miss_everywhere_and_a_fallback(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (forgiving(&a).await, forgiving(&b).await);
        set(&here, "old").await;
        there.get("k").await.unwrap().unwrap();
        assert!(here.expire("k").await.unwrap().is_applied());
        assert!(here.peek("k").is_none() && here.get("k").await.unwrap().is_none());
        eventually("the other hears of it", async || there.peek("k").is_none()).await;
        assert!(there.get("k").await.unwrap().is_none() && !there.contains("k").await.unwrap());

        let origin = Origin::default();
        for cache in [&here, &there] {
            let entry = cache.get_or_load("k", origin.fail()).await.unwrap();
            assert_eq!(seen(&entry), ("old", Some(Staleness::LoadFailed)));
        }
        eventually("it is tried again", async || {
            seen(&there.get_or_load("k", origin.load()).await.unwrap()).1.is_none()
        })
        .await;
        let entry = there.get("k").await.unwrap().unwrap();
        assert_eq!(seen(&entry), ("load 3", None));
        assert_eq!(*here.get("k").await.unwrap().unwrap(), "load 3");
    }

    async fn what_was_expired_is_a_fallback_for_a_node_that_has_no_copy(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (forgiving(&a).await, forgiving(&b).await);
        set(&here, "old").await;
        here.expire("k").await.unwrap();
        let entry = there.get_or_load("k", Origin::default().panic()).await.unwrap();
        assert_eq!(seen(&entry), ("old", Some(Staleness::LoadFailed)));
    }

    async fn what_was_expired_without_grace_and_ttl_left_is_a_fallback_until_its_ttl(world: World) {
        let cache = world.node().await.texts().await;
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        let entry = cache.get_or_load("k", Origin::default().fail()).await.unwrap();
        assert_eq!(seen(&entry), ("old", Some(Staleness::LoadFailed)));
    }

    async fn what_was_invalidated_is_no_fallback(world: World) {
        let cache = forgiving(&world.node().await).await;
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        cache.invalidate("k").await.unwrap();
        let failed = cache.get_or_load("k", Origin::default().fail()).await.unwrap_err();
        assert_eq!(failed.downcast_ref(), Some(&Broken("no database")));
    }

    async fn what_is_expired_after_an_invalidation_is_still_wrong(world: World) {
        let cache = forgiving(&world.node().await).await;
        set(&cache, "old").await;
        cache.invalidate("k").await.unwrap();
        cache.expire("k").await.unwrap();
        assert_eq!(cache.get_or_load("k", Origin::default().fail()).await.unwrap_err().kind(), ErrorKind::Loader);
    }

    /// The load has begun when the value was only stale.
    async fn what_is_invalidated_during_a_load_that_fails_is_no_fallback(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (forgiving(&a).await, forgiving(&b).await);
        set(&here, "old").await;
        here.expire("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        let load = call(&here, origin.fail());
        origin.loading.holds(1).await;
        there.invalidate("k").await.unwrap();
        eventually("it is heard of", async || here.stats().invalidations_received == 1).await;
        origin.loading.open();
        assert_eq!(load.await.unwrap().unwrap_err().kind(), ErrorKind::Loader);
    }

    async fn stale_values_are_served_at_once_while_one_load_runs(world: World) {
        let cache = hasty(&world.node().await).await;
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        for _ in 0..10 {
            let entry = cache.get_or_load("k", origin.load()).await.unwrap();
            assert_eq!(seen(&entry), ("old", Some(Staleness::Revalidating)));
        }
        origin.loading.holds(1).await;
        origin.loading.open();
        eventually("it is fresh", async || cache.peek("k").is_some()).await;
        let entry = cache.get_or_load("k", origin.load()).await.unwrap();
        assert_eq!((seen(&entry), entry.tier()), (("load 1", None), Tier::L1));
        assert_eq!((origin.loads(), cache.stats().stale_hits), (1, 10));
    }

    async fn a_stale_value_in_l2_is_served_at_once_as_well(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (hasty(&a).await, hasty(&b).await);
        set(&here, "old").await;
        here.expire("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        let entry = there.get_or_load("k", origin.load()).await.unwrap();
        assert_eq!((seen(&entry), entry.tier()), (("old", Some(Staleness::Revalidating)), Tier::L2));
        origin.loading.holds(1).await;
        origin.loading.open();
        eventually("it is fresh", async || there.peek("k").is_some()).await;
        assert_eq!(*here.get("k").await.unwrap().unwrap(), "load 1");
    }

    /// R4: a refresh in the background has read the old row when the key is invalidated.
    async fn a_refresh_never_puts_an_old_value_back(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (hasty(&a).await, hasty(&b).await);
        set(&here, "old").await;
        here.expire("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        here.get_or_load("k", origin.load()).await.unwrap();
        origin.loading.holds(1).await;
        there.invalidate("k").await.unwrap();
        eventually("it is heard of", async || here.stats().invalidations_received == 1).await;
        origin.loading.open();
        eventually("the refresh is refused", async || here.stats().fills_refused == 1).await;
        assert!(here.get("k").await.unwrap().is_none() && there.get("k").await.unwrap().is_none());
    }

    /// Of the same number, since a load changes no truth. The old one was read before the load, and comes after it.
    async fn an_old_value_that_was_read_before_does_not_replace_what_was_loaded(world: World) {
        let node = world.node().await;
        let cache = forgiving(&node).await;
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        let_pass(Duration::from_millis(50)).await;
        let origin = Origin::default();
        origin.loading.close();
        let load = call(&cache, origin.load());
        origin.loading.holds(1).await;
        node.valves.reads.close();
        let read = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get("k").await.unwrap() }
        });
        node.valves.reads.holds(1).await;
        origin.loading.open();
        assert_eq!(*load.await.unwrap().unwrap(), "load 1");
        node.valves.reads.open();
        assert!(read.await.unwrap().is_none());
        assert_eq!(cache.peek("k").as_deref().map(String::as_str), Some("load 1"));
    }

    /// R19, with a refresh: whoever comes after the invalidation does not join it.
    async fn a_caller_after_an_invalidation_does_not_join_a_refresh_from_before(world: World) {
        let cache = hasty(&world.node().await).await;
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        cache.get_or_load("k", origin.load()).await.unwrap();
        origin.loading.holds(1).await;
        cache.invalidate("k").await.unwrap();
        let second = call(&cache, origin.load());
        origin.loading.holds(2).await;
        origin.loading.open();
        assert_eq!(*second.await.unwrap().unwrap(), "load 2");
    }

    async fn a_refresh_that_is_asked_for_twice_is_joined_by_who_cannot_do_with_what_is_stale(world: World) {
        let node = world.node().await;
        let builder = node.nearfar.cache("texts").grace(HOUR).stale_while_revalidate(Duration::MAX);
        let cache: Cache<String, String> = builder.build().await.unwrap();
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        cache.get_or_load("k", origin.load()).await.unwrap();
        origin.loading.holds(1).await;
        world.interrupt_subscriptions().await;
        trusted(&cache).await;
        origin.loading.open();
        eventually("it is fresh", async || cache.get("k").await.unwrap().is_some()).await;
        assert_eq!(origin.loads(), 1);
    }

    async fn a_slow_load_is_not_waited_for_while_there_is_something_stale(world: World) {
        let builder = world.node().await.nearfar.cache("texts").grace(HOUR);
        let cache: Cache<String, String> = builder.soft_timeout(Duration::from_millis(50)).build().await.unwrap();
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        for _ in 0..2 {
            let entry = cache.get_or_load("k", origin.load()).await.unwrap();
            assert_eq!(seen(&entry), ("old", Some(Staleness::LoadSlow)));
        }
        origin.loading.open();
        eventually("its value is stored", async || cache.peek("k").is_some()).await;
        assert_eq!(*cache.get("k").await.unwrap().unwrap(), "load 1");
        assert_eq!(origin.loads(), 1);
    }

    async fn a_load_that_takes_too_long_is_an_error_and_goes_on_for_the_next(world: World) {
        let builder = world.node().await.nearfar.cache("texts");
        let cache: Cache<String, String> = builder.hard_timeout(Duration::from_millis(50)).build().await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        for _ in 0..2 {
            let late = cache.get_or_load("k", origin.load()).await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::LoadTimedOut);
            assert_eq!(late.to_string(), "the load took longer than 50ms");
        }
        origin.loading.open();
        eventually("its value is stored", async || cache.peek("k").is_some()).await;
        assert_eq!(origin.loads(), 1);
    }

    async fn a_load_that_takes_too_long_is_given_up_if_told_so(world: World) {
        let builder = world.node().await.nearfar.cache("texts").finish_timed_out_loads(false);
        let cache: Cache<String, String> = builder.hard_timeout(Duration::from_millis(50)).build().await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        assert_eq!(cache.get_or_load("k", origin.load()).await.unwrap_err().kind(), ErrorKind::LoadTimedOut);
        origin.loading.holds(0).await;
        origin.loading.open();
        assert_eq!(*cache.get_or_load("k", origin.load()).await.unwrap(), "load 2");
    }

    async fn what_was_invalidated_is_not_served_for_a_load_that_takes_too_long(world: World) {
        let builder = world.node().await.nearfar.cache("texts").grace(HOUR);
        let builder = builder.soft_timeout(Duration::from_millis(20)).hard_timeout(Duration::from_millis(50));
        let cache: Cache<String, String> = builder.build().await.unwrap();
        set(&cache, "old").await;
        cache.expire("k").await.unwrap();
        cache.invalidate("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        assert_eq!(cache.get_or_load("k", origin.load()).await.unwrap_err().kind(), ErrorKind::LoadTimedOut);
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    // Beats that have become due are sent and answered, and refreshes end.
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_fresh_for_its_ttl_stale_at_once_for_a_while_and_a_fallback_for_its_grace() {
    let builder = Nearfar::in_process().cache("n").ttl(10 * SECOND).grace(20 * SECOND);
    let builder = builder.stale_while_revalidate(5 * SECOND).retry_interval(Duration::ZERO);
    let cache: Cache<String, String> = builder.build().await.unwrap();
    let origin = Origin::default();
    set(&cache, "old").await;
    let mut timeline = Vec::new();
    for _ in 0..32 {
        let read = cache.get_or_load("k", origin.fail()).await;
        timeline.push(match read.map(|entry| entry.staleness()) {
            Ok(None) => '-',
            Ok(Some(Staleness::Revalidating)) => 'r',
            Ok(Some(_)) => 'f',
            Err(_) => 'x',
        });
        pass(SECOND).await;
    }
    let timeline: String = timeline.into_iter().collect();
    assert_eq!(timeline, "----------rrrrrfffffffffffffffxx");
}

#[tokio::test(start_paused = true)]
async fn a_dead_origin_is_asked_once_per_interval_and_not_per_read() {
    let shared = InProcess::new();
    let node = || Nearfar::builder().in_process(&shared);
    let (nearfar, other) = (node(), node());
    let builder = |nearfar: &Nearfar| nearfar.cache("n").ttl(SECOND).grace(HOUR).retry_interval(10 * SECOND);
    let cache: Cache<String, String> = builder(&nearfar).build().await.unwrap();
    let without_trust: Cache<String, String> = builder(&other).build().await.unwrap();
    set(&cache, "old").await;
    pass(2 * SECOND).await;
    let (origin, origin_of_other) = (Origin::default(), Origin::default());
    for _ in 0..20 {
        for _ in 0..50 {
            let entry = cache.get_or_load("k", origin.fail()).await.unwrap();
            assert_eq!(seen(&entry), ("old", Some(Staleness::LoadFailed)));
        }
        pass(SECOND).await;
    }
    assert_eq!(origin.loads(), 2);

    shared.cut_bus();
    pass(10 * SECOND).await;
    for _ in 0..50 {
        without_trust.get_or_load("k", origin_of_other.fail()).await.unwrap();
    }
    assert_eq!(origin_of_other.loads(), 1, "what is read from L2 again and again counts as the same");
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_does_not_outlive_its_grace_when_it_is_declared_stale_before() {
    let builder = Nearfar::in_process().cache("n").ttl(10 * SECOND).grace(5 * SECOND);
    let cache: Cache<String, String> = builder.build().await.unwrap();
    set(&cache, "old").await;
    pass(9 * SECOND).await;
    cache.expire("k").await.unwrap();
    pass(5 * SECOND).await;
    let origin = Origin::default();
    assert_eq!(*cache.get_or_load("k", origin.fail()).await.unwrap(), "old");
    pass(SECOND).await;
    assert!(cache.get_or_load("k", origin.fail()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_loaded_while_l2_is_away_replaces_what_is_stale() {
    let shared = InProcess::new();
    let builder = Nearfar::builder().in_process(&shared).cache("n").ttl(SECOND).grace(HOUR);
    let builder = builder.disconnected(Disconnected::Serve).stale_while_revalidate(HOUR);
    let cache: Cache<String, String> = builder.build().await.unwrap();
    set(&cache, "old").await;
    shared.cut_store();
    shared.cut_bus();
    pass(2 * SECOND).await;
    let origin = Origin::default();
    assert_eq!(*cache.get_or_load("k", origin.load()).await.unwrap(), "old");
    pass(Duration::from_millis(1)).await;
    assert_eq!(seen(&cache.get_or_load("k", origin.load()).await.unwrap()), ("load 1", None));
    assert_eq!(origin.loads(), 1);
}
