//! Changes that depend on what is there.

use std::sync::Arc;
use std::time::Duration;

use nearfar::{Cache, CallOptions, ErrorKind, Loaded, Outcome};
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
                            Ok(outcome) => done += u64::from(outcome.is_applied()),
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
            assert!(update.await.unwrap().is_applied());
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
        assert_eq!(cache.stats().outbox_keys, 0);
        assert_eq!(cache.set_if_absent("k", 2).await.unwrap(), Some(Outcome::Queued));
        world.bring_back(&node).await;
        eventually("it is delivered", async || cache.stats().outbox_keys == 0).await;
        assert!(cache.get("k").await.unwrap().is_none());
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
