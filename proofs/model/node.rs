//! One node: the shipped gate, follower and outbox, and a sketch of what `nearfar` puts round them, in the same order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use nearfar_core::{
    Batch, BeatId, Disconnected, Echo, Fill, FillOutcome, Follower, FollowerOptions, Gate, Height, Message,
    MessageBody, Moment, NodeId, Outbox, Proof, Replay, Setback, Standing, Subject, Ticket, Version,
};

use crate::scenario::{MAX_STALENESS, Mutant};
use crate::server::{Request, Revision, key_bytes, key_of};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) gate: Gate,
    pub(crate) follower: Follower,
    pub(crate) outbox: Outbox,
    /// L1.
    pub(crate) copies: Vec<Option<Copy>>,
    pub(crate) loads: Vec<Load>,
    pub(crate) changes: Vec<Pending>,
    pub(crate) delivery: Option<Delivery>,
    /// A beat on its way to L2.
    pub(crate) beat: Option<BeatId>,
    pub(crate) log: Option<LogRequest>,
    /// Whether it follows the bus at all.
    pub(crate) follows: bool,
    /// Whether L2 sends it what is published.
    pub(crate) subscribed: bool,
    pub(crate) inbox: VecDeque<Event>,
    /// A message that is half applied.
    pub(crate) half: Option<Bytes>,
    own_clear: Version,
    /// What its callers know of their own changes: older they must never see again.
    pub(crate) own: Vec<Revision>,
    /// Whether it has heard from L2 since L2 was last in trouble.
    pub(crate) proved: bool,
    pub(crate) last_beat: u64,
    /// Older beats know nothing of what L2 has acknowledged since.
    pub(crate) proves_from: u64,
    pub(crate) mutant: Option<Mutant>,
}

/// What L1 holds of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Copy {
    version: Version,
    pub(crate) revision: Revision,
    generation: u64,
}

/// A flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Load {
    pub(crate) key: usize,
    ticket: Arc<Ticket>,
    departure: Departure,
    /// Whether it is still in the table of flights.
    pub(crate) listed: bool,
    /// What its callers must see at the least.
    pub(crate) required: Revision,
    pub(crate) stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Departure {
    at: Moment,
    generation: u64,
    fence: Height,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// L2 has answered, the answer is on its way.
    Reading { found: Option<(Version, Revision)>, base: Option<Version> },
    /// The database was read.
    Loading { base: Option<Version>, revision: Revision },
    /// The fill is on its way to L2.
    Filling { fill: Fill, revision: Revision },
    /// Its outcome is on its way back.
    Filled { outcome: FillOutcome, base: Version, revision: Revision },
}

/// A change that its caller waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    /// On its way to L2.
    pub(crate) request: Option<Request>,
    /// On its way back.
    pub(crate) reply: Option<Reply>,
    /// What it changes, and to which revision.
    pub(crate) keys: Vec<(usize, Revision)>,
    pub(crate) kind: ChangeKind,
    ticket: Arc<Ticket>,
    began: Moment,
    executed_by: Moment,
}

/// What L2 answers to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Executed(Version),
    /// It came after its deadline.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChangeKind {
    Set,
    Invalidate,
    Clear,
}

/// A batch of the outbox, under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Delivery {
    batch: Batch,
    pub(crate) request: Option<Request>,
    pub(crate) reply: Option<Reply>,
}

/// A part of the log that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LogRequest {
    pub(crate) since: Version,
    pub(crate) until: Version,
    pub(crate) frames: Option<Vec<Bytes>>,
}

/// What the subscription delivers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Message(Bytes),
    Echo(Bytes),
    Doubt,
}

impl Node {
    pub(crate) fn new(id: NodeId, keys: usize) -> Self {
        let options = FollowerOptions { max_staleness: MAX_STALENESS };
        Self {
            id,
            gate: Gate::with_stripes(Disconnected::Bypass, 2),
            follower: Follower::new(options, BeatId::new(1)),
            outbox: Outbox::default(),
            copies: vec![None; keys],
            loads: Vec::new(),
            changes: Vec::new(),
            delivery: None,
            beat: None,
            log: None,
            follows: true,
            subscribed: true,
            inbox: VecDeque::new(),
            half: None,
            own_clear: Version::UNKNOWN,
            own: vec![0; keys],
            proved: false,
            last_beat: 0,
            proves_from: 0,
            mutant: None,
        }
    }

