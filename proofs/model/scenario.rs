//! What is explored: how many nodes, and how often what may happen.

use std::time::Duration;

use nearfar_core::{FillOutcome, Moment};

use crate::action::Action;
use crate::node::{ChangeKind, Node, Reply, Stage};
use crate::world::World;

/// A step of time.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// The bound. A beat is due in each tick.
pub(crate) const MAX_STALENESS: Duration = Duration::from_millis(2);
/// After that L2 refuses a change.
pub(crate) const COMMAND_TIMEOUT: Duration = TICK;
pub(crate) const FENCE_WINDOW: Duration = Duration::from_millis(3);
/// When a history begins: long after zero, as every clock.
pub(crate) const BEGINNING: Moment = Moment::from_micros(10_000);

/// How often each may happen yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) ticks: u8,
    pub(crate) sets: u8,
    pub(crate) invalidations: u8,
    pub(crate) clears: u8,
    pub(crate) reads: u8,
    /// Operations whose answer is lost: they may be executed, at once, later or never.
    pub(crate) failures: u8,
    /// Subscriptions that go dead without a sign.
    pub(crate) cuts: u8,
    /// Receive queues that overflow.
    pub(crate) lags: u8,
    /// Nodes that are replaced by fresh ones.
    pub(crate) crashes: u8,
    /// Moments at which a replica, or a snapshot, was last up to date.
    pub(crate) replications: u8,
    /// The replica takes over, or the snapshot is restored.
    pub(crate) failovers: u8,
    pub(crate) flushes: u8,
    /// The server restarts without data.
    pub(crate) wipes: u8,
}

/// One exploration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) nodes: usize,
    pub(crate) keys: usize,
    /// So many of the nodes follow the bus, the last ones. The others only make changes.
    pub(crate) followers: usize,
    /// So many of the nodes make changes, the first ones.
    pub(crate) writers: usize,
    /// So many of the nodes read, the last ones.
    pub(crate) readers: usize,
    /// How many messages L2 keeps.
    pub(crate) log_len: usize,
    /// Whether others may act between raising the fence and evicting.
    pub(crate) two_step: bool,
    /// Whether others may act between sending a beat and L2's executing it.
    pub(crate) slow_beats: bool,
    /// What has happened before.
    pub(crate) prelude: &'static [Action],
    pub(crate) budget: Budget,
    /// What some state must show, or the exploration proves nothing.
    pub(crate) reaches: &'static [Reach],
    pub(crate) mutant: Option<Mutant>,
}

impl Scenario {
    pub(crate) fn follows(&self, node: usize) -> bool {
        node + self.followers >= self.nodes
    }

    pub(crate) fn reads(&self, node: usize) -> bool {
        node + self.readers >= self.nodes
    }
}

/// Something that is to be seen in a state, and its name.
pub(crate) type Reach = (&'static str, fn(&Scenario, &World) -> bool);

/// A way of getting the protocol wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mutant {
    /// Values enter L1 whatever their tickets say (race R1).
    NoTicketCheck,
    /// A message evicts first and raises the fence then (race R1).
    FenceAfterEviction,
    /// L2 takes a loaded value although something newer was there (race R3).
    FillUnchecked,
    /// Callers join a flight from before an invalidation that their node knows of (race R19).
    FlightJoinedAcrossInvalidation,
    /// What the log holds is believed to follow what was applied.
    NoLogMatching,
    /// The answer to a beat extends trust, as its echo does.
    TrustFromReply,
    /// Messages that did not come are not missed.
    GapsIgnored,
    /// A change has no deadline (race R11).
    NoDeadline,
    /// A change that was not acknowledged is forgotten (race R13).
    NoOutbox,
    /// The outbox does not wait until what it repeats can no longer be executed.
    OutboxTooEarly,
    /// A change of unknown outcome does not fence what was read before.
    NoUnsettledFence,
    /// What a lost history acknowledged is not issued again (race R30).
    NothingReissued,
    /// Nobody watches that acknowledged changes are in the chain (race R30).
    NoWitness,
}

/// A node that only writes, and one that only reads; nothing happens.
const PAIR: Scenario = Scenario {
    nodes: 2,
    keys: 1,
    followers: 1,
    writers: 1,
    readers: 1,
    log_len: 8,
    two_step: false,
    slow_beats: false,
    prelude: &[],
    budget: NOTHING,
    reaches: &[],
    mutant: None,
};

const NOTHING: Budget = Budget {
    ticks: 0,
    sets: 0,
    invalidations: 0,
    clears: 0,
    reads: 0,
    failures: 0,
    cuts: 0,
    lags: 0,
    crashes: 0,
    replications: 0,
    failovers: 0,
    flushes: 0,
    wipes: 0,
};

