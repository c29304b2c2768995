//! Values that expire when nobody has read them for long.

use std::time::Duration;

use nearfar::backend::Envelope;
use nearfar::{Cache, Disconnected, InProcess, Loaded, Nearfar, Tier};
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::{Node, World, on_every_backend};

use crate::origin::Origin;

const SECOND: Duration = Duration::from_secs(1);
/// On a clock that goes on: reads come more often, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(3);
const HOUR: Duration = Duration::from_secs(3600);

async fn idle(node: &Node, limit: Duration) -> Cache<String, String> {
    node.nearfar.cache("texts").idle(limit).build().await.unwrap()
}

/// When the value was read last, as L2 knows.
async fn read_at(world: &World) -> nearfar::backend::Moment {
    let (l2, _bus) = world.backend().await;
    let key = "k".into();
    let snapshot = l2.read(&world.partition_of("texts", "k"), &key).await.unwrap();
    Envelope::decode(&snapshot.envelope.unwrap()).unwrap().stamp.read_at
}

on_every_backend! {
    /// An eighth of the limit is minutes here, and moments there.
    async fn l2_is_told_of_a_read_but_not_of_each(world: World) {
        let cache = world.node().await.texts().await;
        let set = async |limit| {
            cache.set_with("k", Loaded::new("v".to_owned()).idle(limit)).await.unwrap();
            read_at(&world).await
        };
        let written_at = set(HOUR).await;
        for _ in 0..20 {
            cache.get("k").await.unwrap().unwrap();
        }
        assert_eq!(read_at(&world).await, written_at);
        let written_at = set(LIMIT).await;
        eventually("a read is told", async || {
            cache.get("k").await.unwrap();
            read_at(&world).await > written_at
        })
        .await;
    }

    async fn reads_on_one_node_keep_the_value_for_the_others(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (idle(&a, LIMIT).await, idle(&b, LIMIT).await);
        here.set("k", "v".to_owned()).await.unwrap();
        there.get("k").await.unwrap().unwrap();
        // For longer than the limit, by whichever clock.
        let began = read_at(&world).await;
        eventually("longer than the limit", async || {
            here.get("k").await.unwrap();
            read_at(&world).await.since(began) > LIMIT + LIMIT / 4
        })
        .await;
        assert_eq!(here.stats().misses, 0);
        let entry = there.get("k").await.unwrap().expect("the other has read it all the time");
        assert_eq!(entry.tier(), Tier::L2, "its own copy has expired");
    }

    async fn every_kind_of_reading_keeps_it(world: World) {
        let cache = idle(&world.node().await, LIMIT).await;
        let origin = Origin::default();
        let load = async || cache.get_or_load("k", origin.load()).await.unwrap();
        load().await;
        let began = read_at(&world).await;
        eventually("longer than the limit", async || {
            load().await;
            read_at(&world).await.since(began) > LIMIT + LIMIT / 4
        })
        .await;
        assert_eq!(origin.loads(), 1);
    }

    /// The touch has been sent when the value is declared stale.
    async fn a_read_does_not_make_fresh_what_was_expired_meanwhile(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (idle(&a, LIMIT).await, idle(&b, LIMIT).await);
        here.set("k", "v".to_owned()).await.unwrap();
        a.valves.touches.close();
        // Read until it is told.
        loop {
            here.get("k").await.unwrap();
            if tokio::time::timeout(Duration::from_millis(10), a.valves.touches.holds(1)).await.is_ok() {
                break;
            }
        }
        there.expire("k").await.unwrap();
        let expired_at = read_at(&world).await;
        a.valves.touches.open();
        eventually("the other hears of it", async || here.peek("k").is_none()).await;
        assert!(here.get("k").await.unwrap().is_none() && there.get("k").await.unwrap().is_none());
        assert_eq!(read_at(&world).await, expired_at);
    }
}

