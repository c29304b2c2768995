//! A write (number, value, log and message in one step), beside a bare `SET` and `PUBLISH` in one pipeline.

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, KeysInterface, PubsubInterface};
use fred::types::Expiration;
use nearfar::{Cache, Error};
use nearfar_bench::{Row, Table, Target, time};
use nearfar_testkit::RedisServer;
use redis::aio::MultiplexedConnection;

use super::rows;
use crate::bare::{client, redis_rs};

const KEYS: u64 = 10_000;
const ROUNDS: usize = 21;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    // All sides hear of their own writes.
    let (ours, fred, redis_rs) = (rows(server, KEYS).await?, client(server).await, redis_rs(server).await);
    let listening = listener(server).await;
    for tasks in [1, 8, 64, 256] {
        let writes = if tasks == 1 { 2_000 } else { 16_000 / tasks };
        let (mut beside_fred, mut beside_redis_rs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let of_fred = time(tasks, writes, |count| write_fred(fred.clone(), count)).await;
            let of_ours = time(tasks, writes, |count| write_ours(ours.clone(), count)).await;
            let of_redis_rs = time(tasks, writes, |count| write_redis_rs(redis_rs.clone(), count)).await;
            beside_fred.push((of_fred, of_ours));
            beside_redis_rs.push((of_redis_rs, of_ours));
        }
        let of_fred = table.add(format!("set, {tasks} tasks"), "fred SET + PUBLISH", "us", &beside_fred);
        if tasks == 1 {
            of_fred.target(Target::AtMost(1.2));
        }
        let of_redis_rs =
            table.add(format!("set, {tasks} tasks"), "redis-rs SET + PUBLISH", "us", &beside_redis_rs);
        if tasks == 64 {
            of_redis_rs.target(Target::Throughput(1.0));
        }
    }
    listening.abort();
    assert_eq!(ours.stats().doubts, 0, "no message was missed");
    Ok(())
}

/// Hears what is published, as a node does.
pub(crate) async fn listener(server: &RedisServer) -> tokio::task::JoinHandle<()> {
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

fn payload(id: u64) -> Vec<u8> {
    rmp_serde::to_vec_named(&Row::new(id)).expect("a row can be encoded")
}

async fn write_fred(client: Client, writes: usize) {
    for _ in 0..writes {
        set_and_publish(&client, fastrand::u64(..KEYS)).await;
    }
}

pub(crate) async fn set_and_publish(client: &Client, id: u64) {
    let both = client.pipeline();
    let expire = Some(Expiration::EX(300));
    both.set::<(), _, _>(id, payload(id).as_slice(), expire, None, false).await.expect("it is queued");
    both.publish::<(), _, _>("bare", id.to_string()).await.expect("it is queued");
    both.all::<()>().await.expect("the server is up");
}

async fn write_redis_rs(mut connection: MultiplexedConnection, writes: usize) {
    for _ in 0..writes {
        let id = fastrand::u64(..KEYS);
        let mut both = redis::pipe();
        both.set_ex(id, payload(id), 300).ignore().publish("bare", id.to_string()).ignore();
        both.query_async::<()>(&mut connection).await.expect("the server is up");
    }
}

async fn write_ours(cache: Cache<u64, Row>, writes: usize) {
    for _ in 0..writes {
        let id = fastrand::u64(..KEYS);
        let outcome = cache.set(&id, Row::new(id)).await.expect("the server is up");
        assert!(outcome.is_applied());
    }
}
