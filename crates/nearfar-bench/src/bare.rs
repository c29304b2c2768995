//! The bare client, and the parts of a node.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::prelude::{Config, TcpConfig};
use fred::types::Builder;
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
