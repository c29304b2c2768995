//! oxcache: a chain of moka and Redis, values as JSON in both.
//!
//! The chain is the one of its user guide: moka, Redis, backfill on. Rows go through `Cache`, so each read decodes JSON, in
//! L1 too, from a copy of the bytes. Nodes are not told of each other's writes: it has nothing for that.

use std::sync::Arc;

use nearfar_bench::Row;
use nearfar_peers_harness::{Loader, Peer, TTL, Writes};
use oxcache::Cache;
use oxcache::backend::{MokaMemoryBackend, RedisBackend};
use oxcache::cache::{ChainCache, ChainLink};

/// Without it, oxcache connects only to servers with TLS, which no peer is measured with.
pub(crate) const PERMISSION: (&str, &str) = ("OXCACHE_ALLOW_INSECURE_REDIS", "I_UNDERSTAND_THE_RISKS");

pub(crate) fn may_connect() -> bool {
    std::env::var(PERMISSION.0).is_ok_and(|value| value == PERMISSION.1)
}

#[derive(Clone)]
pub(crate) struct Oxcache(Arc<Cache<u64, Row>>);

impl Peer for Oxcache {
    const NAME: &'static str = "oxcache";
    const WRITES: Writes = Writes::Silent;
    type Hit = Row;

    async fn open(url: &str, l1_entries: u64) -> Self {
        let l1 = MokaMemoryBackend::builder().capacity(l1_entries).ttl(TTL).build();
        let l2 = RedisBackend::new(url).await.expect("the server is up");
        let chain = ChainCache::builder()
            .link(ChainLink::from_backend(l1))
            .link(ChainLink::from_backend(l2))
            .enable_backfill()
            .default_time_to_live(TTL)
            .build();
        let cache = Cache::builder().backend_arc(Arc::new(chain)).build().await;
        Self(Arc::new(cache.expect("the settings are right")))
    }

    async fn get(&self, id: u64) -> Option<Row> {
        self.0.get(&id).await.expect("the server is up")
    }

    fn row(hit: &Row) -> &Row {
        hit
    }

    async fn set(&self, id: u64, row: Row) {
        self.0.set(&id, &row).await.expect("the server is up");
    }
}

impl Loader for Oxcache {
    async fn get_or_load<L, F>(&self, id: u64, load: L) -> Row
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Row> + Send + 'static,
    {
        let load = || async { Ok(load().await) };
        self.0.get_or(&id, load).await.expect("the loader does not fail")
    }
}
