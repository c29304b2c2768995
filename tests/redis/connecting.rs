//! Finding the server, or not.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearfar::{Cache, ErrorKind, FindingKind, Nearfar, Outcome, Tier};
use nearfar_testkit::{FaultProxy, RedisServer, eventually};
use nearfar_tests::trusted;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata};

const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_server_that_is_not_there_is_a_clear_error_without_secrets() {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    proxy.refuse().await;
    let url = format!("redis://user:hunter2@127.0.0.1:{}", proxy.port());
    let refused = Nearfar::builder().connect_timeout(SOON).connect(&url).await.unwrap_err();
    assert!(refused.is_unavailable());
    let texts = format!("{refused} {refused:?} {:?}", std::error::Error::source(&refused));
    assert!(texts.contains(&format!("127.0.0.1:{}", proxy.port())), "{texts}");
    assert!(!texts.contains("hunter2"), "{texts}");
}

#[tokio::test]
async fn a_url_that_is_none_is_a_clear_error_without_secrets() {
    for url in
        ["", "localhost", "http://:hunter2@localhost", "redis://:hunter2@", "redis://:hunter2@host:port"]
    {
        let refused = Nearfar::builder().connect_timeout(SOON).connect(url).await.unwrap_err();
        let texts = format!("{refused} {refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Config, "{texts}");
        assert!(!texts.contains("hunter2"), "{texts}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_a_clear_error_without_secrets() {
    let server = RedisServer::start().await;
    assert!(server.command(&["CONFIG", "SET", "requirepass", "correct"]).await.is_ok());
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port());
    let refused = Nearfar::builder().connect_timeout(SOON).connect(&url).await.unwrap_err();
    let texts = format!("{refused} {refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert!(texts.contains("WRONGPASS"), "{texts}");
    assert!(!texts.contains("hunter2"), "{texts}");
}

#[tokio::test]
async fn a_read_only_replica_is_a_clear_refusal() {
    let primary = RedisServer::start().await;
    let address = format!("127.0.0.1 {}", primary.port());
    let replica = RedisServer::builder().arg("replicaof", &address).start().await;
    let refused = Nearfar::connect(&replica.url()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert!(refused.to_string().contains("read-only replica"), "{refused}");
}

/// What is logged while it is listened to, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "nearfar::server" && *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.0.lock().unwrap();
        write!(text, "{} ", event.metadata().level()).unwrap();
        event.record(&mut |_: &Field, value: &dyn Debug| writeln!(text, "{value:?}").unwrap());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn what_a_full_server_will_do_is_said_and_logged_once() {
    let server = RedisServer::builder().arg("maxmemory", "100mb").start().await;
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await;
    let log = Log::default();
    let listening = tracing::subscriber::set_default(log.clone());
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    drop(listening);
    let [warning] = nearfar.warnings() else { panic!("{:?}", nearfar.warnings()) };
    assert_eq!(warning.kind(), FindingKind::EvictsFences);
    assert!(warning.seen().contains("volatile-lru"), "{warning:?}");
    assert_eq!(*log.0.lock().unwrap(), format!("WARN {warning}\n"));
    assert_eq!(nearfar.clone().warnings().len(), 1);
}

#[tokio::test]
async fn a_server_without_a_limit_is_not_warned_of() {
    let server = RedisServer::start().await;
    assert!(Nearfar::connect(&server.url()).await.unwrap().warnings().is_empty());
}

#[tokio::test]
async fn a_node_that_starts_without_a_server_loads_and_heals_when_it_comes() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let nearfar = Nearfar::builder().start_degraded().connect(&server.url()).await.unwrap();
    let cache: Cache<u64, u64> = nearfar.cache("n").build().await.unwrap();
    let load = |n| async move { Ok::<_, std::io::Error>(n) };
    assert_eq!(cache.get_or_load(&1, load).await.unwrap().tier(), Tier::Loader);
    assert_eq!(cache.set(&1, 1).await.unwrap(), Outcome::Queued);
    assert!(!cache.stats().trusted);

    server.restart_empty().await;
    trusted(&cache).await;
    cache.set(&1, 2).await.unwrap();
    assert_eq!(*cache.get(&1).await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_every_connection() {
    let server = RedisServer::start().await;
    let clients = async || {
        let list = server.command(&["CLIENT", "LIST"]).await;
        list.text().unwrap().lines().count()
    };
    let nobody = clients().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    let cache: Cache<u64, u64> = nearfar.cache("n").build().await.unwrap();
    assert_eq!(clients().await, nobody + 2, "one for commands, one for the subscription");
    drop(nearfar);
    cache.set(&1, 1).await.unwrap();
    drop(cache);
    eventually("they are closed", async || clients().await == nobody).await;
}

#[tokio::test]
async fn shutdown_says_goodbye_and_closes_every_connection() {
    let server = RedisServer::start().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    let _cache: Cache<u64, u64> = nearfar.cache("n").build().await.unwrap();
    assert_eq!(server.command(&["ZCARD", "{n.0}#nodes"]).await.int(), Some(1));
    nearfar.shutdown().await;
    assert_eq!(server.command(&["ZCARD", "{n.0}#nodes"]).await.int(), Some(0));
    eventually("they are closed", async || {
        server.command(&["CLIENT", "LIST"]).await.text().unwrap().lines().count() == 1
    })
    .await;
}
