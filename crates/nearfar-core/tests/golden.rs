//! The bytes that `docs/wire-format.md` promises, kept in `docs/golden/` for programs in other languages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{
    BeatId, Echo, Envelope, EnvelopeHeader, Kind, Message, MessageBody, Moment, NodeId, Notice, Stamp,
    Validators, Version,
};

const ORIGIN: NodeId = NodeId::new(0x0123_4567_89ab_cdef);

/// The lines of bytes in a golden file.
fn golden(name: &str) -> Vec<Bytes> {
    let path = format!("{}/../../docs/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(from_hex).collect()
}

fn from_hex(line: &str) -> Bytes {
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

/// Both ways: what is in the file is what is written, and reads as what was written.
fn check_envelope(name: &str, envelope: &Envelope) {
    let unstamped = Envelope::encode(&envelope.header, &envelope.notes, &envelope.payload);
    let stamped = Envelope::stamped(&unstamped, envelope.stamp);
    assert_eq!(golden(name), [unstamped, stamped.clone()]);
    assert_eq!(Envelope::decode(&stamped).as_ref(), Ok(envelope));
}

fn check_message(name: &str, message: &Message) {
    let unstamped = Message::encode(message.origin, &message.body);
    let stamped = Message::stamped(&unstamped, message.sequence, message.previous);
    assert_eq!(golden(name), [unstamped, stamped.clone()]);
    assert_eq!(Message::decode(&stamped).as_ref(), Ok(message));
}

#[test]
fn the_envelope_of_a_value() {
    let header = EnvelopeHeader {
        codec: 1,
        ttl: Some(Duration::from_secs(300)),
        load_cost: Duration::from_micros(1500),
        ..EnvelopeHeader::of(Kind::Value)
    };
    let written_at = Moment::from_micros(1_760_000_000_250_000);
    let stamp = Stamp::of(Version::new(1_760_000_000_000_001), written_at);
    let payload = Bytes::from_static(b"\x82\xa4name\xa3Ada\xa6logins\x03");
    check_envelope("envelope-value", &Envelope { header, stamp, notes: Bytes::new(), payload });
}

#[test]
fn the_envelope_of_a_value_with_validators_that_is_touched() {
    let header = EnvelopeHeader {
        codec: 1,
        ttl: Some(Duration::from_secs(300)),
        idle: Some(Duration::from_secs(900)),
        grace: Duration::from_secs(60),
        load_cost: Duration::from_micros(1500),
        ..EnvelopeHeader::of(Kind::Value)
    };
    let validators = Validators {
        etag: Some("v7".into()),
        last_modified: Some(Moment::from_micros(1_760_000_000_000_000)),
    };
    let stamp = Stamp {
        read_at: Moment::from_micros(1_760_000_000_750_000),
        ..Stamp::of(Version::new(1_760_000_000_000_001), Moment::from_micros(1_760_000_000_250_000))
    };
    let payload = Bytes::from_static(b"\x82\xa4name\xa3Ada\xa6logins\x03");
    let envelope = Envelope { header, stamp, notes: validators.encode().into(), payload };
    check_envelope("envelope-validators", &envelope);
    assert_eq!(Validators::of(&envelope), Some(validators));
}

#[test]
fn the_envelope_of_a_tombstone() {
    let written_at = Moment::from_micros(1_760_000_001_000_000);
    let stamp = Stamp::of(Version::new(1_760_000_001_000_000), written_at);
    let header = EnvelopeHeader::tombstone();
    check_envelope(
        "envelope-tombstone",
        &Envelope { header, stamp, notes: Bytes::new(), payload: Bytes::new() },
    );
}

#[test]
fn the_messages() {
    check_message(
        "message-keys",
        &Message {
            sequence: Version::new(1_760_000_001_000_000),
            previous: Version::new(1_760_000_000_000_001),
            origin: ORIGIN,
            body: MessageBody::Keys(vec!["42".into(), "user 7".into()]),
        },
    );
    check_message(
        "message-clear",
        &Message {
            sequence: Version::new(1_760_000_002_000_000),
            previous: Version::new(1_760_000_001_000_000),
            origin: ORIGIN,
            body: MessageBody::Clear,
        },
    );
}

#[test]
fn the_echo() {
    let echo = Echo {
        beat: BeatId::new(7),
        sequence: Version::new(1_760_000_002_000_000),
        time: Moment::from_micros(1_760_000_002_500_000),
    };
    assert_eq!(golden("echo"), [echo.encode()]);
    assert_eq!(Echo::decode(&echo.encode()), Ok(echo));
}

#[test]
fn the_notice() {
    let notice = Notice { key: "user 7".into() };
    assert_eq!(golden("notice"), [notice.encode()]);
    assert_eq!(Notice::decode(&notice.encode()), Ok(notice));
}
