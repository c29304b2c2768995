//! Hits in L1, beside a bare moka of the same keys and shared rows, by how the reads are spread and by threads.

use std::hint::black_box;
use std::sync::Arc;

use nearfar_bench::{Row, Table};
use nearfar_testkit::{RedisServer, accesses};

use super::{FILLERS, fill, read, stat};
use crate::Peer;
use crate::hands::{Hand, deal, shuffled, time_hands};

const KEYS: u32 = 100_000;
const READS: usize = 80_000;
const ROUNDS: usize = 7;
const COMMANDS: &str = "total_commands_processed";

type Bare = moka::sync::Cache<u64, Arc<Row>>;

pub(crate) async fn measure<P: Peer>(table: &mut Table, server: &RedisServer) {
    let peer = P::open(&server.url(), 2 * u64::from(KEYS)).await;
    fill(&peer, 0..KEYS.into()).await;
    take_into_l1(&peer).await;
    let bare = full_moka();
    for spread in [Spread::Zipf, Spread::Uniform] {
        for threads in [1, 2] {
            let hands: Vec<Hand> = (0..threads).map(|seed| spread.hand(seed)).collect();
            let before = stat(server, COMMANDS).await;
            let mut pairs = Vec::new();
            for _ in 0..ROUNDS {
                let read_bare = |hand: Hand| {
                    let bare = bare.clone();
                    async move { read_bare(&bare, &hand) }
                };
                let of_bare = time_hands(&hands, read_bare).await;
                let of_peer = time_hands(&hands, |hand| read_all(peer.clone(), hand)).await;
                pairs.push((of_bare * 1_000.0, of_peer * 1_000.0));
            }
            assert_only_l1(stat(server, COMMANDS).await - before, threads);
            let work = format!("L1 hit, {spread:?}, {threads} threads: {}", P::NAME);
            table.add(work, "moka get", "ns", &pairs);
        }
    }
}

/// Some peers take what is set into L1, others what is read.
async fn take_into_l1<P: Peer>(peer: &P) {
    let hands = deal(&shuffled(0..KEYS.into()), FILLERS);
    time_hands(&hands, |hand| read_all(peer.clone(), hand)).await;
}

/// What is measured would not be L1 if the server had been asked.
fn assert_only_l1(commands: u64, threads: u64) {
    let reads = threads * (READS * ROUNDS) as u64;
    assert!(commands < reads / 100, "{commands} commands for {reads} reads: these are no hits in L1");
}

async fn read_all<P: Peer>(peer: P, hand: Hand) {
    for id in hand.iter() {
        black_box(read(&peer, *id).await);
    }
}

fn full_moka() -> Bare {
    let bare = Bare::new(2 * u64::from(KEYS));
    for id in shuffled(0..KEYS.into()) {
        bare.insert(id, Arc::new(Row::new(id)));
    }
    bare
}

fn read_bare(bare: &Bare, hand: &[u64]) {
    for id in hand {
        black_box(bare.get(id).expect("it was inserted"));
    }
}

#[derive(Clone, Copy, Debug)]
enum Spread {
    /// Of exponent 0.99.
    Zipf,
    Uniform,
}

impl Spread {
    fn hand(self, seed: u64) -> Hand {
        let order = match self {
            Self::Zipf => accesses::zipf(KEYS, 0.99, READS, seed),
            Self::Uniform => accesses::uniform(KEYS, READS, seed),
        };
        order.into_iter().map(u64::from).collect()
    }
}
