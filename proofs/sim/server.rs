//! The server: the partition that ships, and the ways to lose what is in it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearfar::backend::{Beat, L2Error, Purged, Settings};
use nearfar::{Codec, MessagePack};
use nearfar_core::{
    BeatReply, Change, Claim, ClaimOutcome, Effect, Envelope, Fill, FillOutcome, Holder, KeyWrite, Kind,
    Message, MessageBody, Moment, NodeId, Notice, Partition, PartitionId, Refusal, Renewal, Tags, Version,
};

use crate::database::{Value, tag_of};
use crate::judge::Mark;
use crate::world::State;

pub(crate) struct Server {
    partitions: BTreeMap<u16, Partition>,
    pub(crate) settings: Option<Settings>,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// A connection belongs to one; after a restart or a failover it is another.
    pub(crate) incarnation: u64,
    log_len: usize,
    /// How far its clock has been set forward. It is never set back.
    ahead: Duration,
    past: VecDeque<Past>,
}

/// What it held before a change.
struct Past {
    at: Duration,
    partitions: BTreeMap<u16, Partition>,
    settings: Option<Settings>,
    /// What the judge had seen by then.
    mark: Mark,
}

/// Snapshots that are kept.
const PASTS: usize = 48;
/// Nodes know nothing of the server's clock, least of all that it began when they did.
const EPOCH: u64 = 1_000_000_000_000;
/// By how much the clock of each partition is ahead of the last one's: more than all but the longest of times.
pub(crate) const APART: Duration = Duration::from_secs(7 * 60);

impl Server {
    pub(crate) fn new(log_len: usize) -> Self {
        Self {
            partitions: BTreeMap::new(),
            settings: None,
            up: true,
            paused: false,
            incarnation: 0,
            log_len,
            ahead: Duration::ZERO,
            past: VecDeque::new(),
        }
    }

    pub(crate) fn set_forward(&mut self, by: Duration) {
        self.ahead += by;
    }

    /// What its clock says in a partition: as on a cluster, each is on a server of its own, with a clock of its own.
    pub(crate) fn time(&self, index: u16, now: Duration) -> Moment {
        Moment::from_micros(EPOCH) + self.ahead + now + APART * u32::from(index)
    }

    pub(crate) fn partition(&mut self, index: u16) -> &mut Partition {
        let log_len = self.log_len;
        self.partitions.entry(index).or_insert_with(|| Partition::new(log_len))
    }

    /// As `FLUSHALL` does, or a restart without a disk.
    pub(crate) fn empty(&mut self) {
        self.partitions.clear();
        self.settings = None;
    }

    fn remember(&mut self, at: Duration, mark: Mark) {
        if self.past.len() == PASTS {
            self.past.pop_front();
        }
        let (partitions, settings) = (self.partitions.clone(), self.settings);
        self.past.push_back(Past { at, partitions, settings, mark });
    }

    /// Goes back to what it held at that time, or to the oldest that is known. Returns the judge's mark of then.
    fn go_back(&mut self, to: Duration) -> Option<Mark> {
        let first_after = self.past.iter().position(|past| past.at >= to)?;
        let Past { partitions, settings, mark, .. } =
            self.past.drain(first_after..).next().expect("it was just found");
        (self.partitions, self.settings) = (partitions, settings);
        Some(mark)
    }
}

/// What whoever reads from now on has to see of a key: a set value, or what the database has now.
struct Duty {
    key: u64,
    revision: u64,
    is_set: bool,
}

impl State {
    /// L2's side of a change of truth: one atomic step, which the judge attends.
    pub(crate) fn change(&mut self, index: u16, change: &Change) -> Result<Version, L2Error> {
        let now = self.now();
        let time = self.server.time(index, now);
        self.server.remember(now, self.judge.mark());
        let (version, frame) = match self.server.partition(index).change(time, change) {
            Ok(executed) => executed,
            Err(refusal) => {
                self.server.past.pop_back();
                self.count(match refusal {
                    Refusal::Late => "late changes refused",
                    Refusal::Unmet => "changes refused for their precondition",
                });
                self.note(|| format!("server: refuses a change, {refusal:?}: {}", describe(change)));
                return Err(refusal.into());
            }
        };
        self.note(|| format!("server: {version}: {}", describe(change)));
        let origin = Message::decode(&frame).expect("nodes send what they can read").origin;
        self.attend_expiration(index, change, (version, origin));
        for duty in self.duties_of(index, change) {
            self.attend(&duty, (version, origin));
        }
        self.publish_message(index, &frame);
        self.inspect();
        Ok(version)
    }

