//! nearfar, beside itself.
//!
//! Default settings, but for the size of L1. A hit in L1 hands out the shared row. A write is one script: number, value,
//! log and message.

use nearfar::{Cache, Entry};
use nearfar_bench::Row;
use nearfar_peers_harness::{Loader, Peer, TTL, Writes};

#[derive(Clone)]
pub(crate) struct Nearfar(Cache<u64, Row>);

impl Peer for Nearfar {
    const NAME: &'static str = "nearfar";
    const WRITES: Writes = Writes::Tell;
    type Hit = Entry<Row>;

    async fn open(url: &str, l1_entries: u64) -> Self {
        let node = nearfar::Nearfar::connect(url).await.expect("the server is up");
        let cache = node.cache("rows").ttl(TTL).l1_max_entries(l1_entries);
        Self(cache.build().await.expect("the settings are right"))
    }

    async fn get(&self, id: u64) -> Option<Entry<Row>> {
        self.0.get(&id).await.expect("the server is up")
    }

    fn row(hit: &Entry<Row>) -> &Row {
        hit
    }

    async fn set(&self, id: u64, row: Row) {
        let outcome = self.0.set(&id, row).await.expect("the server is up");
        assert!(outcome.is_applied());
    }
}

impl Loader for Nearfar {
    async fn get_or_load<L, F>(&self, id: u64, load: L) -> Entry<Row>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Row> + Send + 'static,
    {
        let load = async move |_| Ok::<_, std::convert::Infallible>(load().await);
        self.0.get_or_load(&id, load).await.expect("the loader does not fail")
    }
}
