//! The bus on a real server: order, doubts, and coming back.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{NODE, beat, doubted, is_echo, is_message, next, next_that, pair, partition, set, subscribed};
use nearfar_core::backend::{Bus, BusEvent, L2, ServerId};
use nearfar_core::{Doubt, Echo, Message, Namespace, NodeId, PartitionId};
use nearfar_redis::{RedisBus, RedisL2, connect};
use nearfar_testkit::{Cut, FaultProxy, RedisServer, eventually};

async fn subscribed_pair(server: &RedisServer) -> (RedisL2, RedisBus) {
    let (l2, mut bus) = pair(server).await;
    bus.subscribe(&partition(), NODE);
    subscribed(&mut bus).await;
    (l2, bus)
}

/// That what is published arrives, passing over what came before.
async fn works(l2: &RedisL2, bus: &mut RedisBus) {
    let version = l2.change(&partition(), set("k", b"one")).await.unwrap();
    next_that(bus, |event| match event {
        BusEvent::Message { frame, .. } => Message::decode(frame).is_ok_and(|it| it.sequence == version),
        _ => false,
    })
    .await;
}

async fn publish(server: &RedisServer, payload: &[u8]) {
    let receivers = server.command(&[b"PUBLISH", b"{users.0}#bus" as &[u8], payload]).await.int();
    assert_eq!(receivers, Some(1));
}

#[tokio::test]
async fn a_change_is_heard_before_the_echo_of_a_later_beat() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    let version = l2.change(&partition(), set("k", b"one")).await.unwrap();
    let reply = l2.beat(&partition(), &beat(3)).await.unwrap();

    let BusEvent::Message { partition: of, frame } = next(&mut bus).await else {
        panic!("a message is first")
    };
    let message = Message::decode(&frame).unwrap();
    assert_eq!((of, message.sequence, message.origin), (partition(), version, NODE));
    assert!(message.previous < version);

    let BusEvent::Echo { partition: of, frame } = next(&mut bus).await else { panic!("the echo is second") };
    let echo = Echo { beat: beat(3).id, sequence: version, time: reply.time };
    assert_eq!((of, Echo::decode(&frame)), (partition(), Ok(echo)));
    assert_eq!(reply.sequence, version);
}

#[tokio::test]
async fn messages_link_to_the_one_before() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    let mut last = None;
    for _ in 0..100 {
        l2.change(&partition(), set("k", b"one")).await.unwrap();
        let BusEvent::Message { frame, .. } = next(&mut bus).await else { panic!("only messages come") };
        let message = Message::decode(&frame).unwrap();
        assert!(last.is_none_or(|last| last == message.previous));
        last = Some(message.sequence);
    }
}

#[tokio::test]
async fn each_namespace_and_node_hears_its_own() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    let other = first_partition("orders");
    bus.subscribe(&other, NODE);
    subscribed(&mut bus).await;

    l2.beat(&partition(), &nearfar_core::backend::Beat { node: NodeId::new(8), ..beat(1) }).await.unwrap();
    l2.change(&other, set("k", b"one")).await.unwrap();
    let event = next(&mut bus).await;
    assert!(matches!(event, BusEvent::Message { partition, .. } if partition == other));

    bus.unsubscribe(&other, NODE);
    eventually("the server knows", async || {
        server.command(&["PUBLISH", "{orders.0}#bus", ""]).await.int() == Some(0)
    })
    .await;
    works(&l2, &mut bus).await;
}

#[tokio::test]
async fn a_killed_subscription_is_doubted_and_made_anew() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    for _ in 0..3 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        doubted(&mut bus, Doubt::Disconnected).await;
        subscribed(&mut bus).await;
        works(&l2, &mut bus).await;
    }
}

