//! Sources that say what has changed, and caches that follow them.

use std::future::pending;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearfar::{ChangeFeed, Changed, FeedEnd, change_channel};
use nearfar_testkit::eventually;
use nearfar_tests::{World, on_every_backend, trusted};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Says what a test hands it, and counts how often it is asked.
struct Source {
    hand: UnboundedReceiver<Changed<String>>,
    asked: Arc<AtomicUsize>,
    /// Whether it is alive.
    life: Arc<()>,
}

impl ChangeFeed<String> for Source {
    async fn next(&mut self) -> Option<Changed<String>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let said = self.hand.recv().await;
        assert!(Arc::strong_count(&self.life) > 0);
        said
    }
}

/// Panics at once.
struct Broken;

impl ChangeFeed<String> for Broken {
    async fn next(&mut self) -> Option<Changed<String>> {
        panic!("this source is broken")
    }
}

fn capacity(keys: usize) -> NonZeroUsize {
    NonZeroUsize::new(keys).unwrap()
}

on_every_backend! {
    async fn what_a_source_says_goes_on_all_nodes_and_in_l2(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let (tell, feed) = change_channel(capacity(100));
        let following = here.follow(feed);
        trusted(&here).await;
        trusted(&there).await;
        for key in ["changed", "too", "kept"] {
            there.set(key, "v".to_owned()).await.unwrap();
            here.get(key).await.unwrap().unwrap();
        }
        tell.keys(["changed".to_owned(), "too".to_owned()]);
        for key in ["changed", "too"] {
            eventually("both drop it", async || here.peek(key).is_none() && there.peek(key).is_none()).await;
            assert!(there.get(key).await.unwrap().is_none(), "L2 has it no more");
        }
        assert!(there.get("kept").await.unwrap().is_some());
        eventually("it is counted", async || following.stats().keys == 2).await;
    }

    async fn what_may_have_been_missed_clears_the_namespace(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let (tell, feed) = change_channel(capacity(1));
        let mut following = here.follow(feed);
        for key in ["a", "b", "c"] {
            there.set(key, "v".to_owned()).await.unwrap();
        }
        // More than it holds.
        tell.keys(["a".to_owned(), "b".to_owned()]);
        drop(tell);
        assert_eq!(following.ended().await, FeedEnd::Source);
        assert_eq!((following.stats().keys, following.stats().everything), (0, 1));
        for key in ["a", "b", "c"] {
            assert!(here.get(key).await.unwrap().is_none());
            eventually("the other has heard of it", async || there.peek(key).is_none()).await;
        }
    }

    async fn keys_may_be_told_as_they_are_encoded(world: World) {
        let node = world.node().await;
        let cache = node.nearfar.cache::<u64, String>("numbers").build().await.unwrap();
        cache.set(&42, "v".to_owned()).await.unwrap();
        let told = vec![b"42".as_slice().into(), b"no number".as_slice().into()];
        let mut reports = vec![Changed::EncodedKeys(told)];
        let mut following = cache.follow(Script(move || reports.pop()));
        following.ended().await;
        assert!(cache.get(&42).await.unwrap().is_none());
        assert_eq!((following.stats().keys, following.stats().unreadable), (1, 1));
    }

    async fn what_l2_cannot_be_told_waits_in_the_outbox(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        there.set("k", "v".to_owned()).await.unwrap();
        let (tell, feed) = change_channel(capacity(100));
        let following = here.follow(feed);
        world.cut_off(&a).await;
        tell.keys(["k".to_owned()]);
        eventually("it is queued", async || here.stats().outbox_keys == 1).await;
        assert_eq!(following.stats().failures, 0);
        world.bring_back(&a).await;
        eventually("it is delivered", async || here.stats().outbox_keys == 0).await;
        eventually("all see it", async || there.get("k").await.is_ok_and(|found| found.is_none())).await;
    }

    /// A source that can be read again moves on when it is asked for more: were it asked before, a crash would lose what is
    /// under way.
    async fn a_source_is_asked_for_more_only_when_what_it_said_is_done(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let (tell, hand) = unbounded_channel();
        let asked = Arc::new(AtomicUsize::new(0));
        let _following = cache.follow(Source { hand, asked: Arc::clone(&asked), life: Arc::default() });
        node.valves.changes.close();
        for key in ["a", "b"] {
            tell.send(Changed::Keys(vec![key.to_owned()])).unwrap();
        }
        node.valves.changes.holds(1).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        node.valves.changes.open();
        eventually("it is asked again", async || asked.load(Ordering::SeqCst) == 3).await;
    }

    async fn a_source_is_followed_as_long_as_its_handle_lives(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let (_tell, hand) = unbounded_channel();
        let life = Arc::new(());
        let source = Source { hand, asked: Arc::default(), life: Arc::clone(&life) };
        let following = cache.follow(source);
        assert_eq!(following.end(), None);
        drop(following);
        eventually("the source is dropped", async || Arc::strong_count(&life) == 1).await;
    }

    async fn a_source_that_panics_ends_and_says_so(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let mut following = cache.follow(Broken);
        assert_eq!(following.ended().await, FeedEnd::Panicked);
        assert!(cache.set("k", "v".to_owned()).await.unwrap().is_applied(), "the cache goes on");
    }

    async fn after_a_shutdown_the_next_report_ends_the_feed(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let (tell, feed) = change_channel(capacity(100));
        let mut following = cache.follow(feed);
        node.nearfar.shutdown().await;
        tell.keys(["k".to_owned()]);
        assert_eq!(following.ended().await, FeedEnd::Closed);
    }
}

/// Says what a function returns, and nothing more after its end.
struct Script<F>(F);

impl<F: FnMut() -> Option<Changed<u64>> + Send + 'static> ChangeFeed<u64> for Script<F> {
    async fn next(&mut self) -> Option<Changed<u64>> {
        (self.0)()
    }
}

/// Never says anything.
struct Silent;

impl ChangeFeed<String> for Silent {
    async fn next(&mut self) -> Option<Changed<String>> {
        pending().await
    }
}

#[tokio::test]
async fn a_cache_may_follow_several_sources() {
    let world = World::in_process();
    let node = world.node().await;
    let cache = node.texts().await;
    let (tell, feed) = change_channel(capacity(100));
    let (silent, mut spoken) = (cache.follow(Silent), cache.follow(feed));
    cache.set("k", "v".to_owned()).await.unwrap();
    tell.keys(["k".to_owned()]);
    drop(tell);
    spoken.ended().await;
    assert!(cache.get("k").await.unwrap().is_none());
    assert_eq!(silent.end(), None);
}
