//! Loaders that ask their origin whether what they are given is still true.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use nearfar::{Cache, Entry, ErrorKind, InProcess, Loaded, Nearfar, RefreshAhead, Staleness, Tier};
use nearfar_testkit::{eventually, let_pass};
use nearfar_tests::{Node, Valve, on_every_backend};

use crate::origin::Origin;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// An origin that numbers its versions, as an HTTP server does with etags.
#[derive(Clone, Default)]
struct Site {
    revision: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    unmodified: Arc<AtomicU64>,
    checking: Valve,
}

type Answer = BoxFuture<'static, Result<Loaded<String>, Infallible>>;

impl Site {
    fn fetch(&self) -> impl FnOnce(String, Option<Entry<String>>) -> Answer + Send + 'static {
        let site = self.clone();
        |_, cached| {
            Box::pin(async move {
                let etag = format!("v{}", site.revision.load(SeqCst));
                site.checking.pass().await;
                if cached.is_some_and(|cached| cached.etag() == Some(&etag)) {
                    site.unmodified.fetch_add(1, SeqCst);
                    return Ok(Loaded::not_modified());
                }
                site.sent.fetch_add(1, SeqCst);
                Ok(Loaded::new(format!("page {etag}")).etag(etag))
            })
        }
    }

    fn changes(&self) {
        self.revision.fetch_add(1, SeqCst);
    }

    /// How many whole pages it has sent, and how often it said "not modified".
    fn answers(&self) -> (u64, u64) {
        (self.sent.load(SeqCst), self.unmodified.load(SeqCst))
    }
}

async fn pages(node: &Node) -> Cache<String, String> {
    node.nearfar.cache("pages").grace(HOUR).build().await.unwrap()
}

async fn fetch(cache: &Cache<String, String>, site: &Site) -> Entry<String> {
    cache.get_or_revalidate("k", site.fetch()).await.unwrap().unwrap()
}

on_every_backend! {
    async fn what_is_not_modified_is_fresh_again_on_every_node_and_nobody_is_told(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (pages(&a).await, pages(&b).await);
        let site = Site::default();
        let first = fetch(&here, &site).await;
        here.expire("k").await.unwrap();
        eventually("the other hears of it", async || there.stats().invalidations_received == 1).await;

        let entry = fetch(&here, &site).await;
        assert_eq!((entry.as_str(), entry.staleness(), entry.tier()), ("page v0", None, Tier::Loader));
        assert_eq!((entry.etag(), site.answers()), (Some("v0"), (1, 1)));
        assert!(entry.version() > first.version(), "it is known true as of later");
        assert_eq!(here.get("k").await.unwrap().unwrap().tier(), Tier::L1);
        let other = there.get("k").await.unwrap().unwrap();
        assert_eq!((other.as_str(), other.tier(), other.etag()), ("page v0", Tier::L2, Some("v0")));
        assert_eq!(there.stats().invalidations_received, 1, "the renewal sends no message");

        // Again, now that what L1 has of it is shared with an older copy.
        here.expire("k").await.unwrap();
        assert_eq!(*fetch(&here, &site).await, "page v0");
        site.changes();
        here.expire("k").await.unwrap();
        assert_eq!((fetch(&here, &site).await.as_str(), site.answers()), ("page v1", (2, 2)));
    }

    async fn what_another_node_has_loaded_can_be_checked_here(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (pages(&a).await, pages(&b).await);
        let site = Site::default();
        fetch(&here, &site).await;
        here.expire("k").await.unwrap();
        let entry = fetch(&there, &site).await;
        assert_eq!((entry.as_str(), entry.etag(), site.answers()), ("page v0", Some("v0"), (1, 1)));
    }

    /// R3: the origin has said "not modified" of what is wrong by now.
    async fn a_renewal_never_undoes_an_invalidation(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (pages(&a).await, pages(&b).await);
        let site = Site::default();
        fetch(&here, &site).await;
        here.expire("k").await.unwrap();
        site.checking.close();
        let check = tokio::spawn({
            let (cache, site) = (here.clone(), site.clone());
            async move { fetch(&cache, &site).await }
        });
        site.checking.holds(1).await;
        site.changes();
        there.invalidate("k").await.unwrap();
        site.checking.open();
        assert_eq!(*check.await.unwrap(), "page v0", "who began before the change may get it");
        assert_eq!(here.stats().fills_refused, 1);
        eventually("it is heard of", async || here.stats().invalidations_received == 1).await;
        assert_eq!(*fetch(&here, &site).await, "page v1");
        assert_eq!(*fetch(&there, &site).await, "page v1");
    }

    async fn a_renewal_that_a_set_has_overtaken_leaves_the_new_value(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (pages(&a).await, pages(&b).await);
        let site = Site::default();
        fetch(&here, &site).await;
        here.expire("k").await.unwrap();
        a.valves.fills.close();
        let check = tokio::spawn({
            let (cache, site) = (here.clone(), site.clone());
            async move { fetch(&cache, &site).await }
        });
        a.valves.fills.holds(1).await;
        there.set("k", "newer".to_owned()).await.unwrap();
        a.valves.fills.open();
        check.await.unwrap();
        eventually("it is heard of", async || here.stats().invalidations_received == 1).await;
        assert_eq!(*here.get("k").await.unwrap().unwrap(), "newer");
    }

    async fn what_was_invalidated_is_given_to_no_loader(world: World) {
        let cache = pages(&world.node().await).await;
        let site = Site::default();
        fetch(&cache, &site).await;
        cache.invalidate("k").await.unwrap();
        let unmodified = |_, cached: Option<Entry<String>>| async move {
            assert!(cached.is_none());
            Ok::<_, Infallible>(Loaded::not_modified())
        };
        let error = cache.get_or_revalidate("k", unmodified).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Loader);
        assert!(error.to_string().contains("no entry that it was given"), "{error}");
        assert_eq!(cache.set_with("k", Loaded::not_modified()).await.unwrap_err().kind(), ErrorKind::Config);
    }

    async fn a_loader_that_fails_to_check_leaves_the_old_value_as_a_fallback(world: World) {
        let cache = pages(&world.node().await).await;
        fetch(&cache, &Site::default()).await;
        cache.expire("k").await.unwrap();
        let entry = cache.get_or_load("k", Origin::default().fail()).await.unwrap();
        assert_eq!((entry.as_str(), entry.staleness()), ("page v0", Some(Staleness::LoadFailed)));
        assert_eq!(entry.etag(), Some("v0"));
    }

    async fn a_value_that_is_refreshed_ahead_is_checked_too(world: World) {
        let node = world.node().await;
        let builder = node.nearfar.cache("pages").refresh_ahead(RefreshAhead::After(0.0)).retry_interval(HOUR);
        let cache: Cache<String, String> = builder.build().await.unwrap();
        let site = Site::default();
        fetch(&cache, &site).await;
        fetch(&cache, &site).await;
        eventually("it is checked", async || site.answers() == (1, 1)).await;
        eventually("it is renewed", async || cache.stats().loads == 2).await;
        assert_eq!(*cache.get("k").await.unwrap().unwrap(), "page v0");
    }

    async fn what_is_not_to_be_stored_is_not_renewed_either(world: World) {
        let cache = pages(&world.node().await).await;
        fetch(&cache, &Site::default()).await;
        cache.expire("k").await.unwrap();
        let load = |_, _| async { Ok::<_, Infallible>(Loaded::not_modified().do_not_store()) };
        assert_eq!(*cache.get_or_revalidate("k", load).await.unwrap().unwrap(), "page v0");
        assert!(cache.get("k").await.unwrap().is_none());
    }
}

