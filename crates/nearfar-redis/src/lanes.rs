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
use crate::topology::{SlotRange, Topology};

/// How often the cluster is asked what it looks like, while all is well: who moved slots does not tell.
const ROUTINE: Duration = Duration::from_secs(5);
/// How often while one of its servers is unreachable, and at the most.
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

    /// Keeps the picture of the cluster up to date, for ever.
    pub(crate) async fn scout(self: Arc<Self>) {
        let mut pace = tokio::time::interval(IN_TROUBLE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            if self.look().await {
                let _ = tokio::time::timeout(ROUTINE, self.doubtful.notified()).await;
            }
        }
    }

    /// Asks the servers in turn until one has told of the cluster. Whether all servers that have slots are reachable.
    async fn look(&self) -> bool {
        for server in self.topology.servers() {
            let Ok(lane) = self.lane(server) else { return true };
            if let Ok(answer) = lane.command(async |client| client.cluster_slots::<Value>().await).await {
                self.topology.learn(&SlotRange::parse_all(answer), &lane.server);
                self.close_needless();
                break;
            }
        }
        self.topology.owners().into_iter().all(|owner| self.lane(owner).is_ok_and(|lane| lane.is_up()))
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
        Failure::L2(error) => error,
    }
}
