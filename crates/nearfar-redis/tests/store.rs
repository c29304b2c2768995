//! The store on a real server: what an operation does, and what becomes of it when things are not as they should be.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{
    NODE, WINDOW, beat, fill, invalidate, key, namespace, next_that, pair, partition, set, stored, subscribed,
};
use nearfar_core::backend::{Beat, Bus, BusEvent, L2, L2Error, ServerId, Settings};
use nearfar_core::{
    Change, Envelope, EnvelopeHeader, FillOutcome, KeyWrite, Kind, Moment, NodeId, Renewal, Version,
};
use nearfar_redis::{RedisL2, connect};
use nearfar_testkit::{RedisServer, Reply, eventually};

const HEAD: &str = "{users.0}#head";
const LOG: &str = "{users.0}#log";
const NODES: &str = "{users.0}#nodes";

async fn head_of(l2: &RedisL2) -> Option<(Version, Version)> {
    let snapshot = l2.read(&partition(), &key("k")).await.unwrap();
    snapshot.head.map(|head| (head.sequence, head.floor))
}

async fn connections(server: &RedisServer) -> usize {
    let list = server.command(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    let subscribers = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    // The testkit asks on a connection of its own.
    list.text().unwrap().lines().count() - 1 + subscribers.text().unwrap().lines().count()
}

#[tokio::test]
async fn a_change_is_stored_stamped_and_numbered() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let version = l2.change(&partition(), set("k", b"one")).await.unwrap();

    let entry = stored(&l2, "k").await.unwrap();
    assert_eq!((entry.stamp.version, &entry.payload[..]), (version, &b"one"[..]));
    assert!(entry.stamp.written_at.micros() > 1_500_000_000_000_000, "a clock in microseconds");
    assert_eq!(head_of(&l2).await.unwrap().0, version);

    let later = l2.change(&partition(), set("k", b"two")).await.unwrap();
    assert!(later > version);
}

#[tokio::test]
async fn a_script_that_the_server_forgot_is_sent_again() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    for _ in 0..2 {
        assert!(server.command(&["SCRIPT", "FLUSH"]).await.is_ok());
        let version = l2.change(&partition(), set("k", b"one")).await.unwrap();
        let outcome = l2.fill(&partition(), fill("k", b"two", version)).await;
        assert_eq!(outcome.unwrap(), FillOutcome::Stored);
        l2.beat(&partition(), &beat(1)).await.unwrap();
    }
}

#[tokio::test]
async fn keys_of_the_wrong_type_stop_nothing() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let spoil = async |name: &str| {
        server.command(&["DEL", name]).await;
        server.command(&["LPUSH", name, "x"]).await;
    };

    for name in [HEAD, LOG, NODES, "{users.0}:k"] {
        spoil(name).await;
    }
    assert_eq!(l2.read(&partition(), &key("k")).await.unwrap().envelope, None);
    assert_eq!(head_of(&l2).await, None);
    let version = l2.change(&partition(), set("k", b"one")).await.unwrap();
    assert_eq!(stored(&l2, "k").await.unwrap().stamp.version, version);
    assert_eq!(server.command(&["XLEN", LOG]).await, Reply::Int(1));
    l2.beat(&partition(), &beat(1)).await.unwrap();
    assert_eq!(server.command(&["ZCARD", NODES]).await, Reply::Int(1));

    spoil("{users.0}:k").await;
    let outcome = l2.fill(&partition(), fill("k", b"two", version)).await;
    assert_eq!(outcome.unwrap(), FillOutcome::Stored);

    spoil(HEAD).await;
    let outcome = l2.fill(&partition(), fill("k", b"three", version)).await;
    assert_eq!(outcome.unwrap(), FillOutcome::Refused, "no head, no history that the fill could belong to");
    spoil(HEAD).await;
    assert!(l2.beat(&partition(), &beat(2)).await.unwrap().sequence > version);
}

