use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nearfar_core::backend::{Beat, Bus, BusEvent, L2, L2Error, PurgeCursor, Purged, ServerId, Settings};
use nearfar_core::{
    BeatReply, Change, Claim, ClaimOutcome, Doubt, Fill, FillOutcome, Holder, Moment, Namespace, NodeId,
    Notice, Partition, PartitionId, Reading, Renewal, TagMark, Version,
};
use tokio::sync::{broadcast, watch};

use crate::clock::Clock;

/// How many messages a slow receiver may be behind before it loses some.
const QUEUE: usize = 8192;
/// How many messages a log keeps.
const LOG_LEN: usize = 10_000;

/// An L2 and a bus in memory, for the nodes of one process: the semantics of Redis without Redis.
///
/// Clones are the same store. Tests of a service give each of its nodes a [`Nearfar`](crate::Nearfar) on one of
/// these, on paused time if they like, and rehearse outages with the `cut_*`, `heal_*` and [`flush`](Self::flush)
/// calls.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, InProcess, Nearfar};
///
/// let shared = InProcess::new();
/// let here: Cache<u64, String> = Nearfar::builder().in_process(&shared).cache("names").build().await?;
/// let there: Cache<u64, String> = Nearfar::builder().in_process(&shared).cache("names").build().await?;
///
/// here.set(&1, "Ada".to_owned()).await?;
/// assert_eq!(**there.get(&1).await?.expect("set by the other node"), *"Ada");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct InProcess {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    /// Messages are published under its lock, so that their order is that of the changes.
    store: Mutex<Store>,
    bus: broadcast::Sender<Packet>,
    l2_up: watch::Sender<bool>,
    wire: watch::Sender<Wire>,
}

/// The state of all subscriptions.
#[derive(Clone, Copy)]
struct Wire {
    up: bool,
    /// How often it was cut; one who looks late still sees that it was.
    cuts: u64,
}

#[derive(Default)]
struct Store {
    settings: HashMap<Namespace, Settings>,
    partitions: HashMap<PartitionId, Partition>,
}

#[derive(Clone, Debug)]
struct Packet {
    partition: PartitionId,
    /// The node that an echo or a notice is for; messages are for all.
    only_for: Option<NodeId>,
    frame: Bytes,
}

impl InProcess {
    /// An empty store. Call it where a Tokio runtime runs, or is going to: its clock is Tokio's.
    pub fn new() -> Self {
        let shared = Shared {
            clock: Clock::tokio(),
            store: Mutex::default(),
            bus: broadcast::Sender::new(QUEUE),
            l2_up: watch::Sender::new(true),
            wire: watch::Sender::new(Wire { up: true, cuts: 0 }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes every operation on the store fail, as if the server were down.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, InProcess, Nearfar};
    ///
    /// let shared = InProcess::new();
    /// let names: Cache<u64, String> = Nearfar::builder().in_process(&shared).cache("names").build().await?;
    /// shared.cut_store();
    /// assert!(!names.invalidate(&1).await?.is_applied());
    /// shared.heal_store();
    /// assert!(names.invalidate(&1).await?.is_applied());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cut_store(&self) {
        self.shared.l2_up.send_replace(false);
    }

    /// Ends what [`cut_store`](Self::cut_store) began.
    pub fn heal_store(&self) {
        self.shared.l2_up.send_replace(true);
    }

    /// Interrupts every subscription: messages are lost until [`heal_bus`](Self::heal_bus).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, InProcess, Nearfar, Tier};
    ///
    /// let shared = InProcess::new();
    /// let names: Cache<u64, String> = Nearfar::builder().in_process(&shared).cache("names").build().await?;
    /// names.set(&1, "Ada".to_owned()).await?;
    /// shared.cut_bus();
    /// while names.stats().trusted {
    ///     tokio::task::yield_now().await; // the node notices
    /// }
    /// assert_eq!(names.get(&1).await?.unwrap().tier(), Tier::L2, "without messages, reads bypass L1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cut_bus(&self) {
        self.shared.wire.send_modify(|wire| *wire = Wire { up: false, cuts: wire.cuts + 1 });
    }

    /// Ends what [`cut_bus`](Self::cut_bus) began; the messages of the time in between stay lost.
    pub fn heal_bus(&self) {
        self.shared.wire.send_modify(|wire| wire.up = true);
    }

