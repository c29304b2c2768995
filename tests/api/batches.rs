//! Several keys in one call. Names of races as in `docs/protocol.md`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nearfar::{Cache, CacheKey, CallOptions, Entry, Error, ErrorKind, Loaded, RefreshAhead, Staleness, Tier};
use nearfar_testkit::eventually;
use nearfar_tests::{Valve, on_every_backend};

type Texts = Cache<String, String>;

/// A loader that says what it was asked for, and may be held.
#[derive(Clone, Default)]
struct Table {
    asked: Arc<Mutex<Vec<Vec<String>>>>,
    absent: Vec<&'static str>,
    valve: Valve,
}

type Rows = BoxFuture<'static, Result<Vec<(String, String)>, Infallible>>;

impl Table {
    fn load(&self) -> impl Fn(Vec<String>) -> Rows + Send + Sync + 'static + use<> {
        let table = self.clone();
        move |keys| {
            let table = table.clone();
            Box::pin(async move {
                table.asked.lock().unwrap().push(keys.clone());
                table.valve.pass().await;
                let row = |key: String| (key.clone(), format!("row of {key}"));
                let there = |key: &String| !table.absent.contains(&key.as_str());
                Ok(keys.into_iter().filter(there).map(row).collect())
            })
        }
    }

    /// What it was asked for, call by call, each sorted.
    fn asked(&self) -> Vec<Vec<String>> {
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        self.asked.lock().unwrap().iter().cloned().map(sorted).collect()
    }
}

