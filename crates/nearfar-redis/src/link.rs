use std::sync::Arc;

use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{ClusterStateChange, Message};
use nearfar_core::Doubt;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::server::Server;
use crate::topology::{SlotRange, Topology};
use crate::wire::{Owned, Wire};

/// What a subscriber connection has to say.
pub(crate) enum Signal {
    Message(Message),
    /// Messages may be missing; the subscriptions still stand.
    Doubt(Doubt),
    /// Messages may be missing, and the server has to be asked for the subscriptions anew.
    Anew(Doubt),
    /// Subscriptions were made and confirmed.
    Subscribed,
    /// It will never say anything again.
    Dead,
}

/// One subscriber connection. Dropping it closes it.
pub(crate) struct Link {
    wire: Wire,
    messages: Receiver<Message>,
    changes: Receiver<Vec<ClusterStateChange>>,
    subscriber: Subscriber,
    server: Arc<Server>,
    topology: Arc<Topology>,
    /// Whether an attempt to connect has ended, one way or the other.
    settled: bool,
}

impl Link {
    /// Begins to connect. Must be called inside the runtime.
    pub(crate) fn open(server: &Arc<Server>, topology: &Arc<Topology>) -> Self {
        let wire = Wire::open(server.subscriber_client());
        let (messages, changes) = (wire.client.message_rx(), wire.client.cluster_change_rx());
        let (server, topology) = (Arc::clone(server), Arc::clone(topology));
        let subscriber = Subscriber::spawn(&wire.client, &server, &topology);
        Self { wire, messages, changes, subscriber, server, topology, settled: false }
    }

    /// Waits until the connection stands; see [`Wire::established`].
    pub(crate) async fn established(&mut self, failed: impl Fn(&FredError)) -> Result<(), FredError> {
        self.settled = true;
        self.wire.established(failed).await
    }

    /// Whether replacing it makes sense: not while it is still in its first attempt to connect.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled || self.wire.task.0.is_finished()
    }

    pub(crate) fn subscribe(&self, channels: Vec<String>) {
        self.subscriber.ask(Request::Subscribe(channels));
    }

    pub(crate) fn unsubscribe(&self, channels: Vec<String>) {
        self.subscriber.ask(Request::Unsubscribe(channels));
    }

    /// Asks for the subscriptions of a new connection; what was asked of the old one no longer matters.
    pub(crate) fn subscribe_anew(&mut self, channels: Vec<String>) {
        self.subscriber = Subscriber::spawn(&self.wire.client, &self.server, &self.topology);
        if !channels.is_empty() {
            self.subscribe(channels);
        }
    }

    /// The next signal. Doubts come first: they may overtake messages, which does no harm, but no flood of messages
    /// may hold them up.
    ///
    /// After a reconnect nothing is delivered until the subscriptions are asked for anew, so no message of the new
    /// connection can come before its doubt.
    ///
    /// # Cancel safety
    /// No signal is lost: every branch is a queue's `recv`.
    pub(crate) async fn next(&mut self) -> Signal {
        let signal = tokio::select! {
            biased;
            error = self.wire.errors.recv() => heard(&error, Signal::Doubt(Doubt::Disconnected)),
            made = self.wire.reconnects.recv() => heard(&made, Signal::Anew(Doubt::Disconnected)),
            change = self.changes.recv() => heard(&change, Signal::Anew(Doubt::TopologyChanged)),
            done = self.subscriber.done.recv() => return done.map_or(Signal::Dead, |()| Signal::Subscribed),
            message = self.messages.recv() => return delivered(message),
        };
        self.settled = true;
        signal
    }
}

/// A lagging queue of events held at least one event.
fn heard<T>(event: &Result<T, RecvError>, signal: Signal) -> Signal {
    match event {
        Ok(_) | Err(RecvError::Lagged(_)) => signal,
        Err(RecvError::Closed) => Signal::Dead,
    }
}

fn delivered(message: Result<Message, RecvError>) -> Signal {
    match message {
        Ok(message) => Signal::Message(message),
        Err(RecvError::Lagged(messages)) => Signal::Doubt(Doubt::Lagged { messages }),
        Err(RecvError::Closed) => Signal::Dead,
    }
}

enum Request {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
}

/// The task that asks for subscriptions, one request after the other.
struct Subscriber {
    requests: UnboundedSender<Request>,
    done: UnboundedReceiver<()>,
    _task: Owned<()>,
}

impl Subscriber {
    fn spawn(client: &Client, server: &Arc<Server>, topology: &Arc<Topology>) -> Self {
        let (requests, inbox) = unbounded_channel();
        let (confirm, done) = unbounded_channel();
        let client = client.with_options(&server.once());
        let desk = Desk { client, server: Arc::clone(server), topology: Arc::clone(topology) };
        let task = Owned(tokio::spawn(desk.serve(inbox, confirm)));
        Self { requests, done, _task: task }
    }

    fn ask(&self, request: Request) {
        // Fails only after the task has ended, which happens at runtime shutdown.
        let _ = self.requests.send(request);
    }
}

/// Where subscriptions are asked for.
struct Desk {
    client: WithOptions<Client>,
    server: Arc<Server>,
    topology: Arc<Topology>,
}

impl Desk {
    /// Most failures need no handling: a lost connection announces itself and asks anew, and a subscription that was
    /// never made brings no echo, so that the watchdog replaces the connection.
    async fn serve(self, mut inbox: UnboundedReceiver<Request>, confirm: UnboundedSender<()>) {
        while let Some(request) = inbox.recv().await {
            match request {
                Request::Unsubscribe(channels) => self.unsubscribe(channels).await,
                Request::Subscribe(channels) => match self.subscribe(channels).await {
                    Ok(()) => drop(confirm.send(())),
                    // It is somebody else's, who is asked then.
                    Err(error) => {
                        let moved = SlotRange::of_redirection(error.details());
                        self.topology.learn(moved.as_slice(), &self.server);
                    }
                },
            }
        }
    }

    async fn subscribe(&self, channels: Vec<String>) -> Result<(), FredError> {
        if self.topology.is_sharded() {
            // fred takes the reply to the first of several channels for that to the command, and the others for those to
            // what comes next.
            for channel in channels {
                Box::pin(self.client.ssubscribe(channel)).await?;
            }
            return Ok(());
        }
        // fred answers SUBSCRIBE before it has written it; only a PING behind it on the same connection confirms. A
        // refused one shifts the replies, so that the PING gets the refusal.
        Box::pin(self.client.subscribe(channels)).await?;
        Box::pin(self.client.ping(None)).await
    }

    async fn unsubscribe(&self, channels: Vec<String>) {
        if self.topology.is_sharded() {
            for channel in channels {
                let _ = Box::pin(self.client.sunsubscribe(channel)).await;
            }
        } else {
            let _ = Box::pin(self.client.unsubscribe(channels)).await;
        }
    }
}
