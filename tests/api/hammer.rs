//! Many readers and writers on a few keys, for some seconds, judged by what was acknowledged when.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::join_all;
use nearfar::Cache;
use nearfar_testkit::{History, Read, Stopwatch, Write, eventually};
use nearfar_tests::{Truth, on_every_backend};

const KEYS: u64 = 100;
const FOR: Duration = Duration::from_secs(3);
const BOUND: Duration = Duration::from_secs(1);

async fn load(cache: &Cache<u64, u64>, truth: &Truth, key: u64) -> u64 {
    let truth = truth.clone();
    let loader = move |key| async move {
        let revision = truth.revision(key);
        // Somebody else's turn between reading the row and coming back with it.
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(revision)
    };
    *cache.get_or_load(&key, loader).await.unwrap()
}

async fn read_for_a_while(cache: Cache<u64, u64>, truth: Truth, clock: Stopwatch) -> History {
    let mut history = History::default();
    while clock.elapsed() < FOR {
        let key = fastrand::u64(..KEYS);
        let start = clock.micros();
        let revision = load(&cache, &truth, key).await;
        history.read(Read { key, revision, start, end: clock.micros() });
        if fastrand::u8(..) == 0 {
            tokio::task::yield_now().await;
        }
    }
    history
}

async fn write_for_a_while(cache: Cache<u64, u64>, truth: Truth, clock: Stopwatch) -> History {
    let mut history = History::default();
    while clock.elapsed() < FOR {
        let key = fastrand::u64(..KEYS);
        let turn = truth.turn(key).await;
        let start = clock.micros();
        let revision = turn.commit();
        if fastrand::bool() {
            cache.invalidate(&key).await.unwrap();
        } else {
            cache.set(&key, revision).await.unwrap();
        }
        history.write(Write { key, revision, start, end: clock.micros() });
    }
    history
}

on_every_backend! {
    async fn nobody_reads_older_than_the_bound_and_nothing_stale_is_left(world: World) {
        let nodes = join_all((0..4).map(|_| world.node())).await;
        let caches = join_all(nodes.iter().map(async |node| -> Cache<u64, u64> {
            node.nearfar.cache("hammered").max_staleness(BOUND).build().await.unwrap()
        }))
        .await;
        let (truth, clock) = (Truth::new(KEYS), Stopwatch::start());
        let mut tasks = Vec::new();
        for cache in &caches {
            for _ in 0..2 {
                tasks.push(tokio::spawn(read_for_a_while(cache.clone(), truth.clone(), clock)));
            }
            tasks.push(tokio::spawn(write_for_a_while(cache.clone(), truth.clone(), clock)));
        }
        let mut history = History::default();
        for recorded in join_all(tasks).await {
            history.absorb(recorded.unwrap());
        }

        let report = history.check();
        println!("{} reads, {} writes, {} stale, worst {:?}", report.reads(), report.writes(), report.stale_reads(), report.worst());
        assert!(report.writes() > 100 && report.reads() > 1_000);
        assert_eq!(report.violations(BOUND), []);
        for key in 0..KEYS {
            for cache in &caches {
                eventually("what is left is the truth", async || {
                    load(cache, &truth, key).await == truth.revision(key)
                })
                .await;
            }
        }
    }
}
