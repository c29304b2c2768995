//! The seams: what nearfar asks of a shared store and of a bus.
//!
//! `nearfar-redis` implements both on Redis, `nearfar` has an in-process pair for tests and single-process use, and a
//! wrapper around either is the way to inject faults. A backend makes no decision about coherence: it executes the
//! atomic steps that [`Partition`](crate::Partition) defines, and it reports every doubt.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    BeatId, BeatReply, Change, Claim, ClaimOutcome, Doubt, Fill, FillOutcome, Holder, Moment, Namespace,
    NodeId, PartitionId, Reading, Refusal, Renewal, Snapshot, TagMark, Version,
};

/// The shared store. Every operation is bounded in time by the backend itself.
///
/// # Cancel safety
/// Dropping a future leaves it unknown whether the operation took place.
#[async_trait]
pub trait L2: fmt::Debug + Send + Sync + 'static {
    /// How many partitions a namespace has here unless its owner says otherwise.
    fn default_partitions(&self) -> u16 {
        1
    }

    /// Which server has a partition now, as far as is known. A store of one server has the default one for all.
    fn server_of(&self, _partition: &PartitionId) -> ServerId {
        ServerId::default()
    }

    /// Records the settings of a namespace if nobody has, and returns what is recorded.
    async fn open(&self, namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error>;

    /// Reads keys and the partition's head in one atomic step.
    async fn read_many(&self, partition: &PartitionId, keys: &[Bytes]) -> Result<Reading, L2Error>;

    /// Reads a key and the partition's head in one atomic step.
    async fn read(&self, partition: &PartitionId, key: &Bytes) -> Result<Snapshot, L2Error> {
        let reading = self.read_many(partition, std::slice::from_ref(key)).await?;
        reading.snapshots().next().ok_or(L2Error::Unexpected)
    }

    /// Applies a change of truth and publishes its message in one atomic step; returns its number.
    async fn change(&self, partition: &PartitionId, change: Change) -> Result<Version, L2Error>;

    /// Stores loaded values in one atomic step, each unless something newer is there, be it of this very step. What became of
    /// each is told in their order.
    async fn fill_many(&self, partition: &PartitionId, fills: Vec<Fill>)
    -> Result<Vec<FillOutcome>, L2Error>;

    /// Stores a loaded value unless something newer is there.
    async fn fill(&self, partition: &PartitionId, fill: Fill) -> Result<FillOutcome, L2Error> {
        self.fill_many(partition, vec![fill]).await?.pop().ok_or(L2Error::Unexpected)
    }

    /// The last changes of these tags, in their order; what is not known of a tag any more counts as wrong.
    async fn tag_marks(&self, partition: &PartitionId, tags: &[Bytes]) -> Result<Vec<TagMark>, L2Error>;

    /// Looks at some of what stands in a partition, and gives back the memory of what is dead and fences no more.
    async fn purge(
        &self,
        partition: &PartitionId,
        from: PurgeCursor,
        fence_window: Duration,
    ) -> Result<Purged, L2Error>;

    /// Keeps what stands under a key for longer, unless something else stands there by now.
    async fn renew(&self, partition: &PartitionId, renewal: Renewal) -> Result<FillOutcome, L2Error>;

    /// Notes that a value was read, if its lifetime depends on that. It stays for the fence window at least.
    async fn touch(
        &self,
        partition: &PartitionId,
        key: &Bytes,
        fence_window: Duration,
    ) -> Result<(), L2Error>;

    /// Grants a node the right to load a key, unless another has it or it was just loaded.
    async fn claim(&self, partition: &PartitionId, claim: Claim) -> Result<ClaimOutcome, L2Error>;

    /// Ends a claim, if this holder has it, and sends each node that waits a [`Notice`](crate::Notice), through the
    /// channel of its echoes.
    async fn release(&self, partition: &PartitionId, key: &Bytes, holder: Holder) -> Result<(), L2Error>;

    /// The messages that the log has kept with numbers from `since` to `until`, both included, oldest first.
    async fn log(
        &self,
        partition: &PartitionId,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error>;

    /// Registers the node as live and publishes an echo to it, in one atomic step that writes.
    async fn beat(&self, partition: &PartitionId, beat: &Beat) -> Result<BeatReply, L2Error>;

    /// The live nodes of a partition, each with the moment of its last beat on L2's clock.
    async fn nodes(&self, partition: &PartitionId) -> Result<Vec<(NodeId, Moment)>, L2Error>;

    /// Takes the node off the partition's list of live ones.
    async fn leave(&self, partition: &PartitionId, node: NodeId) -> Result<(), L2Error>;

    /// Replaces the connections to a server, which have stopped proving anything.
    fn reconnect(&self, server: ServerId);

    /// Closes the connections. Later operations fail with [`L2Error::Closed`].
    async fn close(&self);

    /// Begins to tell what is done to the keys of these partitions by others than nodes. `None` if the store cannot. Must be
    /// called inside the runtime. Nodes have different `spread`s, so that not all of them do the same at once.
    fn foreign_writes(&self, _partitions: &[PartitionId], _spread: u64) -> Option<Box<dyn ForeignWrites>> {
        None
    }
}

/// What others than nodes do to a store's keys, as far as it tells. Dropping it ends it.
#[async_trait]
pub trait ForeignWrites: fmt::Debug + Send + 'static {
    /// What is known next. `None` when the store was closed.
    async fn next(&mut self) -> Option<ForeignWrite>;
}

