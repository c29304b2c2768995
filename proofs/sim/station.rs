//! A node as the network sees it: two connections, and what is on its way to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nearfar::backend::BusEvent;
use nearfar_core::{Doubt, NodeId, PartitionId};
use tokio::sync::Notify;

use crate::plan::NodePlan;
use crate::world::changed;

pub(crate) struct Station {
    pub(crate) plan: NodePlan,
    pub(crate) commands: Connection,
    pub(crate) subscriber: Connection,
    /// What the node's process has subscribed to.
    pub(crate) wanted: BTreeMap<PartitionId, NodeId>,
    /// What of it the server knows of.
    pub(crate) registered: BTreeSet<PartitionId>,
    /// What the subscriber connection carries, first in, first out, each with its time of arrival.
    pub(crate) inbox: VecDeque<(Duration, BusEvent)>,
    /// Doubts overtake messages, as they may.
    pub(crate) doubts: VecDeque<BusEvent>,
    /// The process stands still: it sends nothing and takes nothing in.
    pub(crate) frozen: bool,
    /// When it last ceased to.
    pub(crate) thawed_at: Duration,
    /// The network is in two parts: nothing gets through, and what is on its way waits.
    pub(crate) isolated: bool,
    /// Packets take so many milliseconds longer.
    pub(crate) slower: u64,
    /// The process has crashed.
    pub(crate) gone: bool,
    /// Whoever waits for anything of this, or for the server, is woken.
    pub(crate) changed: Arc<Notify>,
}

/// One connection of a node. After a cut there is another, with another number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    /// Whether it stands, as far as the node knows.
    pub(crate) up: bool,
    /// Which incarnation of the server is at the other end.
    pub(crate) server: u64,
    pub(crate) to_server: Flow,
    pub(crate) to_node: Flow,
}

/// What becomes of the bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Pass,
    /// They wait.
    Hold,
    /// They are lost, and nobody is told.
    Vanish,
}

impl Connection {
    pub(crate) fn to(server: u64) -> Self {
        Self { number: 0, up: true, server, to_server: Flow::Pass, to_node: Flow::Pass }
    }

    /// Ends it.
    pub(crate) fn cut(&mut self) {
        self.number += 1;
        self.up = false;
    }

    /// The next one stands.
    pub(crate) fn renew(&mut self, server: u64) {
        *self = Self { number: self.number, ..Self::to(server) };
    }

    fn is_well(&self, server: u64) -> bool {
        self.up && self.server == server && (self.to_server, self.to_node) == (Flow::Pass, Flow::Pass)
    }
}

/// What there is to hear from the bus.
pub(crate) enum Heard {
    Event(BusEvent),
    /// Nothing before then.
    Later(Duration),
    /// Nothing until something changes.
    Nothing,
}

impl Station {
    pub(crate) fn new(plan: NodePlan, server: u64) -> Self {
        Self {
            plan,
            commands: Connection::to(server),
            subscriber: Connection::to(server),
            wanted: BTreeMap::new(),
            registered: BTreeSet::new(),
            inbox: VecDeque::new(),
            doubts: VecDeque::new(),
            frozen: false,
            thawed_at: Duration::ZERO,
            isolated: false,
            slower: 0,
            gone: false,
            changed: changed(),
        }
    }

    pub(crate) fn flow(&self, flow: Flow) -> Flow {
        if self.isolated && flow == Flow::Pass { Flow::Hold } else { flow }
    }

    /// Whether both connections work. That a subscriber's requests vanish does not matter once it is registered.
    pub(crate) fn is_well(&self, server: u64) -> bool {
        let stands_still = self.frozen || self.isolated;
        let subscriber = Connection { to_server: Flow::Pass, ..self.subscriber };
        self.is_registered() && !stands_still && self.commands.is_well(server) && subscriber.is_well(server)
    }

    /// Whether the server knows of all that is wanted.
    pub(crate) fn is_registered(&self) -> bool {
        !self.wanted.is_empty() && self.wanted.keys().all(|partition| self.registered.contains(partition))
    }

    pub(crate) fn doubt(&mut self, doubt: Doubt) {
        self.doubts.push_back(BusEvent::Doubt(doubt));
        self.changed.notify_waiters();
    }

    /// Puts something on the way, behind what is on its way already.
    pub(crate) fn send(&mut self, arrival: Duration, event: BusEvent) {
        if self.flow(self.subscriber.to_node) == Flow::Vanish {
            return;
        }
        let behind = self.inbox.back().map_or(arrival, |(last, _)| arrival.max(*last));
        self.inbox.push_back((behind, event));
        self.changed.notify_waiters();
    }

    pub(crate) fn hear(&mut self, now: Duration) -> Heard {
        if self.frozen {
            return Heard::Nothing;
        }
        if let Some(doubt) = self.doubts.pop_front() {
            return Heard::Event(doubt);
        }
        let Some((arrival, _)) = self.inbox.front() else { return Heard::Nothing };
        if self.flow(self.subscriber.to_node) == Flow::Hold {
            return Heard::Nothing;
        }
        if now < *arrival {
            return Heard::Later(*arrival);
        }
        self.inbox.pop_front().map_or(Heard::Nothing, |(_, event)| Heard::Event(event))
    }

    /// What had arrived when the connection was cut.
    pub(crate) fn drop_what_is_under_way(&mut self, now: Duration) {
        let hold = self.flow(self.subscriber.to_node) == Flow::Hold;
        self.inbox.retain(|(arrival, _)| !hold && *arrival <= now);
    }
}
