use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Message;
use nearfar_core::backend::{Bus, BusEvent};
use nearfar_core::{Doubt, Namespace, NodeId};
use tokio::runtime::Handle;

use crate::error::Cause;
use crate::keys::Keys;
use crate::link::{Channels, Link, Signal};
use crate::rights;
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
    wanted: BTreeMap<Namespace, NodeId>,
    /// What each channel of the wanted ones carries.
    routes: HashMap<String, Route>,
    /// Doubts and the like that go out before anything else.
    pending: VecDeque<BusEvent>,
    /// Where replacement connections live, whatever thread asks for them.
    runtime: Handle,
}

struct Route {
    namespace: Namespace,
    carries: Carries,
}

#[derive(Clone, Copy)]
enum Carries {
    Messages,
    Echoes,
}

impl Route {
    fn event(&self, frame: Bytes) -> BusEvent {
        let namespace = self.namespace.clone();
        match self.carries {
            Carries::Messages => BusEvent::Message { namespace, frame },
            Carries::Echoes => BusEvent::Echo { namespace, frame },
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
            Signal::Refused(channels, cause) => self.refused(&channels, &cause),
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

    /// Nobody cares for what was given up meanwhile.
    fn refused(&mut self, channels: &Channels, cause: &Cause) {
        let Some(Route { namespace, .. }) = self.routes.get(&channels[0]) else { return };
        let (namespace, reason) = (namespace.clone(), rights::of_subscription(cause, namespace));
        self.pending.push_back(BusEvent::Refused { namespace, reason });
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
fn channels(namespace: &Namespace, node: NodeId) -> Channels {
    let names = Keys::of(namespace);
    [names.bus(), names.echo(node)]
}

fn all_channels(wanted: &BTreeMap<Namespace, NodeId>) -> Vec<Channels> {
    wanted.iter().map(|(namespace, node)| channels(namespace, *node)).collect()
}

#[async_trait]
impl Bus for RedisBus {
    fn subscribe(&mut self, namespace: &Namespace, node: NodeId) {
        self.wanted.insert(namespace.clone(), node);
        let channels = channels(namespace, node);
        for (channel, carries) in channels.iter().zip([Carries::Messages, Carries::Echoes]) {
            self.routes.insert(channel.clone(), Route { namespace: namespace.clone(), carries });
        }
        self.link.subscribe(channels);
    }

    fn unsubscribe(&mut self, namespace: &Namespace, node: NodeId) {
        self.wanted.remove(namespace);
        let channels = channels(namespace, node);
        for channel in &channels {
            self.routes.remove(channel);
        }
        self.link.unsubscribe(channels);
    }

    /// A link that is still in its first attempt to connect is left to it, so that repeated calls do not start over
    /// and over.
    fn reconnect(&mut self) {
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
