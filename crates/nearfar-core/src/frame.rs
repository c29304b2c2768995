use std::fmt;

use bytes::Bytes;

use crate::bytes_in::{BytesIn, wire_len};
use crate::{MAX_KEY_LEN, Moment, Version};

const MESSAGE_MAGIC: [u8; 2] = *b"NM";
const ECHO_MAGIC: [u8; 2] = *b"NE";
const NOTICE_MAGIC: [u8; 2] = *b"NN";
const FORMAT: u8 = 1;

const KIND_KEYS: u8 = 1;
const KIND_CLEAR: u8 = 2;
const KIND_EXPIRED: u8 = 3;
const KIND_TAGS: u8 = 4;
const KIND_EXPIRED_TAGS: u8 = 5;

/// Which node sent something; drawn at random when a node starts.
///
/// ```
/// let id = nearfar_core::NodeId::new(255);
/// assert_eq!(id.to_string(), "00000000000000ff");
/// assert_eq!(nearfar_core::NodeId::parse("00000000000000ff"), Some(id));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// An id from its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Reads an id as it is written: sixteen hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?.map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What one change of truth tells the other nodes.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::MessageBody;
///
/// assert_eq!(MessageBody::Keys(vec![Bytes::from_static(b"k")]).names().len(), 1);
/// assert!(MessageBody::Clear.names().is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// These keys changed: copies with a smaller version are wrong.
    Keys(Vec<Bytes>),
    /// Every entry with a smaller version is dead.
    Clear,
    /// These keys were declared stale: copies with a smaller version are good for nothing but a fallback.
    Expired(Vec<Bytes>),
    /// Entries that carry one of these tags and have a smaller version are dead.
    Tags(Vec<Bytes>),
    /// Entries that carry one of these tags and have a smaller version are stale.
    ExpiredTags(Vec<Bytes>),
}

impl MessageBody {
    /// The keys, or tags, that it names.
    pub fn names(&self) -> &[Bytes] {
        match self {
            Self::Keys(names) | Self::Expired(names) | Self::Tags(names) | Self::ExpiredTags(names) => names,
            Self::Clear => &[],
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Keys(_) => KIND_KEYS,
            Self::Clear => KIND_CLEAR,
            Self::Expired(_) => KIND_EXPIRED,
            Self::Tags(_) => KIND_TAGS,
            Self::ExpiredTags(_) => KIND_EXPIRED_TAGS,
        }
    }
}

/// One invalidation on the bus and in the log.
///
/// `previous` links each message to the one before it, so that a receiver sees a loss, and a history that forked, at
/// the first message after it.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Message, MessageBody, NodeId, Version};
///
/// let body = MessageBody::Keys(vec![Bytes::from_static(b"user 1")]);
/// let unstamped = Message::encode(NodeId::new(3), &body);
/// let frame = Message::stamped(&unstamped, Version::new(9), Version::new(8));
///
/// let message = Message::decode(&frame).unwrap();
/// assert_eq!((message.sequence, message.previous), (Version::new(9), Version::new(8)));
/// assert_eq!((message.origin, message.body), (NodeId::new(3), body));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of this change.
    pub sequence: Version,
    /// The number of the change before it.
    pub previous: Version,
    /// Who made the change.
    pub origin: NodeId,
    /// What changed.
    pub body: MessageBody,
}

impl Message {
    /// Where sequence and previous stand: 16 bytes that L2 fills in.
    pub const STAMP_AT: std::ops::Range<usize> = 4..20;

    /// The bytes of a message whose sequence is still zero.
    ///
    /// # Panics
    /// If a key has 4 GiB or more; callers bound keys by [`MAX_KEY_LEN`].
    pub fn encode(origin: NodeId, body: &MessageBody) -> Bytes {
        let keys = body.names();
        let len = 32 + keys.iter().map(|key| 4 + key.len()).sum::<usize>();
        let mut out = Vec::with_capacity(len);
        out.extend(MESSAGE_MAGIC);
        out.extend([FORMAT, body.kind()]);
        out.extend([0; 16]);
        out.extend(origin.number().to_be_bytes());
        let count = u32::try_from(keys.len()).expect("batches are bounded before they are framed");
        out.extend(count.to_be_bytes());
        for key in keys {
            out.extend(wire_len(key).to_be_bytes());
            out.extend_from_slice(key);
        }
        out.into()
    }

    /// The same message with the numbers that L2 gave it.
    pub fn stamped(unstamped: &[u8], sequence: Version, previous: Version) -> Bytes {
        let mut out = unstamped.to_vec();
        if let Some(place) = out.get_mut(Self::STAMP_AT) {
            place[..8].copy_from_slice(&sequence.number().to_be_bytes());
            place[8..].copy_from_slice(&previous.number().to_be_bytes());
        }
        out.into()
    }

