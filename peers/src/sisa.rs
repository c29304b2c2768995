//! sisa-caching: its hybrid store, typed values in memory, JSON in Redis, invalidation over pub/sub.
//!
//! Rows are stored as `Arc<Row>`, which its documentation advises for large values, since each read clones the value. The
//! settings are its own but for the lifetimes and the size of L1. A write drops the node's own copy, which the next read
//! brings back; it returns when Redis has the value, and publishes in a task of its own, which nobody waits for.

use std::sync::Arc;

use nearfar_bench::Row;
use nearfar_peers_harness::{Loader, Peer, TTL, Writes};
use nearfar_testkit::eventually;
use sisa_caching::{CacheStore, HybridCacheSettings, HybridCacheStore, RedisHybridCacheStore};

#[derive(Clone)]
pub(crate) struct Sisa(Arc<RedisHybridCacheStore>);

impl Peer for Sisa {
    const NAME: &'static str = "sisa-caching";
    const WRITES: Writes = Writes::Tell;
    type Hit = Arc<Row>;

    async fn open(url: &str, l1_entries: u64) -> Self {
        let mut settings = HybridCacheSettings::default();
        settings.common.default_ttl_secs = Some(TTL.as_secs());
        settings.local.ttl_secs = TTL.as_secs();
        settings.local.memory.max_entries = usize::try_from(l1_entries).ok();
        let store = HybridCacheStore::connect("rows", url, &settings).await.expect("the server is up");
        store.start_worker();
        // Until it has subscribed, it reads from Redis alone.
        eventually("the node hears", async || store.local_reads_enabled()).await;
        Self(Arc::new(store))
    }

    async fn get(&self, id: u64) -> Option<Arc<Row>> {
        self.0.get(&key(id)).await.expect("the server is up")
    }

    fn row(hit: &Arc<Row>) -> &Row {
        hit
    }

    async fn set(&self, id: u64, row: Row) {
        self.0.set(&key(id), Arc::new(row), None).await.expect("the server is up");
    }
}

impl Loader for Sisa {
    async fn get_or_load<L, F>(&self, id: u64, load: L) -> Arc<Row>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Row> + Send + 'static,
    {
        let load = || async { Ok::<_, std::convert::Infallible>(Arc::new(load().await)) };
        self.0.get_or_set(&key(id), load, None).await.expect("the loader does not fail")
    }
}

fn key(id: u64) -> String {
    format!("row:v1:{id}")
}
