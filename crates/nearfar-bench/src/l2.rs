//! A hit in L2, with its promotion to L1, beside a bare `GET` and decoding.

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use nearfar::{Cache, Error};
use nearfar_testkit::RedisServer;

use crate::bare::{client, time};
use crate::{Row, rows, table::Table};

const KEYS: u64 = 10_000;
const ROUNDS: usize = 15;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    // L1 so small that every read goes to L2.
    let ours = rows(server, 1).await?;
    let bare = client(server).await;
    for id in 0..KEYS {
        ours.set(&id, Row::new(id)).await?;
        let payload = rmp_serde::to_vec_named(&Row::new(id)).expect("a row can be encoded");
        bare.set::<(), _, _>(id, payload.as_slice(), None, None, false).await.expect("the server is up");
    }
    for tasks in [1, 8, 64] {
        let reads = if tasks == 1 { 3_000 } else { 20_000 / tasks };
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let of_bare = time(tasks, reads, async || read_bare(&bare, reads).await).await;
            pairs.push((of_bare, time(tasks, reads, async || read_ours(&ours, reads).await).await));
        }
        table.add(format!("L2 hit, {tasks} tasks, beside fred GET + decode"), "us", &pairs);
    }
    Ok(())
}

async fn read_bare(client: &Client, reads: usize) {
    for _ in 0..reads {
        let payload: Vec<u8> = client.get(fastrand::u64(..KEYS)).await.expect("the server is up");
        let row: Row = rmp_serde::from_slice(&payload).expect("it was encoded so");
        assert_eq!(row.description.len(), 980);
    }
}

async fn read_ours(cache: &Cache<u64, Row>, reads: usize) {
    for _ in 0..reads {
        let row = cache.get(&fastrand::u64(..KEYS)).await.expect("the server is up");
        assert_eq!(row.expect("it was set").description.len(), 980);
    }
}
