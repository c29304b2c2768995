//! Reads of cold keys, which are loaded and stored, beside a bare `GET` that finds nothing and a `SET`.
//!
//! The load itself takes no time.

use nearfar_bench::{Row, Table};
use nearfar_testkit::RedisServer;

use crate::Loader;
use crate::bare::Fred;
use crate::hands::{Hand, deal, shuffled, time_hands};

const TASKS: usize = 64;
/// Of one round. No key is asked for twice.
const KEYS: u64 = 6_400;
const ROUNDS: u64 = 11;

pub(crate) async fn measure<P: Loader>(table: &mut Table, server: &RedisServer) {
    let (peer, bare) = (P::open(&server.url(), 2 * KEYS * ROUNDS).await, Fred::connect(server).await);
    // Some connect when they are first asked.
    load(peer.clone(), Hand::from([u64::MAX])).await;
    let mut pairs = Vec::new();
    for round in 0..ROUNDS {
        let hands = deal(&shuffled(round * KEYS..(round + 1) * KEYS), TASKS);
        let of_bare = time_hands(&hands, |hand| load_bare(bare.clone(), hand)).await;
        pairs.push((of_bare, time_hands(&hands, |hand| load(peer.clone(), hand)).await));
    }
    let work = format!("miss and load, {TASKS} tasks: {}", P::NAME);
    table.add(work, "fred GET, then SET", "us", &pairs);
}

async fn load<P: Loader>(peer: P, hand: Hand) {
    for id in hand.iter().copied() {
        let hit = peer.get_or_load(id, move || async move { Row::new(id) }).await;
        assert_eq!(P::row(&hit).id, id);
    }
}

async fn load_bare(bare: Fred, hand: Hand) {
    for id in hand.iter().copied() {
        assert!(bare.get(id).await.is_none(), "it is cold");
        bare.set(id, &Row::new(id)).await;
    }
}
