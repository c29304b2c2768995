//! Sentinels watch a primary, and put a replica in its place.

use std::time::Duration;

use nearfar_testkit::Sentinels;

use crate::trial::{ALL_FOUR, BOUND, Trial};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_is_replaced() {
    let mut servers = Sentinels::start().await;
    let mut trial = Trial::start_on("sentinel: primary killed", &servers.url()).await;
    let primary = servers.primary().await;
    trial.breaks();
    servers[primary].kill().await;
    trial.loses_the_last_moment();
    trial.noticed_by(&ALL_FOUR).await;
    servers.replace(primary).await;
    trial.becomes_trusted().await;
    trial.ends().await;
}

/// It wakes up and takes itself for the primary until the sentinels tell it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stands_still_and_wakes_up_replaced_serves_nothing_stale() {
    let servers = Sentinels::start().await;
    let mut trial =
        Trial::start_on("sentinel: primary paused until replaced, then resumed", &servers.url()).await;
    let primary = servers.primary().await;
    trial.breaks();
    servers[primary].pause().await;
    trial.loses_the_last_moment();
    trial.noticed_by(&ALL_FOUR).await;
    servers.replace(primary).await;
    trial.becomes_trusted().await;
    servers[primary].resume().await;
    servers.settled().await;
    trial.lasts(Duration::from_secs(1) + BOUND).await;
    trial.ends().await;
}

/// The old primary goes on for a while, and what it acknowledges meanwhile is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_command_is_followed() {
    let servers = Sentinels::start().await;
    let mut trial = Trial::start_on("sentinel: SENTINEL FAILOVER", &servers.url()).await;
    trial.breaks();
    servers.failover().await;
    trial.loses_the_last_moment();
    trial.noticed_by(&ALL_FOUR).await;
    trial.becomes_trusted().await;
    trial.ends().await;
}