/// Whatever a new connection delivers stands behind the doubt about the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_gap_without_a_doubt_before_it() {
    let server = RedisServer::start().await;
    let (_l2, mut bus) = subscribed_pair(&server).await;
    let mut publisher = server.connect().await.unwrap();
    let publisher = tokio::spawn(async move {
        for number in 0.. {
            publisher.command(&["PUBLISH", "{users.0}#bus", &format!("{number}")]).await.unwrap();
        }
    });

    let (mut last, mut doubted, mut gaps) = (None, false, 0);
    while gaps < 5 {
        match next(&mut bus).await {
            BusEvent::Doubt(_) | BusEvent::DoubtIn(..) => doubted = true,
            BusEvent::Message { frame, .. } => {
                let number: u64 = std::str::from_utf8(&frame).unwrap().parse().unwrap();
                if last.is_some_and(|last: u64| number != last + 1) {
                    assert!(doubted, "{last:?} is followed by {number}");
                    gaps += 1;
                    doubted = false;
                }
                last = Some(number);
                if number.is_multiple_of(500) {
                    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
                }
            }
            BusEvent::Echo { .. } | BusEvent::Subscribed | BusEvent::Refused { .. } => {}
        }
    }
    publisher.abort();
}

#[tokio::test]
async fn a_receiver_that_sleeps_through_messages_is_told_how_many() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    let flood = "for i = 1, 20000 do redis.call('PUBLISH', '{users.0}#bus', 'x') end";
    server.command(&["EVAL", flood, "0"]).await;
    // The pipe is in order: when this comes back, the flood has been received, and the queue has overflowed.
    eventually("the flood is over", async || {
        let idle = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
        idle.text().unwrap().contains("omem=0") && idle.text().unwrap().contains("obl=0")
    })
    .await;
    l2.beat(&partition(), &beat(1)).await.unwrap();

    let (mut messages, mut lost) = (0, 0);
    loop {
        match next(&mut bus).await {
            BusEvent::Message { .. } => messages += 1,
            BusEvent::Doubt(Doubt::Lagged { messages }) => lost += messages,
            BusEvent::Echo { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0, "20,000 do not fit");
    assert_eq!(messages + lost, 20_000, "every one is delivered or counted");
    works(&l2, &mut bus).await;
}

#[tokio::test]
async fn whatever_is_published_arrives_as_it_is() {
    let server = RedisServer::start().await;
    let (_l2, mut bus) = subscribed_pair(&server).await;
    let megabyte = vec![0xab; 1024 * 1024];
    for payload in
        [&b""[..], b"QUEUED", b"OK", b"-ERR no", b"12", b"\xff\xfe\0\r\n", b"NM\x01\x01", &megabyte]
    {
        publish(&server, payload).await;
        let event = next(&mut bus).await;
        assert!(
            event == BusEvent::Message { partition: partition(), frame: Bytes::copy_from_slice(payload) }
        );
    }
}

#[tokio::test]
async fn nothing_is_lost_by_dropping_the_future() {
    let server = RedisServer::start().await;
    let (_l2, mut bus) = subscribed_pair(&server).await;
    for number in 0..200_u32 {
        publish(&server, &number.to_be_bytes()).await;
    }
    let mut heard = 0;
    while heard < 200_u32 {
        let polled_once = tokio::time::timeout(Duration::ZERO, bus.next()).await;
        let Ok(Some(BusEvent::Message { frame, .. })) = polled_once else { continue };
        assert_eq!(&frame[..], heard.to_be_bytes());
        heard += 1;
    }
}

#[tokio::test]
async fn a_replaced_link_is_doubted_and_works() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    for _ in 0..5 {
        bus.reconnect(ServerId::default());
        bus.reconnect(ServerId::default());
        assert_eq!(next(&mut bus).await, BusEvent::Doubt(Doubt::Disconnected));
        subscribed(&mut bus).await;
        works(&l2, &mut bus).await;
    }
    eventually("one link is left", async || {
        let list = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
        list.text().unwrap().lines().count() == 1
    })
    .await;
}

#[tokio::test]
async fn replacing_a_link_waits_for_nothing() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    server.pause().await;
    bus.reconnect(ServerId::default());
    assert_eq!(next(&mut bus).await, BusEvent::Doubt(Doubt::Disconnected));
    server.resume().await;
    subscribed(&mut bus).await;
    works(&l2, &mut bus).await;
}