/// Something that others than nodes have done to a store's keys, or may have.
///
/// ```
/// use nearfar_core::backend::ForeignWrite;
///
/// let deleted = ForeignWrite::Unexplained(vec![b"42".as_slice().into()]);
/// assert_ne!(deleted, ForeignWrite::Missed);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignWrite {
    /// Everything may have been written to until now, and nobody was told: no copy of it is worth anything.
    Missed,
    /// From now on, all that is done in all partitions is told, until the next [`Missed`](Self::Missed).
    Complete,
    /// Copies of these keys may be older than what stands in the store.
    Replaced(Vec<Bytes>),
    /// These keys are to be invalidated: somebody has changed them and told nobody.
    Unexplained(Vec<Bytes>),
    /// A server refuses to tell. It is asked again.
    Refused(Arc<str>),
}

/// The subscription to the messages of a node's partitions, and to the echoes of its own beats.
#[async_trait]
pub trait Bus: fmt::Debug + Send + 'static {
    /// Asks for the messages of a partition and the echoes of this node in it. Does not wait for the server: only an
    /// echo proves a subscription. Messages and echoes of a partition must come through **one** first-in-first-out
    /// connection.
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId);

    /// Gives up a partition.
    fn unsubscribe(&mut self, partition: &PartitionId, node: NodeId);

    /// Replaces the connection to a server, which has stopped proving anything; a [`BusEvent::Doubt`] follows.
    fn reconnect(&mut self, server: ServerId);

    /// The next event, in the order of its connection. `None`, again and again, when the bus is closed for good.
    ///
    /// # Cancel safety
    /// No event is lost if the future is dropped.
    async fn next(&mut self) -> Option<BusEvent>;

    /// About how many messages and echoes have come in for which nobody has asked yet. 0 if the bus does not know.
    fn backlog(&self) -> usize {
        0
    }
}

/// What a bus delivers.
///
/// ```
/// use nearfar_core::{Doubt, backend::BusEvent};
///
/// let event = BusEvent::Doubt(Doubt::Disconnected);
/// assert_ne!(event, BusEvent::Subscribed);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// The bytes of a [`Message`](crate::Message).
    Message {
        /// Of which partition.
        partition: PartitionId,
        /// The frame; not checked yet.
        frame: Bytes,
    },
    /// The bytes of an [`Echo`](crate::Echo) of this node, or of a [`Notice`](crate::Notice) to it.
    Echo {
        /// Of which partition.
        partition: PartitionId,
        /// The frame; not checked yet.
        frame: Bytes,
    },
    /// Messages may be missing, in every partition.
    Doubt(Doubt),
    /// Messages may be missing, in these partitions alone.
    DoubtIn(Vec<PartitionId>, Doubt),
    /// The subscriptions have probably just been made: a good moment for a beat.
    Subscribed,
    /// The server refuses the subscription to a partition, so no echo will come until it is asked again and allows it.
    Refused {
        /// Which partition.
        partition: PartitionId,
        /// What to tell whoever waits for the proof.
        reason: Arc<str>,
    },
}

/// One server of the shared store. What becomes of its connections concerns the partitions that it has.
///
/// ```
/// use nearfar_core::backend::ServerId;
///
/// assert_eq!(ServerId::default(), ServerId::new(0));
/// assert_eq!(ServerId::new(3).number(), 3);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u32);

