//! What is different for one call.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use nearfar::{Cache, CallOptions, ErrorKind, InProcess, Loaded, Nearfar, Staleness, Tier, Version};
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::on_every_backend;

use crate::origin::{Origin, call};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

on_every_backend! {
    /// The message of the change has not come yet: whoever knows the version does not get the old copy.
    async fn who_knows_of_a_change_reads_it_on_a_node_that_does_not(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        here.set("k", "old".to_owned()).await.unwrap();
        there.get("k").await.unwrap().unwrap();
        b.valves.bus.close();
        let version = here.set("k", "new".to_owned()).await.unwrap().version().unwrap();

        let mine = there.with(CallOptions::new().not_older_than(version));
        assert_eq!(*mine.get("k").await.unwrap().unwrap(), "new");
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new", "the newer one has replaced the copy");
        b.valves.bus.open();
    }

    async fn with_a_loader_it_is_loaded_if_l2_has_nothing_as_new(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        here.set("k", "old".to_owned()).await.unwrap();
        there.get("k").await.unwrap().unwrap();
        b.valves.bus.close();
        let version = here.invalidate("k").await.unwrap().version().unwrap();

        let mine = there.with(CallOptions::new().not_older_than(version));
        assert!(mine.get("k").await.unwrap().is_none());
        let entry = mine.get_or_load("k", Origin::default().load()).await.unwrap();
        assert_eq!((entry.as_str(), entry.tier()), ("load 1", Tier::Loader));
        assert!(entry.version() >= version);
        b.valves.bus.open();
    }

    /// R19, though the node has not heard of the change: its caller has.
    async fn who_knows_of_a_change_does_not_get_what_an_older_load_brings(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let (old, new) = (Origin::named("old"), Origin::named("new"));
        old.loading.close();
        let first = call(&there, old.load());
        old.loading.holds(1).await;
        b.valves.bus.close();
        let version = here.invalidate("k").await.unwrap().version().unwrap();
        let mine = there.with(CallOptions::new().not_older_than(version));
        let callers: Vec<_> = (0..20).map(|_| call(&mine, new.load())).collect();
        eventually("they have joined", async || there.stats().joined == 20).await;
        old.loading.open();
        assert_eq!(*first.await.unwrap().unwrap(), "old 1");
        for caller in callers {
            assert_eq!(*caller.await.unwrap().unwrap(), "new 1");
        }
        assert_eq!(new.loads(), 1, "one load for all of them");
        b.valves.bus.open();
    }

    /// Who has not said that something stale will do waits for the load that others do not wait for.
    async fn who_joins_is_not_served_what_only_the_others_bear(world: World) {
        let node = world.node().await;
        let cache: Cache<String, String> = node.nearfar.cache("texts").grace(HOUR).build().await.unwrap();
        let other: Cache<String, String> =
            world.node().await.nearfar.cache("texts").grace(HOUR).build().await.unwrap();
        other.set("k", "old".to_owned()).await.unwrap();
        other.expire("k").await.unwrap();
        eventually("it is heard of", async || cache.stats().invalidations_received == 2).await;
        let origin = Origin::default();
        node.valves.reads.close();
        let patient = cache.with(CallOptions::new().stale_while_revalidate(HOUR));
        let first = call(&patient, origin.load());
        node.valves.reads.holds(1).await;
        let second = call(&cache, origin.load());
        eventually("it has joined", async || cache.stats().joined == 1).await;
        node.valves.reads.open();
        assert_eq!(first.await.unwrap().unwrap().staleness(), Some(Staleness::Revalidating));
        let entry = second.await.unwrap().unwrap();
        assert_eq!((entry.as_str(), entry.staleness()), ("load 1", None));
    }

    /// A version that nothing of this key will have: whoever asks for it loads, and joins nobody for ever.
    async fn who_asks_for_what_there_will_never_be_loads(world: World) {
        let cache = world.node().await.texts().await;
        let version = cache.set("k", "v".to_owned()).await.unwrap().version().unwrap();
        let never = cache.with(CallOptions::new().not_older_than(Version::new(version.number() + 3_600_000_000)));
        let origin = Origin::default();
        let callers: Vec<_> = (0..5).map(|_| call(&never, origin.load())).collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap().unwrap().tier(), Tier::Loader);
        }
        assert!(never.get("k").await.unwrap().is_none());
    }

    async fn contains_and_peek_go_by_the_options_too(world: World) {
        let cache = world.node().await.texts().await;
        let noon = SystemTime::UNIX_EPOCH + HOUR * 500_000;
        let loaded = Loaded::new("v".to_owned()).last_modified(noon);
        let version = cache.set_with("k", loaded).await.unwrap().version().unwrap();
        let later = Version::new(version.number() + 1);
        for (options, expected) in [
            (CallOptions::new().not_older_than(version), true),
            (CallOptions::new().not_older_than(later), false),
            (CallOptions::new().modified_since(noon), true),
            (CallOptions::new().modified_since(noon + SECOND), false),
            (CallOptions::new().not_older_than(later).modified_since(noon), false),
            (CallOptions::new().not_older_than(version).modified_since(noon), true),
        ] {
            let cache = cache.with(options);
            assert_eq!(cache.contains("k").await.unwrap(), expected, "{options:?}");
            assert_eq!(cache.peek("k").is_some(), expected, "{options:?}");
            assert_eq!(cache.get("k").await.unwrap().is_some(), expected, "{options:?}");
        }
    }

    async fn what_is_too_old_is_no_fallback(world: World) {
        let node = world.node().await;
        let builder = node.nearfar.cache("texts").grace(HOUR).stale_while_revalidate(HOUR);
        let cache: Cache<String, String> = builder.build().await.unwrap();
        let version = cache.set("k", "old".to_owned()).await.unwrap().version().unwrap();
        cache.expire("k").await.unwrap();
        let in_an_hour = Version::new(version.number() + 3_600_000_000);
        let later = cache.with(CallOptions::new().not_older_than(in_an_hour));
        assert_eq!(later.get_or_load("k", Origin::default().fail()).await.unwrap_err().kind(), ErrorKind::Loader);
        let now = cache.with(CallOptions::new().not_older_than(version));
        assert_eq!(*now.get_or_load("k", Origin::default().fail()).await.unwrap(), "old");
    }

    async fn what_the_origin_has_changed_before_is_a_miss(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let noon = SystemTime::UNIX_EPOCH + HOUR * 500_000;
        cache.set_with("k", Loaded::new("v".to_owned()).last_modified(noon)).await.unwrap();
        let since = |time| cache.with(CallOptions::new().modified_since(time));
        assert!(since(noon).get("k").await.unwrap().is_some());
        assert!(since(noon + SECOND).get("k").await.unwrap().is_none());
        let entry = since(noon + SECOND).get_or_load("k", Origin::default().load()).await.unwrap();
        assert_eq!(entry.tier(), Tier::Loader, "what was loaded for it will do, whatever it says");
        assert!(since(noon).get("k").await.unwrap().is_none(), "it does not say when it was changed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_may_have_timeouts_of_its_own() {
    let nearfar = Nearfar::in_process();
    let cache: Cache<String, String> = nearfar.cache("texts").grace(HOUR).build().await.unwrap();
    let slow = |_| async {
        let_pass(10 * SECOND).await;
        Ok::<_, Infallible>("loaded".to_owned())
    };
    let hurried = cache.with(CallOptions::new().hard_timeout(SECOND));
    assert_eq!(hurried.get_or_load("k", slow).await.unwrap_err().kind(), ErrorKind::LoadTimedOut);
    assert_eq!(*cache.get_or_load("k", slow).await.unwrap(), "loaded");

    // The cache's own are no hindrance, whichever is shorter.
    let builder = nearfar.cache("patient").soft_timeout(5 * SECOND).hard_timeout(8 * SECOND).grace(HOUR);
    let patient: Cache<String, String> = builder.build().await.unwrap();
    let began = tokio::time::Instant::now();
    let hurried = patient.with(CallOptions::new().hard_timeout(SECOND));
    assert_eq!(hurried.get_or_load("k", slow).await.unwrap_err().kind(), ErrorKind::LoadTimedOut);
    assert_eq!(began.elapsed().as_secs(), 1);

    cache.expire("k").await.unwrap();
    let soft = cache.with(CallOptions::new().soft_timeout(SECOND));
    let entry = soft.get_or_load("k", slow).await.unwrap();
    assert_eq!(entry.staleness(), Some(Staleness::LoadSlow));
    let at_once = cache.with(CallOptions::new().stale_while_revalidate(HOUR));
    assert_eq!(at_once.get_or_load("k", slow).await.unwrap().staleness(), Some(Staleness::Revalidating));
}

#[tokio::test(start_paused = true)]
async fn a_call_may_have_a_lifetime_of_its_own_but_the_loader_knows_better() {
    let nearfar = Nearfar::in_process();
    let cache: Cache<u64, u64> = nearfar.cache("n").ttl(HOUR).build().await.unwrap();
    let briefly = cache.with(CallOptions::new().ttl(SECOND).grace(SECOND));
    briefly.set(&1, 1).await.unwrap();
    briefly.get_or_load(&2, |key| async move { Ok::<_, Infallible>(key) }).await.unwrap();
    let knows = |key| async move { Ok::<_, Infallible>(Loaded::new(key).ttl(10 * SECOND)) };
    briefly.get_or_load_with(&3, knows).await.unwrap();
    let_pass(SECOND).await;
    let there = async |key: u64| cache.contains(&key).await.unwrap();
    assert_eq!((there(1).await, there(2).await, there(3).await), (false, false, true));
    let fails = |_| async { Err::<u64, _>(std::io::Error::other("no database")) };
    assert_eq!(*cache.get_or_load(&1, fails).await.unwrap(), 1, "it has the grace of the call");
}

#[tokio::test(start_paused = true)]
async fn a_value_may_have_a_deadline() {
    let shared = InProcess::new();
    let nodes = [Nearfar::builder().in_process(&shared), Nearfar::builder().in_process(&shared)];
    let here: Cache<u64, u64> = nodes[0].cache("n").ttl(SECOND).build().await.unwrap();
    let there: Cache<u64, u64> = nodes[1].cache("n").build().await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the deadline is one on the wall")]
    let deadline = SystemTime::now() + HOUR;
    here.with(CallOptions::new().expires_at(deadline)).set(&3, 3).await.unwrap();
    here.with(CallOptions::new().ttl(HOUR).idle(MINUTE)).set(&4, 4).await.unwrap();
    here.set_with(&1, Loaded::new(1).expires_at(deadline)).await.unwrap();
    here.set_with(&2, Loaded::new(2).expires_at(deadline).ttl(MINUTE)).await.unwrap();
    // Time on the wall goes on, a little.
    let_pass(59 * MINUTE).await;
    assert!(here.contains(&1).await.unwrap() && there.contains(&1).await.unwrap());
    assert!(!there.contains(&2).await.unwrap(), "its ttl is shorter");
    assert!(there.contains(&3).await.unwrap() && !there.contains(&4).await.unwrap());
    let_pass(MINUTE).await;
    assert!(!here.contains(&1).await.unwrap() && !there.contains(&1).await.unwrap());
}
