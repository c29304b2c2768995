//! What Redis keeps of claims.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use bytes::Bytes;
use common::{NODE, WINDOW, key, next_that, pair, partition, subscribed};
use nearfar_core::backend::{Bus, BusEvent, L2};
use nearfar_core::{Claim, ClaimOutcome, Holder, NodeId, Notice};
use nearfar_testkit::RedisServer;

fn claim(node: u64) -> Claim {
    let holder = Holder { node: NodeId::new(node), load: 1 };
    Claim { key: key("k"), holder, seen: Bytes::new(), keep: WINDOW }
}

#[tokio::test]
async fn a_claim_ends_by_itself_and_who_waits_is_told_of_its_release() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = pair(&server).await;
    bus.subscribe(&partition(), NODE);
    subscribed(&mut bus).await;
    let claimed = async |node| l2.claim(&partition(), claim(node)).await.unwrap();
    let (holder, waiting) = (1, NODE.number());
    assert_eq!(claimed(holder).await, ClaimOutcome::Granted);
    for _ in 0..3 {
        let ClaimOutcome::Held { left } = claimed(waiting).await else { panic!("it is held") };
        assert!(left <= WINDOW && left > WINDOW / 2);
    }
    let text = server.command(&["GET", "{users.0}#claim:k"]).await;
    let text = text.text().unwrap();
    assert!(text.ends_with(" 0000000000000001-1 - 0000000000000007"), "who waits is named once: {text}");
    let pttl = server.command(&["PTTL", "{users.0}#claim:k"]).await.int().unwrap();
    assert!((50_000..=60_000).contains(&pttl));

    let not_the_holder = Holder { node: NODE, load: 1 };
    l2.release(&partition(), &key("k"), not_the_holder).await.unwrap();
    assert!(matches!(claimed(waiting).await, ClaimOutcome::Held { .. }));
    l2.release(&partition(), &key("k"), claim(holder).holder).await.unwrap();
    let event = next_that(&mut bus, |event| matches!(event, BusEvent::Echo { .. })).await;
    let BusEvent::Echo { frame, .. } = event else { unreachable!() };
    assert_eq!(Notice::decode(&frame), Ok(Notice { key: key("k") }));
    assert_eq!(claimed(waiting).await, ClaimOutcome::Granted);
}

#[tokio::test]
async fn a_claim_that_nobody_understands_is_none() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    for garbled in
        ["", "soon", "99999999999999999999", "-1 a -", "12 0000000000000001-1 -", "nan x -", "1e99 x -"]
    {
        assert!(server.command(&["SET", "{users.0}#claim:k", garbled]).await.is_ok());
        l2.release(&partition(), &key("k"), claim(1).holder).await.unwrap();
        assert_eq!(l2.claim(&partition(), claim(1)).await.unwrap(), ClaimOutcome::Granted, "{garbled:?}");
        l2.release(&partition(), &key("k"), claim(1).holder).await.unwrap();
    }
    for far_off in ["4102444800000000 x -", "99999999999999999999 x -"] {
        assert!(server.command(&["SET", "{users.0}#claim:k", far_off]).await.is_ok());
        let outcome = l2.claim(&partition(), claim(1)).await.unwrap();
        assert_eq!(outcome, ClaimOutcome::Held { left: WINDOW }, "none lasts longer than this one would");
        let ends = server.command(&["PTTL", "{users.0}#claim:k"]).await.int().unwrap();
        assert!((50_000..=60_000).contains(&ends), "{ends}");
        assert!(server.command(&["DEL", "{users.0}#claim:k"]).await.int().is_some());
    }
    assert!(server.command(&["LPUSH", "{users.0}#claim:k", "x"]).await.int().is_some());
    l2.release(&partition(), &key("k"), claim(1).holder).await.unwrap();
    assert_eq!(l2.claim(&partition(), claim(1)).await.unwrap(), ClaimOutcome::Granted);
}
