//! The receive loop of a node: one task, one bus, no decisions of its own.
//!
//! It carries what the bus delivers to the followers, in order, and what they want (beats, reconnects) back.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use nearfar_core::backend::{Beat, Bus, BusEvent, L2, L2Error, ServerId};
use nearfar_core::{Batch, BeatId, Moment, Namespace, NodeId, PartitionId, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::Clock;
use crate::courier::Courier;
use crate::log;
use crate::member::{Heard, Member, Told};
use crate::outbox::Undelivered;
use crate::vigil::{Silent, Vigil};

/// What a node asks of its receive loop.
pub(crate) enum Order {
    Attach {
        partition: PartitionId,
        member: Box<Member>,
    },
    /// The cache of this name is gone.
    Detach {
        namespace: Namespace,
    },
    /// An outbox has something to send.
    Look,
    Shutdown {
        done: oneshot::Sender<()>,
    },
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

    /// Does not keep the loop alive.
    pub(crate) fn orders(&self) -> mpsc::WeakUnboundedSender<Order> {
        self.orders.downgrade()
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
    /// How long the link may go without an echo before it is replaced.
    pub(crate) patience: Duration,
    pub(crate) command_timeout: Duration,
    /// What nobody delivers any more, once the loop has ended.
    pub(crate) left: Arc<Mutex<Vec<Undelivered>>>,
}

impl LinkContext {
    /// An operation that comes back whatever the backend does: hang or panic.
    pub(crate) async fn bounded<T>(
        &self,
        operation: impl Future<Output = Result<T, L2Error>>,
    ) -> Result<T, L2Error> {
        let operation = AssertUnwindSafe(operation).catch_unwind();
        match tokio::time::timeout(self.patience, operation).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_panic)) => Err(L2Error::Unexpected),
            Err(_) => Err(L2Error::TimedOut),
        }
    }
}

/// So many bytes of messages are handled at a stretch, or as many messages as tokio lets a task take at once: looking at timers
/// and orders in between would cost more than most messages do. Beats wait for it, so that it must not take long: these are some
/// two thousand keys.
const STRETCH: usize = 32 * 1024;

/// Nodes silent for so long are no longer listed as live.
const FORGET_NODES_AFTER: Duration = Duration::from_secs(60);

/// What an operation on L2 has come back with.
enum Errand {
    /// `answered` tells whether L2 has replied, be it that it refused.
    Beaten {
        beat: BeatId,
        answered: bool,
        told: Option<Told>,
    },
    Log {
        range: (Version, Version),
        frames: Result<Vec<Bytes>, L2Error>,
    },
    Delivered,
}

struct Loop {
    context: LinkContext,
    bus: Box<dyn Bus>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Those that were detached stay until their outboxes are empty.
    members: BTreeMap<PartitionId, Member>,
    /// Beats, look-ups in the log and deliveries that are under way.
    errands: JoinSet<(PartitionId, Errand)>,
    vigil: Vigil,
    /// As the caches were told last.
    backlog: u64,
}

impl Loop {
    fn new(bus: Box<dyn Bus>, context: LinkContext, orders: mpsc::UnboundedReceiver<Order>) -> Self {
        let vigil = Vigil::new(context.patience);
        Self { context, bus, orders, members: BTreeMap::new(), errands: JoinSet::new(), vigil, backlog: 0 }
    }

