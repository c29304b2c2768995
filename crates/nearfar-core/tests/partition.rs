//! What one atomic step does to the shared store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{
    BeatId, Change, Claim, ClaimOutcome, Envelope, EnvelopeHeader, Fill, FillOutcome, Head, Holder, KeyWrite,
    Kind, Message, MessageBody, Moment, NodeId, Partition, Refusal, Renewal, TagMark, Tags, Version,
};

const NODE: NodeId = NodeId::new(1);
const KEEP: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Moment {
    Moment::from_micros(1_000_000_000) + Duration::from_secs(seconds)
}

fn write(key: &'static str) -> KeyWrite {
    let envelope = Envelope::encode(&EnvelopeHeader::of(Kind::Value), &[], b"v");
    KeyWrite { key: key.into(), envelope, keep: Some(KEEP) }
}

fn fill(key: &'static str, base: Version) -> Fill {
    Fill { write: write(key), base, deadline: Moment::NEVER }
}

fn change(partition: &mut Partition, now: Moment, change: &Change) -> Version {
    partition.change(now, change).unwrap().0
}

fn invalidation(key: &'static str) -> Change {
    Change::invalidate(NODE, vec![key.into()], KEEP)
}

#[test]
fn messages_form_a_chain_and_numbers_follow_the_clock() {
    let mut partition = Partition::new(10);
    let mut previous = None;
    for (now, key) in [(at(1), "a"), (at(1), "b"), (at(5), "c"), (at(2), "d")] {
        let (version, frame) = partition.change(now, &Change::set(NODE, write(key))).unwrap();
        let message = Message::decode(&frame).unwrap();
        assert_eq!((message.sequence, message.origin), (version, NODE));
        assert_eq!(message.body, MessageBody::Keys(vec![key.into()]));
        if let Some(previous) = previous {
            assert_eq!(message.previous, previous);
        }
        assert!(version > message.previous && version.number() >= now.micros());
        previous = Some(version);
    }
}

#[test]
fn a_history_after_a_loss_is_above_the_one_before() {
    let mut partition = Partition::new(10);
    let before = change(&mut partition, at(1), &invalidation("k"));
    let mut partition = Partition::new(10);
    let after = change(&mut partition, at(2), &invalidation("k"));
    assert!(after > before);
    assert_eq!(
        partition.fill(at(2), &fill("other", before)),
        FillOutcome::Refused,
        "of a history that is over"
    );
}

#[test]
fn a_fill_yields_to_whatever_is_newer_than_its_base() {
    let mut partition = Partition::new(10);
    let base = partition.beat(at(0), NODE, BeatId::new(1), KEEP).0.sequence;
    assert_eq!(partition.fill(at(0), &fill("k", base)), FillOutcome::Stored);

    let newer = change(&mut partition, at(1), &invalidation("k"));
    assert_eq!(partition.fill(at(1), &fill("k", base)), FillOutcome::Refused);
    assert_eq!(partition.fill(at(1), &fill("k", newer)), FillOutcome::Stored);
    let stored = Envelope::decode(&partition.read(at(1), b"k").envelope.unwrap()).unwrap();
    assert_eq!((stored.stamp.version, stored.stamp.written_at), (newer, at(1)));

    let cleared = change(&mut partition, at(2), &Change::clear(NODE));
    assert_eq!(partition.fill(at(2), &fill("k", newer)), FillOutcome::Refused);
    assert_eq!(partition.fill(at(2), &fill("k", cleared)), FillOutcome::Stored);
}

#[test]
fn a_fill_without_a_history_is_refused() {
    let mut partition = Partition::new(10);
    assert_eq!(partition.fill(at(0), &fill("k", Version::new(7))), FillOutcome::Refused);
}

#[test]
fn nothing_happens_after_a_deadline() {
    let mut partition = Partition::new(10);
    let base = partition.beat(at(0), NODE, BeatId::new(1), KEEP).0.sequence;
    assert_eq!(partition.change(at(2), &invalidation("k").by(at(1))), Err(Refusal::Late));
    let late = Fill { deadline: at(1), ..fill("k", base) };
    assert_eq!(partition.fill(at(2), &late), FillOutcome::Late);
    assert_eq!(partition.read(at(2), b"k").envelope, None);
    assert_eq!(partition.read(at(2), b"k").head.unwrap().sequence, base);
}

#[test]
fn what_expired_is_swept_out_in_time() {
    let mut partition = Partition::new(10);
    for key in 0..10_000_u32 {
        let key = Bytes::from(key.to_be_bytes().to_vec());
        let write = KeyWrite { key, keep: Some(Duration::from_micros(1)), ..write("") };
        change(&mut partition, at(key_second(&write)), &Change::set(NODE, write));
    }
    assert!(partition.len() <= 1_025, "{}", partition.len());
}