#[tokio::test]
async fn a_lost_or_garbled_head_begins_a_history_in_which_older_entries_are_dead() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    for garbled in ["", "nonsense", "1 2", "5", "99999999999999999999 1", "9007199254740991 9007199254740991"]
    {
        let before = l2.change(&partition(), set("k", b"old")).await.unwrap();
        server.command(&["SET", HEAD, garbled]).await;
        let valid = garbled.starts_with("9007");
        assert_eq!(head_of(&l2).await.is_some(), valid, "{garbled:?}");

        l2.change(&partition(), set("other", b"new")).await.unwrap();
        server.command(&["DEL", HEAD]).await;
        l2.beat(&partition(), &beat(1)).await.unwrap();
        let (_, floor) = head_of(&l2).await.unwrap();
        assert!(floor > before, "{garbled:?}");
    }
}

#[tokio::test]
async fn of_two_fills_of_a_key_in_one_step_the_newer_one_stands() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let older = l2.change(&partition(), set("other", b"one")).await.unwrap();
    let newer = l2.change(&partition(), set("other", b"two")).await.unwrap();
    for (name, bases) in [("k", [older, newer]), ("l", [newer, older])] {
        let fills = bases.map(|base| fill(name, b"loaded", base)).to_vec();
        let outcomes = l2.fill_many(&partition(), fills).await.unwrap();
        assert_eq!(outcomes[0], FillOutcome::Stored);
        assert_eq!(outcomes[1] == FillOutcome::Stored, bases[1] == newer);
        assert_eq!(stored(&l2, name).await.unwrap().stamp.version, newer);
    }
}

#[tokio::test]
async fn a_change_after_its_deadline_does_nothing() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let late = set("k", b"one").by(Moment::from_micros(1));
    assert!(matches!(l2.change(&partition(), late).await, Err(L2Error::DeadlinePassed)));
    assert_eq!(server.command(&["DBSIZE"]).await, Reply::Int(0));

    let now = l2.beat(&partition(), &beat(1)).await.unwrap().time;
    let in_time = set("k", b"one").by(now + Duration::from_secs(10));
    let version = l2.change(&partition(), in_time).await.unwrap();
    let late = nearfar_core::Fill { deadline: now, ..fill("k", b"two", version) };
    assert_eq!(l2.fill(&partition(), late).await.unwrap(), FillOutcome::Late);
}

#[tokio::test]
async fn entries_are_kept_as_long_as_asked() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let keep_for = |keep| Change::set(NODE, KeyWrite { keep, ..common::write("k", b"one") });
    let pttl = async || server.command(&["PTTL", "{users.0}:k"]).await.int().unwrap();

    l2.change(&partition(), keep_for(Some(Duration::from_secs(60)))).await.unwrap();
    assert!((50_000..=60_000).contains(&pttl().await));
    for for_ever in [None, Some(Duration::MAX)] {
        l2.change(&partition(), keep_for(for_ever)).await.unwrap();
        assert_eq!(pttl().await, -1);
    }
    l2.change(&partition(), keep_for(Some(Duration::ZERO))).await.unwrap();
    eventually("the key expires", async || pttl().await == -2).await;
}

/// A server that may take no more memory refuses values. If it refused invalidations too, the old values would stay.
#[tokio::test]
async fn without_memory_values_are_refused_and_invalidations_are_not() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    l2.change(&partition(), set("k", b"one")).await.unwrap();
    let (before, _) = head_of(&l2).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let refused = l2.change(&partition(), set("k", b"two")).await;
    assert!(matches!(refused, Err(L2Error::Rejected(_))), "{refused:?}");
    assert_eq!(head_of(&l2).await.unwrap().0, before, "nothing happened");
    let refused = l2.fill(&partition(), fill("k", b"two", before)).await;
    assert!(matches!(refused, Err(L2Error::Rejected(_))), "{refused:?}");

    l2.change(&partition(), invalidate("k")).await.unwrap();
    assert_eq!(stored(&l2, "k").await.unwrap().header.kind, Kind::Tombstone);
    l2.change(&partition(), Change::clear(NODE)).await.unwrap();
    l2.beat(&partition(), &beat(1)).await.unwrap();
    server.command(&["DEL", HEAD]).await;
    l2.beat(&partition(), &beat(2)).await.unwrap();
}

