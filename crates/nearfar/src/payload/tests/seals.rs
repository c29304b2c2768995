//! Who cannot seal cannot be believed.

use bytes::Bytes;
use nearfar_core::{Envelope, EnvelopeHeader, Kind};

use super::{KEY, NOTES, Row, Setup, read, read_at, reframed, ring, write};
use crate::codec::RawBytes;
use crate::compression::Compression;
use crate::payload::Unreadable;
use crate::seal::KeyRing;

#[test]
fn nothing_of_a_sealed_value_can_be_read_without_the_key() {
    let rows = Setup::sealed().payloads(RawBytes);
    let secret = Bytes::from_static(b"the rain in Spain stays mainly in the plain");
    let sealed = write(&rows, Some(&secret));
    assert!(!sealed.windows(4).any(|found| secret.windows(4).any(|part| part == found)));
    assert_eq!(read(&Setup::plain().payloads(RawBytes), &sealed), Err(Unreadable::OtherVersion));
}

#[test]
fn the_same_value_is_never_sealed_the_same_way_twice() {
    let rows = Setup::sealed().rows();
    assert_ne!(write(&rows, Some(&Row::long())), write(&rows, Some(&Row::long())));
}

#[test]
fn what_is_not_sealed_is_not_believed() {
    let sealed = Setup::sealed().rows();
    let plain = Setup::plain().rows();
    assert_eq!(read(&sealed, &write(&plain, Some(&Row::long()))), Err(Unreadable::Seal));
    assert_eq!(read(&sealed, &write(&plain, None)), Err(Unreadable::Seal), "nor that there is nothing");
}

#[test]
fn that_there_is_nothing_is_sealed_as_well() {
    let rows = Setup::sealed().rows();
    let absent = write(&rows, None);
    assert_eq!(read(&rows, &absent), Ok(None));
    let value = Envelope::decode(&write(&rows, Some(&Row::long()))).unwrap();
    let turned = EnvelopeHeader { kind: Kind::Absent, ..value.header };
    assert_eq!(read(&rows, &reframed(&value, &turned, &value.payload)), Err(Unreadable::Seal));
}

#[test]
fn another_key_opens_nothing_whatever_its_id() {
    let sealed = write(&Setup::sealed().rows(), Some(&Row::long()));
    let with = |ring| read(&Setup::plain().ring(ring).rows(), &sealed);
    assert_eq!(with(KeyRing::new(2, [1; 32])), Err(Unreadable::Seal), "the right key by another name");
    assert_eq!(with(KeyRing::new(1, [2; 32])), Err(Unreadable::Seal), "another key by the right name");
}

#[test]
fn keys_are_replaced_one_deployment_after_the_other() {
    let (old, new) = ([1; 32], [2; 32]);
    let stages = [
        KeyRing::new(1, old),
        KeyRing::new(1, old).also(2, new),
        KeyRing::new(2, new).also(1, old),
        KeyRing::new(2, new),
    ]
    .map(|ring| Setup::plain().ring(ring).rows());
    for (before, after) in [(0, 1), (1, 2), (2, 3)] {
        let written_before = read(&stages[after], &write(&stages[before], Some(&Row::long())));
        let written_after = read(&stages[before], &write(&stages[after], Some(&Row::long())));
        assert!(written_before.is_ok() && written_after.is_ok(), "{before} and {after} side by side");
    }
    assert!(read(&stages[3], &write(&stages[0], Some(&Row::long()))).is_err());
}

#[test]
fn a_sealed_value_is_good_for_its_own_place_alone() {
    let rows = Setup::sealed().rows();
    let sealed = write(&rows, Some(&Row::long()));
    assert_eq!(read_at(&rows, KEY, &sealed), Ok(Some(Row::long())));
    assert_eq!(read_at(&rows, b"43", &sealed), Err(Unreadable::Seal), "moved to another key");
    let elsewhere = Setup { namespace: "admins", ..Setup::sealed() }.rows();
    assert_eq!(read(&elsewhere, &sealed), Err(Unreadable::Seal), "moved to another namespace");
}

#[test]
fn what_says_how_to_read_a_sealed_value_is_sealed_with_it() {
    let setup = Setup::sealed().compression(Some(Compression::lz4().above(0)));
    let sealed = Envelope::decode(&write(&setup.rows(), Some(&Row::long()))).unwrap();
    let open = |header: EnvelopeHeader, notes: &'static [u8]| {
        let envelope = Envelope { header, notes: Bytes::from_static(notes), ..sealed.clone() };
        setup.rows().open(KEY, &envelope)
    };
    assert_eq!(open(sealed.header, NOTES), Ok(Some(Row::long())));
    let forged = [
        EnvelopeHeader { kind: Kind::Absent, ..sealed.header },
        EnvelopeHeader { codec: 2, ..sealed.header },
        EnvelopeHeader { compression: EnvelopeHeader::SEALED | 2, ..sealed.header },
        EnvelopeHeader { schema: 1, ..sealed.header },
        EnvelopeHeader { tag_count: 1, ..sealed.header },
    ];
    for header in forged {
        assert_eq!(open(header, NOTES), Err(Unreadable::Seal), "{header:?}");
    }
    assert_eq!(open(sealed.header, b""), Err(Unreadable::Seal), "notes");
}

/// A renewal replaces them without the payload.
#[test]
fn lifetimes_are_not_sealed() {
    let rows = Setup::sealed().rows();
    let sealed = Envelope::decode(&write(&rows, Some(&Row::long()))).unwrap();
    let renewed = EnvelopeHeader { ttl: Some(std::time::Duration::from_secs(9)), ..sealed.header };
    assert_eq!(read(&rows, &reframed(&sealed, &renewed, &sealed.payload)), Ok(Some(Row::long())));
}

/// The parts are told apart by their lengths.
#[test]
fn no_two_places_have_the_same_associated_data() {
    let sealed = Setup { namespace: "ab", ..Setup::sealed() }.rows();
    let header = sealed.header(Kind::Value);
    let at = |key: &[u8], notes: &[u8]| sealed.context(key, &header, notes, None);
    assert_ne!(at(b"cd", b""), at(b"c", b"d"));
    let shorter = Setup { namespace: "a", ..Setup::sealed() }.rows();
    assert_ne!(at(b"cd", b""), shorter.context(b"bcd", &header, b"", None));
}

#[test]
fn no_key_is_in_debug_output() {
    let ring = KeyRing::new(1, *b"0123456789abcdef0123456789abcdef").also(9, [77; 32]);
    assert_eq!(format!("{ring:?}"), "KeyRing { ids: [1, 9] }");
}

#[test]
fn two_keys_with_one_id_are_noticed() {
    assert_eq!(ring().also(2, [2; 32]).twice(), None);
    assert_eq!(ring().also(2, [2; 32]).also(2, [3; 32]).twice(), Some(2));
}
