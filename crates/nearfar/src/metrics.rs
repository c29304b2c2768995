//! Figures through the facade `metrics`, for whichever recorder the service has installed.
//!
//! Nothing is counted twice: reads and changes add to the counters of [`Stats`], as they do without this
//! feature, and a task of the node tells the recorder of them every [5 s](INTERVAL). Only the two histograms are told at
//! once, by a load and by a message of another node.
//!
//! The names are below; `docs/monitoring.md` has what each of them means, its unit and its labels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use nearfar_core::CircuitState;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::guarded::Guarded;
use crate::stats::Stats;
use crate::watched::{Caches, Watched};

/// How often the recorder is told: figures are as old as this at the most. Systems that collect them ask every 10 s or more
/// seldom.
///
/// ```
/// assert_eq!(nearfar::metrics::INTERVAL.as_secs(), 5);
/// ```
pub const INTERVAL: Duration = Duration::from_secs(5);

macro_rules! names {
    ($($describe:ident $unit:ident $name:ident = $text:literal, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub const $name: &str = $text;
        )*

        /// Tells the recorder what the figures are.
        fn describe() {
            $($describe!($name, Unit::$unit, $doc);)*
        }

        /// All of them.
        ///
        /// ```
        /// assert!(nearfar::metrics::NAMES.iter().all(|name| name.starts_with("nearfar_")));
        /// ```
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

names! {
    describe_counter Count HITS = "nearfar_hits_total", "Reads that a tier answered with something fresh.";
    describe_counter Count MISSES = "nearfar_misses_total", "Reads that neither tier answered.";
    describe_counter Count STALE_SERVED = "nearfar_stale_served_total", "Reads answered with something stale.";
    describe_counter Count JOINED = "nearfar_joined_total", "Callers that joined a load of another caller.";
    describe_counter Count LOADS = "nearfar_loads_total", "Values that loaders found, and loads that failed.";
    describe_histogram Seconds LOAD_SECONDS = "nearfar_load_seconds", "How long loaders took that found something.";
    describe_counter Count CLAIM_WAITS = "nearfar_claim_waits_total", "Times that a load waited for another node's.";
    describe_counter Count FILLS_REFUSED = "nearfar_fills_refused_total", "Loaded values that came too late to be stored.";
    describe_counter Count UNSTORABLE = "nearfar_unstorable_total", "Loaded values that could not be encoded, or are too large.";
    describe_counter Count SETS = "nearfar_sets_total", "Values set by this node.";
    describe_counter Count INVALIDATIONS = "nearfar_invalidations_total", "Keys invalidated by this node, or changed by others.";
    describe_histogram Seconds PROPAGATION_SECONDS = "nearfar_propagation_seconds", "From a change in L2 until this node had applied it.";
    describe_counter Count L2_FAILURES = "nearfar_l2_failures_total", "Reads of L2, and fills, that failed.";
    describe_counter Count COALESCED = "nearfar_coalesced_total", "Requests to L2 that went together with others.";
    describe_counter Bytes L2_BYTES = "nearfar_l2_bytes_total", "Bytes of values read from L2, and stored there.";
    describe_counter Count TAG_LOOKUPS = "nearfar_tag_lookups_total", "Tags that L2 was asked about.";
    describe_counter Count UNREADABLE = "nearfar_unreadable_total", "Entries in L2 that could not be read.";
    describe_counter Count OTHER_VERSIONS = "nearfar_other_versions_total", "Those of another codec, schema or compression.";
    describe_counter Count SEAL_FAILURES = "nearfar_seal_failures_total", "Those that are not sealed as they should be.";
    describe_counter Count EVICTIONS = "nearfar_evictions_total", "Values dropped from L1 for want of space.";
    describe_gauge Count L1_ENTRIES = "nearfar_l1_entries", "Entries in L1.";
    describe_gauge Bytes L1_BYTES = "nearfar_l1_bytes", "How much of its limit in bytes L1 takes.";
    describe_counter Count QUEUED = "nearfar_outbox_queued_total", "Changes that L2 did not acknowledge.";
    describe_counter Count REISSUED = "nearfar_outbox_reissued_total", "Keys whose acknowledged changes L2 may have lost.";
    describe_counter Count OUTBOX_OVERFLOWS = "nearfar_outbox_overflows_total", "Times that so much waited that it became a clear.";
    describe_gauge Count OUTBOX_KEYS = "nearfar_outbox_keys", "Keys that wait in the outbox.";
    describe_gauge Seconds OUTBOX_AGE_SECONDS = "nearfar_outbox_age_seconds", "How long the longest of them has waited.";
    describe_counter Count DOUBTS = "nearfar_doubts_total", "Times that messages may have been missed.";
    describe_counter Count BAD_FRAMES = "nearfar_bad_frames_total", "Frames on the bus that could not be read.";
    describe_counter Count REPLAYED = "nearfar_replayed_total", "Missed messages fetched from the log.";
    describe_counter Count RESYNCS = "nearfar_resyncs_total", "Times that L1 was forgotten.";
    describe_gauge Count BACKLOG = "nearfar_backlog", "Messages that were received and not applied yet.";
    describe_gauge Count PARTITIONS = "nearfar_partitions", "Partitions of the namespace.";
    describe_gauge Count PARTITIONS_TRUSTED = "nearfar_partitions_trusted", "Those in which L1 is known to be right.";
    describe_gauge Count TRUSTED = "nearfar_trusted", "1 if L1 is known to be right in all partitions, else 0.";
    describe_gauge Count CIRCUIT_STATE = "nearfar_circuit_state", "0 closed, 1 half open, 2 open.";
}

/// A loader took so long and found something.
pub(crate) fn loaded(namespace: &str, took: Duration) {
    histogram!(LOAD_SECONDS, "namespace" => namespace.to_owned()).record(took);
}

/// A change by another node took so long to come.
pub(crate) fn propagated(namespace: &str, took: Duration) {
    histogram!(PROPAGATION_SECONDS, "namespace" => namespace.to_owned()).record(took);
}

/// Tells the recorder of the caches of a node. The task ends when this is dropped.
pub(crate) struct Reporter {
    sources: Arc<Sources>,
    task: JoinHandle<()>,
}

struct Sources {
    caches: Arc<Caches>,
    l2: Arc<Guarded>,
    clock: Clock,
}

impl Reporter {
    pub(crate) fn start(caches: Arc<Caches>, l2: Arc<Guarded>, clock: Clock) -> Self {
        let sources = Arc::new(Sources { caches, l2, clock });
        let task = tokio::spawn(Arc::clone(&sources).run());
        Self { sources, task }
    }

    pub(crate) fn report(&self) {
        self.sources.report();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sources {
    async fn run(self: Arc<Self>) {
        loop {
            self.clock.sleep_until(self.clock.now() + INTERVAL).await;
            // L1 gives memory back when it is asked how full it is: what a value's `drop` does, or a recorder, is not this
            // task's to suffer from.
            let _ = catch_unwind(AssertUnwindSafe(|| self.report()));
        }
    }

    fn report(&self) {
        // Anew each time: the recorder may have been installed since.
        describe();
        for cache in self.caches.all() {
            self.report_cache(&*cache);
        }
        for (server, state) in self.l2.states() {
            let state = match state {
                CircuitState::Closed => 0.0,
                CircuitState::HalfOpen => 1.0,
                CircuitState::Open => 2.0,
            };
            gauge!(CIRCUIT_STATE, "server" => server.number().to_string()).set(state);
        }
    }

    fn report_cache(&self, cache: &dyn Watched) {
        let mut told = cache.reported().lock().unwrap_or_else(PoisonError::into_inner);
        let stats = cache.stats(self.clock.now());
        let report = Report { namespace: cache.namespace().as_str().into(), now: &stats, told: &told };
        report.reads();
        report.loads();
        report.changes();
        report.l2();
        report.l1();
        report.bus();
        *told = stats;
    }
}

/// What has come of a cache's counts since the recorder was told.
///
/// What has come, and not where they stand: several caches of one name add up, be they of several nodes of one process or
/// one after the other.
struct Report<'a> {
    namespace: Arc<str>,
    now: &'a Stats,
    told: &'a Stats,
}

impl Report<'_> {
    fn reads(&self) {
        self.count_of(HITS, ("tier", "l1"), |stats| stats.l1_hits);
        self.count_of(HITS, ("tier", "l2"), |stats| stats.l2_hits);
        self.count(MISSES, |stats| stats.misses);
        self.count(STALE_SERVED, |stats| stats.stale_hits);
        self.count(JOINED, |stats| stats.joined);
    }

    fn loads(&self) {
        self.count_of(LOADS, ("outcome", "found"), |stats| stats.loads);
        self.count_of(LOADS, ("outcome", "failed"), |stats| stats.load_failures);
        self.count(CLAIM_WAITS, |stats| stats.claim_waits);
        self.count(FILLS_REFUSED, |stats| stats.fills_refused);
        self.count(UNSTORABLE, |stats| stats.unstorable);
    }

    fn changes(&self) {
        self.count(SETS, |stats| stats.sets);
        self.count_of(INVALIDATIONS, ("direction", "sent"), |stats| stats.invalidations_sent);
        self.count_of(INVALIDATIONS, ("direction", "received"), |stats| stats.invalidations_received);
        self.count(QUEUED, |stats| stats.queued);
        self.count(REISSUED, |stats| stats.reissued);
        self.count(OUTBOX_OVERFLOWS, |stats| stats.outbox_overflows);
        self.gauge(OUTBOX_KEYS, self.now.outbox_keys);
        let age = gauge!(OUTBOX_AGE_SECONDS, "namespace" => Arc::clone(&self.namespace));
        age.set(self.now.outbox_oldest);
    }

    fn l2(&self) {
        self.count(L2_FAILURES, |stats| stats.l2_failures);
        self.count_of(COALESCED, ("kind", "read"), |stats| stats.coalesced_reads);
        self.count_of(COALESCED, ("kind", "change"), |stats| stats.coalesced_changes);
        self.count_of(COALESCED, ("kind", "fill"), |stats| stats.coalesced_fills);
        self.count_of(L2_BYTES, ("direction", "read"), |stats| stats.l2_bytes_read);
        self.count_of(L2_BYTES, ("direction", "written"), |stats| stats.l2_bytes_written);
        self.count(TAG_LOOKUPS, |stats| stats.tag_lookups);
        self.count(UNREADABLE, |stats| stats.unreadable);
        self.count(OTHER_VERSIONS, |stats| stats.other_versions);
        self.count(SEAL_FAILURES, |stats| stats.seal_failures);
    }

    fn l1(&self) {
        self.count(EVICTIONS, |stats| stats.evictions);
        self.gauge(L1_ENTRIES, self.now.l1_entries);
        if let Some(bytes) = self.now.l1_bytes {
            self.gauge(L1_BYTES, bytes);
        }
    }

    fn bus(&self) {
        self.count(DOUBTS, |stats| stats.doubts);
        self.count(BAD_FRAMES, |stats| stats.bad_frames);
        self.count(REPLAYED, |stats| stats.replayed);
        self.count(RESYNCS, |stats| stats.resyncs);
        self.gauge(BACKLOG, self.now.backlog);
        self.gauge(PARTITIONS, self.now.partitions);
        self.gauge(PARTITIONS_TRUSTED, self.now.partitions_trusted);
        self.gauge(TRUSTED, self.now.trusted.into());
    }

    fn count(&self, name: &'static str, count: impl Fn(&Stats) -> u64) {
        let more = count(self.now).saturating_sub(count(self.told));
        counter!(name, "namespace" => Arc::clone(&self.namespace)).increment(more);
    }

    fn count_of(
        &self,
        name: &'static str,
        (label, value): (&'static str, &'static str),
        count: impl Fn(&Stats) -> u64,
    ) {
        let more = count(self.now).saturating_sub(count(self.told));
        counter!(name, "namespace" => Arc::clone(&self.namespace), label => value).increment(more);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floats, and nothing here comes near 2 to the 53rd"
    )]
    fn gauge(&self, name: &'static str, value: u64) {
        gauge!(name, "namespace" => Arc::clone(&self.namespace)).set(value as f64);
    }
}
