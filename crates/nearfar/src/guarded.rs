//! L2 behind a circuit breaker for each of its servers.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nearfar_core::backend::{Beat, ForeignWrites, L2, L2Error, PurgeCursor, Purged, ServerId, Settings};
use nearfar_core::{
    BeatReply, Breaker, Change, CircuitState, Claim, ClaimOutcome, Fill, FillOutcome, Holder, Moment,
    Namespace, NodeId, PartitionId, Reading, Renewal, TagMark, Version,
};

use crate::clock::Clock;
use crate::event::Event;
use crate::log;
use crate::watched::Caches;

/// Beats always go through: their answers close the breaker as soon as the server is back.
#[derive(Debug)]
pub(crate) struct Guarded {
    l2: Arc<dyn L2>,
    clock: Clock,
    /// Few servers are ever heard of, so none is forgotten.
    breakers: RwLock<BTreeMap<ServerId, Arc<Circuit>>>,
    /// Who is told of them.
    caches: Arc<Caches>,
}

/// A server's breaker.
#[derive(Debug)]
struct Circuit {
    server: ServerId,
    breaker: Breaker,
    /// Whether it was told to be open last.
    is_told_open: AtomicBool,
}

impl Circuit {
    fn new(server: ServerId) -> Self {
        Self { server, breaker: Breaker::default(), is_told_open: AtomicBool::new(false) }
    }

    fn failed(&self, began: Moment, now: Moment, caches: &Caches) {
        self.breaker.failed(began, now);
        let is_open = self.breaker.state(now) != CircuitState::Closed;
        if is_open && !self.is_told_open.swap(true, Ordering::AcqRel) {
            let server = self.server;
            tracing::warn!(target: log::SERVER, server = server.number(), "its circuit has opened");
            caches.tell(&Event::CircuitOpened { server });
        }
    }

    fn answered(&self, now: Moment, caches: &Caches) {
        self.breaker.answered(now);
        if self.is_told_open.load(Ordering::Acquire) && self.is_told_open.swap(false, Ordering::AcqRel) {
            let server = self.server;
            tracing::info!(target: log::SERVER, server = server.number(), "its circuit has closed");
            caches.tell(&Event::CircuitClosed { server });
        }
    }
}

impl Guarded {
    pub(crate) fn new(l2: Arc<dyn L2>, clock: Clock, caches: Arc<Caches>) -> Self {
        Self { l2, clock, breakers: RwLock::default(), caches }
    }

    pub(crate) fn states(&self) -> Vec<(ServerId, CircuitState)> {
        let now = self.clock.now();
        let breakers = self.breakers.read().unwrap_or_else(PoisonError::into_inner);
        breakers.iter().map(|(server, circuit)| (*server, circuit.breaker.state(now))).collect()
    }

    fn circuit(&self, partition: &PartitionId) -> Arc<Circuit> {
        let server = self.l2.server_of(partition);
        let known = self.breakers.read().unwrap_or_else(PoisonError::into_inner).get(&server).cloned();
        known.unwrap_or_else(|| {
            let mut breakers = self.breakers.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(breakers.entry(server).or_insert_with(|| Arc::new(Circuit::new(server))))
        })
    }

    async fn guard<T>(
        &self,
        partition: &PartitionId,
        operation: impl Future<Output = Result<T, L2Error>> + Send,
    ) -> Result<T, L2Error> {
        let circuit = self.circuit(partition);
        let now = self.clock.now();
        if !circuit.breaker.admits(now) {
            return Err(L2Error::Unreachable);
        }
        self.observed(&circuit, now, operation).await
    }

    async fn observed<T>(
        &self,
        circuit: &Circuit,
        began: Moment,
        operation: impl Future<Output = Result<T, L2Error>> + Send,
    ) -> Result<T, L2Error> {
        let outcome = operation.await;
        let now = self.clock.now();
        match &outcome {
            // Nothing was sent, and it took no time.
            Err(L2Error::Unreachable | L2Error::Closed) => {}
            Err(cause) if cause.is_absence() => circuit.failed(began, now, &self.caches),
            Ok(_) | Err(_) => circuit.answered(now, &self.caches),
        }
        outcome
    }
}

#[async_trait]
impl L2 for Guarded {
    fn default_partitions(&self) -> u16 {
        self.l2.default_partitions()
    }

    fn server_of(&self, partition: &PartitionId) -> ServerId {
        self.l2.server_of(partition)
    }

    /// Of no partition, so nobody knows by which server.
    async fn open(&self, namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error> {
        self.l2.open(namespace, settings).await
    }

    async fn read_many(&self, partition: &PartitionId, keys: &[Bytes]) -> Result<Reading, L2Error> {
        self.guard(partition, self.l2.read_many(partition, keys)).await
    }

    async fn change(&self, partition: &PartitionId, change: Change) -> Result<Version, L2Error> {
        self.guard(partition, self.l2.change(partition, change)).await
    }

    async fn fill_many(
        &self,
        partition: &PartitionId,
        fills: Vec<Fill>,
    ) -> Result<Vec<FillOutcome>, L2Error> {
        self.guard(partition, self.l2.fill_many(partition, fills)).await
    }

    async fn tag_marks(&self, partition: &PartitionId, tags: &[Bytes]) -> Result<Vec<TagMark>, L2Error> {
        self.guard(partition, self.l2.tag_marks(partition, tags)).await
    }

    async fn purge(
        &self,
        partition: &PartitionId,
        from: PurgeCursor,
        fence_window: Duration,
    ) -> Result<Purged, L2Error> {
        self.guard(partition, self.l2.purge(partition, from, fence_window)).await
    }

    async fn renew(&self, partition: &PartitionId, renewal: Renewal) -> Result<FillOutcome, L2Error> {
        self.guard(partition, self.l2.renew(partition, renewal)).await
    }

    async fn touch(
        &self,
        partition: &PartitionId,
        key: &Bytes,
        fence_window: Duration,
    ) -> Result<(), L2Error> {
        self.guard(partition, self.l2.touch(partition, key, fence_window)).await
    }

    async fn claim(&self, partition: &PartitionId, claim: Claim) -> Result<ClaimOutcome, L2Error> {
        self.guard(partition, self.l2.claim(partition, claim)).await
    }

    async fn release(&self, partition: &PartitionId, key: &Bytes, holder: Holder) -> Result<(), L2Error> {
        self.guard(partition, self.l2.release(partition, key, holder)).await
    }

    async fn log(
        &self,
        partition: &PartitionId,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error> {
        self.l2.log(partition, since, until).await
    }

    async fn beat(&self, partition: &PartitionId, beat: &Beat) -> Result<BeatReply, L2Error> {
        let began = self.clock.now();
        self.observed(&self.circuit(partition), began, self.l2.beat(partition, beat)).await
    }

    async fn nodes(&self, partition: &PartitionId) -> Result<Vec<(NodeId, Moment)>, L2Error> {
        self.l2.nodes(partition).await
    }

    async fn leave(&self, partition: &PartitionId, node: NodeId) -> Result<(), L2Error> {
        self.l2.leave(partition, node).await
    }

    fn reconnect(&self, server: ServerId) {
        self.l2.reconnect(server);
    }

    async fn close(&self) {
        self.l2.close().await;
    }

    fn foreign_writes(&self, partitions: &[PartitionId], spread: u64) -> Option<Box<dyn ForeignWrites>> {
        self.l2.foreign_writes(partitions, spread)
    }
}
