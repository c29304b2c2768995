//! What the judge goes through for one law: the changes, and the reads that owe them something.

use std::collections::BTreeMap;
use std::time::Duration;

use nearfar::{NodeId, Version};
use nearfar_testkit::{History, Read, StaleRead, Write};

use crate::clock::micros;
use crate::judge::Verdict;
use crate::world::Id;

#[derive(Debug, Default)]
pub(crate) struct Docket {
    pub(crate) duties: Vec<Duty>,
    pub(crate) own: Vec<Own>,
    /// Each with its epoch and its node.
    pub(crate) reads: Vec<(usize, Id, Read)>,
}

/// A change that L2 has executed, as its readers see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duty {
    version: Version,
    pub(crate) origin: NodeId,
    pub(crate) write: Write,
    /// The first epoch that does not know of it.
    pub(crate) lost_in: Option<usize>,
    /// By a `set` of this older revision, that its own node had given up.
    pub(crate) overtaken_by_its_node: Option<u64>,
}

/// What a node has done itself, and must not read older from then on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) node: Id,
    pub(crate) write: Write,
    /// Under which number L2 has acknowledged it; without, it counts until the next loss.
    pub(crate) version: Option<Version>,
    pub(crate) epoch: usize,
    pub(crate) steps: Steps,
}

/// What a change was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steps {
    One,
    /// It is answered once for all of them. Some may have been acknowledged, and lost again, before the last had an answer.
    OnePerPartition,
}

impl Duty {
    pub(crate) fn new((version, origin): (Version, NodeId), write: Write) -> Self {
        Self { version, origin, write, lost_in: None, overtaken_by_its_node: None }
    }

    pub(crate) fn stands_in(&self, epoch: usize) -> bool {
        self.lost_in.is_none_or(|lost_in| lost_in > epoch)
    }
}

impl Docket {
    /// L2 has lost all but the first so many. Returns how many it had not lost before.
    pub(crate) fn lose_since(&mut self, mark: usize, epoch: usize) -> usize {
        let lost = self.duties[mark..].iter_mut().filter(|duty| duty.lost_in.is_none());
        lost.map(|duty| duty.lost_in = Some(epoch)).count()
    }

    /// Judges every read by the bound of its node.
    pub(crate) fn judge(&self, bounds: &[Duration], what: &str) -> Verdict {
        let mut verdict = Verdict::default();
        let mut groups = BTreeMap::<(usize, Id), (History, History)>::new();
        for (epoch, node, read) in &self.reads {
            let (all, own) = groups.entry((*epoch, *node)).or_default();
            all.read(*read);
            own.read(*read);
        }
        for ((epoch, node), (mut all, mut own)) in groups {
            self.duties_in(epoch).for_each(|duty| all.write(duty.write));
            self.own_in(epoch, node).for_each(|write| own.write(write));
            verdict.add(&all, node, bounds[node], &format!("the bound{what}"));
            verdict.add_own(&own, node, &format!("its own change{what}"));
        }
        verdict
    }

    /// What a node had been told is applied, and was overtaken by an older `set` of its own. A clear that began before
    /// the `set` did not know of its revision, and may be overtaken.
    pub(crate) fn overtaken(&self) -> impl Iterator<Item = String> {
        let by_older =
            |own: &Own, duty: &Duty| duty.overtaken_by_its_node.is_some_and(|by| by < own.write.revision);
        let overtaken = move |own: &&Own| self.duties_for(own).any(|duty| by_older(own, duty));
        self.own
            .iter()
            .filter(overtaken)
            .map(|own| format!("overtaken by an older set of the same node: {own:?}"))
    }

    /// What L2 has executed of a key under this version.
    pub(crate) fn duties_of(&self, version: Version, key: u64) -> impl Iterator<Item = &Duty> {
        self.duties.iter().filter(move |duty| duty.version == version && duty.write.key == key)
    }

    fn duties_for(&self, own: &Own) -> impl Iterator<Item = &Duty> {
        let key = own.write.key;
        own.version.into_iter().flat_map(move |version| self.duties_of(version, key))
    }

    fn duties_in(&self, epoch: usize) -> impl Iterator<Item = &Duty> {
        self.duties.iter().filter(move |duty| duty.stands_in(epoch))
    }

    /// Whether the step about its key had been acknowledged and was lost before all were answered. Then no outbox holds it.
    fn was_lost_meanwhile(&self, own: &Own) -> bool {
        let Write { key, revision, .. } = own.write;
        let is_its = |duty: &Duty| duty.write.key == key && duty.write.revision >= revision;
        let was_lost = |duty: &Duty| is_its(duty) && duty.lost_in == Some(own.epoch);
        own.steps == Steps::OnePerPartition && self.duties.iter().any(was_lost)
    }

    fn own_in(&self, epoch: usize, node: Id) -> impl Iterator<Item = Write> {
        let stands = move |own: &&Own| match own.version {
            Some(_) => self.duties_for(own).any(|duty| duty.stands_in(epoch)),
            None => own.epoch == epoch && !self.was_lost_meanwhile(own),
        };
        self.own.iter().filter(move |own| own.node == node).filter(stands).map(|own| own.write)
    }
}

impl Verdict {
    fn add(&mut self, history: &History, node: Id, bound: Duration, what: &str) {
        let report = history.check();
        self.reads += report.reads() as u64;
        self.stale_reads += report.stale_reads() as u64;
        if let Some(worst) = report.worst() {
            self.worst = self.worst.max(micros(worst.staleness) * 100 / micros(bound));
        }
        self.blame(report.violations(bound), node, &format!("{what} of {bound:?}"));
    }

    fn add_own(&mut self, history: &History, node: Id, what: &str) {
        self.blame(history.check().violations(Duration::ZERO), node, what);
    }

    fn blame(&mut self, stale: &[StaleRead], node: Id, what: &str) {
        let line = |stale: &StaleRead| format!("node {node} broke {what}: {stale:?}");
        self.violations.extend(stale.iter().map(line));
    }
}