    /// Nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.loads.is_empty()
            && self.changes.is_empty()
            && self.outbox.depth() == 0
            && self.inbox.is_empty()
            && self.half.is_none()
            && self.beat.is_none()
            && self.log.is_none()
    }

    /// What L1 would give to a reader now.
    pub(crate) fn served(&self, key: usize, now: Moment) -> Option<Revision> {
        let copy = self.copies[key].as_ref()?;
        let alive = self.gate.serves(now) && copy.generation == self.gate.generation();
        alive.then_some(copy.revision)
    }
}

/// What it holds.
impl Node {
    fn admit(&mut self, key: usize, ticket: &Ticket, copy: Copy) {
        let newer_present = self.copies[key]
            .as_ref()
            .is_some_and(|present| present.generation == copy.generation && present.version > copy.version);
        let admitted = self.mutant == Some(Mutant::NoTicketCheck) || self.gate.admits(ticket, copy.version);
        if !newer_present && admitted {
            self.copies[key] = Some(copy);
        }
    }

    fn settle(&mut self, key: usize, version: Version) {
        self.raise(key, version);
        self.evict(key, version);
    }

    fn raise(&mut self, key: usize, version: Version) {
        let raised = self.gate.raise(&key_bytes(key), version);
        if self.mutant != Some(Mutant::FlightJoinedAcrossInvalidation) {
            let older = |load: &&mut Load| load.key == key && load.departure.fence < raised.height();
            self.loads.iter_mut().filter(older).for_each(|load| load.listed = false);
        }
    }

    fn evict(&mut self, key: usize, version: Version) {
        self.copies[key].take_if(|copy| copy.version < version);
    }

    fn forget(&mut self, version: Version) {
        self.gate.clear(version);
        self.copies.fill(None);
    }

    fn discard(&mut self, key: usize) {
        if self.mutant != Some(Mutant::NoUnsettledFence) {
            self.gate.raise_unsettled(&key_bytes(key));
        }
        self.loads.iter_mut().filter(|load| load.key == key).for_each(|load| load.listed = false);
        self.copies[key] = None;
    }
}

/// Changes.
impl Node {
    /// Begins to wait for a change that is on its way.
    pub(crate) fn begin_change(
        &mut self,
        kind: ChangeKind,
        keys: Vec<(usize, Revision)>,
        request: Request,
        (began, executed_by): (Moment, Moment),
    ) {
        let ticket = Arc::new(self.gate.ticket(&key_bytes(keys[0].0)));
        let pending = Pending { request: Some(request), reply: None, keys, kind, ticket, began, executed_by };
        self.changes.push(pending);
    }

    /// L2 has acknowledged it.
    pub(crate) fn end_change(&mut self, pending: &Pending, version: Version, now: Moment) {
        if pending.kind == ChangeKind::Clear {
            self.forget(version);
            self.own_clear = version;
        }
        for (key, revision) in &pending.keys {
            if pending.kind != ChangeKind::Clear {
                self.settle(*key, version);
            }
            self.own[*key] = self.own[*key].max(*revision);
        }
        self.remember(now, pending.as_batch(), version);
        if pending.kind != ChangeKind::Clear {
            self.outbox.strike_out([Subject::Key(key_bytes(pending.keys[0].0))], pending.began);
        }
        if pending.kind == ChangeKind::Set {
            let (key, revision) = pending.keys[0];
            let copy = Copy { version, revision, generation: pending.ticket.generation() };
            self.admit(key, &pending.ticket, copy);
        }
    }

    /// It was not acknowledged, and will not be; it may be executed until then.
    pub(crate) fn fail_change(&mut self, pending: &Pending, now: Moment, executed_by: Moment) {
        let may_be_sent_at = if self.mutant == Some(Mutant::OutboxTooEarly) { now } else { executed_by };
        match pending.as_batch() {
            _ if self.mutant == Some(Mutant::NoOutbox) => {}
            Batch::Everything => self.outbox.add_everything(now, may_be_sent_at),
            Batch::Keys(keys) => {
                for key in keys {
                    self.outbox.add(now, key, may_be_sent_at);
                }
            }
            Batch::Tags(_) => unreachable!("nothing has tags here"),
        }
        for (key, revision) in &pending.keys {
            if pending.kind != ChangeKind::Clear {
                self.discard(*key);
            }
            self.own[*key] = self.own[*key].max(*revision);
        }
        if pending.kind == ChangeKind::Clear {
            self.forget(Version::UNKNOWN);
        }
    }

