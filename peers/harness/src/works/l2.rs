//! Hits in L2, taken into L1, beside a bare `GET` and decoding.
//!
//! Each round has a new node, whose L1 is empty, and reads each key once at the most. So every peer does what it does on
//! the first read of a key, without a setting that no service would choose.

use nearfar_bench::{Row, Table};
use nearfar_testkit::RedisServer;

use super::{fill, read, stat};
use crate::Peer;
use crate::bare::Fred;
use crate::hands::{Hand, deal, shuffled, time_hands};

const KEYS: u64 = 10_000;
/// What a new node reads before it is measured: some connect then.
const FIRST: u64 = KEYS;
const ROUNDS: usize = 7;
const TASKS: [usize; 4] = [1, 8, 64, 256];
const FOUND: &str = "keyspace_hits";

pub(crate) async fn measure<P: Peer>(table: &mut Table, server: &RedisServer) {
    let writer = P::open(&server.url(), 2 * KEYS).await;
    fill(&writer, 0..KEYS).await;
    writer.set(FIRST, Row::new(FIRST)).await;
    let bare = full_bare(server).await;
    for tasks in TASKS {
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let hands = hands(tasks);
            let of_bare = time_hands(&hands, |hand| read_bare(bare.clone(), hand)).await;
            pairs.push((of_bare, measure_new_node::<P>(server, &hands).await));
        }
        table.add(format!("L2 hit, {tasks} tasks: {}", P::NAME), "fred GET + decode", "us", &pairs);
    }
}

async fn full_bare(server: &RedisServer) -> Fred {
    let bare = Fred::connect(server).await;
    for id in 0..KEYS {
        bare.set(id, &Row::new(id)).await;
    }
    bare
}

/// One task alone waits for each round trip: fewer reads take as long.
fn hands(tasks: usize) -> Vec<Hand> {
    let ids = shuffled(0..KEYS);
    deal(if tasks == 1 { &ids[..2_000] } else { &ids }, tasks)
}

async fn measure_new_node<P: Peer>(server: &RedisServer, hands: &[Hand]) -> f64 {
    let node = P::open(&server.url(), 2 * KEYS).await;
    read(&node, FIRST).await;
    let before = stat(server, FOUND).await;
    let elapsed = time_hands(hands, |hand| read_all(node.clone(), hand)).await;
    let (found, reads) = (stat(server, FOUND).await - before, hands.len() * hands[0].len());
    assert!(found >= reads as u64, "{reads} reads, {found} of them by the server: some were hits in L1");
    elapsed
}

async fn read_all<P: Peer>(node: P, hand: Hand) {
    for id in hand.iter() {
        let hit = read(&node, *id).await;
        assert_eq!(P::row(&hit).id, *id);
    }
}

async fn read_bare(bare: Fred, hand: Hand) {
    for id in hand.iter() {
        assert_eq!(bare.get(*id).await.expect("it was set").id, *id);
    }
}