    fn attend(&mut self, duty: &Duty, (version, origin): (Version, NodeId)) {
        let Duty { key, revision, is_set } = *duty;
        if is_set {
            let overtaken = self.judge.overtaken_by_set(key, revision, origin);
            self.count_many("changes overtaken by a late set", overtaken as u64);
        }
        let now = self.now();
        self.judge.executed(key, revision, (version, origin), now);
    }

    /// What is declared old is not wrong, but is not fresh either.
    fn attend_expiration(&mut self, index: u16, change: &Change, (version, origin): (Version, NodeId)) {
        let keys: Vec<u64> = match change.effect {
            Effect::Expire => change.writes.iter().filter_map(|write| key_of(&write.key)).collect(),
            Effect::ExpireTags => self.keys_tagged(index, change).collect(),
            Effect::Write | Effect::Clear | Effect::InvalidateTags => return,
        };
        let now = self.now();
        for key in keys {
            self.judge.expired(key, (version, origin), now);
            self.count("expirations");
        }
    }

    fn duties_of(&self, index: u16, change: &Change) -> Vec<Duty> {
        let invalidated = |key| Duty { key, revision: self.database.revision(key), is_set: false };
        match change.effect {
            Effect::Clear => return self.keys_in(index).map(invalidated).collect(),
            Effect::InvalidateTags => return self.keys_tagged(index, change).map(invalidated).collect(),
            Effect::Expire | Effect::ExpireTags => return Vec::new(),
            Effect::Write => {}
        }
        let duty = |write: &KeyWrite| {
            let set = value_of(&write.envelope);
            let set = set.map(|Value { key, revision }| Duty { key, revision, is_set: true });
            set.or_else(|| key_of(&write.key).map(invalidated))
        };
        change.writes.iter().filter_map(duty).collect()
    }

    pub(crate) fn fill_many(&mut self, index: u16, fills: &[Fill]) -> Vec<FillOutcome> {
        fills.iter().map(|fill| self.fill(index, fill)).collect()
    }

    fn fill(&mut self, index: u16, fill: &Fill) -> FillOutcome {
        let time = self.server.time(index, self.now());
        let outcome = self.server.partition(index).fill(time, fill);
        self.count(match outcome {
            FillOutcome::Stored => "fills stored",
            FillOutcome::Refused => "old fills refused",
            FillOutcome::Late => "late fills refused",
        });
        let (key, value) = (key_of(&fill.write.key), value_of(&fill.write.envelope));
        self.note(|| format!("server: fill of {key:?} with {value:?} on {}: {outcome:?}", fill.base));
        self.inspect();
        outcome
    }

    pub(crate) fn renew(&mut self, index: u16, renewal: &Renewal) -> FillOutcome {
        let time = self.server.time(index, self.now());
        let outcome = self.server.partition(index).renew(time, renewal);
        self.count(if outcome == FillOutcome::Stored { "renewals" } else { "old renewals refused" });
        self.note(|| {
            format!("server: renewal of {:?} on {}: {outcome:?}", key_of(&renewal.key), renewal.base)
        });
        self.inspect();
        outcome
    }

    pub(crate) fn touch(&mut self, index: u16, key: &Bytes, fence_window: Duration) {
        let time = self.server.time(index, self.now());
        self.server.partition(index).touch(time, key, fence_window);
        self.count("touches");
        self.note(|| format!("server: {:?} was read", key_of(key)));
        self.inspect();
    }

    pub(crate) fn purge(&mut self, index: u16, fence_window: Duration) -> Purged {
        let time = self.server.time(index, self.now());
        let purged = self.server.partition(index).purge(time, fence_window);
        self.count_many("entries purged", purged.removed);
        self.inspect();
        purged
    }

    pub(crate) fn claim(&mut self, index: u16, claim: &Claim) -> ClaimOutcome {
        let time = self.server.time(index, self.now());
        let outcome = self.server.partition(index).claim(time, claim);
        self.count(match outcome {
            ClaimOutcome::Granted => "claims granted",
            ClaimOutcome::Held { .. } => "claims held by others",
            ClaimOutcome::Overtaken => "claims overtaken",
        });
        // The number of the load counts those of all histories in this process.
        self.note(|| format!("server: {} claims {:?}: {outcome:?}", claim.holder.node, key_of(&claim.key)));
        outcome
    }

