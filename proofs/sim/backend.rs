//! What a node has of the network: an [`L2`] and a [`Bus`] of its own.

use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nearfar::backend::{Beat, Bus, BusEvent, L2, L2Error, PurgeCursor, Purged, ServerId, Settings};
use nearfar_core::{
    BeatReply, Change, Claim, ClaimOutcome, Fill, FillOutcome, Holder, Moment, Namespace, NodeId,
    PartitionId, Reading, Renewal, TagMark, Version,
};
use tokio::sync::oneshot;

use crate::clock::sleep;
use crate::network::{Line, Which};
use crate::station::Heard;
use crate::world::{Id, State, World};

/// A way to the server. Commands overtake each other on it, more than those of one connection would.
pub(crate) struct SimL2 {
    pub(crate) world: Arc<World>,
    pub(crate) id: Id,
}

impl fmt::Debug for SimL2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimL2").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SimL2 {
    /// Has the server take a step. The step may be taken though the caller never hears of it, and after it has gone.
    async fn ask<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut State) -> Result<T, L2Error> + Send + 'static,
    ) -> Result<T, L2Error> {
        let (world, id) = (&self.world, self.id);
        let Some(line) = world.lock().line(id) else { return Err(L2Error::Unreachable) };
        let (answer, answered) = oneshot::channel();
        tokio::spawn(travel(Arc::clone(world), id, line, step, answer));
        let outcome = tokio::select! {
            biased;
            outcome = received(answered) => outcome,
            () = self.notices_cut(line) => {
                Err(L2Error::ConnectionLost(Arc::new(std::io::Error::other("cut"))))
            }
            () = self.time_out() => Err(L2Error::TimedOut),
        };
        world.awake(id).await;
        outcome
    }

    /// Some operations keep the connection that was replaced under them until they end.
    async fn notices_cut(&self, line: Line) {
        let id = self.id;
        let lingers = |state: &mut State| state.is_cut(id, line).then(|| state.chance(40));
        if self.world.until(id, lingers).await {
            pending::<()>().await;
        }
    }

    /// A process that stands still does not see its timers.
    async fn time_out(&self) {
        sleep(self.world.plan.command_timeout).await;
        self.world.awake(self.id).await;
        self.world.doze(0..=1).await;
    }
}

/// An answer that is lost is no answer.
async fn received<T>(answered: oneshot::Receiver<Result<T, L2Error>>) -> Result<T, L2Error> {
    match answered.await {
        Ok(outcome) => outcome,
        Err(_) => pending().await,
    }
}

/// The way of a command to the server and back.
async fn travel<T>(
    world: Arc<World>,
    id: Id,
    line: Line,
    step: impl FnOnce(&mut State) -> Result<T, L2Error>,
    answer: oneshot::Sender<Result<T, L2Error>>,
) {
    world.awake(id).await;
    let (there, back) = {
        let mut state = world.lock();
        (state.way(id), state.way(id))
    };
    sleep(there).await;
    let arrived = world.until(id, |state| state.gets_there(id, line)).await;
    if !arrived || !world.until(id, |state| state.is_taken(line)).await {
        world.lock().count("commands lost");
        return;
    }
    let outcome = step(&mut world.lock());
    sleep(back).await;
    if world.until(id, |state| state.gets_back(id, line)).await {
        if world.lock().is_cut(id, line) {
            // What came before the cut may be read late.
            world.doze(0..=100).await;
        }
        // Nobody may be waiting any more.
        let _ = answer.send(outcome);
    } else {
        world.lock().count("replies lost");
    }
}

#[async_trait]
impl L2 for SimL2 {
    fn default_partitions(&self) -> u16 {
        self.world.plan.partitions
    }

