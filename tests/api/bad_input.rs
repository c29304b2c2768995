//! Nothing that stands in L2 can hurt a reader.

use bytes::Bytes;
use nearfar::Cache;
use nearfar::backend::L2;
use nearfar_core::{Change, Envelope, EnvelopeHeader, KeyWrite, Kind, Moment, NodeId};
use nearfar_tests::{World, on_every_backend};
use serde::{Deserialize, Serialize};

/// Puts bytes under a key, as a broken or hostile writer would.
async fn plant(world: &World, l2: &dyn L2, envelope: Bytes) {
    let write = KeyWrite { key: "k".into(), envelope, keep: None };
    let change = Change::set(NodeId::new(9), write).by(Moment::from_micros((1 << 53) - 1));
    l2.change(&world.partition_of("texts", "k"), change).await.unwrap();
}

fn value(header: EnvelopeHeader, payload: &[u8]) -> Bytes {
    Envelope::encode(&header, &[], payload)
}

/// A user as the first version of a service knew it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct UserV1 {
    name: String,
}

/// The same with a field that older entries lack.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct UserV2 {
    name: String,
    #[serde(default)]
    nickname: Option<String>,
}

/// The same with a field that nothing can be made up for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct UserV3 {
    name: String,
    age: u8,
}

on_every_backend! {
    async fn an_entry_that_cannot_be_read_is_a_miss_and_the_next_fill_replaces_it(world: World) {
        let cache = world.node().await.texts().await;
        let (l2, _bus) = world.backend().await;
        let good = EnvelopeHeader { codec: 1, ..EnvelopeHeader::of(Kind::Value) };
        let mut corrupt = value(good, b"\xa1v").to_vec();
        *corrupt.last_mut().unwrap() ^= 1;
        let mut long = value(good, b"\xa1v").to_vec();
        long[68..72].copy_from_slice(&u32::MAX.to_be_bytes());
        let planted: [(&str, Bytes); 10] = [
            ("foreign", "plain text of another program".into()),
            ("empty", Bytes::new()),
            ("short", "NF".into()),
            ("of another format", "NF\u{7}and so on".into()),
            ("truncated", value(good, b"\xa1v").slice(..40)),
            ("corrupt", corrupt.into()),
            ("of an absurd length", long.into()),
            ("of another codec", value(EnvelopeHeader { codec: 99, ..good }, b"\xa1v")),
            ("of another schema", value(EnvelopeHeader { schema: 99, ..good }, b"\xa1v")),
            ("not decodable", value(good, b"\xc1")),
        ];
        for (count, (what, envelope)) in planted.into_iter().enumerate() {
            plant(&world, &*l2, envelope).await;
            assert!(cache.get("k").await.unwrap().is_none(), "{what}");
            assert_eq!(cache.stats().unreadable, count as u64 + 1, "{what}");
        }
        let load = |_| async { Ok::<_, std::io::Error>("loaded".to_owned()) };
        assert_eq!(*cache.get_or_load("k", load).await.unwrap(), "loaded");
        assert!(cache.contains("k").await.unwrap());
    }

    /// Tags, compression and negative entries are for nodes that know them: to serve such an entry without its rules
    /// would be wrong.
    async fn an_entry_of_a_newer_node_is_a_miss(world: World) {
        let cache = world.node().await.texts().await;
        let (l2, _bus) = world.backend().await;
        let good = EnvelopeHeader { codec: 1, ..EnvelopeHeader::of(Kind::Value) };
        for header in [
            EnvelopeHeader { compression: 99, ..good },
            EnvelopeHeader { tag_count: 1, ..good },
            EnvelopeHeader { kind: Kind::Absent, ..good },
        ] {
            plant(&world, &*l2, value(header, b"\xa1v")).await;
            assert!(cache.get("k").await.unwrap().is_none(), "{header:?}");
        }
    }

    /// R29: in a rolling deploy, old and new nodes share entries. Nobody fails; who cannot read misses.
    async fn old_and_new_versions_of_a_service_run_side_by_side(world: World) {
        let (old, new, newest) = (world.node().await, world.node().await, world.node().await);
        let old: Cache<u64, UserV1> = old.nearfar.cache("users").build().await.unwrap();
        let new: Cache<u64, UserV2> = new.nearfar.cache("users").build().await.unwrap();
        let newest: Cache<u64, UserV3> = newest.nearfar.cache("users").build().await.unwrap();

        old.set(&1, UserV1 { name: "Ada".into() }).await.unwrap();
        let ada = new.get(&1).await.unwrap().unwrap();
        assert_eq!(*ada, UserV2 { name: "Ada".into(), nickname: None });

        new.set(&2, UserV2 { name: "Bob".into(), nickname: Some("B".into()) }).await.unwrap();
        assert_eq!(*old.get(&2).await.unwrap().unwrap(), UserV1 { name: "Bob".into() });

        let load = |_| async { Ok::<_, std::io::Error>(UserV3 { name: "Ada".into(), age: 36 }) };
        assert_eq!(newest.get_or_load(&1, load).await.unwrap().age, 36);
        assert_eq!(newest.stats().unreadable, 1);
        assert_eq!(old.get(&1).await.unwrap().unwrap().name, "Ada", "the new entry has all that the old node needs");
    }

    async fn a_changed_schema_number_separates_what_would_be_misread(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let metres: Cache<u64, u32> = a.nearfar.cache("lengths").schema(1).build().await.unwrap();
        let feet: Cache<u64, u32> = b.nearfar.cache("lengths").schema(2).build().await.unwrap();
        metres.set(&1, 100).await.unwrap();
        assert!(feet.get(&1).await.unwrap().is_none());
        assert_eq!(feet.stats().unreadable, 1);
    }
}
