//! What others than nodes do to L2, and nodes that follow it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar::{Cache, CallOptions, ErrorKind, FeedStats, Following, Nearfar, Tier};
use nearfar_core::Envelope;
use nearfar_testkit::{
    Cut, Direction, FaultProxy, Flow, RedisCluster, RedisServer, Sentinels, eventually, let_pass,
};
use nearfar_tests::{least_rights, trusted};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// A node with a cache that may follow.
struct Node {
    nearfar: Nearfar,
    cache: Cache<String, String>,
    following: Option<Following>,
}

impl Node {
    async fn at(url: &str) -> Self {
        let nearfar = Nearfar::builder().connect_timeout(Duration::from_secs(20)).connect(url).await.unwrap();
        // No copy goes by itself while a test looks.
        let cache = nearfar.cache("texts").ttl(Duration::from_secs(3600)).build().await.unwrap();
        Self { nearfar, cache, following: None }
    }

    async fn following(url: &str) -> Self {
        let mut node = Self::at(url).await;
        node.following = Some(node.cache.follow_foreign_writes().await.unwrap());
        node
    }

    fn stats(&self) -> FeedStats {
        self.following.as_ref().expect("it follows").stats()
    }

    /// Takes a copy of what L2 has.
    async fn copy(&self, key: &str) {
        trusted(&self.cache).await;
        assert!(self.cache.get(key).await.unwrap().is_some(), "{key} is in L2");
        eventually("L1 takes it", async || {
            self.cache.get(key).await.unwrap().is_some_and(|entry| entry.tier() == Tier::L1)
        })
        .await;
    }

    async fn drops(&self, key: &str) {
        eventually("the copy goes", async || self.cache.peek(key).is_none()).await;
    }
}

fn name(key: &str) -> String {
    format!("{{texts.0}}:{key}")
}

/// Whether there is an envelope of a tombstone.
async fn is_buried(server: &RedisServer, key: &str) -> bool {
    let found = server.command(&["GETRANGE", &name(key), "0", "3"]).await;
    found.bytes() == Some(b"NF\x01\x02")
}

/// Has everything that was done so far looked at by these nodes.
async fn settle(server: &RedisServer, nodes: &[&Node]) {
    for (number, node) in nodes.iter().enumerate() {
        let before = node.stats().dropped;
        // A key that nobody has cached, by a name of its own.
        assert!(
            server
                .command(&["SET", &name(&format!("marker {number} {before}")), "not an envelope"])
                .await
                .is_ok()
        );
        eventually("the marker is looked at", async || node.stats().dropped > before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_delete_overwrite_or_expire_goes_on_every_node() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::following(&server.url()).await, Node::following(&server.url()).await);
    // Who does not follow is told by those who do.
    let c = Node::at(&server.url()).await;
    let key = name("k");
    let writes: [&[&str]; 6] = [
        &["DEL", &key],
        &["UNLINK", &key],
        &["SET", &key, "by another program"],
        &["EXPIRE", &key, "0"],
        &["PEXPIRE", &key, "20"],
        &["RENAME", &key, "elsewhere"],
    ];
    for write in writes {
        a.cache.set("k", "v".to_owned()).await.unwrap();
        for node in [&a, &b, &c] {
            node.copy("k").await;
        }
        let reply = server.command(write).await;
        assert!(reply.is_ok() || reply.int() == Some(1), "{write:?}: {reply:?}");
        for node in [&a, &b, &c] {
            node.drops("k").await;
        }
        eventually("a fence stands in its place", async || is_buried(&server, "k").await).await;
        assert!(b.cache.get("k").await.unwrap().is_none(), "{write:?}");
    }
    drop((a.nearfar, b.nearfar, c.nearfar));
}

/// What nodes do is written to keys as well. If that cost them their copies, nobody would have any for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_do_themselves_costs_no_copy_and_no_invalidation() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::following(&server.url()).await, Node::following(&server.url()).await);
    let load = |key: String| async move { Ok::<_, std::io::Error>(key) };
    for round in 0..20 {
        a.cache.set(&format!("set {round}"), "v".to_owned()).await.unwrap();
        b.cache.get_or_load(&format!("loaded {round}"), load).await.unwrap();
        a.cache.invalidate(&format!("loaded {}", round / 2)).await.unwrap();
        b.cache.expire(&format!("set {}", round / 2)).await.unwrap();
    }
    a.cache.clear().await.unwrap();
    a.cache.set("kept", "v".to_owned()).await.unwrap();
    b.copy("kept").await;
    let before = [a.stats().keys, b.stats().keys];
    settle(&server, &[&a, &b]).await;
    eventually("the markers are invalidated", async || a.stats().keys + b.stats().keys >= 2).await;
    assert_eq!(before, [0, 0]);
    assert!(a.cache.peek("kept").is_some() && b.cache.peek("kept").is_some());
    assert_eq!([a.stats().failures, b.stats().failures], [0, 0]);
    // Each of two markers, by one node or by both.
    assert!(a.stats().keys + b.stats().keys <= 4, "{:?} {:?}", a.stats(), b.stats());
}

