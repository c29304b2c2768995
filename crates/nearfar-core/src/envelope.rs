use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::bytes_in::{BytesIn, wire_len};
use crate::{Moment, Version};

const MAGIC: [u8; 2] = *b"NF";
const FORMAT: u8 = 1;

/// What an envelope holds.
///
/// ```
/// assert_ne!(nearfar_core::Kind::Value, nearfar_core::Kind::Tombstone);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Value,
    /// What an invalidation leaves for the fence window; no payload.
    Tombstone,
    /// A negative entry: the origin has no such thing.
    Absent,
}

impl Kind {
    fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Value),
            2 => Some(Self::Tombstone),
            3 => Some(Self::Absent),
            _ => None,
        }
    }

    /// The byte that stands for it.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Value => 1,
            Self::Tombstone => 2,
            Self::Absent => 3,
        }
    }
}

/// What L2 writes into an envelope when it stores it.
///
/// ```
/// use nearfar_core::{Moment, Stamp, Version};
///
/// let stamp = Stamp::of(Version::new(9), Moment::from_micros(7));
/// assert_eq!((stamp.version.number(), stamp.read_at), (9, stamp.written_at));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The sequence as of which the entry is known true.
    pub version: Version,
    /// When it was stored, or found to be still true, on L2's clock.
    pub written_at: Moment,
    /// When it was last read, as far as anybody has said so; with `idle`, which counts from then.
    pub read_at: Moment,
    /// Whether it was declared stale since, by the change of that version.
    pub expired: bool,
}

impl Stamp {
    /// The highest bit of written-at: no clock gets there.
    const EXPIRED: u64 = 1 << 63;

    /// Of what is stored now, as of a change of that number.
    pub const fn of(version: Version, now: Moment) -> Self {
        Self { version, written_at: now, read_at: now, expired: false }
    }

    fn to_wire(self) -> [u64; 3] {
        let expired = if self.expired { Self::EXPIRED } else { 0 };
        let written_at = self.written_at.micros() & !Self::EXPIRED | expired;
        [self.version.number(), written_at, self.read_at.micros()]
    }

    fn from_wire([version, written_at, read_at]: [u64; 3]) -> Self {
        Self {
            version: Version::new(version),
            written_at: Moment::from_micros(written_at & !Self::EXPIRED),
            read_at: Moment::from_micros(read_at),
            expired: written_at & Self::EXPIRED != 0,
        }
    }

    fn read(input: &mut BytesIn<'_>) -> Option<Self> {
        Some(Self::from_wire([input.u64()?, input.u64()?, input.u64()?]))
    }
}

/// What the writer of an envelope decides; see `docs/wire-format.md` for each byte.
///
/// ```
/// use nearfar_core::{EnvelopeHeader, Kind};
///
/// assert_eq!(EnvelopeHeader::tombstone().kind, Kind::Tombstone);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// What the payload is.
    pub kind: Kind,
    /// Which codec wrote the payload.
    pub codec: u8,
    /// How the payload is compressed, 0 is not at all; with [`SEALED`](Self::SEALED), it is sealed besides.
    pub compression: u8,
    /// How many tags the notes begin with.
    pub tag_count: u16,
    /// Age limit since `written_at`; `None` for no limit. Millisecond precision.
    pub ttl: Option<Duration>,
    /// How long past its end the value may still be served stale. Millisecond precision.
    pub grace: Duration,
    /// Age limit since `read_at`; `None` for no limit. Millisecond precision.
    pub idle: Option<Duration>,
    /// How long the loader took. Microsecond precision, saturating at about 71 minutes.
    pub load_cost: Duration,
    /// Fingerprint of the value's type; entries with another one are misses.
    pub schema: u32,
}

impl EnvelopeHeader {
    /// The bit of `compression` that says that the payload is sealed.
    pub const SEALED: u8 = 0x80;

    /// The header of a tombstone.
    pub const fn tombstone() -> Self {
        Self::of(Kind::Tombstone)
    }

    /// A header of this kind with everything else zero or absent.
    pub const fn of(kind: Kind) -> Self {
        Self {
            kind,
            codec: 0,
            compression: 0,
            tag_count: 0,
            ttl: None,
            grace: Duration::ZERO,
            idle: None,
            load_cost: Duration::ZERO,
            schema: 0,
        }
    }

    /// Whether the payload is sealed.
    pub const fn is_sealed(&self) -> bool {
        self.compression & Self::SEALED != 0
    }

