//! What values become on their way through L2, and what becomes of them between versions of a service.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nearfar::{
    Bytes, Cache, CacheBuilder, Compression, ErrorKind, Json, Loaded, Nearfar, Postcard, RawBytes, Tier,
};
use nearfar_core::{Change, Envelope, EnvelopeHeader, KeyWrite, Kind, Moment, NodeId};
use nearfar_tests::{Node, World, on_every_backend};
use serde::{Deserialize, Serialize};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    title: String,
    words: Vec<String>,
    visits: Option<u32>,
}

impl Page {
    /// A few KiB.
    fn long() -> Self {
        let words = (0..300).map(|n| format!("word{}", n % 17)).collect();
        Self { title: "Home".into(), words, visits: Some(7) }
    }
}

type Set = fn(CacheBuilder<u64, Page>) -> CacheBuilder<u64, Page>;

fn compressed_with(compression: Compression) -> impl Fn(&Node) -> CacheBuilder<u64, Page> {
    move |node| node.nearfar.cache("pages").compression(compression)
}

/// What stands in L2 under a key.
async fn stored(world: &World, namespace: &str, key: &str) -> Envelope {
    let (l2, _bus) = world.backend().await;
    let found = l2.read(&world.partition_of(namespace, key), &key.to_owned().into()).await.unwrap();
    Envelope::decode(&found.envelope.unwrap()).unwrap()
}