/// After a failover to a replica that lagged, the log can be ahead of the head.
#[tokio::test]
async fn a_log_that_is_ahead_is_begun_anew() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    server.command(&["XADD", LOG, "9007199254740992-0", "m", "of another history"]).await;
    let version = l2.change(&partition(), set("k", b"one")).await.unwrap();
    let entries = server.command(&["XRANGE", LOG, "-", "+"]).await;
    let entries = entries.array().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].array().unwrap()[0].text(), Some(format!("{version}-0").as_str()));
}

#[tokio::test]
async fn the_log_is_bounded_and_can_be_left_out() {
    let server = RedisServer::start().await;
    let options = |log_len| nearfar_redis::RedisOptions { log_len, ..common::options(server.url()) };
    let xlen = async || server.command(&["XLEN", LOG]).await.int().unwrap();

    let (l2, _bus) = connect(options(0)).await.unwrap();
    l2.change(&partition(), set("k", b"one")).await.unwrap();
    assert_eq!(xlen().await, 0);
    let (l2, _bus) = connect(options(10)).await.unwrap();
    for _ in 0..500 {
        l2.change(&partition(), set("k", b"one")).await.unwrap();
    }
    assert!((10..250).contains(&xlen().await), "{}", xlen().await);
}

#[tokio::test]
async fn a_replica_refuses_changes_and_beats() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let version = l2.change(&partition(), set("k", b"one")).await.unwrap();
    server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;

    let refusals = [
        l2.change(&partition(), set("k", b"two")).await.map(drop),
        l2.change(&partition(), invalidate("k")).await.map(drop),
        l2.fill(&partition(), fill("k", b"two", version)).await.map(drop),
        l2.beat(&partition(), &beat(1)).await.map(drop),
    ];
    for refused in refusals {
        assert!(
            matches!(&refused, Err(L2Error::Rejected(cause)) if cause.to_string().contains("READONLY")),
            "{refused:?}"
        );
    }
    assert_eq!(stored(&l2, "k").await.unwrap().stamp.version, version);
}

/// A value that nobody hears of would be believed to be the old one elsewhere.
#[tokio::test]
async fn a_change_that_may_not_be_published_stores_nothing() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    server.command(&["ACL", "SETUSER", "default", "resetchannels"]).await;
    let refused = l2.change(&partition(), set("k", b"one")).await;
    assert!(matches!(refused, Err(L2Error::Rejected(_))), "{refused:?}");
    assert_eq!(stored(&l2, "k").await, None);
}

#[tokio::test]
async fn the_first_settings_stay() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let first = Settings { partitions: 1, fence_window: Duration::from_secs(60) };
    let second = Settings { fence_window: Duration::from_secs(5), ..first };
    assert_eq!(l2.open(&namespace(), &first).await.unwrap(), first);
    assert_eq!(l2.open(&namespace(), &second).await.unwrap(), first);

    server.command(&["SET", "{users}#meta", "of another generation"]).await;
    assert!(matches!(l2.open(&namespace(), &first).await, Err(L2Error::Unexpected)));
}

#[tokio::test]
async fn nodes_are_listed_while_they_beat() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let listed = async || server.command(&["ZRANGE", NODES, "0", "-1"]).await.array().unwrap().len();
    let other = Beat { node: NodeId::new(8), ..beat(1) };
    l2.beat(&partition(), &other).await.unwrap();
    l2.beat(&partition(), &beat(1)).await.unwrap();
    assert_eq!(listed().await, 2);

    l2.beat(&partition(), &Beat { forget_after: Duration::ZERO, ..beat(2) }).await.unwrap();
    assert_eq!(listed().await, 1, "the other was silent for longer than no time at all");
    l2.leave(&partition(), NODE).await.unwrap();
    assert_eq!(listed().await, 0);
    l2.beat(&partition(), &Beat { forget_after: Duration::MAX, ..beat(3) }).await.unwrap();
    assert_eq!(listed().await, 1);
}

#[tokio::test]
async fn any_key_and_any_value_come_back_as_they_were() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let long: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for name in [&b""[..], b"#head", b"\xff\0\r\n", &long] {
        let write =
            KeyWrite { key: Bytes::copy_from_slice(name), envelope: common::value(&long), keep: None };
        l2.change(&partition(), Change::set(NODE, write)).await.unwrap();
        let snapshot = l2.read(&partition(), &Bytes::copy_from_slice(name)).await.unwrap();
        let entry = nearfar_core::Envelope::decode(&snapshot.envelope.unwrap()).unwrap();
        assert!(entry.payload == long);
    }
    assert_eq!(server.command(&["TYPE", HEAD]).await, Reply::Simple("string".into()));
}

