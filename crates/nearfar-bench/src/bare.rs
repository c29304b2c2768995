//! The bare clients, and the parts of a node.

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::prelude::{Config, TcpConfig};
use fred::types::{Builder, Expiration};
use nearfar_bench::Row;
use nearfar_redis::{OnUnreachable, RedisBus, RedisL2, RedisOptions};
use nearfar_testkit::RedisServer;
use std::time::Duration;

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

/// The other client that people use: one connection, which all tasks share.
pub(crate) async fn redis_rs(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("the testkit's url is one");
    client.get_multiplexed_async_connection().await.expect("the server is up")
}

/// What a user of the bare client does for a read.
pub(crate) async fn get(client: &Client, id: u64) -> Option<Row> {
    let payload: Option<Vec<u8>> = client.get(id).await.expect("the server is up");
    payload.map(|payload| rmp_serde::from_slice(&payload).expect("it was encoded so"))
}

/// What a user of the bare client does after a load.
pub(crate) async fn fill(client: &Client, row: &Row) {
    let payload = rmp_serde::to_vec_named(row).expect("a row can be encoded");
    let expire = Some(Expiration::EX(300));
    client.set::<(), _, _>(row.id, payload.as_slice(), expire, None, false).await.expect("the server is up");
}
