//! Batches beside what they are in place of, and changes of tags by how many entries carry them.

use std::convert::Infallible;
use std::sync::Arc;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use nearfar::{Cache, CallOptions, Error, Loaded, Nearfar};
use nearfar_bench::{Grid, Row, Table, Target, micros, time};
use nearfar_testkit::{RedisServer, Stopwatch};

use super::rows;
use crate::bare::client;

const KEYS: u64 = 10_000;
const BATCH: u64 = 100;
const ROUNDS: usize = 15;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    reads(table, server).await?;
    tags(table, server).await
}

async fn reads(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    // Past L1, so that each key is read from L2.
    let ours = rows(server, 10 * KEYS).await?;
    let bare = client(server).await;
    for id in 0..KEYS {
        ours.set(&id, Row::new(id)).await?;
        let payload = rmp_serde::to_vec_named(&Row::new(id)).expect("a row can be encoded");
        bare.set::<(), _, _>(id, payload.as_slice(), None, None, false).await.expect("the server is up");
    }
    let past_l1 = ours.with(CallOptions::new().skip_l1());
    let fresh = ours.with(CallOptions::new().fresh());
    let moka = Moka::new(10 * KEYS);
    let (mut pairs, mut kept, mut loops, mut in_l1) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let of_bare = time(1, 100, |count| read_bare(bare.clone(), count)).await;
        pairs.push((of_bare, time(1, 100, |count| read_many(past_l1.clone(), count)).await));
        let of_both = time(1, 100, |count| read_into(bare.clone(), moka.clone(), count)).await;
        kept.push((of_both, time(1, 100, |count| read_many(fresh.clone(), count)).await));
        let batched = time(1, 20, |count| read_many(past_l1.clone(), count)).await;
        loops.push((time(1, 20, |count| read_each(past_l1.clone(), count)).await, batched));
        let one_by_one = time(1, 100, |count| read_each(ours.clone(), count)).await;
        in_l1.push((one_by_one, time(1, 100, |count| read_many(ours.clone(), count)).await));
    }
    let past_l1 = table.add("get_many of 100 in L2, past L1", "MGET + decode", "us", &pairs);
    past_l1.target(Target::AtMost(1.1));
    table.add("get_many of 100 in L2, into L1", "the same + moka insert", "us", &kept);
    table.add("get_many of 100 in L2", "100 times get", "us", &loops);
    table.add("get_many of 100 in L1", "100 times get", "us", &in_l1);
    Ok(())
}

type Moka = moka::sync::Cache<u64, Arc<Row>>;

fn batch() -> Vec<u64> {
    (0..BATCH).map(|_| fastrand::u64(..KEYS)).collect()
}

async fn read_bare(client: Client, batches: usize) {
    for _ in 0..batches {
        let payloads: Vec<Vec<u8>> = client.mget(batch()).await.expect("the server is up");
        for payload in payloads {
            let row: Row = rmp_serde::from_slice(&payload).expect("it was encoded so");
            assert_eq!(row.description.len(), 980);
        }
    }
}

async fn read_into(client: Client, moka: Moka, batches: usize) {
    for _ in 0..batches {
        let payloads: Vec<Vec<u8>> = client.mget(batch()).await.expect("the server is up");
        for payload in payloads {
            let row: Row = rmp_serde::from_slice(&payload).expect("it was encoded so");
            moka.insert(row.id, Arc::new(row));
        }
    }
}

async fn read_many(cache: Cache<u64, Row>, batches: usize) {
    for _ in 0..batches {
        for row in cache.get_many(&batch()).await {
            assert_eq!(row.expect("the server is up").expect("it was set").description.len(), 980);
        }
    }
}

async fn read_each(cache: Cache<u64, Row>, batches: usize) {
    for _ in 0..batches {
        for id in batch() {
            let row = cache.get(&id).await.expect("the server is up");
            assert_eq!(row.expect("it was set").description.len(), 980);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn tags(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    let cache: Cache<u64, u64> = nearfar.cache("tagged").l1_max_entries(1_000).build().await?;
    let mut grid =
        Grid::new("one tag, of so many entries", &["change, us", "next get, us", "purge, s", "purged"]);
    for count in [1_u64, 1_000, 1_000_000] {
        for _ in 0..if count > 1_000 { 1 } else { 5 } {
            fill(&cache, count).await;
            let watch = Stopwatch::start();
            assert!(cache.invalidate_tag("all").await?.is_applied());
            let change = micros(watch);
            let watch = Stopwatch::start();
            assert!(cache.get(&(count - 1)).await?.is_none());
            let next = micros(watch);
            // Below the floor nothing fences, so all of it goes.
            cache.clear().await?;
            let watch = Stopwatch::start();
            let purged = cache.purge().finish().await?.removed;
            grid.add(format!("{count}"), vec![change, next, micros(watch) / 1e6, purged as f64]);
        }
    }
    table.add_grid(grid);
    Ok(())
}

async fn fill(cache: &Cache<u64, u64>, count: u64) {
    let all: Vec<u64> = (0..count).collect();
    for some in all.chunks(10_000) {
        let load = |ids: Vec<u64>| async move {
            Ok::<_, Infallible>(
                ids.into_iter().map(|id| (id, Loaded::new(id).tags(["all"]))).collect::<Vec<_>>(),
            )
        };
        let loaded = cache.get_or_load_many(some, load).await;
        assert!(loaded.into_iter().all(|one| one.is_ok_and(|one| one.is_some())));
    }
}
