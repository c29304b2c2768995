//! Faults, of every kind that the contract names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar::backend::BusEvent;
use nearfar_core::Doubt;

use crate::clock::millis;
use crate::network::Which;
use crate::plan::{chance, pick};
use crate::station::Flow;
use crate::world::{Id, State, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Cut,
    HalfOpenToNode,
    HalfOpenToServer,
    Isolate,
    Slow,
    Freeze,
    Lag,
    Loss,
    Rubbish,
    Topology,
    PauseServer,
    Restart,
    RestartEmpty,
    RestoreOld,
    Failover,
    Flush,
    ClockForward,
    OriginDown,
    Crash,
    Leave,
    Join,
}

impl Fault {
    /// As often as they are drawn.
    pub(crate) const ALL: &[Self] = &[
        Self::Cut,
        Self::Cut,
        Self::HalfOpenToNode,
        Self::HalfOpenToServer,
        Self::Isolate,
        Self::Slow,
        Self::Freeze,
        Self::Lag,
        Self::Loss,
        Self::Rubbish,
        Self::Topology,
        Self::PauseServer,
        Self::Restart,
        Self::RestartEmpty,
        Self::RestoreOld,
        Self::Failover,
        Self::Failover,
        Self::Failover,
        Self::Flush,
        Self::ClockForward,
        Self::OriginDown,
        Self::Crash,
        Self::Leave,
        Self::Join,
    ];

    pub(crate) fn draw(state: &mut State) -> Self {
        pick(&mut state.rng, Self::ALL)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cut => "fault: connection cut",
            Self::HalfOpenToNode => "fault: half-open to the node",
            Self::HalfOpenToServer => "fault: half-open to the server",
            Self::Isolate => "fault: node isolated",
            Self::Slow => "fault: slow network",
            Self::Freeze => "fault: process paused",
            Self::Lag => "fault: receive queue overrun",
            Self::Loss => "fault: messages lost in silence",
            Self::Rubbish => "fault: rubbish on the channel",
            Self::Topology => "fault: topology changed",
            Self::PauseServer => "fault: server paused",
            Self::Restart => "fault: restart with data",
            Self::RestartEmpty => "fault: restart without data",
            Self::RestoreOld => "fault: old snapshot restored",
            Self::Failover => "fault: failover",
            Self::Flush => "fault: FLUSHALL",
            Self::ClockForward => "fault: server's clock set forward",
            Self::OriginDown => "fault: origin down",
            Self::Crash => "fault: node crashed",
            Self::Leave => "fault: node left",
            Self::Join => "fault: node joined",
        }
    }

    /// Lets a fault happen to the network or the server. `node` is whom it hits if it hits one. It ends by itself.
    pub(crate) fn strike(self, world: &Arc<World>, node: Id) {
        world.lock().note(|| format!("{}, node {node} if one", self.name()));
        world.lock().count(self.name());
        let long = millis(world.lock().rng.u64(5..=700));
        match self {
            Self::Cut => world.cut(node, which(world)),
            Self::HalfOpenToNode | Self::HalfOpenToServer => half_open(world, node, self),
            Self::Isolate => for_a_while(world, node, long, |state, id, on| state.stations[id].isolated = on),
            Self::Freeze => for_a_while(world, node, long, State::freeze),
            Self::PauseServer => for_a_while(world, node, long, |state, _, on| state.server.paused = on),
            Self::Slow => for_a_while(world, node, long, |state, id, on| {
                state.stations[id].slower = if on { 40 } else { 0 };
            }),
            Self::Lag => pile_up(world, node, overrun),
            Self::Loss => pile_up(world, node, lose),
            Self::Rubbish => rubbish(&mut world.lock(), node),
            Self::Topology => world.lock().stations[node].doubt(Doubt::TopologyChanged),
            Self::Restart | Self::RestartEmpty | Self::RestoreOld | Self::Failover => restart(world, self),
            Self::Flush => world.lock().server.empty(),
            Self::ClockForward => world.lock().server.set_forward(long / 4),
            Self::OriginDown => for_a_while(world, node, long, |state, _, on| state.origin_down = on),
            // The fleet's business.
            Self::Crash | Self::Leave | Self::Join => {}
        }
    }
}

