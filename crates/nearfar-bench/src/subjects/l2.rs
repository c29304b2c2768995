//! A hit in L2, with its promotion to L1, beside a bare `GET` and decoding.

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use nearfar::{Cache, CallOptions, Error};
use nearfar_bench::{Row, Table, time};
use nearfar_testkit::RedisServer;

use super::rows;
use crate::bare::client;

const KEYS: u64 = 10_000;
const ROUNDS: usize = 15;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let ours = rows(server, 2 * KEYS).await?;
    let bare = client(server).await;
    for id in 0..KEYS {
        ours.set(&id, Row::new(id)).await?;
        let payload = rmp_serde::to_vec_named(&Row::new(id)).expect("a row can be encoded");
        bare.set::<(), _, _>(id, payload.as_slice(), None, None, false).await.expect("the server is up");
    }
    let past_l1 = ours.with(CallOptions::new().skip_l1());
    let fresh = ours.with(CallOptions::new().fresh());
    for tasks in [1, 8, 64, 256] {
        let reads = if tasks == 1 { 3_000 } else { 30_000 / tasks };
        let (mut past, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let of_bare = time(tasks, reads, |count| read_bare(bare.clone(), count)).await;
            past.push((of_bare, time(tasks, reads, |count| read_ours(past_l1.clone(), count)).await));
            kept.push((of_bare, time(tasks, reads, |count| read_ours(fresh.clone(), count)).await));
        }
        table.add(format!("get in L2, past L1, {tasks} tasks"), "fred GET + decode", "us", &past);
        table.add(format!("get in L2, taken into L1, {tasks} tasks"), "the same", "us", &kept);
    }
    Ok(())
}

async fn read_bare(client: Client, reads: usize) {
    for _ in 0..reads {
        let payload: Vec<u8> = client.get(fastrand::u64(..KEYS)).await.expect("the server is up");
        let row: Row = rmp_serde::from_slice(&payload).expect("it was encoded so");
        assert_eq!(row.description.len(), 980);
    }
}

async fn read_ours(cache: Cache<u64, Row>, reads: usize) {
    for _ in 0..reads {
        let row = cache.get(&fastrand::u64(..KEYS)).await.expect("the server is up");
        assert_eq!(row.expect("it was set").description.len(), 980);
    }
}
