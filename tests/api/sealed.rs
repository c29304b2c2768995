//! What somebody without a key can do to sealed values: nothing that is not a miss.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nearfar::backend::L2;
use nearfar::{
    Bytes, Cache, CacheBuilder, Compression, Entry, ErrorKind, KeyRing, Loaded, LookUp, Nearfar, Tier,
};
use nearfar_core::{Change, Envelope, EnvelopeHeader, KeyWrite, Kind, Moment, NodeId};
use nearfar_tests::{Node, World, on_every_backend};

const HOUR: Duration = Duration::from_secs(3600);

fn ring() -> KeyRing {
    KeyRing::new(1, [1; 32])
}

fn texts(node: &Node) -> CacheBuilder<String, String> {
    node.nearfar.cache("texts").grace(HOUR).absent_ttl(HOUR)
}

async fn sealed(node: &Node) -> Cache<String, String> {
    texts(node).sealed(ring()).build().await.unwrap()
}

/// Somebody who may read and write in Redis, and has no key.
struct Attacker<'a> {
    world: &'a World,
    l2: Arc<dyn L2>,
}

impl<'a> Attacker<'a> {
    async fn on(world: &'a World) -> Self {
        Self { world, l2: world.backend().await.0 }
    }

    async fn read(&self, key: &str) -> Bytes {
        let found = self.l2.read(&self.world.partition_of("texts", key), &key.to_owned().into()).await;
        found.unwrap().envelope.unwrap()
    }

    /// As a node would set it, so that stamp and sequence are right.
    async fn write(&self, key: &str, envelope: Bytes) {
        let write = KeyWrite { key: key.to_owned().into(), envelope, keep: None };
        let change = Change::set(NodeId::new(9), write).by(Moment::from_micros((1 << 53) - 1));
        self.l2.change(&self.world.partition_of("texts", key), change).await.unwrap();
    }

    /// With a checksum that is right.
    async fn forge(&self, key: &str, change: impl FnOnce(&mut EnvelopeHeader, &mut Vec<u8>)) {
        let Envelope { mut header, notes, payload, .. } = Envelope::decode(&self.read(key).await).unwrap();
        let mut payload = payload.to_vec();
        change(&mut header, &mut payload);
        self.write(key, Envelope::encode(&header, &notes, &payload)).await;
    }
}

/// Whether the next read is a miss that is counted as a seal that did not hold.
async fn is_refused(cache: &Cache<String, String>, key: &str) -> bool {
    let before = cache.stats();
    let missed = cache.get(key).await.unwrap().is_none();
    let after = cache.stats();
    missed && (after.seal_failures, after.unreadable) == (before.seal_failures + 1, before.unreadable + 1)
}

