use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Message;
use nearfar_core::backend::{Bus, BusEvent, ServerId};
use nearfar_core::{Doubt, NodeId, PartitionId};
use tokio::runtime::Handle;

use crate::keys::Keys;
use crate::link::{Link, Signal};
use crate::server::Server;

/// The bus on Redis pub/sub: one connection for everything, because only then does an echo stand in the same queue as
/// the messages. [`connect`](crate::connect) makes it.
///
/// ```
/// fn assert_bus<T: nearfar_core::backend::Bus>() {}
/// assert_bus::<nearfar_redis::RedisBus>();
/// ```
pub struct RedisBus {
    server: Arc<Server>,
    link: Link,
    wanted: BTreeMap<PartitionId, NodeId>,
    /// What each channel of the wanted ones carries.
    routes: HashMap<String, Route>,
    /// Doubts and the like that go out before anything else.
    pending: VecDeque<BusEvent>,
    /// Where replacement connections live, whatever thread asks for them.
    runtime: Handle,
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
    pub(crate) fn new(server: Arc<Server>, link: Link) -> Self {
        Self {
            server,
            link,
            wanted: BTreeMap::new(),
            routes: HashMap::new(),
            pending: VecDeque::new(),
            runtime: Handle::current(),
        }
    }

    fn doubt(&mut self, doubt: Doubt) {
        let event = BusEvent::Doubt(doubt);
        // Twice the same with nothing in between says nothing new.
        if self.pending.back() != Some(&event) {
            self.pending.push_back(event);
        }
    }

    fn handle(&mut self, signal: Signal) {
        match signal {
            Signal::Message(message) => self.pending.extend(self.route(message)),
            Signal::Subscribed => self.pending.push_back(BusEvent::Subscribed),
            Signal::Doubt(doubt) => self.doubt(doubt),
            Signal::Anew(doubt) => {
                self.doubt(doubt);
                let _inside = self.runtime.enter();
                self.link.subscribe_anew(all_channels(&self.wanted));
            }
            Signal::Dead => {
                self.doubt(Doubt::Disconnected);
                self.replace_link();
            }
        }
    }

    /// Channels that were given up may still deliver for a moment.
    fn route(&self, message: Message) -> Option<BusEvent> {
        let route = self.routes.get::<str>(&message.channel)?;
        // Never `None` for what PUBLISH sends; if it were, an empty frame is an unreadable one, and that is a doubt.
        Some(route.event(message.value.into_bytes().unwrap_or_default()))
    }

    /// The new link asks for all subscriptions when it reports that it is connected.
    fn replace_link(&mut self) {
        let _inside = self.runtime.enter();
        self.link = Link::open(&self.server);
    }
}

/// Messages before echoes, so that an echo proves that messages are delivered.
fn channels(partition: &PartitionId, node: NodeId) -> [String; 2] {
    let names = Keys::of(partition);
    [names.bus(), names.echo(node)]
}

fn all_channels(wanted: &BTreeMap<PartitionId, NodeId>) -> Vec<String> {
    wanted.iter().flat_map(|(partition, node)| channels(partition, *node)).collect()
}

#[async_trait]
impl Bus for RedisBus {
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.wanted.insert(partition.clone(), node);
        let channels = channels(partition, node);
        for (channel, carries) in channels.iter().zip([Carries::Messages, Carries::Echoes]) {
            self.routes.insert(channel.clone(), Route { partition: partition.clone(), carries });
        }
        self.link.subscribe(channels.into());
    }

    fn unsubscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.wanted.remove(partition);
        let channels = channels(partition, node);
        for channel in &channels {
            self.routes.remove(channel);
        }
        self.link.unsubscribe(channels.into());
    }

    /// A link that is still in its first attempt to connect is left to it, so that repeated calls do not start over
    /// and over.
    fn reconnect(&mut self, _server: ServerId) {
        self.doubt(Doubt::Disconnected);
        if self.link.is_settled() {
            self.replace_link();
        }
    }

    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            let signal = self.link.next().await;
            self.handle(signal);
        }
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus")
            .field("server", &self.server.address())
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
