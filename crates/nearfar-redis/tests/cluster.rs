//! A store and a bus on Redis Cluster.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{NODE, beat, degraded, key, namespace, next_that, options, set};
use nearfar_core::backend::{Bus, BusEvent, L2, L2Error, Settings};
use nearfar_core::{Echo, Envelope, Kind, Message, PartitionId};
use nearfar_redis::{ConnectError, RedisBus, RedisL2, connect};
use nearfar_testkit::{RedisCluster, RedisServer, eventually};

async fn pair(cluster: &RedisCluster) -> (RedisL2, RedisBus) {
    connect(options(cluster.url())).await.unwrap()
}

fn partitions() -> impl Iterator<Item = PartitionId> {
    (0..16).map(|index| PartitionId::new(namespace(), index))
}

async fn slot(cluster: &RedisCluster, partition: &PartitionId) -> u16 {
    cluster.slot_of(format!("{{{partition}}}")).await
}

/// Waits for the echo of a beat in each partition.
async fn all_echo(l2: &RedisL2, bus: &mut RedisBus) {
    for partition in partitions() {
        echoes(l2, bus, &partition).await;
    }
}

async fn echoes(l2: &RedisL2, bus: &mut RedisBus, partition: &PartitionId) {
    eventually("beats work", async || l2.beat(partition, &beat(1)).await.is_ok()).await;
    for number in 2..100 {
        let _ = l2.beat(partition, &beat(number)).await;
        let echo = next_that(bus, |event| match event {
            BusEvent::Echo { partition: of, frame } => of == partition && Echo::decode(frame).is_ok(),
            _ => false,
        });
        if tokio::time::timeout(Duration::from_millis(300), echo).await.is_ok() {
            return;
        }
        // As the watchdog does.
        bus.subscribe(partition, NODE);
    }
    panic!("no echo of {partition}");
}

#[tokio::test]
async fn every_partition_is_somewhere_and_hears_its_own() {
    let cluster = RedisCluster::start().await;
    let (l2, mut bus) = pair(&cluster).await;
    assert_eq!(l2.default_partitions(), 16);
    let settings = Settings { partitions: 16, fence_window: common::WINDOW };
    assert_eq!(l2.open(&namespace(), &settings).await.unwrap(), settings);
    let servers: std::collections::BTreeSet<_> =
        partitions().map(|partition| l2.server_of(&partition)).collect();
    assert_eq!(servers.len(), 3, "they are spread");

    partitions().for_each(|partition| bus.subscribe(&partition, NODE));
    all_echo(&l2, &mut bus).await;
    for partition in partitions() {
        let version = l2.change(&partition, set("k", b"one")).await.unwrap();
        let event = next_that(&mut bus, |event| matches!(event, BusEvent::Message { .. })).await;
        let BusEvent::Message { partition: of, frame } = event else { unreachable!() };
        assert_eq!((of, Message::decode(&frame).unwrap().sequence), (partition.clone(), version));
        let read = l2.read(&partition, &key("k")).await.unwrap().envelope.unwrap();
        assert_eq!(Envelope::decode(&read).unwrap().header.kind, Kind::Value);
        assert_eq!(l2.log(&partition, version, version).await.unwrap(), [frame]);
        assert_eq!(l2.nodes(&partition).await.unwrap().len(), 1);
        l2.leave(&partition, NODE).await.unwrap();
    }
}

#[tokio::test]
async fn a_slot_that_moves_takes_its_partition_with_it() {
    let cluster = RedisCluster::start().await;
    let (l2, mut bus) = pair(&cluster).await;
    partitions().for_each(|partition| bus.subscribe(&partition, NODE));
    all_echo(&l2, &mut bus).await;
    let moved = PartitionId::new(namespace(), 5);
    let version = l2.change(&moved, set("k", b"one")).await.unwrap();
    let (slot, from) = (slot(&cluster, &moved).await, l2.server_of(&moved));
    let owner = cluster.owner_of_slot(slot).await;
    let to = cluster.primaries().await.into_iter().find(|primary| *primary != owner).unwrap();
    cluster.migrate_slot(slot, to).await;

    eventually("it is found there", async || l2.beat(&moved, &beat(1)).await.is_ok()).await;
    assert_ne!(l2.server_of(&moved), from);
    let doubt = next_that(&mut bus, |event| matches!(event, BusEvent::DoubtIn(..))).await;
    assert!(matches!(doubt, BusEvent::DoubtIn(partitions, _) if partitions == [moved.clone()]));
    echoes(&l2, &mut bus, &moved).await;
    assert!(l2.change(&moved, set("k", b"two")).await.unwrap() > version);
    all_echo(&l2, &mut bus).await;
}

#[tokio::test]
async fn a_primary_that_dies_takes_nobody_with_it_and_is_replaced() {
    let mut cluster = RedisCluster::start().await;
    let (l2, mut bus) = pair(&cluster).await;
    partitions().for_each(|partition| bus.subscribe(&partition, NODE));
    all_echo(&l2, &mut bus).await;
    let lost = PartitionId::new(namespace(), 0);
    let from = l2.server_of(&lost);
    let owner = cluster.owner_of_slot(slot(&cluster, &lost).await).await;
    cluster[owner].kill().await;
    doubt_about(&mut bus, &lost).await;
    let change = l2.change(&lost, set("k", b"one")).await;
    assert!(change.as_ref().is_err_and(L2Error::is_absence), "{change:?}");

    cluster.replace(owner).await;
    echoes(&l2, &mut bus, &lost).await;
    assert_ne!(l2.server_of(&lost), from);
    all_echo(&l2, &mut bus).await;
}

async fn doubt_about(bus: &mut RedisBus, partition: &PartitionId) {
    next_that(
        bus,
        |event| matches!(event, BusEvent::DoubtIn(partitions, _) if partitions.contains(partition)),
    )
    .await;
}

#[tokio::test]
async fn a_url_of_the_wrong_kind_is_told_by_name() {
    let cluster = RedisCluster::start().await;
    let alone = format!("redis://127.0.0.1:{}", cluster[0].port());
    let refused = connect(options(alone)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::IsOfCluster { .. }), "{refused}");
    assert!(refused.to_string().contains("redis-cluster://"));

    let server = RedisServer::start().await;
    let clustered = format!("redis-cluster://127.0.0.1:{}", server.port());
    let refused = connect(options(clustered)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::IsNoCluster { .. }), "{refused}");
    assert!(refused.to_string().contains("redis://"));
}

#[tokio::test]
async fn a_node_that_starts_degraded_finds_the_cluster_by_itself() {
    let cluster = RedisCluster::start().await;
    let (l2, mut bus) = connect(degraded(cluster.url())).await.unwrap();
    partitions().for_each(|partition| bus.subscribe(&partition, NODE));
    all_echo(&l2, &mut bus).await;
}