    async fn run(mut self) {
        loop {
            let wake_at = self.poll_timers();
            tokio::select! {
                // In a fixed order, so that a simulation can repeat a run. What comes first is rare.
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Attach { partition, member }) => self.attach(partition, *member),
                    Some(Order::Detach { namespace }) => self.detach(&namespace),
                    Some(Order::Look) => {}
                    Some(Order::Shutdown { done }) => return self.shut_down(done).await,
                    None => return,
                },
                Some(errand) = self.errands.join_next() => self.handle_errand(errand.ok()),
                () = self.context.clock.sleep_until(wake_at) => {}
                event = self.bus.next() => match event {
                    Some(event) => self.handle_stretch(event),
                    None => return report_end("the bus has ended"),
                },
            }
        }
    }

    /// One that was detached and has not left yet makes room: the new one has its outbox.
    fn attach(&mut self, partition: PartitionId, member: Member) {
        member.note_backlog(self.backlog);
        self.bus.subscribe(&partition, self.context.node);
        if let Some(former) = self.members.insert(partition, member) {
            dismiss(former);
        }
    }

    /// It goes on following, as a delivery needs, until it has nothing to deliver.
    fn detach(&mut self, namespace: &Namespace) {
        let of_namespace =
            self.members.iter_mut().filter(|(partition, _)| partition.namespace() == namespace);
        of_namespace.for_each(|(_, member)| member.detach());
    }

    fn let_leave(&mut self) {
        let leaving = self.members.iter().filter(|(_, member)| member.may_leave());
        let leaving: Vec<PartitionId> = leaving.map(|(partition, _)| partition.clone()).collect();
        for partition in leaving {
            self.bus.unsubscribe(&partition, self.context.node);
            let member = self.members.remove(&partition).expect("it was just found");
            let server = self.context.l2.server_of(&partition);
            if member.was_proved() && !self.is_in_use(server) {
                // Its last echo will not come. That of one which never had any is still due: the next may depend on it.
                self.vigil.echo(server);
            }
            dismiss(member);
        }
    }

    /// Whether a partition is there.
    fn is_in_use(&self, server: ServerId) -> bool {
        self.members.keys().any(|partition| self.context.l2.server_of(partition) == server)
    }

    /// Does what is due and returns when something is due next.
    fn poll_timers(&mut self) -> Moment {
        let now = self.context.clock.now();
        self.note_backlog();
        self.let_leave();
        self.poll_watchdogs(now);
        for (partition, member) in &mut self.members {
            member.report_trust(now);
            if member.poll_watchdog(now) {
                self.bus.subscribe(partition, self.context.node);
            }
            if let Some(id) = member.poll_beat(now) {
                self.vigil.beat(self.context.l2.server_of(partition), now);
                let beat = Beat { node: self.context.node, id, forget_after: FORGET_NODES_AFTER };
                self.errands.spawn(send_beat(self.context.clone(), partition.clone(), beat));
            }
        }
        self.poll_outboxes(now);
        self.members.values().map(Member::due).fold(self.vigil.due(), Moment::min)
    }

    fn poll_watchdogs(&mut self, now: Moment) {
        for Silent { server, no_echoes } in self.vigil.poll(now) {
            if no_echoes {
                let l2 = Arc::clone(&self.context.l2);
                self.handle_doubt(|partition| l2.server_of(partition) == server);
                self.bus.reconnect(server);
            }
            self.context.l2.reconnect(server);
            if !self.is_in_use(server) {
                // Nobody beats there, so nothing would prove the new connections.
                self.vigil.forget(server);
            }
        }
    }

    fn poll_outboxes(&mut self, now: Moment) {
        for courier in self.members.values().map(Member::courier) {
            if let Some(batch) = courier.poll(now) {
                self.errands.spawn(deliver(self.context.clone(), Arc::clone(courier), batch));
            }
        }
    }

    /// Handles an event and, if it is a message, those that have come in behind it. Anything else may take trust or give it, which
    /// is reported before the next such thing.
    fn handle_stretch(&mut self, first: BusEvent) {
        let (mut room, mut next) = (STRETCH, Some(first));
        while let Some(event) = next {
            room = message_len(&event).map_or(0, |len| room.saturating_sub(len));
            self.handle_event(event);
            // A bus that has ended says so again.
            next = if room == 0 { None } else { self.bus.next().now_or_never().flatten() };
        }
    }

    fn handle_event(&mut self, event: BusEvent) {
        let (node, now) = (self.context.node, self.context.clock.now());
        match event {
            BusEvent::Message { partition, frame } => {
                let Some(member) = self.members.get_mut(&partition) else { return };
                member.handle_message(&frame, node, now);
            }
            BusEvent::Echo { partition, frame } => self.handle_echo(partition, &frame, now),
            BusEvent::Doubt(_) => self.handle_doubt(|_| true),
            BusEvent::DoubtIn(partitions, _) => self.handle_doubt(|partition| partitions.contains(partition)),
            BusEvent::Refused { partition, reason } => {
                let Some(member) = self.members.get_mut(&partition) else { return };
                member.handle_refused(&partition, reason);
            }
            BusEvent::Subscribed => self.members.values_mut().for_each(Member::handle_subscribed),
        }
    }

    fn note_backlog(&mut self) {
        let backlog = self.bus.backlog() as u64;
        if backlog != self.backlog {
            self.backlog = backlog;
            self.members.values().for_each(|member| member.note_backlog(backlog));
        }
    }

    fn handle_echo(&mut self, partition: PartitionId, frame: &Bytes, now: Moment) {
        let Some(member) = self.members.get_mut(&partition) else { return };
        let heard = member.handle_echo(frame, now);
        if matches!(heard, Heard::Nothing) {
            return;
        }
        let l2 = &self.context.l2;
        let server = l2.server_of(&partition);
        self.vigil.echo(server);
        let there = self.members.iter().filter(|(partition, _)| l2.server_of(partition) == server);
        there.for_each(|(_, member)| member.courier().nudge());
        if let Heard::Missing { since, until } = heard {
            self.errands.spawn(fetch_log(self.context.clone(), partition, (since, until)));
        }
    }

    fn handle_doubt(&mut self, concerns: impl Fn(&PartitionId) -> bool) {
        let concerned = self.members.iter_mut().filter(|(partition, _)| concerns(partition));
        concerned.for_each(|(_, member)| member.handle_doubt());
    }

    fn handle_errand(&mut self, errand: Option<(PartitionId, Errand)>) {
        let Some((partition, errand)) = errand else { return };
        if matches!(errand, Errand::Beaten { answered: true, .. }) {
            self.vigil.reply(self.context.l2.server_of(&partition));
        }
        let Some(member) = self.members.get_mut(&partition) else { return };
        match errand {
            Errand::Beaten { beat, told, .. } => member.handle_beaten(beat, told),
            Errand::Log { range, frames } => {
                member.handle_log(range, frames, self.context.node, self.context.clock.now());
            }
            // It has told the outbox.
            Errand::Delivered => {}
        }
    }

    async fn shut_down(mut self, done: oneshot::Sender<()>) {
        self.members.values().for_each(Member::close);
        self.empty_outboxes().await;
        self.close_outboxes();
        // A beat that came behind the goodbye would list this node again.
        self.errands.shutdown().await;
        let (l2, node, limit) = (&self.context.l2, self.context.node, self.context.command_timeout);
        let goodbyes = self.members.keys().map(|partition| self.context.bounded(l2.leave(partition, node)));
        // The lists of live nodes forget this one by themselves if L2 cannot be told.
        let _ = tokio::time::timeout(limit, join_all(goodbyes)).await;
        let _ = tokio::time::timeout(limit, l2.close()).await;
        let _ = done.send(());
    }

    /// Sends what waits. A `set` may have to be waited out for the time of one command, and its invalidation may take
    /// that of another.
    async fn empty_outboxes(&mut self) {
        let couriers: Vec<_> = self.members.values().map(|member| Arc::clone(member.courier())).collect();
        let (context, errands) = (&self.context, &mut self.errands);
        let emptied = async {
            // A batch under way neither waits nor is acknowledged until its errand is over.
            while couriers.iter().any(|courier| courier.is_sending()) && errands.join_next().await.is_some() {
            }
            join_all(couriers.iter().map(|courier| empty(context, courier))).await;
        };
        // What is under way when the time is over stays in its outbox.
        let _ = tokio::time::timeout(context.command_timeout.saturating_mul(2), emptied).await;
    }

    fn close_outboxes(&self) {
        let left = self.members.values().flat_map(|member| member.courier().close());
        self.context.left.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
    }
}

