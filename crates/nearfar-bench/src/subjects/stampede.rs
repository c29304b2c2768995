//! A thousand callers on four nodes who want one cold key at once.
//!
//! `cargo run --release -p nearfar-bench -- stampede`, 40 keys, a load of 50 ms:
//!
//! ```text
//!                         loads   most/node   p50 ms   max ms
//! one load per node         4.0         1.0     51.1     59.6
//! cluster_single_flight     1.0         1.0     54.7     63.1
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Grid, Table, median, micros};
use nearfar_testkit::{RedisServer, Stopwatch, let_pass};
use tokio::sync::Barrier;

use super::figure;

const NODES: usize = 4;
const CALLERS: usize = 250;
const ROUNDS: u64 = 40;
const LOAD_TIME: Duration = Duration::from_millis(50);
const COLUMNS: &[&str] = &["loads", "most/node", "p50 ms", "max ms"];

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let (free, claiming) = (nodes(server, None).await?, nodes(server, Some(Duration::from_secs(5))).await?);
    let mut grid = Grid::new("1,000 callers of a cold key, 4 nodes", COLUMNS);
    for key in 0..ROUNDS {
        grid.add("one load per node", stampede(&free, key).await);
        grid.add("cluster_single_flight", stampede(&claiming, key).await);
    }
    table.add_grid(grid);
    Ok(())
}

async fn nodes(server: &RedisServer, claim: Option<Duration>) -> Result<Vec<Cache<u64, u64>>, Error> {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let nearfar = Nearfar::connect(&server.url()).await?;
        let cache = match claim {
            Some(claim) => nearfar.cache("claiming").cluster_single_flight(claim),
            None => nearfar.cache("free"),
        };
        nodes.push(cache.build().await?);
    }
    Ok(nodes)
}

/// One cold key: loads in all, the most on one node, and how long callers waited, in milliseconds.
async fn stampede(nodes: &[Cache<u64, u64>], key: u64) -> Vec<f64> {
    let start = Arc::new(Barrier::new(NODES * CALLERS));
    let loads: Arc<[AtomicU64; NODES]> = Arc::default();
    let mut callers = Vec::new();
    for (node, cache) in nodes.iter().enumerate() {
        for _ in 0..CALLERS {
            let (cache, start, loads) = (cache.clone(), Arc::clone(&start), Arc::clone(&loads));
            callers.push(tokio::spawn(async move {
                start.wait().await;
                let watch = Stopwatch::start();
                let load = async move |key| {
                    loads[node].fetch_add(1, Ordering::Relaxed);
                    let_pass(LOAD_TIME).await;
                    Ok::<u64, Error>(key)
                };
                let entry = cache.get_or_load(&key, load).await.expect("the loader does not fail");
                assert_eq!(*entry, key);
                micros(watch) / 1_000.0
            }));
        }
    }
    let waited: Vec<f64> =
        join_all(callers).await.into_iter().map(|caller| caller.expect("none panics")).collect();
    let longest = waited.iter().copied().fold(0.0, f64::max);
    let loads = loads.each_ref().map(|loads| loads.load(Ordering::Relaxed));
    let most = loads.iter().max().expect("there are nodes");
    vec![figure(loads.iter().sum()), figure(*most), median(waited), longest]
}