fn key_second(write: &KeyWrite) -> u64 {
    u64::from(u32::from_be_bytes(write.key[..].try_into().unwrap()))
}

#[test]
fn the_log_keeps_the_last_messages_and_the_list_the_live_nodes() {
    let mut partition = Partition::new(3);
    let versions: Vec<_> = (0..5).map(|n| change(&mut partition, at(n), &invalidation("k"))).collect();
    let logged = |partition: &Partition, since| partition.log(since, versions[4]).count();
    assert_eq!(logged(&partition, Version::UNKNOWN), 3);
    assert_eq!(logged(&partition, versions[3]), 2);

    partition.beat(at(0), NodeId::new(1), BeatId::new(1), KEEP);
    partition.beat(at(50), NodeId::new(2), BeatId::new(1), KEEP);
    assert_eq!(partition.nodes().count(), 2);
    partition.beat(at(61), NodeId::new(3), BeatId::new(1), KEEP);
    assert_eq!(partition.nodes().collect::<Vec<_>>(), [(NodeId::new(2), at(50)), (NodeId::new(3), at(61))]);
    partition.leave(NodeId::new(2));
    assert_eq!(partition.nodes().collect::<Vec<_>>(), [(NodeId::new(3), at(61))]);
}

fn expiry(key: &'static str) -> Change {
    Change::expire(NODE, vec![key.into()], KEEP)
}

fn stored(partition: &Partition, now: Moment, key: &'static str) -> Option<Envelope> {
    let bytes = partition.read(now, key.as_bytes()).envelope?;
    Some(Envelope::decode(&bytes).unwrap())
}

#[test]
fn a_value_that_is_declared_stale_stays_and_fences() {
    let mut partition = Partition::new(10);
    change(&mut partition, at(1), &Change::set(NODE, write("k")));
    let (version, frame) = partition.change(at(2), &expiry("k")).unwrap();
    assert_eq!(Message::decode(&frame).unwrap().body, MessageBody::Expired(vec!["k".into()]));
    let stale = stored(&partition, at(2), "k").unwrap();
    assert_eq!((stale.header.kind, &stale.payload[..]), (Kind::Value, &b"v"[..]));
    assert_eq!((stale.stamp.version, stale.stamp.written_at, stale.stamp.expired), (version, at(1), true));
    let older = Version::new(version.number() - 1);
    assert_eq!(partition.fill(at(2), &fill("k", older)), FillOutcome::Refused);
    assert_eq!(partition.fill(at(2), &fill("k", version)), FillOutcome::Stored);
    assert!(!stored(&partition, at(2), "k").unwrap().stamp.expired);
}

#[test]
fn what_is_declared_stale_stays_for_as_long_as_it_would_have_and_for_the_window_at_least() {
    let mut partition = Partition::new(10);
    let short = KeyWrite { keep: Some(Duration::from_secs(1)), ..write("short") };
    let long = KeyWrite { keep: Some(2 * KEEP), ..write("long") };
    change(&mut partition, at(0), &Change::set(NODE, short));
    change(&mut partition, at(0), &Change::set(NODE, long));
    for key in ["short", "long"] {
        change(&mut partition, at(0), &expiry(key));
    }
    let window = KEEP.as_secs();
    assert!(stored(&partition, at(window - 1), "short").is_some());
    assert!(stored(&partition, at(window), "short").is_none());
    assert!(stored(&partition, at(2 * window - 1), "long").is_some());
    assert!(stored(&partition, at(2 * window), "long").is_none());
}

#[test]
fn what_is_no_living_value_is_buried_when_it_is_declared_stale() {
    let mut partition = Partition::new(10);
    change(&mut partition, at(0), &Change::set(NODE, write("cleared")));
    change(&mut partition, at(1), &Change::clear(NODE));
    change(&mut partition, at(1), &invalidation("wrong"));
    for key in ["cleared", "wrong", "missing"] {
        change(&mut partition, at(2), &expiry(key));
        assert_eq!(stored(&partition, at(2), key).unwrap().header.kind, Kind::Tombstone, "{key}");
    }
}

/// Of what stands under the key now.
fn renewal(partition: &Partition, now: Moment, base: Version) -> Renewal {
    let bytes = partition.read(now, b"k").envelope.unwrap();
    let renewed = write("k").envelope;
    Renewal {
        key: "k".into(),
        identity: bytes.slice_ref(Envelope::identity(&bytes)),
        header: renewed.slice(..Envelope::HEADER_LEN),
        base,
        deadline: at(50),
        keep: Some(KEEP),
    }
}

