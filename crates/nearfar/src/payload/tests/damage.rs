//! Whatever stands in L2: a miss at worst.

use bytes::Bytes;
use nearfar_core::{Envelope, EnvelopeHeader, Kind};
use proptest::prelude::*;

use super::{KEY, Row, Setup, read, reframed, ring, write};
use crate::codec::{Json, MessagePack, Postcard, RawBytes};
use crate::compression::{Compression, Method};
use crate::payload::Unreadable;

fn setups() -> [Setup; 6] {
    let methods = [Compression::lz4(), Compression::zstd()].map(Setup::compressed);
    let [lz4, zstd] = methods.clone().map(|setup| setup.ring(ring()));
    let [plain_lz4, plain_zstd] = methods;
    [Setup::plain(), plain_lz4, plain_zstd, Setup::sealed(), lz4, zstd]
}

fn with_bit(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[bit / 8] ^= 1 << (bit % 8);
    out
}

#[test]
fn every_flipped_bit_and_every_truncation_of_an_envelope_is_a_miss() {
    for setup in setups() {
        let rows = setup.rows();
        let whole = write(&rows, Some(&Row::long()));
        for bit in (0..whole.len() * 8).filter(|bit| !Envelope::STAMP_AT.contains(&(bit / 8))) {
            let damaged = with_bit(&whole, bit).into();
            assert!(read(&rows, &damaged).is_err(), "{setup:?}, bit {bit}");
        }
        for len in 0..whole.len() {
            assert!(read(&rows, &whole.slice(..len)).is_err(), "{setup:?}, {len} bytes");
        }
    }
}

/// Somebody who wants to do harm gets the checksum right.
#[test]
fn every_flipped_bit_and_every_truncation_of_a_sealed_payload_is_a_miss_also_with_the_right_checksum() {
    for setup in setups().into_iter().filter(|setup| setup.ring.is_some()) {
        let rows = setup.rows();
        let whole = write(&rows, Some(&Row::long()));
        let envelope = Envelope::decode(&whole).unwrap();
        let framed = |payload: &[u8]| reframed(&envelope, &envelope.header, payload);
        assert_eq!(framed(&envelope.payload), whole);
        for bit in 0..envelope.payload.len() * 8 {
            assert!(read(&rows, &framed(&with_bit(&envelope.payload, bit))).is_err(), "{setup:?}, bit {bit}");
        }
        for len in 0..envelope.payload.len() {
            assert!(read(&rows, &framed(&envelope.payload[..len])).is_err(), "{setup:?}, {len} bytes");
        }
    }
}

#[test]
fn every_truncation_of_a_compressed_payload_is_a_miss_and_no_flipped_bit_does_harm() {
    for setup in setups().into_iter().filter(|setup| setup.ring.is_none()).skip(1) {
        let rows = setup.rows();
        let envelope = Envelope::decode(&write(&rows, Some(&Row::long()))).unwrap();
        for len in 0..envelope.payload.len() {
            let short = reframed(&envelope, &envelope.header, &envelope.payload[..len]);
            assert_eq!(read(&rows, &short), Err(Unreadable::Damaged), "{setup:?}, {len} bytes");
        }
        for bit in 0..envelope.payload.len() * 8 {
            let flipped = reframed(&envelope, &envelope.header, &with_bit(&envelope.payload, bit));
            // What it says may be another row; without a seal nobody can tell.
            let _ = read(&rows, &flipped);
        }
    }
}

fn compressed(method: Method, claimed: u32, compressed: &[u8]) -> Bytes {
    let rows = Setup::plain().payloads(RawBytes);
    let header = EnvelopeHeader { compression: method.to_wire(), ..rows.header(Kind::Value) };
    Envelope::encode(&header, &[], &[&claimed.to_be_bytes(), compressed].concat())
}

#[test]
fn a_bomb_is_a_miss_before_it_is_given_memory() {
    let payloads = Setup::plain().max_value_bytes(1000).payloads(RawBytes);
    let zeros = vec![0; 1 << 20];
    for compression in [Compression::lz4(), Compression::zstd()] {
        let (method, bomb) = compression.above(0).compress(&zeros).unwrap();
        assert!(bomb.len() < 10_000);
        for claimed in [1 << 20, u32::MAX, 1001, 1000, 10, 0] {
            let read = read(&payloads, &compressed(method, claimed, &bomb));
            assert_eq!(read, Err(Unreadable::Damaged), "{method:?} says {claimed} bytes");
        }
    }
}

#[test]
fn bytes_that_are_fewer_than_was_said_are_a_miss() {
    let payloads = Setup::plain().payloads(RawBytes);
    for compression in [Compression::lz4(), Compression::zstd()] {
        let (method, bytes) = compression.above(0).compress(&[7; 1000]).unwrap();
        let said = |claimed| read(&payloads, &compressed(method, claimed, &bytes));
        assert_eq!(said(1000), Ok(Some(Bytes::from(vec![7; 1000]))));
        assert_eq!(said(1001), Err(Unreadable::Damaged));
        assert_eq!(said(999), Err(Unreadable::Damaged));
    }
}

#[test]
fn a_compression_that_nobody_knows_is_of_another_version() {
    let rows = Setup::plain().rows();
    let envelope = Envelope::decode(&write(&rows, Some(&Row::long()))).unwrap();
    for compression in 3..=127 {
        let header = EnvelopeHeader { compression, ..envelope.header };
        let bytes = reframed(&envelope, &header, &envelope.payload);
        assert_eq!(read(&rows, &bytes), Err(Unreadable::OtherVersion));
    }
}

proptest! {
    #[test]
    fn noise_does_no_harm(
        compression in prop::sample::select(vec![0_u8, 1, 2, 0x80, 0x81, 0x82, 0xff]),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        is_sealed in any::<bool>(),
    ) {
        let setup = if is_sealed { Setup::sealed() } else { Setup::plain() }.max_value_bytes(1 << 16);
        let header = |codec| EnvelopeHeader { codec, compression, ..EnvelopeHeader::of(Kind::Value) };
        let noise = |codec| Envelope::encode(&header(codec), &[], &payload);
        let read = [
            read(&setup.payloads::<Row>(MessagePack), &noise(1)),
            read(&setup.payloads::<Row>(Json), &noise(2)),
            read(&setup.payloads::<Row>(Postcard), &noise(3)),
        ];
        prop_assert!(!is_sealed || read.iter().all(Result::is_err));
    }

    #[test]
    fn what_was_cut_or_lengthened_behind_a_compression_does_no_harm(
        row in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        for compression in [Compression::lz4(), Compression::zstd()] {
            let payloads = Setup::compressed(compression).payloads(RawBytes);
            let value = Bytes::from([&row[..], &[0; 300]].concat());
            let header = payloads.header(Kind::Value);
            let envelope =
                Envelope::decode(&payloads.envelope(KEY, &header, &[], Some(&value)).unwrap()).unwrap();
            let mut payload = envelope.payload.to_vec();
            payload.splice(at.index(payload.len()).., with.iter().copied());
            let _ = read(&payloads, &reframed(&envelope, &envelope.header, &payload));
        }
    }
}