#[tokio::test]
async fn a_frozen_server_costs_the_time_limit_and_no_more() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    server.pause().await;
    let outcome = tokio::time::timeout(Duration::from_secs(3), l2.read(&partition(), &key("k"))).await;
    assert!(matches!(outcome, Ok(Err(L2Error::TimedOut))), "{outcome:?}");
    let outcome = tokio::time::timeout(Duration::from_secs(3), l2.beat(&partition(), &beat(1))).await;
    assert!(matches!(outcome, Ok(Err(L2Error::TimedOut))), "{outcome:?}");
    server.resume().await;
    eventually("it answers again", async || l2.beat(&partition(), &beat(2)).await.is_ok()).await;
}

#[tokio::test]
async fn a_dead_server_is_known_to_be_dead_until_it_is_back() {
    let mut server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    server.kill().await;
    let read = async || l2.read(&partition(), &key("k")).await;
    eventually("it is known", async || matches!(read().await, Err(L2Error::Unreachable))).await;
    assert!(l2.beat(&partition(), &beat(1)).await.is_err());
    server.restart_empty().await;
    eventually("reads work again", async || read().await.is_ok()).await;
}

#[tokio::test]
async fn a_replaced_connection_works_and_the_old_one_goes_away() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    for round in 0..20 {
        l2.reconnect(ServerId::default());
        if round % 5 == 0 {
            eventually("it works", async || l2.beat(&partition(), &beat(1)).await.is_ok()).await;
        }
    }
    eventually("it works", async || l2.read(&partition(), &key("k")).await.is_ok()).await;
    eventually("no connection is left over", async || connections(&server).await == 2).await;
}

#[tokio::test]
async fn a_hung_connection_is_replaced() {
    let server = RedisServer::start().await;
    let proxy = nearfar_testkit::FaultProxy::start(server.port()).await;
    let (l2, _bus) = connect(common::options(proxy.url())).await.unwrap();
    proxy.set(nearfar_testkit::Direction::ToClient, nearfar_testkit::Flow::Hold);
    assert!(matches!(l2.read(&partition(), &key("k")).await, Err(L2Error::TimedOut)));
    l2.reconnect(ServerId::default());
    proxy.set(nearfar_testkit::Direction::ToClient, nearfar_testkit::Flow::Forward);
    eventually("it works", async || l2.read(&partition(), &key("k")).await.is_ok()).await;
}

#[tokio::test]
async fn a_closed_store_says_so_and_stays_closed() {
    let server = RedisServer::start().await;
    let (l2, bus) = pair(&server).await;
    l2.close().await;
    l2.reconnect(ServerId::default());
    assert!(matches!(l2.read(&partition(), &key("k")).await, Err(L2Error::Closed)));
    assert!(matches!(l2.beat(&partition(), &beat(1)).await, Err(L2Error::Closed)));
    drop(bus);
    eventually("no connection is left", async || connections(&server).await == 0).await;
}

