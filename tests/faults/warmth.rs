//! What an interruption costs a node that has much to lose.

use futures_util::StreamExt;
use futures_util::stream::iter;
use nearfar::{Cache, Nearfar};
use nearfar_testkit::{FaultProxy, RedisServer, Stopwatch, eventually};
use nearfar_tests::trusted;

const ENTRIES: u64 = 100_000;
const MISSED: u64 = 50;
/// How many changes are under way at once.
const AT_ONCE: usize = 64;

async fn cache(url: &str) -> Cache<u64, u64> {
    let nearfar = Nearfar::connect(url).await.unwrap();
    nearfar.cache("warm").l1_max_entries(2 * ENTRIES).build().await.unwrap()
}

/// Its own values are in its L1 from then on.
async fn warm_up(cache: &Cache<u64, u64>) {
    let sets = iter(0..ENTRIES).map(|key| async move { cache.set(&key, 0).await.unwrap() });
    sets.buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    trusted(cache).await;
    // Its own messages may have overrun it, and the log may not have had them all.
    let gets = iter(0..ENTRIES).map(|key| async move { cache.get(&key).await.unwrap() });
    gets.buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    assert_eq!(cache.stats().l1_entries, ENTRIES);
}

/// R28: whoever forgets all it has asks for all of it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_50_messages_loses_50_entries_and_not_100_000() {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    let (writer, warm) = (cache(&server.url()).await, cache(&proxy.url()).await);
    warm_up(&warm).await;
    let (resyncs, replayed) = (warm.stats().resyncs, warm.stats().replayed);

    proxy.refuse().await;
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually("it is noticed", async || !warm.stats().trusted).await;
    trusted(&writer).await;
    for key in 0..MISSED {
        writer.set(&key, 1).await.unwrap();
    }
    proxy.accept().await;
    let healed = Stopwatch::start();
    trusted(&warm).await;
    let again = healed.elapsed();

    let (lost, stats) = (ENTRIES - warm.stats().l1_entries, warm.stats());
    println!(
        "fault: subscription killed, {MISSED} messages missed, {ENTRIES} warm entries | {lost} L1 entries lost | {} messages \
         replayed | trusted again after {:.3} s",
        stats.replayed - replayed,
        again.as_secs_f64()
    );
    assert_eq!((lost, stats.replayed - replayed, stats.resyncs), (MISSED, MISSED, resyncs));
    assert!((0..MISSED).all(|key| warm.peek(&key).is_none()), "those that were missed");
    assert!((MISSED..ENTRIES).all(|key| warm.peek(&key).is_some()), "and no others");
    for key in 0..MISSED {
        assert_eq!(*warm.get(&key).await.unwrap().unwrap(), 1);
    }
}
