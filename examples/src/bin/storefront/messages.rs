//! What the conductor tells its nodes and they report, and how it travels between processes.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::accesses::Accesses;
use crate::failure::Failure;
use crate::service::CacheSettings;

/// All that a node has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// From 0 up.
    pub(crate) node: u16,
    pub(crate) nodes: u16,
    pub(crate) database: PathBuf,
    pub(crate) cache: CacheSettings,
    pub(crate) accesses: Accesses,
    pub(crate) until: Until,
    /// Price updates per read.
    pub(crate) writes_per_read: f64,
    pub(crate) seed: u64,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Until {
    /// So many by all nodes together.
    Reads(u64),
    Passed(Duration),
}

/// What a node is told, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// All nodes are ready: serve customers.
    Start,
    /// All nodes have finished, and the bound has passed: read each of these products once more.
    Sweep(Vec<u32>),
}

/// What a node reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Ready,
    Progress(Figures),
    /// All its customers are served.
    Finished {
        figures: Figures,
        /// The products it has changed.
        changed: Vec<u32>,
    },
    Done(Outcome),
    Failed(Failure),
}

/// What a node has done so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) l1_hits: u64,
    pub(crate) l2_hits: u64,
    pub(crate) loads: u64,
    pub(crate) joined: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) evictions: u64,
    /// Times that the bus was interrupted.
    pub(crate) doubts: u64,
    pub(crate) queries: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Figures {
    /// Every read is one of these.
    pub(crate) fn reads(&self) -> u64 {
        self.l1_hits + self.l2_hits + self.loads + self.joined
    }
}

/// What a node has done in all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// As of before the sweep.
    pub(crate) figures: Figures,
    /// Reads before the sweep.
    pub(crate) served: u64,
    pub(crate) recording: Recording,
}

/// What was read and written, and when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recording {
    pub(crate) reads: Vec<Span>,
    /// Those whose invalidation was acknowledged.
    pub(crate) writes: Vec<Span>,
    /// Updates that are in the database, but whose invalidation failed.
    pub(crate) unacknowledged: u64,
    /// Why the last of them did.
    pub(crate) refusal: Option<String>,
}

/// A read of a revision, or a write of it, by the clock that all processes share.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) product: u32,
    pub(crate) revision: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Recording {
    pub(crate) fn absorb(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
        self.unacknowledged += other.unacknowledged;
        self.refusal = other.refusal.or(self.refusal.take());
    }
}

/// Writes a message to another process.
pub(crate) fn send<T: Serialize>(pipe: &mut impl Write, message: &T) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(message).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    pipe.write_all(&len.to_be_bytes())?;
    pipe.write_all(&bytes)?;
    pipe.flush()
}

/// Reads a message of another process.
pub(crate) fn receive<T: DeserializeOwned>(pipe: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    pipe.read_exact(&mut len)?;
    // Grows as bytes come: the length alone makes nobody allocate.
    let mut bytes = Vec::new();
    let len = u64::from(u32::from_be_bytes(len));
    if pipe.take(len).read_to_end(&mut bytes)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rmp_serde::from_slice(&bytes).map_err(io::Error::other)
}