/// There is always something to look at, so nothing may wait until there is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_begins_while_nodes_write_all_the_time() {
    let server = RedisServer::start().await;
    let (writer, mut node) = (Node::at(&server.url()).await, Node::at(&server.url()).await);
    let writing = tokio::spawn({
        let cache = writer.cache.clone();
        async move {
            for number in 0_u64.. {
                cache.set(&format!("k{}", number % 5_000), "v".to_owned()).await.unwrap();
            }
        }
    });
    node.following = Some(node.cache.follow_foreign_writes().await.unwrap());
    settle(&server, &[&node]).await;
    writing.abort();
}

/// If each entry that expires were invalidated, its tombstone would be too, and so on for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_is_not_invalidated() {
    let server = RedisServer::start().await;
    let nearfar = Nearfar::connect(&server.url()).await.unwrap();
    let short = Duration::from_millis(100);
    let cache: Cache<String, String> =
        nearfar.cache("texts").ttl(short).fence_window(short).build().await.unwrap();
    let following = Some(cache.follow_foreign_writes().await.unwrap());
    let node = Node { nearfar, cache, following };
    node.cache.set("set", "v".to_owned()).await.unwrap();
    node.cache.invalidate("invalidated").await.unwrap();
    node.cache.get_or_load("loaded", async |key: String| Ok::<_, std::io::Error>(key)).await.unwrap();
    for key in ["set", "invalidated", "loaded"] {
        eventually("it expires", async || server.command(&["EXISTS", &name(key)]).await.int() == Some(0))
            .await;
    }
    settle(&server, &[&node]).await;
    eventually("the marker is invalidated", async || node.stats().keys > 0).await;
    assert_eq!(node.stats().keys, 1, "the marker");
}

/// If each were invalidated, its tombstone would evict the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_server_evicts_is_not_invalidated() {
    let server =
        RedisServer::builder().arg("maxmemory", "4mb").arg("maxmemory-policy", "volatile-lru").start().await;
    let node = Node::following(&server.url()).await;
    let evicted = async || {
        let stats = server.command(&["INFO", "stats"]).await.text().unwrap().to_owned();
        let count = stats.lines().find_map(|line| line.strip_prefix("evicted_keys:")).unwrap();
        count.parse::<u64>().unwrap()
    };
    let mut written = 0;
    while evicted().await < 300 {
        for _ in 0..50 {
            written += 1;
            node.cache.set(&format!("k{written}"), "v".repeat(10_000)).await.unwrap();
        }
    }
    let is_gone = async |key: &str| server.command(&["EXISTS", &name(key)]).await.int() == Some(0);
    let mut gone = 0;
    for number in 1..=written {
        gone += u64::from(is_gone(&format!("k{number}")).await);
    }
    assert!(gone > 100, "{gone} of {written}");
    eventually("those are looked at", async || node.stats().dropped >= gone).await;
    assert_eq!(node.stats().keys, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_costs_every_copy_at_once() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::following(&server.url()).await, Node::following(&server.url()).await);
    for command in ["FLUSHALL", "FLUSHDB"] {
        // What was set before the first flush is invalidated once more, since L2 has lost it.
        eventually("both have a copy", async || {
            if b.cache.get("k").await.unwrap().is_none() {
                a.cache.set("k", "v".to_owned()).await.unwrap();
            }
            a.cache.peek("k").is_some() && b.cache.peek("k").is_some()
        })
        .await;
        let before = [a.stats().missed, b.stats().missed];
        assert!(server.command(&[command]).await.is_ok());
        for node in [&a, &b] {
            node.drops("k").await;
        }
        eventually("both were told", async || a.stats().missed > before[0] && b.stats().missed > before[1])
            .await;
    }
}

