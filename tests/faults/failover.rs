//! Another server takes over, which has not all that the first one had acknowledged.

use nearfar::{ErrorKind, Nearfar};
use nearfar_testkit::{Cut, Direction, FaultProxy, Flow, RedisServer, eventually};

use crate::trial::{BOUND, EVERYBODY, Trial};

/// A replica of the server at this port. They reach each other on the loopback interface, which servers in containers do
/// not.
async fn replica_of(port: u16) -> RedisServer {
    let replica = RedisServer::builder().arg("replicaof", &format!("127.0.0.1 {port}")).start().await;
    eventually("the replica has caught up", async || {
        let info = replica.command(&["INFO", "replication"]).await;
        info.text().is_some_and(|info| info.contains("master_link_status:up"))
    })
    .await;
    replica
}

async fn lead_everybody_to(trial: &Trial, server: &RedisServer) {
    for node in &trial.nodes {
        node.proxy().redirect(server.port());
        node.proxy().cut(Cut::Reset).await;
    }
}

/// R30: the replica lags; the primary acknowledges changes, their messages are heard, and it dies. The replica takes over
/// without them. Without issuing them again, L2 has the values from before them until their ttl is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_a_failover_lost_are_issued_again() {
    let mut primary = RedisServer::builder().arg("repl-diskless-sync-delay", "0").start().await;
    let replication = FaultProxy::start(primary.port()).await;
    let replica = replica_of(replication.port()).await;
    let mut trial = Trial::start("failover to a replica that lags by 2 s", &primary).await;
    let (resyncs, reissued) = (trial.resyncs(), trial.reissued());
    let (lags_from, lag) = (trial.now(), 2 * BOUND);
    trial.breaks();
    replication.set(Direction::ToClient, Flow::Hold);
    trial.lasts(lag).await;
    trial.calms_down().await;

    trial.breaks();
    primary.kill().await;
    trial.loses_what_was_acknowledged_since(lags_from);
    replication.cut(Cut::Reset).await;
    assert!(replica.command(&["REPLICAOF", "NO", "ONE"]).await.is_ok());
    lead_everybody_to(&trial, &replica).await;
    trial.noticed_by(&EVERYBODY).await;
    trial.becomes_trusted().await;
    trial.everybody_has_forgotten_l1_since(&resyncs);
    let reissued = trial.reissued() - reissued;
    assert!(reissued > 0);
    trial.remarks(format!("{reissued} keys issued again"));
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_a_restore_lost_are_issued_again() {
    let mut server = RedisServer::start().await;
    let mut trial = Trial::start("restore from a snapshot that is 2 s old", &server).await;
    let (resyncs, reissued) = (trial.resyncs(), trial.reissued());
    let saved_at = trial.now();
    trial.breaks();
    assert!(server.command(&["SAVE"]).await.is_ok());
    trial.lasts(2 * BOUND).await;
    trial.calms_down().await;

    trial.breaks();
    server.kill().await;
    trial.loses_what_was_acknowledged_since(saved_at);
    server.restart_from_snapshot().await;
    trial.noticed_by(&EVERYBODY).await;
    trial.becomes_trusted().await;
    trial.everybody_has_forgotten_l1_since(&resyncs);
    let reissued = trial.reissued() - reissued;
    assert!(reissued > 0);
    trial.remarks(format!("{reissued} keys issued again"));
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_led_to_a_replica_serves_nothing_stale_and_is_refused_its_changes() {
    let primary = RedisServer::builder().arg("repl-diskless-sync-delay", "0").start().await;
    let replica = replica_of(primary.port()).await;
    let mut trial = Trial::start("a node on a read-only replica", &primary).await;
    trial.breaks();
    trial.nodes[0].proxy().redirect(replica.port());
    trial.nodes[0].proxy().cut(Cut::Reset).await;
    trial.noticed_by(&[0]).await;
    trial.lasts(2 * BOUND).await;
    assert!(!trial.nodes[0].cache.stats().trusted, "a replica refuses beats");
    trial.heals().await;
    trial.nodes[0].proxy().redirect(primary.port());
    trial.nodes[0].proxy().cut(Cut::Reset).await;
    let verdict = trial.ends().await;
    assert!(verdict.refused > 0);
}

#[tokio::test]
async fn a_node_does_not_start_on_a_replica() {
    let primary = RedisServer::builder().arg("repl-diskless-sync-delay", "0").start().await;
    let replica = replica_of(primary.port()).await;
    let refused = Nearfar::connect(&replica.url()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert!(refused.to_string().contains("read-only replica"), "{refused}");
}
