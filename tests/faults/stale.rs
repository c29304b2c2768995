//! What stale values and timeouts are for: servers and origin away, or slow.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use nearfar::{Cache, CacheBuilder, CallOptions, Disconnected, ErrorKind, Nearfar, Staleness, Tier};
use nearfar_testkit::eventually;
use nearfar_tests::Valve;

use crate::servers::{Servers, on_single_and_cluster};

const AGES: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(200);

async fn node(servers: &Servers, command_timeout: Duration) -> Nearfar {
    let builder = Nearfar::builder().command_timeout(command_timeout);
    builder.connect(&servers.url()).await.unwrap()
}

/// Whose values are stale soon, and a fallback for ages.
fn forgiving(nearfar: &Nearfar) -> CacheBuilder<u64, u64> {
    nearfar.cache("n").ttl(SHORT).grace(AGES).retry_interval(SHORT)
}

/// For calls that are not about timeouts.
fn patient(cache: &Cache<u64, u64>) -> Cache<u64, u64> {
    cache.with(CallOptions::new().soft_timeout(AGES / 2).hard_timeout(AGES))
}

async fn load(key: u64) -> Result<u64, Infallible> {
    Ok(key * 10)
}

async fn fail(_: u64) -> Result<u64, std::io::Error> {
    Err(std::io::Error::other("no database"))
}

async fn hang(_: u64) -> Result<u64, Infallible> {
    pending().await
}

async fn expired(cache: &Cache<u64, u64>) {
    eventually("it is stale", async || cache.peek(&1).is_none()).await;
}

on_single_and_cluster! {
    async fn what_is_stale_is_served_while_servers_and_origin_are_away(mut servers: Servers) {
        let nearfar = node(&servers, Duration::from_millis(500)).await;
        let builder = forgiving(&nearfar).disconnected(Disconnected::ServeFor(AGES));
        let cache: Cache<u64, u64> = builder.build().await.unwrap();
        cache.get_or_load(&1, load).await.unwrap();
        servers.kill().await;
        expired(&cache).await;
        let entry = cache.get_or_load(&1, fail).await.unwrap();
        assert_eq!((*entry, entry.tier(), entry.staleness()), (10, Tier::L1, Some(Staleness::LoadFailed)));
        servers.restart().await;
        eventually("it is loaded again", async || {
            cache.get_or_load(&1, load).await.unwrap().staleness().is_none()
        })
        .await;
    }

    /// Nobody would have told this node of an invalidation.
    async fn what_is_in_l1_alone_is_no_fallback_without_trust(mut servers: Servers) {
        let nearfar = node(&servers, Duration::from_millis(500)).await;
        let cache: Cache<u64, u64> =
            forgiving(&nearfar).max_staleness(Duration::from_millis(500)).build().await.unwrap();
        cache.get_or_load(&1, load).await.unwrap();
        servers.kill().await;
        expired(&cache).await;
        eventually("its trust is over", async || !cache.stats().trusted).await;
        assert_eq!(cache.get_or_load(&1, fail).await.unwrap_err().kind(), ErrorKind::Loader);
        servers.restart().await;
        eventually("what L2 has is one", async || {
            cache.get_or_load(&1, fail).await.is_ok_and(|entry| *entry == 10)
        })
        .await;
    }

    async fn no_caller_waits_beyond_its_timeouts_for_servers_that_hang(servers: Servers) {
        // Operations on L2 would take for ages.
        let nearfar = node(&servers, AGES).await;
        let builder = forgiving(&nearfar).disconnected(Disconnected::ServeFor(AGES));
        let cache: Cache<u64, u64> = builder.soft_timeout(SHORT).hard_timeout(2 * SHORT).build().await.unwrap();
        patient(&cache).get_or_load(&1, load).await.unwrap();
        expired(&cache).await;
        servers.pause().await;
        let entry = cache.get_or_load(&1, load).await.unwrap();
        assert_eq!((*entry, entry.staleness()), (10, Some(Staleness::LoadSlow)));
        assert_eq!(cache.get_or_load(&2, load).await.unwrap_err().kind(), ErrorKind::LoadTimedOut);
        servers.resume().await;
        eventually("the loads end in the background", async || {
            cache.get(&1).await.is_ok_and(|found| found.is_some())
                && cache.get(&2).await.is_ok_and(|found| found.is_some())
        })
        .await;
    }

    async fn what_a_slow_loader_brings_in_the_end_is_for_the_next(servers: Servers) {
        let nearfar = node(&servers, Duration::from_millis(500)).await;
        let cache: Cache<u64, u64> = forgiving(&nearfar).ttl(AGES).soft_timeout(SHORT).build().await.unwrap();
        cache.set(&1, 1).await.unwrap();
        cache.expire(&1).await.unwrap();
        let loading = Valve::default();
        loading.close();
        let slow = {
            let loading = loading.clone();
            |key| async move {
                loading.pass().await;
                load(key).await
            }
        };
        let entry = cache.get_or_load(&1, slow).await.unwrap();
        assert_eq!((*entry, entry.staleness()), (1, Some(Staleness::LoadSlow)));
        loading.open();
        eventually("it is stored", async || cache.get(&1).await.unwrap().as_deref() == Some(&10)).await;
        let other = node(&servers, Duration::from_millis(500)).await;
        let there: Cache<u64, u64> = forgiving(&other).build().await.unwrap();
        assert_eq!(there.get(&1).await.unwrap().as_deref(), Some(&10), "for everybody");
    }

    async fn a_loader_that_hangs_is_given_up_on(servers: Servers) {
        let nearfar = node(&servers, Duration::from_millis(500)).await;
        let builder = forgiving(&nearfar).hard_timeout(SHORT).finish_timed_out_loads(false);
        let cache: Cache<u64, u64> = builder.build().await.unwrap();
        assert_eq!(cache.get_or_load(&1, hang).await.unwrap_err().kind(), ErrorKind::LoadTimedOut);
        assert_eq!(*patient(&cache).get_or_load(&1, load).await.unwrap(), 10);
    }
}
