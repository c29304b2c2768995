//! What a test may rely on in a [`RedisCluster`].
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use nearfar_testkit::{
    ClusterServer, Cut, Direction, FaultProxy, Flow, RedisCluster, RespClient, eventually,
};

async fn set(server: &ClusterServer, key: &str, value: &str) {
    let reply = server.command(&["SET", key, value]).await;
    assert!(reply.is_ok(), "{reply:?}");
}

async fn get(server: &ClusterServer, key: &str) -> Option<String> {
    server.command(&["GET", key]).await.text().map(str::to_owned)
}

/// The primary of `key`, and a replica of it.
async fn pair_of(cluster: &RedisCluster, key: &str) -> (usize, usize) {
    let owner = cluster.owner_of_slot(cluster.slot_of(key).await).await;
    (owner, cluster.replica_of(owner).await)
}

/// Returns when the replica has what its primary has now.
async fn replicated(primary: &ClusterServer) {
    let mut client = primary.connect().await.unwrap();
    client.command(&["WAIT", "1", "4000"]).await.unwrap();
}

#[tokio::test]
async fn a_cluster_has_three_primaries_and_a_replica_of_each() {
    let cluster = RedisCluster::start().await;
    let primaries = cluster.primaries().await;
    assert_eq!(primaries, [0, 1, 2]);
    let mut replicas = Vec::new();
    for primary in primaries {
        replicas.push(cluster.replica_of(primary).await);
    }
    assert_eq!(replicas, [3, 4, 5]);
    let owners = [
        cluster.owner_of_slot(0).await,
        cluster.owner_of_slot(8_192).await,
        cluster.owner_of_slot(16_383).await,
    ];
    assert_eq!(owners, [0, 1, 2]);
    assert!(cluster.url().starts_with(&format!("redis-cluster://127.0.0.1:{}?node=", cluster[0].port())));
}

#[tokio::test]
async fn a_killed_primary_is_replaced_by_its_replica_and_comes_back_as_one() {
    let mut cluster = RedisCluster::start().await;
    let (primary, replica) = pair_of(&cluster, "key").await;
    set(&cluster[primary], "key", "value").await;
    replicated(&cluster[primary]).await;

    cluster[primary].kill().await;
    assert_eq!(cluster.replace(primary).await, replica);
    assert_eq!(cluster.owner_of_slot(cluster.slot_of("key").await).await, replica);
    assert_eq!(get(&cluster[replica], "key").await.as_deref(), Some("value"));

    cluster[primary].restart_empty().await;
    cluster.settled().await;
    assert_eq!(cluster.replica_of(replica).await, primary);
}

#[tokio::test]
async fn a_paused_primary_that_wakes_up_late_is_demoted() {
    let cluster = RedisCluster::start().await;
    let (primary, replica) = pair_of(&cluster, "key").await;
    cluster[primary].pause().await;
    cluster.replace(primary).await;
    set(&cluster[replica], "key", "value").await;

    cluster[primary].resume().await;
    cluster.settled().await;
    assert_eq!(pair_of(&cluster, "key").await, (replica, primary));
}