/// The story: `DEL` takes a tombstone away. A load that read the old row before the invalidation then finds nothing that it
/// has to yield to, and puts the old value back for all nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_others_delete_is_put_back_before_a_late_load() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::following(&server.url()).await, Node::following(&server.url()).await);
    let (release, held) = oneshot::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let loading = tokio::spawn({
        let cache = a.cache.clone();
        async move {
            let load = |_| async move {
                begun.send(()).unwrap();
                held.await.unwrap();
                Ok::<_, std::io::Error>("old".to_owned())
            };
            cache.get_or_load("k", load).await.unwrap().to_string()
        }
    });
    has_begun.await.unwrap();
    b.cache.invalidate("k").await.unwrap();
    settle(&server, &[&a, &b]).await;
    let settled = [a.stats().keys, b.stats().keys];
    server.command(&["DEL", &name("k")]).await;
    eventually("the fence is put back", async || is_buried(&server, "k").await).await;
    assert!([a.stats().keys, b.stats().keys] != settled || is_buried(&server, "k").await);
    release.send(()).unwrap();
    assert_eq!(loading.await.unwrap(), "old", "its caller gets what it has loaded");
    assert!(is_buried(&server, "k").await);
    for node in [&a, &b] {
        assert!(node.cache.get("k").await.unwrap().is_none());
    }
}

/// The story: somebody deletes a value, and before anybody has looked, a node that has no copy loads it anew. Redis tells of
/// both at once. What stands there then is a fill, as after any load; taken for nothing special, the old copies of all other
/// nodes would stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_behind_a_deletion_does_not_hide_it() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::following(&server.url()).await, Node::following(&server.url()).await);
    let load = async |_| Ok::<_, std::io::Error>("old".to_owned());
    a.cache.get_or_load("k", load).await.unwrap();
    for node in [&a, &b] {
        settle(&server, &[node]).await;
        node.copy("k").await;
    }
    let there = server.command(&["GET", &name("k")]).await;
    let there = Bytes::copy_from_slice(there.bytes().unwrap());
    let old = Envelope::decode(&there).unwrap();
    let mut fill = Envelope::encode(&old.header, &[], b"\xa3new").to_vec();
    fill[8..16].copy_from_slice(&old.stamp.version.number().to_be_bytes());
    for stamped in [16..24, 24..32] {
        fill[stamped].copy_from_slice(&(old.stamp.written_at.micros() + 1).to_be_bytes());
    }
    let both = "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1], 'PX', 3600000)";
    let key = name("k");
    let words: [&[u8]; 5] = [b"EVAL", both.as_bytes(), b"1", key.as_bytes(), &fill];
    server.command(&words).await;
    for node in [&a, &b] {
        eventually("the new value is read", async || {
            *node.cache.get("k").await.unwrap().expect("it is in L2") == "new"
        })
        .await;
    }
}

/// A key among few, so that things meet.
fn some_key(random: &mut fastrand::Rng) -> String {
    format!("k{}", random.u32(..6))
}

async fn do_something(node: &Node, random: &mut fastrand::Rng) {
    let (key, value) = (some_key(random), random.u64(..).to_string());
    let ttl = Duration::from_millis(if random.bool() { 3_600_000 } else { random.u64(5..200) });
    let cache = node.cache.with(CallOptions::new().ttl(ttl));
    // What L2 refuses or loses meanwhile is not what this is about.
    let _ = match random.u32(..10) {
        0..=2 => cache.set(&key, value).await.map(drop),
        3..=6 => cache.get_or_load(&key, async |_| Ok::<_, std::io::Error>(value)).await.map(drop),
        7 => cache.invalidate(&key).await.map(drop),
        8 => cache.expire(&key).await.map(drop),
        _ => cache.get(&key).await.map(drop),
    };
}