impl State {
    pub(crate) fn freeze(&mut self, id: Id, on: bool) {
        self.stations[id].frozen = on;
        self.stations[id].thawed_at = self.now();
    }
}

fn which(world: &World) -> Which {
    pick(&mut world.lock().rng, &[Which::Commands, Which::Subscriber, Which::Both])
}

/// Begins a state of affairs that ends by itself.
fn for_a_while(world: &Arc<World>, node: Id, long: Duration, set: fn(&mut State, Id, bool)) {
    let apply = move |world: &Arc<World>, on: bool| {
        let mut state = world.lock();
        set(&mut state, node, on);
        state.tell_everybody();
    };
    apply(world, true);
    world.later(long, move |world| apply(world, false));
}

/// Bytes vanish in one direction, and nobody is told. It ends with the connection, which the node replaces when echoes
/// or replies stay away.
fn half_open(world: &World, node: Id, fault: Fault) {
    let which = which(world);
    let station = &mut world.lock().stations[node];
    let connections =
        [(which.commands(), &mut station.commands), (which.subscriber(), &mut station.subscriber)];
    for (_, connection) in connections.into_iter().filter(|(hit, _)| *hit) {
        let towards_node = fault == Fault::HalfOpenToNode;
        let flow = if towards_node { &mut connection.to_node } else { &mut connection.to_server };
        *flow = Flow::Vanish;
    }
}

/// Messages pile up for a while, and some are dropped.
fn pile_up(world: &Arc<World>, node: Id, drop: fn(&mut State, Id)) {
    let pause = {
        let mut state = world.lock();
        let station = &mut state.stations[node];
        if station.subscriber.to_node == Flow::Pass {
            station.subscriber.to_node = Flow::Hold;
        }
        millis(state.rng.u64(10..=200))
    };
    world.later(pause, move |world| {
        let mut state = world.lock();
        let station = &mut state.stations[node];
        if station.subscriber.to_node == Flow::Hold {
            station.subscriber.to_node = Flow::Pass;
        }
        drop(&mut state, node);
        state.stations[node].changed.notify_waiters();
    });
}

/// The receive queue drops the oldest, and says so.
fn overrun(state: &mut State, node: Id) {
    let waiting = state.stations[node].inbox.len();
    let dropped = state.rng.usize(0..=waiting);
    if dropped > 0 {
        let inbox = &mut state.stations[node].inbox;
        inbox.drain(..dropped);
        let messages = dropped as u64;
        inbox.push_front((Duration::ZERO, BusEvent::Doubt(Doubt::Lagged { messages })));
        state.count_many("packets overrun", messages);
    }
}

/// Any of them, and nobody is told: the numbers have to show it.
fn lose(state: &mut State, node: Id) {
    let State { stations, rng, .. } = &mut *state;
    let inbox = &mut stations[node].inbox;
    let before = inbox.len();
    inbox.retain(|_| chance(rng, 60));
    let lost = before - inbox.len();
    state.count_many("packets lost in silence", lost as u64);
}

fn rubbish(state: &mut State, node: Id) {
    let arrival = state.now() + state.way(node);
    let frame = Bytes::from(vec![state.rng.u8(..); state.rng.usize(0..40)]);
    let station = &mut state.stations[node];
    if let Some(partition) = station.wanted.keys().next().cloned() {
        station.send(arrival, BusEvent::Message { partition, frame });
    }
}

/// The server ends, and another begins with more or less of its data. Its clock does not go back.
fn restart(world: &Arc<World>, fault: Fault) {
    if !world.lock().server.up {
        return;
    }
    world.crash_server();
    let (ago, down) = {
        let rng = &mut world.lock().rng;
        match fault {
            Fault::Failover => (rng.u64(0..=150), rng.u64(2..=120)),
            Fault::RestoreOld => (rng.u64(150..=3_000), rng.u64(2..=300)),
            _ => (0, rng.u64(2..=300)),
        }
    };
    world.later(millis(down), move |world| {
        let mut state = world.lock();
        match fault {
            Fault::Failover | Fault::RestoreOld => state.lose_since(millis(ago + down)),
            Fault::RestartEmpty => state.server.empty(),
            _ => {}
        }
        state.server.up = true;
        state.note(|| "server: up again".to_owned());
        state.tell_everybody();
    });
}
