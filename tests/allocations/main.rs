//! What a hit costs in memory.

use std::sync::Arc;

use allocation_counter::measure;
use futures_util::FutureExt;
use nearfar::{Cache, Nearfar};

/// A value that says so if it is copied or decoded.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Precious(String);

const HITS: u64 = 10_000;

/// moka's own garbage collector allocates 2 KiB once in a hundred reads or so; a hit adds nothing to that.
#[tokio::test(flavor = "current_thread")]
async fn a_hit_in_l1_allocates_nothing() {
    let cache: Cache<String, Precious> =
        Nearfar::in_process().cache("precious").build().await.expect("nothing is wrong");
    let bare = moka::sync::Cache::new(10);
    cache.set("k", Precious("v".repeat(1024))).await.expect("the store is up");
    bare.insert("k".to_owned(), Arc::new(Precious("v".repeat(1024))));
    let hit = || {
        let load = |_| async { Err(std::io::Error::other("not to be asked")) };
        let peeked = cache.peek("k").map(|entry| entry.0.len());
        let got = cache.get("k").now_or_never().expect("a hit does not wait");
        let loaded = cache.get_or_load("k", load).now_or_never().expect("a hit does not wait");
        assert_eq!(peeked, Some(1024));
        assert!(got.is_ok_and(|entry| entry.is_some()) && loaded.is_ok());
    };
    let bare_hits = || (0..3).for_each(|_| assert!(bare.get("k").is_some()));

    // The first reads set up what is thread-local.
    (0..HITS).for_each(|_| hit());
    // Nor if somebody has listened and does not any more. Who listens is given the key of each hit.
    let listening = cache.events();
    let heard = measure(|| (0..HITS).for_each(|_| hit()));
    assert!(heard.count_total > HITS, "{heard:?}");
    drop(listening);
    let by_moka = measure(|| (0..HITS).for_each(|_| bare_hits()));
    let by_us = measure(|| (0..HITS).for_each(|_| hit()));
    assert!(by_moka.count_total < HITS / 10, "{by_moka:?}");
    // The collector's turns do not fall evenly on the two.
    assert!(by_us.count_total <= by_moka.count_total + 2, "{by_us:?}, moka alone {by_moka:?}");
}