async fn in_memory(
    options: impl FnOnce(nearfar::CacheBuilder<u64, u64>) -> nearfar::CacheBuilder<u64, u64>,
) -> Cache<u64, u64> {
    options(Nearfar::in_process().cache("n")).build().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_expires_and_what_is_read_does_not() {
    let cache = in_memory(|builder| builder.ttl(HOUR).idle(8 * SECOND)).await;
    for key in [1, 2] {
        cache.set(&key, key).await.unwrap();
    }
    for _ in 0..20 {
        let_pass(4 * SECOND).await;
        assert!(cache.get(&1).await.unwrap().is_some());
    }
    assert!(cache.get(&2).await.unwrap().is_none());
    let_pass(8 * SECOND).await;
    assert!(cache.peek(&1).is_some(), "it has the margin");
    let_pass(SECOND).await;
    assert!(cache.get(&1).await.unwrap().is_none());
}

/// The last that L2 was told of may be an eighth of the limit ago.
#[tokio::test(start_paused = true)]
async fn no_value_goes_before_its_idle_time() {
    let cache = in_memory(|builder| builder.ttl(HOUR).idle(8 * SECOND)).await;
    cache.set(&1, 1).await.unwrap();
    let_pass(Duration::from_millis(999)).await;
    cache.get(&1).await.unwrap().expect("it is fresh");
    let_pass(8 * SECOND).await;
    assert!(cache.get(&1).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn reads_do_not_prolong_a_value_beyond_its_ttl() {
    let cache = in_memory(|builder| builder.ttl(20 * SECOND).idle(8 * SECOND)).await;
    cache.set(&1, 1).await.unwrap();
    for _ in 0..4 {
        let_pass(4 * SECOND).await;
        assert!(cache.get(&1).await.unwrap().is_some());
    }
    let_pass(4 * SECOND).await;
    assert!(cache.get(&1).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn looking_whether_it_is_there_is_no_reading() {
    let cache = in_memory(|builder| builder.ttl(HOUR).idle(8 * SECOND)).await;
    cache.set(&1, 1).await.unwrap();
    for _ in 0..2 {
        let_pass(4 * SECOND).await;
        assert!(cache.contains(&1).await.unwrap() && cache.peek(&1).is_some());
    }
    let_pass(SECOND).await;
    assert!(!cache.contains(&1).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_value_may_have_an_idle_time_of_its_own() {
    let cache = in_memory(|builder| builder.ttl(HOUR)).await;
    cache.set_with(&1, Loaded::new(1).idle(8 * SECOND)).await.unwrap();
    let_pass(9 * SECOND).await;
    assert!(cache.get(&1).await.unwrap().is_none());
    let zero = cache.set_with(&1, Loaded::new(1).idle(Duration::ZERO)).await;
    assert!(zero.is_err(), "what would be over at once is not stored");
    cache.set_with(&1, Loaded::new(1).idle(Duration::MAX)).await.unwrap();
    let_pass(HOUR / 2).await;
    assert!(cache.get(&1).await.unwrap().is_some());
}

#[tokio::test]
async fn absurd_limits_are_for_ever() {
    let cache = in_memory(|builder| builder.ttl(Duration::MAX).idle(8 * SECOND).grace(Duration::MAX)).await;
    cache.set(&1, 1).await.unwrap();
    assert!(cache.get(&1).await.unwrap().is_some());
    let cache = in_memory(|builder| builder.idle(Duration::MAX).grace(Duration::MAX)).await;
    cache.set(&1, 1).await.unwrap();
    assert!(cache.get(&1).await.unwrap().is_some());
    let refused = Nearfar::in_process().cache::<u64, u64>("n").idle(Duration::ZERO).build().await;
    assert_eq!(refused.unwrap_err().to_string(), "`idle` must not be zero");
}

#[tokio::test(start_paused = true)]
async fn grace_counts_from_the_end_of_the_idle_time() {
    let cache = in_memory(|builder| builder.ttl(HOUR).idle(8 * SECOND).grace(10 * SECOND)).await;
    cache.set(&1, 1).await.unwrap();
    let fails = |_| async { Err::<u64, _>(std::io::Error::other("no database")) };
    let_pass(18 * SECOND).await;
    assert_eq!(*cache.get_or_load(&1, fails).await.unwrap(), 1);
    let_pass(SECOND).await;
    assert!(cache.get_or_load(&1, fails).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn reads_while_l2_is_away_prolong_the_copy_of_this_node() {
    let shared = InProcess::new();
    let nearfar = Nearfar::builder().in_process(&shared);
    let builder = nearfar.cache("n").idle(8 * SECOND).disconnected(Disconnected::Serve);
    let cache: Cache<u64, u64> = builder.build().await.unwrap();
    cache.set(&1, 1).await.unwrap();
    shared.cut_store();
    for _ in 0..5 {
        let_pass(4 * SECOND).await;
        assert_eq!(cache.get(&1).await.unwrap().unwrap().tier(), Tier::L1);
    }
}
