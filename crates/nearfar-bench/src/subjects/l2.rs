//! A hit in L2, past L1 and taken into it, beside a bare `GET` and decoding, alone and with an insertion into moka.

use std::sync::Arc;

use fred::clients::Client;
use nearfar::{Cache, CallOptions, Error};
use nearfar_bench::{Row, Table, Target, time};
use nearfar_testkit::RedisServer;

use super::rows;
use crate::bare::{client, fill, get};

const KEYS: u64 = 10_000;
const ROUNDS: usize = 15;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let ours = rows(server, 2 * KEYS).await?;
    let bare = client(server).await;
    for id in 0..KEYS {
        ours.set(&id, Row::new(id)).await?;
        fill(&bare, &Row::new(id)).await;
    }
    let past_l1 = ours.with(CallOptions::new().skip_l1());
    let fresh = ours.with(CallOptions::new().fresh());
    let moka = Moka::new(2 * KEYS);
    for (tasks, target) in [
        (1, Some(Target::AtMost(1.05))),
        (8, None),
        (64, Some(Target::Throughput(2.0))),
        (256, Some(Target::Throughput(3.0))),
    ] {
        let reads = if tasks == 1 { 3_000 } else { 30_000 / tasks };
        let (mut past, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let of_bare = time(tasks, reads, |count| read_bare(bare.clone(), count)).await;
            past.push((of_bare, time(tasks, reads, |count| read_ours(past_l1.clone(), count)).await));
            let of_both = time(tasks, reads, |count| read_into(bare.clone(), moka.clone(), count)).await;
            kept.push((of_both, time(tasks, reads, |count| read_ours(fresh.clone(), count)).await));
        }
        let past = table.add(format!("get in L2, past L1, {tasks} tasks"), "fred GET + decode", "us", &past);
        if let Some(target) = target {
            past.target(target);
        }
        table.add(format!("get in L2, into L1, {tasks} tasks"), "the same + moka insert", "us", &kept);
    }
    Ok(())
}

type Moka = moka::sync::Cache<u64, Arc<Row>>;

async fn read_bare(client: Client, reads: usize) {
    for _ in 0..reads {
        let row = get(&client, fastrand::u64(..KEYS)).await;
        assert_eq!(row.expect("it was set").description.len(), 980);
    }
}

async fn read_into(client: Client, moka: Moka, reads: usize) {
    for _ in 0..reads {
        let row = get(&client, fastrand::u64(..KEYS)).await.expect("it was set");
        moka.insert(row.id, Arc::new(row));
    }
}

async fn read_ours(cache: Cache<u64, Row>, reads: usize) {
    for _ in 0..reads {
        let row = cache.get(&fastrand::u64(..KEYS)).await.expect("the server is up");
        assert_eq!(row.expect("it was set").description.len(), 980);
    }
}
