//! What who listens is told.

use std::time::Duration;

use nearfar::{By, Cache, CacheKey, Event, Events, Loaded, NodeId, Staleness, Tier};
use nearfar_core::Batch;
use nearfar_testkit::eventually;
use nearfar_tests::{Node, on_every_backend, trusted};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The next event of which there is something to say.
async fn heard<T>(events: &mut Events, of: impl Fn(Event) -> Option<T>) -> T {
    let listen = async {
        loop {
            let event = events.next().await.expect("the cache is there");
            if let Some(heard) = of(event) {
                return heard;
            }
        }
    };
    tokio::time::timeout(PATIENCE, listen).await.expect("it happens")
}

/// What has happened so far.
fn so_far(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.try_next()).collect()
}

async fn id(node: &Node) -> NodeId {
    let nodes = node.nearfar.nodes().await.unwrap();
    nodes.iter().find(|node| node.is_this_one).expect("it is listed").id
}

async fn load(key: String) -> Result<String, std::io::Error> {
    Ok(format!("value of {key}"))
}

on_every_backend! {
    async fn who_invalidated_is_told_here_and_there(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        trusted(&there).await;
        eventually("A is listed", async || {
            a.nearfar.nodes().await.unwrap().iter().any(|node| node.is_this_one)
        })
        .await;
        let (mut own, mut foreign) = (here.events(), there.events());
        here.invalidate("k").await.unwrap();

        let invalidated = |event| match event {
            Event::Invalidated { keys, by } => Some((keys, by)),
            _ => None,
        };
        let (keys, by) = heard(&mut own, invalidated).await;
        assert_eq!((String::decode(&keys[0]).as_deref(), by), (Some("k"), By::ThisNode));
        let (keys, by) = heard(&mut foreign, invalidated).await;
        assert_eq!((String::decode(&keys[0]).as_deref(), by), (Some("k"), By::Node(id(&a).await)));
    }

    async fn each_kind_of_change_is_told_as_what_it_is(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let (mut own, mut foreign) = (here.events(), there.events());
        here.set_with("k", Loaded::new("v".to_owned()).tags(["t"])).await.unwrap();
        here.expire("k").await.unwrap();
        here.expire_tag("t").await.unwrap();
        here.invalidate_tag("t").await.unwrap();
        here.clear().await.unwrap();

        let set = |event| matches!(event, Event::Set { keys } if keys == ["k"]).then_some(());
        let invalidated = |event| matches!(event, Event::Invalidated { keys, .. } if keys == ["k"]).then_some(());
        heard(&mut own, set).await;
        // For the other node, what it had is wrong, whatever came in its place.
        heard(&mut foreign, invalidated).await;
        for events in [&mut own, &mut foreign] {
            heard(events, |event| matches!(event, Event::Expired { keys, .. } if keys == ["k"]).then_some(())).await;
            heard(events, |event| matches!(event, Event::TagsExpired { .. }).then_some(())).await;
            heard(events, |event| matches!(event, Event::TagsInvalidated { .. }).then_some(())).await;
            heard(events, |event| matches!(event, Event::Cleared { .. }).then_some(())).await;
        }
    }

    async fn a_read_is_told_with_its_key_and_tier(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        let mut events = here.events();
        here.get_or_load("k", load).await.unwrap();
        here.get("k").await.unwrap();
        let told = so_far(&mut events).into_iter().filter_map(|event| match event {
            Event::Miss { key } => Some(("miss", key)),
            Event::Loaded { key, .. } => Some(("loaded", key)),
            Event::Hit { key, tier: Tier::L1 } => Some(("hit in L1", key)),
            _ => None,
        });
        let key = |what| (what, "k".into());
        assert_eq!(told.collect::<Vec<_>>(), ["miss", "loaded", "hit in L1"].map(key));

        let mut events = there.events();
        there.get("k").await.unwrap();
        assert!(so_far(&mut events).iter().any(|event| matches!(event, Event::Hit { tier: Tier::L2, .. })));
    }

    async fn a_load_that_fails_is_told_with_its_error_and_what_stood_in(world: World) {
        let node = world.node().await;
        let builder = node.nearfar.cache("texts").grace(Duration::from_secs(60));
        let cache: Cache<String, String> = builder.build().await.unwrap();
        cache.set("k", "old".into()).await.unwrap();
        cache.expire("k").await.unwrap();
        let mut events = cache.events();
        let fails = |_| async { Err::<String, _>(std::io::Error::other("no database")) };
        assert_eq!(*cache.get_or_load("k", fails).await.unwrap(), "old");
        let error = heard(&mut events, |event| match event {
            Event::LoadFailed { key, error } if key == "k" => Some(error),
            _ => None,
        });
        assert!(error.await.downcast_ref::<std::io::Error>().is_some());
        let why = heard(&mut events, |event| match event {
            Event::StaleServed { why, .. } => Some(why),
            _ => None,
        });
        assert_eq!(why.await, Staleness::LoadFailed);

        let panics = |_| async { panic!("a bug") as Result<String, std::io::Error> };
        assert!(cache.get_or_load("other", panics).await.is_err());
        heard(&mut events, |event| matches!(event, Event::LoadFailed { key, .. } if key == "other").then_some(())).await;
    }

    async fn trust_that_is_lost_and_gained_is_told(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let (here, there) = (a.texts().await, b.texts().await);
        trusted(&there).await;
        let mut events = there.events();
        let partition = world.partition_of("texts", "k").index();
        let of = |wanted: u16| move |told: u16| (told == wanted).then_some(());
        world.isolate(&b).await;
        heard(&mut events, |event| match event {
            Event::TrustLost { partition: told } => of(partition)(told),
            _ => None,
        })
        .await;
        eventually("B has noticed in each partition", async || there.stats().partitions_trusted == 0).await;
        here.invalidate("k").await.unwrap();
        world.rejoin(&b).await;
        heard(&mut events, |event| match event {
            Event::Replayed { partition: told, messages: 1 } => of(partition)(told),
            _ => None,
        })
        .await;
        heard(&mut events, |event| match event {
            Event::TrustGained { partition: told } => of(partition)(told),
            _ => None,
        })
        .await;
    }

    /// Nothing happens then: echoes stay away, and time passes.
    async fn trust_that_runs_out_is_told(world: World) {
        let node = world.node().await;
        let bound = Duration::from_millis(300);
        let cache: Cache<String, String> = node.nearfar.cache("bounded").max_staleness(bound).build().await.unwrap();
        trusted(&cache).await;
        let mut events = cache.events();
        node.valves.bus.close();
        heard(&mut events, |event| matches!(event, Event::TrustLost { .. }).then_some(())).await;
        node.valves.bus.open();
        heard(&mut events, |event| matches!(event, Event::TrustGained { .. }).then_some(())).await;
    }

    async fn a_history_that_is_lost_is_told(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        cache.set("k", "v".into()).await.unwrap();
        let mut events = cache.events();
        world.flush().await;
        let partition = world.partition_of("texts", "k").index();
        let reissued = heard(&mut events, |event| match event {
            Event::Resynced { partition: told, reissued } if told == partition => Some(reissued),
            _ => None,
        });
        assert_eq!(reissued.await, 1);
        heard(&mut events, |event| matches!(event, Event::Delivered { what: Batch::Keys(keys) } if keys == ["k"]).then_some(())).await;
    }

    async fn what_waits_in_the_outbox_and_what_is_delivered_is_told(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let mut events = cache.events();
        world.cut_off(&node).await;
        assert!(!cache.invalidate("k").await.unwrap().is_applied());
        let queued = |event| matches!(event, Event::Queued { what: Batch::Keys(keys) } if keys == ["k"]).then_some(());
        heard(&mut events, queued).await;
        world.bring_back(&node).await;
        let delivered = |event| matches!(event, Event::Delivered { what: Batch::Keys(keys) } if keys == ["k"]).then_some(());
        heard(&mut events, delivered).await;
    }

    async fn a_slow_listener_is_told_how_much_it_missed_and_holds_nobody_up(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        cache.set("k", "v".into()).await.unwrap();
        trusted(&cache).await;
        let mut slow = cache.events();
        for _ in 0..3_000 {
            cache.get("k").await.unwrap();
        }
        let Some(Event::Missed { events }) = slow.next().await else { panic!("it was told of all") };
        let rest = so_far(&mut slow);
        assert_eq!(rest.len(), 1024);
        assert!(events >= 3_000 - 1024, "{events}");
    }

    async fn who_listens_does_not_keep_the_cache(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        let mut events = cache.events();
        drop(cache);
        let ends = async { while events.next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, ends).await.expect("it ends with the cache");
        assert!(node.nearfar.cache::<String, String>("texts").build().await.is_ok());
    }

    async fn listeners_hear_of_what_happens_from_then_on_and_each_of_all_of_it(world: World) {
        let node = world.node().await;
        let cache = node.texts().await;
        cache.set("before", "v".into()).await.unwrap();
        let (mut one, gone, mut other) = (cache.events(), cache.events(), cache.events());
        drop(gone);
        cache.set("after", "v".into()).await.unwrap();
        for events in [&mut one, &mut other] {
            let keys = heard(events, |event| match event {
                Event::Set { keys } => Some(keys),
                _ => None,
            });
            assert_eq!(keys.await, ["after"]);
        }
    }
}
