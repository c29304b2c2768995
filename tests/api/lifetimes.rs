//! Expiry, on paused time.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::FutureExt;
use nearfar::{Cache, Disconnected, InProcess, Nearfar, Tier};

const SECOND: Duration = Duration::from_secs(1);

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    // Beats that have become due are sent and answered.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Time passes and no task runs, as in a process that is stopped.
fn stand_still(time: Duration) {
    assert!(std::pin::pin!(tokio::time::advance(time)).now_or_never().is_none(), "it yields after advancing");
}

fn node(shared: &InProcess) -> Nearfar {
    Nearfar::builder().in_process(shared)
}

#[tokio::test(start_paused = true)]
async fn a_value_lives_for_its_ttl_in_both_tiers() {
    let cache: Cache<u8, u8> = Nearfar::in_process().cache("n").ttl(10 * SECOND).build().await.unwrap();
    cache.set(&1, 1).await.unwrap();
    for _ in 0..9 {
        pass(SECOND).await;
        assert_eq!(cache.get(&1).await.unwrap().unwrap().tier(), Tier::L1);
    }
    pass(SECOND).await;
    assert!(cache.get(&1).await.unwrap().is_none());
    assert!(!cache.contains(&1).await.unwrap());
}

/// R24: an entry with two seconds left in L2 is taken into L1 with L1's full ttl.
#[tokio::test(start_paused = true)]
async fn a_copy_in_l1_never_outlives_the_entry_in_l2() {
    let shared = InProcess::new();
    let writer: Cache<u8, u8> = node(&shared).cache("n").ttl(10 * SECOND).build().await.unwrap();
    let reader: Cache<u8, u8> = node(&shared).cache("n").ttl(10 * SECOND).build().await.unwrap();
    writer.set(&1, 1).await.unwrap();
    for _ in 0..8 {
        pass(SECOND).await;
    }
    let promoted = reader.get(&1).await.unwrap().unwrap();
    assert_eq!((promoted.tier(), promoted.age().as_secs()), (Tier::L2, 8));
    pass(SECOND).await;
    let copy = reader.get(&1).await.unwrap().unwrap();
    assert_eq!((copy.tier(), copy.age().as_secs()), (Tier::L1, 9));
    pass(SECOND).await;
    assert!(reader.get(&1).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn l1_has_a_shorter_ttl_of_its_own_if_told_so() {
    let builder = Nearfar::in_process().cache("n").ttl(10 * SECOND).l1_ttl(2 * SECOND);
    let cache: Cache<u8, u8> = builder.build().await.unwrap();
    let load = |n: u8| async move { Ok::<_, Infallible>(n) };
    cache.get_or_load(&1, load).await.unwrap();
    pass(SECOND).await;
    assert_eq!(cache.get(&1).await.unwrap().unwrap().tier(), Tier::L1);
    pass(SECOND).await;
    assert_eq!(cache.get(&1).await.unwrap().unwrap().tier(), Tier::L2);
    assert_eq!(cache.get(&1).await.unwrap().unwrap().tier(), Tier::L1);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_of_the_maximum_is_for_ever() {
    let cache: Cache<u8, u8> = Nearfar::in_process().cache("n").ttl(Duration::MAX).build().await.unwrap();
    cache.set(&1, 1).await.unwrap();
    for _ in 0..100 {
        pass(24 * 3600 * SECOND).await;
    }
    pass(SECOND).await;
    assert!(cache.get(&1).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn jitter_only_shortens() {
    let builder = Nearfar::in_process().cache("n").ttl(100 * SECOND).jitter(0.5);
    let cache: Cache<u16, u8> = builder.build().await.unwrap();
    for key in 0..200 {
        cache.set(&key, 1).await.unwrap();
    }
    let mut alive = Vec::new();
    for _ in 0..100 {
        pass(SECOND).await;
        let mut count = 0;
        for key in 0..200 {
            count += usize::from(cache.contains(&key).await.unwrap());
        }
        alive.push(count);
    }
    assert_eq!(alive[48], 200, "nobody dies before half of the ttl");
    assert!((50..150).contains(&alive[74]), "they die spread out: {alive:?}");
    assert_eq!(alive[99], 0, "nobody outlives the ttl");
}

/// A process that stood still does not know what it has missed: the check is made when the read is.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_stopped_for_longer_than_the_bound_serves_nothing_from_before() {
    let builder = Nearfar::in_process().cache("n").ttl(3600 * SECOND).max_staleness(5 * SECOND);
    let cache: Cache<u8, u8> = builder.build().await.unwrap();
    cache.set(&1, 1).await.unwrap();
    stand_still(4 * SECOND);
    assert!(cache.peek(&1).is_some());
    stand_still(SECOND);
    assert!(cache.peek(&1).is_none(), "no beat has been answered since");
    pass(SECOND).await;
    assert!(cache.peek(&1).is_some(), "nothing was missed, as the beat has shown");
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_serving_for_a_while_ends() {
    let shared = InProcess::new();
    let builder = node(&shared).cache("n").ttl(3600 * SECOND).max_staleness(5 * SECOND);
    let cache: Cache<u8, u8> =
        builder.disconnected(Disconnected::ServeFor(60 * SECOND)).build().await.unwrap();
    cache.set(&1, 1).await.unwrap();
    shared.cut_bus();
    for _ in 0..63 {
        pass(SECOND).await;
        assert!(cache.peek(&1).is_some());
    }
    for _ in 0..3 {
        pass(SECOND).await;
    }
    assert!(cache.peek(&1).is_none());
}

#[tokio::test(start_paused = true)]
async fn settings_that_make_no_sense_are_refused_by_name() {
    let nearfar = Nearfar::in_process();
    let cases: [(&str, nearfar::CacheBuilder<u8, u8>); 9] = [
        ("`ttl`", nearfar.cache("n").ttl(Duration::ZERO)),
        ("`l1_ttl`", nearfar.cache("n").l1_ttl(Duration::ZERO)),
        ("`hard_timeout`", nearfar.cache("n").hard_timeout(Duration::ZERO)),
        ("`soft_timeout` of 2s", nearfar.cache("n").hard_timeout(SECOND).soft_timeout(2 * SECOND)),
        ("`fence_window`", nearfar.cache("n").fence_window(Duration::ZERO)),
        ("`l1_max_entries`", nearfar.cache("n").l1_max_entries(0)),
        ("`l1_max_bytes`", nearfar.cache("n").l1_max_bytes(0)),
        ("`jitter`", nearfar.cache("n").jitter(f64::NAN)),
        ("`max_staleness`", nearfar.cache("n").max_staleness(Duration::from_millis(1))),
    ];
    for (name, builder) in cases {
        let refused = builder.build().await.unwrap_err();
        assert_eq!(refused.kind(), nearfar::ErrorKind::Config);
        assert!(refused.to_string().contains(name), "{name}: {refused}");
    }
    for name in ["", "a b", "{x}", "new\nline", "ключ", &"x".repeat(65)] {
        let refused = nearfar.cache::<u8, u8>(name).build().await.unwrap_err();
        assert_eq!(refused.kind(), nearfar::ErrorKind::Config, "{name:?}");
    }
}
