//! The ways of commands to all servers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::interfaces::ClusterInterface;
use fred::types::Value;
use futures_util::future::join_all;
use nearfar_core::backend::{L2Error, ServerId};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::inspect::Info;
use crate::lane::{Failure, Lane};
use crate::sentinel::Council;
use crate::topology::{Kind, SlotRange, Topology};

/// How often a cluster is asked what it looks like, while all is well: who moves slots does not tell.
const ROUTINE: Duration = Duration::from_secs(5);
/// How often sentinels are asked who the primary is: one that was replaced and cut off may not know it.
const SENTINEL_ROUTINE: Duration = Duration::from_millis(500);
/// How often either is asked while a server is unreachable, and at the most.
const IN_TROUBLE: Duration = Duration::from_millis(200);

/// A lane for each server that has partitions.
pub(crate) struct Lanes {
    pub(crate) topology: Arc<Topology>,
    time_limit: Duration,
    /// `None` once closed.
    open: Mutex<Option<BTreeMap<ServerId, Arc<Lane>>>>,
    /// Speaks when the cluster may look otherwise.
    doubtful: Notify,
    /// Where connections live, whatever thread asks for them.
    runtime: Handle,
}

impl Lanes {
    pub(crate) fn new(
        topology: Arc<Topology>,
        lanes: BTreeMap<ServerId, Arc<Lane>>,
        time_limit: Duration,
    ) -> Self {
        let (open, doubtful) = (Mutex::new(Some(lanes)), Notify::new());
        Self { topology, time_limit, open, doubtful, runtime: Handle::current() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<ServerId, Arc<Lane>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane to a server, which is opened if there is none.
    pub(crate) fn lane(&self, server: ServerId) -> Result<Arc<Lane>, L2Error> {
        let mut lanes = self.lock();
        let lanes = lanes.as_mut().ok_or(L2Error::Closed)?;
        let lane = lanes.entry(server).or_insert_with(|| {
            let _inside = self.runtime.enter();
            Arc::new(Lane::opening(self.topology.server(server), self.time_limit))
        });
        Ok(Arc::clone(lane))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    pub(crate) fn reconnect(&self, server: ServerId) {
        let _inside = self.runtime.enter();
        if let Some(lane) = self.lock().as_ref().and_then(|lanes| lanes.get(&server)) {
            lane.reconnect();
        }
        self.doubtful.notify_one();
    }

    pub(crate) fn close(&self) {
        let lanes = self.lock().take();
        lanes.into_iter().flatten().for_each(|(_, lane)| lane.close());
        self.doubtful.notify_one();
    }

    /// A server has said where the slots of a command are.
    pub(crate) fn redirect(&self, to: SlotRange, asked: &Lane) {
        self.topology.learn(&[to], &asked.server);
        self.doubtful.notify_one();
    }

    /// Something is not where it should be.
    pub(crate) fn doubt(&self) {
        self.doubtful.notify_one();
    }

    /// Keeps the topology up to date until all is closed.
    pub(crate) async fn scout(self: Arc<Self>) {
        let mut pace = tokio::time::interval(IN_TROUBLE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (council, routine) = match self.topology.kind() {
            Kind::Single => return,
            Kind::Cluster => (None, ROUTINE),
            Kind::Sentinel(sentinels) => (Some(Council::new(sentinels, self.time_limit)), SENTINEL_ROUTINE),
        };
        while !self.is_closed() {
            pace.tick().await;
            match &council {
                None => self.look_at_cluster().await,
                Some(council) => self.look_for_primary(council).await,
            }
            let owners = self.topology.owners();
            if owners.into_iter().all(|owner| self.lane(owner).is_ok_and(|lane| lane.is_up())) {
                let _ = tokio::time::timeout(routine, self.doubtful.notified()).await;
            }
        }
    }

    async fn look_for_primary(&self, council: &Council) {
        if let Some((host, port)) = council.ask().await {
            self.topology.promote(&host, port);
            self.close_needless();
        }
    }

    /// Asks all servers that have slots, or while none of them can be reached all that were ever heard of: one alone may be
    /// cut off, or have left the cluster.
    async fn look_at_cluster(&self) {
        let lanes = |servers: Vec<ServerId>| servers.into_iter().filter_map(|server| self.lane(server).ok());
        let mut asked: Vec<_> = lanes(self.topology.owners()).filter(|lane| lane.is_up()).collect();
        if asked.is_empty() {
            asked = lanes(self.topology.servers()).collect();
        }
        let answers = join_all(asked.iter().map(async |lane| {
            let answer = lane.command(async |client| client.cluster_slots::<Value>().await).await.ok()?;
            Some((SlotRange::parse_all(answer), &*lane.server))
        }));
        let answers: Vec<_> =
            answers.await.into_iter().flatten().filter(|(ranges, _)| !ranges.is_empty()).collect();
        if answers.is_empty() {
            return;
        }
        self.topology.learn_from_all(&answers);
        self.look_at_channels(&asked[0]).await;
        self.close_needless();
    }

    /// Which connecting has found out, unless it was degraded.
    async fn look_at_channels(&self, lane: &Lane) {
        if self.topology.knows_channels() {
            return;
        }
        if let Ok(info) = lane.command(async |client| Ok(Info::of(&client).await)).await {
            self.topology.set_sharded(info.has_sharded_channels());
        }
    }

    /// Servers without slots need no connection, unless nothing else is known.
    fn close_needless(&self) {
        let owners = self.topology.owners();
        if let Some(lanes) = self.lock().as_mut() {
            lanes.retain(|server, _| owners.contains(server));
        }
    }
}

/// What a failure means to the caller of an operation, when its partition was asked for where it was said to be.
pub(crate) fn final_error(failure: Failure) -> L2Error {
    match failure {
        // It moves again. Nothing was executed.
        Failure::Moved(_) => L2Error::Unreachable,
        Failure::ReadOnly(cause) => L2Error::Rejected(Arc::new(cause)),
        Failure::L2(error) => error,
    }
}
