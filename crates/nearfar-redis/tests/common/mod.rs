//! What every suite needs: options for a server, and shorthands for the operations.

#![allow(dead_code, reason = "each suite uses a part of this")]

use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::{Beat, Bus, BusEvent, L2};
use nearfar_core::{
    BeatId, Change, Doubt, Envelope, EnvelopeHeader, Fill, KeyWrite, Kind, Moment, Namespace, NodeId,
    PartitionId, Version,
};
use nearfar_redis::{OnUnreachable, RedisBus, RedisL2, RedisOptions, connect};
use nearfar_testkit::RedisServer;

pub(crate) const NODE: NodeId = NodeId::new(7);
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

pub(crate) fn options(url: impl Into<String>) -> RedisOptions {
    RedisOptions {
        url: url.into(),
        tls: None,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_millis(500),
        log_len: 1000,
        on_unreachable: OnUnreachable::Fail,
    }
}

/// The rules of the line in `docs/security.md`, without the user's name and password.
pub(crate) fn documented_rights() -> &'static str {
    let docs = include_str!("../../../../docs/security.md");
    let line = docs.lines().find_map(|line| line.strip_prefix("ACL SETUSER nearfar on >PASSWORD "));
    line.expect("it has the line")
}

pub(crate) fn degraded(url: impl Into<String>) -> RedisOptions {
    RedisOptions { on_unreachable: OnUnreachable::StartDegraded, ..options(url) }
}

pub(crate) async fn pair(server: &RedisServer) -> (RedisL2, RedisBus) {
    connect(options(server.url())).await.expect("the server is there")
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new("users").unwrap()
}

pub(crate) fn partition() -> PartitionId {
    PartitionId::new(namespace(), 0)
}

pub(crate) fn key(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub(crate) fn value(payload: &[u8]) -> Bytes {
    Envelope::encode(&EnvelopeHeader::of(Kind::Value), &[], payload)
}

pub(crate) fn write(name: &'static str, payload: &[u8]) -> KeyWrite {
    KeyWrite { key: key(name), envelope: value(payload), keep: Some(WINDOW) }
}

pub(crate) fn set(name: &'static str, payload: &[u8]) -> Change {
    Change::set(NODE, write(name, payload))
}

pub(crate) fn invalidate(name: &'static str) -> Change {
    Change::invalidate(NODE, vec![key(name)], WINDOW)
}

pub(crate) fn fill(name: &'static str, payload: &[u8], base: Version) -> Fill {
    Fill { write: write(name, payload), base, deadline: Moment::NEVER }
}

pub(crate) fn beat(number: u64) -> Beat {
    Beat { node: NODE, id: BeatId::new(number), forget_after: WINDOW }
}

/// What is stored under a key, decoded.
pub(crate) async fn stored(l2: &RedisL2, name: &'static str) -> Option<Envelope> {
    let snapshot = l2.read(&partition(), &key(name)).await.unwrap();
    snapshot.envelope.map(|bytes| Envelope::decode(&bytes).expect("it is an envelope"))
}

/// The next event; the bus must not be silent.
pub(crate) async fn next(bus: &mut RedisBus) -> BusEvent {
    let event = tokio::time::timeout(Duration::from_secs(10), bus.next()).await;
    event.expect("the bus says something").expect("the bus stays open")
}

/// Passes over events until one of interest.
pub(crate) async fn next_that(bus: &mut RedisBus, wanted: impl Fn(&BusEvent) -> bool) -> BusEvent {
    loop {
        let event = next(bus).await;
        if wanted(&event) {
            return event;
        }
    }
}

pub(crate) async fn subscribed(bus: &mut RedisBus) {
    next_that(bus, |event| *event == BusEvent::Subscribed).await;
}

pub(crate) async fn doubted(bus: &mut RedisBus, doubt: Doubt) {
    next_that(bus, |event| *event == BusEvent::Doubt(doubt)).await;
}

pub(crate) fn is_message(event: &BusEvent) -> bool {
    matches!(event, BusEvent::Message { .. })
}

pub(crate) fn is_echo(event: &BusEvent) -> bool {
    matches!(event, BusEvent::Echo { .. })
}
