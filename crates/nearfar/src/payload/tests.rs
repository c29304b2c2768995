//! What goes in comes out, and nothing else does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod golden;
mod round_trips;
mod seals;

use bytes::Bytes;
use nearfar_core::{Envelope, EnvelopeHeader, Kind, Namespace};
use serde::{Deserialize, Serialize};

use crate::codec::{Codec, MessagePack};
use crate::compression::Compression;
use crate::options::Options;
use crate::payload::{Payloads, Unreadable};
use crate::seal::KeyRing;

const KEY: &[u8] = b"42";
const NOTES: &[u8] = b"\0\0\0\0\0\0\0\0\0\0\0\x02v7";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    id: u64,
    name: String,
    parts: Vec<Option<i32>>,
}

impl Row {
    /// One that gets smaller.
    fn long() -> Self {
        Self { id: 7, name: "all work and no play ".repeat(20), parts: vec![Some(-1), None] }
    }
}

/// How a node is set up.
#[derive(Clone, Debug)]
struct Setup {
    namespace: &'static str,
    options: Options,
    ring: Option<KeyRing>,
}

impl Setup {
    fn plain() -> Self {
        Self { namespace: "rows", options: Options::default(), ring: None }
    }

    fn compressed(compression: Compression) -> Self {
        Self::plain().compression(Some(compression.above(0)))
    }

    fn sealed() -> Self {
        Self::plain().ring(ring())
    }

    fn compression(mut self, compression: Option<Compression>) -> Self {
        self.options.compression = compression;
        self
    }

    fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.options.max_value_bytes = bytes;
        self
    }

    fn schema(mut self, number: u32) -> Self {
        self.options.schema = number;
        self
    }

    fn ring(mut self, ring: KeyRing) -> Self {
        self.ring = Some(ring);
        self
    }

    fn payloads<V: 'static>(&self, codec: impl Codec<V>) -> Payloads<V> {
        let namespace = Namespace::new(self.namespace).unwrap();
        Payloads::new(&namespace, &self.options, Box::new(codec), self.ring.clone())
    }

    fn rows(&self) -> Payloads<Row> {
        self.payloads(MessagePack)
    }
}

fn ring() -> KeyRing {
    KeyRing::new(1, [1; 32])
}

fn write<V: 'static>(payloads: &Payloads<V>, value: Option<&V>) -> Bytes {
    let kind = if value.is_some() { Kind::Value } else { Kind::Absent };
    payloads.envelope(KEY, &payloads.header(kind), NOTES, value).unwrap()
}

/// As the engine reads.
fn read<V: 'static>(payloads: &Payloads<V>, bytes: &Bytes) -> Result<Option<V>, Unreadable> {
    read_at(payloads, KEY, bytes)
}

fn read_at<V: 'static>(payloads: &Payloads<V>, key: &[u8], bytes: &Bytes) -> Result<Option<V>, Unreadable> {
    let envelope = Envelope::decode(bytes).map_err(|_| Unreadable::Damaged)?;
    payloads.understands(&envelope.header)?;
    payloads.open(key, &envelope)
}

/// Frames a payload anew, with a checksum that is right.
fn reframed(envelope: &Envelope, header: &EnvelopeHeader, payload: &[u8]) -> Bytes {
    Envelope::encode(header, &envelope.notes, payload)
}
