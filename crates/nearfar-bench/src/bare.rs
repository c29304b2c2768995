//! The bare client, and many tasks at once.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::prelude::{Config, TcpConfig};
use fred::types::Builder;
use nearfar_redis::{OnUnreachable, RedisBus, RedisL2, RedisOptions};
use nearfar_testkit::{RedisServer, Stopwatch};
use std::time::Duration;
use tokio::task::JoinSet;

pub(crate) async fn client(server: &RedisServer) -> Client {
    let config = Config::from_url(&server.url()).expect("the testkit's url is one");
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|connection| {
        connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
    });
    let client = builder.build().expect("nothing is missing");
    client.init().await.expect("the server is up");
    client
}

/// The parts of a node, for a bus that is looked into.
pub(crate) async fn backend(server: &RedisServer) -> (RedisL2, RedisBus) {
    let options = RedisOptions {
        url: server.url(),
        tls: None,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(1),
        log_len: 10_000,
        on_unreachable: OnUnreachable::Fail,
    };
    nearfar_redis::connect(options).await.expect("the server is up")
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn micros(watch: Stopwatch) -> f64 {
    watch.elapsed().as_nanos() as f64 / 1_000.0
}

/// Microseconds per operation, as one of the tasks sees it, each of which does so many.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) async fn time<F>(tasks: usize, operations: usize, work: impl Fn(usize) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let watch = Stopwatch::start();
    let mut running = JoinSet::new();
    (0..tasks).for_each(|_| drop(running.spawn(work(operations))));
    running.join_all().await;
    micros(watch) / operations as f64
}
