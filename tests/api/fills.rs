//! A slow read or load never puts an old value back. Names of races as in `docs/protocol.md`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nearfar::{Cache, Tier};
use nearfar_testkit::eventually;
use nearfar_tests::{Node, Valve, on_every_backend};
use tokio::task::JoinHandle;

/// The database's row of every key.
type Row = Arc<AtomicU64>;

/// A loader that reads the row at once and comes back with it when the valve lets it.
async fn read_row(row: Row, valve: Valve) -> Result<String, Infallible> {
    let revision = row.load(Ordering::SeqCst);
    valve.pass().await;
    Ok(format!("row {revision}"))
}

/// A load of `k` that has read row 1 and not come back with it.
struct SlowLoad {
    row: Row,
    valve: Valve,
    task: JoinHandle<String>,
}

impl SlowLoad {
    async fn begin(cache: &Cache<String, String>) -> Self {
        let (row, valve) = (Arc::new(AtomicU64::new(1)), Valve::default());
        valve.close();
        let (cache, loader) = (cache.clone(), read_row(Arc::clone(&row), valve.clone()));
        let task = tokio::spawn(async move { cache.get_or_load("k", |_| loader).await.unwrap().to_string() });
        valve.holds(1).await;
        Self { row, valve, task }
    }

    /// The transaction that the load did not see.
    fn commit(&self) {
        self.row.store(2, Ordering::SeqCst);
    }

    /// Lets it come back; returns what its caller gets.
    async fn end(self) -> String {
        self.valve.open();
        self.task.await.unwrap()
    }
}

async fn origin(_key: String) -> Result<String, Infallible> {
    Ok("row 1".to_owned())
}

async fn applied(cache: &Cache<String, String>, messages: u64) {
    eventually("the messages are applied", async || cache.stats().invalidations_received >= messages).await;
}

