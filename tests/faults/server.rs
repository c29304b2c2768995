//! The server stops, ends or forgets.

use std::time::Duration;

use nearfar_testkit::{Cut, RedisServer};

use crate::trial::{BOUND, EVERYBODY, READER, Setup, Trial};

/// What is served from L1 runs out of trust, and no clock starts anew when the server goes on.
async fn paused(name: &'static str, duration: Duration) {
    let server = RedisServer::start().await;
    let mut trial = Trial::start(name, &server).await;
    trial.breaks();
    server.pause().await;
    trial.noticed_by(&EVERYBODY).await;
    trial.lasts(duration).await;
    trial.heals().await;
    server.resume().await;
    let verdict = trial.ends().await;
    assert!(verdict.queued > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_paused_for_three_seconds_stretches_no_bound() {
    paused("server paused for 3 s", Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_paused_for_ten_seconds_stretches_no_bound() {
    paused("server paused for 10 s", Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_with_its_data_goes_on_where_it_was() {
    let mut server = RedisServer::builder().persistent().start().await;
    let mut trial = Trial::start("server killed, back with its data", &server).await;
    let resyncs = trial.resyncs();
    trial.breaks();
    server.kill().await;
    trial.noticed_by(&EVERYBODY).await;
    trial.lasts(BOUND).await;
    trial.heals().await;
    server.restart().await;
    trial.becomes_trusted().await;
    assert_eq!(trial.resyncs(), resyncs, "the log has all that was missed");
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_empty_leaves_nothing_from_before() {
    let mut server = RedisServer::start().await;
    let mut trial = Trial::start("server killed, back without data", &server).await;
    let resyncs = trial.resyncs();
    trial.breaks();
    server.kill().await;
    trial.noticed_by(&EVERYBODY).await;
    trial.lasts(BOUND).await;
    trial.heals().await;
    server.restart_empty().await;
    trial.becomes_trusted().await;
    trial.everybody_has_forgotten_l1_since(&resyncs);
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_server_leaves_nothing_from_before() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start("FLUSHALL", &server).await;
    let resyncs = trial.resyncs();
    trial.breaks();
    assert!(server.command(&["FLUSHALL"]).await.is_ok());
    trial.noticed_by(&EVERYBODY).await;
    trial.becomes_trusted().await;
    trial.everybody_has_forgotten_l1_since(&resyncs);
    trial.ends().await;
}

/// It comes back to a history that does not go on from the one it knows, and whose log has not what it missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_while_the_server_was_flushed_keeps_nothing_from_before() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start("FLUSHALL while a node is away", &server).await;
    trial.breaks();
    trial.nodes[READER].proxy().refuse().await;
    trial.nodes[READER].proxy().cut(Cut::Reset).await;
    trial.noticed_by(&[READER]).await;
    trial.lasts(BOUND / 2).await;
    assert!(server.command(&["FLUSHALL"]).await.is_ok());
    trial.lasts(2 * BOUND).await;
    trial.heals().await;
    trial.nodes[READER].proxy().accept().await;
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_its_scripts_is_given_them_again() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start_with(Setup::patient(), "SCRIPT FLUSH, 20 times", &server).await;
    trial.breaks();
    for _ in 0..20 {
        assert!(server.command(&["SCRIPT", "FLUSH"]).await.is_ok());
        trial.goes_well().await;
    }
    assert!(trial.nodes.iter().all(|node| node.cache.stats().l2_failures == 0));
    let verdict = trial.ends().await;
    assert_eq!((verdict.queued, verdict.refused), (0, 0));
    assert!(verdict.trust_was_kept);
}
