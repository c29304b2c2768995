//! The way to the server fails.

use std::time::Duration;

use nearfar_testkit::{Cut, Direction, Flow, RedisServer, eventually};

use crate::trial::{BOUND, EVERYBODY, NAMESPACE, Setup, Trial};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_are_killed_cost_a_moment_of_trust() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start_with(Setup::patient(), "subscriptions killed, 10 times", &server).await;
    for _ in 0..10 {
        trial.breaks();
        assert_eq!(server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.int(), Some(3));
        trial.noticed_by(&EVERYBODY).await;
        trial.becomes_trusted().await;
        trial.goes_well().await;
    }
    let verdict = trial.ends().await;
    assert_eq!((verdict.failed_reads, verdict.queued, verdict.refused), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_loses_all_its_connections_serves_nothing_stale() {
    let server = RedisServer::start().await;
    let mut trial =
        Trial::start("both connections of a node killed, new ones refused for a while", &server).await;
    trial.breaks();
    trial.nodes[0].proxy().refuse().await;
    trial.nodes[0].proxy().cut(Cut::Reset).await;
    trial.noticed_by(&[0]).await;
    trial.lasts(2 * BOUND).await;
    trial.heals().await;
    trial.nodes[0].proxy().accept().await;
    trial.ends().await;
}

/// The server gives up on a node that does not read what it is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_that_the_server_drops_serves_nothing_stale() {
    let server = RedisServer::builder().arg("client-output-buffer-limit", "pubsub 64kb 0 0").start().await;
    let mut trial = Trial::start("subscriber dropped by client-output-buffer-limit", &server).await;
    let subscribers = async || {
        let list = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
        list.text().unwrap().lines().count()
    };
    let node =
        trial.nodes[0].nearfar.nodes().await.unwrap().into_iter().find(|node| node.is_this_one).unwrap();
    let (channel, flood) = (format!("{{{NAMESPACE}.0}}#echo:{}", node.id), "x".repeat(256 * 1024));
    trial.breaks();
    trial.nodes[0].proxy().set(Direction::ToClient, Flow::Hold);
    eventually("the server drops it", async || {
        server.command(&["PUBLISH", &channel, &flood]).await;
        subscribers().await < 3
    })
    .await;
    trial.noticed_by(&[0]).await;
    trial.lasts(2 * BOUND).await;
    trial.heals().await;
    trial.nodes[0].proxy().set(Direction::ToClient, Flow::Forward);
    trial.ends().await;
}

/// R7: the socket is half open. No reset ever arrives, and a node without a heartbeat of its own believes that it is
/// subscribed.
async fn half_open(name: &'static str, direction: Direction) {
    let server = RedisServer::start().await;
    let mut trial = Trial::start(name, &server).await;
    trial.breaks();
    trial.nodes[0].proxy().set(direction, Flow::Hold);
    trial.noticed_by(&[0]).await;
    trial.lasts(2 * BOUND).await;
    trial.heals().await;
    trial.nodes[0].proxy().set(direction, Flow::Forward);
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_half_open_from_the_client_is_noticed() {
    half_open("half-open link, client to server", Direction::ToServer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_half_open_from_the_server_is_noticed() {
    half_open("half-open link, server to client", Direction::ToClient).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_half_open_in_both_directions_is_noticed() {
    half_open("half-open link, both directions", Direction::Both).await;
}

/// A firewall has forgotten the connections: they never end, and nothing passes. Only replacing them helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_dead_for_good_are_replaced() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start("connections dead without an end", &server).await;
    trial.breaks();
    trial.nodes[0].proxy().strand();
    trial.noticed_by(&[0]).await;
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_costs_time_and_nothing_else() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start_with(Setup::patient(), "200 ms of latency each way", &server).await;
    trial.breaks();
    trial.nodes[0].proxy().set(Direction::Both, Flow::Delay(Duration::from_millis(200)));
    trial.lasts(3 * BOUND).await;
    trial.heals().await;
    trial.nodes[0].proxy().set(Direction::Both, Flow::Forward);
    let verdict = trial.ends().await;
    assert_eq!((verdict.failed_reads, verdict.queued, verdict.refused), (0, 0, 0));
    assert!(verdict.trust_was_kept);
}