    /// Loses everything, as `FLUSHALL` does: values, tombstones, sequences. Nobody is told.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{Cache, InProcess, Nearfar};
    ///
    /// let shared = InProcess::new();
    /// let names: Cache<u64, String> = Nearfar::builder().in_process(&shared).cache("names").build().await?;
    /// names.set(&1, "Ada".to_owned()).await?;
    /// shared.flush();
    /// while names.stats().resyncs < 2 {
    ///     tokio::task::yield_now().await; // the next beat shows it; the first resync was at the start
    /// }
    /// assert!(names.get(&1).await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush(&self) {
        *self.shared.store() = Store::default();
    }

    /// The store's side of the seam, for wrapping it in something that injects faults.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (l2, bus) = nearfar::InProcess::new().backend();
    /// let nearfar = nearfar::Nearfar::builder().backend(l2, bus);
    /// assert!(nearfar.cache::<u64, u64>("squares").build().await.is_ok());
    /// # }
    /// ```
    pub fn backend(&self) -> (Arc<dyn L2>, Box<dyn Bus>) {
        let wire = self.shared.wire.subscribe();
        let cuts = wire.borrow().cuts;
        let bus = InProcessBus {
            packets: self.shared.bus.subscribe(),
            wire,
            cuts,
            subscribed: HashMap::new(),
            fresh: false,
            shared: Arc::clone(&self.shared),
        };
        (Arc::new(InProcessL2 { shared: Arc::clone(&self.shared) }), Box::new(bus))
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").finish_non_exhaustive()
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one atomic step.
    fn step<T>(&self, step: impl FnOnce(&mut Store) -> T) -> Result<T, L2Error> {
        if !*self.l2_up.borrow() {
            return Err(L2Error::Unreachable);
        }
        Ok(step(&mut self.store()))
    }

    /// Runs one atomic step in a partition.
    fn step_in<T>(
        &self,
        partition: &PartitionId,
        step: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, L2Error> {
        self.step(|store| {
            let partition = store.partitions.entry(partition.clone());
            step(partition.or_insert_with(|| Partition::new(LOG_LEN)))
        })
    }

    fn publish(&self, partition: &PartitionId, only_for: Option<NodeId>, frame: Bytes) {
        // Nobody listening is not an error.
        let _ = self.bus.send(Packet { partition: partition.clone(), only_for, frame });
    }
}

struct InProcessL2 {
    shared: Arc<Shared>,
}

impl fmt::Debug for InProcessL2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessL2").finish_non_exhaustive()
    }
}

