//! A hit in L1 of a cache with everything on, beside one with nothing on and bare moka.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use nearfar::{Cache, CacheBuilder, Error, Nearfar, RefreshAhead};
use nearfar_bench::{Row, Table};
use nearfar_testkit::{RedisServer, Stopwatch};

const ROUNDS: usize = 101;
const READS: usize = 100_000;
const KEYS: u64 = 1_000;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    let plain = filled(nearfar.cache("plain")).await?;
    let full = filled(with_everything(nearfar.cache("full"))).await?;
    // Measured after the full one, as the plain one is before it: what differs between two that are the same is noise.
    let again = filled(nearfar.cache("again")).await?;
    let bare = moka::sync::Cache::new(KEYS * 2);
    (0..KEYS).for_each(|id| bare.insert(id, Arc::new(Row::new(id))));
    let order: Vec<u64> = (0..READS).map(|_| fastrand::u64(..KEYS)).collect();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let of_bare = time(async || order.iter().for_each(|id| drop(black_box(bare.get(id))))).await;
        let mut round = [of_bare; 7];
        for (at, cache) in [(1, &plain), (2, &full), (3, &again)] {
            round[at] = time(async || get_all(cache, &order).await).await;
            round[at + 3] = time(async || get_or_load_all(cache, &order).await).await;
        }
        rounds.push(round);
    }
    let pairs = |pick: fn(&[f64; 7]) -> (f64, f64)| rounds.iter().map(pick).collect::<Vec<_>>();
    table.add("get, hit", "moka get", "ns", &pairs(|round| (round[0], round[1])));
    table.add(
        "get, hit, everything on",
        "nothing on",
        "ns",
        &pairs(|round| beside(round[2], round[1], round[3])),
    );
    table.add("get, hit, nothing on", "the same", "ns", &pairs(|round| (round[1], round[3])));
    table.add("get_or_load, hit", "moka get", "ns", &pairs(|round| (round[0], round[4])));
    let pairs_of_all = pairs(|round| beside(round[5], round[4], round[6]));
    table.add("get_or_load, hit, everything on", "nothing on", "ns", &pairs_of_all);
    table.add("get_or_load, hit, nothing on", "the same", "ns", &pairs(|round| (round[4], round[6])));
    Ok(())
}

/// Beside the mean of what was measured just before and just after.
fn beside(full: f64, before: f64, after: f64) -> (f64, f64) {
    (before.midpoint(after), full)
}

fn with_everything(cache: CacheBuilder<u64, Row>) -> CacheBuilder<u64, Row> {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    cache
        .grace(minutes(60))
        .stale_while_revalidate(minutes(10))
        .refresh_ahead(RefreshAhead::Probabilistic(1.0))
        .idle(minutes(60))
        .absent_ttl(minutes(1))
        .cluster_single_flight(minutes(1))
        .soft_timeout(Duration::from_millis(100))
        .hard_timeout(Duration::from_secs(1))
}

async fn filled(cache: CacheBuilder<u64, Row>) -> Result<Cache<u64, Row>, Error> {
    let cache = cache.l1_max_entries(KEYS * 2).ttl(Duration::from_secs(3600)).build().await?;
    for id in 0..KEYS {
        cache.get_or_load(&id, load).await?;
    }
    Ok(cache)
}

async fn load(id: u64) -> Result<Row, Infallible> {
    Ok(Row::new(id))
}

async fn get_all(cache: &Cache<u64, Row>, order: &[u64]) {
    for id in order {
        black_box(cache.get(id).await.expect("it is in L1"));
    }
}

async fn get_or_load_all(cache: &Cache<u64, Row>, order: &[u64]) {
    for id in order {
        black_box(cache.get_or_load(id, load).await.expect("it is in L1"));
    }
}

/// Nanoseconds per read.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn time(work: impl AsyncFnOnce()) -> f64 {
    let watch = Stopwatch::start();
    work().await;
    watch.elapsed().as_nanos() as f64 / READS as f64
}