#[tokio::test]
async fn dropping_both_leaves_no_connection_and_no_task() {
    let server = RedisServer::start().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let tasks = metrics.num_alive_tasks();
    let (l2, mut bus) = pair(&server).await;
    bus.subscribe(&partition(), NODE);
    common::subscribed(&mut bus).await;
    l2.reconnect(ServerId::default());
    bus.reconnect(ServerId::default());
    l2.beat(&partition(), &beat(1)).await.unwrap();
    assert!(metrics.num_alive_tasks() > tasks);
    drop((l2, bus));
    eventually("no task is left", async || metrics.num_alive_tasks() == tasks).await;
    eventually("no connection is left", async || connections(&server).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_operations_at_once_all_get_their_turn() {
    let server = RedisServer::start().await;
    let options = nearfar_redis::RedisOptions {
        command_timeout: Duration::from_secs(10),
        ..common::options(server.url())
    };
    let (l2, _bus) = connect(options).await.unwrap();
    let l2 = std::sync::Arc::new(l2);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let l2 = std::sync::Arc::clone(&l2);
        tasks.spawn(async move { l2.read(&partition(), &key("k")).await });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap().unwrap();
    }
}

fn expire(name: &'static str) -> Change {
    Change::expire(NODE, vec![key(name)], WINDOW)
}

fn of_lifetime(name: &'static str, ttl: Option<Duration>, grace: Duration) -> Change {
    let header = EnvelopeHeader { ttl, grace, ..EnvelopeHeader::of(Kind::Value) };
    let envelope = Envelope::encode(&header, &[], b"old");
    let keep = ttl.map(|ttl| (ttl + grace).max(WINDOW));
    Change::set(NODE, KeyWrite { key: key(name), envelope, keep })
}

#[tokio::test]
async fn a_value_that_is_declared_stale_stays_and_fences() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let first = l2.change(&partition(), set("k", b"old")).await.unwrap();
    let written_at = stored(&l2, "k").await.unwrap().stamp.written_at;
    let version = l2.change(&partition(), expire("k")).await.unwrap();
    let stale = stored(&l2, "k").await.unwrap();
    assert_eq!((stale.header.kind, &stale.payload[..]), (Kind::Value, &b"old"[..]));
    assert_eq!(
        (stale.stamp.version, stale.stamp.written_at, stale.stamp.expired),
        (version, written_at, true)
    );
    let again = l2.change(&partition(), expire("k")).await.unwrap();
    let stale = stored(&l2, "k").await.unwrap();
    assert_eq!((stale.stamp.version, stale.stamp.written_at, stale.stamp.expired), (again, written_at, true));

    let fill_of = async |base| l2.fill(&partition(), fill("k", b"new", base)).await.unwrap();
    assert_eq!(fill_of(first).await, FillOutcome::Refused);
    assert_eq!(fill_of(again).await, FillOutcome::Stored);
    assert!(!stored(&l2, "k").await.unwrap().stamp.expired);
}

#[tokio::test]
async fn what_is_declared_stale_stays_for_as_long_as_it_would_have_and_for_the_window_at_least() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let second = Duration::from_secs(1);
    let lifetimes = [
        ("short", Some(second), second, 30..=60),
        ("long", Some(100 * second), 20 * second, 90..=120),
        ("endless", None, Duration::ZERO, -1..=-1),
    ];
    for (name, ttl, grace, left) in lifetimes {
        l2.change(&partition(), of_lifetime(name, ttl, grace)).await.unwrap();
        l2.change(&partition(), expire(name)).await.unwrap();
        assert!(stored(&l2, name).await.unwrap().stamp.expired, "{name}");
        let seconds = server.command(&["TTL", &format!("{{users.0}}:{name}")]).await.int().unwrap();
        assert!(left.contains(&seconds), "{name}: {seconds}");
    }
}

#[tokio::test]
async fn what_is_no_living_value_is_buried_when_it_is_declared_stale() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    l2.change(&partition(), set("cleared", b"old")).await.unwrap();
    l2.change(&partition(), Change::clear(NODE)).await.unwrap();
    l2.change(&partition(), invalidate("wrong")).await.unwrap();
    server.command(&["SET", "{users.0}:foreign", "bytes of another program"]).await;
    server.command(&["LPUSH", "{users.0}:list", "x"]).await;
    for name in ["cleared", "wrong", "missing", "foreign", "list"] {
        l2.change(&partition(), expire(name)).await.unwrap();
        assert_eq!(stored(&l2, name).await.unwrap().header.kind, Kind::Tombstone, "{name}");
    }
}

/// For how long the key is kept, in seconds; `None` for ever.
async fn kept(server: &RedisServer) -> Option<i64> {
    let pttl = server.command(&["PTTL", "{users.0}:k"]).await.int().unwrap();
    // Rounded, as it is asked a moment later.
    (pttl >= 0).then_some((pttl + 999) / 1_000)
}

