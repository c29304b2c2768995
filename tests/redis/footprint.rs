//! What stands in Redis.

use std::time::Duration;

use nearfar::{Cache, Nearfar};
use nearfar_testkit::RedisServer;

/// Physical expiry is never shorter than the fence window, or a one-second ttl would open the races that it closes.
#[tokio::test]
async fn values_and_tombstones_stay_for_the_fence_window_at_least() {
    let server = RedisServer::start().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    let builder = nearfar.cache("n").ttl(Duration::from_millis(100)).fence_window(Duration::from_secs(30));
    let cache: Cache<u64, u64> = builder.build().await.unwrap();
    let kept = async || server.command(&["PTTL", "{n.0}:1"]).await.int().unwrap();
    cache.set(&1, 1).await.unwrap();
    assert!((29_000..=30_001).contains(&kept().await), "{}", kept().await);
    cache.invalidate(&1).await.unwrap();
    assert!((29_000..=30_001).contains(&kept().await), "{}", kept().await);
}

#[tokio::test]
async fn everything_that_grows_expires_or_is_bounded() {
    let server = RedisServer::start().await;
    let nearfar = Nearfar::builder().log_len(100).connect(&server.url()).await.unwrap();
    let cache: Cache<u64, u64> = nearfar.cache("n").build().await.unwrap();
    for key in 0..2_000 {
        cache.set(&key, key).await.unwrap();
    }
    let log_len = server.command(&["XLEN", "{n.0}#log"]).await.int().unwrap();
    assert!((100..=300).contains(&log_len), "about log_len, trimmed by whole blocks: {log_len}");
    for key in 0..2_000 {
        assert!(server.command(&["PTTL", &format!("{{n.0}}:{key}")]).await.int().unwrap() > 0);
    }
    let keys = server.command(&["DBSIZE"]).await.int().unwrap();
    assert_eq!(keys, 2_000 + 4, "and the head, the log, the nodes, the settings");
}

#[tokio::test]
async fn the_settings_of_a_namespace_can_be_read_by_people() {
    let server = RedisServer::start().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    let _cache: Cache<u64, u64> = nearfar.cache("n").build().await.unwrap();
    let recorded = server.command(&["GET", "{n}#meta"]).await;
    assert_eq!(recorded.text(), Some("format=1 partitions=1 fence_window_ms=60000"));
}
