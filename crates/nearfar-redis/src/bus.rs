use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Message;
use futures_util::future::select_all;
use nearfar_core::backend::{Bus, BusEvent, ServerId};
use nearfar_core::{Doubt, NodeId, PartitionId};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::Cause;
use crate::keys::Keys;
use crate::link::{Channels, Link, Signal};
use crate::rights;
use crate::topology::Topology;

/// The bus on Redis pub/sub: one connection to each server, because only then does an echo stand in the same queue as
/// the messages. [`connect`](crate::connect) makes it.
///
/// ```
/// fn assert_bus<T: nearfar_core::backend::Bus>() {}
/// assert_bus::<nearfar_redis::RedisBus>();
/// ```
pub struct RedisBus {
    topology: Arc<Topology>,
    /// Speaks when partitions have moved to other servers.
    moves: watch::Receiver<()>,
    links: BTreeMap<ServerId, Link>,
    /// Which of the links is heard first; each in turn, so that a flood on one does not drown the others.
    turn: usize,
    wanted: BTreeMap<PartitionId, Wanted>,
    /// What each channel of the wanted ones carries.
    routes: HashMap<String, Route>,
    /// Doubts and the like that go out before anything else.
    pending: VecDeque<BusEvent>,
    /// Where replacement connections live, whatever thread asks for them.
    runtime: Handle,
}

/// A partition that is subscribed to.
#[derive(Debug)]
struct Wanted {
    node: NodeId,
    /// Where; `None` while it is nowhere.
    server: Option<ServerId>,
}

struct Route {
    partition: PartitionId,
    carries: Carries,
}

#[derive(Clone, Copy)]
enum Carries {
    Messages,
    Echoes,
}

impl Route {
    fn event(&self, frame: Bytes) -> BusEvent {
        let partition = self.partition.clone();
        match self.carries {
            Carries::Messages => BusEvent::Message { partition, frame },
            Carries::Echoes => BusEvent::Echo { partition, frame },
        }
    }
}

impl RedisBus {
    /// With the link that stands already, if any.
    pub(crate) fn new(topology: Arc<Topology>, link: Option<Link>) -> Self {
        Self {
            moves: topology.changes(),
            topology,
            links: link.map(|link| (ServerId::default(), link)).into_iter().collect(),
            turn: 0,
            wanted: BTreeMap::new(),
            routes: HashMap::new(),
            pending: VecDeque::new(),
            runtime: Handle::current(),
        }
    }

    /// The link to a server, which is opened if there is none.
    fn link(&mut self, server: ServerId) -> &mut Link {
        self.links.entry(server).or_insert_with(|| {
            let _inside = self.runtime.enter();
            Link::open(&self.topology.server(server), &self.topology)
        })
    }

    /// The new link asks for all subscriptions when it reports that it is connected.
    fn replace_link(&mut self, server: ServerId) {
        self.links.remove(&server);
        self.link(server);
    }

    fn doubt(&mut self, server: ServerId, doubt: Doubt) {
        let event = if self.topology.is_cluster() {
            let there = self.wanted.iter().filter(|(_, wanted)| wanted.server == Some(server));
            BusEvent::DoubtIn(there.map(|(partition, _)| partition.clone()).collect(), doubt)
        } else {
            BusEvent::Doubt(doubt)
        };
        // Twice the same with nothing in between says nothing new.
        if self.pending.back() != Some(&event) {
            self.pending.push_back(event);
        }
    }

    fn handle(&mut self, server: ServerId, signal: Signal) {
        match signal {
            Signal::Message(message) => self.pending.extend(self.route(message)),
            Signal::Subscribed => self.pending.push_back(BusEvent::Subscribed),
            Signal::Refused(channels, cause) => self.refused(&channels, &cause),
            Signal::Doubt(doubt) => self.doubt(server, doubt),
            Signal::Anew(doubt) => {
                self.doubt(server, doubt);
                let channels = self.channels_at(server);
                let runtime = self.runtime.clone();
                let _inside = runtime.enter();
                self.link(server).subscribe_anew(channels);
            }
            Signal::Dead => {
                self.doubt(server, Doubt::Disconnected);
                self.replace_link(server);
            }
        }
    }

    /// Nobody cares for what was given up meanwhile.
    fn refused(&mut self, channels: &Channels, cause: &Cause) {
        let Some(Route { partition, .. }) = self.routes.get(&channels[0]) else { return };
        let (partition, reason) = (partition.clone(), rights::of_subscription(cause, partition));
        self.pending.push_back(BusEvent::Refused { partition, reason });
    }