#[tokio::test]
async fn a_persistent_server_comes_back_with_its_data_and_its_place() {
    let mut cluster = RedisCluster::builder().persistent().start().await;
    let (primary, _) = pair_of(&cluster, "key").await;
    set(&cluster[primary], "key", "value").await;
    cluster[primary].restart().await;
    cluster.settled().await;
    let (owner, _) = pair_of(&cluster, "key").await;
    assert_eq!(get(&cluster[owner], "key").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_planned_failover_loses_nothing() {
    let cluster = RedisCluster::start().await;
    let (primary, replica) = pair_of(&cluster, "key").await;
    set(&cluster[primary], "key", "value").await;
    assert_eq!(cluster.failover(primary).await, replica);
    assert_eq!(pair_of(&cluster, "key").await, (replica, primary));
    assert_eq!(get(&cluster[replica], "key").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_slot_moves_with_all_its_keys_to_a_server_that_joined_later() {
    let mut cluster = RedisCluster::start().await;
    let newcomer = cluster.add_node().await;
    let slot = cluster.slot_of("{tag}").await;
    let from = cluster.owner_of_slot(slot).await;
    for index in 0..250 {
        set(&cluster[from], &format!("{{tag}}{index}"), "value").await;
    }

    cluster.migrate_slot(slot, newcomer).await;

    assert_eq!(cluster.owner_of_slot(slot).await, newcomer);
    assert_eq!(cluster.primaries().await.len(), 4);
    assert_eq!(cluster[newcomer].command(&["DBSIZE"]).await.int(), Some(250));
    let moved = cluster[from].command(&["GET", "{tag}1"]).await;
    assert_eq!(moved.text(), Some(format!("MOVED {slot} 127.0.0.1:{}", cluster[newcomer].port()).as_str()));
}

/// A client that follows redirections, as all clients of a cluster must.
async fn write(cluster: &RedisCluster, from: usize, to: usize, key: &str) {
    let mut client = cluster[from].connect().await.unwrap();
    let reply = client.command(&["SET", key, "value"]).await.unwrap();
    if reply.is_ok() {
        return;
    }
    assert!(reply.text().unwrap().starts_with("ASK ") || reply.text().unwrap().starts_with("MOVED "));
    let mut client = cluster[to].connect().await.unwrap();
    client.command(&["ASKING"]).await.unwrap();
    assert!(client.command(&["SET", key, "value"]).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_slot_that_is_written_all_the_time_moves_whole() {
    let cluster = RedisCluster::start().await;
    let slot = cluster.slot_of("{tag}").await;
    let from = cluster.owner_of_slot(slot).await;
    let to = (from + 1) % 3;
    for index in 0..250 {
        set(&cluster[from], &format!("{{tag}}{index}"), "value").await;
    }
    let mut written = 250;
    let writing = async {
        loop {
            write(&cluster, from, to, &format!("{{tag}}{written}")).await;
            written += 1;
        }
    };
    tokio::select! {
        () = writing => {}
        () = cluster.migrate_slot(slot, to) => {}
    }
    assert!(written > 250);
    let keys = cluster[to].command(&["DBSIZE"]).await.int().unwrap();
    // One more where the test was cut short between a write and its being counted.
    assert!((written..=written + 1).contains(&keys), "{keys} of {written} keys");
}

#[tokio::test]
async fn clients_are_told_the_proxies_and_held_by_them() {
    let cluster = RedisCluster::builder().proxied().start().await;
    let proxies: Vec<_> = (0..6).map(|index| cluster[index].proxy().port()).collect();
    let told = cluster[4].command(&["CLUSTER", "SLOTS"]).await;
    for range in told.array().unwrap() {
        for server in &range.array().unwrap()[2..] {
            let port = server.array().unwrap()[1].int().unwrap();
            assert!(proxies.contains(&port.try_into().unwrap()), "{port} is not one of {proxies:?}");
        }
    }
    assert!(proxies.iter().all(|port| cluster.url().contains(&format!("127.0.0.1:{port}"))));

    let (primary, _) = pair_of(&cluster, "key").await;
    assert_holds(&cluster[primary], cluster[primary].proxy()).await;
    cluster.failover(primary).await;
}

async fn assert_holds(server: &ClusterServer, proxy: &FaultProxy) {
    let mut client = RespClient::connect(proxy.port()).await.unwrap();
    proxy.set(Direction::ToServer, Flow::Hold);
    let held =
        tokio::time::timeout(std::time::Duration::from_millis(50), client.command(&["SET", "key", "value"]));
    held.await.unwrap_err();
    assert_eq!(get(server, "key").await, None);
    proxy.set(Direction::ToServer, Flow::Forward);
    assert!(client.next().await.unwrap().is_ok());
    proxy.cut(Cut::Reset).await;
    client.command(&["PING"]).await.unwrap_err();
}

#[tokio::test]
async fn a_replica_follows_its_primary_through_the_proxy() {
    let cluster = RedisCluster::builder().proxied().start().await;
    let (primary, replica) = pair_of(&cluster, "key").await;
    cluster[primary].proxy().set(Direction::ToClient, Flow::Hold);
    set(&cluster[primary], "key", "value").await;
    assert_eq!(cluster[replica].command(&["DBSIZE"]).await.int(), Some(0));
    cluster[primary].proxy().set(Direction::ToClient, Flow::Forward);
    eventually("the replica has the key", async || {
        cluster[replica].command(&["DBSIZE"]).await.int() == Some(1)
    })
    .await;
}