async fn meddle(server: &RedisServer, random: &mut fastrand::Rng) {
    let (key, soon) = (name(&some_key(random)), random.u32(..20).to_string());
    let command: &[&str] = match random.u32(..20) {
        0..=9 => &["DEL", &key],
        10..=13 => &["SET", &key, "by another program"],
        14..=18 => &["PEXPIRE", &key, &soon],
        _ => &["FLUSHALL"],
    };
    server.command(command).await;
}

/// Whatever nodes and others do at once: when it is over, no node has a copy that L2 has something else of, and nobody goes on
/// invalidating because somebody else did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_copies_are_what_l2_has_and_there_is_quiet() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let server = Arc::new(RedisServer::start().await);
    let (a, b) = (Node::following(&server.url()).await, Node::following(&server.url()).await);
    let nodes = Arc::new([a, b]);
    let mut storm = JoinSet::new();
    for number in 0..6 {
        let (nodes, server) = (Arc::clone(&nodes), Arc::clone(&server));
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        storm.spawn(async move {
            for _ in 0..150 {
                match nodes.get(usize::try_from(number / 2).unwrap()) {
                    Some(node) => do_something(node, &mut random).await,
                    None => meddle(&server, &mut random).await,
                }
            }
        });
    }
    storm.join_all().await;

    // Short values are over by then, which is what might go round in circles.
    let_pass(Duration::from_millis(500)).await;
    settle(&server, &[&nodes[0], &nodes[1]]).await;
    eventually("nothing changes any more", async || {
        let head = async || server.command(&["GET", "{texts.0}#head"]).await.text().map(str::to_owned);
        let before = head().await;
        let_pass(Duration::from_millis(300)).await;
        let is_quiet = before.is_some() && head().await == before;
        is_quiet && nodes.iter().all(|node| node.cache.stats().outbox_keys == 0 && node.cache.stats().trusted)
    })
    .await;
    let onlooker = Node::at(&server.url()).await;
    for key in (0..6).map(|number| format!("k{number}")) {
        let in_l2 = onlooker.cache.get(&key).await.unwrap().map(|entry| entry.to_string());
        for node in nodes.iter() {
            let read = node.cache.get(&key).await.unwrap().map(|entry| entry.to_string());
            assert_eq!(read, in_l2, "{key}");
        }
    }
}

/// While a node is not told, others write. Its subscription misses nothing, so but for this its copies would stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_gap_a_node_forgets_its_copies() {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    let writer = Node::at(&server.url()).await;
    let node = Node::following(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    writer.cache.set("k", "v".to_owned()).await.unwrap();
    node.copy("k").await;
    let before = node.stats().missed;
    proxy.refuse().await;
    proxy.cut(Cut::Reset).await;
    server.command(&["DEL", &name("k")]).await;
    proxy.accept().await;
    eventually("it notices the gap", async || node.stats().missed > before).await;
    // Without trust, nothing is served from L1 in any case.
    trusted(&node.cache).await;
    eventually("it reads L2", async || matches!(node.cache.get("k").await, Ok(None))).await;
}

/// An operator ends the connection. The node has it back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_killed_is_made_again() {
    let server = RedisServer::start().await;
    let node = Node::following(&server.url()).await;
    let before = node.stats().missed;
    let clients = server.command(&["CLIENT", "LIST"]).await.text().unwrap().to_owned();
    let flags =
        |client: &str| client.split(' ').find_map(|word| word.strip_prefix("flags=")).unwrap().to_owned();
    let tracked = clients.lines().find(|client| flags(client).contains('t')).expect("it tracks");
    let id = tracked.split(' ').find_map(|word| word.strip_prefix("id=")).unwrap();
    assert_eq!(server.command(&["CLIENT", "KILL", "ID", id]).await.int(), Some(1), "{clients}");
    eventually("it is told again", async || node.stats().missed > before).await;
    node.cache.set("k", "v".to_owned()).await.unwrap();
    node.copy("k").await;
    server.command(&["DEL", &name("k")]).await;
    node.drops("k").await;
}

