//! The store is away.

use std::convert::Infallible;
use std::time::Duration;

use nearfar::{Cache, Disconnected, Tier, Unacknowledged};
use nearfar_testkit::eventually;
use nearfar_tests::{Node, on_every_backend, trusted};

async fn origin(key: String) -> Result<String, Infallible> {
    Ok(format!("row of {key}"))
}

async fn with_policy(node: &Node, policy: Disconnected) -> Cache<String, String> {
    let builder = node.nearfar.cache("policy").max_staleness(Duration::from_millis(500));
    builder.disconnected(policy).build().await.unwrap()
}

on_every_backend! {
    /// R13: a change that did not reach the store is never said to be applied, and nothing of it is kept here.
    async fn a_change_that_did_not_reach_the_store_is_never_applied(world: World) {
        let node = world.node().await;
        let cache: Cache<String, String> =
            node.nearfar.cache("texts").unacknowledged(Unacknowledged::Fail).build().await.unwrap();
        cache.set("k", "v".into()).await.unwrap();
        world.cut_off(&node).await;

        let failures = [
            cache.invalidate("k").await.unwrap_err(),
            cache.set("k", "w".into()).await.unwrap_err(),
            cache.clear().await.unwrap_err(),
        ];
        for failure in failures {
            assert!(failure.is_unavailable(), "{failure}");
            assert!(failure.to_string().contains("waits in the outbox"), "{failure}");
        }
        assert!(cache.peek("k").is_none());
        assert!(cache.get("k").await.unwrap_err().is_unavailable());

        world.bring_back(&node).await;
        eventually("the store is back", async || cache.invalidate("k").await.is_ok()).await;
        trusted(&cache).await;
    }

    async fn loads_work_while_the_store_is_away(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        world.cut_off(&node).await;
        let loaded = cache.get_or_load("k", origin).await.unwrap();
        assert_eq!((loaded.as_str(), loaded.tier()), ("row of k", Tier::Loader));
        world.bring_back(&node).await;
        trusted(&cache).await;
        eventually("fills reach the store again", async || {
            cache.get_or_load("other", origin).await.unwrap();
            cache.contains("other").await.is_ok_and(|there| there)
        })
        .await;
    }

    async fn what_was_loaded_during_an_outage_is_not_kept_beyond_it(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        world.isolate(&b).await;
        eventually("B notices", async || !there.stats().trusted).await;
        there.get_or_load("k", origin).await.unwrap();
        here.set("k", "new".into()).await.unwrap();
        world.rejoin(&b).await;
        trusted(&there).await;
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
    }

    async fn without_proof_reads_bypass_l1_by_default(world: World) {
        let node = world.node().await;
        let cache = with_policy(&node, Disconnected::Bypass).await;
        cache.set("k", "v".into()).await.unwrap();
        world.isolate(&node).await;
        eventually("L1 is not served", async || cache.peek("k").is_none()).await;
        world.rejoin(&node).await;
        trusted(&cache).await;
    }

    async fn a_policy_may_have_l1_served_without_proof(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let always = with_policy(&a, Disconnected::Serve).await;
        let a_while = with_policy(&b, Disconnected::ServeFor(Duration::from_secs(3600))).await;
        always.set("k", "v".into()).await.unwrap();
        a_while.get("k").await.unwrap();
        for node in [&a, &b] {
            world.isolate(node).await;
        }
        for cache in [&always, &a_while] {
            eventually("trust is over", async || !cache.stats().trusted).await;
            assert_eq!(cache.get("k").await.unwrap().unwrap().tier(), Tier::L1);
        }
        for node in [&a, &b] {
            world.rejoin(node).await;
        }
        trusted(&always).await;
        trusted(&a_while).await;
    }
}
