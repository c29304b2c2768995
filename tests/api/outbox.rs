//! Changes that L2 has not acknowledged.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::FutureExt;
use nearfar::backend::Batch;
use nearfar::{Cache, Nearfar, Outcome, Unacknowledged};
use nearfar_core::Outbox;
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::{Node, Valve, on_every_backend, trusted};

type Texts = Cache<String, String>;

/// A copy of "old" on two nodes.
async fn warm_pair(a: &Node, b: &Node) -> (Texts, Texts) {
    let (here, there) = (a.texts().await, b.texts().await);
    here.set("k", "old".into()).await.unwrap();
    there.get("k").await.unwrap();
    (here, there)
}

/// A change that its caller gives up half-way: whether the store executes it, the node cannot know. From then on no
/// change of this node reaches the store.
async fn give_up_a_set(node: &Node, cache: &Texts) {
    node.valves.changes.close();
    let set = tokio::spawn({
        let cache = cache.clone();
        async move { cache.set("k", "given up".into()).await }
    });
    node.valves.changes.holds(1).await;
    set.abort();
    assert!(set.await.unwrap_err().is_cancelled());
}

async fn delivered(cache: &Texts) {
    eventually("the outbox is empty", async || cache.stats().outbox_keys == 0).await;
}

/// Nobody has the old value any more.
async fn gone(caches: [&Texts; 2]) {
    for cache in caches {
        eventually("the message arrives", async || cache.peek("k").is_none()).await;
        assert!(cache.get("k").await.unwrap().is_none());
    }
}

