//! cachet: tiers to be composed, of which it brings the one in memory, on moka.
//!
//! The tier on Redis is its user's to write, and here it is [`RedisTier`], on fred. Between the two stands `serialize`, its
//! boundary for such tiers, which encodes by postcard. Rows are `Arc<Row>`, as each read clones the value; stampede
//! protection is on, as its README advises, and all reads go through it. Nodes are not told of each other's writes: it has
//! nothing for that.

use std::sync::Arc;

use bytes::Bytes;
use bytesbuf::BytesView;
use cachet::{Cache, CacheEntry, CacheTier, Error};
use cachet_tier::InsertOutcome;
use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::prelude::{Config, TcpConfig};
use fred::types::{Builder, Expiration};
use nearfar_bench::Row;
use nearfar_peers_harness::{Loader, Peer, TTL, Writes};
use tick::Clock;

#[derive(Clone)]
pub(crate) struct Cachet(Arc<Cache<u64, Arc<Row>>>);

impl Peer for Cachet {
    const NAME: &'static str = "cachet";
    const WRITES: Writes = Writes::Silent;
    type Hit = Arc<Row>;

    async fn open(url: &str, l1_entries: u64) -> Self {
        let clock = Clock::new_tokio();
        let l2 = RedisTier::connect(url).await;
        let cache = Cache::builder::<u64, Arc<Row>>(clock.clone())
            .memory_with(|memory| memory.max_capacity(l1_entries))
            .ttl(TTL)
            .stampede_protection()
            .serialize()
            .fallback(Cache::builder::<BytesView, BytesView>(clock).storage(l2))
            .build();
        Self(Arc::new(cache))
    }

    async fn get(&self, id: u64) -> Option<Arc<Row>> {
        self.0.get(&id).await.expect("the server is up").map(CacheEntry::into_value)
    }

    fn row(hit: &Arc<Row>) -> &Row {
        hit
    }

    async fn set(&self, id: u64, row: Row) {
        let outcome = self.0.insert(id, Arc::new(row)).await.expect("the server is up");
        assert_eq!(outcome, InsertOutcome::Accepted);
    }
}

impl Loader for Cachet {
    async fn get_or_load<L, F>(&self, id: u64, load: L) -> Arc<Row>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Row> + Send + 'static,
    {
        let load = || async { Arc::new(load().await) };
        self.0.get_or_insert(&id, load).await.expect("the server is up").into_value()
    }
}

/// Bytes in Redis, by `GET` and `SET`. Redis lets them expire: what is read does not say when it was stored, and a lifetime
/// of the tier would make it a miss.
#[derive(Debug)]
struct RedisTier(Client);

impl RedisTier {
    async fn connect(url: &str) -> Self {
        let mut builder = Builder::from_config(Config::from_url(url).expect("the testkit's url is one"));
        builder.with_connection_config(|connection| {
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
        });
        let client = builder.build().expect("nothing is missing");
        client.init().await.expect("the server is up");
        Self(client)
    }
}

impl CacheTier<BytesView, BytesView> for RedisTier {
    async fn get(&self, key: &BytesView) -> Result<Option<CacheEntry<BytesView>>, Error> {
        let payload: Option<Vec<u8>> = self.0.get(bytes(key)).await.map_err(Error::from_source)?;
        Ok(payload.map(|payload| CacheEntry::new(BytesView::from(payload))))
    }

    async fn insert(&self, key: BytesView, entry: CacheEntry<BytesView>) -> Result<InsertOutcome, Error> {
        let millis = entry.ttl().unwrap_or(TTL).as_millis();
        let expire = Some(Expiration::PX(i64::try_from(millis).unwrap_or(i64::MAX)));
        let set = self.0.set::<(), _, _>(bytes(&key), bytes(entry.value()), expire, None, false);
        set.await.map_err(Error::from_source)?;
        Ok(InsertOutcome::Accepted)
    }

    async fn invalidate(&self, key: &BytesView) -> Result<(), Error> {
        self.0.del::<(), _>(bytes(key)).await.map_err(Error::from_source)
    }

    async fn clear(&self) -> Result<(), Error> {
        Err(Error::from_message("the server is shared: nobody clears it"))
    }
}

fn bytes(view: &BytesView) -> Bytes {
    Bytes::from(view.to_vec())
}
