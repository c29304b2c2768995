//! A thousand readers of one key that expires again and again: how many of them wait for a load, and how many load.
//!
//! `cargo run --release -p nearfar-bench -- xfetch`, a load of 20 ms, ttl 1 s, 20 s for each case; a reader "waited" if it
//! took longer than half a load:
//!
//! ```text
//!                                      renewals  loads/each   waited/each
//! 1 node, ttl alone                        19.0         1.0        1000.0
//! 1 node, After(0.8)                       24.0         1.0           0.0
//! 1 node, Probabilistic(1.0)               24.0         1.0           0.0
//! 4 nodes, ttl alone                       19.0         4.0         987.8
//! 4 nodes, After(0.8)                      24.0         4.0           0.0
//! 4 nodes, Probabilistic(1.0)              24.0         1.8           0.0
//! 4 nodes, claims, ttl alone               19.0         1.0        1000.0
//! 4 nodes, claims, After(0.8)              24.0         1.0           0.0
//! 4 nodes, claims, Probabilistic(1.0)      24.0         1.0           0.0
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use nearfar::{Cache, CacheBuilder, Error, Nearfar, RefreshAhead};
use nearfar_bench::{Grid, Table};
use nearfar_testkit::{RedisServer, Stopwatch, let_pass};

const READERS: usize = 1_000;
const TTL: Duration = Duration::from_secs(1);
const LOAD_TIME: Duration = Duration::from_millis(20);
/// Of each reader, from one read to the next.
const PAUSE: Duration = Duration::from_millis(10);
const SPAN: Duration = Duration::from_secs(20);
/// Loads that begin so soon after one another are for the same expiry.
const BURST: Duration = Duration::from_millis(200);
const COLUMNS: &[&str] = &["reads/s", "renewals", "loads/each", "most", "waited/each", "waited %"];

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let mut grid = Grid::new("1,000 readers, load 20 ms, ttl 1 s", COLUMNS);
    let whens = [
        ("ttl alone", None),
        ("After(0.8)", Some(RefreshAhead::After(0.8))),
        ("Probabilistic(1.0)", Some(RefreshAhead::Probabilistic(1.0))),
    ];
    for (place, nodes, claims) in [("1 node", 1, false), ("4 nodes", 4, false), ("4 nodes, claims", 4, true)]
    {
        for (number, (name, when)) in whens.into_iter().enumerate() {
            let namespace = format!("expiring-{nodes}-{claims}-{number}");
            let build = |cache: CacheBuilder<u64, u64>| {
                let cache = when.into_iter().fold(cache.ttl(TTL), CacheBuilder::refresh_ahead);
                claims.then_some(TTL).into_iter().fold(cache, CacheBuilder::cluster_single_flight)
            };
            let mut caches = Vec::new();
            for _ in 0..nodes {
                let nearfar = Nearfar::connect(&server.url()).await?;
                caches.push(build(nearfar.cache(&namespace)).build().await?);
            }
            grid.add(format!("{place}, {name}"), Readers::default().read(&caches).await);
        }
    }
    table.add_grid(grid);
    Ok(())
}

#[derive(Default)]
struct Readers {
    reads: AtomicU64,
    /// Those that took longer than half a load.
    waited: AtomicU64,
    /// When loads began.
    loads: Arc<Mutex<Vec<Duration>>>,
    over: AtomicBool,
}

impl Readers {
    async fn read(self, caches: &[Cache<u64, u64>]) -> Vec<f64> {
        let (readers, clock) = (Arc::new(self), Stopwatch::start());
        let tasks = (0..READERS).map(|number| {
            let (readers, cache) = (Arc::clone(&readers), caches[number % caches.len()].clone());
            tokio::spawn(async move { readers.read_on(&cache, clock).await })
        });
        let tasks: Vec<_> = tasks.collect();
        // Until the key is there: nothing helps those who find nothing.
        let_pass(TTL / 2).await;
        readers.forget();
        let_pass(SPAN).await;
        readers.over.store(true, Ordering::Relaxed);
        join_all(tasks).await.into_iter().for_each(|task| task.expect("none panics"));
        readers.figures()
    }

    async fn read_on(&self, cache: &Cache<u64, u64>, clock: Stopwatch) {
        // Not all at the same moment.
        let_pass(PAUSE.mul_f64(fastrand::f64())).await;
        while !self.over.load(Ordering::Relaxed) {
            let (watch, loads) = (Stopwatch::start(), Arc::clone(&self.loads));
            let load = async move |key| {
                loads.lock().unwrap_or_else(PoisonError::into_inner).push(clock.elapsed());
                let_pass(LOAD_TIME).await;
                Ok::<u64, Error>(key)
            };
            cache.get_or_load(&1, load).await.expect("the loader does not fail");
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.waited.fetch_add((watch.elapsed() > LOAD_TIME / 2).into(), Ordering::Relaxed);
            let_pass(PAUSE).await;
        }
    }

    fn forget(&self) {
        self.reads.store(0, Ordering::Relaxed);
        self.waited.store(0, Ordering::Relaxed);
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn figures(&self) -> Vec<f64> {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let bursts: Vec<f64> =
            loads.chunk_by(|one, next| *next < *one + BURST).map(|burst| burst.len() as f64).collect();
        let (renewals, reads) = (bursts.len() as f64, self.reads.load(Ordering::Relaxed) as f64);
        let waited = self.waited.load(Ordering::Relaxed) as f64;
        vec![
            reads / SPAN.as_secs_f64(),
            renewals,
            bursts.iter().sum::<f64>() / renewals,
            bursts.iter().copied().fold(0.0, f64::max),
            waited / renewals,
            100.0 * waited / reads,
        ]
    }
}
