//! What a node does when it may have missed something.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use nearfar::backend::BusEvent;
use nearfar::{Cache, Nearfar, Tier};
use nearfar_core::{Doubt, Message, MessageBody, NodeId, Version};
use nearfar_testkit::eventually;
use nearfar_tests::{Node, on_every_backend, trusted};

/// A key whose decoder relies on what it is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pair(u32, u32);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

impl FromStr for Pair {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (left, right) = text.split_once(':').expect("every pair has a colon");
        Ok(Self(left.parse()?, right.parse()?))
    }
}

async fn doubted(cache: &Cache<String, String>) {
    eventually("the node doubts", async || cache.stats().doubts > 0).await;
}

/// A node with a warm copy of `k`, beside another that writes.
async fn warm_pair(a: &Node, b: &Node) -> (Cache<String, String>, Cache<String, String>) {
    let (here, there) = (a.texts().await, b.texts().await);
    here.set("k", "old".into()).await.unwrap();
    eventually("the copy is warm", async || {
        there.get("k").await.unwrap().is_some_and(|entry| entry.tier() == Tier::L1)
    })
    .await;
    (here, there)
}

on_every_backend! {
    async fn messages_that_wait_to_be_applied_are_counted(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        b.valves.bus.close();
        for key in ["1", "2", "3"] {
            assert!(here.invalidate(key).await.unwrap().is_applied());
        }
        eventually("they are seen to wait", async || there.stats().backlog >= 3).await;
        b.valves.bus.open();
        eventually("they are applied", async || there.stats().backlog == 0).await;
    }

    /// R6: B's subscription drops, A writes, B subscribes again and goes on serving L1.
    async fn a_node_that_missed_a_message_serves_nothing_from_before(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.isolate(&b).await;
        eventually("B notices", async || !there.stats().trusted).await;
        here.set("k", "new".into()).await.unwrap();
        assert!(there.peek("k").is_none(), "not from L1 in between");

        world.rejoin(&b).await;
        eventually("B is back", async || {
            assert_ne!(there.peek("k").as_deref().map(String::as_str), Some("old"));
            there.stats().trusted
        })
        .await;
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
    }

    async fn a_subscription_that_was_interrupted_for_a_moment_heals(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        for round in 0..5 {
            let doubts = there.stats().doubts;
            world.interrupt_subscriptions().await;
            here.set("k", format!("new {round}")).await.unwrap();
            eventually("B notices", async || there.stats().doubts > doubts).await;
            trusted(&there).await;
            // The repair may have come before the change; then its message is on its way like any other.
            eventually("the change arrives, by the bus or by replay", async || {
                *there.get("k").await.unwrap().unwrap() == format!("new {round}")
            })
            .await;
        }
    }

    /// R9: a burst of messages while the handler is slow. The receive queue is bounded, so it overruns; the node must
    /// know, and forget. Changes with a precondition have a message each.
    async fn a_burst_that_overruns_the_receive_queue_is_noticed(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        b.valves.bus.close();
        here.set("k", "new".into()).await.unwrap();
        let burst = (0..10_000).map(|key: u32| {
            let here = here.clone();
            async move { here.set_if_absent(&key.to_string(), "new".to_owned()).await.unwrap() }
        });
        // Some at a time: this is about the receiver.
        futures_util::stream::StreamExt::for_each_concurrent(futures_util::stream::iter(burst), 64, async |burst| {
            burst.await;
        })
        .await;
        b.valves.bus.open();
        doubted(&there).await;
        trusted(&there).await;
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
        assert_eq!(here.stats().sets, 10_002);
    }

    /// FLUSHALL says nothing to anybody; the next beat finds another history.
    async fn a_flushed_server_is_noticed_at_the_next_beat(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.flush().await;
        for cache in [&here, &there] {
            eventually("the copy is forgotten", async || cache.peek("k").is_none()).await;
            assert!(cache.get("k").await.unwrap().is_none());
            trusted(cache).await;
        }
        here.set("k", "new".into()).await.unwrap();
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
    }

    async fn a_number_that_l2_never_gave_makes_a_node_forget(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (_here, there) = warm_pair(&a, &b).await;
        let resyncs = there.stats().resyncs;
        let partition = world.partition_of("texts", "k");
        let body = MessageBody::Keys(vec!["elsewhere".into()]);
        let unlinked = Message::encode(NodeId::new(9), &body);
        let greatest = Version::GREATEST.number();
        let frame = Message::stamped(&unlinked, Version::new(greatest), Version::new(greatest - 1));
        b.valves.inject(BusEvent::Message { partition, frame });
        doubted(&there).await;
        eventually("it resyncs", async || there.stats().resyncs > resyncs).await;
        assert_eq!(there.get("k").await.unwrap().unwrap().tier(), Tier::L2);
    }

    /// Whatever a program publishes on the channel: a frame that cannot be read may have been a message. Here it was
    /// none, as the next echo shows.
    async fn frames_that_cannot_be_read_make_a_node_doubt(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (_here, there) = warm_pair(&a, &b).await;
        let resyncs = there.stats().resyncs;
        let partition = world.partition_of("texts", "k");
        let frames: [&'static [u8]; 5] =
            [b"", b"hello", b"NM", b"NM\x09\x01", b"NM\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"];
        let messages = frames.map(|frame| BusEvent::Message { partition: partition.clone(), frame: frame.into() });
        let echo = BusEvent::Echo { partition: partition.clone(), frame: "NE?".into() };
        for (count, event) in messages.into_iter().chain([echo]).enumerate() {
            b.valves.inject(event);
            eventually("it doubts", async || there.stats().doubts > count as u64).await;
            trusted(&there).await;
            assert_eq!(there.stats().bad_frames, count as u64 + 1);
        }
        assert_eq!(*there.peek("k").unwrap(), "old");
        assert_eq!(there.stats().resyncs, resyncs);
    }

    /// A key that another type of the namespace wrote may make this type's decoder panic. The receive loop must outlive
    /// it, or the node would never be trusted again; and no copy here has such a key.
    async fn a_key_decoder_that_panics_costs_nothing(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let words: Cache<String, u8> = a.nearfar.cache("pairs").build().await.unwrap();
        let pairs: Cache<Pair, u8> = b.nearfar.cache("pairs").build().await.unwrap();
        pairs.set(&Pair(1, 2), 3).await.unwrap();
        words.set("no pair at all", 1).await.unwrap();
        eventually("the message is applied", async || pairs.stats().invalidations_received == 1).await;
        assert_eq!(*pairs.peek(&Pair(1, 2)).unwrap(), 3);
        assert_eq!((pairs.stats().doubts, pairs.stats().bad_frames), (0, 0));
        words.set("1:2", 4).await.unwrap();
        eventually("messages arrive as ever", async || *pairs.get(&Pair(1, 2)).await.unwrap().unwrap() == 4).await;
    }

    /// Trust must come from the echo, which stands behind the messages, and not from the reply to the beat, which does
    /// not: here replies come and messages do not.
    async fn answers_on_the_command_connection_prove_nothing(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let bound = Duration::from_millis(300);
        let build = async |node: &Node| -> Cache<String, String> {
            node.nearfar.cache("bounded").max_staleness(bound).build().await.unwrap()
        };
        let (here, there) = (build(&a).await, build(&b).await);
        here.set("k", "old".into()).await.unwrap();
        there.get("k").await.unwrap();
        b.valves.bus.close();
        here.set("k", "new".into()).await.unwrap();
        eventually("trust runs out", async || there.peek("k").is_none()).await;
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
        b.valves.bus.open();
        trusted(&there).await;
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "new");
    }

    /// Each attempt gives up before the watchdog would bark; together they last longer.
    async fn a_dead_subscription_is_replaced_although_no_build_waits_for_it(world: World) {
        let node = world.node_with(Nearfar::builder().connect_timeout(Duration::from_millis(500))).await;
        node.valves.bus.close();
        let build = async || node.nearfar.cache::<String, String>("texts").build().await;
        assert!(build().await.unwrap_err().is_unavailable());
        eventually("a build succeeds", async || build().await.is_ok()).await;
    }

    async fn an_own_clear_is_forgotten_for_once(world: World) {
        let (node, other) = (world.node().await, world.node().await);
        let (cache, marker) = (node.texts().await, other.texts().await);
        node.valves.bus.close();
        cache.clear().await.unwrap();
        cache.set("k", "after".into()).await.unwrap();
        node.valves.bus.open();
        marker.invalidate("marker").await.unwrap();
        eventually("a message behind it is handled", async || cache.stats().invalidations_received == 1).await;
        assert_eq!(*cache.peek("k").unwrap(), "after", "the message of the clear came after the value");
    }

    async fn a_doubt_without_a_loss_costs_nothing_but_a_moment_of_trust(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (_here, there) = warm_pair(&a, &b).await;
        let resyncs = there.stats().resyncs;
        for round in 0..20 {
            b.valves.inject(BusEvent::Doubt(Doubt::TopologyChanged));
            eventually("it doubts", async || there.stats().doubts > round).await;
            trusted(&there).await;
        }
        assert_eq!(there.get("k").await.unwrap().unwrap().tier(), Tier::L1);
        assert_eq!(there.stats().resyncs, resyncs);
    }

    /// A node that forgets all it has whenever it missed something asks for all of it again; all nodes that do so at once
    /// are a flood (race R28). What was missed is in the log.
    async fn a_node_fetches_what_it_missed_and_keeps_the_rest(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let keys: Vec<String> = (0..1_000).map(|key| key.to_string()).collect();
        for key in &keys {
            here.set(key, "old".into()).await.unwrap();
        }
        eventually("the messages are applied", async || there.stats().invalidations_received == 1_000).await;
        for key in &keys {
            there.get(key).await.unwrap();
        }
        let resyncs = there.stats().resyncs;

        world.isolate(&b).await;
        eventually("B notices", async || !there.stats().trusted).await;
        let (missed, kept) = keys.split_at(50);
        for key in missed {
            here.set(key, "new".into()).await.unwrap();
        }
        world.rejoin(&b).await;
        trusted(&there).await;

        assert!(kept.iter().all(|key| there.peek(key).is_some_and(|entry| *entry == "old")), "950 entries are warm");
        assert!(missed.iter().all(|key| there.peek(key).is_none()), "50 are gone");
        for key in missed {
            assert_eq!(*there.get(key).await.unwrap().unwrap(), "new");
        }
        let stats = there.stats();
        assert_eq!(stats.resyncs, resyncs);
        assert_eq!(stats.replayed, 50);
    }

    async fn a_clear_that_was_missed_is_replayed(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        world.isolate(&b).await;
        eventually("B notices", async || !there.stats().trusted).await;
        here.clear().await.unwrap();
        world.rejoin(&b).await;
        trusted(&there).await;
        assert!(there.peek("k").is_none());
        assert!(there.get("k").await.unwrap().is_none());
    }

    /// R1 while the invalidation comes by replay: the fill must lose all the same.
    async fn a_read_that_a_replayed_invalidation_overtook_is_not_kept(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = warm_pair(&a, &b).await;
        here.set("other", "old".into()).await.unwrap();
        eventually("the message is applied", async || there.stats().invalidations_received == 2).await;
        let resyncs = there.stats().resyncs;
        b.valves.bus.close();
        b.valves.reads.close();
        let reader = tokio::spawn({
            let there = there.clone();
            async move { there.get("other").await.unwrap() }
        });
        b.valves.reads.holds(1).await;
        // What stands in the queue is lost with the connection.
        world.isolate(&b).await;
        here.set("other", "new".into()).await.unwrap();
        b.valves.bus.open();
        world.rejoin(&b).await;
        trusted(&there).await;
        eventually("the message is applied", async || there.stats().replayed > 0).await;
        b.valves.reads.open();
        assert_eq!(*reader.await.unwrap().unwrap(), "old");
        assert!(there.peek("other").is_none());
        assert_eq!(*there.get("other").await.unwrap().unwrap(), "new");
        assert_eq!(there.stats().resyncs, resyncs);
    }
}