#[test]
fn a_renewal_makes_an_entry_as_good_as_one_that_was_loaded() {
    let mut partition = Partition::new(10);
    change(&mut partition, at(1), &Change::set(NODE, write("k")));
    let declared = change(&mut partition, at(2), &expiry("k"));
    let base = change(&mut partition, at(3), &invalidation("another"));
    let renewal = renewal(&partition, at(4), base);
    assert_eq!(partition.renew(at(5), &renewal), FillOutcome::Stored);
    let entry = stored(&partition, at(5), "k").unwrap();
    assert_eq!((entry.stamp.version, entry.stamp.written_at, entry.stamp.expired), (base, at(5), false));
    assert_eq!(partition.fill(at(5), &fill("k", declared)), FillOutcome::Refused, "it fences as of its base");
    assert!(stored(&partition, at(5) + KEEP / 2, "k").is_some());
}

#[test]
fn a_renewal_yields_to_whatever_has_happened_to_its_key() {
    let set = Change::set(NODE, write("k"));
    for overtaker in [invalidation("k"), set, expiry("k"), Change::clear(NODE)] {
        let mut partition = Partition::new(10);
        let version = change(&mut partition, at(1), &Change::set(NODE, write("k")));
        let renewal = renewal(&partition, at(2), version);
        change(&mut partition, at(3), &overtaker);
        assert_eq!(partition.renew(at(4), &renewal), FillOutcome::Refused, "{overtaker:?}");
        assert_eq!(Partition::new(10).renew(at(4), &renewal), FillOutcome::Refused, "all is lost");
    }
    let mut partition = Partition::new(10);
    let version = change(&mut partition, at(1), &Change::set(NODE, write("k")));
    let renewal = renewal(&partition, at(2), version);
    assert_eq!(partition.renew(at(51), &renewal), FillOutcome::Late);
    let older = Renewal { base: Version::new(version.number() - 1), ..renewal };
    assert_eq!(partition.renew(at(4), &older), FillOutcome::Refused, "its base is before the entry");
}

fn claim(node: u64, seen: &[u8]) -> Claim {
    let holder = Holder { node: NodeId::new(node), load: 1 };
    Claim { key: "k".into(), holder, seen: Bytes::copy_from_slice(seen), keep: Duration::from_secs(5) }
}

#[test]
fn a_claim_is_granted_to_one_until_it_is_released_or_over() {
    let mut partition = Partition::new(10);
    assert_eq!(partition.claim(at(0), &claim(1, b"")), ClaimOutcome::Granted);
    let left = Duration::from_secs(2);
    assert_eq!(partition.claim(at(3), &claim(2, b"")), ClaimOutcome::Held { left });
    assert_eq!(partition.claim(at(3), &claim(3, b"")), ClaimOutcome::Held { left });
    assert!(partition.release(&"k".into(), claim(2, b"").holder).is_empty(), "it is not its own");
    let told = partition.release(&"k".into(), claim(1, b"").holder);
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [NodeId::new(2), NodeId::new(3)]);
    assert_eq!(partition.claim(at(3), &claim(2, b"")), ClaimOutcome::Granted);
    assert_eq!(partition.claim(at(8), &claim(3, b"")), ClaimOutcome::Granted, "that of the second is over");
    assert!(partition.release(&"k".into(), claim(2, b"").holder).is_empty(), "it has another's by now");
    assert!(matches!(partition.claim(at(8), &claim(1, b"")), ClaimOutcome::Held { .. }));
}

#[test]
fn a_claim_ends_when_its_load_cannot_be_stored_any_more() {
    let mut partition = Partition::new(10);
    change(&mut partition, at(0), &invalidation("another"));
    assert_eq!(partition.claim(at(0), &claim(1, b"")), ClaimOutcome::Granted);
    assert!(matches!(partition.claim(at(0), &claim(2, b"")), ClaimOutcome::Held { .. }));
    change(&mut partition, at(1), &invalidation("k"));
    let tombstone = partition.read(at(1), b"k").envelope.unwrap();
    let seen = Envelope::identity(&tombstone);
    assert_eq!(partition.claim(at(1), &claim(3, seen)), ClaimOutcome::Granted);
    assert!(partition.release(&"k".into(), claim(1, b"").holder).is_empty());
    let told = partition.release(&"k".into(), claim(3, seen).holder);
    assert_eq!(
        told.into_iter().collect::<Vec<_>>(),
        [NodeId::new(2)],
        "who waited for the other hears of this one"
    );
}