    /// Whether an earlier change, given up, could be executed after one that begins now.
    pub(crate) fn may_be_overtaken(&self, kind: ChangeKind, key: usize, now: Moment) -> bool {
        let subject = Subject::Key(key_bytes(key));
        self.outbox.may_be_overtaken((kind != ChangeKind::Clear).then_some(&subject), now)
    }

    fn remember(&mut self, now: Moment, batch: Batch, version: Version) {
        if self.mutant != Some(Mutant::NothingReissued) {
            self.outbox.remember(now, batch, version);
        }
    }

    /// L2 has acknowledged a batch of the outbox, or refused it.
    pub(crate) fn end_delivery(&mut self, delivery: &Delivery, reply: Reply, now: Moment) {
        let Reply::Executed(version) = reply else { return self.outbox.fail(now, Setback::Late) };
        if self.mutant != Some(Mutant::NothingReissued) {
            self.outbox.remember_sent(now, version);
        }
        match &delivery.batch {
            Batch::Keys(keys) => keys.iter().for_each(|key| self.settle(key_of(key), version)),
            Batch::Tags(_) => unreachable!("nothing has tags here"),
            Batch::Everything => self.forget(version),
        }
        self.outbox.acknowledge();
    }

    pub(crate) fn begin_delivery(&mut self, batch: Batch, request: Request) {
        self.delivery = Some(Delivery { batch, request: Some(request), reply: None });
    }
}

impl Pending {
    fn as_batch(&self) -> Batch {
        match self.kind {
            ChangeKind::Clear => Batch::Everything,
            ChangeKind::Set | ChangeKind::Invalidate => Batch::Keys(vec![key_bytes(self.keys[0].0)]),
        }
    }

    pub(crate) fn executed_by(&self) -> Moment {
        self.executed_by
    }
}

/// Reads and loads.
impl Node {
    /// The flight that a caller who comes now would join.
    pub(crate) fn joinable(&mut self, key: usize, now: Moment) -> Option<&mut Load> {
        let (serves, generation) = (self.gate.serves(now), self.gate.generation());
        let may_join = |departure: &Departure| {
            let heard_of_all = serves || now.since(departure.at) < MAX_STALENESS;
            heard_of_all && departure.generation == generation
        };
        let joins_any = self.mutant == Some(Mutant::FlightJoinedAcrossInvalidation);
        let fits = |load: &&mut Load| load.key == key && load.listed;
        self.loads.iter_mut().filter(fits).find(|load| joins_any || may_join(&load.departure))
    }

    pub(crate) fn begin_load(&mut self, key: usize, now: Moment, required: Revision, stage: Stage) {
        let bytes = key_bytes(key);
        let (generation, fence) = (self.gate.generation(), self.gate.height(&bytes));
        let departure = Departure { at: now, generation, fence };
        // The new flight takes the place of an older one in the table.
        self.loads.iter_mut().filter(|load| load.key == key).for_each(|load| load.listed = false);
        let ticket = Arc::new(self.gate.ticket(&bytes));
        self.loads.push(Load { key, ticket, departure, listed: true, required, stage });
    }

    /// L2 had nothing, or did not answer: the database is read.
    pub(crate) fn begin_loading(&mut self, at: usize, base: Option<Version>, revision: Revision) {
        let load = &mut self.loads[at];
        load.ticket = Arc::new(self.gate.ticket(&key_bytes(load.key)));
        load.stage = Stage::Loading { base, revision };
    }

    /// The flight has landed, with a value for L1 or without.
    pub(crate) fn end_load(&mut self, at: usize, admitted: Option<(Version, Revision)>) {
        let load = self.loads.remove(at);
        if let Some((version, revision)) = admitted {
            let copy = Copy { version, revision, generation: load.ticket.generation() };
            self.admit(load.key, &load.ticket, copy);
        }
    }
}

impl Load {
    /// When L2 was asked.
    pub(crate) fn asked_at(&self) -> Moment {
        self.departure.at
    }
}

/// What the subscription delivers.
impl Node {
    /// The first half of a message: from here on older values are not admitted.
    pub(crate) fn begin_message(&mut self, frame: Bytes) {
        let message = decoded(&frame);
        for key in keys_of(&message) {
            match self.mutant {
                Some(Mutant::FenceAfterEviction) => self.evict(key, message.sequence),
                _ => self.raise(key, message.sequence),
            }
        }
        self.half = Some(frame);
    }

