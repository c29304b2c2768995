//! Reads, changes and fills that share a trip to L2.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join, join_all};
use futures_util::{FutureExt, poll};
use nearfar::{Cache, Entry, Error, Outcome, Tier, Version};
use nearfar_testkit::eventually;
use nearfar_tests::{Node, World, on_every_backend};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

/// As many are under way as may be at once; who comes now has to wait.
const AT_ONCE: usize = 4;

/// Keys of one partition, since only what is of one partition travels together.
fn keys<const N: usize>(world: &World) -> [String; N] {
    let of_first = |key: &String| world.partition_of("texts", key) == world.partition_of("texts", "0");
    let keys: Vec<String> = (0..100).map(|number| number.to_string()).filter(of_first).take(N).collect();
    keys.try_into().expect("there are enough of them")
}

fn applied(outcome: Result<Outcome, nearfar::Error>) -> Version {
    outcome.unwrap().version().expect("L2 is there")
}

/// Changes that are under way until the valve is opened.
async fn keep_busy(
    node: &Node,
    cache: &Cache<String, String>,
    keys: [String; AT_ONCE],
) -> Vec<JoinHandle<Version>> {
    node.valves.changes.close();
    let set = |key: String| {
        let cache = cache.clone();
        tokio::spawn(async move { applied(cache.set(&key, "busy".into()).await) })
    };
    let busy = keys.into_iter().map(set).collect();
    node.valves.changes.holds(AT_ONCE).await;
    busy
}

async fn text(cache: &Cache<String, String>, key: &str) -> Option<(String, Tier)> {
    let entry = cache.get(key).await.unwrap()?;
    Some((entry.to_string(), entry.tier()))
}

/// What a node sees that was not there.
async fn newcomer_sees(world: &World, key: &str) -> Option<String> {
    Some(text(&world.node().await.texts().await, key).await?.0)
}

/// Loads of two keys whose values are to be stored in one step, since others are under way until the valve of fills is opened.
struct Loads<'a> {
    busy: Vec<JoinHandle<Result<Entry<String>, Error>>>,
    waiting: Vec<BoxFuture<'a, Result<Entry<String>, Error>>>,
    /// Once to know that both have begun, and once to let them end.
    step: Arc<Barrier>,
}

