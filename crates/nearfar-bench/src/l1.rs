//! Hits in L1 beside bare moka with the same keys and shared values, by how the reads are spread and by threads.

use std::hint::black_box;
use std::sync::Arc;

use nearfar::{Cache, Error, Nearfar};
use nearfar_testkit::{RedisServer, Stopwatch};
use tokio::task::JoinSet;

use crate::Row;
use crate::spread::Spread;
use crate::table::Table;

const ROUNDS: usize = 31;
const READS: usize = 200_000;
const KEYS: u64 = 100_000;

type Bare = moka::sync::Cache<u64, Arc<Row>>;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    let ours: Cache<u64, Row> = nearfar.cache("hits").l1_max_entries(KEYS * 2).build().await?;
    let bare = Bare::new(KEYS * 2);
    for ids in (0..KEYS).collect::<Vec<_>>().chunks(1_000) {
        for outcome in ours.set_many(ids.iter().map(|id| (*id, Row::new(*id)))).await {
            outcome?;
        }
    }
    (0..KEYS).for_each(|id| bare.insert(id, Arc::new(Row::new(id))));
    for (name, spread) in [("uniform", Spread::Uniform), ("Zipf 0.99", Spread::Zipf(0.99))] {
        for threads in [1, 2] {
            let orders: Vec<Arc<[u64]>> = (0..threads).map(|_| spread.order(KEYS, READS).into()).collect();
            let mut pairs = Vec::new();
            for _ in 0..ROUNDS {
                let of_bare = time(&orders, |order| {
                    let bare = bare.clone();
                    async move { read_bare(&bare, &order) }
                });
                let of_bare = of_bare.await;
                pairs.push((of_bare, time(&orders, |order| read_ours(ours.clone(), order)).await));
            }
            table.add(
                format!("L1 hit, {KEYS} keys, {name}, {threads} threads, beside moka get"),
                "ns",
                &pairs,
            );
        }
    }
    Ok(())
}

fn read_bare(cache: &Bare, order: &[u64]) {
    for id in order {
        black_box(cache.get(id).expect("it is there"));
    }
}

async fn read_ours(cache: Cache<u64, Row>, order: Arc<[u64]>) {
    for id in &*order {
        black_box(cache.get(id).await.expect("it is in L1").expect("it is there"));
    }
}

/// Nanoseconds per read of one thread.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn time<F>(orders: &[Arc<[u64]>], read: impl Fn(Arc<[u64]>) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let watch = Stopwatch::start();
    let mut threads = JoinSet::new();
    for order in orders {
        threads.spawn(read(Arc::clone(order)));
    }
    threads.join_all().await;
    watch.elapsed().as_nanos() as f64 / READS as f64
}
