//! L2, as it is shipped, and beside it what is true of each key.

use bytes::Bytes;
use nearfar_core::{Change, Envelope, EnvelopeHeader, Fill, FillOutcome, Kind, Moment, Partition, Version};

use crate::scenario::MAX_STALENESS;

/// What a row of the database was changed to: its first state is 1, each change adds one.
pub(crate) type Revision = u8;

/// What a change does to the truth.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// L2 holds this revision of this key from now on.
    Set(usize, Revision),
    /// L2 holds nothing of these keys.
    Invalidate(Vec<usize>),
    /// L2 holds nothing.
    Clear,
}

/// A change on its way to L2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) effect: Effect,
    /// Whether an earlier `set` may be executed behind it. Its caller is told that it is not the last word.
    pub(crate) may_be_overtaken: bool,
}

impl Request {
    /// Whether it would overwrite the key, rather than invalidate it.
    pub(crate) fn sets(&self, key: usize) -> bool {
        matches!(self.effect, Effect::Set(other, _) if other == key)
    }

    pub(crate) fn touches(&self, key: usize) -> bool {
        match &self.effect {
            Effect::Set(other, _) => *other == key,
            Effect::Invalidate(keys) => keys.contains(&key),
            Effect::Clear => true,
        }
    }
}

/// The changes of one key that L2 has executed, in the history that it has now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Truth {
    /// Each makes older revisions wrong from then on. Those that are no news to any reader any more are left out.
    executed: Vec<(Revision, Moment)>,
}

impl Truth {
    fn newest(&self) -> Revision {
        self.executed.last().map_or(0, |(revision, _)| *revision)
    }

    /// What a reader may see at the least.
    fn required(&self, now: Moment) -> Revision {
        let known = self.executed.iter().rev().find(|(_, at)| *at + MAX_STALENESS <= now);
        known.map_or(0, |(revision, _)| *revision)
    }

    fn execute(&mut self, revision: Revision, now: Moment) {
        if revision > self.newest() {
            self.executed.push((revision, now));
        }
    }

    fn prune(&mut self, now: Moment) {
        let required = self.required(now);
        self.executed.retain(|(revision, _)| *revision >= required);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) partition: Partition,
    log_len: usize,
    truth: Vec<Truth>,
}

impl Server {
    pub(crate) fn new(keys: usize, log_len: usize) -> Self {
        let truth = vec![Truth { executed: Vec::new() }; keys];
        Self { partition: Partition::new(log_len), log_len, truth }
    }

    /// Loses its data. What was true stays true.
    pub(crate) fn wipe(&mut self) {
        self.partition = Partition::new(self.log_len);
    }

    /// Executes a change; returns its number and its message, unless it came after its deadline.
    pub(crate) fn execute(
        &mut self,
        now: Moment,
        request: &Request,
        database: &[Revision],
    ) -> Option<(Version, Bytes)> {
        let executed = self.partition.change(now, &request.change).ok()?;
        if request.may_be_overtaken {
            return Some(executed);
        }
        for (key, truth) in self.truth.iter_mut().enumerate() {
            match &request.effect {
                Effect::Set(set, revision) if *set == key => truth.execute(*revision, now),
                _ if request.touches(key) => truth.execute(database[key], now),
                _ => {}
            }
        }
        Some(executed)
    }

    pub(crate) fn fill(&mut self, now: Moment, fill: &Fill) -> FillOutcome {
        self.partition.fill(now, fill)
    }

    /// The value that L2 would give to a reader, if it has one.
    pub(crate) fn value(&self, now: Moment, key: usize) -> Option<(Version, Revision)> {
        let snapshot = self.partition.read(now, &key_bytes(key));
        let envelope = Envelope::decode(&snapshot.envelope?).expect("only whole envelopes are stored");
        let alive = snapshot.head?.covers(envelope.stamp.version) && envelope.header.kind == Kind::Value;
        alive.then(|| (envelope.stamp.version, envelope.payload[0]))
    }

    /// The revision below which nothing may be stored any more.
    pub(crate) fn newest(&self, key: usize) -> Revision {
        self.truth[key].newest()
    }

    /// What the bound allows a reader to see at the least.
    pub(crate) fn required(&self, now: Moment, key: usize) -> Revision {
        self.truth[key].required(now)
    }

    pub(crate) fn prune(&mut self, now: Moment) {
        self.truth.iter_mut().for_each(|truth| truth.prune(now));
    }
}

pub(crate) fn key_bytes(key: usize) -> Bytes {
    Bytes::from_static([b"ab".as_slice(), b"cd".as_slice()][key])
}

/// The key of these bytes.
pub(crate) fn key_of(bytes: &[u8]) -> usize {
    (0..2).find(|key| key_bytes(*key) == bytes).expect("nobody uses other keys")
}

pub(crate) fn envelope(revision: Revision) -> Bytes {
    Envelope::encode(&EnvelopeHeader::of(Kind::Value), &[], &[revision])
}
