//! The judge: what each read owes to the changes before it.
//!
//! The judge stands at L2 and sees every change in the moment of its execution. From then on the change is a *duty*:
//! whoever begins to read later than the bound gets what the database had committed by then, or something newer, be it
//! served as fresh or as stale. That is the contract's bound, and stricter than counting from the acknowledgement.
//!
//! An expiration is no change of truth, and owes another thing: what is served as fresh was written after it. There the
//! numbers are those of the versions, and not the revisions.
//!
//! What L2 loses, by a failover or an old snapshot, is no duty for reads that end after the loss: the contract does
//! not cover it until its invalidation is issued again, which is another change, and another duty.

use std::time::Duration;

use nearfar::{NodeId, Version};
use nearfar_testkit::{Read, Write};

use crate::clock::micros;
use crate::docket::{Docket, Duty, Own, Steps};
use crate::world::{Id, Letter};

#[derive(Debug, Default)]
pub(crate) struct Judge {
    truth: Docket,
    freshness: Docket,
    /// What was read by those who knew a version.
    informed: Vec<Informed>,
    /// How often L2 has lost something, or a late `set` has overtaken something.
    epoch: usize,
}

/// How much has been executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    truth: usize,
    freshness: usize,
}

/// Somebody had been told of a change and asked for nothing older.
#[derive(Clone, Copy, Debug)]
struct Informed {
    node: Id,
    letter: Letter,
    read: Read,
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
    pub(crate) fn executed(&mut self, key: u64, revision: u64, by: (Version, NodeId), now: Duration) {
        self.truth.duties.push(Duty::new(by, at(key, revision, now)));
    }

    /// L2 has declared a key stale.
    pub(crate) fn expired(&mut self, key: u64, by: (Version, NodeId), now: Duration) {
        self.freshness.duties.push(Duty::new(by, at(key, by.0.number(), now)));
    }

    /// L2 is about to execute a `set` by a node. One that its caller has given up may come after newer changes. Arrival
    /// is what counts, so these are no duties any more, until the invalidation that the node still owes. How many.
    pub(crate) fn overtaken_by_set(&mut self, key: u64, revision: u64, by: NodeId) -> usize {
        let epoch = self.epoch + 1;
        let newer = |duty: &&mut Duty| {
            duty.write.key == key && duty.write.revision > revision && duty.lost_in.is_none()
        };
        let overtaken = self.truth.duties.iter_mut().filter(newer).map(|duty| {
            duty.lost_in = Some(epoch);
            duty.overtaken_by_its_node = (duty.origin == by).then_some(revision);
        });
        let overtaken = overtaken.count();
        self.epoch += usize::from(overtaken > 0);
        overtaken
    }

    /// How much has been executed so far, for [`lose_since`](Self::lose_since).
    pub(crate) fn mark(&self) -> Mark {
        Mark { truth: self.truth.duties.len(), freshness: self.freshness.duties.len() }
    }

    /// L2 has lost what was executed after the mark. Returns how many changes of truth.
    pub(crate) fn lose_since(&mut self, mark: Mark) -> usize {
        self.epoch += 1;
        self.freshness.lose_since(mark.freshness, self.epoch);
        self.truth.lose_since(mark.truth, self.epoch)
    }

    /// The revision that nobody may put an older one over.
    pub(crate) fn owed(&self, key: u64) -> u64 {
        let duties = self.truth.duties.iter();
        let duties = duties.filter(|duty| duty.write.key == key && duty.lost_in.is_none());
        duties.map(|duty| duty.write.revision).max().unwrap_or_default()
    }

    /// Whether L2 has ever heard of this revision or a newer one, and be it that it has lost it since.
    pub(crate) fn has_seen(&self, key: u64, revision: u64) -> bool {
        self.truth.duties.iter().any(|duty| duty.write.key == key && duty.write.revision >= revision)
    }

    /// A node's own change has returned to its caller, or its caller has gone.
    pub(crate) fn changed(
        &mut self,
        node: Id,
        (key, revision): (u64, u64),
        (version, steps): (Option<Version>, Steps),
        now: Duration,
    ) {
        let write = at(key, revision, now);
        self.truth.own.push(Own { node, write, version, epoch: self.epoch, steps });
    }

    /// L2 has acknowledged to a node that a key is stale.
    pub(crate) fn has_expired(&mut self, node: Id, key: u64, version: Version, now: Duration) {
        let write = at(key, version.number(), now);
        let (version, steps) = (Some(version), Steps::One);
        self.freshness.own.push(Own { node, write, version, epoch: self.epoch, steps });
    }

    pub(crate) fn read(&mut self, node: Id, read: Read) {
        self.truth.reads.push((self.epoch, node, read));
    }

    /// A tier served as fresh what was written as this version, or no later than it.
    pub(crate) fn read_as_fresh(&mut self, node: Id, read: Read, version: Version) {
        let read = Read { revision: version.number(), ..read };
        self.freshness.reads.push((self.epoch, node, read));
    }

    /// A read by somebody who had this letter before it began.
    pub(crate) fn read_informed(&mut self, node: Id, letter: Letter, read: Read) {
        self.informed.push(Informed { node, letter, read, epoch: self.epoch });
    }

    /// Judges every read by the bound of its node.
    pub(crate) fn judge(&self, bounds: &[Duration]) -> Verdict {
        let mut verdict = self.truth.judge(bounds, "");
        verdict.violations.extend(self.truth.overtaken());
        verdict.violations.extend(self.freshness.judge(bounds, " for what is fresh").violations);
        verdict.violations.extend(self.misinformed());
        verdict
    }

    /// Whoever asks for nothing older than a change gets nothing older, as long as L2 knows of that change.
    fn misinformed(&self) -> impl Iterator<Item = String> {
        let is_older = |informed: &&Informed| informed.read.revision < informed.letter.revision;
        let stands = |informed: &&Informed| {
            let key = informed.read.key;
            let mut duties = self.truth.duties_of(informed.letter.version, key);
            duties.any(|duty| duty.stands_in(informed.epoch))
        };
        self.informed.iter().filter(is_older).filter(stands).map(|informed| {
            format!("node {} read something older than it asked for: {informed:?}", informed.node)
        })
    }
}

fn at(key: u64, revision: u64, now: Duration) -> Write {
    let at = micros(now);
    Write { key, revision, start: at, end: at }
}
