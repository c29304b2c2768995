//! A thousand callers on one node who want one cold key at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nearfar_bench::{Grid, Row, median, micros};
use nearfar_testkit::{RedisServer, Stopwatch, let_pass};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Loader;

const CALLERS: usize = 1_000;
const KEYS: u64 = 20;
const LOAD_TIME: Duration = Duration::from_millis(50);
/// A hundred times the load: who waits for longer is not woken any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is counted. Who was not served within five seconds is lost.
pub(crate) const COLUMNS: &[&str] = &["loads", "p50 ms", "max ms", "lost"];

pub(crate) async fn measure<P: Loader>(grid: &mut Grid, server: &RedisServer) {
    let peer = P::open(&server.url(), 2 * KEYS).await;
    // Some connect when they are first asked.
    peer.get_or_load(u64::MAX, || async { Row::new(u64::MAX) }).await;
    for id in 0..KEYS {
        grid.add(P::NAME, stampede(&peer, id).await);
    }
}

async fn stampede<P: Loader>(peer: &P, id: u64) -> Vec<f64> {
    let (start, loads) = (Arc::new(Barrier::new(CALLERS)), Arc::new(AtomicU32::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (peer, start, loads) = (peer.clone(), Arc::clone(&start), Arc::clone(&loads));
        callers.spawn(async move {
            start.wait().await;
            let watch = Stopwatch::start();
            timeout(PATIENCE, call(&peer, id, loads)).await.is_ok().then(|| micros(watch) / 1_000.0)
        });
    }
    let waited: Vec<f64> = callers.join_all().await.into_iter().flatten().collect();
    let lost = u32::try_from(CALLERS - waited.len()).expect("a thousand is not much");
    let longest = waited.iter().copied().fold(0.0, f64::max);
    vec![loads.load(Ordering::Relaxed).into(), median(waited), longest, lost.into()]
}

async fn call<P: Loader>(peer: &P, id: u64, loads: Arc<AtomicU32>) {
    let load = move || async move {
        loads.fetch_add(1, Ordering::Relaxed);
        let_pass(LOAD_TIME).await;
        Row::new(id)
    };
    let hit = peer.get_or_load(id, load).await;
    assert_eq!(P::row(&hit).id, id);
}