pub(crate) const FILLS: Scenario = Scenario {
    followers: 2,
    writers: 2,
    readers: 2,
    budget: Budget { invalidations: 2, reads: 2, ..NOTHING },
    reaches: &[SETTLED, FILL_REFUSED, TWO_FLIGHTS],
    ..PAIR
};

pub(crate) const HALF_APPLIED: Scenario = Scenario {
    two_step: true,
    budget: Budget { sets: 1, invalidations: 2, reads: 2, ..NOTHING },
    reaches: &[SETTLED, HALF],
    ..PAIR
};

pub(crate) const LATE_FILLS: Scenario = Scenario {
    budget: Budget { ticks: 4, invalidations: 1, reads: 1, ..NOTHING },
    reaches: &[SETTLED, FILL_LATE, DISTRUSTED],
    ..PAIR
};

pub(crate) const LOST_ANSWERS: Scenario = Scenario {
    nodes: 1,
    budget: Budget { ticks: 2, sets: 1, reads: 1, failures: 1, ..NOTHING },
    reaches: &[SETTLED, QUEUED, CHANGE_LATE, UNWATCHED],
    ..PAIR
};

pub(crate) const LOST_ANSWERS_TO_READS: Scenario = Scenario {
    nodes: 1,
    budget: Budget { ticks: 2, invalidations: 1, reads: 1, failures: 2, ..NOTHING },
    reaches: &[SETTLED, QUEUED, CHANGE_LATE, UNWATCHED],
    ..PAIR
};

pub(crate) const LOST_ANSWERS_TO_CLEARS: Scenario = Scenario {
    nodes: 1,
    budget: Budget { ticks: 2, clears: 1, reads: 1, failures: 1, ..NOTHING },
    reaches: &[SETTLED, QUEUED, CHANGE_LATE, UNWATCHED],
    ..PAIR
};

pub(crate) const OVERTAKEN: Scenario = Scenario {
    nodes: 1,
    budget: Budget { ticks: 2, sets: 1, invalidations: 1, failures: 1, ..NOTHING },
    reaches: &[SETTLED, QUEUED, CHANGE_LATE, UNWATCHED],
    ..PAIR
};

pub(crate) const LOST_MESSAGES: Scenario = Scenario {
    keys: 2,
    budget: Budget { ticks: 2, invalidations: 1, cuts: 1, lags: 1, ..NOTHING },
    reaches: &[SETTLED, CUT, REPLAYS, KEPT_THROUGH_REPLAY, DISTRUSTED],
    ..PAIR
};

pub(crate) const TRIMMED_LOG: Scenario = Scenario {
    keys: 2,
    log_len: 1,
    budget: Budget { ticks: 1, invalidations: 2, cuts: 1, ..NOTHING },
    reaches: &[SETTLED, CUT, REPLAYS, RESYNCED],
    ..PAIR
};

pub(crate) const SLOW_BEATS: Scenario = Scenario {
    slow_beats: true,
    budget: Budget { ticks: 3, invalidations: 1, cuts: 1, ..NOTHING },
    reaches: &[SETTLED, CUT, REPLAYS, DISTRUSTED],
    ..PAIR
};

pub(crate) const FAILOVER: Scenario = Scenario {
    followers: 2,
    budget: Budget { ticks: 2, invalidations: 1, replications: 1, failovers: 1, ..NOTHING },
    reaches: &[TAIL_LOST, RESYNCED],
    ..PAIR
};

pub(crate) const OWN_LOST: Scenario = Scenario {
    nodes: 1,
    budget: Budget { ticks: 2, sets: 1, invalidations: 1, replications: 1, failovers: 1, ..NOTHING },
    reaches: &[SETTLED, TAIL_LOST, RESYNCED, REPAIRED],
    ..PAIR
};

pub(crate) const CLEAR_LOST: Scenario = Scenario {
    nodes: 1,
    budget: Budget { ticks: 2, clears: 1, replications: 1, failovers: 1, ..NOTHING },
    reaches: &[SETTLED, TAIL_LOST, RESYNCED, REPAIRED],
    ..PAIR
};

/// A failover has lost a change of a node that had not heard of it, and one of another node may follow.
pub(crate) const FORK: Scenario = Scenario {
    keys: 2,
    prelude: &[
        Action::Replicate,
        Action::Cut(1),
        Action::BeginChange(1, ChangeKind::Invalidate, 0),
        Action::LandChange(1, 0),
        Action::EndChange(1, 0),
        Action::FailOver,
    ],
    budget: Budget { ticks: 2, invalidations: 1, ..NOTHING },
    reaches: &[SETTLED, TAIL_LOST, RESYNCED, REPAIRED],
    ..PAIR
};