    /// The compression, whether sealed or not.
    pub const fn compression_id(&self) -> u8 {
        self.compression & !Self::SEALED
    }
}

/// The framed bytes of one key in L2.
///
/// A node encodes an envelope without a stamp; L2 stamps it in the same atomic step that stores it.
///
/// ```
/// use nearfar_core::{Envelope, EnvelopeHeader, Kind, Moment, Stamp, Version};
///
/// let header = EnvelopeHeader { codec: 1, ..EnvelopeHeader::of(Kind::Value) };
/// let unstamped = Envelope::encode(&header, &[], b"payload");
/// let stamp = Stamp::of(Version::new(5), Moment::from_micros(70));
///
/// let envelope = Envelope::decode(&Envelope::stamped(&unstamped, stamp)).unwrap();
/// assert_eq!(envelope.stamp, stamp);
/// assert_eq!(envelope.header, header);
/// assert_eq!(&envelope.payload[..], b"payload");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the writer decided.
    pub header: EnvelopeHeader,
    /// What L2 added.
    pub stamp: Stamp,
    /// Tags, and behind them [`Validators`](crate::Validators).
    pub notes: Bytes,
    /// The encoded value.
    pub payload: Bytes,
}

impl Envelope {
    /// Length of the fixed part; notes and payload follow it.
    pub const HEADER_LEN: usize = 76;
    /// Where version, written-at and read-at stand, 24 bytes that the checksum leaves out.
    pub const STAMP_AT: Range<usize> = 8..32;
    /// The first two of them: by these, what stands under a key is told from what stood there before.
    const IDENTITY_AT: Range<usize> = 8..24;
    const CHECKSUM_AT: Range<usize> = 72..76;