#[async_trait]
impl L2 for InProcessL2 {
    async fn open(&self, namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error> {
        self.shared.step(|store| *store.settings.entry(namespace.clone()).or_insert(*settings))
    }

    async fn read_many(&self, partition: &PartitionId, keys: &[Bytes]) -> Result<Reading, L2Error> {
        self.shared.step_in(partition, |partition| partition.read_many(self.shared.clock.now(), keys))
    }

    async fn change(&self, partition: &PartitionId, change: Change) -> Result<Version, L2Error> {
        self.shared.step_in(partition, |state| {
            let (version, frame) = state.change(self.shared.clock.now(), &change)?;
            self.shared.publish(partition, None, frame);
            Ok(version)
        })?
    }

    async fn fill_many(
        &self,
        partition: &PartitionId,
        fills: Vec<Fill>,
    ) -> Result<Vec<FillOutcome>, L2Error> {
        self.shared.step_in(partition, |partition| partition.fill_many(self.shared.clock.now(), &fills))
    }

    async fn tag_marks(&self, partition: &PartitionId, tags: &[Bytes]) -> Result<Vec<TagMark>, L2Error> {
        self.shared.step_in(partition, |partition| partition.tag_marks(tags))
    }

    async fn purge(
        &self,
        partition: &PartitionId,
        _from: PurgeCursor,
        fence_window: Duration,
    ) -> Result<Purged, L2Error> {
        self.shared.step_in(partition, |partition| partition.purge(self.shared.clock.now(), fence_window))
    }

    async fn renew(&self, partition: &PartitionId, renewal: Renewal) -> Result<FillOutcome, L2Error> {
        self.shared.step_in(partition, |partition| partition.renew(self.shared.clock.now(), &renewal))
    }

    async fn touch(
        &self,
        partition: &PartitionId,
        key: &Bytes,
        fence_window: Duration,
    ) -> Result<(), L2Error> {
        self.shared
            .step_in(partition, |partition| partition.touch(self.shared.clock.now(), key, fence_window))
    }

    async fn claim(&self, partition: &PartitionId, claim: Claim) -> Result<ClaimOutcome, L2Error> {
        self.shared.step_in(partition, |partition| partition.claim(self.shared.clock.now(), &claim))
    }

    async fn release(&self, partition: &PartitionId, key: &Bytes, holder: Holder) -> Result<(), L2Error> {
        self.shared.step_in(partition, |state| {
            let notice = Notice { key: key.clone() }.encode();
            for node in state.release(key, holder) {
                self.shared.publish(partition, Some(node), notice.clone());
            }
        })
    }

    async fn log(
        &self,
        partition: &PartitionId,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error> {
        self.shared.step_in(partition, |partition| partition.log(since, until).cloned().collect())
    }

    async fn beat(&self, partition: &PartitionId, beat: &Beat) -> Result<BeatReply, L2Error> {
        self.shared.step_in(partition, |state| {
            let now = self.shared.clock.now();
            let (reply, echo) = state.beat(now, beat.node, beat.id, beat.forget_after);
            self.shared.publish(partition, Some(beat.node), echo.encode());
            reply
        })
    }

    async fn nodes(&self, partition: &PartitionId) -> Result<Vec<(NodeId, Moment)>, L2Error> {
        self.shared.step_in(partition, |partition| partition.nodes().collect())
    }

    async fn leave(&self, partition: &PartitionId, node: NodeId) -> Result<(), L2Error> {
        self.shared.step_in(partition, |partition| partition.leave(node))
    }

    fn reconnect(&self, _server: ServerId) {}

    async fn close(&self) {}
}

struct InProcessBus {
    packets: broadcast::Receiver<Packet>,
    wire: watch::Receiver<Wire>,
    /// How many cuts were reported.
    cuts: u64,
    /// The partitions asked for, each with the node whose echoes are wanted.
    subscribed: HashMap<PartitionId, NodeId>,
    /// A subscription was made and not reported yet.
    fresh: bool,
    shared: Arc<Shared>,
}

impl fmt::Debug for InProcessBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessBus").field("subscribed", &self.subscribed).finish_non_exhaustive()
    }
}

impl InProcessBus {
    fn event_of(&self, packet: Packet) -> Option<BusEvent> {
        let Packet { partition, only_for, frame } = packet;
        let node = *self.subscribed.get(&partition)?;
        match only_for {
            None => Some(BusEvent::Message { partition, frame }),
            Some(wanted) => (wanted == node).then_some(BusEvent::Echo { partition, frame }),
        }
    }

    fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// What is in the queue belongs to the connection that was cut.
    fn drop_queue(&mut self) {
        self.packets = self.shared.bus.subscribe();
    }
}

#[async_trait]
impl Bus for InProcessBus {
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.subscribed.insert(partition.clone(), node);
        self.fresh = true;
    }

    fn unsubscribe(&mut self, partition: &PartitionId, _node: NodeId) {
        self.subscribed.remove(partition);
    }

    fn reconnect(&mut self, _server: ServerId) {}

    fn backlog(&self) -> usize {
        self.packets.len()
    }

    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            let wire = *self.wire.borrow_and_update();
            if wire.cuts != self.cuts {
                self.cuts = wire.cuts;
                self.drop_queue();
                self.fresh = true;
                return Some(BusEvent::Doubt(Doubt::Disconnected));
            }
            if !wire.up {
                self.wire.changed().await.ok()?;
                self.drop_queue();
                continue;
            }
            if self.take_fresh() {
                return Some(BusEvent::Subscribed);
            }
            tokio::select! {
                biased;
                changed = self.wire.changed() => changed.ok()?,
                packet = self.packets.recv() => match packet {
                    Ok(packet) => if let Some(event) = self.event_of(packet) {
                        return Some(event);
                    },
                    Err(broadcast::error::RecvError::Lagged(messages)) => {
                        return Some(BusEvent::Doubt(Doubt::Lagged { messages }));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}
