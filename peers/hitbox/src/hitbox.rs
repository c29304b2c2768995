//! hitbox: functions whose results are kept, by hitbox-fn over a composition of hitbox-moka and hitbox-redis.
//!
//! Both tiers encode by bincode, which the README of each recommends, so each read decodes, in L1 too. The policies of the
//! composition are its defaults, but for one: what is found in L2 is taken into L1, which by default it never is. One call
//! at a time loads a key: `BroadcastConcurrencyManager`, which the documentation advises for production. There is no write,
//! but the call of the function that is cached: what stores a row here is that it is loaded. Nodes are not told of anything.

use std::sync::Mutex;
use std::time::Duration;

use hitbox::concurrency::BroadcastConcurrencyManager;
use hitbox::offload::OffloadManager;
use hitbox::policy::{ConcurrencyLimit, PolicyConfig};
use hitbox_backend::composition::policy::RefillPolicy;
use hitbox_backend::composition::{Compose, CompositionBackend, CompositionPolicy};
use hitbox_backend::format::BincodeFormat;
use hitbox_fn::{Cache, CacheableResponse, cached};
use hitbox_moka::MokaBackend;
use hitbox_redis::{ConnectionMode, RedisBackend};
use nearfar_bench::Row;
use nearfar_peers_harness::{Loader, Peer, TTL, Writes};
use serde::{Deserialize, Serialize};

type Tiers = CompositionBackend<MokaBackend<BincodeFormat>, RedisBackend<BincodeFormat>, OffloadManager>;

#[derive(Clone)]
pub(crate) struct Hitbox(Cache<Tiers, BroadcastConcurrencyManager<Cached>, OffloadManager>);

/// A row, with what hitbox asks of a result.
#[derive(Clone, Debug, Serialize, Deserialize, CacheableResponse)]
pub(crate) struct Cached {
    row: Row,
}

impl Peer for Hitbox {
    const NAME: &'static str = "hitbox";
    const WRITES: Writes = Writes::Missing;
    type Hit = Cached;

    async fn open(url: &str, l1_entries: u64) -> Self {
        let offload = OffloadManager::with_defaults();
        let l1 = MokaBackend::builder().max_entries(l1_entries).value_format(BincodeFormat).build();
        let l2 = RedisBackend::builder().connection(ConnectionMode::single(url)).build();
        let refill = CompositionPolicy::new().refill(RefillPolicy::Always);
        let tiers = l1.compose_with(l2.expect("the settings are right"), offload.clone(), refill);
        let policy = PolicyConfig::builder().ttl(TTL).stale(Duration::ZERO).concurrency(ONE).build();
        let cache = Cache::builder().backend(tiers).policy(policy);
        Self(cache.concurrency_manager(BroadcastConcurrencyManager::new()).offload(offload).build())
    }

    async fn get(&self, id: u64) -> Option<Cached> {
        Some(row(id, Loads::new(async || unreachable!("it was set"))).cache(&self.0).await)
    }

    fn row(hit: &Cached) -> &Row {
        &hit.row
    }

    async fn set(&self, id: u64, row: Row) {
        self.get_or_load(id, async || row).await;
    }
}

impl Loader for Hitbox {
    async fn get_or_load<L, F>(&self, id: u64, load: L) -> Cached
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Row> + Send + 'static,
    {
        row(id, Loads::new(load)).cache(&self.0).await
    }
}

const ONE: ConcurrencyLimit = ConcurrencyLimit::MIN;

/// What loads a row.
pub(crate) trait Origin: Send + Sync + 'static {
    fn load(self) -> impl Future<Output = Row> + Send;
}

/// A closure that loads. Hitbox wants what a function is given to be [`Sync`], which the mutex makes it.
#[derive(Debug)]
struct Loads<L>(Mutex<L>);

impl<L> Loads<L> {
    fn new(load: L) -> Self {
        Self(Mutex::new(load))
    }
}

impl<L, F> Origin for Loads<L>
where
    L: FnOnce() -> F + Send + 'static,
    F: Future<Output = Row> + Send,
{
    fn load(self) -> impl Future<Output = Row> + Send {
        self.0.into_inner().expect("nobody has locked it")()
    }
}

// The macro has an `O` of its own.
#[cached(prefix = "row", skip(origin))]
async fn row<L: Origin>(id: u64, origin: L) -> Cached {
    let row = origin.load().await;
    assert_eq!(row.id, id);
    Cached { row }
}
