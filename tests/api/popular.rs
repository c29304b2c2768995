//! What is read so often that it stands in the front of L1 is as coherent as the rest.

use std::time::Duration;

use nearfar::{Cache, CallOptions, Loaded, Outcome, Tier};
use nearfar_testkit::{accesses, eventually};
use nearfar_tests::{Node, World, on_every_backend};

type Texts = Cache<String, String>;

const MINUTE: Duration = Duration::from_secs(60);

/// So often that it is in the front by then, if it ever is, and that hits are passed on to the policy of L1.
async fn read_often(cache: &Texts, key: &str, value: &str) {
    for _ in 0..200 {
        let entry = cache.get(key).await.unwrap().unwrap();
        assert_eq!((entry.as_str(), entry.tier()), (value, Tier::L1));
    }
}

/// Two caches of one namespace, in both of which `k` is popular.
async fn popular(a: &Node, b: &Node) -> (Texts, Texts) {
    let build = async |node: &Node| node.nearfar.cache("texts").grace(MINUTE).build().await.unwrap();
    let (here, there): (Texts, Texts) = (build(a).await, build(b).await);
    here.set_with("k", Loaded::new("old".to_owned()).tags(["tag"])).await.unwrap();
    eventually("it is in L1 there", async || {
        there.get("k").await.unwrap().is_some_and(|entry| entry.tier() == Tier::L1)
    })
    .await;
    for cache in [&here, &there] {
        read_often(cache, "k", "old").await;
    }
    (here, there)
}

async fn is_gone(cache: &Texts) -> bool {
    cache.get("k").await.unwrap().is_none_or(|entry| *entry != "old")
}

/// Changes it here; then it is gone here at once, and there soon, for good.
async fn after(world: &World, change: impl AsyncFn(&Texts) -> Outcome) -> (Texts, Texts) {
    let (a, b) = (world.node().await, world.node().await);
    let (here, there) = popular(&a, &b).await;
    assert!(change(&here).await.is_applied());
    assert!(is_gone(&here).await);
    eventually("it is gone there", async || is_gone(&there).await).await;
    for _ in 0..100 {
        assert!(is_gone(&here).await && is_gone(&there).await);
    }
    (here, there)
}

on_every_backend! {
    async fn an_invalidation_takes_it_from_the_front(world: World) {
        after(&world, async |cache| cache.invalidate("k").await.unwrap()).await;
    }

    async fn a_set_replaces_it_in_the_front(world: World) {
        let (here, there) = after(&world, async |cache| cache.set("k", "new".to_owned()).await.unwrap()).await;
        for cache in [&here, &there] {
            read_often(cache, "k", "new").await;
        }
    }

    async fn an_expiration_takes_it_from_the_front(world: World) {
        after(&world, async |cache| cache.expire("k").await.unwrap()).await;
    }

    async fn an_invalidation_of_its_tag_takes_it_from_the_front(world: World) {
        after(&world, async |cache| cache.invalidate_tag("tag").await.unwrap()).await;
    }

    async fn an_expiration_of_its_tag_takes_it_from_the_front(world: World) {
        after(&world, async |cache| cache.expire_tag("tag").await.unwrap()).await;
    }

    async fn a_clear_takes_it_from_the_front(world: World) {
        after(&world, async |cache| cache.clear().await.unwrap()).await;
    }

    /// Nobody knows whether it was executed.
    async fn a_change_that_its_caller_gave_up_takes_it_from_the_front(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, _there) = popular(&a, &b).await;
        a.valves.changes.close();
        {
            let set = std::pin::pin!(here.set("k", "new".to_owned()));
            assert!(futures_util::poll!(set).is_pending());
        }
        assert!(is_gone(&here).await);
        a.valves.changes.open();
    }

    async fn without_trust_the_front_serves_nothing_either(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (_here, there) = popular(&a, &b).await;
        world.cut_off(&b).await;
        eventually("nothing proves it", async || !there.stats().trusted).await;
        assert!(there.get("k").await.is_err(), "L2 is away, and the copy may be wrong");
    }

    async fn what_is_loaded_again_replaces_it_in_the_front(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = popular(&a, &b).await;
        let reload = here.with(CallOptions::new().reload());
        let load = |_| async { Ok::<_, std::convert::Infallible>("new".to_owned()) };
        reload.get_or_load("k", load).await.unwrap();
        read_often(&here, "k", "new").await;
        // A load is no change of truth.
        read_often(&there, "k", "old").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_front_does_not_outlive_its_ttl() {
    let nearfar = nearfar::Nearfar::in_process();
    let cache: Texts = nearfar.cache("texts").ttl(MINUTE).build().await.unwrap();
    cache.set("k", "old".to_owned()).await.unwrap();
    read_often(&cache, "k", "old").await;
    tokio::time::advance(MINUTE).await;
    assert!(cache.get("k").await.unwrap().is_none());
}

/// The policy of eviction sees enough of what the front answers. A Zipf law has many keys that are read a few times while they
/// are in L1: these it must not take for unpopular.
#[tokio::test(start_paused = true)]
async fn a_small_l1_has_as_many_hits_as_moka_alone() {
    const ENTRIES: u64 = 150;
    let order = accesses::zipf(3_000, 0.9, 50_000, 1);
    let bare = moka::sync::Cache::new(ENTRIES);
    let mut hits = 0;
    for key in &order {
        match bare.get(key) {
            Some(()) => hits += 1,
            None => bare.insert(*key, ()),
        }
    }
    let nearfar = nearfar::Nearfar::in_process();
    let cache: Cache<u32, ()> = nearfar.cache("units").l1_max_entries(ENTRIES).build().await.unwrap();
    for key in &order {
        let load = |_| async { Ok::<_, std::convert::Infallible>(()) };
        cache.get_or_load(key, load).await.unwrap();
    }
    let of_ours = cache.stats().l1_hits;
    assert!(of_ours + 500 >= hits, "{of_ours} hits of 50,000, moka has {hits}");
}
