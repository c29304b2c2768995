//! A hit in L2, with its promotion to L1, beside a bare `GET` and decoding.

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::prelude::{Config, TcpConfig};
use fred::types::Builder;
use futures_util::future::join_all;
use nearfar::{Cache, Error};
use nearfar_testkit::{RedisServer, Stopwatch};

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

pub(crate) async fn client(server: &RedisServer) -> Client {
    let config = Config::from_url(&server.url()).expect("the testkit's url is one");
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|connection| {
        connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
    });
    let client = builder.build().expect("nothing is missing");
    client.init().await.expect("the server is up");
    client
}

/// Microseconds per read, as one of the tasks sees it.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn time(tasks: usize, reads: usize, work: impl AsyncFn()) -> f64 {
    let watch = Stopwatch::start();
    join_all((0..tasks).map(|_| work())).await;
    watch.elapsed().as_nanos() as f64 / 1_000.0 / reads as f64
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
