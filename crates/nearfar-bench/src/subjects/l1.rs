//! Hits in L1 beside bare moka with the same keys and shared values, by how the reads are spread and by threads.

use std::hint::black_box;
use std::sync::Arc;

use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Row, Table, Target};
use nearfar_testkit::{RedisServer, Stopwatch, accesses};
use tokio::task::JoinSet;

const ROUNDS: usize = 31;
const READS: usize = 200_000;
const KEYS: u32 = 100_000;

type Bare = moka::sync::Cache<u64, Arc<Row>>;
type Order = Arc<[u64]>;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    let ours: Cache<u64, Row> = nearfar.cache("hits").l1_max_entries(u64::from(KEYS) * 2).build().await?;
    let bare = Bare::new(u64::from(KEYS) * 2);
    for ids in shuffled().chunks(1_000) {
        for outcome in ours.set_many(ids.iter().map(|id| (*id, Row::new(*id)))).await {
            outcome?;
        }
        for id in ids {
            bare.insert(*id, Arc::new(Row::new(*id)));
        }
    }
    let cases = [
        (Spread::Uniform, 1, Target::AtMost(1.15)),
        (Spread::Uniform, 2, Target::Throughput(0.9)),
        (Spread::Zipf, 1, Target::AtMost(0.5)),
        (Spread::Zipf, 2, Target::Throughput(1.6)),
    ];
    for (spread, threads, target) in cases {
        let orders: Vec<Order> = (0..threads).map(|seed| spread.order(seed)).collect();
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let read_bare = |order: Order| {
                let bare = bare.clone();
                async move { read_bare(&bare, &order) }
            };
            let of_bare = time(&orders, read_bare).await;
            pairs.push((of_bare, time(&orders, |order| read_ours(ours.clone(), order)).await));
        }
        let stats = ours.stats();
        assert_eq!(stats.l2_hits + stats.misses, 0, "all were hits in L1");
        let work = format!("L1 hit, {KEYS} keys, {spread:?}, {threads} threads");
        table.add(work, "moka get", "ns", &pairs).target(target);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Spread {
    Uniform,
    /// Of exponent 0.99.
    Zipf,
}

impl Spread {
    fn order(self, seed: u64) -> Order {
        let order = match self {
            Self::Uniform => accesses::uniform(KEYS, READS, seed),
            Self::Zipf => accesses::zipf(KEYS, 0.99, READS, seed),
        };
        order.into_iter().map(u64::from).collect()
    }
}

/// So that popular ones are no neighbours in memory.
fn shuffled() -> Vec<u64> {
    let mut ids: Vec<u64> = (0..KEYS.into()).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut ids);
    ids
}

fn read_bare(cache: &Bare, order: &[u64]) {
    for id in order {
        black_box(cache.get(id).expect("it is there"));
    }
}

async fn read_ours(cache: Cache<u64, Row>, order: Order) {
    for id in &*order {
        black_box(cache.get(id).await.expect("it is in L1").expect("it is there"));
    }
}

/// Nanoseconds per read of one thread.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn time<F>(orders: &[Order], read: impl Fn(Order) -> F) -> f64
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