    /// The bytes of an envelope whose stamp is still zero.
    ///
    /// # Panics
    /// If notes or payload have 4 GiB or more; callers bound them far below.
    pub fn encode(header: &EnvelopeHeader, notes: &[u8], payload: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(Self::HEADER_LEN + notes.len() + payload.len());
        out.extend(MAGIC);
        out.extend([FORMAT, header.kind.to_wire(), header.codec, header.compression]);
        out.extend(header.tag_count.to_be_bytes());
        out.extend([0; Self::STAMP_AT.end - Self::STAMP_AT.start]);
        out.extend(limit_to_wire(header.ttl).to_be_bytes());
        out.extend(millis(header.grace).to_be_bytes());
        out.extend(limit_to_wire(header.idle).to_be_bytes());
        out.extend(u32::try_from(header.load_cost.as_micros()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(header.schema.to_be_bytes());
        out.extend(wire_len(notes).to_be_bytes());
        let payload_len = u32::try_from(payload.len()).expect("values are bounded before they are framed");
        out.extend(payload_len.to_be_bytes());
        out.extend([0; 4]);
        out.extend_from_slice(notes);
        out.extend_from_slice(payload);
        let checksum = checksum(&out);
        out[Self::CHECKSUM_AT].copy_from_slice(&checksum.to_be_bytes());
        out.into()
    }

    /// The same envelope with L2's stamp. Too short an input comes back unchanged, for `decode` to refuse.
    pub fn stamped(unstamped: &[u8], stamp: Stamp) -> Bytes {
        let mut out = unstamped.to_vec();
        if let Some(place) = out.get_mut(Self::STAMP_AT) {
            for (place, number) in place.chunks_exact_mut(8).zip(stamp.to_wire()) {
                place.copy_from_slice(&number.to_be_bytes());
            }
        }
        out.into()
    }

    /// The same envelope, declared stale by a change; `None` if it is not that of a value that is alive, for which see
    /// [`Head::covers`](crate::Head::covers).
    pub fn expired(bytes: &[u8], is_alive: impl FnOnce(Version) -> bool, by: Version) -> Option<Bytes> {
        (bytes.len() >= Self::HEADER_LEN).then_some(())?;
        Self::peek_version(bytes).filter(|version| is_alive(*version))?;
        let is_value = Kind::from_wire(*bytes.get(3)?)? == Kind::Value;
        let stamp = Stamp::read(&mut BytesIn::new(bytes.get(Self::STAMP_AT)?))?;
        is_value.then(|| Self::stamped(bytes, Stamp { version: by, expired: true, ..stamp }))
    }

    /// The same envelope, read now, and how long it is good for from then on: `None` for ever. `None` altogether if it is
    /// none whose lifetime depends on that.
    pub fn touched(bytes: &[u8], now: Moment) -> Option<(Bytes, Option<Duration>)> {
        let mut input = BytesIn::new(bytes);
        (input.take(MAGIC.len())? == MAGIC && input.u8()? == FORMAT).then_some(())?;
        let Fixed { kind, header, stamp, .. } = Fixed::read(&mut input)?;
        let depends = header.idle.is_some() && !stamp.expired && Kind::from_wire(kind)? == Kind::Value;
        let whole = |limit: Option<Duration>| limit.map(|limit| limit.saturating_add(header.grace));
        let by_ttl = whole(header.ttl).map(|whole| whole.saturating_sub(now.since(stamp.written_at)));
        let left = by_ttl.into_iter().chain(whole(header.idle)).min();
        depends.then(|| (Self::stamped(bytes, Stamp { read_at: now, ..stamp }), left))
    }

    /// What tells the bytes under a key from those that stand there before or after them: version and written-at, as they
    /// are on the wire. What is too short for an envelope has a shorter one, and nothing has none.
    ///
    /// ```
    /// use nearfar_core::{Envelope, EnvelopeHeader, Moment, Stamp, Version};
    ///
    /// let unstamped = Envelope::encode(&EnvelopeHeader::tombstone(), &[], &[]);
    /// let stamped = |version| Envelope::stamped(&unstamped, Stamp::of(Version::new(version), Moment::default()));
    /// assert_ne!(Envelope::identity(&stamped(1)), Envelope::identity(&stamped(2)));
    /// assert!(Envelope::identity(b"").is_empty());
    /// ```
    pub fn identity(bytes: &[u8]) -> &[u8] {
        let Range { start, end } = Self::IDENTITY_AT;
        &bytes[start.min(bytes.len())..end.min(bytes.len())]
    }

    /// The stamped version, without looking at the rest; `None` if these are not the first bytes of an envelope. Every
    /// format has it at this place, so that old and new nodes fence each other's fills.
    pub fn peek_version(bytes: &[u8]) -> Option<Version> {
        let mut input = BytesIn::new(bytes);
        (input.take(MAGIC.len())? == MAGIC).then_some(())?;
        input.take(Self::STAMP_AT.start - MAGIC.len())?;
        input.u64().map(Version::new)
    }

    /// How long the envelope would be if its payload were not compressed, as far as it says itself. For what cannot be
    /// read, as long as it is.
    ///
    /// ```
    /// use nearfar_core::{Envelope, EnvelopeHeader, Kind};
    ///
    /// let header = EnvelopeHeader { compression: 1, ..EnvelopeHeader::of(Kind::Value) };
    /// let bytes = Envelope::encode(&header, &[], b"\0\0\x03\xe8short");
    /// assert_eq!(Envelope::expanded_len(&bytes), Envelope::HEADER_LEN + 1000);
    /// ```
    pub fn expanded_len(bytes: &[u8]) -> usize {
        let expanded = || {
            let mut input = BytesIn::new(bytes);
            input.take(MAGIC.len() + 1)?;
            let Fixed { header, notes_len, .. } = Fixed::read(&mut input)?;
            input.take(notes_len as usize)?;
            let plain_len = if header.compression_id() == 0 { input.len() } else { input.u32()? as usize };
            Self::HEADER_LEN.checked_add(notes_len as usize)?.checked_add(plain_len)
        };
        expanded().unwrap_or(bytes.len())
    }

    /// Reads an envelope. Payload and notes share `bytes`; nothing is copied.
    pub fn decode(bytes: &Bytes) -> Result<Self, EnvelopeError> {
        let mut input = BytesIn::new(bytes);
        let magic = input.take(2).ok_or(EnvelopeError::Truncated)?;
        if magic != MAGIC {
            return Err(EnvelopeError::Foreign);
        }
        let format = input.u8().ok_or(EnvelopeError::Truncated)?;
        if format != FORMAT {
            return Err(EnvelopeError::UnknownFormat { format });
        }
        let fixed = Fixed::read(&mut input).ok_or(EnvelopeError::Truncated)?;
        let (notes_len, payload_len) = (fixed.notes_len as usize, fixed.payload_len as usize);
        if notes_len.checked_add(payload_len) != Some(input.len()) {
            return Err(EnvelopeError::WrongLength);
        }
        if checksum(bytes) != fixed.checksum {
            return Err(EnvelopeError::Corrupt);
        }
        let kind = Kind::from_wire(fixed.kind).ok_or(EnvelopeError::UnknownKind { kind: fixed.kind })?;
        let payload_at = Self::HEADER_LEN + notes_len;
        Ok(Self {
            header: EnvelopeHeader { kind, ..fixed.header },
            stamp: fixed.stamp,
            notes: bytes.slice(Self::HEADER_LEN..payload_at),
            payload: bytes.slice(payload_at..),
        })
    }

    /// What L2 makes of bytes, which checks neither lengths nor the checksum: all that follows the header passes for notes.
    pub(crate) fn unchecked(bytes: &Bytes) -> Option<Self> {
        let mut input = BytesIn::new(bytes);
        (input.take(MAGIC.len())? == MAGIC && input.u8()? == FORMAT).then_some(())?;
        let fixed = Fixed::read(&mut input)?;
        // A kind that nobody knows is at least no value.
        let kind = Kind::from_wire(fixed.kind).unwrap_or(Kind::Tombstone);
        let header = EnvelopeHeader { kind, ..fixed.header };
        let notes = bytes.slice(Self::HEADER_LEN..);
        Some(Self { header, stamp: fixed.stamp, notes, payload: Bytes::new() })
    }
}

/// The fixed part after magic and format, before any of it is believed.
struct Fixed {
    kind: u8,
    header: EnvelopeHeader,
    stamp: Stamp,
    notes_len: u32,
    payload_len: u32,
    checksum: u32,
}

impl Fixed {
    fn read(input: &mut BytesIn<'_>) -> Option<Self> {
        let (kind, codec, compression, tag_count) = (input.u8()?, input.u8()?, input.u8()?, input.u16()?);
        let stamp = Stamp::read(input)?;
        let header = EnvelopeHeader {
            kind: Kind::Value,
            codec,
            compression,
            tag_count,
            ttl: limit_from_wire(input.u64()?),
            grace: Duration::from_millis(input.u64()?),
            idle: limit_from_wire(input.u64()?),
            load_cost: Duration::from_micros(input.u32()?.into()),
            schema: input.u32()?,
        };
        let (notes_len, payload_len, checksum) = (input.u32()?, input.u32()?, input.u32()?);
        Some(Self { kind, header, stamp, notes_len, payload_len, checksum })
    }
}

/// CRC-32 of everything but the stamp and the checksum itself. Call with at least a whole header.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..Envelope::STAMP_AT.start]);
    hasher.update(&bytes[Envelope::STAMP_AT.end..Envelope::CHECKSUM_AT.start]);
    hasher.update(&bytes[Envelope::CHECKSUM_AT.end..]);
    hasher.finalize()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Zero on the wire means "no limit", so a limit under a millisecond is rounded up to one.
fn limit_to_wire(limit: Option<Duration>) -> u64 {
    limit.map_or(0, |limit| millis(limit).max(1))
}

fn limit_from_wire(millis: u64) -> Option<Duration> {
    (millis != 0).then(|| Duration::from_millis(millis))
}

/// Why bytes in L2 are not a readable envelope. Every one of these is a miss for the caller.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Envelope, EnvelopeError};
///
/// let foreign = Envelope::decode(&Bytes::from_static(b"hello, from another program"));
/// assert_eq!(foreign, Err(EnvelopeError::Foreign));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Fewer bytes than a header has.
    Truncated,
    /// Not written by nearfar.
    Foreign,
    /// Written by another generation of nearfar.
    UnknownFormat {
        /// The format number found.
        format: u8,
    },
    /// A kind that this version does not know.
    UnknownKind {
        /// The kind found.
        kind: u8,
    },
    /// The lengths in the header do not add up to the length of the bytes.
    WrongLength,
    /// The checksum differs.
    Corrupt,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the envelope is truncated"),
            Self::Foreign => write!(f, "the bytes are not an envelope"),
            Self::UnknownFormat { format } => write!(f, "envelope format {format} is unknown"),
            Self::UnknownKind { kind } => write!(f, "envelope kind {kind} is unknown"),
            Self::WrongLength => write!(f, "the envelope's lengths do not add up"),
            Self::Corrupt => write!(f, "the envelope's checksum differs"),
        }
    }
}

impl std::error::Error for EnvelopeError {}