/// A server that stands still breaks no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_silent_is_given_up() {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    let node = Node::following(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    let before = node.stats().missed;
    proxy.set(Direction::ToClient, Flow::Hold);
    // One second until it asks, and as long as a command may take for the answer.
    let_pass(Duration::from_secs(4)).await;
    proxy.set(Direction::ToClient, Flow::Forward);
    eventually("it begins anew", async || node.stats().missed > before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_all_servers_tell_also_after_a_failover_and_a_move() {
    let cluster = RedisCluster::start().await;
    let (a, b) = (Node::following(&cluster.url()).await, Node::following(&cluster.url()).await);
    let keys: Vec<String> = (0..24).map(|number| format!("key {number}")).collect();
    for round in ["at first", "after a failover", "after a move"] {
        match round {
            "after a failover" => {
                let primary = cluster.primaries().await[0];
                cluster.failover(primary).await;
            }
            "after a move" => {
                let slot = cluster.slot_of("{texts.0}").await;
                let from = cluster.owner_of_slot(slot).await;
                let to = cluster.primaries().await.into_iter().find(|other| *other != from).unwrap();
                cluster.migrate_slot(slot, to).await;
            }
            _ => {}
        }
        for key in &keys {
            // What was set shortly before a failover is invalidated once more.
            eventually("both have a copy", async || {
                if matches!(b.cache.get(key).await, Ok(None)) {
                    let _ = a.cache.set(key, round.to_owned()).await;
                }
                let _ = a.cache.get(key).await;
                a.cache.peek(key).is_some() && b.cache.peek(key).is_some()
            })
            .await;
        }
        for key in &keys {
            let (slot, name) = place(&cluster, key).await;
            let owner = cluster.owner_of_slot(slot).await;
            cluster[owner].command(&["DEL", &name]).await;
        }
        for key in &keys {
            a.drops(key).await;
            b.drops(key).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_the_next_primary_tells() {
    let servers = Sentinels::start().await;
    let node = Node::following(&servers.url()).await;
    let before = node.stats().missed;
    let primary = servers.failover().await;
    eventually("the next primary tells", async || node.stats().missed > before).await;
    trusted(&node.cache).await;
    eventually("there is a copy", async || {
        let _ = node.cache.set("k", "v".to_owned()).await;
        node.cache.peek("k").is_some()
    })
    .await;
    servers[primary].command(&["DEL", &name("k")]).await;
    node.drops("k").await;
}

/// Where an entry stands: in which of sixteen partitions, only its server knows at once.
async fn place(cluster: &RedisCluster, key: &str) -> (u16, String) {
    let index = nearfar::backend::PartitionId::index_of(key.as_bytes(), 16);
    let tag = format!("{{texts.{index}}}");
    (cluster.slot_of(&tag).await, format!("{tag}:{key}"))
}

#[tokio::test]
async fn without_the_rights_following_fails_and_names_them() {
    let server = RedisServer::start().await;
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port());
    assert!(server.command(&least_rights("app", "pw", "texts")).await.is_ok());
    let refused = async || {
        let node = Node::at(&url).await;
        node.cache.follow_foreign_writes().await.unwrap_err()
    };
    let error = refused().await;
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().ends_with("+client|tracking"), "{error}");
    server.command(&["ACL", "SETUSER", "app", "+client|tracking"]).await;
    let error = refused().await;
    assert!(error.to_string().ends_with("+pttl"), "{error}");
    server.command(&["ACL", "SETUSER", "app", "+pttl"]).await;

    let node = Node::following(&url).await;
    node.cache.set("k", "v".to_owned()).await.unwrap();
    server.command(&["DEL", &name("k")]).await;
    node.drops("k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_shutdown_nothing_is_followed_and_no_connection_stays() {
    let server = RedisServer::start().await;
    let mut node = Node::following(&server.url()).await;
    node.nearfar.shutdown().await;
    let mut following = node.following.take().unwrap();
    assert_eq!(following.ended().await, nearfar::FeedEnd::Closed);
    eventually("only the test's own connection is left", async || {
        server.command(&["CLIENT", "LIST"]).await.text().unwrap().lines().count() == 1
    })
    .await;
}