    pub(crate) fn release(&mut self, partition: &PartitionId, key: &Bytes, holder: Holder) {
        let notice = Notice { key: key.clone() }.encode();
        self.note(|| format!("server: {} releases {:?}", holder.node, key_of(key)));
        for node in self.server.partition(partition.index()).release(key, holder) {
            self.count("nodes told of a release");
            self.publish_echo(partition, node, &notice);
        }
    }

    pub(crate) fn beat(&mut self, partition: &PartitionId, beat: &Beat) -> BeatReply {
        let time = self.server.time(partition.index(), self.now());
        let state = self.server.partition(partition.index());
        let (reply, echo) = state.beat(time, beat.node, beat.id, beat.forget_after);
        self.publish_echo(partition, beat.node, &echo.encode());
        reply
    }

    /// Nothing is resurrected: what L2 would serve is never older than a change that it has executed and not lost.
    fn inspect(&mut self) {
        for key in self.database.keys() {
            let index = self.index_of(key);
            let time = self.server.time(index, self.now());
            let snapshot = self.server.partition(index).read(time, key.to_string().as_bytes());
            let (Some(bytes), Some(head)) = (snapshot.envelope, snapshot.head) else { continue };
            let Ok(envelope) = Envelope::decode(&bytes) else {
                self.blame(format!("L2 holds under key {key} what nobody can read: {bytes:?}"));
                continue;
            };
            let tags = Tags::of(&envelope).expect("nodes write what they can read");
            let marks = self.server.partition(index).tag_marks(tags.as_slice());
            let is_disowned = marks.iter().any(|mark| mark.wrong > envelope.stamp.version);
            if head.covers(envelope.stamp.version) && !is_disowned {
                self.inspect_key(key, &envelope);
            }
        }
    }

    fn inspect_key(&mut self, key: u64, envelope: &Envelope) {
        let held = match envelope.header.kind {
            Kind::Value => value_in(envelope).map(|value| (value.key, value.revision)),
            // That there was nothing, it may say since the last time that there was.
            Kind::Absent => self.database.deleted(key).map(|revision| (key, revision)),
            Kind::Tombstone => return,
        };
        let owed = self.judge.owed(key);
        if held.is_none_or(|(of, revision)| of != key || revision < owed) {
            self.blame(format!(
                "L2 holds {held:?} under key {key}, which owes revision {owed}: {envelope:?}"
            ));
        }
    }

    /// The server dies; with it every connection, as each node will notice sooner or later.
    pub(crate) fn crash_server(&mut self) {
        self.server.up = false;
        self.server.paused = false;
        self.server.incarnation += 1;
        self.stations.iter_mut().for_each(|station| station.registered.clear());
        self.tell_everybody();
    }

    /// The server goes back to what it held so long ago.
    pub(crate) fn lose_since(&mut self, ago: Duration) {
        let to = self.now().saturating_sub(ago);
        let lost = self.server.go_back(to).map_or(0, |mark| self.judge.lose_since(mark));
        self.count_many("changes lost", lost as u64);
        self.note(|| format!("server: goes back {ago:?} and loses {lost} duties"));
    }

    /// Which partition a key is in.
    pub(crate) fn index_of(&self, key: u64) -> u16 {
        PartitionId::index_of(key.to_string().as_bytes(), self.plan.partitions)
    }

    /// Those of a partition that carry a tag which the change is about.
    fn keys_tagged(&self, index: u16, change: &Change) -> impl Iterator<Item = u64> {
        self.keys_in(index).filter(|key| change.writes.iter().any(|write| write.key == tag_of(*key)))
    }

    fn keys_in(&self, index: u16) -> impl Iterator<Item = u64> {
        self.database.keys().filter(move |key| self.index_of(*key) == index)
    }
}

fn key_of(encoded: &Bytes) -> Option<u64> {
    std::str::from_utf8(encoded).ok()?.parse().ok()
}

fn value_of(envelope: &Bytes) -> Option<Value> {
    Envelope::decode(envelope).ok().as_ref().and_then(value_in)
}

fn value_in(envelope: &Envelope) -> Option<Value> {
    (envelope.header.kind == Kind::Value).then(|| MessagePack.decode(&envelope.payload).ok())?
}

fn describe(change: &Change) -> String {
    let values: Vec<_> =
        change.writes.iter().map(|write| (key_of(&write.key), value_of(&write.envelope))).collect();
    if change.effect == Effect::Clear {
        format!("{:?}", MessageBody::Clear)
    } else {
        format!("{:?}s {values:?}", change.effect)
    }
}