    /// Reads a message. Keys share `frame`; nothing is copied.
    pub fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let mut input = BytesIn::new(frame);
        let kind = kind_of(&mut input, MESSAGE_MAGIC)?;
        let message = Self::read(&mut input, frame, kind).ok_or(FrameError::Malformed)??;
        if input.len() == 0 { Ok(message) } else { Err(FrameError::Malformed) }
    }

    /// Whether L2 can have given these numbers.
    pub fn is_plausible(&self) -> bool {
        self.previous < self.sequence && self.sequence <= Version::GREATEST
    }

    fn read(input: &mut BytesIn<'_>, frame: &Bytes, kind: u8) -> Option<Result<Self, FrameError>> {
        let (sequence, previous) = (Version::new(input.u64()?), Version::new(input.u64()?));
        let (origin, count) = (NodeId::new(input.u64()?), input.u32()?);
        let body = match kind {
            KIND_KEYS => MessageBody::Keys(read_keys(input, frame, count)?),
            KIND_CLEAR if count == 0 => MessageBody::Clear,
            KIND_EXPIRED => MessageBody::Expired(read_keys(input, frame, count)?),
            KIND_TAGS => MessageBody::Tags(read_keys(input, frame, count)?),
            KIND_EXPIRED_TAGS => MessageBody::ExpiredTags(read_keys(input, frame, count)?),
            _ => return Some(Err(FrameError::UnknownKind { kind })),
        };
        Some(Ok(Self { sequence, previous, origin, body }))
    }
}

fn read_keys(input: &mut BytesIn<'_>, frame: &Bytes, count: u32) -> Option<Vec<Bytes>> {
    // Each key takes at least its length field, so a count that the frame cannot hold is refused before it is believed.
    let count = usize::try_from(count).ok().filter(|count| count.saturating_mul(4) <= input.len())?;
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::try_from(input.u32()?).ok().filter(|&len| len <= MAX_KEY_LEN)?;
        keys.push(frame.slice_ref(input.take(len)?));
    }
    Some(keys)
}

/// Which beat of a node an echo answers.
///
/// ```
/// assert!(nearfar_core::BeatId::new(2) > nearfar_core::BeatId::new(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BeatId(u64);

impl BeatId {
    /// An id from its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A node's own beat, come back through the bus: at this point of the queue of messages, the partition stood at
/// `sequence`.
///
/// ```
/// use nearfar_core::{BeatId, Echo, Moment, Version};
///
/// let echo = Echo { beat: BeatId::new(1), sequence: Version::new(7), time: Moment::from_micros(3) };
/// assert_eq!(Echo::decode(&echo.encode()), Ok(echo));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Echo {
    /// The beat that it answers.
    pub beat: BeatId,
    /// The partition's sequence when the beat was executed.
    pub sequence: Version,
    /// When the beat was executed, on L2's clock.
    pub time: Moment,
}

impl Echo {
    /// The bytes of this echo.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(28);
        out.extend(ECHO_MAGIC);
        out.extend([FORMAT, 0]);
        out.extend(self.beat.number().to_be_bytes());
        out.extend(self.sequence.number().to_be_bytes());
        out.extend(self.time.micros().to_be_bytes());
        out.into()
    }

    /// Reads an echo.
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let mut input = BytesIn::new(frame);
        kind_of(&mut input, ECHO_MAGIC)?;
        let echo = Self::read(&mut input).ok_or(FrameError::Malformed)?;
        if input.len() == 0 { Ok(echo) } else { Err(FrameError::Malformed) }
    }

    fn read(input: &mut BytesIn<'_>) -> Option<Self> {
        Some(Self {
            beat: BeatId::new(input.u64()?),
            sequence: Version::new(input.u64()?),
            time: Moment::from_micros(input.u64()?),
        })
    }
}

/// The claim of a key that this node waits for was released; comes through the channel of its echoes.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::Notice;
///
/// let notice = Notice { key: Bytes::from_static(b"user 1") };
/// assert_eq!(Notice::decode(&notice.encode()), Ok(notice));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The encoded key.
    pub key: Bytes,
}

impl Notice {
    /// The bytes of this notice.
    ///
    /// # Panics
    /// If the key has 4 GiB or more; callers bound keys by [`MAX_KEY_LEN`].
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(8 + self.key.len());
        out.extend(NOTICE_MAGIC);
        out.extend([FORMAT, 0]);
        out.extend(wire_len(&self.key).to_be_bytes());
        out.extend_from_slice(&self.key);
        out.into()
    }

    /// Reads a notice. The key shares `frame`; nothing is copied.
    pub fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let mut input = BytesIn::new(frame);
        kind_of(&mut input, NOTICE_MAGIC)?;
        let keys = read_keys(&mut input, frame, 1).filter(|_| input.len() == 0);
        let key = keys.and_then(|mut keys| keys.pop()).ok_or(FrameError::Malformed)?;
        Ok(Self { key })
    }
}

fn kind_of(input: &mut BytesIn<'_>, magic: [u8; 2]) -> Result<u8, FrameError> {
    if input.take(2).ok_or(FrameError::Malformed)? != magic {
        return Err(FrameError::Foreign);
    }
    let format = input.u8().ok_or(FrameError::Malformed)?;
    if format != FORMAT {
        return Err(FrameError::UnknownFormat { format });
    }
    input.u8().ok_or(FrameError::Malformed)
}

/// Why bytes on the bus are not a readable frame. Every one of these means that a message may be missing.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{FrameError, Message};
///
/// assert_eq!(Message::decode(&Bytes::from_static(b"hello")), Err(FrameError::Foreign));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
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
    /// Too short, too long, or with lengths that do not add up.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "the bytes are not a frame"),
            Self::UnknownFormat { format } => write!(f, "frame format {format} is unknown"),
            Self::UnknownKind { kind } => write!(f, "message kind {kind} is unknown"),
            Self::Malformed => write!(f, "the frame's lengths do not add up"),
        }
    }
}

impl std::error::Error for FrameError {}
