//! Keys, dealt to tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearfar_bench::time;

/// The keys that one task asks for, in order.
pub(crate) type Hand = Arc<[u64]>;

/// All of these keys in an order without meaning, so that popular ones are no neighbours in memory.
pub(crate) fn shuffled(keys: std::ops::Range<u64>) -> Vec<u64> {
    let mut ids: Vec<u64> = keys.collect();
    fastrand::shuffle(&mut ids);
    ids
}

/// As many for each of the tasks. The rest is nobody's.
pub(crate) fn deal(ids: &[u64], tasks: usize) -> Vec<Hand> {
    ids.chunks_exact(ids.len() / tasks).take(tasks).map(Arc::from).collect()
}

/// Microseconds per key, as one of the tasks sees it, of which there is one for each hand.
pub(crate) async fn time_hands<F>(hands: &[Hand], work: impl Fn(Hand) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let dealt = AtomicUsize::new(0);
    let next = |_| work(Arc::clone(&hands[dealt.fetch_add(1, Ordering::Relaxed)]));
    time(hands.len(), hands[0].len(), next).await
}
