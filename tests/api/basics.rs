//! Two nodes share a cache.

use std::convert::Infallible;

use nearfar::{Cache, CacheKey, ErrorKind, Tier};
use nearfar_testkit::eventually;
use nearfar_tests::{on_every_backend, trusted};
use serde::{Deserialize, Serialize};

async fn origin(key: String) -> Result<String, Infallible> {
    Ok(format!("row of {key}"))
}

/// A key that writes more than it can read back: its case is lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shouted(String);

impl CacheKey for Shouted {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_uppercase().into_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(String::from_utf8(bytes.to_vec()).ok()?))
    }
}

/// A value that cannot be destroyed in peace.
#[derive(Serialize, Deserialize)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a value's drop");
    }
}

on_every_backend! {
    async fn a_value_set_on_one_node_is_read_on_the_other_and_then_from_its_memory(world: World) {
        let (a, b) = (world.node().await.texts().await, world.node().await.texts().await);
        let version = a.set("k", "v".into()).await.unwrap().version().unwrap();

        let first = b.get("k").await.unwrap().unwrap();
        assert_eq!((first.as_str(), first.tier(), first.version()), ("v", Tier::L2, version));
        let second = b.get("k").await.unwrap().unwrap();
        assert_eq!((second.as_str(), second.tier(), second.version()), ("v", Tier::L1, version));
        assert_eq!(a.get("k").await.unwrap().unwrap().tier(), Tier::L1, "its own write stays warm");
    }

    async fn a_loaded_value_is_loaded_once_for_all_nodes(world: World) {
        let (a, b) = (world.node().await.texts().await, world.node().await.texts().await);
        assert_eq!(a.get_or_load("k", origin).await.unwrap().tier(), Tier::Loader);
        assert_eq!(b.get_or_load("k", origin).await.unwrap().tier(), Tier::L2);
        assert_eq!(b.get_or_load("k", origin).await.unwrap().tier(), Tier::L1);
        assert_eq!((a.stats().loads, b.stats().loads), (1, 0));
    }

    async fn an_invalidation_evicts_the_copy_of_the_other_node(world: World) {
        let (a, b) = (world.node().await.texts().await, world.node().await.texts().await);
        a.set("k", "old".into()).await.unwrap();
        b.get("k").await.unwrap();
        assert!(b.peek("k").is_some());

        a.invalidate("k").await.unwrap();
        assert!(a.peek("k").is_none(), "the invalidating node does not wait for its message");
        assert!(a.get("k").await.unwrap().is_none());
        eventually("the message arrives", async || b.peek("k").is_none()).await;
        assert!(b.get("k").await.unwrap().is_none());
        assert_eq!(b.stats().invalidations_received, 2, "the set and the invalidation");
        assert_eq!(b.stats().doubts, 0);
    }

    async fn a_second_write_replaces_the_copy_of_the_other_node(world: World) {
        let (a, b) = (world.node().await.texts().await, world.node().await.texts().await);
        a.set("k", "old".into()).await.unwrap();
        b.get("k").await.unwrap();
        a.set("k", "new".into()).await.unwrap();
        eventually("the message arrives", async || b.peek("k").is_none()).await;
        assert_eq!(*b.get("k").await.unwrap().unwrap(), "new");
    }

    async fn clear_kills_every_entry_on_every_node(world: World) {
        let (a, b) = (world.node().await.texts().await, world.node().await.texts().await);
        for key in ["1", "2", "3"] {
            a.set(key, "v".into()).await.unwrap();
            b.get(key).await.unwrap();
        }
        a.clear().await.unwrap();
        for key in ["1", "2", "3"] {
            assert!(a.get(key).await.unwrap().is_none());
            eventually("the message arrives", async || b.peek(key).is_none()).await;
            assert!(b.get(key).await.unwrap().is_none());
            assert!(!b.contains(key).await.unwrap());
        }
        a.set("1", "after".into()).await.unwrap();
        assert_eq!(*b.get("1").await.unwrap().unwrap(), "after", "life goes on above the floor");
    }

    async fn contains_and_peek_ask_without_filling(world: World) {
        let (a, b) = (world.node().await.texts().await, world.node().await.texts().await);
        assert!(!b.contains("k").await.unwrap());
        a.set("k", "v".into()).await.unwrap();
        assert!(b.contains("k").await.unwrap());
        assert!(b.peek("k").is_none(), "asking does not fill L1");
        a.invalidate("k").await.unwrap();
        assert!(!b.contains("k").await.unwrap(), "a tombstone is not a value");
    }

    async fn keys_may_contain_anything(world: World) {
        let (a, b) = (world.node().await.texts().await, world.node().await.texts().await);
        let long = "x".repeat(64 * 1024);
        let keys = ["", " ", "a b", "{tag}", "}{", "line\nbreak\r\n", "nul\0nul", "ключ 🔑", "#head", "#bus", &long];
        for (number, key) in keys.iter().enumerate() {
            a.set(*key, number.to_string()).await.unwrap();
        }
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(*b.get(*key).await.unwrap().unwrap(), number.to_string(), "{key:?}");
        }
        for key in keys {
            a.invalidate(key).await.unwrap();
            eventually("the message arrives", async || b.peek(key).is_none()).await;
            assert!(b.get(key).await.unwrap().is_none(), "{key:?}");
        }
        assert_eq!((b.stats().doubts, b.stats().unreadable), (0, 0));
    }

    async fn a_key_that_does_not_read_back_is_refused(world: World) {
        let node = world.node().await;
        let cache: Cache<Shouted, u8> = node.nearfar.cache("shouted").build().await.unwrap();
        cache.set(&Shouted("LOUD".into()), 1).await.unwrap();

        let refused = cache.set(&Shouted("quiet".into()), 1).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Key);
        assert!(refused.to_string().contains("Shouted"), "{refused}");
    }

    async fn namespaces_do_not_share_keys(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let names: Cache<u64, String> = a.nearfar.cache("names").build().await.unwrap();
        let ages: Cache<u64, u8> = b.nearfar.cache("ages").build().await.unwrap();
        names.set(&1, "Ada".into()).await.unwrap();
        assert!(ages.get(&1).await.unwrap().is_none());
        ages.clear().await.unwrap();
        assert!(names.get(&1).await.unwrap().is_some());
    }

    async fn a_namespace_has_one_cache_per_node_at_a_time(world: World) {
        let node = world.node().await;
        let first = node.texts().await;
        let second = node.nearfar.cache::<String, String>("texts").build().await.unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Config);
        assert!(second.to_string().contains("clone"), "{second}");
        drop(first);
        let again = node.texts().await;
        again.set("k", "v".into()).await.unwrap();
        eventually("it follows the bus", async || again.stats().trusted).await;
    }

    async fn nodes_that_disagree_on_the_fence_window_are_told(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let _texts = a.texts().await;
        let window = std::time::Duration::from_secs(7);
        let refused = b.nearfar.cache::<String, String>("texts").fence_window(window).build().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
        let text = refused.to_string();
        assert!(text.contains("fence_window_ms=7000") && text.contains("fence_window_ms=60000"), "{text}");
    }

    /// What waits in its outbox keeps a cache for the receive loop, which destroys it then. The other caches need the loop.
    async fn a_value_whose_drop_panics_hurts_no_other_cache(world: World) {
        let node = world.node().await;
        let (texts, bombs) = (node.texts().await, node.nearfar.cache::<u64, Bomb>("bombs").build().await.unwrap());
        bombs.set(&1, Bomb).await.unwrap();
        world.cut_off(&node).await;
        bombs.invalidate(&2).await.unwrap();
        drop(bombs);
        world.bring_back(&node).await;
        eventually("the store answers", async || node.nearfar.nodes().await.is_ok_and(|nodes| nodes.len() == 1)).await;
        trusted(&texts).await;
        texts.set("k", "v".into()).await.unwrap();
        eventually("L1 is served", async || texts.peek("k").is_some()).await;
        let doubts = texts.stats().doubts;
        world.interrupt_subscriptions().await;
        eventually("the loop hears of it", async || texts.stats().doubts > doubts).await;
        trusted(&texts).await;
    }

    async fn after_shutdown_nothing_is_served_and_the_other_node_goes_on(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        here.set("k", "v".into()).await.unwrap();
        a.nearfar.shutdown().await;
        assert!(here.peek("k").is_none());
        assert_eq!(here.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(here.set("k", "w".into()).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(here.get_or_load("k", origin).await.unwrap_err().kind(), ErrorKind::Closed);
        a.nearfar.shutdown().await;
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "v");
    }

    async fn nodes_come_and_go_and_cost_the_others_nothing(world: World) {
        let (a, b, c) = (world.node().await, world.node().await, world.node().await);
        let (here, there, third) = (a.texts().await, b.texts().await, c.texts().await);
        here.set("k", "v".into()).await.unwrap();
        there.get("k").await.unwrap();
        let nodes = a.nearfar.nodes().await.unwrap();
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes.iter().filter(|node| node.is_this_one).count(), 1);

        c.nearfar.shutdown().await;
        drop(third);
        assert_eq!(a.nearfar.nodes().await.unwrap().len(), 2);
        let late = world.node().await;
        let _fourth = late.texts().await;
        assert_eq!(b.nearfar.nodes().await.unwrap().len(), 3);
        assert!(here.peek("k").is_some() && there.peek("k").is_some(), "nobody forgets anything because of it");
        assert_eq!((here.stats().doubts, there.stats().doubts), (0, 0));
    }

    async fn l1_holds_no_more_entries_and_bytes_than_it_may(world: World) {
        let node = world.node().await;
        let few: Cache<u64, Vec<u8>> = node.nearfar.cache("few").l1_max_entries(10).build().await.unwrap();
        let small: Cache<u64, Vec<u8>> = node.nearfar.cache("small").l1_max_bytes(10_000).build().await.unwrap();
        for key in 0..100 {
            few.set(&key, vec![0; 10]).await.unwrap();
            small.set(&key, vec![0; 1_000]).await.unwrap();
        }
        assert!(few.stats().l1_entries <= 10, "{:?}", few.stats());
        assert!(small.stats().l1_entries < 10, "{:?}", small.stats());
        assert_eq!(few.stats().evictions + few.stats().l1_entries, 100);
        assert!(few.get(&0).await.unwrap().is_some(), "L2 has it all");
    }

    async fn two_writers_of_one_key_leave_all_nodes_agreeing(world: World) {
        let nodes = [world.node().await, world.node().await, world.node().await];
        let caches = [nodes[0].texts().await, nodes[1].texts().await, nodes[2].texts().await];
        for round in 0..50 {
            let (left, right) = (format!("left {round}"), format!("right {round}"));
            let (left, right) = tokio::join!(caches[0].set("k", left), caches[1].set("k", right));
            let newest = left.unwrap().version().max(right.unwrap().version());
            for cache in &caches {
                eventually("all messages arrive", async || {
                    cache.get("k").await.unwrap().is_some_and(|entry| Some(entry.version()) == newest)
                })
                .await;
            }
        }
        assert_eq!(caches.each_ref().map(|cache| cache.stats().doubts), [0, 0, 0]);
    }
}