on_every_backend! {
    /// R1: B reads L2 and pauses before its L1 insert; A writes and B handles the message, with nothing to evict yet;
    /// B goes on. Without the ticket B keeps the old value until its ttl.
    async fn a_read_that_an_invalidation_overtook_is_not_kept(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        here.set("k", "old".into()).await.unwrap();
        applied(&there, 1).await;

        b.valves.reads.close();
        let reader = tokio::spawn({
            let there = there.clone();
            async move { there.get("k").await.unwrap().unwrap().clone() }
        });
        b.valves.reads.holds(1).await;
        here.set("k", "new".into()).await.unwrap();
        applied(&there, 2).await;
        b.valves.reads.open();

        assert_eq!(*reader.await.unwrap(), "old", "the read began before the write");
        assert!(there.peek("k").is_none(), "and is not kept");
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
    }

    /// R1 with a `clear` in the place of the write.
    async fn a_read_that_a_clear_overtook_is_not_kept(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        here.set("k", "old".into()).await.unwrap();
        there.set("marker", "warm".into()).await.unwrap();

        b.valves.reads.close();
        let reader = tokio::spawn({
            let there = there.clone();
            async move { there.get("k").await.unwrap() }
        });
        b.valves.reads.holds(1).await;
        here.clear().await.unwrap();
        eventually("the message arrives", async || there.peek("marker").is_none()).await;
        b.valves.reads.open();

        assert!(reader.await.unwrap().is_some());
        assert!(there.peek("k").is_none());
        assert!(there.get("k").await.unwrap().is_none());
    }

    /// R3: B's loader has read the old row; A commits and invalidates; B's fill arrives. Without the version check in
    /// L2 every node is stale until the ttl.
    async fn a_late_fill_never_overwrites_a_newer_truth(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let load = SlowLoad::begin(&there).await;

        load.commit();
        here.invalidate("k").await.unwrap();
        assert_eq!(load.end().await, "row 1", "the load began before the invalidation");
        assert_eq!(there.stats().fills_refused, 1);
        for cache in [&here, &there] {
            assert!(cache.get("k").await.unwrap().is_none(), "L2 and every L1 are free of the old row");
        }
        let fresh = there.get_or_load("k", |_| async { Ok::<_, Infallible>("row 2".to_owned()) }).await.unwrap();
        assert_eq!((fresh.as_str(), fresh.tier()), ("row 2", Tier::Loader));
    }

    /// R3 with a `set` in the place of the invalidation: a value fences as a tombstone does.
    async fn a_late_fill_never_overwrites_a_newer_value(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let load = SlowLoad::begin(&there).await;
        here.set("k", "row 2".into()).await.unwrap();
        load.end().await;
        for cache in [&here, &there] {
            assert_eq!(*cache.get("k").await.unwrap().unwrap(), "row 2");
        }
    }

    /// R22: a clear, or a flush of the server, races a fill. What was read before belongs to a history that is over.
    async fn a_fill_that_a_clear_or_flush_overtook_is_refused(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        for flush in [false, true] {
            let load = SlowLoad::begin(&there).await;
            if flush {
                world.flush().await;
            } else {
                here.clear().await.unwrap();
            }
            here.invalidate("another key").await.unwrap();
            load.end().await;
            assert!(here.get("k").await.unwrap().is_none(), "flush: {flush}");
        }
        assert_eq!(there.stats().fills_refused, 2);
    }

    /// A one-second ttl must not open R3 again: the value is gone for readers, and still fences.
    async fn a_value_that_has_expired_still_fences(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let ttl = Duration::from_millis(30);
        let build = async |node: &Node| -> Cache<String, String> {
            node.nearfar.cache("short").ttl(ttl).build().await.unwrap()
        };
        let (here, there) = (build(&a).await, build(&b).await);
        let load = SlowLoad::begin(&there).await;
        here.set("k", "row 2".into()).await.unwrap();
        eventually("the value expires", async || here.get("k").await.unwrap().is_none()).await;
        load.end().await;
        assert_eq!(there.stats().fills_refused, 1);
        assert!(here.get("k").await.unwrap().is_none());
    }

    /// A load that takes longer than the fence window could find its tombstone gone.
    async fn a_load_longer_than_the_fence_window_is_stored_nowhere(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let window = Duration::from_millis(100);
        let build = async |node: &Node| -> Cache<String, String> {
            node.nearfar.cache("windowed").fence_window(window).build().await.unwrap()
        };
        let (here, there) = (build(&a).await, build(&b).await);
        let load = SlowLoad::begin(&there).await;
        load.commit();
        here.invalidate("k").await.unwrap();
        // The window is the thing under test; it has passed when a tombstone of now is gone for certain.
        nearfar_testkit::let_pass(window * 2).await;
        assert_eq!(load.end().await, "row 1", "its caller gets it all the same");
        assert!(there.peek("k").is_none());
        assert!(here.get("k").await.unwrap().is_none());
        assert_eq!(there.stats().fills_refused, 1);
    }

    /// R3 with a fill that is slow on its way: the load was quick enough, yet the fill arrives when the tombstone that
    /// it must meet is gone.
    async fn a_fill_that_arrives_after_the_fence_window_is_refused(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let window = Duration::from_millis(600);
        let build = async |node: &Node| -> Cache<String, String> {
            let builder = node.nearfar.cache("windowed").fence_window(window);
            builder.max_staleness(Duration::from_millis(100)).build().await.unwrap()
        };
        let (here, there) = (build(&a).await, build(&b).await);
        let load = SlowLoad::begin(&there).await;
        load.commit();
        here.invalidate("k").await.unwrap();
        // The window is the thing under test. Neither part of the way is longer, together they are. Beats go on
        // meanwhile, and what they tell of the server's clock must not move the deadline.
        nearfar_testkit::let_pass(window * 7 / 10).await;
        b.valves.fills.close();
        load.valve.open();
        b.valves.fills.holds(1).await;
        nearfar_testkit::let_pass(window * 7 / 10).await;
        b.valves.fills.open();
        assert_eq!(load.end().await, "row 1");
        assert!(here.get("k").await.unwrap().is_none());
        assert!(there.get("k").await.unwrap().is_none());
    }

    /// A newer value is in L1, its message is still under way, and an older load comes back that L2 could not judge.
    async fn an_older_load_does_not_replace_a_newer_copy(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        b.valves.refuse_fills();
        let load = SlowLoad::begin(&there).await;
        b.valves.bus.close();
        here.set("k", "row 2".into()).await.unwrap();
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "row 2");
        load.end().await;
        assert_eq!(*there.peek("k").unwrap(), "row 2");
        b.valves.bus.open();
    }

    /// R18: the loader succeeds, the write to L2 fails. The value is not thrown away.
    async fn a_fill_that_fails_costs_the_caller_nothing(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        node.valves.refuse_fills();
        let loaded = cache.get_or_load("k", origin).await.unwrap();
        assert_eq!(*loaded, "row 1");
        assert_eq!(*cache.peek("k").unwrap(), "row 1", "L1 has it");
        assert_eq!(cache.stats().l2_failures, 1);
    }

    /// R27: a fill that is broadcast as if it were a write has the nodes evict each other's fresh copies in a loop.
    async fn a_fill_is_not_broadcast(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        here.get_or_load("k", origin).await.unwrap();
        there.get("k").await.unwrap();
        here.invalidate("another key").await.unwrap();
        applied(&there, 1).await;
        assert_eq!(there.stats().invalidations_received, 1, "the invalidation alone");
        assert!(here.peek("k").is_some() && there.peek("k").is_some());
    }

    /// R12: a message is late; the node has read a newer value meanwhile. The message must not take it away, let alone
    /// bring the old one.
    async fn a_late_message_does_not_evict_a_newer_copy(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        b.valves.bus.close();
        here.set("k", "old".into()).await.unwrap();
        here.set("k", "new".into()).await.unwrap();
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
        b.valves.bus.open();
        applied(&there, 2).await;
        assert_eq!(*there.peek("k").unwrap(), "new");
    }
}
