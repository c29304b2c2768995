//! How each work is done.

pub(crate) mod l1;
pub(crate) mod l2;
pub(crate) mod load;
pub(crate) mod stampede;
pub(crate) mod write;

use nearfar_bench::Row;
use nearfar_testkit::RedisServer;
use tokio::task::JoinSet;

use crate::Peer;
use crate::hands::{deal, shuffled};

/// So many tasks share out the keys of each work without a rest.
const FILLERS: usize = 50;

/// Stores these rows.
async fn fill<P: Peer>(peer: &P, keys: std::ops::Range<u64>) {
    let mut fillers = JoinSet::new();
    for hand in deal(&shuffled(keys), FILLERS) {
        let peer = peer.clone();
        fillers.spawn(async move {
            for id in hand.iter() {
                peer.set(*id, Row::new(*id)).await;
            }
        });
    }
    fillers.join_all().await;
}

/// Reads a row that must be there.
async fn read<P: Peer>(peer: &P, id: u64) -> P::Hit {
    peer.get(id).await.expect("it was set")
}

/// A figure of the server's.
async fn stat(server: &RedisServer, name: &str) -> u64 {
    let reply = server.command(&["INFO", "stats"]).await;
    let stats = String::from_utf8_lossy(reply.bytes().expect("INFO replies with bytes")).into_owned();
    let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok();
    stats.lines().find_map(of_name).expect("servers count that")
}
