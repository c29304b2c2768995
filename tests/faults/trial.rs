//! Nodes that read and write all the time while something goes wrong.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nearfar::Nearfar;
use nearfar_testkit::{FaultProxy, History, Read, RedisServer, Stopwatch, Write, eventually, let_pass};
use nearfar_tests::{Truth, trusted};
use tokio::task::JoinSet;

use crate::station::{Station, Tally, Way, Whistle};

/// What every read is held to.
pub(crate) const BOUND: Duration = Duration::from_secs(1);

/// The namespace of all trials.
pub(crate) const NAMESPACE: &str = "faults";

/// How many nodes there are on one server.
const NODES: usize = 3;
/// The others only read: what they hold is not among their own changes.
const WRITERS: usize = 2;
/// One of them.
pub(crate) const READER: usize = 2;
/// All nodes.
pub(crate) const EVERYBODY: [usize; NODES] = [0, 1, 2];
/// All nodes of a trial on several servers.
pub(crate) const ALL_FOUR: [usize; 4] = [0, 1, 2, 3];
/// They are numbered from 0.
pub(crate) const KEYS: u64 = 12;

/// What a server acknowledges just before it dies, its replica may not have got.
pub(crate) const LAST_MOMENT: Duration = Duration::from_millis(200);

/// Long enough for a stale copy to show that it outlives the bound.
const AFTERWARDS: Duration = Duration::from_millis(1_200);

/// A fault, from before it to after it.
///
/// [`breaks`](Self::breaks), do it, [`noticed_by`](Self::noticed_by) whom it concerns; [`heals`](Self::heals), undo it;
/// [`ends`](Self::ends).
#[derive(Debug)]
pub(crate) struct Trial {
    name: &'static str,
    pub(crate) nodes: Vec<Arc<Station>>,
    loads: bool,
    truth: Truth,
    pub(crate) clock: Stopwatch,
    busy_keys: Arc<AtomicU64>,
    readers: (JoinSet<Tally>, Whistle),
    writers: (JoinSet<Tally>, Whistle),
    broke_at: Duration,
    shaken: Vec<u64>,
    noticed: Option<Duration>,
    healed_at: Option<Duration>,
    trusted_again: Option<Duration>,
    lost: Vec<Lost>,
    remarks: Vec<String>,
    elsewhere: Vec<Read>,
}

/// Changes that the server had acknowledged before it lost them: those acknowledged in this time.
#[derive(Clone, Copy, Debug)]
struct Lost {
    from: u64,
    to: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) failed_reads: u64,
    pub(crate) queued: u64,
    pub(crate) refused: u64,
    /// No node has ever doubted.
    pub(crate) trust_was_kept: bool,
}

/// How the nodes are set and what they do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) command_timeout: Duration,
    /// Whether a loader stands behind the cache.
    pub(crate) loads: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { command_timeout: Duration::from_millis(500), loads: true }
    }
}

impl Setup {
    /// For faults that let no command fail, however busy this machine is.
    pub(crate) fn patient() -> Self {
        Self { command_timeout: Duration::from_secs(5), ..Self::default() }
    }
}

impl Trial {
    /// Nodes on a server, busy from now on.
    pub(crate) async fn start(name: &'static str, server: &RedisServer) -> Self {
        Self::start_with(Setup::default(), name, server).await
    }

    pub(crate) async fn start_with(setup: Setup, name: &'static str, server: &RedisServer) -> Self {
        let nodes = (0..NODES).map(async |_| {
            let proxy = FaultProxy::start(server.port()).await;
            station(setup, &proxy.url(), Some(proxy)).await
        });
        Self::of(setup, name, join_all(nodes).await).await
    }

    /// Four nodes on several servers, busy from now on.
    pub(crate) async fn start_on(name: &'static str, url: &str) -> Self {
        let setup = Setup::default();
        let nodes = join_all(ALL_FOUR.map(|_| station(setup, url, None))).await;
        Self::of(setup, name, nodes).await
    }

    async fn of(setup: Setup, name: &'static str, nodes: Vec<Arc<Station>>) -> Self {
        let mut trial = Self {
            name,
            nodes,
            loads: setup.loads,
            truth: Truth::new(KEYS),
            clock: Stopwatch::start(),
            busy_keys: Arc::new(AtomicU64::new(KEYS)),
            readers: (JoinSet::new(), Whistle::default()),
            writers: (JoinSet::new(), Whistle::default()),
            broke_at: Duration::ZERO,
            shaken: Vec::new(),
            noticed: None,
            healed_at: None,
            trusted_again: None,
            lost: Vec::new(),
            remarks: Vec::new(),
            elsewhere: Vec::new(),
        };
        trial.set_to_work();
        trial.goes_well().await;
        trial
    }