on_every_backend! {
    async fn nodes_with_the_key_share_sealed_values_and_nobody_else_reads_them(world: World) {
        let (a, b, c) = (world.node().await, world.node().await, world.node().await);
        let (here, there) = (sealed(&a).await, sealed(&b).await);
        here.set("k", "a secret".into()).await.unwrap();
        there.get_or_load("l", |_| async { Ok::<_, io::Error>("another secret".into()) }).await.unwrap();
        assert_eq!(*there.get("k").await.unwrap().unwrap(), "a secret");
        assert_eq!(*here.get("l").await.unwrap().unwrap(), "another secret");

        let attacker = Attacker::on(&world).await;
        let bytes = attacker.read("k").await;
        assert!(!bytes.windows(6).any(|part| part == b"secret"));

        let without = c.texts().await;
        assert!(without.get("k").await.unwrap().is_none());
        assert_eq!((without.stats().unreadable, without.stats().other_versions), (1, 1));
    }

    async fn a_value_that_was_moved_to_another_key_is_a_miss(world: World) {
        let cache = sealed(&world.node().await).await;
        let attacker = Attacker::on(&world).await;
        cache.set("user", "guest".into()).await.unwrap();
        cache.set("admin", "root".into()).await.unwrap();
        let admin = attacker.read("admin").await;
        attacker.write("user", admin).await;
        nearfar_testkit::eventually("L1 has dropped it", async || cache.peek("user").is_none()).await;
        assert!(is_refused(&cache, "user").await);
        assert_eq!(*cache.get("admin").await.unwrap().unwrap(), "root");

        let load = |_| async { Ok::<_, io::Error>("guest again".into()) };
        assert_eq!(*cache.get_or_load("user", load).await.unwrap(), "guest again");
        let other = sealed(&world.node().await).await;
        let refilled = other.get("user").await.unwrap().unwrap();
        assert_eq!((refilled.tier(), refilled.as_str()), (Tier::L2, "guest again"), "the next fill replaces it");
    }

    async fn what_was_made_or_changed_without_the_key_is_a_miss(world: World) {
        let writer = sealed(&world.node().await).await;
        let reader = sealed(&world.node().await).await;
        let attacker = Attacker::on(&world).await;
        let forgeries: [fn(&mut EnvelopeHeader, &mut Vec<u8>); 6] = [
            |_, payload| payload[40] ^= 1,
            |_, payload| payload.truncate(20),
            |_, payload| payload[3] ^= 1,
            |header, _| header.kind = Kind::Absent,
            |header, payload| {
                header.compression = 0;
                *payload = b"\xa6forged".to_vec();
            },
            |header, payload| {
                (header.kind, header.compression) = (Kind::Absent, 0);
                payload.clear();
            },
        ];
        for (number, forgery) in forgeries.into_iter().enumerate() {
            writer.set("k", "true".into()).await.unwrap();
            attacker.forge("k", forgery).await;
            assert!(is_refused(&reader, "k").await, "forgery {number}");
            assert!(matches!(reader.look_up("k").await.unwrap(), LookUp::Miss), "forgery {number}");
        }
    }

    async fn that_there_is_nothing_is_believed_only_of_who_has_the_key(world: World) {
        let (here, there) = (sealed(&world.node().await).await, sealed(&world.node().await).await);
        let nothing = |_| async { Ok::<_, io::Error>(None) };
        assert!(here.get_or_load_optional("k", nothing).await.unwrap().is_none());
        assert!(matches!(there.look_up("k").await.unwrap(), LookUp::Absent));
    }

    async fn keys_are_replaced_while_nodes_run(world: World) {
        let (old, new) = ([1; 32], [2; 32]);
        let rings = [
            KeyRing::new(1, old),
            KeyRing::new(1, old).also(2, new),
            KeyRing::new(2, new).also(1, old),
            KeyRing::new(2, new),
        ];
        let mut caches = Vec::new();
        for ring in rings {
            caches.push(texts(&world.node().await).sealed(ring).build().await.unwrap());
        }
        for (before, after) in [(0, 1), (1, 2), (2, 3)] {
            for (writer, reader) in [(&caches[before], &caches[after]), (&caches[after], &caches[before])] {
                writer.set("k", "secret".into()).await.unwrap();
                nearfar_testkit::eventually("it is read", async || {
                    reader.get("k").await.unwrap().is_some_and(|entry| *entry == "secret")
                })
                .await;
                assert_eq!(reader.stats().seal_failures, 0);
                writer.invalidate("k").await.unwrap();
            }
        }
        caches[0].set("k", "secret".into()).await.unwrap();
        let retired = texts(&world.node().await).sealed(KeyRing::new(2, new)).build().await.unwrap();
        assert!(is_refused(&retired, "k").await);
    }

    /// They rewrite header and stamp in L2, without the payload.
    async fn sealed_values_are_declared_stale_and_renewed(world: World) {
        let compressed = |node: &Node| texts(node).compression(Compression::lz4().above(0)).sealed(ring());
        let writer = compressed(&world.node().await).build().await.unwrap();
        let renewer = sealed(&world.node().await).await;
        let reader = sealed(&world.node().await).await;
        let text = "again and ".repeat(50);
        writer.set_with("k", Loaded::new(text.clone()).etag("v7")).await.unwrap();
        writer.expire("k").await.unwrap();
        let still_true = |_, found: Option<Entry<String>>| -> BoxFuture<'static, Result<_, io::Error>> {
            assert_eq!(found.unwrap().etag(), Some("v7"));
            Box::pin(async { Ok(Loaded::not_modified()) })
        };
        assert!(renewer.get_or_revalidate("k", still_true).await.unwrap().is_some());
        let renewed = reader.get("k").await.unwrap().unwrap();
        assert_eq!((renewed.as_str(), renewed.etag(), renewed.staleness()), (text.as_str(), Some("v7"), None));
    }

    /// What the seal does not prevent, as `docs/security.md` says.
    async fn an_older_sealed_value_of_the_same_key_can_be_put_back(world: World) {
        let writer = sealed(&world.node().await).await;
        let attacker = Attacker::on(&world).await;
        writer.set("k", "old".into()).await.unwrap();
        let old = attacker.read("k").await;
        writer.set("k", "new".into()).await.unwrap();
        attacker.write("k", old).await;
        let reader = sealed(&world.node().await).await;
        assert_eq!(*reader.get("k").await.unwrap().unwrap(), "old");
        assert_eq!(reader.stats().seal_failures, 0);
    }
}

#[tokio::test]
async fn two_keys_with_one_id_are_refused() {
    let ring = KeyRing::new(1, [1; 32]).also(1, [2; 32]);
    let builder = Nearfar::in_process().cache::<u64, u64>("numbers").sealed(ring);
    let refused = builder.build().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert_eq!(refused.to_string(), "`sealed` has two keys with the id 1");
}