impl ServerId {
    /// A server, by a number that the backend gives it.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// That number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A node's sign of life.
///
/// ```
/// use nearfar_core::{BeatId, NodeId, backend::Beat};
/// use std::time::Duration;
///
/// let beat = Beat { node: NodeId::new(1), id: BeatId::new(1), forget_after: Duration::from_secs(60) };
/// assert_eq!(beat.id.number(), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whose.
    pub node: NodeId,
    /// Which.
    pub id: BeatId,
    /// Nodes that were silent for so long are taken off the list of live ones.
    pub forget_after: Duration,
}

/// Where a purge goes on; the default is where it begins.
///
/// ```
/// assert_eq!(nearfar_core::backend::PurgeCursor::default().number(), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeCursor(u64);

impl PurgeCursor {
    /// A place, by a number that the backend gives it. 0 is the beginning.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// That number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What one step of a purge has done.
///
/// ```
/// assert!(nearfar_core::backend::Purged::default().next.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many of the partition's entries it looked at.
    pub examined: u64,
    /// How many of them are gone.
    pub removed: u64,
    /// Where it goes on; `None` at the end.
    pub next: Option<PurgeCursor>,
}

/// What all nodes of a namespace must agree on.
///
/// ```
/// use nearfar_core::backend::Settings;
/// use std::time::Duration;
///
/// let settings = Settings { partitions: 1, fence_window: Duration::from_secs(60) };
/// assert_eq!(Settings::decode(&settings.encode()), Some(settings));
/// assert_eq!(Settings::decode("format=9"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many partitions the namespace has.
    pub partitions: u16,
    /// How long tombstones and values fence. Millisecond precision.
    pub fence_window: Duration,
}

impl Settings {
    /// The most partitions that a namespace may have: each is beaten for.
    pub const MAX_PARTITIONS: u16 = 1024;

    const FORMAT: &'static str = "format=1";

    /// The recorded form, which people can read.
    pub fn encode(&self) -> String {
        let window = self.fence_window.as_millis();
        format!("{} partitions={} fence_window_ms={window}", Self::FORMAT, self.partitions)
    }

    /// Reads the recorded form; `None` if it is of another format.
    pub fn decode(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(Self::FORMAT)?.strip_prefix(" partitions=")?;
        let (partitions, window) = rest.split_once(" fence_window_ms=")?;
        let fence_window = Duration::from_millis(window.parse().ok()?);
        Some(Self { partitions: partitions.parse().ok()?, fence_window })
    }
}

/// Why an operation on the shared store failed.
///
/// ```
/// use nearfar_core::backend::L2Error;
///
/// assert!(L2Error::TimedOut.outcome_is_unknown());
/// assert!(!L2Error::DeadlinePassed.outcome_is_unknown());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum L2Error {
    /// Known to be unreachable; nothing was sent.
    Unreachable,
    /// The connection failed while the operation was under way.
    ConnectionLost(Arc<dyn std::error::Error + Send + Sync>),
    /// No answer within the time limit.
    TimedOut,
    /// The store refused to act because the operation's deadline had passed.
    DeadlinePassed,
    /// The store refused to act because the operation's precondition was not met.
    Unmet,
    /// The store answered with an error: missing rights, out of memory, read-only replica.
    Rejected(Arc<dyn std::error::Error + Send + Sync>),
    /// The store answered something that is no answer to what was asked.
    Unexpected,
    /// The backend was closed.
    Closed,
}

impl L2Error {
    /// Whether the store was not there to answer, rather than unwilling.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable | Self::ConnectionLost(_) | Self::TimedOut)
    }

    /// Whether the operation may have taken place all the same.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::ConnectionLost(_) | Self::TimedOut | Self::Unexpected)
    }
}

impl fmt::Display for L2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => write!(f, "L2 is unreachable"),
            Self::ConnectionLost(cause) => write!(f, "the connection to L2 failed: {cause}"),
            Self::TimedOut => write!(f, "L2 did not answer in time"),
            Self::DeadlinePassed => write!(f, "L2 refused the operation because its deadline had passed"),
            Self::Unmet => write!(f, "L2 refused the operation because its precondition was not met"),
            Self::Rejected(cause) => write!(f, "L2 refused the operation: {cause}"),
            Self::Unexpected => write!(f, "L2 answered something unexpected"),
            Self::Closed => write!(f, "the connection to L2 was closed"),
        }
    }
}

impl From<Refusal> for L2Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Late => Self::DeadlinePassed,
            Refusal::Unmet => Self::Unmet,
        }
    }
}

impl std::error::Error for L2Error {}