    fn set_to_work(&mut self) {
        let through_all = if self.loads { Way::Any } else { Way::WithoutLoading };
        for (number, node) in self.nodes.iter().enumerate() {
            for way in [through_all, Way::L1] {
                let (truth, whistle) = (self.truth.clone(), self.readers.1.clone());
                self.readers.0.spawn(Arc::clone(node).read_on(way, truth, self.clock, whistle));
            }
            if number >= WRITERS {
                continue;
            }
            let (truth, keys, whistle) = (self.truth.clone(), self.busy_keys.clone(), self.writers.1.clone());
            self.writers.0.spawn(Arc::clone(node).write_on(keys, truth, self.clock, whistle));
        }
    }

    /// Waits until everybody has heard of some changes by the others, and has served something from L1, from now on.
    pub(crate) async fn goes_well(&self) {
        let busy = |node: &Station| {
            let stats = node.cache.stats();
            (stats.l1_hits, stats.invalidations_received)
        };
        let before: Vec<_> = self.nodes.iter().map(|node| busy(node)).collect();
        eventually("all are at work", async || {
            let progress = self.nodes.iter().zip(&before);
            progress
                .map(|(node, before)| (busy(node), before))
                .all(|(now, before)| now.0 > before.0 + 20 && now.1 > before.1 + 20)
        })
        .await;
    }

    /// The fault begins now. Where nobody [`heals`](Self::heals) it, the nodes have to help themselves from now on. Of
    /// several rounds, the slowest is told.
    pub(crate) fn breaks(&mut self) {
        self.broke_at = self.clock.elapsed();
        self.healed_at = Some(self.broke_at);
        self.shaken = self.nodes.iter().map(|node| shaken(node)).collect();
    }

    /// Waits until these nodes serve nothing from L1 any more, or have had a doubt.
    pub(crate) async fn noticed_by(&mut self, nodes: &[usize]) {
        eventually("the fault is noticed", async || {
            nodes.iter().all(|&node| {
                let (station, before) = (&self.nodes[node], self.shaken[node]);
                !station.cache.stats().trusted || shaken(station) > before
            })
        })
        .await;
        self.noticed = self.noticed.max(Some(self.since(self.broke_at)));
    }

    /// Lets the fault last until so much time has passed since it began.
    pub(crate) async fn lasts(&self, duration: Duration) {
        let_pass(duration.saturating_sub(self.since(self.broke_at))).await;
    }

    /// The cause is removed now.
    pub(crate) async fn heals(&mut self) {
        self.calms_down().await;
        self.healed_at = Some(self.clock.elapsed());
    }

    /// From now on half of the keys are left alone: a copy of one of them that is stale stays so.
    pub(crate) async fn calms_down(&self) {
        self.busy_keys.store(KEYS / 2, Ordering::SeqCst);
        for key in KEYS / 2..KEYS {
            drop(self.truth.turn(key).await);
        }
    }

    /// What the server has acknowledged from then on until now is lost. What a change is worth that L2 has lost, nobody
    /// can know before it is issued again, so it counts as acknowledged from then on.
    pub(crate) fn loses_what_was_acknowledged_since(&mut self, from: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap();
        self.lost.push(Lost { from: micros(from), to: self.clock.micros() });
    }

    /// A server that dies takes with it what it had acknowledged just before and its replica has not got.
    pub(crate) fn loses_the_last_moment(&mut self) {
        self.loses_what_was_acknowledged_since(self.broke_at.saturating_sub(LAST_MOMENT));
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Every node has resynced more often than it had then.
    pub(crate) fn everybody_has_forgotten_l1_since(&self, resyncs: &[u64]) {
        let now = self.resyncs();
        assert!(now.iter().zip(resyncs).all(|(now, before)| now > before), "everybody has forgotten L1");
    }

    /// In how many partitions the nodes have trust, at the least, and how many there are.
    pub(crate) fn partitions_trusted(&self) -> (u64, u64) {
        let stats = self.nodes.iter().map(|node| node.cache.stats());
        let trusted = stats.map(|stats| (stats.partitions_trusted, stats.partitions)).min();
        trusted.expect("there are nodes")
    }

    /// How often each node has forgotten its L1.
    pub(crate) fn resyncs(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.cache.stats().resyncs).collect()
    }

    pub(crate) async fn becomes_trusted(&mut self) {
        for node in &self.nodes {
            trusted(&node.cache).await;
        }
        if let Some(healed_at) = self.healed_at.take() {
            self.trusted_again = self.trusted_again.max(Some(self.since(healed_at)));
        }
    }

    fn since(&self, then: Duration) -> Duration {
        self.clock.elapsed().saturating_sub(then)
    }

    /// How many keys the nodes have issued again.
    pub(crate) fn reissued(&self) -> u64 {
        self.nodes.iter().map(|node| node.cache.stats().reissued).sum()
    }

    /// What nodes that are not of this process have read.
    pub(crate) fn was_also_read(&mut self, reads: Vec<Read>) {
        self.elsewhere.extend(reads);
    }

    /// Adds something to the line of figures.
    pub(crate) fn remarks(&mut self, remark: impl Display) {
        self.remarks.push(format!(" | {remark}"));
    }

