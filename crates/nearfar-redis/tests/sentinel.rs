//! A store and a bus on a primary that sentinels watch.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{NODE, beat, degraded, is_echo, next_that, options, partition, set};
use nearfar_core::backend::{Bus, BusEvent, L2, L2Error};
use nearfar_redis::{ConnectError, RedisBus, RedisL2, connect};
use nearfar_testkit::{Sentinels, eventually};

/// Whether a beat comes back, if not at once then soon.
async fn echoes(l2: &RedisL2, bus: &mut RedisBus) -> bool {
    assert!(matches!(l2.beat(&partition(), &beat(2)).await, Ok(_) | Err(L2Error::Unreachable)));
    tokio::time::timeout(Duration::from_millis(200), next_that(bus, is_echo)).await.is_ok()
}

#[tokio::test]
async fn a_primary_that_was_replaced_is_left_for_the_one_that_the_sentinels_name() {
    let servers = Sentinels::start().await;
    let (l2, mut bus) = connect(options(servers.url())).await.unwrap();
    let before = l2.server_of(&partition());
    bus.subscribe(&partition(), NODE);
    l2.change(&partition(), set("k", b"one")).await.unwrap();

    servers.failover().await;
    eventually("beats go to another server", async || {
        l2.beat(&partition(), &beat(1)).await.is_ok() && l2.server_of(&partition()) != before
    })
    .await;
    next_that(&mut bus, |event| matches!(event, BusEvent::DoubtIn(..))).await;
    let mut beats = 0;
    while !echoes(&l2, &mut bus).await {
        beats += 1;
        assert!(beats < 100, "no subscription there");
    }
    assert!(l2.change(&partition(), set("k", b"two")).await.is_ok());
}

#[tokio::test]
async fn a_name_that_the_sentinels_do_not_know_is_told() {
    let servers = Sentinels::start().await;
    let (known, rest) =
        servers.url().split_once("sentinelServiceName=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let others = rest.split_once('&').map_or("", |(_, others)| others).to_owned();
    let refused = connect(options(format!("{known}sentinelServiceName=nobody&{others}"))).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::UnknownService { service, .. } if service == "nobody"),
        "{refused}"
    );
    assert!(refused.to_string().contains("\"nobody\""), "{refused}");
}

#[tokio::test]
async fn a_node_that_starts_degraded_finds_the_primary_by_itself() {
    let servers = Sentinels::start().await;
    let (l2, mut bus) = connect(degraded(servers.url())).await.unwrap();
    bus.subscribe(&partition(), NODE);
    eventually("beats work", async || l2.beat(&partition(), &beat(1)).await.is_ok()).await;
    let mut beats = 0;
    while !echoes(&l2, &mut bus).await {
        beats += 1;
        assert!(beats < 100, "no subscription there");
    }
    assert!(l2.change(&partition(), set("k", b"one")).await.is_ok());
}
