//! rustis: a client of Redis whose feature `client-cache` keeps replies in memory until the server says that they are old.
//!
//! A cache reads and a client writes, on connections of their own, as in its example of client-side caching. Tracking is
//! `broadcasting().noloop()`, as in the documentation of its `Cache`: the server tells each node of each write. Rows go
//! through its `Json`, so each read decodes JSON, in L1 too. It does not load.

use std::sync::Arc;

use nearfar_bench::Row;
use nearfar_peers_harness::{Peer, TTL, Writes};
use rustis::cache::{Cache, MokaStore};
use rustis::client::Client;
use rustis::commands::{ClientTrackingOptions, SetExpiration, StringCommands};
use rustis::resp::Json;

#[derive(Clone)]
pub(crate) struct Rustis {
    cache: Arc<Cache>,
    writer: Client,
}

impl Peer for Rustis {
    const NAME: &'static str = "rustis";
    const WRITES: Writes = Writes::Tell;
    type Hit = Row;

    async fn open(url: &str, l1_entries: u64) -> Self {
        let (reader, writer) = (Client::connect(url).await, Client::connect(url).await);
        let (store, tracking) = (MokaStore::new(TTL, l1_entries), ClientTrackingOptions::default());
        let reader = reader.expect("the server is up");
        let cache = Cache::with_store(reader, store, tracking.broadcasting().noloop()).await;
        Self { cache: cache.expect("the server is up"), writer: writer.expect("the server is up") }
    }

    async fn get(&self, id: u64) -> Option<Row> {
        let row: Option<Json<Row>> = self.cache.get(key(id)).await.expect("the server is up");
        row.map(Json::into_inner)
    }

    fn row(hit: &Row) -> &Row {
        hit
    }

    async fn set(&self, id: u64, row: Row) {
        let expire = SetExpiration::Ex(TTL.as_secs());
        let set = self.writer.set_with_options(key(id), Json(row), None, expire).await;
        assert!(set.expect("the server is up"));
    }
}

fn key(id: u64) -> String {
    format!("row:{id}")
}
