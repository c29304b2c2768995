//! The doctor as a service calls it. What it finds on which server is in `nearfar-redis`, `tests/doctor.rs`.

use std::time::Duration;

use nearfar::{Cache, Diagnosis, Finding, FindingKind, Nearfar, Severity};
use nearfar_testkit::{FaultProxy, RedisCluster, RedisServer, Stopwatch, eventually};
use nearfar_tests::trusted;

/// What is found apart from the server's age, which is the machine's and not the test's.
fn kinds(diagnosis: &Diagnosis) -> Vec<FindingKind> {
    diagnosis.findings().map(Finding::kind).filter(|&kind| kind != FindingKind::Before7).collect()
}

#[tokio::test]
async fn a_node_on_a_well_kept_server_has_nothing_to_do_and_does_not_notice() {
    let server = RedisServer::start().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    let users: Cache<u64, u64> = nearfar.cache("users").build().await.unwrap();
    let prices: Cache<u64, u64> = nearfar.cache("prices").build().await.unwrap();
    users.set(&1, 1).await.unwrap();
    let keys = server.command(&["DBSIZE"]).await;

    let diagnosis = nearfar.doctor().await;
    assert_eq!(kinds(&diagnosis), []);
    let report = diagnosis.to_string();
    assert!(report.contains("Nothing to do."), "{report}");
    let users_line = report.lines().find(|line| line.contains("namespace users")).unwrap();
    assert!(users_line.contains("fence window 60s, live nodes: 1, messages in the log: 1 ("), "{report}");
    assert!(report.contains("namespace prices"), "{report}");

    assert_eq!(server.command(&["DBSIZE"]).await, keys);
    for cache in [&users, &prices] {
        let stats = cache.stats();
        assert!(stats.trusted && stats.doubts == 0, "{stats:?}");
    }
}

/// Its caches could not be built with a server at hand; the doctor says so without building one.
#[tokio::test]
async fn a_node_that_disagrees_with_the_others_is_told() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let degraded = Nearfar::builder().start_degraded().connect(&server.url()).await.unwrap();
    let short = degraded.cache("users").fence_window(Duration::from_secs(30));
    let here: Cache<u64, u64> = short.build().await.unwrap();
    assert_eq!(kinds(&degraded.doctor().await), [FindingKind::Unreachable]);

    server.restart_empty().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    let _there: Cache<u64, u64> = nearfar.cache("users").build().await.unwrap();
    trusted(&here).await;
    let diagnosis = degraded.doctor().await;
    assert_eq!(kinds(&diagnosis), [FindingKind::NamespaceDisagrees]);
    assert_eq!(diagnosis.worst(), Some(Severity::Critical));
    assert_eq!(kinds(&nearfar.doctor().await), []);
}

#[tokio::test]
async fn why_it_cannot_be_connected_to_is_the_finding() {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    proxy.refuse().await;
    let url = format!("redis://app:hunter2@127.0.0.1:{}", proxy.port());
    let diagnosis = Nearfar::builder().doctor(&url, &["users"]).await;
    assert_eq!(kinds(&diagnosis), [FindingKind::Unreachable]);
    proxy.accept().await;
    let diagnosis = Nearfar::builder().doctor(&url, &["users"]).await;
    assert_eq!(kinds(&diagnosis), [FindingKind::LoginRefused]);
    assert!(!format!("{diagnosis} {diagnosis:?}").contains("hunter2"), "{diagnosis}");
}

#[tokio::test]
async fn a_paused_server_does_not_hold_it_up() {
    let server = RedisServer::start().await;
    let builder = Nearfar::builder().connect_timeout(Duration::from_secs(1));
    let nearfar = builder.connect(&server.url()).await.unwrap();
    server.pause().await;
    let watch = Stopwatch::start();
    assert_eq!(kinds(&nearfar.doctor().await), [FindingKind::Unreachable]);
    assert!(watch.elapsed() < Duration::from_secs(4), "{:?}", watch.elapsed());
}

#[tokio::test]
async fn it_leaves_no_connection_and_works_after_the_shutdown() {
    let server = RedisServer::start().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    nearfar.shutdown().await;
    assert_eq!(kinds(&nearfar.doctor().await), []);
    eventually("all are closed", async || {
        server.command(&["CLIENT", "LIST"]).await.text().unwrap().lines().count() == 1
    })
    .await;
}

/// Zero is no time limit that `connect` takes; a doctor has nothing to refuse with.
#[tokio::test]
async fn settings_that_connect_would_refuse_do_not_stop_it() {
    let diagnosis = Nearfar::builder()
        .connect_timeout(Duration::ZERO)
        .doctor("redis://127.0.0.1:1", &["no spaces"])
        .await;
    assert_eq!(diagnosis.worst(), Some(Severity::Critical), "{diagnosis}");
}

#[tokio::test]
async fn a_node_on_a_cluster_examines_all_of_it_and_does_not_notice() {
    let cluster = RedisCluster::start().await;
    let nearfar = Nearfar::connect(&cluster.url()).await.unwrap();
    let users: Cache<u64, u64> = nearfar.cache("users").build().await.unwrap();
    for key in 0..32 {
        users.set(&key, key).await.unwrap();
    }
    trusted(&users).await;
    let before = users.stats();
    let diagnosis = nearfar.doctor().await;
    assert_eq!(diagnosis.examinations().len(), 3);
    assert!(diagnosis.worst() < Some(Severity::Critical), "{diagnosis}");
    let disagrees = |finding: &Finding| finding.kind() == FindingKind::NamespaceDisagrees;
    assert!(!diagnosis.findings().any(disagrees), "{diagnosis}");
    let report = diagnosis.to_string();
    assert!(
        report.contains("16 partitions, fence window 60s, live nodes: 1, messages in the log: 32 ("),
        "{report}"
    );
    let stats = users.stats();
    assert!(stats.trusted, "{stats:?}");
    assert_eq!((stats.doubts, stats.resyncs), (before.doubts, before.resyncs));
}
