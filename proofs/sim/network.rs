//! The ways between nodes and server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar::backend::BusEvent;
use nearfar_core::{Doubt, Message, NodeId, PartitionId};

use crate::clock::{millis, sleep};
use crate::station::{Connection, Flow, Heard, Station};
use crate::world::{Id, State, World};

/// The connection that a command was sent on.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    pub(crate) number: u64,
    server: u64,
}

/// Which of a node's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Commands,
    Subscriber,
    Both,
}

impl Which {
    pub(crate) fn commands(self) -> bool {
        self != Self::Subscriber
    }

    pub(crate) fn subscriber(self) -> bool {
        self != Self::Commands
    }
}

impl State {
    /// The connection for a command; `None` if it is known to be down.
    pub(crate) fn line(&self, id: Id) -> Option<Line> {
        let Connection { number, server, up, .. } = self.stations[id].commands;
        up.then_some(Line { number, server })
    }

    pub(crate) fn is_cut(&self, id: Id, line: Line) -> bool {
        self.stations[id].commands.number != line.number
    }

    /// Whether a command gets to the server; `None` while that is open.
    pub(crate) fn gets_there(&mut self, id: Id, line: Line) -> Option<bool> {
        if self.is_cut(id, line) {
            // It may have arrived before the cut.
            return Some(self.chance(50));
        }
        let station = &self.stations[id];
        passes(station.flow(station.commands.to_server))
    }

    /// Whether the server takes a command that has come on this line; `None` while it is paused.
    pub(crate) fn is_taken(&self, line: Line) -> Option<bool> {
        let same = self.server.incarnation == line.server && self.server.up;
        if same && self.server.paused { None } else { Some(same) }
    }

    /// Whether a reply gets back; `None` while that is open.
    pub(crate) fn gets_back(&mut self, id: Id, line: Line) -> Option<bool> {
        if self.is_cut(id, line) {
            // It may have been on its way before the cut.
            return Some(self.chance(50));
        }
        let station = &self.stations[id];
        passes(station.flow(station.commands.to_node))
    }

    /// What a node hears next.
    pub(crate) fn hear(&mut self, id: Id) -> Heard {
        let now = self.now();
        let heard = self.stations[id].hear(now);
        if let Heard::Event(event @ (BusEvent::Message { .. } | BusEvent::Doubt(_))) = &heard {
            let what = event.clone();
            self.note(|| format!("node {id} hears {}", describe(&what)));
        }
        heard
    }

    /// How long a packet of this node is on its way.
    pub(crate) fn way(&mut self, id: Id) -> Duration {
        millis(self.rng.u64(0..=self.plan.latency + self.stations[id].slower))
    }

    pub(crate) fn publish_message(&mut self, index: u16, frame: &Bytes) {
        for id in 0..self.stations.len() {
            let subscribed = self.stations[id].registered.iter().find(|partition| partition.index() == index);
            if let Some(partition) = subscribed.cloned() {
                self.send(id, BusEvent::Message { partition, frame: frame.clone() });
            }
        }
    }

    pub(crate) fn publish_echo(&mut self, partition: &PartitionId, node: NodeId, frame: &Bytes) {
        for id in 0..self.stations.len() {
            let station = &self.stations[id];
            if station.registered.contains(partition) && station.wanted.get(partition) == Some(&node) {
                self.send(id, BusEvent::Echo { partition: partition.clone(), frame: frame.clone() });
            }
        }
    }

    fn send(&mut self, id: Id, event: BusEvent) {
        let arrival = self.now() + self.way(id);
        self.stations[id].send(arrival, event);
    }
}

fn describe(event: &BusEvent) -> String {
    match event {
        BusEvent::Message { frame, .. } => match Message::decode(frame) {
            Ok(message) => message.sequence.to_string(),
            Err(error) => error.to_string(),
        },
        other => format!("{other:?}"),
    }
}

fn passes(flow: Flow) -> Option<bool> {
    match flow {
        Flow::Pass => Some(true),
        Flow::Vanish => Some(false),
        Flow::Hold => None,
    }
}

impl World {
    /// Ends connections of a node, which notices at once and connects again by itself.
    pub(crate) fn cut(self: &Arc<Self>, id: Id, which: Which) {
        if which.subscriber() {
            self.cut_subscriber(id);
        }
        if which.commands() {
            self.cut_commands(id);
        }
    }

