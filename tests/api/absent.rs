//! What there is not.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use nearfar::{Cache, ErrorKind, Loaded, LookUp, Nearfar};
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::{Node, on_every_backend};

use crate::origin::{Origin, call};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

async fn remembering(node: &Node) -> Cache<String, String> {
    node.nearfar.cache("texts").absent_ttl(HOUR).build().await.unwrap()
}

fn nothing(_: String) -> Ready<Result<Option<String>, Infallible>> {
    ready(Ok(None))
}

/// Whether a load was needed to find nothing.
async fn asks(cache: &Cache<String, String>) -> bool {
    let loads = cache.stats().loads;
    assert!(cache.get_or_load_optional("k", nothing).await.unwrap().is_none());
    cache.stats().loads > loads
}

on_every_backend! {
    async fn what_there_is_not_is_asked_for_once_by_all_nodes(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (remembering(&a).await, remembering(&b).await);
        assert!(asks(&here).await);
        assert!(!asks(&here).await && !asks(&there).await && !asks(&there).await);
        assert!(here.get("k").await.unwrap().is_none() && there.get("k").await.unwrap().is_none());
        assert!(here.peek("k").is_none() && !here.contains("k").await.unwrap());
        assert_eq!((here.stats().l1_hits, there.stats().l2_hits, there.stats().l1_hits), (2, 1, 2));
    }

    async fn without_a_ttl_of_its_own_it_is_not_remembered(world: World) {
        let cache = world.node().await.texts().await;
        assert!(asks(&cache).await && asks(&cache).await);
    }

    async fn it_is_replaced_by_a_value_and_by_an_invalidation_everywhere(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (remembering(&a).await, remembering(&b).await);
        assert!(asks(&here).await && !asks(&there).await);
        there.set("k", "new".into()).await.unwrap();
        eventually("the other hears of it", async || here.get("k").await.unwrap().is_some()).await;
        there.invalidate("k").await.unwrap();
        assert!(asks(&there).await);
        there.expire("k").await.unwrap();
        assert!(asks(&there).await, "of nothing there is no stale form");
    }

    /// It is not remembered that there is nothing, but what there was is not either.
    async fn what_was_found_gone_is_no_fallback(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let mut caches = Vec::new();
        for node in [&a, &b] {
            caches.push(node.nearfar.cache::<String, String>("texts").grace(HOUR).build().await.unwrap());
        }
        let [here, there] = [&caches[0], &caches[1]];
        here.set("k", "old".into()).await.unwrap();
        here.expire("k").await.unwrap();
        assert!(asks(here).await && asks(here).await);
        for cache in [here, there] {
            let failed = cache.get_or_load("k", Origin::default().fail()).await.unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Loader);
        }
    }

    async fn what_is_known_to_be_nothing_is_told_from_what_is_not_known(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (remembering(&a).await, remembering(&b).await);
        assert!(matches!(here.look_up("k").await.unwrap(), LookUp::Miss));
        asks(&here).await;
        for cache in [&here, &there, &there] {
            assert!(matches!(cache.look_up("k").await.unwrap(), LookUp::Absent));
        }
        here.set("k", "new".into()).await.unwrap();
        assert!(matches!(here.look_up("k").await.unwrap(), LookUp::Value(entry) if *entry == "new"));
        here.invalidate("k").await.unwrap();
        assert!(matches!(here.look_up("k").await.unwrap(), LookUp::Miss));
    }

    async fn who_needs_a_value_loads_it(world: World) {
        let cache = remembering(&world.node().await).await;
        assert!(asks(&cache).await);
        let origin = Origin::default();
        assert_eq!(*cache.get_or_load("k", origin.load()).await.unwrap(), "load 1");
        assert!(!asks_although_there(&cache).await);
    }

    async fn who_needs_a_value_and_fails_to_load_it_gets_the_loaders_error(world: World) {
        let cache = remembering(&world.node().await).await;
        assert!(asks(&cache).await);
        let failed = cache.get_or_load("k", Origin::default().fail()).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Loader);
    }

    async fn nothing_does_not_stand_in_for_a_slow_load(world: World) {
        let builder = world.node().await.nearfar.cache("texts").absent_ttl(HOUR).grace(HOUR);
        let builder = builder.stale_while_revalidate(HOUR).soft_timeout(Duration::from_millis(20));
        let cache: Cache<String, String> = builder.build().await.unwrap();
        assert!(asks(&cache).await);
        let origin = Origin::default();
        origin.loading.close();
        let load = call(&cache, origin.load());
        origin.loading.holds(1).await;
        let_pass(Duration::from_millis(60)).await;
        origin.loading.open();
        assert_eq!(*load.await.unwrap().unwrap(), "load 1");
        cache.set_with("k", Loaded::absent()).await.unwrap();
        cache.expire("k").await.unwrap();
        assert!(asks(&cache).await, "of nothing there is no stale form");
    }

    async fn who_needs_a_value_and_has_joined_who_finds_nothing_is_told(world: World) {
        let cache = remembering(&world.node().await).await;
        let origin = Origin::default();
        origin.loading.close();
        let first = tokio::spawn({
            let (cache, gate) = (cache.clone(), origin.loading.clone());
            async move {
                let finds_nothing = |_| async move {
                    gate.pass().await;
                    Ok::<Option<String>, Infallible>(None)
                };
                cache.get_or_load_optional("k", finds_nothing).await
            }
        });
        origin.loading.holds(1).await;
        let second = call(&cache, origin.load());
        eventually("it joins", async || cache.stats().joined == 1).await;
        origin.loading.open();
        assert!(first.await.unwrap().unwrap().is_none());
        assert_eq!(second.await.unwrap().unwrap_err().kind(), ErrorKind::Absent);
    }

    /// R3, with nothing: it is created while somebody finds nothing.
    async fn nothing_is_not_put_over_what_came_meanwhile(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (remembering(&a).await, remembering(&b).await);
        a.valves.fills.close();
        let load = tokio::spawn({
            let cache = here.clone();
            async move { cache.get_or_load_optional("k", nothing).await }
        });
        a.valves.fills.holds(1).await;
        there.set("k", "new".into()).await.unwrap();
        a.valves.fills.open();
        assert!(load.await.unwrap().unwrap().is_none());
        for cache in [&here, &there] {
            assert_eq!(*cache.get("k").await.unwrap().unwrap(), "new");
        }
    }

    async fn what_is_not_to_be_stored_is_not(world: World) {
        let cache = remembering(&world.node().await).await;
        for loaded in [Loaded::new("v".to_owned()).do_not_store(), Loaded::new("v".to_owned()).ttl(Duration::ZERO)] {
            let entry = cache.get_or_load_with("k", |_| ready(Ok::<_, Infallible>(loaded))).await.unwrap();
            assert_eq!(*entry.unwrap(), "v");
            assert!(cache.peek("k").is_none() && !cache.contains("k").await.unwrap());
        }
        let nothing = Loaded::absent().do_not_store();
        assert!(cache.get_or_load_with("k", |_| ready(Ok::<_, Infallible>(nothing))).await.unwrap().is_none());
        assert!(asks(&cache).await);
        assert_eq!(cache.stats().fills_refused, 0);
    }

    async fn it_can_be_said_that_there_is_nothing(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (remembering(&a).await, remembering(&b).await);
        here.set("k", "old".into()).await.unwrap();
        there.get("k").await.unwrap().unwrap();
        here.set_with("k", Loaded::absent()).await.unwrap();
        assert!(!asks(&here).await);
        eventually("the other hears of it", async || there.peek("k").is_none()).await;
        assert!(!asks(&there).await);
    }
}

