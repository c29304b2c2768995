//! The judge: what each read owes to the changes before it.
//!
//! The judge stands at L2 and sees every change in the moment of its execution. From then on the change is a *duty*:
//! whoever begins to read later than the bound gets what the database had committed by then, or something newer. That
//! is the contract's bound, and stricter than counting from the acknowledgement.
//!
//! What L2 loses, by a failover or an old snapshot, is no duty for reads that end after the loss: the contract does
//! not cover it until its invalidation is issued again, which is another change, and another duty.

use std::collections::BTreeMap;
use std::time::Duration;

use nearfar::{NodeId, Version};
use nearfar_testkit::{History, Read, Write};

use crate::clock::micros;

/// A change that L2 has executed, as its readers see it.
#[derive(Clone, Copy, Debug)]
struct Duty {
    version: Version,
    origin: NodeId,
    write: Write,
    /// The first epoch that does not know of it.
    lost_in: Option<usize>,
    /// By a `set` of this older revision, that its own node had given up.
    overtaken_by_its_node: Option<u64>,
}

/// What a node has done itself, and must not read older from then on.
#[derive(Clone, Copy, Debug)]
struct Own {
    node: usize,
    write: Write,
    /// Under which number L2 has acknowledged it; without, it counts until the next loss.
    version: Option<Version>,
    epoch: usize,
}

impl Duty {
    fn stands_in(&self, epoch: usize) -> bool {
        self.lost_in.is_none_or(|lost_in| lost_in > epoch)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Judge {
    duties: Vec<Duty>,
    own: Vec<Own>,
    reads: Vec<(usize, usize, Read)>,
    /// How often L2 has lost something, or a late `set` has overtaken something.
    epoch: usize,
}

/// What came of judging the reads.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    pub(crate) reads: u64,
    pub(crate) stale_reads: u64,
    /// The worst staleness as a part of its bound, in percent.
    pub(crate) worst: u64,
}

impl Judge {
    /// L2 has executed a change of a key by a node. `revision` is what was set, or what the database has committed.
    pub(crate) fn executed(
        &mut self,
        key: u64,
        revision: u64,
        (version, origin): (Version, NodeId),
        now: Duration,
    ) {
        let at = micros(now);
        let write = Write { key, revision, start: at, end: at };
        self.duties.push(Duty { version, origin, write, lost_in: None, overtaken_by_its_node: None });
    }

    /// L2 is about to execute a `set` by a node. One that its caller has given up may come after newer changes. Arrival
    /// is what counts, so these are no duties any more, until the invalidation that the node still owes. How many.
    pub(crate) fn overtaken_by_set(&mut self, key: u64, revision: u64, by: NodeId) -> usize {
        let epoch = self.epoch + 1;
        let newer = |duty: &&mut Duty| {
            duty.write.key == key && duty.write.revision > revision && duty.lost_in.is_none()
        };
        let overtaken = self.duties.iter_mut().filter(newer).map(|duty| {
            duty.lost_in = Some(epoch);
            duty.overtaken_by_its_node = (duty.origin == by).then_some(revision);
        });
        let overtaken = overtaken.count();
        self.epoch += usize::from(overtaken > 0);
        overtaken
    }

    /// How much has been executed so far, for [`lose_since`](Self::lose_since).
    pub(crate) fn mark(&self) -> usize {
        self.duties.len()
    }

    /// L2 has lost what was executed after the mark. Returns how much.
    pub(crate) fn lose_since(&mut self, mark: usize) -> usize {
        self.epoch += 1;
        let lost = self.duties[mark..].iter_mut().filter(|duty| duty.lost_in.is_none());
        lost.map(|duty| duty.lost_in = Some(self.epoch)).count()
    }

    /// The revision that nobody may put an older one over.
    pub(crate) fn owed(&self, key: u64) -> u64 {
        let duties = self.duties.iter().filter(|duty| duty.write.key == key && duty.lost_in.is_none());
        duties.map(|duty| duty.write.revision).max().unwrap_or_default()
    }

