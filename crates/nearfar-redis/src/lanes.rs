//! The ways of commands to all servers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::interfaces::ClusterInterface;
use fred::types::Value;
use nearfar_core::backend::{L2Error, ServerId};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

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

    /// Keeps the topology up to date, for ever.
    pub(crate) async fn scout(self: Arc<Self>) {
        let mut pace = tokio::time::interval(IN_TROUBLE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (council, routine) = match self.topology.kind() {
            Kind::Single => return,
            Kind::Cluster => (None, ROUTINE),
            Kind::Sentinel(sentinels) => (Some(Council::new(sentinels, self.time_limit)), SENTINEL_ROUTINE),
        };
        loop {
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

    /// Asks the servers in turn until one has told of the cluster.
    async fn look_at_cluster(&self) {
        for server in self.topology.servers() {
            let Ok(lane) = self.lane(server) else { return };
            if let Ok(answer) = lane.command(async |client| client.cluster_slots::<Value>().await).await {
                self.topology.learn(&SlotRange::parse_all(answer), &lane.server);
                return self.close_needless();
            }
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
