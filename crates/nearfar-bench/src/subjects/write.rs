//! A write (number, value, log and message in one step), beside a bare `SET` and `PUBLISH` in one pipeline.

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, KeysInterface, PubsubInterface};
use fred::types::Expiration;
use nearfar::{Cache, Error};
use nearfar_bench::{Row, Table, time};
use nearfar_testkit::RedisServer;

use super::rows;
use crate::bare::client;

const KEYS: u64 = 10_000;
const ROUNDS: usize = 21;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    // Both sides hear of their own writes.
    let (ours, bare) = (rows(server, KEYS).await?, client(server).await);
    let listening = listener(server).await;
    for tasks in [1, 8, 64, 256] {
        let writes = if tasks == 1 { 2_000 } else { 16_000 / tasks };
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let of_bare = time(tasks, writes, |count| write_bare(bare.clone(), count)).await;
            pairs.push((of_bare, time(tasks, writes, |count| write_ours(ours.clone(), count)).await));
        }
        table.add(format!("set, {tasks} tasks"), "fred SET + PUBLISH", "us", &pairs);
    }
    listening.abort();
    assert_eq!(ours.stats().doubts, 0, "no message was missed");
    Ok(())
}

/// Hears what is published, as a node does.
async fn listener(server: &RedisServer) -> tokio::task::JoinHandle<()> {
    let subscriber = client(server).await;
    let mut received = subscriber.message_rx();
    subscriber.subscribe("bare").await.expect("the server is up");
    subscriber.ping::<()>(None).await.expect("the server is up");
    tokio::spawn(async move {
        loop {
            // What overflows its queue is no matter here.
            let _heard = received.recv().await;
        }
    })
}

async fn write_bare(client: Client, writes: usize) {
    for _ in 0..writes {
        let id = fastrand::u64(..KEYS);
        let payload = rmp_serde::to_vec_named(&Row::new(id)).expect("a row can be encoded");
        let both = client.pipeline();
        let expire = Some(Expiration::EX(300));
        both.set::<(), _, _>(id, payload.as_slice(), expire, None, false).await.expect("it is queued");
        both.publish::<(), _, _>("bare", id.to_string()).await.expect("it is queued");
        both.all::<()>().await.expect("the server is up");
    }
}

async fn write_ours(cache: Cache<u64, Row>, writes: usize) {
    for _ in 0..writes {
        let id = fastrand::u64(..KEYS);
        let outcome = cache.set(&id, Row::new(id)).await.expect("the server is up");
        assert!(outcome.is_applied());
    }
}