/// The value in L2 is gone as well, but its copy can be checked.
#[tokio::test(start_paused = true)]
async fn without_l2_a_trusted_copy_is_checked() {
    let shared = InProcess::new();
    let nearfar = Nearfar::builder().in_process(&shared);
    let builder = nearfar.cache("pages").ttl(SECOND).grace(HOUR).max_staleness(HOUR);
    let cache: Cache<String, String> = builder.build().await.unwrap();
    let site = Site::default();
    fetch(&cache, &site).await;
    let_pass(2 * SECOND).await;
    shared.cut_store();
    let entry = fetch(&cache, &site).await;
    assert_eq!((entry.as_str(), entry.staleness(), site.answers()), ("page v0", None, (1, 1)));
    assert_eq!(cache.get("k").await.unwrap().unwrap().tier(), Tier::L1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_begins_the_lifetime_anew_and_may_say_another() {
    let nearfar = Nearfar::in_process();
    let builder = nearfar.cache("pages").ttl(10 * SECOND).grace(HOUR);
    let cache: Cache<String, String> = builder.build().await.unwrap();
    fetch(&cache, &Site::default()).await;
    let_pass(10 * SECOND).await;
    let briefly = |_, _| async { Ok::<_, Infallible>(Loaded::not_modified().ttl(SECOND)) };
    cache.get_or_revalidate("k", briefly).await.unwrap().unwrap();
    let_pass(SECOND / 2).await;
    assert!(cache.get("k").await.unwrap().is_some());
    let_pass(SECOND / 2).await;
    assert!(cache.get("k").await.unwrap().is_none());
}

#[tokio::test]
async fn the_validators_of_an_origin_come_back_from_both_tiers() {
    let shared = InProcess::new();
    let nodes = [Nearfar::builder().in_process(&shared), Nearfar::builder().in_process(&shared)];
    let here: Cache<u64, u64> = nodes[0].cache("n").build().await.unwrap();
    let there: Cache<u64, u64> = nodes[1].cache("n").build().await.unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_micros(1_760_000_000_000_001);
    let long = "x".repeat(1025);
    for (key, loaded, etag, last_modified) in [
        (1, Loaded::new(1), None, None),
        (2, Loaded::new(1).etag("tag"), Some("tag"), None),
        (3, Loaded::new(1).last_modified(modified), None, Some(modified)),
        (4, Loaded::new(1).etag("ü").last_modified(modified), Some("ü"), Some(modified)),
        (
            5,
            Loaded::new(1).etag("").last_modified(SystemTime::UNIX_EPOCH - HOUR),
            None,
            Some(SystemTime::UNIX_EPOCH),
        ),
        (6, Loaded::new(1).etag(long), None, None),
    ] {
        here.set_with(&key, loaded).await.unwrap();
        for cache in [&here, &there] {
            let entry = cache.get(&key).await.unwrap().unwrap();
            assert_eq!(entry.etag(), etag, "{key}");
            let written =
                entry.last_modified().map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap());
            let expected = last_modified.map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap());
            // The wire has zero for "none".
            let close = |(a, b): (Duration, Duration)| a.abs_diff(b) <= Duration::from_micros(1);
            assert!(written.zip(expected).map_or(written == expected, close), "{key}: {written:?}");
        }
    }
}