#[test]
fn no_claim_lasts_for_longer_than_that_of_who_comes() {
    let mut partition = Partition::new(10);
    let endless = Claim { keep: Duration::MAX, ..claim(1, b"") };
    assert_eq!(partition.claim(at(0), &endless), ClaimOutcome::Granted);
    assert_eq!(partition.claim(at(1), &claim(2, b"")), ClaimOutcome::Held { left: Duration::from_secs(5) });
    assert_eq!(partition.claim(at(6), &claim(2, b"")), ClaimOutcome::Granted);
}

/// R3 with a value that reads keep alive: it fences for the window after it was read, too.
#[test]
fn a_value_that_was_touched_and_ran_out_still_fences() {
    let mut partition = Partition::new(10);
    let base = change(&mut partition, at(0), &invalidation("another"));
    let header = EnvelopeHeader { idle: Some(Duration::from_secs(1)), ..EnvelopeHeader::of(Kind::Value) };
    let envelope = Envelope::encode(&header, &[], b"v");
    change(&mut partition, at(1), &Change::set(NODE, KeyWrite { envelope, ..write("k") }));
    partition.touch(at(2), &"k".into(), KEEP);
    let just_before = at(2) + KEEP - Duration::from_micros(1);
    assert_eq!(partition.fill(just_before, &fill("k", base)), FillOutcome::Refused);
}

#[test]
fn a_claim_of_who_has_seen_something_else_is_not_granted() {
    let mut partition = Partition::new(10);
    change(&mut partition, at(1), &Change::set(NODE, write("k")));
    assert_eq!(partition.claim(at(1), &claim(1, b"")), ClaimOutcome::Overtaken);
    let bytes = partition.read(at(1), b"k").envelope.unwrap();
    assert_eq!(partition.claim(at(1), &claim(1, Envelope::identity(&bytes))), ClaimOutcome::Granted);
}

fn tagged(key: &'static str, tags: &[&str], ttl: Option<Duration>) -> KeyWrite {
    let tags = Tags::new(tags).unwrap();
    let header = EnvelopeHeader { ttl, tag_count: tags.count(), ..EnvelopeHeader::of(Kind::Value) };
    KeyWrite { key: key.into(), envelope: Envelope::encode(&header, &tags.encode(), b"v"), keep: None }
}

fn invalidate_tag(partition: &mut Partition, now: Moment, tag: &'static str) -> Version {
    change(partition, now, &Change::invalidate_tags(NODE, vec![tag.into()], KEEP))
}

/// An entry was declared stale and then wrong by its tag. As long as a load from before may come, it must be there to be
/// found newer, however long ago it was written.
#[test]
fn a_purge_leaves_what_was_declared_stale_for_the_fence_window() {
    let mut partition = Partition::new(10);
    change(&mut partition, at(0), &Change::set(NODE, tagged("k", &["red"], None)));
    let base = invalidate_tag(&mut partition, at(500), "blue");
    change(&mut partition, at(1_000), &Change::expire(NODE, vec!["k".into()], KEEP));
    invalidate_tag(&mut partition, at(1_010), "red");
    assert_eq!(partition.purge(at(1_020), KEEP).removed, 0);
    assert_eq!(partition.fill(at(1_030), &fill("k", base)), FillOutcome::Refused);
    assert_eq!(partition.purge(at(1_100), KEEP).removed, 1);
}

/// L2's clock jumps ahead, marks are forgotten for it, and it goes back: entries that are there again must not be taken for
/// those that nothing is known against.
#[test]
fn what_is_forgotten_of_tags_for_a_clock_that_goes_back_revives_nothing() {
    let mut partition = Partition::new(10);
    let second = Some(Duration::from_secs(1));
    let old = change(&mut partition, at(0), &Change::set(NODE, tagged("k", &["red"], second)));
    invalidate_tag(&mut partition, at(0), "red");
    let later = invalidate_tag(&mut partition, at(3_600), "blue");
    let mark = partition.tag_marks(&["red".into()])[0];
    assert!(old < mark.wrong && mark.wrong < later, "it is wrong still, and what came later is not");
}

#[test]
fn a_clear_forgets_all_tags_since_nothing_is_left_that_carries_one() {
    let mut partition = Partition::new(10);
    change(&mut partition, at(0), &Change::set(NODE, tagged("k", &["red"], None)));
    invalidate_tag(&mut partition, at(1), "red");
    change(&mut partition, at(2), &Change::clear(NODE));
    let head = partition.read(at(2), b"k").head.unwrap();
    assert_eq!(head, Head::untagged(head.sequence, head.floor));
    assert_eq!(partition.tag_marks(&["red".into()]), [TagMark::default()]);
}
