use nearfar_testkit::Stopwatch;
use tokio::task::JoinSet;

/// Microseconds since then.
///
/// ```
/// assert!(nearfar_bench::micros(nearfar_testkit::Stopwatch::start()) >= 0.0);
/// ```
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn micros(watch: Stopwatch) -> f64 {
    watch.elapsed().as_nanos() as f64 / 1_000.0
}

/// Microseconds per operation, as one of the tasks sees it, each of which does so many. All of them run at once, as tasks of
/// their own.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let per_operation = nearfar_bench::time(8, 1_000, |count| async move { assert_eq!(count, 1_000) }).await;
/// assert!(per_operation > 0.0);
/// # })
/// ```
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn time<F>(tasks: usize, operations: usize, work: impl Fn(usize) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let watch = Stopwatch::start();
    let mut running = JoinSet::new();
    (0..tasks).for_each(|_| drop(running.spawn(work(operations))));
    running.join_all().await;
    micros(watch) / operations as f64
}