/// `None` for what is no message.
fn message_len(event: &BusEvent) -> Option<usize> {
    match event {
        BusEvent::Message { frame, .. } => Some(frame.len()),
        _ => None,
    }
}

/// Destroys what is left of a cache. What its values' `drop` does is not the loop's to suffer from.
fn dismiss(member: Member) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(member)));
}

fn report_end(why: &str) {
    tracing::error!(target: log::BUS, "{why}: this node serves nothing from L1 any more");
}

/// Whatever ended it: what nobody delivers any more is not queued.
impl Drop for Loop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            report_end("the receive loop has panicked");
        }
        self.close_outboxes();
        std::mem::take(&mut self.members).into_values().for_each(dismiss);
    }
}

/// Until nothing waits, or L2 does not answer.
async fn empty(context: &LinkContext, courier: &Courier) {
    courier.nudge();
    while !courier.is_idle() {
        // What could still be overtaken waits until it cannot.
        context.clock.sleep_until(courier.due()).await;
        let batch = courier.poll(context.clock.now());
        if let Some(batch) = batch
            && !courier.deliver(context, &batch).await
        {
            return;
        }
    }
}

async fn deliver(context: LinkContext, courier: Arc<Courier>, batch: Batch) -> (PartitionId, Errand) {
    courier.deliver(&context, &batch).await;
    (courier.partition.clone(), Errand::Delivered)
}

/// Sends one beat, whose reply tells L2's time. Trust is not its business: that comes with the echo.
async fn send_beat(context: LinkContext, partition: PartitionId, beat: Beat) -> (PartitionId, Errand) {
    let sent = context.clock.now();
    let reply = context.bounded(context.l2.beat(&partition, &beat)).await;
    let told =
        reply.as_ref().ok().map(|reply| Told { sent, answered: context.clock.now(), time: reply.time });
    let answered = matches!(reply, Ok(_) | Err(L2Error::Rejected(_)));
    (partition, Errand::Beaten { beat: beat.id, answered, told })
}

async fn fetch_log(
    context: LinkContext,
    partition: PartitionId,
    range: (Version, Version),
) -> (PartitionId, Errand) {
    let frames = context.bounded(context.l2.log(&partition, range.0, range.1)).await;
    (partition, Errand::Log { range, frames })
}