impl<'a> Loads<'a> {
    /// Both of them have begun, and have not ended, when this returns.
    async fn begin(
        node: &Node,
        cache: &'a Cache<String, String>,
        busy: [String; AT_ONCE],
        keys: [&'a String; 2],
    ) -> Self {
        node.valves.fills.close();
        let busy = busy.map(|key| {
            let cache = cache.clone();
            tokio::spawn(async move {
                cache.get_or_load(&key, async |_| Ok::<_, Infallible>("busy".into())).await
            })
        });
        node.valves.fills.holds(AT_ONCE).await;
        let step = Arc::new(Barrier::new(keys.len() + 1));
        let load = |key| {
            let step = Arc::clone(&step);
            let loader = async move |_| {
                step.wait().await;
                step.wait().await;
                Ok::<_, Infallible>("loaded".to_owned())
            };
            cache.get_or_load(key, loader).boxed()
        };
        let mut loads = Self { busy: busy.into(), waiting: keys.map(load).into(), step };
        loads.pass().await;
        loads
    }

    async fn pass(&mut self) {
        tokio::select! {
            _ = join_all(&mut self.waiting) => panic!("they wait"),
            _ = self.step.wait() => {}
        }
    }

    /// Their values wait to be stored.
    async fn end(&mut self) {
        self.pass().await;
        for load in &mut self.waiting {
            assert!(poll!(load).is_pending());
        }
    }

    /// Everybody gets his value.
    async fn land(self) {
        for loaded in join_all(self.waiting).await {
            assert_eq!(*loaded.unwrap(), "loaded");
        }
        for busy in join_all(self.busy).await {
            assert_eq!(*busy.unwrap().unwrap(), "busy");
        }
    }
}

on_every_backend! {
    async fn of_two_sets_of_a_key_in_one_step_the_last_one_counts(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let [busy @ .., key] = keys::<{ AT_ONCE + 1 }>(&world);
        there.set(&key, "from before".into()).await.unwrap();
        let busy = keep_busy(&a, &here, busy).await;
        // They wait in this order, and hear of it in the other.
        let mut old = pin!(here.set(&key, "old".into()));
        let mut new = pin!(here.set(&key, "new".into()));
        assert!(poll!(&mut old).is_pending() && poll!(&mut new).is_pending());
        a.valves.changes.open();
        let (new, old) = (new.await, old.await);
        assert_eq!(applied(old), applied(new), "they went together");
        for busy in busy {
            busy.await.unwrap();
        }
        assert_eq!(text(&here, &key).await, Some(("new".into(), Tier::L1)));
        eventually("the other hears of it", async || there.peek(&key).is_none()).await;
        assert_eq!(text(&there, &key).await, Some(("new".into(), Tier::L2)));
    }

    async fn a_set_and_an_invalidation_in_one_step_keep_their_order(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let [busy @ .., set_last, set_first] = keys::<{ AT_ONCE + 2 }>(&world);
        let busy = keep_busy(&a, &here, busy).await;
        let open = async { a.valves.changes.open() };
        let first = join(here.invalidate(&set_last), here.set(&set_last, "there".into()));
        let second = join(here.set(&set_first, "gone".into()), here.invalidate(&set_first));
        let ((first, second), ()) = join(join(first, second), open).await;
        let versions = [first.0, first.1, second.0, second.1].map(applied);
        assert!(versions.iter().all(|version| *version == versions[0]));
        for busy in busy {
            busy.await.unwrap();
        }
        assert_eq!(text(&here, &set_last).await, Some(("there".into(), Tier::L1)));
        assert!(here.peek(&set_first).is_none() && here.get(&set_first).await.unwrap().is_none());
        assert_eq!(text(&there, &set_last).await, Some(("there".into(), Tier::L2)));
        assert!(there.get(&set_first).await.unwrap().is_none());
        assert_eq!(newcomer_sees(&world, &set_last).await.as_deref(), Some("there"));
    }

    async fn changes_of_all_kinds_wait_together_and_all_take_effect(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let [busy @ .., set, expired, updated] = keys::<{ AT_ONCE + 3 }>(&world);
        for key in [&expired, &updated] {
            cache.set(key, "before".into()).await.unwrap();
        }
        let busy = keep_busy(&node, &cache, busy).await;
        let open = async { node.valves.changes.open() };
        let update = cache.update(&updated, |value| format!("{} and after", value.unwrap()));
        let rest = join(cache.expire(&expired), join(cache.invalidate_tag("tag"), update));
        let ((set_outcome, (expire, (tag, update))), ()) =
            join(join(cache.set(&set, "set".into()), rest), open).await;
        applied(set_outcome);
        assert!(expire.unwrap().is_applied() && tag.unwrap().is_applied());
        update.unwrap();
        for busy in busy {
            busy.await.unwrap();
        }
        let seen = [set, expired, updated].map(|key| cache.peek(&key).map(|entry| entry.to_string()));
        assert_eq!(seen, [Some("set".into()), None, Some("before and after".into())]);
    }

    /// It was not sent, but nobody can know that: its key is invalidated.
    async fn who_gives_up_while_waiting_takes_nobody_along(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let [busy @ .., given_up, kept] = keys::<{ AT_ONCE + 2 }>(&world);
        there.set(&given_up, "before".into()).await.unwrap();
        let busy = keep_busy(&a, &here, busy).await;
        {
            let waiting = pin!(here.set(&given_up, "never".into()));
            assert!(poll!(waiting).is_pending());
        }
        let open = async { a.valves.changes.open() };
        let (outcome, ()) = join(here.set(&kept, "kept".into()), open).await;
        applied(outcome);
        for busy in busy {
            busy.await.unwrap();
        }
        assert_eq!(newcomer_sees(&world, &kept).await.as_deref(), Some("kept"));
        eventually("it is invalidated", async || newcomer_sees(&world, &given_up).await.is_none()).await;
    }

    /// R3 for fills that share a step.
    async fn of_loads_that_are_stored_in_one_step_only_the_overtaken_one_is_refused(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let [busy @ .., fine, overtaken] = keys::<{ AT_ONCE + 2 }>(&world);
        let mut loads = Loads::begin(&a, &here, busy, [&fine, &overtaken]).await;
        applied(there.invalidate(&overtaken).await);
        loads.end().await;
        a.valves.fills.open();
        loads.land().await;
        let stats = here.stats();
        assert_eq!((stats.coalesced_fills, stats.fills_refused), (2, 1));
        assert_eq!(text(&there, &fine).await, Some(("loaded".into(), Tier::L2)));
        assert_eq!((text(&there, &overtaken).await, text(&here, &overtaken).await), (None, None));
    }

    async fn a_step_of_fills_that_fails_leaves_the_values_to_their_callers_and_to_l1(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let [busy @ .., one, other] = keys::<{ AT_ONCE + 2 }>(&world);
        let mut loads = Loads::begin(&a, &here, busy, [&one, &other]).await;
        loads.end().await;
        a.valves.refuse_fills();
        a.valves.fills.open();
        loads.land().await;
        for key in [&one, &other] {
            assert_eq!(text(&here, key).await, Some(("loaded".into(), Tier::L1)));
            assert_eq!(text(&there, key).await, None);
        }
    }

    async fn who_gives_up_while_his_value_waits_to_be_stored_takes_nobody_along(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let [busy @ .., kept, given_up] = keys::<{ AT_ONCE + 2 }>(&world);
        let mut loads = Loads::begin(&a, &here, busy, [&kept, &given_up]).await;
        loads.end().await;
        drop(loads.waiting.pop());
        a.valves.fills.open();
        loads.land().await;
        assert_eq!(text(&there, &kept).await, Some(("loaded".into(), Tier::L2)));
        assert_eq!(text(&there, &given_up).await, None);
    }

    /// R2 for reads that only share a trip: one of the keys is invalidated while it is under way.
    async fn only_the_read_that_was_overtaken_is_refused_by_the_fence(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let keys = keys::<{ AT_ONCE + 2 }>(&world);
        for key in &keys {
            here.set(key, format!("value of {key}")).await.unwrap();
        }
        eventually("they are heard of", async || there.stats().invalidations_received == AT_ONCE as u64 + 2).await;
        b.valves.reads.close();
        let value = |key: &String| {
            let (there, key) = (there.clone(), key.clone());
            async move { text(&there, &key).await.map(|(value, _)| value) }
        };
        let [busy @ .., overtaken, kept] = keys;
        let busy: [String; AT_ONCE] = busy;
        let busy = busy.map(|key| tokio::spawn(value(&key)));
        b.valves.reads.holds(AT_ONCE).await;
        // They wait for those, though not for long; then they are under way as well.
        let together = tokio::spawn(join(value(&overtaken), value(&kept)));
        b.valves.reads.holds(AT_ONCE + 1).await;
        here.invalidate(&overtaken).await.unwrap();
        eventually("it is heard of", async || there.stats().invalidations_received == AT_ONCE as u64 + 3).await;
        b.valves.reads.open();
        let (read_overtaken, read_kept) = together.await.unwrap();
        assert_eq!(read_overtaken, Some(format!("value of {overtaken}")), "it began before the change");
        assert_eq!(read_kept, Some(format!("value of {kept}")));
        for read in busy {
            assert!(read.await.unwrap().is_some());
        }
        assert!(there.peek(&overtaken).is_none() && there.peek(&kept).is_some());
    }
}
