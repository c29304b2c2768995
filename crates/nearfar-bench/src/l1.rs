//! A hit in L1 beside bare moka with the same key and a shared value.

use std::hint::black_box;
use std::sync::Arc;

use nearfar::{Cache, Error, InProcess, Nearfar};
use nearfar_testkit::{RedisServer, Stopwatch};

use crate::Row;
use crate::table::Table;

const ROUNDS: usize = 31;
const READS: usize = 200_000;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let in_process = Nearfar::builder().in_process(&InProcess::new());
    let redis = Nearfar::connect(&server.url()).await?;
    for keys in [1, 1_000, 100_000] {
        let bare = moka::sync::Cache::new(keys * 2);
        let build = async |nearfar: &Nearfar| {
            nearfar.cache::<u64, Row>(&format!("hits-{keys}")).l1_max_entries(keys * 2).build().await
        };
        let (ours, on_redis) = (build(&in_process).await?, build(&redis).await?);
        for id in 0..keys {
            bare.insert(id, Arc::new(Row::new(id)));
            ours.set(&id, Row::new(id)).await?;
            on_redis.set(&id, Row::new(id)).await?;
        }
        let order: Vec<u64> = (0..READS).map(|_| fastrand::u64(..keys)).collect();
        let mut pairs = Vec::new();
        let mut redis_pairs = Vec::new();
        for _ in 0..ROUNDS {
            let of_bare = time(|| order.iter().for_each(|id| drop(black_box(bare.get(id)))));
            pairs.push((of_bare, time_hits(&ours, &order).await?));
            redis_pairs.push((of_bare, time_hits(&on_redis, &order).await?));
        }
        table.add(format!("L1 hit, {keys} keys, beside moka get"), "ns", &pairs);
        table.add(format!("L1 hit on the system's clock, {keys} keys, beside moka"), "ns", &redis_pairs);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_read(watch: Stopwatch) -> f64 {
    watch.elapsed().as_nanos() as f64 / READS as f64
}

fn time(work: impl FnOnce()) -> f64 {
    let watch = Stopwatch::start();
    work();
    per_read(watch)
}

async fn time_hits(cache: &Cache<u64, Row>, order: &[u64]) -> Result<f64, Error> {
    let watch = Stopwatch::start();
    for id in order {
        black_box(cache.get(id).await?);
    }
    Ok(per_read(watch))
}
