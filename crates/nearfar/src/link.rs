//! The receive loop of a node: one task, one subscription, no decisions of its own.
//!
//! It carries what the bus delivers to the followers, in order, and what they want (beats, reconnects) back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use nearfar_core::backend::{Beat, Bus, BusEvent, L2};
use nearfar_core::{
    Echo, Follower, Message, MessageBody, Moment, Namespace, NodeId, Proof, RemoteClock, Standing, Version,
    Watchdog,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::Clock;
use crate::stats::Counters;

/// What the receive loop does to a cache, whatever its types are.
pub(crate) trait Follows: Send + Sync {
    /// Other copies of these keys with a smaller version are wrong.
    fn apply(&self, version: Version, keys: &[Bytes]);
    /// Every copy so far is wrong.
    fn forget(&self);
    /// The gate forgot every copy: give their memory back.
    fn reclaim(&self);
    /// The node shuts down: serve nothing from L1 any more.
    fn close(&self);
    fn counters(&self) -> &Counters;
}

/// What a node asks of its receive loop.
pub(crate) enum Order {
    Attach { namespace: Namespace, follower: Follower, cache: Arc<dyn Follows>, proved: oneshot::Sender<()> },
    Detach { namespace: Namespace },
    Shutdown { done: oneshot::Sender<()> },
}

/// The running loop. It ends when this is dropped.
pub(crate) struct Link {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Link {
    pub(crate) fn start(bus: Box<dyn Bus>, context: LinkContext) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(Loop::new(bus, context, inbox).run());
        Self { orders, task }
    }

    /// Hands an order to the loop; one that has ended has nothing to carry out.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the loop works with.
#[derive(Clone)]
pub(crate) struct LinkContext {
    pub(crate) node: NodeId,
    pub(crate) l2: Arc<dyn L2>,
    pub(crate) clock: Clock,
    pub(crate) remote: Arc<RemoteClock>,
    /// How long the link may go without an echo before it is replaced.
    pub(crate) patience: Duration,
}

/// Nodes silent for so long are no longer listed as live.
const FORGET_NODES_AFTER: Duration = Duration::from_secs(60);

/// How many beats of a namespace may be unanswered at once.
const BEATS_AT_ONCE: u8 = 4;

struct Loop {
    context: LinkContext,
    bus: Box<dyn Bus>,
    orders: mpsc::UnboundedReceiver<Order>,
    members: HashMap<Namespace, Member>,
    beats: JoinSet<Namespace>,
    watchdog: Watchdog,
}

struct Member {
    follower: Follower,
    cache: Arc<dyn Follows>,
    /// Told once, when the subscription is proved for the first time.
    proved: Option<oneshot::Sender<()>>,
    beats_under_way: u8,
}

impl Loop {
    fn new(bus: Box<dyn Bus>, context: LinkContext, orders: mpsc::UnboundedReceiver<Order>) -> Self {
        let watchdog = Watchdog::new(context.patience);
        Self { context, bus, orders, members: HashMap::new(), beats: JoinSet::new(), watchdog }
    }

    async fn run(mut self) {
        loop {
            let wake_at = self.poll_timers();
            tokio::select! {
                event = self.bus.next() => match event {
                    Some(event) => self.handle_event(event),
                    None => return self.close_members(),
                },
                order = self.orders.recv() => match order {
                    Some(Order::Shutdown { done }) => return self.shut_down(done).await,
                    Some(order) => self.handle_order(order),
                    None => return self.close_members(),
                },
                Some(beat) = self.beats.join_next() => self.handle_beaten(beat.ok()),
                () = self.context.clock.sleep_until(wake_at) => {}
            }
        }
    }

    /// Does what is due and returns when something is due next.
    fn poll_timers(&mut self) -> Moment {
        let now = self.context.clock.now();
        if self.members.is_empty() {
            // Nobody beats, so nothing proves the link, and nothing depends on it.
            self.watchdog.proof();
        }
        if self.watchdog.poll(now) {
            self.handle_doubt_everywhere();
            self.bus.reconnect();
            self.context.l2.reconnect();
        }
        let mut beats_due = Moment::NEVER;
        for (namespace, member) in &mut self.members {
            if member.beats_under_way >= BEATS_AT_ONCE {
                continue;
            }
            if let Some(id) = member.follower.poll_beat(now) {
                member.beats_under_way += 1;
                self.watchdog.beat(now);
                let beat = Beat { node: self.context.node, id, forget_after: FORGET_NODES_AFTER };
                self.beats.spawn(send_beat(self.context.clone(), namespace.clone(), beat));
            }
            beats_due = beats_due.min(member.follower.beat_due());
        }
        beats_due.min(self.watchdog.due())
    }

    fn handle_event(&mut self, event: BusEvent) {
        match event {
            BusEvent::Message { namespace, frame } => self.handle_message(&namespace, &frame),
            BusEvent::Echo { namespace, frame } => self.handle_echo(&namespace, &frame),
            BusEvent::Doubt(_) => self.handle_doubt_everywhere(),
            BusEvent::Subscribed => {
                self.members.values_mut().for_each(|member| member.follower.handle_subscribed());
            }
        }
    }

    fn handle_message(&mut self, namespace: &Namespace, frame: &Bytes) {
        let Some(member) = self.members.get_mut(namespace) else { return };
        let Ok(message) = Message::decode(frame) else { return member.handle_bad_frame() };
        match &message.body {
            MessageBody::Keys(keys) => member.cache.apply(message.sequence, keys),
            MessageBody::Clear => member.cache.forget(),
        }
        let counters = member.cache.counters();
        if message.origin != self.context.node {
            counters.invalidations_received.add(message.body.keys().len() as u64);
            if let Some(now) = self.context.remote.latest(self.context.clock.now()) {
                // A sequence is drawn from L2's clock, see `Version`.
                counters.propagation.record(now.since(Moment::from_micros(message.sequence.number())));
            }
        }
        if member.follower.handle_message(&message) == Standing::Gap {
            counters.doubts.add(1);
        }
    }

    fn handle_echo(&mut self, namespace: &Namespace, frame: &Bytes) {
        let Some(member) = self.members.get_mut(namespace) else { return };
        let Ok(echo) = Echo::decode(frame) else { return member.handle_bad_frame() };
        // The reply to the beat tells the time as well, but may come after this.
        if let Some(sent) = member.follower.sent_at(echo.beat) {
            self.context.remote.observe(sent, self.context.clock.now(), echo.time);
        }
        match member.follower.handle_echo(&echo) {
            Proof::Void => return,
            Proof::Extended => {}
            Proof::Resynced => {
                member.cache.reclaim();
                member.cache.counters().resyncs.add(1);
            }
        }
        self.watchdog.proof();
        if let Some(proved) = member.proved.take() {
            // The builder may have been dropped meanwhile.
            let _ = proved.send(());
        }
    }

    fn handle_doubt_everywhere(&mut self) {
        self.members.values_mut().for_each(Member::handle_doubt);
    }

    /// A beat that panicked in a backend keeps its place: after a few of them the node stays without trust.
    fn handle_beaten(&mut self, namespace: Option<Namespace>) {
        if let Some(member) = namespace.and_then(|namespace| self.members.get_mut(&namespace)) {
            member.beats_under_way = member.beats_under_way.saturating_sub(1);
        }
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Attach { namespace, follower, cache, proved } => {
                self.bus.subscribe(&namespace, self.context.node);
                let member = Member { follower, cache, proved: Some(proved), beats_under_way: 0 };
                self.members.insert(namespace, member);
            }
            Order::Detach { namespace } => {
                self.bus.unsubscribe(&namespace, self.context.node);
                self.members.remove(&namespace);
            }
            Order::Shutdown { .. } => unreachable!("the loop ends on it"),
        }
    }

    async fn shut_down(mut self, done: oneshot::Sender<()>) {
        self.close_members();
        let (l2, node) = (&self.context.l2, self.context.node);
        // The lists of live nodes forget this one by themselves if L2 cannot be told.
        join_all(self.members.keys().map(|namespace| l2.leave(namespace, node))).await;
        self.context.l2.close().await;
        let _ = done.send(());
    }

    fn close_members(&mut self) {
        self.members.values().for_each(|member| member.cache.close());
    }
}

impl Member {
    fn handle_bad_frame(&mut self) {
        self.cache.counters().bad_frames.add(1);
        self.handle_doubt();
    }

    fn handle_doubt(&mut self) {
        self.cache.counters().doubts.add(1);
        self.follower.handle_doubt();
    }
}

/// Sends one beat and learns L2's time from the reply. Trust is not its business: that comes with the echo.
async fn send_beat(context: LinkContext, namespace: Namespace, beat: Beat) -> Namespace {
    let sent = context.clock.now();
    if let Ok(reply) = context.l2.beat(&namespace, &beat).await {
        context.remote.observe(sent, context.clock.now(), reply.time);
    }
    namespace
}
