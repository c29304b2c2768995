//! Every codec with every compression, sealed and not.

use bytes::Bytes;
use nearfar_core::{Envelope, EnvelopeHeader, Kind};
use proptest::prelude::*;

use super::{KEY, NOTES, Row, Setup, read, ring, write};
use crate::codec::{Codec, Json, MessagePack, Postcard, RawBytes};
use crate::compression::Compression;
use crate::error::ErrorKind;

fn rows() -> impl Strategy<Value = Row> {
    let parts = prop::collection::vec(any::<Option<i32>>(), 0..50);
    (any::<u64>(), ".{0,200}", parts).prop_map(|(id, name, parts)| Row { id, name, parts })
}

fn setups() -> impl Strategy<Value = Setup> {
    let compressions = prop::sample::select(vec![None, Some(Compression::lz4()), Some(Compression::zstd())]);
    (compressions, 0_usize..300, any::<bool>()).prop_map(|(compression, above, is_sealed)| {
        let setup = Setup::plain().compression(compression.map(|compression| compression.above(above)));
        if is_sealed { setup.ring(ring()) } else { setup }
    })
}

fn comes_back<V>(setup: &Setup, codec: impl Codec<V>, value: &V) -> Result<(), TestCaseError>
where
    V: std::fmt::Debug + PartialEq + 'static,
{
    let payloads = setup.payloads(codec);
    let bytes = write(&payloads, Some(value));
    let back = read(&payloads, &bytes);
    prop_assert_eq!(back.as_ref().map(Option::as_ref), Ok(Some(value)));
    let plain_len = payloads.codec.encode(value).unwrap().len();
    let sealing = if setup.ring.is_some() { 44 } else { 0 };
    prop_assert!(bytes.len() <= Envelope::HEADER_LEN + NOTES.len() + sealing + plain_len);
    Ok(())
}

proptest! {
    #[test]
    fn a_value_comes_back_whatever_the_codec_the_compression_and_the_seal(setup in setups(), row in rows()) {
        comes_back(&setup, MessagePack, &row)?;
        comes_back(&setup, Json, &row)?;
        comes_back(&setup, Postcard, &row)?;
    }

    #[test]
    fn raw_bytes_come_back(setup in setups(), bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
        comes_back(&setup, RawBytes, &Bytes::from(bytes))?;
    }
}

#[test]
fn raw_bytes_are_copied_out_of_the_buffer_of_the_connection_and_not_otherwise() {
    let value = Bytes::from(b"0123456789".repeat(100));
    assert_eq!(RawBytes.encode(&value).unwrap().as_ptr(), value.as_ptr());

    let plain = Setup::plain().payloads(RawBytes);
    let bytes = write(&plain, Some(&value));
    let copied = read(&plain, &bytes).unwrap().unwrap();
    assert!(!bytes.as_ptr_range().contains(&copied.as_ptr()));
    assert!(copied.is_unique(), "it holds on to nothing else");

    let unpacked = Bytes::from(vec![7; 100]);
    assert_eq!(RawBytes.decode(&unpacked).unwrap().as_ptr(), unpacked.as_ptr());
}

#[test]
fn what_does_not_get_smaller_is_stored_as_it_is() {
    let noise = Bytes::from((0..2000).map(|_| fastrand::u8(..)).collect::<Vec<_>>());
    for compression in [Compression::lz4(), Compression::zstd()] {
        let payloads = Setup::compressed(compression).payloads(RawBytes);
        let envelope = Envelope::decode(&write(&payloads, Some(&noise))).unwrap();
        assert_eq!(envelope.header.compression, 0);
        assert_eq!(envelope.payload, noise);
    }
}

#[test]
fn what_is_not_longer_than_the_threshold_is_stored_as_it_is() {
    let compression = Compression::lz4().above(100);
    let payloads = Setup::plain().compression(Some(compression)).payloads(RawBytes);
    let id_of = |len: usize| {
        let bytes = write(&payloads, Some(&vec![0; len].into()));
        Envelope::decode(&bytes).unwrap().header.compression
    };
    assert_eq!((id_of(100), id_of(101)), (0, 1));
}

#[test]
fn a_node_reads_what_is_compressed_whatever_its_own_setting_is() {
    let row = Row::long();
    let setups =
        [Setup::plain(), Setup::compressed(Compression::lz4()), Setup::compressed(Compression::zstd())];
    for (id, writer) in setups.iter().enumerate() {
        let bytes = write(&writer.rows(), Some(&row));
        assert_eq!(usize::from(Envelope::decode(&bytes).unwrap().header.compression), id);
        for reader in &setups {
            assert_eq!(read(&reader.rows(), &bytes), Ok(Some(row.clone())));
        }
    }
}

#[test]
fn the_limit_is_on_the_encoded_value_however_it_is_stored() {
    let at_most = |bytes| Setup::compressed(Compression::zstd()).max_value_bytes(bytes).payloads(RawBytes);
    let (narrow, wide) = (at_most(1000), at_most(1001));
    let value = Bytes::from(vec![0; 1001]);
    write(&wide, Some(&value.slice(1..)));
    let header: EnvelopeHeader = narrow.header(Kind::Value);
    let refused = narrow.envelope(KEY, &header, NOTES, Some(&value)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ValueTooLarge);
    assert_eq!(refused.to_string(), "the encoded value has 1001 bytes, `max_value_bytes` allows 1000");

    let uncompressed = Setup::plain().payloads(RawBytes);
    for written in [write(&wide, Some(&value)), write(&uncompressed, Some(&value))] {
        assert_eq!(read(&wide, &written), Ok(Some(value.clone())));
        assert!(read(&narrow, &written).is_err(), "another node's limit is a wider one");
    }
}

#[test]
fn l1_weighs_a_value_as_it_is_without_compression() {
    let value = Bytes::from(vec![0; 5000]);
    let plain = Envelope::HEADER_LEN + NOTES.len() + 5000;
    for compression in [Compression::lz4(), Compression::zstd()] {
        let bytes = write(&Setup::compressed(compression).payloads(RawBytes), Some(&value));
        assert!(bytes.len() < plain / 10);
        assert_eq!(Envelope::expanded_len(&bytes), plain);
        let sealed = write(&Setup::compressed(compression).ring(ring()).payloads(RawBytes), Some(&value));
        assert_eq!(Envelope::expanded_len(&sealed), plain);
    }
}

#[test]
fn a_number_of_the_type_separates_what_would_be_misread() {
    let (old, new) = (Setup::plain().schema(1).rows(), Setup::plain().schema(2).rows());
    let bytes = write(&old, Some(&Row::long()));
    assert_eq!(read(&new, &bytes), Err(super::Unreadable::OtherVersion));
}