    /// Whether L2 has ever heard of this revision or a newer one, and be it that it has lost it since.
    pub(crate) fn has_seen(&self, key: u64, revision: u64) -> bool {
        self.duties.iter().any(|duty| duty.write.key == key && duty.write.revision >= revision)
    }

    /// A node's own change has returned to its caller, or its caller has gone.
    pub(crate) fn changed(
        &mut self,
        node: usize,
        (key, revision): (u64, u64),
        version: Option<Version>,
        now: Duration,
    ) {
        let write = Write { key, revision, start: micros(now), end: micros(now) };
        self.own.push(Own { node, write, version, epoch: self.epoch });
    }

    pub(crate) fn read(&mut self, node: usize, read: Read) {
        self.reads.push((self.epoch, node, read));
    }

    /// Judges every read by the bound of its node.
    pub(crate) fn judge(&self, bounds: &[Duration]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut groups = BTreeMap::<(usize, usize), (History, History)>::new();
        for (epoch, node, read) in &self.reads {
            let (all, own) = groups.entry((*epoch, *node)).or_default();
            all.read(*read);
            own.read(*read);
        }
        for ((epoch, node), (mut all, mut own)) in groups {
            self.duties_in(epoch).for_each(|duty| all.write(duty.write));
            self.own_in(epoch, node).for_each(|write| own.write(write));
            verdict.add(&all, node, bounds[node], "the bound");
            verdict.add_own(&own, node);
        }
        verdict.violations.extend(self.overtaken());
        verdict
    }

    /// What a node had been told is applied, and was overtaken by an older `set` of its own. A clear that began before
    /// the `set` did not know of its revision, and may be overtaken.
    fn overtaken(&self) -> impl Iterator<Item = String> {
        let by_older =
            |own: &Own, duty: &Duty| duty.overtaken_by_its_node.is_some_and(|by| by < own.write.revision);
        let overtaken = move |own: &&Own| self.duties_of(own).any(|duty| by_older(own, duty));
        self.own
            .iter()
            .filter(overtaken)
            .map(|own| format!("overtaken by an older set of the same node: {own:?}"))
    }

    fn duties_of(&self, own: &Own) -> impl Iterator<Item = &Duty> {
        let (key, version) = (own.write.key, own.version);
        self.duties.iter().filter(move |duty| Some(duty.version) == version && duty.write.key == key)
    }

    fn duties_in(&self, epoch: usize) -> impl Iterator<Item = &Duty> {
        self.duties.iter().filter(move |duty| duty.stands_in(epoch))
    }

    fn own_in(&self, epoch: usize, node: usize) -> impl Iterator<Item = Write> {
        let stands = move |own: &&Own| match own.version {
            Some(_) => self.duties_of(own).any(|duty| duty.stands_in(epoch)),
            None => own.epoch == epoch,
        };
        self.own.iter().filter(move |own| own.node == node).filter(stands).map(|own| own.write)
    }
}

impl Verdict {
    fn add(&mut self, history: &History, node: usize, bound: Duration, what: &str) {
        let report = history.check();
        self.reads += report.reads() as u64;
        self.stale_reads += report.stale_reads() as u64;
        if let Some(worst) = report.worst() {
            self.worst = self.worst.max(micros(worst.staleness) * 100 / micros(bound));
        }
        self.blame(report.violations(bound), node, &format!("{what} of {bound:?}"));
    }

    fn add_own(&mut self, history: &History, node: usize) {
        self.blame(history.check().violations(Duration::ZERO), node, "its own change");
    }

    fn blame(&mut self, stale: &[nearfar_testkit::StaleRead], node: usize, what: &str) {
        let line = |stale: &nearfar_testkit::StaleRead| format!("node {node} broke {what}: {stale:?}");
        self.violations.extend(stale.iter().map(line));
    }
}
