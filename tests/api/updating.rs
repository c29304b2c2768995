//! Changes that depend on what is there.

use std::sync::Arc;
use std::time::Duration;

use nearfar::{Cache, CallOptions, ErrorKind, Loaded};
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::{Node, on_every_backend};
use tokio::task::JoinSet;

type Numbers = Cache<String, u64>;

async fn numbers(node: &Node) -> Numbers {
    node.nearfar.cache("numbers").grace(Duration::from_secs(60)).build().await.unwrap()
}

fn one_more(present: Option<&u64>) -> u64 {
    present.map_or(1, |present| present + 1)
}

on_every_backend! {
    async fn of_many_who_set_what_is_absent_one_succeeds(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let caches = [Arc::new(numbers(&a).await), Arc::new(numbers(&b).await)];
        let mut tasks = JoinSet::new();
        for number in 0..20 {
            let cache = Arc::clone(&caches[number % 2]);
            tasks.spawn(async move { (number, cache.set_if_absent("k", number as u64).await.unwrap()) });
        }
        let set: Vec<_> = tasks.join_all().await.into_iter().filter(|(_, outcome)| outcome.is_some()).collect();
        assert_eq!(set.len(), 1);
        for cache in &caches {
            assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&(set[0].0 as u64)));
        }
    }

    async fn what_no_read_would_find_is_absent(world: World) {
        let node = world.node().await;
        let cache = numbers(&node).await;
        assert!(cache.set_if_absent("k", 1).await.unwrap().is_some());
        cache.invalidate("k").await.unwrap();
        assert!(cache.set_if_absent("k", 2).await.unwrap().is_some(), "invalidated");
        cache.expire("k").await.unwrap();
        assert!(cache.set_if_absent("k", 3).await.unwrap().is_some(), "stale");
        cache.clear().await.unwrap();
        assert!(cache.set_if_absent("k", Loaded::new(4).tags(["red"])).await.unwrap().is_some(), "cleared");
        cache.invalidate_tag("red").await.unwrap();
        assert!(cache.set_if_absent("k", Loaded::new(5).tags(["red"])).await.unwrap().is_some(), "of a wrong tag");
        cache.expire_tag("red").await.unwrap();
        assert!(cache.set_if_absent("k", 6).await.unwrap().is_some(), "of a stale tag");
        cache.set_with("k", Loaded::absent().ttl(Duration::from_secs(60))).await.unwrap();
        assert!(cache.set_if_absent("k", 7).await.unwrap().is_some(), "known to be absent");
        assert!(cache.set_if_absent("k", 8).await.unwrap().is_none());
        assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&7));
        let briefly = Loaded::new(9).ttl(Duration::from_millis(20));
        cache.set_with("k", briefly).await.unwrap();
        let_pass(Duration::from_millis(40)).await;
        assert!(cache.set_if_absent("k", 10).await.unwrap().is_some(), "its ttl is over");
    }

    async fn no_update_is_lost(world: World) {
        let nodes = [world.node().await, world.node().await];
        let mut tasks = JoinSet::new();
        for node in &nodes {
            let cache = numbers(node).await;
            for _ in 0..4 {
                let cache = cache.clone();
                tasks.spawn(async move {
                    let mut done = 0;
                    while done < 10 {
                        match cache.update("k", one_more).await {
                            Ok(_) => done += 1,
                            // So many at once may wear one out.
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Contended),
                        }
                    }
                });
            }
        }
        tasks.join_all().await;
        let later = numbers(&world.node().await).await;
        assert_eq!(later.get("k").await.unwrap().as_deref(), Some(&80));
    }

    /// A reads 1 and computes; B changes the value, clears the cache, or invalidates its tag; A's write must not be made of
    /// what is wrong by then.
    async fn an_update_is_computed_again_if_what_it_read_is_wrong_by_then(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (numbers(&a).await, numbers(&b).await);
        for (change, expected) in [("set", 101), ("clear", 1), ("tag", 1), ("invalidate", 1)] {
            here.set_with("k", Loaded::new(1).tags(["red"])).await.unwrap();
            a.valves.changes.close();
            let update = tokio::spawn({
                let here = here.clone();
                async move { here.update("k", |present| Loaded::new(one_more(present)).tags(["red"])).await.unwrap() }
            });
            a.valves.changes.holds(1).await;
            let outcome = match change {
                "set" => there.set("k", 100).await,
                "clear" => there.clear().await,
                "tag" => there.invalidate_tag("red").await,
                _ => there.invalidate("k").await,
            };
            assert!(outcome.unwrap().is_applied());
            a.valves.changes.open();
            update.await.unwrap();
            let fresh = there.with(CallOptions::new().fresh());
            assert_eq!(fresh.get("k").await.unwrap().as_deref(), Some(&expected), "{change}");
        }
    }

    async fn an_update_without_l2_is_an_error_and_nothing_is_queued(world: World) {
        let node = world.node().await;
        let cache = numbers(&node).await;
        cache.set("k", 1).await.unwrap();
        world.cut_off(&node).await;
        assert!(cache.update("k", one_more).await.unwrap_err().is_unavailable());
        world.bring_back(&node).await;
        let back = async || cache.get("k").await.is_ok_and(|entry| entry.as_deref() == Some(&1));
        eventually("the value is as it was", back).await;
        assert_eq!(cache.stats().queued, 0);
    }

    /// A value that is set if there is none is worth nothing later: it is not queued, and what others have set meanwhile is
    /// not invalidated for it.
    async fn setting_what_is_absent_without_l2_is_an_error_and_costs_nobody_anything(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (numbers(&a).await, numbers(&b).await);
        world.cut_off(&a).await;
        let refused =
            async || here.set_if_absent("k", 1).await.is_err_and(|error| !error.outcome_is_unknown());
        eventually("L2 is known to be away", refused).await;
        // Of those before, one may have been under way.
        let queued = here.stats().queued;
        let told = here.set_if_absent("k", 1).await.unwrap_err().to_string();
        // The latter if the invalidation of one of those waits.
        assert!(told.ends_with("; nothing has changed") || told.contains("so this one was not sent"), "{told}");
        assert_eq!(here.stats().queued, queued);
        world.bring_back(&a).await;
        eventually("nothing waits", async || here.stats().outbox_keys == 0).await;
        eventually("L2 is back", async || there.set_if_absent("k", 2).await.is_ok()).await;
        nearfar_tests::trusted(&here).await;
        assert_eq!(here.get("k").await.unwrap().as_deref(), Some(&2));
        assert!(here.set_if_absent("k", 3).await.unwrap().is_none());
    }

    /// Where an invalidation of the key waits, what L2 has is wrong, and is not compared with.
    async fn what_waits_to_be_invalidated_is_not_taken_for_a_value(world: World) {
        let node = world.node().await;
        let cache = numbers(&node).await;
        cache.set("k", 1).await.unwrap();
        node.valves.changes.close();
        let cancelled = tokio::spawn({
            let cache = cache.clone();
            async move { cache.invalidate("k").await }
        });
        node.valves.changes.holds(1).await;
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        assert_eq!(cache.stats().outbox_keys, 1);
        assert!(cache.set_if_absent("k", 2).await.unwrap_err().is_unavailable());
        node.valves.changes.open();
        eventually("it is delivered", async || cache.stats().outbox_keys == 0).await;
        assert!(cache.set_if_absent("k", 2).await.unwrap().is_some());
    }

    /// An older version of the service does not know what it would overwrite.
    async fn what_cannot_be_read_is_not_updated(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let new: Numbers = a.nearfar.cache("numbers").schema(2).build().await.unwrap();
        new.set("k", 1_000).await.unwrap();
        let old: Numbers = b.nearfar.cache("numbers").schema(1).build().await.unwrap();
        let error = old.update("k", one_more).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
        new.update("k", one_more).await.unwrap();
        assert_eq!(new.get("k").await.unwrap().as_deref(), Some(&1_001));
    }

    async fn a_touch_is_a_read_for_the_idle_time(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let idle = Duration::from_millis(400);
        let here: Numbers = a.nearfar.cache("numbers").idle(idle).build().await.unwrap();
        let there: Numbers = b.nearfar.cache("numbers").idle(idle).build().await.unwrap();
        here.set("touched", 1).await.unwrap();
        here.set("left", 1).await.unwrap();
        assert!(there.get("touched").await.unwrap().is_some());
        let gone = async || {
            there.touch("touched").await.unwrap();
            !there.contains("left").await.unwrap()
        };
        eventually("what nobody reads is gone", gone).await;
        assert!(there.contains("touched").await.unwrap());
        assert!(here.with(CallOptions::new().fresh()).get("touched").await.unwrap().is_some());
        there.touch("nothing").await.unwrap();
    }
}
