//! Bytes from a shared store may be anything: decoding gives the value that was encoded, or an error, and never panics.

use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::Settings;
use nearfar_core::{
    BeatId, Echo, Envelope, EnvelopeError, EnvelopeHeader, Kind, Message, MessageBody, Moment, NodeId, Stamp,
    Version,
};
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Value), Just(Kind::Tombstone), Just(Kind::Absent)]
}

fn bytes(max_len: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max_len).prop_map(Bytes::from)
}

prop_compose! {
    fn headers()(
        kind in kinds(),
        (codec, compression, tag_count, schema) in any::<(u8, u8, u16, u32)>(),
        (ttl, idle) in (prop::option::of(1..u64::MAX), prop::option::of(1..u64::MAX)),
        (grace, load_cost) in any::<(u64, u32)>(),
    ) -> EnvelopeHeader {
        EnvelopeHeader {
            kind,
            codec,
            compression,
            tag_count,
            ttl: ttl.map(Duration::from_millis),
            grace: Duration::from_millis(grace),
            idle: idle.map(Duration::from_millis),
            load_cost: Duration::from_micros(load_cost.into()),
            schema,
        }
    }
}

prop_compose! {
    fn stamps()(
        (version, written_at, read_at, expired) in (any::<u64>(), 0..1u64 << 63, any::<u64>(), any::<bool>()),
    ) -> Stamp {
        let [written_at, read_at] = [written_at, read_at].map(Moment::from_micros);
        Stamp { version: Version::new(version), written_at, read_at, expired }
    }
}

fn bodies() -> impl Strategy<Value = MessageBody> {
    prop_oneof![
        prop::collection::vec(bytes(40), 0..20).prop_map(MessageBody::Keys),
        prop::collection::vec(bytes(40), 0..20).prop_map(MessageBody::Expired),
        Just(MessageBody::Clear)
    ]
}

proptest! {
    #[test]
    fn an_envelope_comes_back_as_it_was(
        header in headers(), stamp in stamps(), notes in bytes(50), payload in bytes(300),
    ) {
        let encoded = Envelope::stamped(&Envelope::encode(&header, &notes, &payload), stamp);
        prop_assert_eq!(Envelope::peek_version(&encoded), Some(stamp.version));
        prop_assert_eq!(Envelope::decode(&encoded), Ok(Envelope { header, stamp, notes, payload }));
    }

    #[test]
    fn a_changed_envelope_is_refused_wherever_the_change_is(
        header in headers(), payload in bytes(100), at in any::<prop::sample::Index>(), flip in 1..=u8::MAX,
    ) {
        let mut encoded = Envelope::encode(&header, &[], &payload).to_vec();
        let at = at.index(encoded.len());
        encoded[at] ^= flip;
        let decoded = Envelope::decode(&encoded.into());
        // The stamp is the store's: no checksum of the writer can cover it.
        prop_assert_eq!(decoded.is_ok(), Envelope::STAMP_AT.contains(&at));
    }

    #[test]
    fn a_truncated_envelope_is_refused(
        header in headers(), payload in bytes(100), cut in any::<prop::sample::Index>(),
    ) {
        let encoded = Envelope::encode(&header, &[], &payload);
        let cut = cut.index(encoded.len());
        prop_assert!(Envelope::decode(&encoded.slice(..cut)).is_err());
    }

    #[test]
    fn a_message_comes_back_as_it_was(
        (sequence, previous, origin) in any::<(u64, u64, u64)>(), body in bodies(),
    ) {
        let (sequence, previous) = (Version::new(sequence), Version::new(previous));
        let origin = NodeId::new(origin);
        let frame = Message::stamped(&Message::encode(origin, &body), sequence, previous);
        prop_assert_eq!(Message::decode(&frame), Ok(Message { sequence, previous, origin, body }));
    }

    #[test]
    fn a_truncated_or_padded_message_is_refused(
        body in bodies(), cut in any::<prop::sample::Index>(), padding in 1..9_usize,
    ) {
        let frame = Message::encode(NodeId::new(1), &body);
        prop_assert!(Message::decode(&frame.slice(..cut.index(frame.len()))).is_err());
        let padded = [&frame[..], &vec![0; padding]].concat();
        prop_assert!(Message::decode(&padded.into()).is_err());
    }

    #[test]
    fn an_echo_comes_back_as_it_was((beat, sequence, time) in any::<(u64, u64, u64)>()) {
        let echo = Echo {
            beat: BeatId::new(beat),
            sequence: Version::new(sequence),
            time: Moment::from_micros(time),
        };
        let frame = echo.encode();
        prop_assert_eq!(Echo::decode(&frame), Ok(echo));
        prop_assert!(Echo::decode(&frame[..frame.len() - 1]).is_err());
    }

    #[test]
    fn settings_come_back_as_they_were((partitions, window) in any::<(u16, u64)>()) {
        let settings = Settings { partitions, fence_window: Duration::from_millis(window) };
        prop_assert_eq!(Settings::decode(&settings.encode()), Some(settings));
    }

    /// The stable counterpart of a fuzz target: anything at all, and anything behind a plausible beginning.
    #[test]
    fn nothing_panics(noise in bytes(400), text in ".*", frame_kind in 0..4_u8) {
        let plausible = |beginning: &[u8]| Bytes::from([beginning, &noise].concat());
        let _ = Settings::decode(&text);
        for input in [
            noise.clone(),
            plausible(&[b'N', b'F', 1, frame_kind]),
            plausible(&[b'N', b'M', 1, frame_kind]),
            plausible(&[b'N', b'E', 1, frame_kind]),
        ] {
            let _ = (Envelope::decode(&input), Envelope::peek_version(&input), Envelope::expanded_len(&input));
            let _ = (Message::decode(&input), Echo::decode(&input));
            let _ = (Envelope::stamped(&input, Stamp::default()), Message::stamped(&input, Version::new(1), Version::new(1)));
        }
    }
}

/// A count that the frame cannot hold must not be believed: it would reserve gigabytes.
#[test]
fn lengths_are_checked_before_anything_is_allocated() {
    let mut message =
        Message::encode(NodeId::new(1), &MessageBody::Keys(vec![Bytes::from_static(b"k")])).to_vec();
    message[28..32].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(Message::decode(&message.into()).is_err());

    let mut envelope = Envelope::encode(&EnvelopeHeader::of(Kind::Value), &[], b"v").to_vec();
    envelope[64..68].copy_from_slice(&u32::MAX.to_be_bytes());
    envelope[68..72].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(Envelope::decode(&envelope.into()), Err(EnvelopeError::WrongLength));
}
