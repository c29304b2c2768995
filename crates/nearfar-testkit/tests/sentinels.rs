//! What a test may rely on in [`Sentinels`].
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use nearfar_testkit::{RedisServer, Sentinels};

/// Returns when so many replicas have the value.
async fn set(server: &RedisServer, key: &str, value: &str, replicas: u8) {
    let mut client = server.connect().await.unwrap();
    let reply = client.command(&["SET", key, value]).await.unwrap();
    assert!(reply.is_ok(), "{reply:?}");
    let reached = client.command(&["WAIT", &replicas.to_string(), "4000"]).await.unwrap();
    assert_eq!(reached.int(), Some(replicas.into()));
}

async fn get(server: &RedisServer, key: &str) -> Option<String> {
    server.command(&["GET", key]).await.text().map(str::to_owned)
}

#[tokio::test]
async fn sentinels_name_the_primary_of_two_replicas() {
    let mut sentinels = Sentinels::start().await;
    assert_eq!(sentinels.primary().await, 0);
    set(&sentinels[0], "key", "value", 2).await;
    assert_eq!(get(&sentinels[2], "key").await.as_deref(), Some("value"));
    let ports: Vec<_> = sentinels.sentinels().iter().map(RedisServer::port).collect();
    let url = format!(
        "redis-sentinel://127.0.0.1:{}?sentinelServiceName=nearfar&node=127.0.0.1:{}&node=127.0.0.1:{}",
        ports[0], ports[1], ports[2]
    );
    assert_eq!(sentinels.url(), url);
}

#[tokio::test]
async fn a_planned_failover_names_another_primary() {
    let sentinels = Sentinels::start().await;
    set(&sentinels[0], "key", "value", 2).await;
    let new = sentinels.failover().await;
    assert_ne!(new, 0);
    assert_eq!(get(&sentinels[new], "key").await.as_deref(), Some("value"));
    let refused = sentinels[0].command(&["SET", "key", "other"]).await;
    assert!(refused.text().unwrap().starts_with("READONLY"), "{refused:?}");
}

#[tokio::test]
async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    let mut sentinels = Sentinels::start().await;
    set(&sentinels[0], "key", "value", 2).await;
    sentinels[0].kill().await;
    let new = sentinels.replace(0).await;
    assert_ne!(new, 0);
    assert_eq!(get(&sentinels[new], "key").await.as_deref(), Some("value"));

    sentinels[0].restart_empty().await;
    sentinels.settled().await;
    assert_eq!(get(&sentinels[0], "key").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_paused_primary_is_replaced_and_wakes_up_to_be_a_replica() {
    let sentinels = Sentinels::start().await;
    sentinels[0].pause().await;
    let new = sentinels.replace(0).await;
    assert_ne!(new, 0);
    set(&sentinels[new], "key", "value", 1).await;

    sentinels[0].resume().await;
    sentinels.settled().await;
    assert_eq!(sentinels.primary().await, new);
    assert_eq!(get(&sentinels[0], "key").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn two_sentinels_are_enough_and_the_third_remembers_over_a_restart() {
    let mut sentinels = Sentinels::start().await;
    sentinels.sentinels()[0].kill().await;
    let new = sentinels.failover().await;
    sentinels.sentinels()[0].restart().await;
    sentinels.settled().await;
    assert_eq!(sentinels.primary().await, new);
}
