use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nearfar::backend::{Beat, Bus, BusEvent, L2, L2Error, PurgeCursor, Purged, ServerId, Settings};
use nearfar_core::{
    BeatReply, Change, Claim, ClaimOutcome, Fill, FillOutcome, Holder, Moment, Namespace, NodeId,
    PartitionId, Reading, Renewal, TagMark, Version,
};
use tokio::sync::{Notify, watch};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that a test can stop a node at. Open to begin with.
#[derive(Clone, Debug)]
pub struct Valve {
    open: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

impl Default for Valve {
    fn default() -> Self {
        Self { open: watch::Sender::new(true), held: watch::Sender::new(0) }
    }
}

impl Valve {
    /// Whoever comes from now on waits.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Whoever waits goes on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many wait at the valve, though not for ever.
    pub async fn holds(&self, count: usize) {
        let mut held = self.held.subscribe();
        let arrived = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held == count)).await;
        arrived
            .unwrap_or_else(|_| panic!("{PATIENCE:?} passed and not {count} at the valve"))
            .expect("the valve exists");
    }

    /// How many wait at the valve.
    pub fn waiting(&self) -> usize {
        *self.held.borrow()
    }

    /// Waits while the valve is closed.
    pub async fn pass(&self) {
        if *self.open.borrow() {
            return;
        }
        let held = Held::at(&self.held);
        self.open.subscribe().wait_for(|open| *open).await.expect("the valve exists");
        drop(held);
    }
}

struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn at(held: &'a watch::Sender<usize>) -> Self {
        held.send_modify(|count| *count += 1);
        Self(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The valves of one node.
#[derive(Clone, Debug, Default)]
pub struct Valves {
    /// After L2 has answered a read, before the node has it.
    pub reads: Valve,
    /// Before a fill or a renewal is sent.
    pub fills: Valve,
    /// Before a touch is sent.
    pub touches: Valve,
    /// Before a claim is sent.
    pub claims: Valve,
    /// Before a claim is let go.
    pub releases: Valve,
    /// Before a change is sent.
    pub changes: Valve,
    /// After L2 has answered with a part of the log, before the node has it.
    pub logs: Valve,
    /// Before the node gets the next event of the bus. A bus that reconnects is not held any more.
    pub bus: Valve,
    injected: Arc<Injected>,
    refuse_fills: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct Injected {
    events: Mutex<VecDeque<BusEvent>>,
    came: Notify,
}

impl Valves {
    /// Has the bus deliver this next.
    pub fn inject(&self, event: BusEvent) {
        self.injected.events.lock().expect("no test panics in here").push_back(event);
        self.injected.came.notify_one();
    }

    /// Has every fill fail from now on.
    pub fn refuse_fills(&self) {
        self.refuse_fills.send_replace(true);
    }

    /// With so many partitions, if they are not to be those of the store's own.
    pub(crate) fn wrap(
        &self,
        l2: Arc<dyn L2>,
        bus: Box<dyn Bus>,
        partitions: Option<u16>,
    ) -> (Arc<dyn L2>, Box<dyn Bus>) {
        let valves = self.clone();
        (
            Arc::new(ValvedL2 { valves: valves.clone(), partitions, inner: l2 }),
            Box::new(ValvedBus { valves, inner: bus, taken: None }),
        )
    }
}

#[derive(Debug)]
struct ValvedL2 {
    valves: Valves,
    partitions: Option<u16>,
    inner: Arc<dyn L2>,
}

#[async_trait]
impl L2 for ValvedL2 {
    fn default_partitions(&self) -> u16 {
        self.partitions.unwrap_or_else(|| self.inner.default_partitions())
    }

    fn server_of(&self, partition: &PartitionId) -> ServerId {
        self.inner.server_of(partition)
    }

    async fn open(&self, namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error> {
        self.inner.open(namespace, settings).await
    }

    async fn read_many(&self, partition: &PartitionId, keys: &[Bytes]) -> Result<Reading, L2Error> {
        let reading = self.inner.read_many(partition, keys).await;
        self.valves.reads.pass().await;
        reading
    }

    async fn change(&self, partition: &PartitionId, change: Change) -> Result<Version, L2Error> {
        self.valves.changes.pass().await;
        self.inner.change(partition, change).await
    }

    async fn fill_many(
        &self,
        partition: &PartitionId,
        fills: Vec<Fill>,
    ) -> Result<Vec<FillOutcome>, L2Error> {
        self.valves.fills.pass().await;
        if *self.valves.refuse_fills.borrow() {
            return Err(L2Error::TimedOut);
        }
        self.inner.fill_many(partition, fills).await
    }

    async fn tag_marks(&self, partition: &PartitionId, tags: &[Bytes]) -> Result<Vec<TagMark>, L2Error> {
        self.inner.tag_marks(partition, tags).await
    }

    async fn purge(
        &self,
        partition: &PartitionId,
        from: PurgeCursor,
        fence_window: Duration,
    ) -> Result<Purged, L2Error> {
        self.inner.purge(partition, from, fence_window).await
    }

    async fn renew(&self, partition: &PartitionId, renewal: Renewal) -> Result<FillOutcome, L2Error> {
        self.valves.fills.pass().await;
        self.inner.renew(partition, renewal).await
    }

    async fn touch(
        &self,
        partition: &PartitionId,
        key: &Bytes,
        fence_window: Duration,
    ) -> Result<(), L2Error> {
        self.valves.touches.pass().await;
        self.inner.touch(partition, key, fence_window).await
    }

    async fn claim(&self, partition: &PartitionId, claim: Claim) -> Result<ClaimOutcome, L2Error> {
        self.valves.claims.pass().await;
        self.inner.claim(partition, claim).await
    }

    async fn release(&self, partition: &PartitionId, key: &Bytes, holder: Holder) -> Result<(), L2Error> {
        self.valves.releases.pass().await;
        self.inner.release(partition, key, holder).await
    }

    async fn log(
        &self,
        partition: &PartitionId,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error> {
        let frames = self.inner.log(partition, since, until).await;
        self.valves.logs.pass().await;
        frames
    }

    async fn beat(&self, partition: &PartitionId, beat: &Beat) -> Result<BeatReply, L2Error> {
        self.inner.beat(partition, beat).await
    }

    async fn nodes(&self, partition: &PartitionId) -> Result<Vec<(NodeId, Moment)>, L2Error> {
        self.inner.nodes(partition).await
    }

    async fn leave(&self, partition: &PartitionId, node: NodeId) -> Result<(), L2Error> {
        self.inner.leave(partition, node).await
    }

    fn reconnect(&self, server: ServerId) {
        self.inner.reconnect(server);
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct ValvedBus {
    valves: Valves,
    inner: Box<dyn Bus>,
    /// An event that waits at the valve.
    taken: Option<BusEvent>,
}

impl fmt::Debug for ValvedBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValvedBus").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bus for ValvedBus {
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.inner.subscribe(partition, node);
    }

    fn unsubscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.inner.unsubscribe(partition, node);
    }

    fn reconnect(&mut self, server: ServerId) {
        self.inner.reconnect(server);
        self.valves.bus.open();
    }

    fn backlog(&self) -> usize {
        self.inner.backlog() + usize::from(self.taken.is_some())
    }

    async fn next(&mut self) -> Option<BusEvent> {
        if self.taken.is_none() {
            self.taken = self.take().await;
        }
        // The event is kept while it waits, so that dropping this future loses none.
        self.valves.bus.pass().await;
        self.taken.take()
    }
}

impl ValvedBus {
    async fn take(&mut self) -> Option<BusEvent> {
        loop {
            let injected = self.valves.injected.events.lock().expect("no test panics in here").pop_front();
            if injected.is_some() {
                return injected;
            }
            tokio::select! {
                event = self.inner.next() => return event,
                () = self.valves.injected.came.notified() => {}
            }
        }
    }
}
