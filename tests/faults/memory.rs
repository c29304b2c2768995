//! The server has no memory left.

use std::convert::Infallible;
use std::time::Duration;

use nearfar::{Cache, ErrorKind, Nearfar};
use nearfar_testkit::{RedisServer, eventually, let_pass};
use nearfar_tests::Valve;
use tokio::task::JoinSet;

use crate::trial::{BOUND, KEYS, Setup, Trial};

async fn figure(server: &RedisServer, section: &str, name: &str) -> u64 {
    let info = server.command(&["INFO", section]).await;
    let line = info.text().unwrap().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

async fn limit_memory(server: &RedisServer, bytes: u64) {
    assert!(server.command(&["CONFIG", "SET", "maxmemory", &bytes.to_string()]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_values_are_refused_and_the_bound_holds() {
    let server = RedisServer::builder().arg("maxmemory-policy", "noeviction").start().await;
    let mut trial = Trial::start_with(Setup::patient(), "no memory, noeviction", &server).await;
    trial.breaks();
    limit_memory(&server, 1).await;
    trial.lasts(3 * BOUND).await;
    // Of a key that nobody else changes.
    let cache = &trial.nodes[0].cache;
    assert_eq!(cache.set(&KEYS, 1).await.unwrap_err().kind(), ErrorKind::Rejected);
    assert!(cache.invalidate(&KEYS).await.unwrap().is_applied());
    trial.heals().await;
    limit_memory(&server, 0).await;
    let verdict = trial.ends().await;
    assert!(verdict.refused > 0);
    assert_eq!(verdict.queued, 0);
}

/// Someone else fills the server, so that keys of all kinds are evicted all the time: values, tombstones, the log, the
/// head. No loads: see below.
async fn evictions(name: &'static str, policy: &str) {
    let server = RedisServer::builder().arg("maxmemory-policy", policy).start().await;
    let without_loads = Setup { loads: false, ..Setup::default() };
    let mut trial = Trial::start_with(without_loads, name, &server).await;
    let resyncs: u64 = trial.resyncs().iter().sum();
    trial.breaks();
    limit_memory(&server, figure(&server, "memory", "used_memory").await + 300_000).await;
    let mut filler = JoinSet::new();
    let mut connection = server.connect().await.unwrap();
    filler.spawn(async move {
        for number in 0_u64.. {
            let (key, value) = (format!("filler {}", number % 1_000), "x".repeat(1_000));
            connection.command(&["SET", &key, &value]).await.unwrap();
            let_pass(Duration::from_millis(1)).await;
        }
    });
    trial.lasts(3 * BOUND).await;
    filler.shutdown().await;
    trial.heals().await;
    limit_memory(&server, 0).await;
    let resyncs = trial.resyncs().iter().sum::<u64>() - resyncs;
    let evicted = figure(&server, "stats", "evicted_keys").await;
    assert!(evicted > 0);
    trial.remarks(format!("{evicted} keys evicted, L1 forgotten {resyncs} times"));
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_used_keys_may_be_evicted() {
    evictions("evictions, allkeys-lru", "allkeys-lru").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_keys_may_be_evicted() {
    evictions("evictions, allkeys-random", "allkeys-random").await;
}

/// What eviction costs: a tombstone fences only while it is there. This is why the contract asks for `noeviction`.
#[tokio::test]
async fn an_evicted_tombstone_lets_a_load_from_before_it_in() {
    let server = RedisServer::start().await;
    let build = async || -> Cache<u64, String> {
        Nearfar::connect(&server.url()).await.unwrap().cache("n").build().await.unwrap()
    };
    let (a, b) = (build().await, build().await);
    let row = Valve::default();
    row.close();
    let load = tokio::spawn({
        let (b, row) = (b.clone(), row.clone());
        let loader = move |_| async move {
            row.pass().await;
            Ok::<_, Infallible>("old row".to_owned())
        };
        async move { b.get_or_load(&1, loader).await.unwrap() }
    });
    row.holds(1).await;
    a.invalidate(&1).await.unwrap();
    eventually("B has heard of it", async || b.stats().invalidations_received == 1).await;
    assert_eq!(server.command(&["DEL", "{n.0}:1"]).await.int(), Some(1));
    row.open();

    assert_eq!(*load.await.unwrap(), "old row");
    assert!(b.peek(&1).is_none(), "B itself has heard of the invalidation and keeps nothing");
    assert_eq!(a.get(&1).await.unwrap().as_deref().map(String::as_str), Some("old row"), "but L2 has it");
}
