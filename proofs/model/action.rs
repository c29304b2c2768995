//! What may happen next.

use crate::node::{ChangeKind, Node, Stage};
use crate::scenario::{Budget, Scenario};
use crate::world::World;

/// Numbers are places: of a node, and of what that node waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    BeginChange(usize, ChangeKind, usize),
    /// L2 executes it.
    LandChange(usize, usize),
    /// Its caller is answered.
    EndChange(usize, usize),
    /// The answer is lost, or the caller goes away.
    FailChange(usize, usize),
    BeginDelivery(usize),
    LandDelivery(usize),
    EndDelivery(usize),
    FailDelivery(usize),
    /// L2 executes what nobody waits for any more.
    LandLate(usize),
    BeginRead(usize, usize),
    AnswerRead(usize, usize),
    FailRead(usize, usize),
    EndLoad(usize, usize),
    LandFill(usize, usize),
    AnswerFill(usize, usize),
    FailFill(usize, usize),
    Beat(usize),
    LandBeat(usize),
    Deliver(usize),
    LandLog(usize),
    AnswerLog(usize),
    FailLog(usize),
    Cut(usize),
    Resubscribe(usize),
    Lag(usize),
    Crash(usize),
    Replicate,
    FailOver,
    Flush,
    Wipe,
}

/// Everything that may happen.
pub(crate) fn possible(scenario: &Scenario, world: &World, actions: &mut Vec<Action>) {
    let left = &world.left;
    for at in 0..world.nodes.len() {
        begin_changes(scenario, world, at, actions);
        go_on_with_changes(&world.nodes[at], left, at, actions);
        deliver_outbox(world, at, actions);
        read(scenario, world, at, actions);
        if scenario.follows(at) {
            follow(world, at, actions);
        }
    }
    let late = 0..world.late.len();
    actions.extend(late.map(Action::LandLate));
    offer(actions, left.ticks > 0, Action::Tick);
    offer(actions, left.replications > 0, Action::Replicate);
    let is_behind = world.replica.as_ref().is_some_and(|replica| *replica != world.server);
    offer(actions, left.failovers > 0 && left.ticks > 0 && is_behind, Action::FailOver);
    offer(actions, left.flushes > 0 && left.ticks > 0, Action::Flush);
    offer(actions, left.wipes > 0 && left.ticks > 0, Action::Wipe);
}

fn offer(actions: &mut Vec<Action>, possible: bool, action: Action) {
    actions.extend(possible.then_some(action));
}

fn begin_changes(scenario: &Scenario, world: &World, at: usize, actions: &mut Vec<Action>) {
    if at >= scenario.writers {
        return;
    }
    let left = &world.left;
    for key in world.keys() {
        let kinds = [(ChangeKind::Set, left.sets), (ChangeKind::Invalidate, left.invalidations)];
        for (kind, left) in kinds {
            let possible = left > 0 && world.may_change(at, kind, key);
            offer(actions, possible, Action::BeginChange(at, kind, key));
        }
    }
    let clears = left.clears > 0 && world.may_change(at, ChangeKind::Clear, 0);
    offer(actions, clears, Action::BeginChange(at, ChangeKind::Clear, 0));
}

fn go_on_with_changes(node: &Node, left: &Budget, at: usize, actions: &mut Vec<Action>) {
    for (change, pending) in node.changes.iter().enumerate() {
        offer(actions, pending.request.is_some(), Action::LandChange(at, change));
        offer(actions, pending.reply.is_some(), Action::EndChange(at, change));
        offer(actions, left.failures > 0, Action::FailChange(at, change));
    }
}

fn deliver_outbox(world: &World, at: usize, actions: &mut Vec<Action>) {
    let node = &world.nodes[at];
    match &node.delivery {
        None => offer(actions, node.outbox.due() <= world.now, Action::BeginDelivery(at)),
        Some(delivery) => {
            offer(actions, delivery.request.is_some(), Action::LandDelivery(at));
            offer(actions, delivery.reply.is_some(), Action::EndDelivery(at));
            offer(actions, world.left.failures > 0, Action::FailDelivery(at));
        }
    }
}

fn read(scenario: &Scenario, world: &World, at: usize, actions: &mut Vec<Action>) {
    let (node, left) = (&world.nodes[at], &world.left);
    if scenario.reads(at) && left.reads > 0 {
        let misses = world.keys().filter(|key| node.served(*key, world.now).is_none());
        actions.extend(misses.map(|key| Action::BeginRead(at, key)));
    }
    for (load, flight) in node.loads.iter().enumerate() {
        match flight.stage {
            Stage::Reading { .. } => {
                actions.push(Action::AnswerRead(at, load));
                offer(actions, left.failures > 0, Action::FailRead(at, load));
            }
            Stage::Loading { .. } => actions.push(Action::EndLoad(at, load)),
            Stage::Filling { .. } => {
                actions.push(Action::LandFill(at, load));
                offer(actions, left.failures > 0, Action::FailFill(at, load));
            }
            Stage::Filled { .. } => {
                actions.push(Action::AnswerFill(at, load));
                offer(actions, left.failures > 0, Action::FailFill(at, load));
            }
        }
    }
}

