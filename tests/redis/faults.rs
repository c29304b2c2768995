//! What the server has or says is wrong. Faults that last a while are in `tests/faults`.

use std::time::Duration;

use nearfar::{Cache, Nearfar, Outcome, Tier};
use nearfar_testkit::{Cut, FaultProxy, RedisServer, RespClient, eventually};
use nearfar_tests::trusted;

const BOUND: Duration = Duration::from_millis(500);

async fn node(url: &str) -> Cache<String, String> {
    let nearfar = Nearfar::builder().command_timeout(Duration::from_millis(500)).connect(url).await.unwrap();
    nearfar.cache("texts").max_staleness(BOUND).build().await.unwrap()
}

async fn warm(cache: &Cache<String, String>) {
    eventually("the copy is warm", async || {
        cache.get("k").await.unwrap().is_some_and(|entry| entry.tier() == Tier::L1)
    })
    .await;
}

/// What scripts have written, as the server tells it, until a command with this word comes.
async fn written_before(monitor: &mut RespClient, word: &str) -> Vec<String> {
    let mut writes = Vec::new();
    loop {
        let line = monitor.next().await.unwrap();
        let line = line.text().unwrap();
        if line.contains(word) {
            return writes;
        }
        if line.contains("lua] \"SET\"") {
            writes.push(line.to_owned());
        }
    }
}

/// R11: a write times out at its caller; the server executes it later, after the caller has done something else.
#[tokio::test]
async fn a_write_that_its_caller_gave_up_on_is_not_executed_later() {
    let server = RedisServer::start().await;
    let cache = node(&server.url()).await;
    cache.set("k", "old".into()).await.unwrap();
    let mut monitor = server.connect().await.unwrap();
    assert!(monitor.command(&["MONITOR"]).await.unwrap().is_ok());
    server.pause().await;
    assert_eq!(cache.set("k", "late".into()).await.unwrap(), Outcome::Queued);
    server.resume().await;

    trusted(&cache).await;
    let fresh = node(&server.url()).await;
    eventually("the outbox is delivered", async || cache.stats().outbox_keys == 0).await;
    server.command(&["PING", "that is all"]).await;
    let writes = written_before(&mut monitor, "that is all").await;
    assert!(!writes.is_empty() && !writes.iter().any(|write| write.contains("late")), "{writes:?}");
    assert!(fresh.get("k").await.unwrap().is_none(), "neither the late value nor the one before");
    assert!(cache.get("k").await.unwrap().is_none());
}

#[tokio::test]
async fn rubbish_on_the_channel_costs_a_moment_of_trust_and_nothing_else() {
    let server = RedisServer::start().await;
    let cache = node(&server.url()).await;
    cache.set("k", "v".into()).await.unwrap();
    let resyncs = cache.stats().resyncs;
    for rubbish in [&b"hello"[..], b"", b"NM\x01\x01", &vec![0xff; 100_000]] {
        let doubts = cache.stats().doubts;
        let reply = server.command(&[&b"PUBLISH"[..], b"{texts.0}#bus", rubbish]).await;
        assert_eq!(reply.int(), Some(1));
        eventually("it doubts", async || cache.stats().doubts > doubts).await;
        trusted(&cache).await;
    }
    assert_eq!(*cache.peek("k").unwrap(), "v");
    assert_eq!((cache.stats().bad_frames, cache.stats().resyncs), (4, resyncs));
}

/// What was missed is not in the log any more, or the log is gone: then nothing can be proved, and L1 is forgotten.
#[tokio::test]
async fn a_log_that_was_trimmed_or_lost_makes_a_node_forget() {
    let server = RedisServer::start().await;
    for lost in [false, true] {
        let proxy = FaultProxy::start(server.port()).await;
        let build = async |url: &str| -> Cache<u32, String> {
            let nearfar = Nearfar::builder().log_len(10).connect(url).await.unwrap();
            nearfar.cache("numbers").max_staleness(BOUND).build().await.unwrap()
        };
        let (a, b) = (build(&server.url()).await, build(&proxy.url()).await);
        for key in 0..500 {
            a.set(&key, "old".into()).await.unwrap();
        }
        eventually("the messages are applied", async || b.stats().invalidations_received == 500).await;
        for key in 0..500 {
            b.get(&key).await.unwrap();
        }
        let resyncs = b.stats().resyncs;
        proxy.refuse().await;
        proxy.cut(Cut::Reset).await;
        for key in 0..if lost { 1 } else { 500 } {
            a.set(&key, "new".into()).await.unwrap();
        }
        if lost {
            server.command(&["DEL", "{numbers.0}#log"]).await;
        }
        proxy.accept().await;
        eventually("it resyncs", async || b.stats().resyncs > resyncs).await;
        trusted(&b).await;
        assert!(b.peek(&400).is_none());
        assert_eq!(*b.get(&0).await.unwrap().unwrap(), "new");
    }
}

/// A foreign entry in the log: to ask for it again and again would keep the node from trusting for ever.
#[tokio::test]
async fn a_log_that_cannot_be_read_makes_a_node_forget() {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    let (a, b) = (node(&server.url()).await, node(&proxy.url()).await);
    a.set("k", "old".into()).await.unwrap();
    warm(&b).await;
    let resyncs = b.stats().resyncs;
    proxy.refuse().await;
    proxy.cut(Cut::Reset).await;
    let version = a.set("k", "newer".into()).await.unwrap().version().unwrap();
    let id = format!("{version}-1");
    server.command(&[&b"XADD"[..], b"{texts.0}#log", id.as_bytes(), b"\xff", b"\xff"]).await;
    a.set("k", "newest".into()).await.unwrap();
    proxy.accept().await;
    eventually("it resyncs", async || b.stats().resyncs > resyncs).await;
    trusted(&b).await;
    assert_eq!(*b.get("k").await.unwrap().unwrap(), "newest");
}

#[tokio::test]
async fn keys_of_a_wrong_type_are_misses_and_are_overwritten() {
    let server = RedisServer::start().await;
    let (a, b) = (node(&server.url()).await, node(&server.url()).await);
    server.command(&["RPUSH", "{texts.0}:k", "a list"]).await;
    assert!(a.get("k").await.unwrap().is_none());
    let load = |_| async { Ok::<_, std::io::Error>("loaded".to_owned()) };
    a.get_or_load("k", load).await.unwrap();
    assert_eq!(*b.get("k").await.unwrap().unwrap(), "loaded");

    for own in ["{texts.0}#head", "{texts.0}#log"] {
        server.command(&["DEL", own]).await;
        server.command(&["SADD", own, "a set"]).await;
        // More than once: a node that just finds its history gone takes a change of its own for lost, and invalidates.
        eventually("it arrives", async || {
            a.set("k", format!("after {own}")).await.unwrap();
            b.get("k").await.unwrap().is_some_and(|entry| *entry == format!("after {own}"))
        })
        .await;
    }
}