    /// The second half.
    pub(crate) fn end_message(&mut self) {
        let Some(frame) = self.half.take() else { return };
        let message = decoded(&frame);
        match self.mutant {
            Some(Mutant::FenceAfterEviction) => {
                keys_of(&message).for_each(|key| self.raise(key, message.sequence));
            }
            _ => self.apply(&message),
        }
        match self.follower.handle_message(&self.gate, &message, &frame) {
            Standing::Next => {
                let complete = self.follower.applied();
                if !self.accounts_for(&[message], complete) {
                    self.follower.handle_fork(&self.gate);
                }
            }
            Standing::Gap | Standing::Duplicate | Standing::OutOfStep => {}
        }
    }

    fn apply(&mut self, message: &Message) {
        match &message.body {
            MessageBody::Keys(keys) | MessageBody::Expired(keys) => {
                for key in keys {
                    self.settle(key_of(key), message.sequence);
                }
            }
            MessageBody::Tags(_) | MessageBody::ExpiredTags(_) => unreachable!("nothing has tags here"),
            MessageBody::Clear => {
                let known = message.origin == self.id && message.sequence == self.own_clear;
                if !known {
                    self.forget(message.sequence);
                }
            }
        }
    }

    fn accounts_for(&mut self, messages: &[Message], complete: Option<Version>) -> bool {
        if self.mutant == Some(Mutant::NoWitness) {
            return true;
        }
        let own = messages.iter().filter(|message| message.origin == self.id);
        own.for_each(|message| self.outbox.hear(message.sequence));
        complete.is_none_or(|complete| self.outbox.pass(complete))
    }

    pub(crate) fn handle_echo(&mut self, frame: &[u8], now: Moment) {
        let echo = Echo::decode(frame).expect("L2 sends whole echoes");
        if self.mutant == Some(Mutant::GapsIgnored)
            && let Some(sent) = self.follower.sent_at(echo.beat)
        {
            self.follower.handle_echo(&self.gate, &echo);
            self.gate.extend(sent + MAX_STALENESS);
            return;
        }
        match self.follower.handle_echo(&self.gate, &echo) {
            Proof::Void => return,
            Proof::Extended => {}
            Proof::Replay { since, until } => {
                self.log = Some(LogRequest { since, until, frames: None });
            }
            Proof::Resynced => self.resynced(now),
        }
        self.outbox.nudge();
    }

    fn resynced(&mut self, now: Moment) {
        self.copies.fill(None);
        let adopted = self.follower.applied().unwrap_or_default();
        if self.outbox.reissue(now, adopted) > 0 {
            self.gate.forget_copies();
        }
    }

    pub(crate) fn handle_doubt(&mut self) {
        self.follower.handle_doubt(&self.gate);
    }

    /// The log was asked, and has answered or not.
    pub(crate) fn handle_log(&mut self, request: &LogRequest, now: Moment) {
        if !self.follower.replays(request.since, request.until) {
            return;
        }
        let Some(frames) = &request.frames else { return self.handle_doubt() };
        if self.mutant == Some(Mutant::NoLogMatching) {
            return self.believe_log(frames, request.since);
        }
        let replay = self.follower.check_log(frames).filter(|replay| self.replay(replay));
        let Some(replay) = replay else {
            self.follower.give_up_replay(&self.gate);
            return self.resynced(now);
        };
        self.follower.finish_replay(&self.gate, &replay);
    }

    fn replay(&mut self, replay: &Replay) -> bool {
        replay.messages().iter().for_each(|message| self.apply(message));
        self.accounts_for(replay.messages(), Some(replay.reaches()))
    }

    /// Goes on from what the log holds, whether or not it follows what was applied, and keeps L1.
    fn believe_log(&mut self, frames: &[Bytes], since: Version) {
        let messages = frames.iter().map(decoded);
        let missed: Vec<_> = messages.filter(|message| message.sequence > since).collect();
        for message in missed {
            self.apply(&message);
        }
        let elsewhere = self.gate.clone();
        self.follower.give_up_replay(&elsewhere);
        self.gate.extend(elsewhere.serve_until());
    }
}

fn decoded(frame: &Bytes) -> Message {
    Message::decode(frame).expect("L2 sends whole messages")
}

fn keys_of(message: &Message) -> impl Iterator<Item = usize> {
    message.body.names().iter().map(|key| key_of(key))
}