    /// Waits until all is well again, then a little longer, and judges.
    ///
    /// # Panics
    /// If a read was staler than the bound, or a node does not read the truth at last.
    pub(crate) async fn ends(mut self) -> Verdict {
        self.calms_down().await;
        self.becomes_trusted().await;
        eventually("the outboxes are empty", async || self.nodes.iter().all(|node| node.owes_nothing()))
            .await;
        let reissued_at = self.clock.micros();
        self.goes_well().await;

        let mut tally = stop(&mut self.writers).await;
        let_pass(AFTERWARDS).await;
        tally.absorb(stop(&mut self.readers).await);
        tally.reads.append(&mut self.elsewhere);
        let unheeded =
            self.lost.iter().map(|lost| count_as_acknowledged_at(reissued_at, *lost, &mut tally)).max();
        let verdict = self.judge(&tally, unheeded);
        self.all_agree().await;
        verdict
    }

    /// Not in the end, but at once: the last change is older than the bound.
    async fn all_agree(&self) {
        for key in 0..KEYS {
            for node in &self.nodes {
                let way = if self.loads { Way::Loading } else { Way::WithoutLoading };
                if let Some(read) = node.read(way, &self.truth, key).await.unwrap() {
                    assert_eq!(read, self.truth.revision(key), "key {key}");
                }
            }
        }
    }

    fn judge(&self, tally: &Tally, unheeded: Option<Duration>) -> Verdict {
        let report = history(tally).check();
        let Tally { failed_reads, queued, refused, .. } = *tally;
        let lost = unheeded.map(|time| format!(" | lost changes unheeded for {}", seconds(time)));
        println!(
            "fault: {} | worst staleness {} of {} | {} reads, {failed_reads} failed | {} changes, {queued} queued, {refused} \
             refused | {} | L1 of {} partitions forgotten{}{}",
            self.name,
            seconds(report.worst().map_or(Duration::ZERO, |worst| worst.staleness)),
            seconds(BOUND),
            report.reads() as u64 + failed_reads,
            report.writes(),
            self.trust(),
            self.partitions_forgotten(),
            lost.unwrap_or_default(),
            self.remarks.concat(),
        );
        let violations = report.violations(BOUND);
        let (count, broke_at) = (violations.len(), self.broke_at);
        assert_eq!(violations.first(), None, "the worst of {count}; broken at {broke_at:?}, {:?}", self.lost);
        assert!(report.reads() > 200 && report.writes() > 20, "too little was done to prove anything");
        Verdict { failed_reads, queued, refused, trust_was_kept: self.trust_was_kept() }
    }

    /// How many times in all a node has forgotten its L1 of a partition, but for the start of each.
    fn partitions_forgotten(&self) -> u64 {
        let stats = self.nodes.iter().map(|node| node.cache.stats());
        stats.map(|stats| stats.resyncs.saturating_sub(stats.partitions)).sum()
    }

    fn trust_was_kept(&self) -> bool {
        let shaken = self.nodes.iter().map(|node| shaken(node));
        self.noticed.is_none() && shaken.eq(self.shaken.iter().copied())
    }

    fn trust(&self) -> String {
        match (self.noticed, self.trusted_again) {
            (Some(noticed), Some(again)) => {
                format!("noticed after {} | trusted again after {}", seconds(noticed), seconds(again))
            }
            _ if self.trust_was_kept() => "trust kept".to_owned(),
            _ => "trust lost at times".to_owned(),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// How often a node has lost trust, other than by time.
fn shaken(node: &Station) -> u64 {
    let stats = node.cache.stats();
    stats.doubts + stats.resyncs
}

async fn station(setup: Setup, url: &str, proxy: Option<FaultProxy>) -> Arc<Station> {
    let nearfar = Nearfar::builder().command_timeout(setup.command_timeout).connect(url).await.unwrap();
    let cache = nearfar.cache(NAMESPACE).max_staleness(BOUND).build().await.unwrap();
    Arc::new(Station { nearfar, cache, proxy })
}

async fn stop((tasks, whistle): &mut (JoinSet<Tally>, Whistle)) -> Tally {
    whistle.blow();
    let mut tally = Tally::default();
    while let Some(ended) = tasks.join_next().await {
        tally.absorb(ended.unwrap());
    }
    tally
}

fn history(tally: &Tally) -> History {
    let mut history = History::default();
    tally.reads.iter().for_each(|read| history.read(*read));
    tally.writes.iter().for_each(|write| history.write(*write));
    history
}

/// Returns for how long after the loss somebody read what a lost change had replaced.
fn count_as_acknowledged_at(reissued_at: u64, lost: Lost, tally: &mut Tally) -> Duration {
    let is_lost = |write: &Write| (lost.from..=lost.to).contains(&write.end);
    let report = history(tally).check();
    let unheeded = report.violations(Duration::ZERO).iter().filter(|stale| is_lost(&stale.missed));
    let heeded_at = unheeded.map(|stale| stale.read.start).max().unwrap_or(lost.to);
    for write in tally.writes.iter_mut().filter(|write| is_lost(write)) {
        write.end = reissued_at;
    }
    Duration::from_micros(heeded_at.saturating_sub(lost.to))
}
