//! How each work is done.

pub(crate) mod l1;
pub(crate) mod l2;
pub(crate) mod load;
pub(crate) mod stampede;
pub(crate) mod write;

use nearfar_bench::Row;
use nearfar_testkit::{Reply, RedisServer};
use tokio::task::JoinSet;

use crate::Peer;
use crate::hands::{deal, shuffled};

const FILLERS: usize = 64;

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
async fn read<P: Peer>(peer: &P, id: u64) {
    let hit = peer.get(id).await.expect("it was set");
    assert_eq!(P::row(&hit).id, id);
    std::hint::black_box(hit);
}

/// How many commands the server has done.
async fn commands(server: &RedisServer) -> u64 {
    let reply = server.command(&["INFO", "stats"]).await;
    let stats = reply_text(&reply);
    let count = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    count.and_then(|count| count.trim().parse().ok()).expect("servers count their commands")
}

fn reply_text(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.bytes().expect("INFO replies with bytes")).into_owned()
}