on_every_backend! {
    async fn a_change_made_while_the_store_is_away_is_delivered_when_it_is_back(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.cut_off(&a).await;
        assert_eq!(here.set("k", "new".into()).await.unwrap(), Outcome::Queued);
        assert_eq!(here.stats().queued, 1);

        world.bring_back(&a).await;
        delivered(&here).await;
        trusted(&there).await;
        // An invalidation: the value that could not be set is not kept anywhere.
        gone([&here, &there]).await;
        assert_eq!(here.stats().sets, 1);
    }

    async fn a_clear_made_while_the_store_is_away_is_delivered_when_it_is_back(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.cut_off(&a).await;
        assert_eq!(here.clear().await.unwrap(), Outcome::Queued);
        assert_eq!(here.stats().outbox_keys, here.stats().partitions);
        world.bring_back(&a).await;
        delivered(&here).await;
        trusted(&there).await;
        gone([&here, &there]).await;
    }

    async fn a_key_waits_once_and_stats_tell_how_many_wait_since_when(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        assert_eq!((cache.stats().outbox_keys, cache.stats().outbox_oldest), (0, Duration::ZERO));
        world.cut_off(&node).await;
        for key in ["k", "l", "k"] {
            assert_eq!(cache.invalidate(key).await.unwrap(), Outcome::Queued);
        }
        // While an attempt to deliver a key is under way, the key may also wait for the next one.
        eventually("each waits once", async || cache.stats().outbox_keys == 2).await;
        let stats = cache.stats();
        assert_eq!((stats.queued, stats.outbox_overflows), (3, 0));
        eventually("they grow older", async || cache.stats().outbox_oldest > stats.outbox_oldest).await;
        world.bring_back(&node).await;
        delivered(&cache).await;
        assert_eq!(cache.stats().outbox_oldest, Duration::ZERO);
    }

    async fn a_change_that_its_caller_gave_up_is_invalidated_later(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        give_up_a_set(&a, &here).await;
        assert_eq!(here.stats().outbox_keys, 1);
        assert!(here.peek("k").is_none());
        a.valves.changes.open();
        delivered(&here).await;
        gone([&here, &there]).await;
    }

    /// Once the caller was told that the change waits, this node must not bring back the old value from L2.
    async fn what_waits_is_not_read_from_the_store(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        give_up_a_set(&a, &here).await;
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "old", "the store still has it");
        assert!(here.get("k").await.unwrap().is_none());
        assert!(!here.contains("k").await.unwrap());
        let loaded = here.get_or_load("k", async |_| Ok::<_, Infallible>("loaded".into())).await.unwrap();
        assert_eq!(*loaded, "loaded");
        a.valves.changes.open();
        delivered(&here).await;
        gone([&here, &there]).await;
    }

    /// R5: the load read the row before the change, and there is no version of the change to tell.
    async fn a_load_from_before_a_failed_change_is_not_kept(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let row = Valve::default();
        row.close();
        let load = tokio::spawn({
            let (here, row) = (here.clone(), row.clone());
            let loader = async move |_| {
                row.pass().await;
                Ok::<_, Infallible>("old row".into())
            };
            async move { here.get_or_load("k", loader).await.unwrap() }
        });
        row.holds(1).await;
        give_up_a_set(&a, &here).await;
        row.open();
        assert_eq!(*load.await.unwrap(), "old row");
        assert!(here.peek("k").is_none());
        a.valves.changes.open();
        delivered(&here).await;
        gone([&here, &there]).await;
    }

    /// R11: the first set may still be executed, and then the second would be overwritten.
    async fn a_set_after_one_that_may_still_be_executed_is_queued(world: World) {
        let node = world.node_with(Nearfar::builder().command_timeout(Duration::from_secs(3600))).await;
        let cache = node.texts().await;
        give_up_a_set(&node, &cache).await;
        node.valves.changes.open();
        assert_eq!(cache.set("k", "second".into()).await.unwrap(), Outcome::Queued);
        assert_eq!(cache.clear().await.unwrap(), Outcome::Queued, "which is of all keys");
        assert!(cache.set("other", "first".into()).await.unwrap().is_applied(), "which no set may be executed after");
    }

    async fn a_set_after_the_outbox_was_delivered_is_applied(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        give_up_a_set(&node, &cache).await;
        node.valves.changes.open();
        delivered(&cache).await;
        assert!(cache.set("k", "second".into()).await.unwrap().is_applied());
        assert_eq!(*cache.get("k").await.unwrap().unwrap(), "second");
    }

    /// R11: without the deadline, it would be executed although its caller has done something else since.
    async fn a_change_that_reaches_the_store_too_late_is_refused(world: World) {
        let timeout = Duration::from_millis(200);
        let node = world.node_with(Nearfar::builder().command_timeout(timeout)).await;
        let cache = node.texts().await;
        node.valves.changes.close();
        let set = tokio::spawn({
            let cache = cache.clone();
            async move { cache.set("k", "late".into()).await.unwrap() }
        });
        node.valves.changes.holds(1).await;
        // What is known of the store's clock is not exact.
        let_pass(2 * timeout).await;
        node.valves.changes.open();
        assert_eq!(set.await.unwrap(), Outcome::Queued);
        delivered(&cache).await;
        assert!(cache.get("k").await.unwrap().is_none());
    }

    async fn too_many_keys_become_one_clear(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.cut_off(&a).await;
        let partitions = here.stats().partitions;
        let mut number = 0_u64;
        while here.stats().outbox_overflows < partitions {
            number += 1;
            assert!(number <= 2 * partitions * Outbox::MAX_KEYS as u64, "no overflow");
            assert_eq!(here.invalidate(&number.to_string()).await.unwrap(), Outcome::Queued);
        }
        // An attempt to deliver some of them may be under way.
        eventually("they are one in each partition", async || here.stats().outbox_keys == partitions).await;
        world.bring_back(&a).await;
        delivered(&here).await;
        trusted(&there).await;
        gone([&here, &there]).await;
    }

    async fn a_caller_who_wants_an_error_gets_one_and_the_change_waits_all_the_same(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let there = b.texts().await;
        let here: Texts =
            a.nearfar.cache("texts").unacknowledged(Unacknowledged::Fail).build().await.unwrap();
        here.set("k", "old".into()).await.unwrap();
        there.get("k").await.unwrap();
        world.cut_off(&a).await;
        assert!(here.invalidate("k").await.unwrap_err().is_unavailable());
        assert_eq!(here.stats().outbox_keys, 1);
        world.bring_back(&a).await;
        delivered(&here).await;
        trusted(&there).await;
        gone([&here, &there]).await;
    }

    async fn a_dropped_cache_still_delivers(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.cut_off(&a).await;
        assert_eq!(here.invalidate("k").await.unwrap(), Outcome::Queued);
        drop(here);
        world.bring_back(&a).await;
        trusted(&there).await;
        eventually("it is delivered", async || there.get("k").await.unwrap().is_none()).await;
    }

    async fn a_shutdown_delivers_what_waits(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.cut_off(&a).await;
        assert_eq!(here.invalidate("k").await.unwrap(), Outcome::Queued);
        a.valves.changes.close();
        world.bring_back(&a).await;
        // Trust may be that from before, if the subscription's end has not been noticed yet.
        eventually("the store answers", async || here.get("other").await.is_ok()).await;
        a.valves.changes.holds(1).await;
        let shutdown = tokio::spawn({
            let nearfar = a.nearfar.clone();
            async move { nearfar.shutdown().await }
        });
        eventually("it has begun", async || here.get("other").await.is_err()).await;
        a.valves.changes.open();
        assert_eq!(shutdown.await.unwrap(), []);
        trusted(&there).await;
        eventually("it is delivered", async || there.get("k").await.unwrap().is_none()).await;
    }

    /// A node invalidates a key while the store is away, and declares it stale when the store is back, before the outbox
    /// has come round to it. The store had executed a later change of the key, so the outbox struck the invalidation out;
    /// but what is stale may stand in, and the wrong value went on doing so on every node.
    async fn what_is_declared_stale_is_invalidated_all_the_same(world: World) {
        let node = world.node().await;
        let cache: Texts = node.nearfar.cache("texts").grace(Duration::from_secs(3600)).build().await.unwrap();
        cache.set("k", "wrong".into()).await.unwrap();
        world.cut_off(&node).await;
        assert_eq!(cache.invalidate("k").await.unwrap(), Outcome::Queued);

        world.bring_back(&node).await;
        eventually("it is stale", async || cache.expire("k").await.unwrap().is_applied()).await;
        let fails = |_| async { Err::<String, _>(std::io::Error::other("no origin")) };
        assert!(cache.get_or_load("k", fails).await.is_err());
        delivered(&cache).await;
        assert!(cache.get_or_load("k", fails).await.is_err());
    }

    /// Soon nothing can overtake it any more, and the shutdown has the time.
    async fn a_shutdown_waits_for_what_may_not_be_sent_yet(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        give_up_a_set(&a, &here).await;
        a.valves.changes.open();
        let some_time = Duration::from_millis(300);
        eventually("it waits for some time", async || here.stats().outbox_oldest > some_time).await;
        assert_eq!(a.nearfar.shutdown().await, []);
        eventually("it is delivered", async || there.get("k").await.unwrap().is_none()).await;
    }

    async fn a_shutdown_reports_what_it_cannot_deliver(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        world.cut_off(&node).await;
        cache.invalidate("k").await.unwrap();
        cache.invalidate("l").await.unwrap();
        // Its caller goes away; whoever asks again has the report.
        assert!(node.nearfar.shutdown().now_or_never().is_none());
        let left = node.nearfar.shutdown().await;
        let mut keys = Vec::new();
        for undelivered in &left {
            assert_eq!(undelivered.namespace, "texts");
            match &undelivered.what {
                Batch::Keys(some) => keys.extend(some.clone()),
                other => panic!("two keys are not {other:?}"),
            }
        }
        keys.sort();
        assert_eq!(keys, ["k", "l"]);
        assert_eq!(node.nearfar.shutdown().await, left);
    }
}