async fn asks_although_there(cache: &Cache<String, String>) -> bool {
    let loads = cache.stats().loads;
    assert!(cache.get_or_load_optional("k", nothing).await.unwrap().is_some());
    cache.stats().loads > loads
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_lives_for_its_own_ttl_and_has_no_grace() {
    let builder = Nearfar::in_process().cache("texts").ttl(HOUR).grace(HOUR).absent_ttl(10 * SECOND);
    let cache: Cache<String, String> = builder.build().await.unwrap();
    assert!(asks(&cache).await);
    pass(9 * SECOND).await;
    assert!(!asks(&cache).await);
    pass(SECOND).await;
    assert!(asks(&cache).await);
}

#[tokio::test(start_paused = true)]
async fn a_loaded_value_brings_its_own_lifetime() {
    let cache: Cache<String, String> =
        Nearfar::in_process().cache("texts").ttl(10 * SECOND).build().await.unwrap();
    let load = |ttl: Duration, grace: Duration| {
        move |_| ready(Ok::<_, Infallible>(Loaded::new("v".to_owned()).ttl(ttl).grace(grace)))
    };
    let origin = Origin::default();
    cache.get_or_load_with("k", load(5 * SECOND, 3 * SECOND)).await.unwrap();
    let mut timeline = String::new();
    for _ in 0..9 {
        let read = cache.get_or_load("k", origin.fail()).await;
        timeline.push(match read.map(|entry| entry.staleness().is_some()) {
            Ok(false) => '-',
            Ok(true) => 'f',
            Err(_) => 'x',
        });
        pass(SECOND).await;
    }
    assert_eq!(timeline, "-----fffx");

    cache.get_or_load_with("k", load(Duration::MAX, Duration::MAX)).await.unwrap();
    pass(1000 * HOUR).await;
    assert!(cache.get("k").await.unwrap().is_some(), "for ever");
}
