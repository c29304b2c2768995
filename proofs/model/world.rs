//! All that is: nodes, L2, what is on the way between them, and the database.

use nearfar_core::{
    Batch, BeatId, Change, Echo, Fill, FillOutcome, KeyWrite, Moment, NodeId, Outbox, Setback, Subject,
    Version,
};

use crate::node::{ChangeKind, Event, LogRequest, Node, Reply, Stage};
use crate::scenario::{
    BEGINNING, Budget, COMMAND_TIMEOUT, FENCE_WINDOW, MAX_STALENESS, Mutant, Scenario, TICK,
};
use crate::server::{Effect, Request, Revision, Server, envelope, key_bytes, key_of};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: Moment,
    /// The truth.
    pub(crate) database: Vec<Revision>,
    pub(crate) server: Server,
    /// As L2 was when it was last replicated, or saved.
    pub(crate) replica: Option<Server>,
    pub(crate) nodes: Vec<Node>,
    /// Operations that nobody waits for any more, on their way all the same.
    pub(crate) late: Vec<Late>,
    pub(crate) left: Budget,
    /// What a caller got that it must not have got.
    pub(crate) wrong_read: Option<WrongRead>,
    /// Keys of which a change was lost for good: its node died before L2 had it, or before L2 lost it.
    pub(crate) excused: Vec<bool>,
    /// When L2 was last in trouble.
    trouble_at: Moment,
    /// So many nodes have been started.
    started: u64,
    mutant: Option<Mutant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Late {
    Change { by: NodeId, request: Request, executed_by: Moment },
    Fill(Fill),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WrongRead {
    pub(crate) got: Revision,
    pub(crate) required: Revision,
}

/// The beginning.
impl World {
    /// Every node has the first revision of every key in L1, and is trusted.
    pub(crate) fn warm(scenario: &Scenario) -> Self {
        let mut world = Self::empty(scenario);
        let bystanders = scenario.nodes - scenario.followers;
        world.nodes[..bystanders].iter_mut().for_each(|node| node.follows = false);
        let followers = bystanders..scenario.nodes;
        for at in followers.clone() {
            world.beat(at);
            world.land_beat(at);
            world.deliver_all(at);
        }
        for key in world.keys() {
            world.begin_change(0, ChangeKind::Set, key);
            world.land_change(0, 0);
            world.end_change(0, 0);
        }
        // That was long ago.
        world.nodes[0].outbox = Outbox::default();
        for at in followers {
            world.deliver_all(at);
            for key in world.keys().filter(|_| at > 0) {
                world.begin_read(at, key);
                world.answer_read(at, 0);
            }
        }
        world.left = scenario.budget;
        world.break_with(scenario.mutant);
        world
    }

    fn deliver_all(&mut self, at: usize) {
        while self.deliver(at, false) {}
    }

    /// From here on it is wrong in this way.
    fn break_with(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
        self.nodes.iter_mut().for_each(|node| node.mutant = mutant);
    }

    fn empty(scenario: &Scenario) -> Self {
        let ids = 1..=scenario.nodes as u64;
        Self {
            now: BEGINNING,
            database: vec![0; scenario.keys],
            server: Server::new(scenario.keys, scenario.log_len),
            replica: None,
            nodes: ids.map(|id| Node::new(NodeId::new(id), scenario.keys)).collect(),
            late: Vec::new(),
            left: Budget::default(),
            wrong_read: None,
            excused: vec![false; scenario.keys],
            trouble_at: Moment::default(),
            started: scenario.nodes as u64,
            mutant: None,
        }
    }
}

/// What must hold.
impl World {
    /// What a caller of this node may see at the least.
    pub(crate) fn required(&self, at: usize, key: usize) -> Revision {
        self.server.required(self.now, key).max(self.nodes[at].own[key])
    }

    pub(crate) fn keys(&self) -> std::ops::Range<usize> {
        0..self.database.len()
    }

    /// Whether all is said and done: nothing is under way, and every node is in touch with L2.
    pub(crate) fn is_settled(&self) -> bool {
        let in_touch = |node: &Node| node.subscribed && node.proved && node.gate.trusts(self.now);
        let settled = |node: &Node| node.is_quiet() && (in_touch(node) || !node.follows);
        self.late.is_empty() && self.nodes.iter().all(settled)
    }

    pub(crate) fn has_load(&self, wanted: impl Fn(&Stage) -> bool) -> bool {
        self.nodes.iter().flat_map(|node| &node.loads).any(|load| wanted(&load.stage))
    }

    fn read(&mut self, got: Revision, required: Revision) {
        if got < required {
            self.wrong_read = Some(WrongRead { got, required });
        }
    }
}

/// Time, and changes.
impl World {
    pub(crate) fn tick(&mut self) {
        let now = self.now + TICK;
        self.now = now;
        self.server.prune(now);
        // L2 would refuse them.
        self.late.retain(|late| match late {
            Late::Change { request, .. } => now <= request.change.deadline,
            Late::Fill(fill) => now <= fill.deadline,
        });
    }

    /// Whether a change of the key may begin: as those who order their writes by the database do, a `set` overlaps
    /// with no other change. Of a change that was given up, its own node knows that it may still be executed; other
    /// nodes wait until it cannot be.
    pub(crate) fn may_change(&self, at: usize, kind: ChangeKind, key: usize) -> bool {
        let under_way = self
            .nodes
            .iter()
            .flat_map(|node| node.changes.iter().filter_map(|pending| pending.request.as_ref()));
        let id = self.nodes[at].id;
        let late = self.late.iter().filter_map(|late| match late {
            Late::Change { by, request, executed_by } if *by != id && self.now < *executed_by => {
                Some(request)
            }
            Late::Change { .. } | Late::Fill(_) => None,
        });
        let mut requests = under_way.chain(late);
        match kind {
            ChangeKind::Set => !requests.any(|request| request.touches(key)),
            ChangeKind::Invalidate => !requests.any(|request| request.sets(key)),
            ChangeKind::Clear => !requests.any(|request| matches!(request.effect, Effect::Set(..))),
        }
    }

    /// The database is changed, and the cache is told.
    pub(crate) fn begin_change(&mut self, at: usize, kind: ChangeKind, key: usize) {
        let changed = if kind == ChangeKind::Clear { self.keys() } else { key..key + 1 };
        changed.clone().for_each(|key| self.database[key] += 1);
        let keys: Vec<_> = changed.map(|key| (key, self.database[key])).collect();
        let (id, now) = (self.nodes[at].id, self.now);
        let (change, effect) = match kind {
            ChangeKind::Set => {
                let revision = self.database[key];
                let write = KeyWrite { key: key_bytes(key), envelope: envelope(revision), keep: None };
                (Change::set(id, write), Effect::Set(key, revision))
            }
            ChangeKind::Invalidate => {
                (Change::invalidate(id, vec![key_bytes(key)], FENCE_WINDOW), Effect::Invalidate(vec![key]))
            }
            ChangeKind::Clear => (Change::clear(id), Effect::Clear),
        };
        let overtaken = self.nodes[at].may_be_overtaken(kind, key, now);
        let request = Request { change: self.limited(change), effect, may_be_overtaken: overtaken };
        // An invalidation does no harm behind the one that repeats it.
        let executed_by = if kind == ChangeKind::Set { now + COMMAND_TIMEOUT + TICK } else { now };
        self.nodes[at].begin_change(kind, keys, request, (now, executed_by));
        if overtaken && kind == ChangeKind::Set {
            let pending = self.nodes[at].changes.pop().expect("just begun");
            self.nodes[at].fail_change(&pending, now, now);
        }
    }

    fn limited(&self, change: Change) -> Change {
        let unlimited = self.mutant == Some(Mutant::NoDeadline);
        change.by(if unlimited { Moment::NEVER } else { self.now + COMMAND_TIMEOUT })
    }

    /// L2 executes a change, and publishes it.
    fn execute(&mut self, request: &Request) -> Reply {
        let executed = self.server.execute(self.now, request, &self.database);
        let Some((version, frame)) = executed else { return Reply::Refused };
        for node in self.nodes.iter_mut().filter(|node| node.follows && node.subscribed) {
            node.inbox.push_back(Event::Message(frame.clone()));
        }
        for key in self.keys().filter(|key| self.server.newest(*key) == self.database[*key]) {
            self.excused[key] &= !request.touches(key);
        }
        Reply::Executed(version)
    }

    pub(crate) fn land_change(&mut self, at: usize, change: usize) {
        let request = self.nodes[at].changes[change].request.take().expect("it is under way");
        let reply = self.execute(&request);
        self.nodes[at].changes[change].reply = Some(reply);
    }

    pub(crate) fn end_change(&mut self, at: usize, change: usize) {
        let pending = self.nodes[at].changes.remove(change);
        match pending.reply.expect("L2 has answered") {
            Reply::Executed(version) => {
                self.nodes[at].end_change(&pending, version, self.now);
                self.doubt_acknowledged(at);
            }
            Reply::Refused => self.nodes[at].fail_change(&pending, self.now, self.now),
        }
    }

    /// Its caller gives up, or goes away.
    pub(crate) fn fail_change(&mut self, at: usize, change: usize) {
        let mut pending = self.nodes[at].changes.remove(change);
        let (by, executed_by) = (self.nodes[at].id, pending.executed_by());
        let request = pending.request.take();
        self.late.extend(request.map(|request| Late::Change { by, request, executed_by }));
        self.nodes[at].fail_change(&pending, self.now, executed_by);
    }

    pub(crate) fn land_late(&mut self, at: usize) {
        match self.late.remove(at) {
            Late::Change { request, .. } => _ = self.execute(&request),
            Late::Fill(fill) => _ = self.server.fill(self.now, &fill),
        }
    }
}

/// The outbox.
impl World {
    pub(crate) fn begin_delivery(&mut self, at: usize) {
        let Some(batch) = self.nodes[at].outbox.poll(self.now) else { return };
        let id = self.nodes[at].id;
        let (change, effect) = match &batch {
            Batch::Everything => (Change::clear(id), Effect::Clear),
            Batch::Tags(_) => unreachable!("nothing has tags here"),
            Batch::Keys(keys) => {
                let change = Change::invalidate(id, keys.clone(), FENCE_WINDOW);
                (change, Effect::Invalidate(keys.iter().map(|key| key_of(key)).collect()))
            }
        };
        let request = Request { change: self.limited(change), effect, may_be_overtaken: false };
        self.nodes[at].begin_delivery(batch, request);
    }

    pub(crate) fn land_delivery(&mut self, at: usize) {
        let delivery = self.nodes[at].delivery.as_mut().expect("it is under way");
        let request = delivery.request.take().expect("it has not landed");
        let reply = self.execute(&request);
        self.nodes[at].delivery.as_mut().expect("it is under way").reply = Some(reply);
    }

    pub(crate) fn end_delivery(&mut self, at: usize) {
        let delivery = self.nodes[at].delivery.take().expect("it is under way");
        let reply = delivery.reply.expect("L2 has answered");
        self.nodes[at].end_delivery(&delivery, reply, self.now);
        self.doubt_acknowledged(at);
    }

    /// What was acknowledged may be lost by now; the next beat will show it.
    fn doubt_acknowledged(&mut self, at: usize) {
        if self.trouble_at > Moment::default() {
            let node = &mut self.nodes[at];
            (node.proved, node.proves_from) = (false, node.last_beat + 1);
        }
    }

    pub(crate) fn fail_delivery(&mut self, at: usize) {
        let delivery = self.nodes[at].delivery.take().expect("it is under way");
        let (by, executed_by) = (self.nodes[at].id, self.now);
        self.late.extend(delivery.request.map(|request| Late::Change { by, request, executed_by }));
        self.nodes[at].outbox.fail(self.now, Setback::Away);
    }
}

/// Reads and loads.
impl World {
    /// A caller finds nothing in L1. Returns whether it joined a flight.
    pub(crate) fn begin_read(&mut self, at: usize, key: usize) -> bool {
        let (now, required) = (self.now, self.required(at, key));
        if let Some(load) = self.nodes[at].joinable(key, now) {
            load.required = load.required.max(required);
            return true;
        }
        let wrong = self.nodes[at].outbox.holds(&Subject::Key(key_bytes(key)));
        let found = self.server.value(now, key).filter(|_| !wrong);
        let head = self.server.partition.read(now, &key_bytes(key)).head;
        let stage = Stage::Reading { found, base: head.map(|head| head.sequence) };
        self.nodes[at].begin_load(key, now, required, stage);
        false
    }

    /// L2's answer arrives.
    pub(crate) fn answer_read(&mut self, at: usize, load: usize) {
        let flight = &self.nodes[at].loads[load];
        let (key, required) = (flight.key, flight.required);
        let Stage::Reading { found, base } = flight.stage else { return };
        match found {
            Some((version, revision)) => {
                self.read(revision, required);
                self.nodes[at].end_load(load, Some((version, revision)));
            }
            None => self.nodes[at].begin_loading(load, base, self.database[key]),
        }
    }

    /// L2 does not answer.
    pub(crate) fn fail_read(&mut self, at: usize, load: usize) {
        let key = self.nodes[at].loads[load].key;
        self.nodes[at].begin_loading(load, None, self.database[key]);
    }

    pub(crate) fn end_load(&mut self, at: usize, load: usize) {
        let flight = &mut self.nodes[at].loads[load];
        let Stage::Loading { base, revision } = flight.stage else { return };
        let took_too_long = self.now.since(flight.asked_at()) >= FENCE_WINDOW;
        let Some(base) = base.filter(|_| !took_too_long) else {
            let admitted = (!took_too_long).then_some((Version::UNKNOWN, revision));
            return self.land(at, load, revision, admitted);
        };
        let write = KeyWrite { key: key_bytes(flight.key), envelope: envelope(revision), keep: None };
        let fill = Fill { write, base, deadline: flight.asked_at() + FENCE_WINDOW };
        flight.stage = Stage::Filling { fill, revision };
    }

    pub(crate) fn land_fill(&mut self, at: usize, load: usize) {
        let Stage::Filling { fill, revision } = self.nodes[at].loads[load].stage.clone() else { return };
        let base = fill.base;
        let head = self.server.partition.read(self.now, &fill.write.key).head;
        let fill = match (self.mutant, head) {
            (Some(Mutant::FillUnchecked), Some(head)) => Fill { base: head.sequence, ..fill },
            _ => fill,
        };
        let outcome = self.server.fill(self.now, &fill);
        self.nodes[at].loads[load].stage = Stage::Filled { outcome, base, revision };
    }

    pub(crate) fn answer_fill(&mut self, at: usize, load: usize) {
        let Stage::Filled { outcome, base, revision } = self.nodes[at].loads[load].stage else { return };
        let stored = outcome == FillOutcome::Stored;
        self.land(at, load, revision, stored.then_some((base, revision)));
    }

    /// Nobody knows whether L2 has stored it.
    pub(crate) fn fail_fill(&mut self, at: usize, load: usize) {
        let (base, revision) = match self.nodes[at].loads[load].stage.clone() {
            Stage::Filling { fill, revision } => {
                let base = fill.base;
                self.late.push(Late::Fill(fill));
                (base, revision)
            }
            Stage::Filled { base, revision, .. } => (base, revision),
            Stage::Reading { .. } | Stage::Loading { .. } => return,
        };
        self.land(at, load, revision, Some((base, revision)));
    }

    fn land(&mut self, at: usize, load: usize, revision: Revision, admitted: Option<(Version, Revision)>) {
        self.read(revision, self.nodes[at].loads[load].required);
        self.nodes[at].end_load(load, admitted);
    }
}

/// The subscription.
impl World {
    pub(crate) fn beat(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.beat = node.follower.poll_beat(&node.gate, self.now);
        node.last_beat = node.beat.map_or(node.last_beat, BeatId::number);
    }

    pub(crate) fn land_beat(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let beat = node.beat.take().expect("it is under way");
        if self.mutant == Some(Mutant::TrustFromReply)
            && let Some(sent) = node.follower.sent_at(beat)
        {
            node.gate.extend(sent + MAX_STALENESS);
        }
        let (_, echo) = self.server.partition.beat(self.now, node.id, beat, TICK * 100);
        if node.subscribed {
            node.inbox.push_back(Event::Echo(echo.encode()));
        }
    }

    /// Whether there was something.
    pub(crate) fn deliver(&mut self, at: usize, two_step: bool) -> bool {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.half.is_some() {
            node.end_message();
            return true;
        }
        match node.inbox.pop_front() {
            None => return false,
            Some(Event::Message(frame)) => {
                node.begin_message(frame);
                if !two_step {
                    node.end_message();
                }
            }
            Some(Event::Echo(frame)) => {
                let echo = Echo::decode(&frame).expect("L2 sends whole echoes");
                let known = node.follower.sent_at(echo.beat).is_some();
                let proves = echo.beat.number() >= node.proves_from && echo.time > self.trouble_at;
                node.proved |= known && proves;
                node.handle_echo(&frame, now);
            }
            Some(Event::Doubt) => node.handle_doubt(),
        }
        true
    }

    pub(crate) fn land_log(&mut self, at: usize) {
        let request = self.nodes[at].log.as_mut().expect("it is under way");
        let frames = self.server.partition.log(request.since, request.until);
        request.frames = Some(frames.cloned().collect());
    }

    /// The log's answer arrives, or the news that there is none.
    pub(crate) fn answer_log(&mut self, at: usize) {
        let request = self.nodes[at].log.take().expect("it is under way");
        self.nodes[at].handle_log(&request, self.now);
    }

    pub(crate) fn fail_log(&mut self, at: usize) {
        let request = self.nodes[at].log.take().expect("it is under way");
        self.nodes[at].handle_log(&LogRequest { frames: None, ..request }, self.now);
    }

    pub(crate) fn resubscribe(&mut self, at: usize) {
        self.nodes[at].subscribed = true;
        self.nodes[at].inbox.push_back(Event::Doubt);
    }

    pub(crate) fn lag(&mut self, at: usize) {
        self.nodes[at].inbox.clear();
        self.nodes[at].inbox.push_back(Event::Doubt);
    }
}

/// Trouble.
impl World {
    /// A fresh node takes the place of this one. What this one sent is on its way all the same.
    pub(crate) fn crash(&mut self, at: usize) {
        self.started += 1;
        let fresh = Node::new(NodeId::new(self.started), self.database.len());
        let dead = std::mem::replace(&mut self.nodes[at], fresh);
        (self.nodes[at].follows, self.nodes[at].mutant) = (dead.follows, dead.mutant);
        if !dead.changes.is_empty() || dead.outbox.depth() > 0 {
            self.excused.fill(true);
        }
        let by = dead.id;
        let changes = dead.changes.into_iter().filter_map(|pending| {
            let executed_by = pending.executed_by();
            Some(Late::Change { by, request: pending.request?, executed_by })
        });
        self.late.extend(changes);
        let delivery = dead.delivery.and_then(|delivery| delivery.request);
        self.late.extend(delivery.map(|request| Late::Change { by, request, executed_by: self.now }));
        let fills = dead.loads.into_iter().filter_map(|load| match load.stage {
            Stage::Filling { fill, .. } => Some(Late::Fill(fill)),
            _ => None,
        });
        self.late.extend(fills);
    }

    fn trouble(&mut self) {
        self.trouble_at = self.now;
        self.nodes.iter_mut().for_each(|node| node.proved = false);
        // Numbers come from L2's clock, which goes on.
        self.tick();
    }

    pub(crate) fn fail_over(&mut self) {
        let Some(replica) = self.replica.take() else { return };
        self.trouble();
        self.server = replica;
        self.server.prune(self.now);
        let some_died = self.started > self.nodes.len() as u64;
        for key in self.keys() {
            let kept = self.server.newest(key);
            for node in &mut self.nodes {
                node.own[key] = node.own[key].min(kept);
                let flights = node.loads.iter_mut().filter(|load| load.key == key);
                flights.for_each(|load| load.required = load.required.min(kept));
                node.subscribed = false;
            }
            self.excused[key] |= some_died && kept < self.database[key];
        }
    }

    pub(crate) fn flush(&mut self) {
        self.trouble();
        self.server.wipe();
    }

    /// Restarts without data.
    pub(crate) fn wipe(&mut self) {
        self.flush();
        self.nodes.iter_mut().for_each(|node| node.subscribed = false);
    }
}
