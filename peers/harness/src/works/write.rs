//! Writes, beside a bare `SET` and `PUBLISH` in one pipeline.
//!
//! One node writes and hears what it publishes, as far as the peer tells anybody; somebody hears the bare client too.

use nearfar_bench::{Row, Table};
use nearfar_testkit::{RedisServer, eventually};

use crate::bare::{Fred, RedisRs};
use crate::hands::{Hand, time_hands};
use crate::{Peer, Writes};

const KEYS: u64 = 10_000;
const ROUNDS: usize = 11;

pub(crate) async fn measure<P: Peer>(table: &mut Table, server: &RedisServer) {
    if P::WRITES == Writes::Missing {
        return;
    }
    let peer = P::open(&server.url(), 2 * KEYS).await;
    if P::WRITES == Writes::Tell {
        assert_tells(&peer, server).await;
    }
    let (fred, redis_rs) = (Fred::connect(server).await, RedisRs::connect(server).await);
    let listening = Fred::connect(server).await.listen().await;
    for tasks in [1, 64] {
        let (mut beside_fred, mut beside_redis_rs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let hands = hands(tasks);
            let of_fred = time_hands(&hands, |hand| write_with_fred(fred.clone(), hand)).await;
            let of_peer = time_hands(&hands, |hand| write(peer.clone(), hand)).await;
            let of_redis_rs = time_hands(&hands, |hand| write_with_redis_rs(redis_rs.clone(), hand)).await;
            beside_fred.push((of_fred, of_peer));
            beside_redis_rs.push((of_redis_rs, of_peer));
        }
        let work = format!("set, {tasks} tasks: {}", name::<P>());
        table.add(&work, "fred SET + PUBLISH", "us", &beside_fred);
        table.add(&work, "redis-rs SET + PUBLISH", "us", &beside_redis_rs);
    }
    listening.abort();
}

/// What is measured would not be what the row says if others kept the old row.
async fn assert_tells<P: Peer>(peer: &P, server: &RedisServer) {
    let other = P::open(&server.url(), 2 * KEYS).await;
    peer.set(0, Row::new(0)).await;
    let named = async |name: &str| other.get(0).await.is_some_and(|hit| P::row(&hit).name == name);
    eventually("the other node has the row", async || named("row 0").await).await;
    let renamed = Row { name: "another".into(), ..Row::new(0) };
    let rename = async || {
        peer.set(0, renamed.clone()).await;
        named("another").await
    };
    eventually("the other node is told", rename).await;
}

fn name<P: Peer>() -> String {
    match P::WRITES {
        Writes::Tell => P::NAME.into(),
        Writes::Silent | Writes::Missing => format!("{} (tells nobody)", P::NAME),
    }
}

fn hands(tasks: usize) -> Vec<Hand> {
    let writes = if tasks == 1 { 1_000 } else { 8_000 / tasks };
    let hand = || (0..writes).map(|_| fastrand::u64(..KEYS)).collect();
    std::iter::repeat_with(hand).take(tasks).collect()
}

async fn write<P: Peer>(peer: P, hand: Hand) {
    for id in hand.iter() {
        peer.set(*id, Row::new(*id)).await;
    }
}

async fn write_with_fred(fred: Fred, hand: Hand) {
    for id in hand.iter() {
        fred.set_and_publish(*id, &Row::new(*id)).await;
    }
}

async fn write_with_redis_rs(mut redis_rs: RedisRs, hand: Hand) {
    for id in hand.iter() {
        redis_rs.set_and_publish(*id, &Row::new(*id)).await;
    }
}