    /// Channels that were given up may still deliver for a moment.
    fn route(&self, message: Message) -> Option<BusEvent> {
        let route = self.routes.get::<str>(&message.channel)?;
        // Never `None` for what PUBLISH sends; if it were, an empty frame is an unreadable one, and that is a doubt.
        Some(route.event(message.value.into_bytes().unwrap_or_default()))
    }

    fn channels_at(&self, server: ServerId) -> Vec<Channels> {
        let there = self.wanted.iter().filter(|(_, wanted)| wanted.server == Some(server));
        there.map(|(partition, wanted)| channels(partition, wanted.node)).collect()
    }

    /// Subscribes to what has moved where it is now. Messages of the time in between are missing.
    fn follow_moves(&mut self) {
        let is_elsewhere =
            |(partition, wanted): &(&PartitionId, &Wanted)| self.topology.home_of(partition) != wanted.server;
        let moved = self.wanted.iter().filter(is_elsewhere).map(|(partition, _)| partition.clone());
        let moved: Vec<PartitionId> = moved.collect();
        for partition in &moved {
            let server = self.topology.home_of(partition);
            let Some(wanted) = self.wanted.get_mut(partition) else { continue };
            let from = std::mem::replace(&mut wanted.server, server);
            let channels = channels(partition, wanted.node);
            // A sharded subscription has ended with the move.
            if !self.topology.is_sharded()
                && let Some(former) = from.and_then(|from| self.links.get(&from))
            {
                former.unsubscribe(channels.clone());
            }
            if let Some(server) = server {
                self.link(server).subscribe(channels);
            }
        }
        if !moved.is_empty() {
            self.pending.push_back(BusEvent::DoubtIn(moved, Doubt::TopologyChanged));
        }
        self.links.retain(|server, _| self.wanted.values().any(|wanted| wanted.server == Some(*server)));
    }
}

/// The next signal of any link, and whose it is.
///
/// # Cancel safety
/// That of [`Link::next`]: no signal is lost.
async fn next_signal(links: &mut BTreeMap<ServerId, Link>, turn: usize) -> (ServerId, Signal) {
    let count = links.len();
    if count == 1
        && let Some((server, link)) = links.iter_mut().next()
    {
        return (*server, link.next().await);
    }
    let mut waiting: Vec<_> = links
        .iter_mut()
        .map(|(server, link)| Box::pin(async move { (*server, link.next().await) }))
        .collect();
    if count == 0 {
        return std::future::pending().await;
    }
    waiting.rotate_left(turn % count);
    select_all(waiting).await.0
}

/// Messages before echoes, so that an echo proves that messages are delivered.
fn channels(partition: &PartitionId, node: NodeId) -> Channels {
    let names = Keys::of(partition);
    [names.bus(), names.echo(node)]
}

#[async_trait]
impl Bus for RedisBus {
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId) {
        if self.wanted.contains_key(partition) {
            // It may have moved, which is a doubt.
            self.follow_moves();
        }
        let server = self.topology.home_of(partition);
        self.wanted.insert(partition.clone(), Wanted { node, server });
        let channels = channels(partition, node);
        for (channel, carries) in channels.iter().zip([Carries::Messages, Carries::Echoes]) {
            self.routes.insert(channel.clone(), Route { partition: partition.clone(), carries });
        }
        if let Some(server) = server {
            self.link(server).subscribe(channels);
        }
    }

    fn unsubscribe(&mut self, partition: &PartitionId, node: NodeId) {
        let wanted = self.wanted.remove(partition);
        let channels = channels(partition, node);
        for channel in &channels {
            self.routes.remove(channel);
        }
        if let Some(link) = wanted.and_then(|wanted| self.links.get(&wanted.server?)) {
            link.unsubscribe(channels);
        }
    }

    /// A link that is still in its first attempt to connect is left to it, so that repeated calls do not start over
    /// and over.
    fn reconnect(&mut self, server: ServerId) {
        self.doubt(server, Doubt::Disconnected);
        if self.links.get(&server).is_some_and(Link::is_settled) {
            self.replace_link(server);
        }
    }

    fn backlog(&self) -> usize {
        self.links.values().map(Link::backlog).sum::<usize>() + self.pending.len()
    }

    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            self.turn = self.turn.wrapping_add(1);
            let (server, signal) = tokio::select! {
                biased;
                // The topology lives as long as this.
                _ = self.moves.changed() => {
                    self.follow_moves();
                    continue;
                }
                signal = next_signal(&mut self.links, self.turn) => signal,
            };
            self.handle(server, signal);
        }
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus")
            .field("servers", &self.topology.addresses())
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
