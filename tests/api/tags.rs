//! What carries a tag is invalidated at once. Names of races as in `docs/protocol.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use nearfar::{Cache, ErrorKind, Loaded, Outcome, Staleness, Tier};
use nearfar_testkit::eventually;
use nearfar_tests::{Node, Valve, on_every_backend};

type Texts = Cache<String, String>;

const HOUR: Duration = Duration::from_secs(3600);

fn tagged(value: &str, tags: &[&str]) -> Loaded<String> {
    Loaded::new(value.to_owned()).tags(tags)
}

async fn set(cache: &Texts, key: &str, tags: &[&str]) {
    assert!(cache.set_with(key, tagged(key, tags)).await.unwrap().is_applied());
}

async fn graced(node: &Node) -> Texts {
    node.nearfar.cache("texts").grace(HOUR).build().await.unwrap()
}

/// Which of these keys a node finds.
async fn found(cache: &Texts, keys: &[&str]) -> Vec<bool> {
    cache.get_many(keys.iter().copied()).await.into_iter().map(|entry| entry.unwrap().is_some()).collect()
}

async fn no_loader(_key: String) -> Result<Loaded<String>, std::io::Error> {
    Err(std::io::Error::other("nobody asks the database"))
}

on_every_backend! {
    async fn what_carries_an_invalidated_tag_is_gone_on_every_node_and_the_rest_stays(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set(&here, "both", &["red", "blue"]).await;
        set(&here, "red", &["red"]).await;
        set(&here, "blue", &["blue"]).await;
        set(&here, "none", &[]).await;
        let keys = ["both", "red", "blue", "none"];
        assert_eq!(found(&there, &keys).await, [true; 4]);

        assert!(here.invalidate_tag("red").await.unwrap().is_applied());
        assert_eq!(found(&here, &keys).await, [false, false, true, true]);
        eventually("the other node hears of it", async || there.peek("red").is_none()).await;
        assert_eq!(found(&there, &keys).await, [false, false, true, true]);
        assert_eq!((here.stats().tag_lookups, there.stats().tag_lookups), (0, 0), "nobody had to ask L2");
    }

    async fn what_is_set_after_its_tag_was_invalidated_is_served(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        set(&cache, "k", &["red"]).await;
        cache.invalidate_tag("red").await.unwrap();
        set(&cache, "k", &["red"]).await;
        assert_eq!(cache.get("k").await.unwrap().unwrap().tier(), Tier::L1);
        let later = world.node().await.texts().await;
        assert_eq!(later.get("k").await.unwrap().unwrap().tier(), Tier::L2);
    }

    /// R25: B loads an entry with two tags and has read the database; A invalidates one of them; B's fill arrives. It is
    /// older than the change, so it is served to nobody who comes later, on no node.
    async fn a_load_whose_tag_is_invalidated_meanwhile_is_served_to_nobody_else(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set(&here, "warm", &["blue"]).await;
        assert!(there.get("warm").await.unwrap().is_some());
        let valve = Valve::default();
        valve.close();
        let load = {
            let (there, valve) = (there.clone(), valve.clone());
            let loader = |_| async move {
                valve.pass().await;
                Ok::<_, Infallible>(tagged("old", &["red", "blue"]))
            };
            tokio::spawn(async move { there.get_or_load_with("k", loader).await.unwrap().unwrap().to_string() })
        };
        valve.holds(1).await;
        here.invalidate_tag("blue").await.unwrap();
        eventually("the loading node hears of it", async || there.peek("warm").is_none()).await;
        // Who comes now knows of the change, and does not get what the load brings, though it joins.
        let joiner = tokio::spawn({
            let there = there.clone();
            let new = |_| async { Ok::<_, Infallible>(tagged("new", &["red", "blue"])) };
            async move { there.get_or_load_with("k", new).await.unwrap().unwrap().to_string() }
        });
        eventually("it waits", async || there.stats().joined == 1 || joiner.is_finished()).await;
        valve.open();
        assert_eq!(load.await.unwrap(), "old", "its caller came before the change");
        assert_eq!(joiner.await.unwrap(), "new");
        assert_eq!(**there.get("k").await.unwrap().unwrap(), *"new");
        assert_eq!(**here.get("k").await.unwrap().unwrap(), *"new");
    }

    async fn what_carries_an_expired_tag_is_a_miss_and_a_fallback(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (graced(&a).await, graced(&b).await);
        set(&here, "k", &["red"]).await;
        assert!(there.get("k").await.unwrap().is_some());
        here.expire_tag("red").await.unwrap();
        eventually("the other node hears of it", async || there.peek("k").is_none()).await;
        for cache in [&here, &there] {
            assert!(cache.get("k").await.unwrap().is_none());
            let stale = cache.get_or_load_with("k", no_loader).await.unwrap().unwrap();
            assert_eq!((stale.as_str(), stale.staleness()), ("k", Some(Staleness::LoadFailed)));
        }
        let later = graced(&world.node().await).await;
        let stale = later.get_or_load_with("k", no_loader).await.unwrap().unwrap();
        assert_eq!((stale.as_str(), stale.staleness()), ("k", Some(Staleness::LoadFailed)));
    }

    /// Expiring a key gives its entry the number of that change. An entry whose tag was invalidated before must not come
    /// back by that, as something stale.
    async fn expiring_a_key_does_not_revive_what_its_tag_has_killed(world: World) {
        let node = world.node().await;
        let cache = graced(&node).await;
        set(&cache, "k", &["red"]).await;
        cache.invalidate_tag("red").await.unwrap();
        cache.expire("k").await.unwrap();
        assert!(cache.get_or_load_with("k", no_loader).await.is_err(), "there is no fallback");
        let later = graced(&world.node().await).await;
        assert!(later.get_or_load_with("k", no_loader).await.is_err());
    }

    /// A node that comes later has not heard of changes before, so it asks about older entries, once per tag.
    async fn a_new_node_looks_up_each_tag_of_old_entries_once(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        for key in ["a", "b", "c", "d"] {
            set(&cache, key, &["red", "common"]).await;
        }
        set(&cache, "dead", &["blue"]).await;
        cache.invalidate_tag("blue").await.unwrap();

        let later = world.node().await.texts().await;
        assert_eq!(found(&later, &["a", "b"]).await, [true, true]);
        // Each partition has its own, and not all have entries that are older than the change.
        let lookups = later.stats().tag_lookups;
        assert!(lookups > 0);
        assert_eq!(found(&later, &["a", "b"]).await, [true, true]);
        let skipping = later.with(nearfar::CallOptions::new().skip_l1());
        assert!(skipping.get_many(["a", "b"]).await.into_iter().all(|entry| entry.unwrap().is_some()));
        assert_eq!(later.stats().tag_lookups, lookups, "it knows them now");
        assert_eq!(found(&later, &["c", "d"]).await, [true, true]);
        assert_eq!(found(&later, &["dead"]).await, [false]);
        let lookups = later.stats().tag_lookups;
        cache.invalidate_tag("common").await.unwrap();
        eventually("it hears of the change", async || later.peek("c").is_none()).await;
        assert_eq!(found(&later, &["a", "b", "c", "d"]).await, [false; 4]);
        assert_eq!(later.stats().tag_lookups, lookups, "it has heard of that");
    }

    /// What a node has missed it learns from the log, tags included.
    async fn a_change_of_a_tag_during_an_interruption_is_made_up_for(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set(&here, "k", &["red"]).await;
        assert!(there.get("k").await.unwrap().is_some());
        world.isolate(&b).await;
        eventually("it has noticed", async || !there.stats().trusted).await;
        let outcome = here.invalidate_tag("red").await.unwrap();
        world.rejoin(&b).await;
        nearfar_tests::trusted(&there).await;
        assert!(there.get("k").await.unwrap().is_none(), "{outcome:?}");
        nearfar_tests::trusted(&here).await;
        assert!(here.get("k").await.unwrap().is_none());
    }

    async fn a_tag_that_l2_is_not_told_of_waits_in_the_outbox(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set(&here, "k", &["red"]).await;
        set(&here, "other", &["blue"]).await;
        assert!(there.get("k").await.unwrap().is_some());
        world.cut_off(&a).await;
        assert_eq!(here.invalidate_tag("red").await.unwrap(), Outcome::Queued);
        assert!(here.peek("k").is_none(), "this node does not serve it any more");
        world.bring_back(&a).await;
        eventually("it is delivered", async || here.stats().outbox_keys == 0).await;
        assert!(here.get("k").await.unwrap().is_none());
        eventually("the other node hears of it", async || there.peek("k").is_none()).await;
        assert!(there.get("k").await.unwrap().is_none());
        assert!(there.get("other").await.unwrap().is_some(), "what has another tag stays");
    }

    async fn nothing_is_cached_with_what_cannot_be_a_tag(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let long = "x".repeat(256);
        for bad in ["", long.as_str()] {
            let error = cache.set_with("k", tagged("v", &[bad])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("1 to 255 bytes"), "{error}");
            assert_eq!(cache.invalidate_tag(bad).await.unwrap_err().kind(), ErrorKind::Config);
            let load = |_| async { Ok::<_, Infallible>(tagged("v", &[""])) };
            assert_eq!(**cache.get_or_load_with("k", load).await.unwrap().unwrap(), *"v");
            assert!(!cache.contains("k").await.unwrap());
        }
        assert_eq!(cache.stats().unstorable, 2);
    }

    async fn a_renewed_entry_keeps_its_tags(world: World) {
        let node = world.node().await;
        let cache = graced(&node).await;
        let loaded = tagged("v", &["red"]).etag("1");
        cache.set_with("k", loaded).await.unwrap();
        cache.expire("k").await.unwrap();
        let renew = |_, _| async { Ok::<_, Infallible>(Loaded::not_modified()) };
        assert!(cache.get_or_revalidate("k", renew).await.unwrap().is_some());
        assert!(cache.peek("k").is_some());
        cache.invalidate_tag("red").await.unwrap();
        assert!(cache.peek("k").is_none());
        let later = graced(&world.node().await).await;
        assert!(later.get("k").await.unwrap().is_none());
    }

    async fn an_absence_is_invalidated_by_its_tag(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let absent = |_| async { Ok::<_, Infallible>(Loaded::absent().ttl(HOUR).tags(["red"])) };
        assert!(cache.get_or_load_with("k", absent).await.unwrap().is_none());
        assert!(cache.get_or_load_with("k", no_loader).await.unwrap().is_none(), "it is known to be absent");
        cache.invalidate_tag("red").await.unwrap();
        assert!(cache.get_or_load_with("k", no_loader).await.is_err(), "the loader is asked");
    }

    /// Random changes on two nodes, against a model that knows what each entry carries.
    async fn random_changes_agree_with_a_naive_model(world: World) {
        const TAGS: [&str; 3] = ["red", "blue", "green"];
        let (a, b) = (world.node().await, world.node().await);
        let caches = [a.texts().await, b.texts().await];
        let mut model: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        let mut rng = fastrand::Rng::with_seed(7);
        for step in 0..300 {
            let (cache, other) = if rng.bool() { (&caches[0], &caches[1]) } else { (&caches[1], &caches[0]) };
            let (key, tag) = (format!("k{}", rng.u32(..6)), TAGS[rng.usize(..3)]);
            let outcome = match rng.u32(..10) {
                0..5 => {
                    let tags: BTreeSet<&str> = TAGS.into_iter().filter(|_| rng.bool()).collect();
                    let loaded = Loaded::new(key.clone()).tags(&tags);
                    model.insert(key.clone(), tags);
                    cache.set_with(&key, loaded).await.unwrap()
                }
                5..8 => {
                    model.retain(|_, tags| !tags.contains(tag));
                    cache.invalidate_tag(tag).await.unwrap()
                }
                8 => {
                    model.remove(&key);
                    cache.invalidate(&key).await.unwrap()
                }
                _ => {
                    model.clear();
                    cache.clear().await.unwrap()
                }
            };
            let version = outcome.version().unwrap();
            for key in (0..6).map(|number| format!("k{number}")) {
                let expected = model.contains_key(&key);
                // Whatever a node has heard of by now.
                for cache in [cache, other] {
                    let fresh = cache.with(nearfar::CallOptions::new().fresh());
                    let found = fresh.get(&key).await.unwrap().is_some();
                    assert_eq!(found, expected, "step {step}, {version}, {key}");
                }
            }
        }
        for cache in &caches {
            for key in (0..6).map(|number| format!("k{number}")) {
                let agrees = async || cache.get(&key).await.unwrap().is_some() == model.contains_key(&key);
                eventually("the nodes agree with the model", agrees).await;
            }
        }
    }

    async fn a_purge_removes_what_is_dead_and_no_more(world: World) {
        let node = world.node().await;
        let cache: Texts =
            node.nearfar.cache("texts").fence_window(Duration::from_millis(100)).build().await.unwrap();
        for number in 0..50 {
            set(&cache, &format!("cleared {number}"), &[]).await;
        }
        cache.clear().await.unwrap();
        for number in 0..30 {
            set(&cache, &format!("red {number}"), &["red"]).await;
        }
        for number in 0..20 {
            set(&cache, &format!("blue {number}"), &["blue"]).await;
        }
        cache.invalidate_tag("red").await.unwrap();
        nearfar_testkit::let_pass(Duration::from_millis(200)).await;

        let done = cache.purge().finish().await.unwrap();
        assert_eq!((done.removed, done.partitions_done), (80, done.partitions));
        assert!(done.examined >= 100);
        let kept: Vec<String> = (0..20).map(|number| format!("blue {number}")).collect();
        let fresh = cache.with(nearfar::CallOptions::new().fresh());
        assert!(fresh.get_many(&kept).await.into_iter().all(|entry| entry.unwrap().is_some()));
        assert_eq!(cache.purge().finish().await.unwrap().removed, 0);
    }

    /// What fences still fences: a tombstone, and a value that an older fill must not replace.
    async fn a_purge_leaves_what_fences(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        set(&cache, "k", &["red"]).await;
        cache.invalidate_tag("red").await.unwrap();
        cache.invalidate("l").await.unwrap();
        assert_eq!(cache.purge().finish().await.unwrap().removed, 0);
    }

    /// B has missed the invalidation of a tag, and is fetching the log. A later message comes meanwhile and is applied. That
    /// does not show that B knows of all before it: taken so, it found the old entry alive, and kept it.
    async fn what_comes_behind_a_gap_does_not_prove_what_is_in_it(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set(&here, "k", &["red"]).await;
        assert!(there.get("k").await.unwrap().is_some());
        world.isolate(&b).await;
        eventually("it has noticed", async || !there.stats().trusted).await;
        b.valves.logs.close();
        let outcome = here.invalidate_tag("red").await.unwrap();
        assert!(outcome.is_applied(), "{outcome:?}");
        world.rejoin(&b).await;
        eventually("what it has missed is fetched", async || b.valves.logs.waiting() > 0).await;
        let heard = there.stats().invalidations_received;
        here.set("k2", "later".into()).await.unwrap();
        eventually("a later message comes", async || there.stats().invalidations_received > heard).await;

        let fresh = there.with(nearfar::CallOptions::new().fresh());
        assert!(fresh.get("k").await.unwrap().is_none());
        b.valves.logs.open();
        nearfar_tests::trusted(&there).await;
        assert!(there.get("k").await.unwrap().is_none());
    }

    /// A `set` of unknown outcome may be executed behind the invalidation of its tag, which is not the last word then.
    async fn an_invalidation_that_an_earlier_set_may_overtake_is_not_called_applied(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        set(&cache, "other", &["red"]).await;
        node.valves.changes.close();
        let cancelled = tokio::spawn({
            let cache = cache.clone();
            async move { cache.set_with("k", tagged("old", &["red"])).await }
        });
        node.valves.changes.holds(1).await;
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        node.valves.changes.open();
        assert_eq!(cache.invalidate_tag("red").await.unwrap(), Outcome::Queued);
        eventually("both are delivered", async || cache.stats().outbox_keys == 0).await;
        assert!(cache.get("other").await.unwrap().is_none());
    }

    async fn a_caller_after_an_expiration_does_not_join_a_load_from_before(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let valve = Valve::default();
        valve.close();
        let load = |text: &'static str, valve: Valve| {
            let cache = cache.clone();
            let loader = move |_| async move {
                valve.pass().await;
                Ok::<_, Infallible>(tagged(text, &["red"]))
            };
            tokio::spawn(async move { cache.get_or_load_with("k", loader).await.unwrap().unwrap().to_string() })
        };
        let before = load("before", valve.clone());
        valve.holds(1).await;
        cache.expire_tag("red").await.unwrap();
        let after = load("after", Valve::default());
        eventually("it waits", async || cache.stats().joined == 1 || after.is_finished()).await;
        valve.open();
        assert_eq!(before.await.unwrap(), "before");
        assert_eq!(after.await.unwrap(), "after");
        assert_eq!(**cache.get("k").await.unwrap().unwrap(), *"after");
    }
}
