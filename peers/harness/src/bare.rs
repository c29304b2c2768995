//! The bare clients.

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, KeysInterface, PubsubInterface};
use fred::prelude::{Config, TcpConfig};
use fred::types::{Builder, Expiration};
use nearfar_bench::Row;
use nearfar_testkit::RedisServer;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;

use crate::TTL;

const CHANNEL: &str = "bare";

pub(crate) fn encode(row: &Row) -> Vec<u8> {
    rmp_serde::to_vec_named(row).expect("a row can be encoded")
}

/// No peer's keys look like this.
fn key(id: u64) -> String {
    format!("bare:{id}")
}

/// Fred, with the settings that nearfar uses it with.
#[derive(Clone)]
pub(crate) struct Fred(Client);

impl Fred {
    pub(crate) async fn connect(server: &RedisServer) -> Self {
        let config = Config::from_url(&server.url()).expect("the testkit's url is one");
        let mut builder = Builder::from_config(config);
        builder.with_connection_config(|connection| {
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
        });
        let client = builder.build().expect("nothing is missing");
        client.init().await.expect("the server is up");
        Self(client)
    }

    /// `GET`, and decoding.
    pub(crate) async fn get(&self, id: u64) -> Option<Row> {
        let payload: Option<Vec<u8>> = self.0.get(key(id)).await.expect("the server is up");
        payload.map(|payload| rmp_serde::from_slice(&payload).expect("it was encoded so"))
    }

    /// Encoding, and `SET`.
    pub(crate) async fn set(&self, id: u64, row: &Row) {
        let expire = Some(Expiration::PX(millis()));
        self.0.set::<(), _, _>(key(id), encode(row).as_slice(), expire, None, false).await.expect("it is up");
    }

    /// Encoding, and `SET` and `PUBLISH` in one pipeline.
    pub(crate) async fn set_and_publish(&self, id: u64, row: &Row) {
        let both = self.0.pipeline();
        let (payload, expire) = (encode(row), Some(Expiration::PX(millis())));
        both.set::<(), _, _>(key(id), payload.as_slice(), expire, None, false).await.expect("it is queued");
        both.publish::<(), _, _>(CHANNEL, id.to_string()).await.expect("it is queued");
        both.all::<()>().await.expect("the server is up");
    }

    /// Hears what is published, as a node does.
    pub(crate) async fn listen(self) -> JoinHandle<()> {
        let mut received = self.0.message_rx();
        self.0.subscribe(CHANNEL).await.expect("the server is up");
        tokio::spawn(async move {
            let _client = self;
            loop {
                // What overflows its queue is no matter here.
                let _heard = received.recv().await;
            }
        })
    }
}

/// redis-rs, with its own defaults.
#[derive(Clone)]
pub(crate) struct RedisRs(MultiplexedConnection);

impl RedisRs {
    pub(crate) async fn connect(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).expect("the testkit's url is one");
        Self(client.get_multiplexed_async_connection().await.expect("the server is up"))
    }

    /// Encoding, and `SET` and `PUBLISH` in one pipeline.
    pub(crate) async fn set_and_publish(&mut self, id: u64, row: &Row) {
        let mut both = redis::pipe();
        both.cmd("SET").arg(key(id)).arg(encode(row)).arg("PX").arg(millis()).ignore();
        both.publish(CHANNEL, id).ignore();
        both.query_async::<()>(&mut self.0).await.expect("the server is up");
    }
}

fn millis() -> i64 {
    i64::try_from(TTL.as_millis()).expect("minutes are few milliseconds")
}