/// Sets a value that goes after so many seconds, since it was written and since it was read.
async fn set_with(l2: &RedisL2, ttl: Option<u64>, idle: Option<u64>, grace: u64) {
    let header = EnvelopeHeader {
        ttl: ttl.map(Duration::from_secs),
        idle: idle.map(Duration::from_secs),
        grace: Duration::from_secs(grace),
        ..EnvelopeHeader::of(Kind::Value)
    };
    let write =
        KeyWrite { key: key("k"), envelope: Envelope::encode(&header, &[], b"v"), keep: Some(WINDOW) };
    l2.change(&partition(), Change::set(NODE, write)).await.unwrap();
}

#[tokio::test]
async fn a_touched_value_is_kept_until_it_is_of_no_use_and_for_the_window_at_least() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let touched = async |window| {
        l2.touch(&partition(), &key("k"), Duration::from_secs(window)).await.unwrap();
        kept(&server).await
    };
    for (ttl, idle, grace, window, expected) in [
        (Some(1_000), Some(200), 30, 60, Some(230)),
        (Some(100), Some(200), 30, 60, Some(130)),
        (None, Some(200), 30, 60, Some(230)),
        (Some(20), Some(10), 5, 60, Some(60)),
        (None, Some(u64::MAX / 1_000), 0, 60, None),
    ] {
        set_with(&l2, ttl, idle, grace).await;
        let before = stored(&l2, "k").await.unwrap();
        assert_eq!(touched(window).await, expected, "{ttl:?} {idle:?}");
        let after = stored(&l2, "k").await.unwrap();
        assert!(after.stamp.read_at > before.stamp.read_at);
        let stamp = nearfar_core::Stamp { read_at: before.stamp.read_at, ..after.stamp };
        assert_eq!(Envelope { stamp, ..after }, before, "nothing else has changed");
    }
    set_with(&l2, Some(1_000), None, 0).await;
    let before = stored(&l2, "k").await.unwrap();
    assert_eq!(touched(600).await, Some(60), "reads are nothing to it");
    assert_eq!(stored(&l2, "k").await.unwrap(), before);
}

#[tokio::test]
async fn what_is_declared_stale_is_kept_for_as_long_as_reads_had_prolonged_it() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    set_with(&l2, None, Some(200), 30).await;
    l2.change(&partition(), Change::expire(NODE, vec![key("k")], WINDOW)).await.unwrap();
    assert_eq!(kept(&server).await, Some(230));
    l2.touch(&partition(), &key("k"), 10 * WINDOW).await.unwrap();
    assert_eq!(kept(&server).await, Some(230), "a read does not bring it back");
}

#[tokio::test]
async fn a_renewal_moves_no_value_and_publishes_nothing() {
    let server = RedisServer::start().await;
    let (l2, mut bus) = pair(&server).await;
    bus.subscribe(&partition(), NODE);
    subscribed(&mut bus).await;
    let version = l2.change(&partition(), set("k", b"the value")).await.unwrap();
    let snapshot = l2.read(&partition(), &key("k")).await.unwrap();
    let stored_bytes = snapshot.envelope.unwrap();
    let present = Envelope::decode(&stored_bytes).unwrap();
    let header = EnvelopeHeader { ttl: Some(WINDOW), ..present.header };
    let renewed = Envelope::encode(&header, &present.notes, &present.payload);
    let renewal = Renewal {
        key: key("k"),
        identity: stored_bytes.slice_ref(Envelope::identity(&stored_bytes)),
        header: renewed.slice(..Envelope::HEADER_LEN),
        base: version,
        deadline: Moment::NEVER,
        keep: Some(2 * WINDOW),
    };
    assert_eq!(l2.renew(&partition(), renewal.clone()).await.unwrap(), FillOutcome::Stored);
    let entry = stored(&l2, "k").await.unwrap();
    assert_eq!(
        (&entry.payload[..], entry.header, kept(&server).await),
        (&b"the value"[..], header, Some(120))
    );
    assert!(entry.stamp.written_at > present.stamp.written_at);
    assert_eq!(l2.renew(&partition(), renewal).await.unwrap(), FillOutcome::Refused, "it is another one now");

    l2.beat(&partition(), &beat(1)).await.unwrap();
    next_that(&mut bus, |event| matches!(event, BusEvent::Message { .. })).await;
    let next = next_that(&mut bus, |_| true).await;
    assert!(matches!(next, BusEvent::Echo { .. }), "after the message of the set comes the echo: {next:?}");
}
