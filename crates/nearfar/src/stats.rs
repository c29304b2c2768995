use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::outlet::Outlet;

/// A count that many threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What somebody has found last.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A count that is added to so often that threads would wait for each other: each of them adds to a share of its own, or
/// shares it with few.
#[derive(Debug, Default)]
pub(crate) struct HotCounter([Share; SHARES]);

/// How many shares a hot counter has.
const SHARES: usize = 16;

/// Alone on its lines of the processor's cache, of which some processors fetch two at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Share(Counter);

impl HotCounter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARES;
        }
        self.0[SHARE.with(|share| *share)].0.add(count);
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|share| share.0.count()).sum()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $counter:ident,)*) => {
        /// What a cache counts, and where it tells what it counts.
        ///
        /// In this order: each hit reads whether anybody listens, and what is on the same line of the processor's cache is
        /// not written by hits.
        #[derive(Debug, Default)]
        #[repr(C, align(64))]
        pub(crate) struct Counters {
            pub(crate) outlet: Outlet,
            $(pub(crate) $name: $counter,)*
            pub(crate) propagation: Propagation,
            pub(crate) backlog: Gauge,
        }

        /// What a cache of this node has done since it was built; counts only ever grow.
        ///
        /// A caller's read is counted in one of `l1_hits`, `joined` and `stale_hits`, or else, with the read of L2 that it made, in
        /// one of `l2_hits`, `misses` and `l2_failures`.
        ///
        /// ```
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), nearfar::Error> {
        /// let squares = nearfar::Nearfar::in_process().cache::<u64, u64>("squares").build().await?;
        /// let load = |n| async move { Ok::<_, std::convert::Infallible>(n * n) };
        /// squares.get_or_load(&12, load).await?;
        /// squares.get_or_load(&12, load).await?;
        ///
        /// let stats = squares.stats();
        /// assert_eq!((stats.loads, stats.l1_hits), (1, 1));
        /// assert!(stats.trusted);
        /// # Ok(())
        /// # }
        /// ```
        #[derive(Clone, Debug, Default, PartialEq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// How long invalidations by other nodes took from L2 to this node.
            pub propagation: PropagationStats,
            /// About how many messages this node had received and not applied, for all its caches, when it looked last, which it
            /// does at every beat and after some hundred messages. 0, or soon 0 again, unless more is invalidated than the node
            /// keeps up with.
            pub backlog: u64,
            /// About how many entries L1 holds.
            pub l1_entries: u64,
            /// About how much of [`l1_max_bytes`](crate::CacheBuilder::l1_max_bytes) they take; `None` if that is not set.
            pub l1_bytes: Option<u64>,
            /// Whether this node has proof that it hears of every invalidation, in every partition.
            pub trusted: bool,
            /// How many partitions the namespace has.
            pub partitions: u64,
            /// In how many of them it has that proof. L1 is served in those, whatever is with the others.
            pub partitions_trusted: u64,
            /// How many keys wait in the outbox: their invalidation has not been acknowledged by L2. A clear counts as
            /// one.
            pub outbox_keys: u64,
            /// For how long the longest of them has waited.
            pub outbox_oldest: Duration,
            /// How often too many keys waited, so that they became one clear.
            pub outbox_overflows: u64,
        }

        impl Counters {
            /// The counts alone.
            pub(crate) fn snapshot(&self) -> Stats {
                Stats {
                    $($name: self.$name.count(),)*
                    propagation: self.propagation.snapshot(),
                    backlog: self.backlog.0.load(Ordering::Relaxed),
                    ..Stats::default()
                }
            }
        }
    };
}

counters! {
    /// Reads that L1 answered.
    l1_hits: HotCounter,
    /// Reads that a stale value answered. One that was in L1 and served at once is counted nowhere else.
    stale_hits: Counter,
    /// Reads that L2 answered.
    l2_hits: Counter,
    /// Reads that neither answered.
    misses: Counter,
    /// Reads of L2, and fills, that failed.
    l2_failures: Counter,
    /// Requests to read L2 that went there together with others, in one command.
    coalesced_reads: Counter,
    /// Changes that went to L2 together with others, in one step.
    coalesced_changes: Counter,
    /// Proposals of loaded values that went to L2 together with others, in one step.
    coalesced_fills: Counter,
    /// Bytes of values that L2 sent, as they stand there.
    l2_bytes_read: Counter,
    /// Bytes of values that L2 has stored for this node.
    l2_bytes_written: Counter,
    /// Tags that L2 was asked about, for entries from before this node listened. In steady state there are none.
    tag_lookups: Counter,
    /// Loads that gave a value.
    loads: Counter,
    /// Loads that failed or panicked.
    load_failures: Counter,
    /// Callers that joined a flight instead of loading themselves.
    joined: Counter,
    /// Times that a load waited for that of another node, which had the claim.
    claim_waits: Counter,
    /// Loaded values that were not stored because L2 had something newer, or the load took too long.
    fills_refused: Counter,
    /// Loaded values that could not be encoded, or are too large, and so were not cached.
    unstorable: Counter,
    /// Values set by this node.
    sets: Counter,
    /// Keys invalidated by this node.
    invalidations_sent: Counter,
    /// Changes that L2 did not acknowledge, whose keys went to the outbox.
    queued: Counter,
    /// Keys whose acknowledged changes may have been lost with L2's history, and which went to the outbox again.
    reissued: Counter,
    /// Keys that other nodes set or invalidated.
    invalidations_received: Counter,
    /// Values dropped from L1 for want of space.
    evictions: Counter,
    /// Entries in L2 that could not be read: foreign, corrupt, of another codec or schema, undecodable, not sealed as they
    /// should be.
    unreadable: Counter,
    /// Those of them that have another codec, schema or compression: another version of the service shares the namespace.
    other_versions: Counter,
    /// Those of them that are not sealed by one of this cache's keys and for the place where they stand.
    seal_failures: Counter,
    /// Frames on the bus that could not be read.
    bad_frames: Counter,
    /// Times that messages may have been missed: interruptions, overruns, gaps, bad frames.
    doubts: Counter,
    /// Missed messages that were fetched from the log and applied.
    replayed: Counter,
    /// Times that L1 was forgotten because nothing could prove it.
    resyncs: Counter,
}

/// Propagation times, in microseconds.
#[derive(Debug)]
pub(crate) struct Propagation {
    /// Guards the histogram; only the receive loop records, only `stats` reads.
    times: Mutex<Histogram<u64>>,
}

impl Default for Propagation {
    fn default() -> Self {
        let times = Histogram::new_with_max(Self::LONGEST, 2).expect("the bounds are constant and valid");
        Self { times: Mutex::new(times) }
    }
}

impl Propagation {
    /// An hour. Longer times are recorded as this.
    const LONGEST: u64 = 3_600_000_000;

    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    fn snapshot(&self) -> PropagationStats {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
        PropagationStats { messages: times.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// How long invalidations by other nodes took, from their execution in L2 until this node had dropped its copies.
///
/// Measured against L2's clock as the last beat shows it, so the round trip of that beat is the precision and the
/// figures err on the long side.
///
/// ```
/// assert_eq!(nearfar::PropagationStats::default().messages, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PropagationStats {
    /// How many messages were measured.
    pub messages: u64,
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}
