//! One load per key per node.

use futures_util::future::{BoxFuture, join_all};
use nearfar::{Bytes, Cache, Codec, CodecError, ErrorKind, Tier};
use nearfar_tests::on_every_backend;

use crate::origin::{Broken, Origin, Outcome, call};

/// A codec with a bug.
struct Bomb;

impl Codec<String> for Bomb {
    fn id(&self) -> u8 {
        200
    }

    fn encode(&self, _value: &String) -> Result<Bytes, CodecError> {
        panic!("a bug in the codec")
    }

    fn decode(&self, _payload: &Bytes) -> Result<String, CodecError> {
        panic!("a bug in the codec")
    }
}

async fn joined(cache: &Cache<String, String>, callers: u64) {
    nearfar_testkit::eventually("they join", async || cache.stats().joined == callers).await;
}

on_every_backend! {
    async fn a_hundred_callers_of_a_cold_key_load_once(world: World) {
        let cache = world.node().await.texts().await;
        let origin = Origin::default();
        origin.loading.close();
        let callers: Vec<_> = (0..100).map(|_| call(&cache, origin.load())).collect();
        joined(&cache, 99).await;
        origin.loading.open();
        for outcome in join_all(callers).await {
            let entry = outcome.unwrap().unwrap();
            assert_eq!((entry.as_str(), entry.tier()), ("load 1", Tier::Loader));
        }
        assert_eq!((origin.loads(), cache.stats().loads), (1, 1));
    }

    /// R14: the leader's caller hangs up. In other libraries the joiners hang for ever, or all load.
    async fn a_leader_that_is_cancelled_does_not_hurt_those_who_joined(world: World) {
        let cache = world.node().await.texts().await;
        let origin = Origin::default();
        origin.loading.close();
        let leader = call(&cache, origin.load());
        origin.loading.holds(1).await;
        let joiners: Vec<_> = (0..10).map(|_| call(&cache, origin.load())).collect();
        joined(&cache, 10).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        origin.loading.open();
        for outcome in join_all(joiners).await {
            assert_eq!(*outcome.unwrap().unwrap(), "load 1");
        }
        assert_eq!(origin.loads(), 1);
    }

    async fn a_load_that_nobody_waits_for_is_dropped_and_the_next_caller_loads(world: World) {
        let cache = world.node().await.texts().await;
        let origin = Origin::default();
        origin.loading.close();
        let leader = call(&cache, origin.load());
        origin.loading.holds(1).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        origin.loading.holds(0).await;
        origin.loading.open();
        assert_eq!(*call(&cache, origin.load()).await.unwrap().unwrap(), "load 2");
    }

    async fn a_loaders_error_reaches_everyone_and_is_cached_by_nobody(world: World) {
        let cache = world.node().await.texts().await;
        let origin = Origin::default();
        origin.loading.close();
        let leader = call(&cache, origin.fail());
        origin.loading.holds(1).await;
        let joiners: Vec<_> = (0..10).map(|_| call(&cache, origin.load())).collect();
        joined(&cache, 10).await;
        origin.loading.open();
        for outcome in join_all(joiners.into_iter().chain([leader])).await {
            let error = outcome.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Loader);
            assert_eq!(error.downcast_ref(), Some(&Broken("no database")));
        }
        assert_eq!(cache.stats().load_failures, 1);
        assert_eq!(*call(&cache, origin.load()).await.unwrap().unwrap(), "load 2");
    }

    async fn a_loaders_panic_is_an_error_and_leaves_no_flight_behind(world: World) {
        let cache = world.node().await.texts().await;
        let origin = Origin::default();
        origin.loading.close();
        let leader = call(&cache, origin.panic());
        origin.loading.holds(1).await;
        let joiner = call(&cache, origin.load());
        joined(&cache, 1).await;
        origin.loading.open();
        for outcome in [leader.await, joiner.await] {
            let error = outcome.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LoaderPanicked);
            assert!(error.to_string().contains("a bug in the loader"), "{error}");
        }
        assert_eq!(*call(&cache, origin.load()).await.unwrap().unwrap(), "load 2");
    }

    /// R15: a plain `get` is under way and misses; callers that load must not take it for a load.
    async fn a_plain_read_under_way_does_not_make_loaders_load_twice(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let origin = Origin::default();
        node.valves.reads.close();
        let reader = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get("k").await.unwrap() }
        });
        node.valves.reads.holds(1).await;
        let loaders: Vec<_> = (0..10).map(|_| call(&cache, origin.load())).collect();
        joined(&cache, 9).await;
        node.valves.reads.open();
        assert!(reader.await.unwrap().is_none());
        for outcome in join_all(loaders).await {
            assert_eq!(*outcome.unwrap().unwrap(), "load 1");
        }
    }

    /// R19: an invalidation comes during a flight; a new caller, who knows of it, must not get the old value.
    async fn a_caller_after_an_invalidation_does_not_join_a_flight_from_before(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        for invalidator in [&here, &there] {
            let origin = Origin::default();
            origin.loading.close();
            let received = there.stats().invalidations_received;
            let early = call(&there, origin.load());
            origin.loading.holds(1).await;
            invalidator.invalidate("k").await.unwrap();
            if std::ptr::eq(invalidator, &raw const here) {
                nearfar_testkit::eventually("the message arrives", async || {
                    there.stats().invalidations_received > received
                })
                .await;
            }
            let late = call(&there, origin.load());
            origin.loading.holds(2).await;
            origin.loading.open();
            assert_eq!(*early.await.unwrap().unwrap(), "load 1");
            let late = late.await.unwrap().unwrap();
            assert_eq!(*late, "load 2");
            assert_eq!(*there.get("k").await.unwrap().unwrap(), "load 2", "the newer one is what stays");
            there.invalidate("k").await.unwrap();
        }
    }

    /// R19 with a change whose outcome nobody knows: it may have happened, so the flight may be from before it.
    async fn a_caller_after_a_failed_change_does_not_join_a_flight_from_before(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let origin = Origin::default();
        origin.loading.close();
        let early = call(&cache, origin.load());
        origin.loading.holds(1).await;

        node.valves.changes.close();
        let change = tokio::spawn({
            let cache = cache.clone();
            async move { cache.invalidate("k").await }
        });
        node.valves.changes.holds(1).await;
        change.abort();
        assert!(change.await.unwrap_err().is_cancelled());

        let late = call(&cache, origin.load());
        origin.loading.holds(2).await;
        origin.loading.open();
        assert_eq!(*early.await.unwrap().unwrap(), "load 1");
        assert_eq!(*late.await.unwrap().unwrap(), "load 2");
    }

    /// A clear is an invalidation of every key, also of those that are being loaded.
    async fn a_caller_after_a_clear_does_not_join_a_flight_from_before(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        there.set("marker", "m".into()).await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        let early = call(&there, origin.load());
        origin.loading.holds(1).await;
        here.clear().await.unwrap();
        nearfar_testkit::eventually("the message arrives", async || there.peek("marker").is_none()).await;
        let late = call(&there, origin.load());
        origin.loading.holds(2).await;
        origin.loading.open();
        assert_eq!(*early.await.unwrap().unwrap(), "load 1");
        assert_eq!(*late.await.unwrap().unwrap(), "load 2");
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "load 2");
    }

    async fn a_codecs_panic_is_an_error_for_everyone_too(world: World) {
        let node = world.node().await;
        let cache: Cache<String, String> = node.nearfar.cache("bombs").codec(Bomb).build().await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        let leader = call(&cache, origin.load());
        origin.loading.holds(1).await;
        let joiner = call(&cache, origin.load());
        joined(&cache, 1).await;
        origin.loading.open();
        for outcome in [leader.await, joiner.await] {
            assert_eq!(outcome.unwrap().unwrap_err().kind(), ErrorKind::LoaderPanicked);
        }
    }

    async fn a_loader_that_asks_for_its_own_key_is_told_so(world: World) {
        let cache = world.node().await.texts().await;
        let asks_for = |key: &'static str, then: BoxFuture<'static, Outcome>| {
            let cache = cache.clone();
            async move {
                let load = |_| async { then.await.map(|entry| entry.to_string()) };
                cache.get_or_load(key, load).await
            }
        };
        let again = Box::pin(asks_for("k", Box::pin(async { unreachable!("it is not asked") })));
        let through_another: BoxFuture<'static, Outcome> = Box::pin(asks_for("other", again));
        let error = asks_for("k", through_another).await.unwrap_err();
        assert!(error.is_loader(), "{error}");
        assert!(error.to_string().contains("wait for itself"), "{error}");
        let origin = Origin::default();
        assert_eq!(*call(&cache, origin.load()).await.unwrap().unwrap(), "load 1", "the key is not stuck");
    }

    async fn an_own_message_does_not_end_the_flight_that_began_after_it(world: World) {
        let (node, other) = (world.node().await, world.node().await);
        let (cache, marker) = (node.texts().await, other.texts().await);
        node.valves.bus.close();
        cache.invalidate("k").await.unwrap();
        let origin = Origin::default();
        origin.loading.close();
        let leader = call(&cache, origin.load());
        origin.loading.holds(1).await;
        node.valves.bus.open();
        marker.invalidate("marker").await.unwrap();
        nearfar_testkit::eventually("a message behind it is handled", async || {
            cache.stats().invalidations_received == 1
        })
        .await;
        let joiner = call(&cache, origin.load());
        joined(&cache, 1).await;
        origin.loading.open();
        assert_eq!(*leader.await.unwrap().unwrap(), "load 1");
        assert_eq!(*joiner.await.unwrap().unwrap(), "load 1");
    }
}