fn texts(entries: Vec<Result<Option<Entry<String>>, Error>>) -> Vec<Option<String>> {
    entries.into_iter().map(|entry| entry.unwrap().map(|entry| entry.to_string())).collect()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

async fn set_all(cache: &Texts, keys: &[&str]) {
    let entries = keys.iter().map(|key| ((*key).to_owned(), (*key).to_owned()));
    assert!(cache.set_many(entries).await.into_iter().all(|outcome| outcome.unwrap().is_applied()));
}

on_every_backend! {
    async fn a_batch_answers_in_order_with_duplicates_and_gaps(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set_all(&here, &["a", "b", "c", "d"]).await;
        let keys = ["c", "nothing", "a", "c", "d"];
        let expected = [Some("c"), None, Some("a"), Some("c"), Some("d")].map(|text| text.map(str::to_owned));
        assert_eq!(texts(there.get_many(keys).await), expected);
        assert_eq!(texts(there.get_many(keys).await), expected, "from L1 as well");
        assert_eq!(there.get("a").await.unwrap().unwrap().tier(), Tier::L1);
        assert!(there.get_many(std::iter::empty::<&str>()).await.is_empty());
        assert_eq!(there.stats().l1_hits, 5);
    }

    async fn one_call_of_the_loader_brings_all_that_is_missing(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        set_all(&cache, &["b"]).await;
        let table = Table { absent: vec!["x"], ..Table::default() };
        let found = cache.get_or_load_many(["a", "b", "x", "c", "a"], table.load()).await;
        let expected = [Some("row of a"), Some("b"), None, Some("row of c"), Some("row of a")];
        assert_eq!(texts(found), expected.map(|text| text.map(str::to_owned)));
        assert_eq!(table.asked(), [["a", "c", "x"]]);
        assert_eq!(texts(cache.get_many(["a", "c"]).await), some(&["row of a", "row of c"]));
        let later = world.node().await.texts().await;
        assert_eq!(texts(later.get_many(["a", "c"]).await), some(&["row of a", "row of c"]), "L2 has them");
    }

    /// Single-flight is per key, between batches as between a batch and a single call.
    async fn a_key_that_is_being_loaded_is_not_loaded_again(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let (first, second) = (Table::default(), Table::default());
        first.valve.close();
        let batch = |keys: [&'static str; 2], table: &Table| {
            let (cache, load) = (cache.clone(), table.load());
            tokio::spawn(async move { texts(cache.get_or_load_many(keys, load).await) })
        };
        let one = batch(["a", "b"], &first);
        first.valve.holds(1).await;
        let two = batch(["b", "c"], &second);
        let single = tokio::spawn({
            let cache = cache.clone();
            let never = |_| async { Err::<String, _>(std::io::Error::other("it joins")) };
            async move { cache.get_or_load("a", never).await.unwrap().to_string() }
        });
        eventually("two have joined", async || cache.stats().joined == 2).await;
        first.valve.open();
        assert_eq!(one.await.unwrap(), some(&["row of a", "row of b"]));
        assert_eq!(two.await.unwrap(), some(&["row of b", "row of c"]));
        assert_eq!(single.await.unwrap(), "row of a");
        assert_eq!((first.asked().len(), second.asked()), (1, vec![vec!["c".to_owned()]]));
    }

    /// R14 for batches: whoever leads goes away, and those who joined one of its keys get it.
    async fn a_batch_goes_on_while_somebody_waits_for_one_of_its_keys(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let table = Table::default();
        table.valve.close();
        let leader = tokio::spawn({
            let (cache, load) = (cache.clone(), table.load());
            async move { cache.get_or_load_many(["a", "b"], load).await.len() }
        });
        table.valve.holds(1).await;
        let joiner = tokio::spawn({
            let (cache, load) = (cache.clone(), Table::default().load());
            async move { texts(cache.get_or_load_many(["b"], load).await) }
        });
        eventually("it has joined", async || cache.stats().joined == 1).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        table.valve.open();
        assert_eq!(joiner.await.unwrap(), some(&["row of b"]));
        assert_eq!(texts(cache.get_many(["a"]).await), some(&["row of a"]));
    }

    /// R2: B reads a batch from L2 and pauses; A invalidates one key of it; B goes on. The one is not kept, the others are.
    async fn only_the_key_that_was_overtaken_is_refused_by_the_fence(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set_all(&here, &["a", "b", "c"]).await;
        eventually("they are heard of", async || there.stats().invalidations_received == 3).await;
        b.valves.reads.close();
        let reader = tokio::spawn({
            let there = there.clone();
            async move { texts(there.get_many(["a", "b", "c"]).await) }
        });
        eventually("it reads", async || b.valves.reads.waiting() > 0).await;
        here.invalidate("b").await.unwrap();
        eventually("it is heard of", async || there.stats().invalidations_received == 4).await;
        b.valves.reads.open();
        assert_eq!(reader.await.unwrap(), some(&["a", "b", "c"]), "the read began before the change");
        let kept = ["a", "b", "c"].map(|key| there.peek(key).is_some());
        assert_eq!(kept, [true, false, true]);
    }

    /// R3 for batches: the loader has read the old rows; one of the keys is invalidated; the fills arrive.
    async fn a_late_batch_of_fills_replaces_nothing_newer(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let table = Table::default();
        table.valve.close();
        let load = tokio::spawn({
            let (there, load) = (there.clone(), table.load());
            async move { texts(there.get_or_load_many(["a", "b", "c"], load).await) }
        });
        table.valve.holds(1).await;
        here.set("b", "new".into()).await.unwrap();
        eventually("it is heard of", async || there.stats().invalidations_received == 1).await;
        table.valve.open();
        assert_eq!(load.await.unwrap(), some(&["row of a", "row of b", "row of c"]));
        for cache in [&here, &there] {
            assert_eq!(texts(cache.get_many(["a", "b", "c"]).await), some(&["row of a", "new", "row of c"]));
        }
        assert_eq!(there.stats().fills_refused, 1);
    }

    async fn a_failing_loader_fails_its_keys_and_no_others(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        set_all(&cache, &["a"]).await;
        let fails = |_| async { Err::<Vec<(String, String)>, _>(std::io::Error::other("no database")) };
        let found = cache.get_or_load_many(["a", "b", "c"], fails).await;
        assert_eq!(found[0].as_ref().unwrap().as_deref().map(String::as_str), Some("a"));
        for error in [found[1].as_ref(), found[2].as_ref()].map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Loader);
            assert!(error.downcast_ref::<std::io::Error>().is_some());
        }
        let panics = |keys: Vec<String>| async move {
            assert!(keys.is_empty(), "what a loader should not do");
            Ok::<Vec<(String, String)>, Infallible>(Vec::new())
        };
        let found = cache.get_or_load_many(["b", "a"], panics).await;
        assert_eq!(found[0].as_ref().unwrap_err().kind(), ErrorKind::LoaderPanicked);
        assert!(found[1].is_ok());
        assert_eq!(cache.stats().load_failures, 3);
    }

    async fn what_is_stale_stands_in_for_a_batch_that_fails(world: World) {
        let node = world.node().await;
        let cache: Texts =
            node.nearfar.cache("texts").grace(Duration::from_secs(3600)).build().await.unwrap();
        set_all(&cache, &["a"]).await;
        cache.expire("a").await.unwrap();
        let fails = |_| async { Err::<Vec<(String, String)>, _>(std::io::Error::other("no database")) };
        let found = cache.get_or_load_many(["a", "b"], fails).await;
        let stale = found[0].as_ref().unwrap().as_ref().unwrap();
        assert_eq!((stale.as_str(), stale.staleness()), ("a", Some(Staleness::LoadFailed)));
        assert!(found[1].is_err());
    }

    async fn what_may_be_stale_is_served_at_once_and_loaded_again_in_one_call(world: World) {
        let node = world.node().await;
        let hour = Duration::from_secs(3600);
        let cache: Texts =
            node.nearfar.cache("texts").grace(hour).stale_while_revalidate(hour).build().await.unwrap();
        set_all(&cache, &["a", "b"]).await;
        for key in ["a", "b"] {
            cache.expire(key).await.unwrap();
        }
        let table = Table::default();
        let found = cache.get_or_load_many(["a", "b"], table.load()).await;
        for (entry, key) in found.into_iter().zip(["a", "b"]) {
            let entry = entry.unwrap().unwrap();
            assert_eq!((entry.as_str(), entry.staleness()), (key, Some(Staleness::Revalidating)));
        }
        let fresh = async || texts(cache.get_many(["a", "b"]).await) == some(&["row of a", "row of b"]);
        eventually("they are loaded", fresh).await;
        assert_eq!(table.asked(), [["a", "b"]]);
        // Another node has no copies: L2 gives it what is stale.
        for key in ["a", "b"] {
            cache.expire(key).await.unwrap();
        }
        let other = world.node().await;
        let cache: Texts =
            other.nearfar.cache("texts").grace(hour).stale_while_revalidate(hour).build().await.unwrap();
        let table = Table::default();
        let found = cache.get_or_load_many(["a", "b"], table.load()).await;
        assert!(found.iter().all(|entry| entry.as_ref().unwrap().as_ref().unwrap().staleness().is_some()));
        eventually("they are loaded again", async || table.asked().len() == 1).await;
        assert_eq!(table.asked(), [["a", "b"]]);
    }

    async fn what_is_due_is_loaded_ahead_in_one_call(world: World) {
        let node = world.node().await;
        let cache: Texts =
            node.nearfar.cache("texts").refresh_ahead(RefreshAhead::After(0.0)).build().await.unwrap();
        set_all(&cache, &["a", "b"]).await;
        let table = Table::default();
        let found = texts(cache.get_or_load_many(["a", "b"], table.load()).await);
        assert_eq!(found, some(&["a", "b"]), "nobody waits for it");
        eventually("they are loaded", async || table.asked().len() == 1).await;
        assert_eq!(table.asked(), [["a", "b"]]);
    }

    async fn claims_make_one_load_of_a_batch_in_the_cluster(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let claimed = async |node: &nearfar_tests::Node| -> Texts {
            let builder = node.nearfar.cache("texts").cluster_single_flight(Duration::from_secs(20));
            builder.build().await.unwrap()
        };
        let (here, there) = (claimed(&a).await, claimed(&b).await);
        let (first, second) = (Table::default(), Table::default());
        first.valve.close();
        let batch = |cache: &Texts, keys: [&'static str; 2], table: &Table| {
            let (cache, load) = (cache.clone(), table.load());
            tokio::spawn(async move { texts(cache.get_or_load_many(keys, load).await) })
        };
        let one = batch(&here, ["a", "b"], &first);
        first.valve.holds(1).await;
        let two = batch(&there, ["b", "c"], &second);
        eventually("it waits for the other's claim", async || there.stats().claim_waits == 1).await;
        eventually("it loads the rest", async || second.asked().len() == 1).await;
        first.valve.open();
        assert_eq!(one.await.unwrap(), some(&["row of a", "row of b"]));
        assert_eq!(two.await.unwrap(), some(&["row of b", "row of c"]));
        assert_eq!((first.asked().len(), second.asked()), (1, vec![vec!["c".to_owned()]]));
    }

    async fn of_two_values_for_one_key_the_last_counts_and_both_are_told(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let entries = [("a", "1"), ("b", "1"), ("a", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let outcomes: Vec<_> = here.set_many(entries).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes[0], outcomes[2]);
        assert!(outcomes.iter().all(|outcome| outcome.is_applied()));
        assert_eq!(texts(here.get_many(["a", "b"]).await), some(&["2", "1"]));
        assert_eq!(texts(there.get_many(["a", "b"]).await), some(&["2", "1"]));
        let more = [("c".to_owned(), Loaded::new("3".to_owned()).ttl(Duration::ZERO)), ("d".to_owned(), "4".to_owned().into())];
        let outcomes = here.set_many(more).await;
        assert_eq!(outcomes[0].as_ref().unwrap_err().kind(), ErrorKind::Config, "one that fails fails alone");
        assert!(outcomes[1].as_ref().unwrap().is_applied());
    }

    async fn a_batch_of_changes_evicts_every_copy_elsewhere(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let keys: Vec<String> = (0..2_500).map(|number| format!("key {number}")).collect();
        let entries = keys.iter().map(|key| (key.clone(), key.clone()));
        assert!(here.set_many(entries).await.into_iter().all(|outcome| outcome.unwrap().is_applied()));
        assert!(texts(there.get_many(&keys).await).into_iter().all(|text| text.is_some()));
        let outcomes = here.invalidate_many(&keys).await;
        assert!(outcomes.len() == 2_500 && outcomes.into_iter().all(|outcome| outcome.unwrap().is_applied()));
        assert!(texts(here.get_many(&keys).await).into_iter().all(|text| text.is_none()));
        let gone = async || keys.iter().all(|key| there.peek(key).is_none());
        eventually("the other node has dropped them", gone).await;
        assert!(texts(there.get_many(&keys).await).into_iter().all(|text| text.is_none()));
    }

    async fn without_l2_a_batch_is_loaded_and_its_changes_are_queued(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        set_all(&cache, &["a"]).await;
        world.cut_off(&node).await;
        let table = Table::default();
        let found = texts(cache.get_or_load_many(["b", "c"], table.load()).await);
        assert_eq!(found, some(&["row of b", "row of c"]));
        let outcomes = cache.invalidate_many(["a", "b"]).await;
        assert!(outcomes.into_iter().all(|outcome| !outcome.unwrap().is_applied()));
        assert!(cache.get_many(["a", "z"]).await.into_iter().all(|entry| entry.is_err()));
        world.bring_back(&node).await;
        eventually("they are delivered", async || cache.stats().outbox_keys == 0).await;
        assert_eq!(texts(cache.get_many(["a"]).await), [None]);
    }

    /// A batch is as good as a loop of single calls.
    async fn a_batch_equals_a_loop(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (batched, looped): (Texts, Texts) =
            (a.nearfar.cache("batched").build().await.unwrap(), b.nearfar.cache("looped").build().await.unwrap());
        let mut rng = fastrand::Rng::with_seed(11);
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        for step in 0..60 {
            let keys: Vec<String> = (0..rng.usize(..8)).map(|_| format!("k{}", rng.u32(..10))).collect();
            match rng.u32(..3) {
                0 => {
                    let entries: Vec<_> = keys.iter().map(|key| (key.clone(), format!("{step}"))).collect();
                    assert_eq!(batched.set_many(entries.clone()).await.len(), keys.len());
                    for (key, value) in entries {
                        looped.set(&key, value.clone()).await.unwrap();
                        model.insert(key, value);
                    }
                }
                1 => {
                    assert_eq!(batched.invalidate_many(&keys).await.len(), keys.len());
                    for key in &keys {
                        looped.invalidate(key).await.unwrap();
                        model.remove(key);
                    }
                }
                _ => {
                    let load = move |keys: Vec<String>| async move {
                        Ok::<_, Infallible>(keys.into_iter().map(|key| (key, format!("{step}"))).collect::<Vec<_>>())
                    };
                    let found = texts(batched.get_or_load_many(&keys, load).await);
                    for (key, found) in keys.iter().zip(found) {
                        let load = move |_| async move { Ok::<_, Infallible>(format!("{step}")) };
                        let single = looped.get_or_load(key, load).await.unwrap();
                        let expected = model.entry(key.clone()).or_insert_with(|| format!("{step}"));
                        assert_eq!((found.as_ref(), &*single), (Some(&*expected), &*expected), "step {step}, {key}");
                    }
                }
            }
            let all: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
            for (key, found) in all.iter().zip(texts(batched.get_many(&all).await)) {
                let single = looped.get(key).await.unwrap().map(|entry| entry.to_string());
                assert_eq!((found.as_ref(), single.as_ref()), (model.get(key), model.get(key)), "step {step}, {key}");
            }
        }
    }

    /// The caller goes away while the first step of several is under way. Those that were not sent must not be lost.
    async fn what_a_cancelled_batch_has_not_sent_goes_to_the_outbox(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let keys: Vec<String> = (0..2_500).map(|number| format!("key {number}")).collect();
        let entries = keys.iter().map(|key| (key.clone(), key.clone()));
        assert!(here.set_many(entries).await.into_iter().all(|outcome| outcome.is_ok()));
        assert!(texts(there.get_many(&keys).await).into_iter().all(|text| text.is_some()));
        a.valves.changes.close();
        let cancelled = tokio::spawn({
            let (here, keys) = (here.clone(), keys.clone());
            async move { here.invalidate_many(&keys).await.len() }
        });
        eventually("it is under way", async || a.valves.changes.waiting() > 0).await;
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        assert_eq!(here.stats().outbox_keys, 2_500);
        a.valves.changes.open();
        eventually("all is delivered", async || here.stats().outbox_keys == 0).await;
        let gone = async || keys.iter().all(|key| there.peek(key).is_none());
        eventually("the other node has dropped them", gone).await;
        assert!(texts(here.get_many(&keys).await).into_iter().all(|text| text.is_none()));
    }

    /// A batch whose loader takes its time has found one of its keys in L2. Who joined that key has it at once, and does not
    /// wait for what is loaded of others; the loader itself may wait for it.
    async fn a_key_that_l2_has_does_not_wait_for_the_loader_of_others(world: World) {
        let node = world.node().await;
        let filled = world.node().await.texts().await;
        set_all(&filled, &["a"]).await;
        let cache = node.texts().await;
        node.valves.reads.close();
        let table = Table::default();
        table.valve.close();
        let batch = tokio::spawn({
            let (cache, load) = (cache.clone(), table.load());
            async move { texts(cache.get_or_load_many(["a", "x"], load).await) }
        });
        eventually("it reads", async || node.valves.reads.waiting() > 0).await;
        let joiner = tokio::spawn({
            let cache = cache.clone();
            let never = |_| async { Err::<String, _>(std::io::Error::other("it joins")) };
            async move { cache.get_or_load("a", never).await.unwrap().to_string() }
        });
        eventually("it has joined", async || cache.stats().joined == 1).await;
        node.valves.reads.open();
        table.valve.holds(1).await;
        assert_eq!(joiner.await.unwrap(), "a", "while the loader is at it");
        table.valve.open();
        assert_eq!(batch.await.unwrap(), some(&["a", "row of x"]));
    }

    async fn fresh_reads_and_reloads_go_past_what_is_cached(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        set_all(&here, &["a"]).await;
        let fresh = here.with(CallOptions::new().fresh());
        assert_eq!(fresh.get("a").await.unwrap().unwrap().tier(), Tier::L2);
        let skipping = there.with(CallOptions::new().skip_l1());
        assert_eq!(skipping.get("a").await.unwrap().unwrap().tier(), Tier::L2);
        assert_eq!(skipping.get_many(["a"]).await[0].as_ref().unwrap().as_ref().unwrap().tier(), Tier::L2);
        assert!(there.peek("a").is_none(), "it was not taken in");

        let table = Table::default();
        let reload = here.with(CallOptions::new().reload());
        assert_eq!(texts(reload.get_or_load_many(["a"], table.load()).await), some(&["row of a"]));
        let single = |_| async { Ok::<_, Infallible>("reloaded".to_owned()) };
        assert_eq!(**reload.get_or_load("a", single).await.unwrap(), *"reloaded");
        assert_eq!(**here.get("a").await.unwrap().unwrap(), *"reloaded");
        assert_eq!(**there.get("a").await.unwrap().unwrap(), *"reloaded");
        assert!(reload.get("a").await.unwrap().is_none(), "without a loader there is nothing that it could bring");
    }
}

/// Each of these can be awaited in a task of its own.
#[test]
fn every_call_can_be_spawned() {
    fn check<K: CacheKey>(cache: &'static Cache<K, String>, key: &'static K) {
        fn is_send(_: impl Send) {}
        let load = |keys: Vec<K>| async move {
            Ok::<_, Infallible>(keys.into_iter().map(|key| (key, String::new())).collect::<Vec<_>>())
        };
        is_send(async move { cache.get_many([key]).await });
        is_send(async move { cache.get_or_load_many([key], load).await });
        is_send(async move { cache.set_many([(key.clone(), String::new())]).await });
        is_send(async move { cache.invalidate_many([key]).await });
        is_send(async move { cache.set_if_absent(key, String::new()).await });
        is_send(async move { cache.update(key, |_| String::new()).await });
        is_send(async move { cache.touch(key).await });
        is_send(async move { cache.clear().await });
        is_send(async move { cache.invalidate_tag("tag").await });
        is_send(async move { cache.purge().finish().await });
    }
    let _: fn(&'static Cache<u64, String>, &'static u64) = check;
}
