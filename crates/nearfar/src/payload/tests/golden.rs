//! The bytes that `docs/wire-format.md` promises, kept in `docs/golden/` for programs in other languages.

use std::array;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{Envelope, EnvelopeHeader, Kind, Moment, Stamp, Version};

use super::{Setup, read_at};
use crate::codec::{Codec, MessagePack};
use crate::payload::Payloads;
use crate::seal::KeyRing;

const KEY: &[u8] = b"42";

/// The lines of bytes in a golden file: without the stamp, and with it.
fn golden(name: &str) -> Vec<Bytes> {
    let path = format!("{}/../../docs/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(from_hex).collect()
}

fn from_hex(line: &str) -> Bytes {
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

fn stamp() -> Stamp {
    Stamp::of(Version::new(1_760_000_000_000_001), Moment::from_micros(1_760_000_000_250_000))
}

fn text() -> String {
    "na ".repeat(20) + "Batman"
}

fn texts(setup: &Setup) -> Payloads<String> {
    Setup { namespace: "texts", ..setup.clone() }.payloads(MessagePack)
}

fn header(payloads: &Payloads<String>, compression: u8) -> EnvelopeHeader {
    let ttl = Some(Duration::from_secs(300));
    EnvelopeHeader { ttl, compression, ..payloads.header(Kind::Value) }
}

/// Another compressor, or the next version of this one, may write other bytes that mean the same.
fn check_reading(name: &str, setup: &Setup, compression: u8) {
    let payloads = texts(setup);
    let [unstamped, stamped] = golden(name).try_into().unwrap();
    assert_eq!(stamped, Envelope::stamped(&unstamped, stamp()));
    let envelope = Envelope::decode(&stamped).unwrap();
    assert_eq!(envelope.header, header(&payloads, compression));
    assert_eq!(envelope.stamp, stamp());
    assert_eq!(read_at(&payloads, KEY, &stamped), Ok(Some(text())));
}

#[test]
fn the_envelopes_of_compressed_values() {
    check_reading("envelope-lz4", &Setup::plain(), 1);
    check_reading("envelope-zstd", &Setup::plain(), 2);
}

fn sealing() -> Setup {
    Setup::plain().ring(KeyRing::new(0x0102_0304, array::from_fn(|at| u8::try_from(at).unwrap())))
}

/// Both ways, but for the nonce: what is in the file is what is written, and reads as what was written.
#[test]
fn the_envelope_of_a_sealed_value() {
    let setup = sealing();
    let (payloads, ring) = (texts(&setup), setup.ring.clone().unwrap());
    let header = header(&payloads, EnvelopeHeader::SEALED);
    let nonce = array::from_fn(|at| 0x40 + u8::try_from(at).unwrap());
    let plain = MessagePack.encode(&text()).unwrap();
    let sealed = ring.seal_with(nonce, &payloads.context(KEY, &header, &[], None), &plain).unwrap();
    let unstamped = Envelope::encode(&header, &[], &sealed);
    assert_eq!(golden("envelope-sealed")[0], unstamped);
    check_reading("envelope-sealed", &setup, EnvelopeHeader::SEALED);
}

#[test]
fn the_envelope_of_a_value_that_is_compressed_and_sealed() {
    check_reading("envelope-sealed-lz4", &sealing(), EnvelopeHeader::SEALED | 1);
}

/// As the documentation shows it.
#[test]
fn the_associated_data_of_a_seal() {
    let payloads = texts(&sealing());
    let header = header(&payloads, EnvelopeHeader::SEALED);
    let shown = "4e465301 01 01 80 0000 00000000 00000000 00000005 7465787473 00000002 3432 00000000";
    assert_eq!(payloads.context(KEY, &header, &[], None), from_hex(&shown.replace(' ', "")));
}
