//! A cluster: servers die, stand still, hand their slots to others and take their turn, while four nodes are at work.

use std::time::Duration;

use nearfar::{Cache, Nearfar, Outcome};
use nearfar_testkit::{Direction, Flow, RedisCluster, RedisServer, eventually, let_pass};
use nearfar_tests::trusted;

use crate::trial::{ALL_FOUR, BOUND, KEYS, NAMESPACE, Trial};

/// A cluster whose healthy primaries go on when another is away.
async fn cluster() -> RedisCluster {
    RedisCluster::builder().arg("cluster-require-full-coverage", "no").start().await
}

/// The slot of the partition that a key of the trial is in.
pub(crate) async fn slot_of_key(cluster: &RedisCluster, key: u64) -> u16 {
    let index = nearfar_core::PartitionId::index_of(key.to_string().as_bytes(), 16);
    cluster.slot_of(format!("{{{NAMESPACE}.{index}}}")).await
}

/// A primary that has keys of the trial.
async fn victim(cluster: &RedisCluster) -> usize {
    cluster.owner_of_slot(slot_of_key(cluster, 0).await).await
}

/// Waits until the nodes have lost the partitions of one primary, and no others.
async fn only_some_are_lost(trial: &Trial) {
    eventually("the fault is noticed", async || trial.partitions_trusted().0 < 16).await;
    let (trusted, all) = trial.partitions_trusted();
    assert_eq!(all, 16);
    assert!(trusted > 4, "the others keep their trust: {trusted} of {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_is_replaced_and_the_others_go_on() {
    let mut cluster = cluster().await;
    let victim = victim(&cluster).await;
    let mut trial = Trial::start_on("cluster: primary killed", &cluster.url()).await;
    trial.breaks();
    cluster[victim].kill().await;
    trial.loses_the_last_moment();
    trial.noticed_by(&ALL_FOUR).await;
    only_some_are_lost(&trial).await;
    cluster.replace(victim).await;
    only_some_were_lost_until_now(&mut trial);
    trial.becomes_trusted().await;
    trial.ends().await;
}

fn only_some_were_lost_until_now(trial: &mut Trial) {
    let (trusted, all) = trial.partitions_trusted();
    trial.remarks(format_args!("{trusted} of {all} partitions trusted when the replica had taken over"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stands_still_and_wakes_up_replaced_serves_nothing_stale() {
    let cluster = cluster().await;
    let victim = victim(&cluster).await;
    let mut trial =
        Trial::start_on("cluster: primary paused until replaced, then resumed", &cluster.url()).await;
    trial.breaks();
    cluster[victim].pause().await;
    trial.loses_the_last_moment();
    trial.noticed_by(&ALL_FOUR).await;
    only_some_are_lost(&trial).await;
    cluster.replace(victim).await;
    trial.becomes_trusted().await;
    cluster[victim].resume().await;
    cluster.settled().await;
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_consent_costs_a_moment() {
    let cluster = cluster().await;
    let victim = victim(&cluster).await;
    let mut trial = Trial::start_on("cluster: CLUSTER FAILOVER", &cluster.url()).await;
    trial.breaks();
    cluster.failover(victim).await;
    trial.noticed_by(&ALL_FOUR).await;
    trial.becomes_trusted().await;
    trial.ends().await;
}

/// To a primary that has joined just now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_to_a_new_primary_take_their_partitions_with_them() {
    let mut cluster = cluster().await;
    let mut trial =
        Trial::start_on("cluster: node added, slots moved to it under load", &cluster.url()).await;
    let slots = [
        slot_of_key(&cluster, 0).await,
        slot_of_key(&cluster, 1).await,
        slot_of_key(&cluster, KEYS - 1).await,
    ];
    trial.breaks();
    let newcomer = cluster.add_node().await;
    for slot in slots {
        cluster.migrate_slot(slot, newcomer).await;
        assert_eq!(cluster.owner_of_slot(slot).await, newcomer);
    }
    trial.goes_well().await;
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_is_no_matter() {
    let mut cluster = cluster().await;
    let replica = cluster.replica_of(victim(&cluster).await).await;
    let mut trial = Trial::start_on("cluster: replica killed", &cluster.url()).await;
    trial.breaks();
    cluster[replica].kill().await;
    trial.lasts(2 * BOUND).await;
    let verdict = trial.ends().await;
    assert_eq!((verdict.queued, verdict.refused), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_servers_leaves_nothing_stale() {
    let mut cluster =
        RedisCluster::builder().arg("cluster-require-full-coverage", "no").persistent().start().await;
    let mut trial = Trial::start_on("cluster: rolling restart of all servers", &cluster.url()).await;
    trial.breaks();
    for server in 0..6 {
        if cluster.primaries().await.contains(&server) {
            cluster.failover(server).await;
        }
        cluster[server].stop().await;
        cluster[server].restart().await;
        cluster.settled().await;
    }
    trial.ends().await;
}

/// The links to one primary say nothing any more, and nobody ends them. Among themselves the servers are well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_to_one_primary_that_are_half_open_concern_its_partitions_alone() {
    let cluster = RedisCluster::builder().arg("cluster-require-full-coverage", "no").proxied().start().await;
    let victim = victim(&cluster).await;
    let mut trial = Trial::start_on("cluster: links to one primary half open", &cluster.url()).await;
    trial.breaks();
    cluster[victim].proxy().set(Direction::Both, Flow::Hold);
    trial.noticed_by(&ALL_FOUR).await;
    only_some_are_lost(&trial).await;
    trial.lasts(2 * BOUND).await;
    trial.heals().await;
    cluster[victim].proxy().set(Direction::Both, Flow::Forward);
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_flushed_has_its_partitions_forgotten() {
    let cluster = cluster().await;
    let victim = victim(&cluster).await;
    let mut trial = Trial::start_on("cluster: FLUSHALL on one primary", &cluster.url()).await;
    let resyncs = trial.resyncs();
    trial.breaks();
    assert!(cluster[victim].command(&["FLUSHALL"]).await.is_ok());
    trial.noticed_by(&ALL_FOUR).await;
    trial.becomes_trusted().await;
    trial.everybody_has_forgotten_l1_since(&resyncs);
    trial.ends().await;
}

/// A node that names one server of the cluster finds the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_is_enough_to_find_the_cluster() {
    let cluster = cluster().await;
    let seed = format!("redis-cluster://127.0.0.1:{}", cluster[0].port());
    let nearfar = Nearfar::builder().connect_timeout(Duration::from_secs(10)).connect(&seed).await.unwrap();
    let cache = nearfar.cache::<u64, u64>("found").build().await.unwrap();
    for key in 0..100 {
        cache.set(&key, key).await.unwrap();
    }
    assert_eq!(cache.stats().partitions_trusted, 16);
    cache.clear().await.unwrap();
    assert!(cache.get(&5).await.unwrap().is_none());
}

/// A server answers for such a slot as for a cluster that is down, and the client library hangs up on that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_nobody_owns_takes_its_partition_alone_and_gives_it_back() {
    let cluster = cluster().await;
    let (a, b) = (node(&cluster).await, node(&cluster).await);
    let slot = slot_of_key(&cluster, 0).await;
    let owner = cluster.owner_of_slot(slot).await;
    let neighbours = neighbours_of_key(&cluster, 0).await;
    assert!(neighbours.len() > 1, "others are on the same server");

    let slot = slot.to_string();
    eventually("nobody owns the slot", async || is_given_up(&cluster, &slot).await).await;
    let before = connections(&cluster[owner]).await;
    eventually("the loss is noticed", async || !a.stats().trusted && !b.stats().trusted).await;
    assert!(matches!(a.set(&0, 1).await.unwrap(), Outcome::Queued));
    for round in 0..20 {
        let_pass(BOUND / 10).await;
        for key in &neighbours {
            // Until the nodes have learnt of it, a command for the slot may still cut a connection. A change that was
            // queued then is an invalidation, which may come behind the next.
            eventually("the others take changes and hear of them", async || {
                a.set(key, round).await.unwrap().is_applied()
                    && b.get(key).await.is_ok_and(|read| read.is_some_and(|entry| *entry == round))
            })
            .await;
        }
    }
    eventually("the others are trusted", async || {
        [&a, &b].iter().all(|cache| cache.stats().partitions_trusted == 15)
    })
    .await;
    let since = connections(&cluster[owner]).await - before;
    assert!(since < 30, "{since} connections");

    assert!(cluster[owner].command(&["CLUSTER", "ADDSLOTS", &slot]).await.is_ok());
    trusted(&a).await;
    trusted(&b).await;
    eventually("what waited is delivered", async || a.stats().outbox_keys == 0).await;
    a.set(&0, 2).await.unwrap();
    assert_eq!(*b.get(&0).await.unwrap().unwrap(), 2);
    a.set(&0, 3).await.unwrap();
    eventually("it is heard", async || b.peek(&0).is_none()).await;
}

async fn node(cluster: &RedisCluster) -> Cache<u64, u64> {
    let nearfar = Nearfar::connect(&cluster.url()).await.unwrap();
    let cache = nearfar.cache(NAMESPACE).max_staleness(BOUND).build().await.unwrap();
    trusted(&cache).await;
    cache
}

/// A key of each other partition that is on the same server.
async fn neighbours_of_key(cluster: &RedisCluster, key: u64) -> Vec<u64> {
    let of_key = slot_of_key(cluster, key).await;
    let owner = cluster.owner_of_slot(of_key).await;
    let mut slots = vec![of_key];
    let mut neighbours = Vec::new();
    for key in 0..KEYS {
        let slot = slot_of_key(cluster, key).await;
        if !slots.contains(&slot) && cluster.owner_of_slot(slot).await == owner {
            slots.push(slot);
            neighbours.push(key);
        }
    }
    neighbours
}

/// Has all servers forget who owns the slot, which they tell each other, until none knows.
async fn is_given_up(cluster: &RedisCluster, slot: &str) -> bool {
    for server in 0..6 {
        cluster[server].command(&["CLUSTER", "DELSLOTS", slot]).await;
    }
    let mut knows = false;
    for server in 0..6 {
        let lost = cluster[server].command(&["CLUSTER", "DELSLOTS", slot]).await;
        knows |= lost.is_ok();
    }
    !knows
}

/// How many the server has ever had.
async fn connections(server: &RedisServer) -> u64 {
    let info = server.command(&["INFO", "stats"]).await;
    let mut lines = info.text().unwrap().lines();
    lines.find_map(|line| line.strip_prefix("total_connections_received:")).unwrap().parse().unwrap()
}