pub(crate) const FLUSHED: Scenario = Scenario {
    budget: Budget { ticks: 2, invalidations: 1, reads: 1, flushes: 1, ..NOTHING },
    reaches: &[SETTLED, RESYNCED, FILL_REFUSED],
    ..PAIR
};

pub(crate) const WIPED: Scenario = Scenario {
    budget: Budget { ticks: 2, invalidations: 1, reads: 1, wipes: 1, ..NOTHING },
    reaches: &[SETTLED, RESYNCED, FILL_REFUSED],
    ..PAIR
};

pub(crate) const CRASHES: Scenario = Scenario {
    followers: 2,
    budget: Budget { ticks: 1, invalidations: 1, reads: 1, crashes: 1, ..NOTHING },
    reaches: &[SETTLED, UNWATCHED],
    ..PAIR
};

pub(crate) const CLEARS: Scenario = Scenario {
    readers: 2,
    followers: 2,
    budget: Budget { sets: 1, clears: 1, reads: 2, ..NOTHING },
    reaches: &[SETTLED, FILL_REFUSED],
    ..PAIR
};

pub(crate) const THREE: Scenario = Scenario {
    nodes: 3,
    followers: 2,
    budget: Budget { ticks: 1, invalidations: 1, reads: 1, cuts: 1, ..NOTHING },
    reaches: &[SETTLED, CUT, REPLAYS],
    ..PAIR
};

/// The generation that a node is in at the beginning: the first echo has it forget what it never had.
const WARM: u64 = 1;

const SETTLED: Reach = ("everything has happened, and all is settled", |_, world| {
    let left = world.left;
    let changed = left.sets == 0 && left.invalidations == 0 && left.clears == 0;
    changed && left.failures + left.cuts + left.lags + left.failovers == 0 && world.is_settled()
});

const FILL_REFUSED: Reach = ("L2 refuses a fill", |_, world| {
    world.has_load(|stage| matches!(stage, Stage::Filled { outcome: FillOutcome::Refused, .. }))
});

const FILL_LATE: Reach = ("a fill comes after its deadline", |_, world| {
    world.has_load(|stage| matches!(stage, Stage::Filled { outcome: FillOutcome::Late, .. }))
});

const TWO_FLIGHTS: Reach = ("a caller does not join a flight from before a change", |_, world| {
    world.nodes.iter().any(|node| node.loads.len() == 2)
});

const HALF: Reach = ("a message is half applied while a value is on its way", |_, world| {
    world.nodes.iter().any(|node| node.half.is_some() && !node.loads.is_empty())
});

const DISTRUSTED: Reach = ("L1 has something, and does not serve it", |_, world| {
    world.nodes.iter().any(|node| node.copies[0].is_some() && !node.gate.serves(world.now))
});

const QUEUED: Reach =
    ("a change waits in the outbox", |_, world| world.nodes.iter().any(|node| node.outbox.depth() > 0));

const CHANGE_LATE: Reach = ("L2 refuses a change after its deadline", |_, world| {
    world.nodes.iter().flat_map(|node| &node.changes).any(|pending| pending.reply == Some(Reply::Refused))
});

const UNWATCHED: Reach =
    ("what nobody waits for is on its way all the same", |_, world| !world.late.is_empty());

const CUT: Reach = ("a message misses a node", |scenario, world| {
    let missed = |(at, node): (usize, &Node)| scenario.follows(at) && !node.subscribed;
    world.nodes.iter().enumerate().any(missed) && world.left.invalidations == 0
});

const REPLAYS: Reach =
    ("a node fetches what it has missed", |_, world| world.nodes.iter().any(|node| node.log.is_some()));

const KEPT_THROUGH_REPLAY: Reach = ("a replay keeps what was not changed", |_, world| {
    let node = &world.nodes[1];
    let missed = world.database[0] > 1 && world.left.cuts == 0 && world.is_settled();
    missed
        && node.copies[0].is_none()
        && node.served(1, world.now).is_some()
        && node.gate.generation() == WARM
});

const RESYNCED: Reach =
    ("a node forgets L1", |_, world| world.nodes.iter().any(|node| node.gate.generation() > WARM));

const TAIL_LOST: Reach = ("L2 has lost what it had acknowledged", |_, world| {
    let lost = world.keys().any(|key| world.server.newest(key) < world.database[key]);
    let quiet = world.nodes.iter().all(|node| node.changes.is_empty() && node.outbox.depth() == 0);
    world.left.failovers == 0 && lost && quiet
});

const REPAIRED: Reach = ("what L2 had lost is repaired", |_, world| {
    let repaired = world.keys().all(|key| world.server.newest(key) == world.database[key]);
    let resynced = world.nodes.iter().any(|node| node.gate.generation() > WARM);
    world.left.failovers == 0 && resynced && repaired && world.is_settled()
});
