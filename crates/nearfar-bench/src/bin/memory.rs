//! What an entry of L1 takes in memory beside its value, and beside bare moka.
//!
//! `cargo run --release -p nearfar-bench --bin memory`. A program of its own, since it counts what is allocated.

use std::sync::Arc;

use allocation_counter::measure;
use nearfar::{Cache, Nearfar, Outcome};
use nearfar_testkit::RedisServer;

const KEYS: u64 = 100_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let server = runtime.block_on(RedisServer::start());
    let (writer, cache) = runtime.block_on(async { (node(&server).await, node(&server).await) });
    runtime.block_on(async {
        for ids in ids().chunks(1_000) {
            let outcomes = writer.set_many(ids.iter().map(|id| (*id, *id))).await;
            assert!(outcomes.into_iter().all(|outcome| outcome.is_ok_and(Outcome::is_applied)));
        }
    });
    drop(writer);
    // What the client keeps for itself is there before.
    runtime.block_on(async { cache.get_many(&ids()[..1_000]).await.truncate(0) });
    let ours = kept(|| {
        runtime.block_on(async {
            for ids in ids()[1_000..].chunks(1_000) {
                assert!(
                    cache.get_many(ids).await.into_iter().all(|answer| answer.is_ok_and(|row| row.is_some()))
                );
            }
        });
        assert_eq!(cache.stats().l1_entries, KEYS);
    });
    let bare = moka::sync::Cache::new(KEYS * 3);
    let insert = |ids: &[u64]| {
        for id in ids {
            bare.insert(*id, Arc::new(*id));
        }
        bare.run_pending_tasks();
    };
    insert(&ids()[..1_000]);
    let moka = kept(|| insert(&ids()[1_000..]));
    println!(
        "an entry of a key and a value of 8 bytes each, allocated bytes: moka {moka:.0}, nearfar {ours:.0}"
    );
    println!("nearfar has {:.0} more", ours - moka);
}

async fn node(server: &RedisServer) -> Cache<u64, u64> {
    let nearfar = Nearfar::connect(&server.url()).await.expect("the server is up");
    nearfar.cache("memory").l1_max_entries(KEYS * 3).build().await.expect("the server is up")
}

fn ids() -> Vec<u64> {
    (0..KEYS).collect()
}

/// Bytes that are still allocated afterwards, per entry.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn kept(work: impl FnOnce()) -> f64 {
    measure(work).bytes_current as f64 / (KEYS - 1_000) as f64
}