on_every_backend! {
    async fn every_codec_carries_values_between_nodes_compressed_or_not(world: World) {
        let codecs: [(u8, Set); 3] =
            [(1, |it| it), (2, |it| it.codec(Json)), (3, |it| it.codec(Postcard))];
        let compressions: [(u8, Set); 3] = [
            (0, |it| it),
            (1, |it| it.compression(Compression::lz4())),
            (2, |it| it.compression(Compression::zstd())),
        ];
        let (a, b) = (world.node().await, world.node().await);
        for (codec, set_codec) in codecs {
            for (compression, compress) in compressions {
                let pages = format!("pages-{codec}-{compression}");
                let build = async |nearfar: &Nearfar| {
                    compress(set_codec(nearfar.cache(&pages))).build().await.unwrap()
                };
                let (here, there) = (build(&a.nearfar).await, build(&b.nearfar).await);
                here.set(&1, Page::long()).await.unwrap();
                there.get_or_load(&2, |_| async { Ok::<_, io::Error>(Page::long()) }).await.unwrap();
                for (reader, key) in [(&there, 1), (&here, 2)] {
                    let entry = reader.get(&key).await.unwrap().unwrap();
                    assert_eq!((entry.tier(), &*entry), (Tier::L2, &Page::long()));
                    let header = stored(&world, &pages, &key.to_string()).await.header;
                    assert_eq!((header.codec, header.compression), (codec, compression));
                }
            }
        }
    }

    async fn raw_bytes_go_through_as_they_are(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let build = async |node: &Node| -> Cache<String, Bytes> {
            node.nearfar.cache_with("images", RawBytes).build().await.unwrap()
        };
        let (here, there) = (build(&a).await, build(&b).await);
        let image = Bytes::from(vec![0xff; 100_000]);
        here.set("logo", image.clone()).await.unwrap();
        assert_eq!(stored(&world, "images", "logo").await.payload, image);
        let shared = here.get("logo").await.unwrap().unwrap();
        assert_eq!(shared.as_ptr(), image.as_ptr(), "L1 has what was given");
        assert_eq!(*there.get("logo").await.unwrap().unwrap(), image);
        let nothing = |_| async { Ok::<_, io::Error>(Bytes::new()) };
        assert!(here.get_or_load("empty", nothing).await.unwrap().is_empty());
        assert!(there.get("empty").await.unwrap().unwrap().is_empty());
    }

    async fn the_setting_of_compression_may_be_changed_while_nodes_run(world: World) {
        let mut caches = Vec::new();
        for setting in [None, Some(Compression::lz4()), Some(Compression::zstd())] {
            let builder = world.node().await.nearfar.cache("pages");
            let builder = if let Some(setting) = setting { builder.compression(setting) } else { builder };
            caches.push(builder.build().await.unwrap());
        }
        for (key, writer) in (0..).zip(&caches) {
            writer.set(&key, Page::long()).await.unwrap();
            for reader in &caches {
                assert_eq!(*reader.get(&key).await.unwrap().unwrap(), Page::long());
            }
        }
        assert!(caches.iter().all(|cache| cache.stats().unreadable == 0));
    }

    /// A renewal replaces the header alone. One that was made with the settings of the node that renews would have said
    /// that the payload is not compressed.
    async fn an_entry_that_was_found_to_be_still_true_stays_compressed_as_it_was(world: World) {
        let plain = |node: &Node| node.nearfar.cache("pages");
        let (a, b, c) = (world.node().await, world.node().await, world.node().await);
        let writer: Cache<u64, Page> = compressed_with(Compression::lz4())(&a).grace(HOUR).build().await.unwrap();
        let renewer: Cache<u64, Page> = plain(&b).grace(HOUR).build().await.unwrap();
        let reader: Cache<u64, Page> = plain(&c).grace(HOUR).build().await.unwrap();
        writer.set(&1, Page::long()).await.unwrap();
        writer.expire(&1).await.unwrap();
        let still_true = |_, found: Option<_>| -> BoxFuture<'static, Result<Loaded<Page>, io::Error>> {
            assert!(found.is_some());
            Box::pin(async { Ok(Loaded::not_modified()) })
        };
        renewer.get_or_revalidate(&1, still_true).await.unwrap();
        let renewed = stored(&world, "pages", "1").await;
        assert_eq!((renewed.header.compression, renewed.stamp.expired), (1, false));
        assert_eq!(*reader.get(&1).await.unwrap().unwrap(), Page::long());
    }

    async fn what_is_too_large_is_refused_when_it_is_set_and_only_returned_when_it_is_loaded(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let build = async |node: &Node, most| -> Cache<String, Bytes> {
            node.nearfar.cache_with("images", RawBytes).max_value_bytes(most).build().await.unwrap()
        };
        let (narrow, wide) = (build(&a, 1000).await, build(&b, 1001).await);
        let (small, large) = (Bytes::from(vec![1; 1000]), Bytes::from(vec![2; 1001]));

        narrow.set("k", small.clone()).await.unwrap();
        let refused = narrow.set("k", large.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ValueTooLarge);
        assert_eq!(refused.to_string(), "the encoded value has 1001 bytes, `max_value_bytes` allows 1000");
        assert_eq!(*wide.get("k").await.unwrap().unwrap(), small, "nothing has changed");

        narrow.invalidate("k").await.unwrap();
        for loads in 1..=2 {
            let value = large.clone();
            let load = |_| async move { Ok::<_, io::Error>(value) };
            assert_eq!(*narrow.get_or_load("k", load).await.unwrap(), large);
            assert_eq!((narrow.stats().loads, narrow.stats().unstorable), (loads, loads));
            assert!(!narrow.contains("k").await.unwrap());
        }

        wide.set("k", large.clone()).await.unwrap();
        assert_eq!(*wide.get("k").await.unwrap().unwrap(), large);
        assert!(narrow.get("k").await.unwrap().is_none());
        assert_eq!(narrow.stats().unreadable, 1);
    }

    /// R29: the new version has a field more, which has a default, and one less, for which the old version has one. Both
    /// read what the other writes.
    async fn versions_that_can_read_each_others_entries_share_them(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let json = |nearfar: &Nearfar| nearfar.cache::<u64, UserV1>("users-json").codec(Json);
        let json_v2 = |nearfar: &Nearfar| nearfar.cache::<u64, UserV2>("users-json").codec(Json);
        let pairs = [
            (a.nearfar.cache("users"), b.nearfar.cache("users")),
            (json(&a.nearfar), json_v2(&b.nearfar)),
        ];
        for (v1, v2) in pairs {
            let (v1, v2) = (v1.schema(1).build().await.unwrap(), v2.schema(1).build().await.unwrap());
            v1.set(&1, UserV1 { name: "Ada".into(), fax: Some("1".into()) }).await.unwrap();
            v2.set(&2, UserV2 { name: "Bob".into(), email: "bob@example".into() }).await.unwrap();
            let unasked = |_| async { Err(io::Error::other("nobody loads")) };
            let ada = v2.get_or_load(&1, unasked).await.unwrap();
            assert_eq!(*ada, UserV2 { name: "Ada".into(), email: String::new() });
            let unasked = |_| async { Err(io::Error::other("nobody loads")) };
            assert_eq!(*v1.get_or_load(&2, unasked).await.unwrap(), UserV1 { name: "Bob".into(), fax: None });
            assert_eq!((v1.stats().unreadable, v2.stats().unreadable), (0, 0));
        }
    }

    /// R29: what means something else now has another number. Neither fails, neither gets what it would misread, each
    /// loads once and has it in L1 then, and what they do to each other is counted.
    async fn versions_that_cannot_read_each_others_entries_miss_and_say_so(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let metres: Cache<u64, u32> = a.nearfar.cache("lengths").schema(1).build().await.unwrap();
        let feet: Cache<u64, u32> = b.nearfar.cache("lengths").schema(2).build().await.unwrap();
        for _ in 0..5 {
            let load = |metres: u64| async move { Ok::<_, io::Error>(u32::try_from(metres).unwrap()) };
            assert_eq!(*metres.get_or_load(&100, load).await.unwrap(), 100);
            let load = |metres: u64| async move { Ok::<_, io::Error>(u32::try_from(metres * 328 / 100).unwrap()) };
            assert_eq!(*feet.get_or_load(&100, load).await.unwrap(), 328);
        }
        let (of_metres, of_feet) = (metres.stats(), feet.stats());
        assert_eq!((of_metres.loads, of_metres.l1_hits), (1, 4), "they do not evict each other's L1");
        assert_eq!((of_feet.loads, of_feet.l1_hits), (1, 4));
        assert_eq!((of_metres.other_versions, of_feet.other_versions), (0, 1));

        // A change of one version is an invalidation to the other.
        feet.set(&100, 330).await.unwrap();
        nearfar_testkit::eventually("the message arrives", async || metres.peek(&100).is_none()).await;
        assert!(metres.get(&100).await.unwrap().is_none());
        assert_eq!((metres.stats().other_versions, metres.stats().unreadable), (1, 1));
    }

    async fn what_the_codec_refuses_is_an_error_when_it_is_set_and_only_returned_when_it_is_loaded(world: World) {
        type Grid = BTreeMap<(u8, u8), u8>;
        let node = world.node().await;
        let grids: Cache<u64, Grid> = node.nearfar.cache("grids").codec(Json).build().await.unwrap();
        let grid = Grid::from([((1, 2), 3)]);
        assert_eq!(grids.set(&1, grid.clone()).await.unwrap_err().kind(), ErrorKind::Value);
        let loaded = grid.clone();
        let load = |_| async move { Ok::<_, io::Error>(loaded) };
        assert_eq!(*grids.get_or_load(&1, load).await.unwrap(), grid);
        assert_eq!(grids.stats().unstorable, 1);
    }

    async fn a_bomb_is_a_miss_and_the_next_fill_replaces_it(world: World) {
        let node = world.node().await;
        let images: CacheBuilder<String, Bytes> = node.nearfar.cache_with("images", RawBytes);
        let images = images.max_value_bytes(1000).build().await.unwrap();
        let (l2, _bus) = world.backend().await;
        // A block of LZ4 that ends in 2,000 zeros, and a frame of Zstandard that repeats one byte 2,000 times.
        let lz4 = [&b"\x1f\x00\x01\x00"[..], &[0xff; 7], b"\xbe\x50\x00\x00\x00\x00\x00"].concat();
        let zstd = b"\x28\xb5\x2f\xfd\x60\xd0\x06\x83\x3e\x00\x00".to_vec();
        for (compression, body) in [(1, lz4), (2, zstd)] {
            for claimed in [u32::MAX, 2000, 1000, 0] {
                let header = EnvelopeHeader { codec: 4, compression, ..EnvelopeHeader::of(Kind::Value) };
                let envelope = Envelope::encode(&header, &[], &[&claimed.to_be_bytes()[..], &body].concat());
                let write = KeyWrite { key: "k".into(), envelope, keep: None };
                let change = Change::set(NodeId::new(9), write).by(Moment::from_micros((1 << 53) - 1));
                l2.change(&world.partition_of("images", "k"), change).await.unwrap();
                let before = images.stats().unreadable;
                assert!(images.get("k").await.unwrap().is_none(), "{compression}, {claimed}");
                assert_eq!(images.stats().unreadable, before + 1);
            }
        }
        let load = |_| async { Ok::<_, io::Error>(Bytes::from_static(b"small")) };
        assert_eq!(*images.get_or_load("k", load).await.unwrap(), Bytes::from_static(b"small"));
        assert!(images.contains("k").await.unwrap());
    }

    async fn an_entry_of_another_codec_is_a_miss_and_counted(world: World) {
        let (a, b) = (world.node().await, world.node().await);
        let old: Cache<u64, u32> = a.nearfar.cache("numbers").build().await.unwrap();
        let new: Cache<u64, u32> = b.nearfar.cache("numbers").codec(Postcard).build().await.unwrap();
        old.set(&1, 1).await.unwrap();
        assert!(new.get(&1).await.unwrap().is_none());
        assert_eq!((new.stats().other_versions, new.stats().unreadable), (1, 1));
    }
}

/// A user as the first version of a service knows it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct UserV1 {
    name: String,
    #[serde(default)]
    fax: Option<String>,
}

/// As the second does.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct UserV2 {
    name: String,
    #[serde(default)]
    email: String,
}

#[tokio::test]
async fn a_limit_that_nothing_or_not_even_redis_keeps_to_is_refused() {
    let build = async |most| {
        let builder = Nearfar::in_process().cache::<u64, u64>("numbers").max_value_bytes(most);
        builder.build().await.map(drop)
    };
    let zero = build(0).await.unwrap_err();
    assert_eq!(
        (zero.kind(), zero.to_string()),
        (ErrorKind::Config, "`max_value_bytes` must not be zero".into())
    );
    assert!(build(511 << 20).await.is_ok());
    let huge = build((511 << 20) + 1).await.unwrap_err();
    assert_eq!(
        huge.to_string(),
        "`max_value_bytes` of 535822337 is more than Redis takes: at most 535822336"
    );
}