#[tokio::test]
async fn subscriptions_outlive_a_restart_of_the_server() {
    let mut server = RedisServer::start().await;
    let (l2, mut bus) = subscribed_pair(&server).await;
    server.kill().await;
    doubted(&mut bus, Doubt::Disconnected).await;
    // Asked for while nobody is there.
    let other = first_partition("orders");
    bus.subscribe(&other, NODE);
    server.restart_empty().await;
    subscribed(&mut bus).await;
    eventually("commands work", async || l2.beat(&partition(), &beat(1)).await.is_ok()).await;
    next_that(&mut bus, is_echo).await;
    eventually("commands work", async || l2.beat(&other, &beat(1)).await.is_ok()).await;
    next_that(&mut bus, |event| matches!(event, BusEvent::Echo { partition, .. } if *partition == other))
        .await;
}

#[tokio::test]
async fn a_cut_by_the_network_is_doubted() {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    let (l2, mut bus) = connect(common::options(proxy.url())).await.unwrap();
    bus.subscribe(&partition(), NODE);
    subscribed(&mut bus).await;
    proxy.cut(Cut::Reset).await;
    doubted(&mut bus, Doubt::Disconnected).await;
    subscribed(&mut bus).await;
    eventually("commands work", async || l2.change(&partition(), set("k", b"one")).await.is_ok()).await;
    next_that(&mut bus, is_message).await;
}

/// A refused SUBSCRIBE brings a reply too many. Whoever asks next must not take it for an answer to its own question, and
/// a connection that asks for everything at once must not get nothing for the sake of one.
#[tokio::test]
async fn a_refused_namespace_does_not_cost_the_others_theirs() {
    let server = RedisServer::start().await;
    let rights = "ACL SETUSER app on >pw +@all ~* resetchannels &{users.0}#* &{orders.0}#*";
    assert!(server.command(&rights.split(' ').collect::<Vec<_>>()).await.is_ok());
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port());
    let (l2, mut bus) = connect(common::options(url)).await.unwrap();
    let refusal_of = |name: &str| {
        let name = first_partition(name);
        move |event: &BusEvent| match event {
            BusEvent::Refused { partition, reason } => {
                assert_eq!(
                    (partition, reason.contains(&format!("&{{{name}}}#*"))),
                    (&name, true),
                    "{reason}"
                );
                true
            }
            _ => false,
        }
    };
    // Refused ones first and in a row, so that what they leave over adds up.
    for name in ["secrets", "plans"] {
        bus.subscribe(&first_partition(name), NODE);
        next_that(&mut bus, refusal_of(name)).await;
    }
    bus.subscribe(&partition(), NODE);
    subscribed(&mut bus).await;
    works(&l2, &mut bus).await;

    bus.unsubscribe(&first_partition("plans"), NODE);
    for _ in 0..3 {
        assert_eq!(server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.int(), Some(1));
        next_that(&mut bus, refusal_of("secrets")).await;
        subscribed(&mut bus).await;
        works(&l2, &mut bus).await;
    }
    bus.subscribe(&first_partition("orders"), NODE);
    subscribed(&mut bus).await;
}

/// A reply too many is taken for that of the next PING if that one is quick, and then the refusal would be lost that this
/// PING was sent to hear of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_in_a_row_are_all_told() {
    let server = RedisServer::start().await;
    let rights = ["ACL", "SETUSER", "app", "on", ">pw", "+@all", "~*", "resetchannels"];
    assert!(server.command(&rights).await.is_ok());
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port());
    let (_l2, mut bus) = connect(common::options(url)).await.unwrap();
    let names: Vec<_> = (0..500).map(|n| first_partition(&format!("n{n}"))).collect();
    for name in &names {
        bus.subscribe(name, NODE);
    }
    for name in &names {
        let event = next(&mut bus).await;
        assert!(
            matches!(&event, BusEvent::Refused { partition, .. } if partition == name),
            "{name}: {event:?}"
        );
    }
}

fn first_partition(namespace: &str) -> PartitionId {
    PartitionId::new(Namespace::new(namespace).unwrap(), 0)
}
