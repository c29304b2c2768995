//! multi-tier-cache: moka and Redis, values as JSON in both, invalidation over pub/sub.
//!
//! Built with `CacheManager::new_with_invalidation`, the constructor whose nodes hear each other, with default settings
//! but for the size of L1. Rows go through its typed calls, so each read decodes JSON, in L1 too. What is found in L2 is
//! taken into L1 one time in ten, its default. A write is `set_with_broadcast`, which its README calls write-through; it
//! sends the value to the other nodes.

use std::sync::Arc;

use bytes::Bytes;
use multi_tier_cache::{CacheManager, CacheStrategy, InvalidationConfig, L1Cache, L2Cache, MokaCacheConfig};
use nearfar_bench::Row;
use nearfar_peers_harness::{Loader, Peer, TTL, Writes};

#[derive(Clone)]
pub(crate) struct MultiTierCache(Arc<CacheManager>);

impl Peer for MultiTierCache {
    const NAME: &'static str = "multi-tier-cache";
    const WRITES: Writes = Writes::Tell;
    type Hit = Row;

    async fn open(url: &str, l1_entries: u64) -> Self {
        let l1 = MokaCacheConfig { max_capacity: l1_entries, ..MokaCacheConfig::default() };
        let l1 = Arc::new(L1Cache::new(l1).expect("the settings are right"));
        let l2 = Arc::new(L2Cache::with_url(url).await.expect("the server is up"));
        let manager = CacheManager::new_with_invalidation(l1, l2, url, InvalidationConfig::default()).await;
        Self(Arc::new(manager.expect("the server is up")))
    }

    async fn get(&self, id: u64) -> Option<Row> {
        self.0.get_typed(&key(id)).await.expect("the server is up")
    }

    fn row(hit: &Row) -> &Row {
        hit
    }

    async fn set(&self, id: u64, row: Row) {
        let payload = Bytes::from(serde_json::to_vec(&row).expect("a row can be encoded"));
        self.0.set_with_broadcast(&key(id), payload, STRATEGY).await.expect("the server is up");
    }
}

impl Loader for MultiTierCache {
    async fn get_or_load<L, F>(&self, id: u64, load: L) -> Row
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Row> + Send + 'static,
    {
        let load = || async { Ok(load().await) };
        self.0.get_or_compute_typed(&key(id), STRATEGY, load).await.expect("the loader does not fail")
    }
}

const STRATEGY: CacheStrategy = CacheStrategy::Custom(TTL);

fn key(id: u64) -> String {
    format!("row:{id}")
}
