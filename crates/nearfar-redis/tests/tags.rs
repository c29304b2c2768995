//! What Redis knows of tags.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{NODE, WINDOW, key, options, partition, stored};
use nearfar_core::backend::{L2, PurgeCursor};
use nearfar_core::{
    Change, Envelope, EnvelopeHeader, Fill, FillOutcome, KeyWrite, Kind, Moment, TagMark, Tags, Version,
};
use nearfar_redis::{RedisBus, RedisL2, connect};
use nearfar_testkit::{RedisServer, eventually};

const SECOND: Duration = Duration::from_secs(1);

async fn pair(server: &RedisServer) -> (RedisL2, RedisBus) {
    connect(options(server.url())).await.unwrap()
}

fn tagged(name: &'static str, tags: &[&str], ttl: Option<Duration>) -> KeyWrite {
    let tags = Tags::new(tags).unwrap();
    let header = EnvelopeHeader { ttl, tag_count: tags.count(), ..EnvelopeHeader::of(Kind::Value) };
    let envelope = Envelope::encode(&header, &tags.encode(), b"value");
    KeyWrite { key: key(name), envelope, keep: Some(WINDOW) }
}

async fn change(l2: &RedisL2, change: Change) -> Version {
    l2.change(&partition(), change).await.unwrap()
}

async fn invalidate(l2: &RedisL2, tag: &'static str, window: Duration) -> Version {
    change(l2, Change::invalidate_tags(NODE, vec![tag.into()], window)).await
}

async fn mark(l2: &RedisL2, tag: &'static str) -> TagMark {
    l2.tag_marks(&partition(), &[tag.into()]).await.unwrap()[0]
}

/// R26: Redis evicts what it knew of tags, or an operator deletes it. Entries from before the last change of a tag cannot
/// be vouched for any more; none of them comes back, and what came after it stays.
#[tokio::test]
async fn what_was_known_of_tags_is_lost_and_nothing_comes_back() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let older = change(&l2, Change::set(NODE, tagged("old", &["red"], None))).await;
    let red = invalidate(&l2, "red", WINDOW).await;
    let blue = invalidate(&l2, "blue", WINDOW).await;
    let newer = change(&l2, Change::set(NODE, tagged("new", &["red"], None))).await;
    assert_eq!(mark(&l2, "red").await.wrong, red);
    assert_eq!(mark(&l2, "green").await.wrong, Version::UNKNOWN, "of a tag that never changed");

    for command in [&["DEL", "{users.0}#tags"][..], &["SET", "{users.0}#tags", "of another type"]] {
        server.command(command).await;
        for tag in ["red", "green"] {
            let wrong = mark(&l2, tag).await.wrong;
            assert!(older < wrong && wrong <= newer, "{tag}: {wrong}");
            assert_eq!(wrong, blue, "the last change that the head knows of");
        }
    }
    let again = invalidate(&l2, "green", WINDOW).await;
    assert_eq!(mark(&l2, "red").await.wrong, again, "since then it is complete");
    let last = change(&l2, Change::set(NODE, tagged("last", &["red"], None))).await;
    assert!(mark(&l2, "red").await.wrong < last);
}

/// What concerns no entry any more is forgotten, so that tags without end do not fill Redis.
#[tokio::test]
async fn changes_of_tags_are_forgotten_when_no_older_entry_can_be_there() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    let window = Duration::from_millis(50);
    change(&l2, Change::set(NODE, tagged("k", &["red"], Some(Duration::from_millis(50))))).await;
    for tag in ["one", "two", "three"] {
        invalidate(&l2, tag, window).await;
    }
    let count = async || server.command(&["ZCARD", "{users.0}#tags"]).await.int().unwrap();
    assert_eq!(count().await, 4, "and since when it is complete");
    let pruned = async || {
        invalidate(&l2, "four", window).await;
        count().await == 2
    };
    eventually("they are forgotten", pruned).await;

    change(&l2, Change::set(NODE, tagged("endless", &["red"], None))).await;
    for tag in ["five", "six"] {
        invalidate(&l2, tag, Duration::ZERO).await;
    }
    assert_eq!(count().await, 4, "an entry may be there for ever, and so may what concerns it");
}

#[tokio::test]
async fn a_fill_that_lives_longer_than_all_before_prolongs_what_is_known_of_its_tags() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    change(&l2, Change::set(NODE, tagged("short", &["red"], Some(SECOND)))).await;
    let head = async || l2.read(&partition(), &key("short")).await.unwrap().head.unwrap();
    assert_eq!(head().await.tags.longest_millis, 1_000);
    let (write, base) = (tagged("long", &["red"], Some(90 * SECOND)), head().await.sequence);
    let fill = Fill { write, base, deadline: Moment::NEVER };
    assert_eq!(l2.fill(&partition(), fill).await.unwrap(), FillOutcome::Stored);
    assert_eq!(head().await.tags.longest_millis, 90_000);
    assert_eq!(head().await.sequence, base, "it is no change");
}

/// A server whose keys are of many namespaces: a purge touches its own alone, in steps.
#[tokio::test]
async fn a_purge_goes_through_a_large_server_in_steps_and_touches_nothing_else() {
    let server = RedisServer::start().await;
    let (l2, _bus) = pair(&server).await;
    for number in 0..3_000 {
        server.command(&["SET", &format!("{{other.0}}:{number}"), "of another namespace"]).await;
    }
    server.command(&["SET", "{users.0}:foreign", "of another program"]).await;
    for at in 0..4 {
        let writes = (0..500).map(|number| KeyWrite {
            key: Bytes::from(format!("{at} {number}")),
            ..tagged("k", &["red"], None)
        });
        change(&l2, Change::set_many(NODE, writes.collect())).await;
    }
    invalidate(&l2, "red", Duration::ZERO).await;
    change(&l2, Change::set(NODE, tagged("alive", &["red"], None))).await;
    let (mut steps, mut removed, mut examined, mut next) = (0, 0, 0, Some(PurgeCursor::default()));
    while let Some(from) = next {
        let purged = l2.purge(&partition(), from, Duration::ZERO).await.unwrap();
        (steps, removed, examined, next) =
            (steps + 1, removed + purged.removed, examined + purged.examined, purged.next);
    }
    assert!(steps > 2, "{steps}");
    assert_eq!(removed, 2_000);
    assert!(examined >= 2_002);
    assert!(stored(&l2, "alive").await.is_some());
    assert_eq!(
        server.command(&["DBSIZE"]).await.int().unwrap(),
        3_000 + 1 + 1 + 3,
        "head, log and tags are left"
    );
}