    async fn open(&self, _namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error> {
        let settings = *settings;
        self.ask(move |state| Ok(*state.server.settings.get_or_insert(settings))).await
    }

    async fn read_many(&self, partition: &PartitionId, keys: &[Bytes]) -> Result<Reading, L2Error> {
        let (index, keys) = (partition.index(), keys.to_vec());
        self.ask(move |state| {
            let time = state.server.time(index, state.now());
            Ok(state.server.partition(index).read_many(time, &keys))
        })
        .await
    }

    async fn change(&self, partition: &PartitionId, change: Change) -> Result<Version, L2Error> {
        let index = partition.index();
        self.ask(move |state| state.change(index, &change)).await
    }

    async fn fill_many(
        &self,
        partition: &PartitionId,
        fills: Vec<Fill>,
    ) -> Result<Vec<FillOutcome>, L2Error> {
        let index = partition.index();
        self.ask(move |state| Ok(state.fill_many(index, &fills))).await
    }

    async fn tag_marks(&self, partition: &PartitionId, tags: &[Bytes]) -> Result<Vec<TagMark>, L2Error> {
        let (index, tags) = (partition.index(), tags.to_vec());
        self.ask(move |state| Ok(state.server.partition(index).tag_marks(&tags))).await
    }

    async fn purge(
        &self,
        partition: &PartitionId,
        _from: PurgeCursor,
        fence_window: Duration,
    ) -> Result<Purged, L2Error> {
        let index = partition.index();
        self.ask(move |state| Ok(state.purge(index, fence_window))).await
    }

    async fn renew(&self, partition: &PartitionId, renewal: Renewal) -> Result<FillOutcome, L2Error> {
        let index = partition.index();
        self.ask(move |state| Ok(state.renew(index, &renewal))).await
    }

    async fn touch(
        &self,
        partition: &PartitionId,
        key: &Bytes,
        fence_window: Duration,
    ) -> Result<(), L2Error> {
        let (index, key) = (partition.index(), key.clone());
        self.ask(move |state| {
            state.touch(index, &key, fence_window);
            Ok(())
        })
        .await
    }

    async fn claim(&self, partition: &PartitionId, claim: Claim) -> Result<ClaimOutcome, L2Error> {
        let index = partition.index();
        self.ask(move |state| Ok(state.claim(index, &claim))).await
    }

    async fn release(&self, partition: &PartitionId, key: &Bytes, holder: Holder) -> Result<(), L2Error> {
        let (partition, key) = (partition.clone(), key.clone());
        self.ask(move |state| {
            state.release(&partition, &key, holder);
            Ok(())
        })
        .await
    }

    async fn log(
        &self,
        partition: &PartitionId,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error> {
        let index = partition.index();
        self.ask(move |state| Ok(state.server.partition(index).log(since, until).cloned().collect())).await
    }

    async fn beat(&self, partition: &PartitionId, beat: &Beat) -> Result<BeatReply, L2Error> {
        let (partition, beat) = (partition.clone(), *beat);
        self.ask(move |state| Ok(state.beat(&partition, &beat))).await
    }

    async fn nodes(&self, partition: &PartitionId) -> Result<Vec<(NodeId, Moment)>, L2Error> {
        let index = partition.index();
        self.ask(move |state| Ok(state.server.partition(index).nodes().collect())).await
    }

    async fn leave(&self, partition: &PartitionId, node: NodeId) -> Result<(), L2Error> {
        let index = partition.index();
        self.ask(move |state| {
            state.server.partition(index).leave(node);
            Ok(())
        })
        .await
    }

    fn reconnect(&self, _server: ServerId) {
        self.world.cut(self.id, Which::Commands);
    }

    async fn close(&self) {}
}

/// A subscription.
pub(crate) struct SimBus {
    pub(crate) world: Arc<World>,
    pub(crate) id: Id,
}

impl fmt::Debug for SimBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBus").field("id", &self.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bus for SimBus {
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.world.lock().stations[self.id].wanted.insert(partition.clone(), node);
        self.world.subscribe(self.id);
    }

    fn unsubscribe(&mut self, partition: &PartitionId, _node: NodeId) {
        let station = &mut self.world.lock().stations[self.id];
        station.wanted.remove(partition);
        station.registered.remove(partition);
    }

    fn reconnect(&mut self, _server: ServerId) {
        let id = self.id;
        let mut state = self.world.lock();
        state.count("links replaced by the watchdog");
        state.note(|| format!("node {id} replaces its links"));
        drop(state);
        self.world.cut(id, Which::Subscriber);
    }

    async fn next(&mut self) -> Option<BusEvent> {
        let changed = Arc::clone(&self.world.lock().stations[self.id].changed);
        loop {
            let mut notified = pin!(changed.notified());
            notified.as_mut().enable();
            let now = self.world.now();
            let heard = self.world.lock().hear(self.id);
            match heard {
                Heard::Event(event) => return Some(event),
                Heard::Nothing => notified.await,
                Heard::Later(arrival) => wait(notified, arrival.saturating_sub(now)).await,
            }
        }
    }
}

async fn wait(notified: impl Future<Output = ()>, pause: Duration) {
    tokio::select! {
        biased;
        () = notified => {}
        () = sleep(pause) => {}
    }
}