fn follow(world: &World, at: usize, actions: &mut Vec<Action>) {
    let (node, left) = (&world.nodes[at], &world.left);
    offer(actions, node.follower.beat_due() <= world.now, Action::Beat(at));
    offer(actions, node.beat.is_some(), Action::LandBeat(at));
    offer(actions, node.half.is_some() || !node.inbox.is_empty(), Action::Deliver(at));
    if let Some(log) = &node.log {
        let next = if log.frames.is_some() { Action::AnswerLog(at) } else { Action::LandLog(at) };
        actions.push(next);
        offer(actions, left.failures > 0, Action::FailLog(at));
    }
    offer(actions, left.cuts > 0 && node.subscribed, Action::Cut(at));
    offer(actions, !node.subscribed, Action::Resubscribe(at));
    offer(actions, left.lags > 0 && !node.inbox.is_empty(), Action::Lag(at));
    offer(actions, left.crashes > 0, Action::Crash(at));
}

/// Does it.
pub(crate) fn act(scenario: &Scenario, world: &mut World, action: &Action) {
    match *action {
        Action::Tick => world.tick(),
        Action::BeginChange(at, kind, key) => world.begin_change(at, kind, key),
        Action::LandChange(at, change) => world.land_change(at, change),
        Action::EndChange(at, change) => world.end_change(at, change),
        Action::FailChange(at, change) => world.fail_change(at, change),
        Action::BeginDelivery(at) => world.begin_delivery(at),
        Action::LandDelivery(at) => world.land_delivery(at),
        Action::EndDelivery(at) => world.end_delivery(at),
        Action::FailDelivery(at) => world.fail_delivery(at),
        Action::LandLate(late) => world.land_late(late),
        Action::BeginRead(at, key) => _ = world.begin_read(at, key),
        Action::AnswerRead(at, load) => world.answer_read(at, load),
        Action::FailRead(at, load) => world.fail_read(at, load),
        Action::EndLoad(at, load) => world.end_load(at, load),
        Action::LandFill(at, load) => world.land_fill(at, load),
        Action::AnswerFill(at, load) => world.answer_fill(at, load),
        Action::FailFill(at, load) => world.fail_fill(at, load),
        Action::Beat(at) => {
            world.beat(at);
            if !scenario.slow_beats {
                world.land_beat(at);
            }
        }
        Action::LandBeat(at) => world.land_beat(at),
        Action::Deliver(at) => _ = world.deliver(at, scenario.two_step),
        Action::LandLog(at) => world.land_log(at),
        Action::AnswerLog(at) => world.answer_log(at),
        Action::FailLog(at) => world.fail_log(at),
        Action::Cut(at) => world.nodes[at].subscribed = false,
        Action::Resubscribe(at) => world.resubscribe(at),
        Action::Lag(at) => world.lag(at),
        Action::Crash(at) => world.crash(at),
        Action::Replicate => world.replica = Some(world.server.clone()),
        Action::FailOver => world.fail_over(),
        Action::Flush => world.flush(),
        Action::Wipe => world.wipe(),
    }
}

/// Takes what it costs out of the budget.
pub(crate) fn pay(left: &mut Budget, action: &Action) {
    let item = match action {
        Action::Tick => &mut left.ticks,
        Action::BeginChange(_, ChangeKind::Set, _) => &mut left.sets,
        Action::BeginChange(_, ChangeKind::Invalidate, _) => &mut left.invalidations,
        Action::BeginChange(_, ChangeKind::Clear, _) => &mut left.clears,
        Action::BeginRead(..) => &mut left.reads,
        Action::FailChange(..)
        | Action::FailDelivery(_)
        | Action::FailRead(..)
        | Action::FailFill(..)
        | Action::FailLog(_) => &mut left.failures,
        Action::Cut(_) => &mut left.cuts,
        Action::Lag(_) => &mut left.lags,
        Action::Crash(_) => &mut left.crashes,
        Action::Replicate => &mut left.replications,
        Action::FailOver => &mut left.failovers,
        Action::Flush => &mut left.flushes,
        Action::Wipe => &mut left.wipes,
        _ => return,
    };
    *item -= 1;
    if matches!(action, Action::FailOver | Action::Flush | Action::Wipe) {
        left.ticks -= 1;
    }
}
