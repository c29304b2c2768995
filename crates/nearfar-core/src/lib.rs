//! The nearfar protocol, sans I/O: no runtime, no clock, no randomness, no sockets.
//!
//! Time arrives as an argument ([`Moment`]), bytes arrive as slices, and every decision that coherence depends on is
//! taken here, so that what is tested in isolation is what ships.
//!
//! ```text
//!            node                                            shared store (L2)
//!  ┌───────────────────────────┐                      ┌──────────────────────────────┐
//!  │ Gate      what L1 may hold│   Change, Fill, Beat │ Partition  keys, head, log   │
//!  │           and serve, now  │ ───────────────────▶ │            (Redis: scripts   │
//!  │ Follower  what the bus    │ ◀─────────────────── │             of the same      │
//!  │           has proved      │   Message, Echo      │             meaning)         │
//!  └───────────────────────────┘                      └──────────────────────────────┘
//! ```
//!
//! * [`Envelope`], [`Message`], [`Echo`]: the bytes in L2 and on the bus. Decoding never panics and never allocates
//!   by a length that was not checked.
//! * [`Partition`]: what one atomic step does to the shared store. The in-process L2 runs it; the Redis scripts mean
//!   the same.
//! * [`Gate`]: fence, generation and trust of a partition; read on every L1 hit, by way of [`Gates`].
//! * [`Follower`]: turns messages, echoes and doubts into trust, or withdraws it.
//! * [`Outbox`]: invalidations that the store has not acknowledged, and those that it may have lost since.
//! * [`Watchman`]: what others than nodes have done to the store.
//! * [`backend`]: the seams that a store and a bus implement.

pub mod backend;
mod batch;
mod breaker;
mod bytes_in;
mod change;
mod claims;
mod envelope;
mod fill;
mod follower;
mod foreign;
mod frame;
mod gate;
mod gates;
mod head;
mod moment;
mod namespace;
mod outbox;
mod partition;
mod partition_id;
mod remote_clock;
mod renewal;
mod sync;
mod tag_table;
mod tags;
mod validators;
mod version;
mod watchdog;

pub use batch::{Batch, Subject};
pub use breaker::{Breaker, CircuitState};
pub use change::{Change, Effect, KeyWrite, Precondition, Refusal};
pub use claims::{Claim, ClaimOutcome, Holder};
pub use envelope::{Envelope, EnvelopeError, EnvelopeHeader, Kind, Stamp};
pub use fill::{Fill, FillOutcome};
pub use follower::{Doubt, Follower, FollowerOptions, Proof, Replay, Standing};
pub use foreign::{Sighting, Verdict, Watchman};
pub use frame::{BeatId, Echo, FrameError, Message, MessageBody, NodeId, Notice};
pub use gate::{Disconnected, Gate, Height, Raised, Ticket};
pub use gates::{Gates, LookUp};
pub use head::{Head, TagHead};
pub use moment::Moment;
pub use namespace::{Namespace, NamespaceError};
pub use outbox::{Outbox, Setback};
pub use partition::{BeatReply, Partition, Reading, Snapshot};
pub use partition_id::PartitionId;
pub use remote_clock::RemoteClock;
pub use renewal::Renewal;
pub use tags::{TagError, TagMark, Tags};
pub use validators::Validators;
pub use version::Version;
pub use watchdog::Watchdog;

/// The longest key, in encoded bytes, that nearfar accepts: 1 MiB.
///
/// Redis itself allows 512 MiB; a key that long is a mistake, and every message on the bus would carry it.
///
/// ```
/// assert_eq!(nearfar_core::MAX_KEY_LEN, 1024 * 1024);
/// ```
pub const MAX_KEY_LEN: usize = 1024 * 1024;
