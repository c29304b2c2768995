use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fred::clients::{Client, Pipeline, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{ClusterStateChange, Message};
use nearfar_core::Doubt;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::{Cause, is_cluster_down, is_noperm, is_reply};
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
    /// The server refuses the subscription to these.
    Refused(Channels, Cause),
    /// It will never say anything again.
    Dead,
}

/// How long a cluster that is down is left alone before it is asked for subscriptions again.
const REST: Duration = Duration::from_millis(500);

/// What is subscribed to together.
pub(crate) type Channels = [String; 2];

/// One subscriber connection. Dropping it closes it.
pub(crate) struct Link {
    wire: Wire,
    messages: Receiver<Message>,
    changes: Receiver<Vec<ClusterStateChange>>,
    subscriber: Subscriber,
    server: Arc<Server>,
    topology: Arc<Topology>,
    /// Whether the cluster was down when it was asked for subscriptions last.
    is_down: Arc<AtomicBool>,
    /// Whether an attempt to connect has ended, one way or the other.
    settled: bool,
}

impl Link {
    /// Begins to connect. Must be called inside the runtime.
    pub(crate) fn open(server: &Arc<Server>, topology: &Arc<Topology>) -> Self {
        let wire = Wire::open(server.subscriber_client());
        let (messages, changes) = (wire.client.message_rx(), wire.client.cluster_change_rx());
        let (server, topology) = (Arc::clone(server), Arc::clone(topology));
        let is_down = Arc::default();
        let subscriber = Subscriber::spawn(Asker::new(&wire.client, &server, &topology, &is_down));
        Self { wire, messages, changes, subscriber, server, topology, is_down, settled: false }
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

    pub(crate) fn subscribe(&self, channels: Channels) {
        self.subscriber.ask(Request::Subscribe(vec![channels]));
    }

    pub(crate) fn unsubscribe(&self, channels: Channels) {
        self.subscriber.ask(Request::Unsubscribe(channels));
    }

    /// How many messages have come in that nobody has asked for yet.
    pub(crate) fn backlog(&self) -> usize {
        self.messages.len()
    }

    /// Asks for the subscriptions of a new connection; what was asked of the old one no longer matters.
    pub(crate) fn subscribe_anew(&mut self, channels: Vec<Channels>) {
        let asker = Asker::new(&self.wire.client, &self.server, &self.topology, &self.is_down);
        self.subscriber = Subscriber::spawn(asker);
        if !channels.is_empty() {
            self.subscriber.ask(Request::Subscribe(channels));
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
            said = self.subscriber.said.recv() => return said.unwrap_or(Signal::Dead),
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
    Subscribe(Vec<Channels>),
    Unsubscribe(Channels),
}

/// The task that asks for subscriptions, one request after the other.
struct Subscriber {
    requests: UnboundedSender<Request>,
    /// `Subscribed` and `Refused`.
    said: UnboundedReceiver<Signal>,
    _task: Owned<()>,
}

impl Subscriber {
    fn spawn((asker, said): (Asker, UnboundedReceiver<Signal>)) -> Self {
        let (requests, inbox) = unbounded_channel();
        Self { requests, said, _task: Owned(tokio::spawn(asker.serve(inbox))) }
    }

    fn ask(&self, request: Request) {
        // Fails only after the task has ended, which happens at runtime shutdown.
        let _ = self.requests.send(request);
    }
}

struct Asker {
    client: WithOptions<Client>,
    server: Arc<Server>,
    topology: Arc<Topology>,
    is_down: Arc<AtomicBool>,
    say: UnboundedSender<Signal>,
    /// How many were sent; each carries its number.
    pings: u64,
}

impl Asker {
    /// With where it tells what comes of it.
    fn new(
        client: &Client,
        server: &Arc<Server>,
        topology: &Arc<Topology>,
        is_down: &Arc<AtomicBool>,
    ) -> (Self, UnboundedReceiver<Signal>) {
        let (say, said) = unbounded_channel();
        let client = client.with_options(&server.once());
        let (server, topology, is_down) = (Arc::clone(server), Arc::clone(topology), Arc::clone(is_down));
        (Self { client, server, topology, is_down, say, pings: 0 }, said)
    }

    async fn serve(mut self, mut inbox: UnboundedReceiver<Request>) {
        if self.is_down.swap(false, Ordering::Relaxed) {
            let _ = tokio::time::timeout(REST, pending::<()>()).await;
        }
        while let Some(request) = inbox.recv().await {
            match request {
                Request::Unsubscribe(channels) if self.topology.is_sharded() => self.leave(channels).await,
                Request::Unsubscribe(channels) => self.unsubscribe(channels).await,
                Request::Subscribe(groups) if self.topology.is_sharded() => self.join(groups).await,
                Request::Subscribe(groups) => self.subscribe(groups).await,
            }
        }
    }

    /// Subscribes to sharded channels. fred takes the reply to the first of several for that to the command, and the
    /// others for those to what comes next; so they are asked for one by one.
    async fn join(&mut self, groups: Vec<Channels>) {
        for group in groups {
            match self.join_all(&group).await {
                Ok(()) => {}
                // fred connects again at once, and would be told the same.
                Err(error) if is_cluster_down(&error) => return self.is_down.store(true, Ordering::Relaxed),
                Err(error) => match SlotRange::of_redirection(error.details()) {
                    // It is somebody else's, who is asked then.
                    Some(moved) => self.topology.learn(&[moved], &self.server),
                    None if is_noperm(&error) => self.tell(Signal::Refused(group, Cause::new(&error))),
                    None => {}
                },
            }
        }
        self.tell(Signal::Subscribed);
    }

    async fn join_all(&self, group: &Channels) -> Result<(), FredError> {
        for channel in group {
            Box::pin(self.client.ssubscribe(channel.clone())).await?;
        }
        Ok(())
    }

    async fn leave(&self, group: Channels) {
        for channel in group {
            let _ = Box::pin(self.client.sunsubscribe(channel)).await;
        }
    }

    /// One refused channel refuses them all, so then each group is asked for by itself.
    async fn subscribe(&mut self, groups: Vec<Channels>) {
        if let Some(cause) = self.subscribe_to(groups.concat()).await {
            if let [channels] = &groups[..] {
                return self.tell(Signal::Refused(channels.clone(), cause));
            }
            for channels in groups {
                if let Some(cause) = self.subscribe_to(channels.to_vec()).await {
                    self.tell(Signal::Refused(channels, cause));
                }
            }
        }
    }

    /// Tells if it is done, returns why if it is refused.
    ///
    /// Other failures need no handling: a lost connection announces itself and asks anew, and a subscription that was
    /// never made brings no echo, so that the watchdog replaces the connection.
    async fn subscribe_to(&mut self, channels: Vec<String>) -> Option<Cause> {
        let request = Pipeline::from(self.client.clone());
        // Inside a pipeline this waits for nothing.
        Box::pin(request.subscribe(channels)).await.ok()?;
        match self.confirmed(request).await {
            Ok(()) => self.tell(Signal::Subscribed),
            Err(error) if is_reply(error.details()) => return Some(Cause::new(&error)),
            Err(_) => {}
        }
        None
    }

    /// If it is refused, messages of these channels go on coming, and nobody wants them.
    async fn unsubscribe(&mut self, channels: Channels) {
        let request = Pipeline::from(self.client.clone());
        if Box::pin(request.unsubscribe(Vec::from(channels))).await.is_ok() {
            let _ = self.confirmed(request).await;
        }
    }

    /// fred takes no reply for one to SUBSCRIBE; only that to a PING behind it on the same connection confirms. A refusal
    /// shifts the replies: the PING gets it, and its own reply is one too many. In one pipeline, because a refusal that
    /// came before the PING was under way would find nobody to go to.
    async fn confirmed(&mut self, request: Pipeline<WithOptions<Client>>) -> Result<(), FredError> {
        self.pings += 1;
        let _: () = Box::pin(request.ping(Some(self.pings.to_string()))).await?;
        match Box::pin(request.last::<u64>()).await {
            Ok(number) if number == self.pings => Ok(()),
            // Of an earlier request. Whether this one was refused shows in that no echo comes.
            Ok(_) => self.catch_up().await,
            Err(error) => {
                if is_reply(error.details()) {
                    self.catch_up().await?;
                }
                Err(error)
            }
        }
    }

    /// Until the replies are in step again.
    async fn catch_up(&mut self) -> Result<(), FredError> {
        loop {
            self.pings += 1;
            let number: u64 = Box::pin(self.client.ping(Some(self.pings.to_string()))).await?;
            if number == self.pings {
                return Ok(());
            }
        }
    }

    fn tell(&self, signal: Signal) {
        let _ = self.say.send(signal);
    }
}