    fn cut_commands(self: &Arc<Self>, id: Id) {
        let number = {
            let station = &mut self.lock().stations[id];
            station.commands.cut();
            station.changed.notify_waiters();
            station.commands.number
        };
        tokio::spawn(Arc::clone(self).connect_commands(id, number));
    }

    fn cut_subscriber(self: &Arc<Self>, id: Id) {
        let number = {
            let mut state = self.lock();
            let (now, drains) = (state.now(), state.chance(50));
            let station = &mut state.stations[id];
            // What has arrived may be read after the doubt, or be dropped with the connection.
            if drains {
                station.drop_what_is_under_way(now);
            } else {
                station.inbox.clear();
            }
            station.subscriber.cut();
            station.registered.clear();
            station.doubt(Doubt::Disconnected);
            station.subscriber.number
        };
        tokio::spawn(Arc::clone(self).connect_subscriber(id, number));
    }

    async fn connect_commands(self: Arc<Self>, id: Id, number: u64) {
        while self.connects(id, number, |station| &mut station.commands).await.is_none() {}
    }

    async fn connect_subscriber(self: Arc<Self>, id: Id, number: u64) {
        let connected = loop {
            if let Some(connected) = self.connects(id, number, |station| &mut station.subscriber).await {
                break connected;
            }
        };
        if connected {
            self.lock().stations[id].doubt(Doubt::Disconnected);
            self.subscribe(id);
        }
    }

    /// One attempt to connect; `None` if it failed, `false` if there is nothing to connect any more.
    async fn connects(
        &self,
        id: Id,
        number: u64,
        which: impl Fn(&mut Station) -> &mut Connection,
    ) -> Option<bool> {
        self.doze(1..=60).await;
        self.awake(id).await;
        let mut state = self.lock();
        let (server, ready) = (state.server.incarnation, state.server.up && !state.server.paused);
        let station = &mut state.stations[id];
        let (gone, isolated) = (station.gone, station.isolated);
        let connection = which(station);
        if gone || connection.number != number {
            return Some(false);
        }
        if !ready || isolated {
            return None;
        }
        connection.renew(server);
        station.changed.notify_waiters();
        Some(true)
    }

    /// Has the node's subscription asked for on the present connection.
    pub(crate) fn subscribe(self: &Arc<Self>, id: Id) {
        let (line, way) = {
            let mut state = self.lock();
            let Connection { number, server, .. } = state.stations[id].subscriber;
            (Line { number, server }, state.way(id))
        };
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(way).await;
            let arrived = world.until(id, |state| state.subscription_arrives(id, line)).await;
            if arrived && world.until(id, |state| state.is_taken(line)).await {
                world.lock().register(id, line);
            }
        });
    }

    /// The server dies. Each node notices when it does, unless nothing gets through to it.
    pub(crate) fn crash_server(self: &Arc<Self>) {
        self.lock().crash_server();
        let nodes = self.lock().stations.len();
        for id in 0..nodes {
            let world = Arc::clone(self);
            tokio::spawn(async move {
                world.doze(0..=40).await;
                world.until(id, |state| (!state.stations[id].isolated).then_some(())).await;
                world.notice_crash(id);
            });
        }
    }

    fn notice_crash(self: &Arc<Self>, id: Id) {
        let (commands, subscriber) = {
            let state = self.lock();
            let station = &state.stations[id];
            let ended = |connection: Connection| {
                let reset = connection.to_node != Flow::Vanish;
                connection.up && connection.server != state.server.incarnation && reset
            };
            (ended(station.commands), ended(station.subscriber))
        };
        if subscriber {
            self.cut_subscriber(id);
        }
        if commands {
            self.cut_commands(id);
        }
    }
}

impl State {
    fn subscription_arrives(&mut self, id: Id, line: Line) -> Option<bool> {
        let station = &self.stations[id];
        let Connection { number, up, to_server, .. } = station.subscriber;
        if number != line.number || !up {
            return Some(false);
        }
        if station.frozen { None } else { passes(station.flow(to_server)) }
    }

    fn register(&mut self, id: Id, line: Line) {
        let arrival = self.now() + self.way(id);
        let station = &mut self.stations[id];
        if station.subscriber.number == line.number && !station.wanted.is_empty() {
            station.registered = station.wanted.keys().cloned().collect();
            station.send(arrival, BusEvent::Subscribed);
            self.count("subscriptions made");
        }
    }
}
