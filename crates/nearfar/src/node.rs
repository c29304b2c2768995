//! What the caches of one node share.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use nearfar_core::backend::{Bus, L2, ServerId};
use nearfar_core::{
    BeatId, CircuitState, Follower, FollowerOptions, Moment, Namespace, NodeId, PartitionId, RemoteClock,
};
use tokio::sync::oneshot;

use crate::agreement::Agreement;
use crate::clock::Clock;
use crate::courier::Courier;
use crate::error::{ConfigProblem, Error, Operation};
use crate::guarded::Guarded;
use crate::link::{Link, LinkContext, Order};
use crate::member::{Follows, Member, Subscription};
#[cfg(feature = "metrics")]
use crate::metrics::Reporter;
use crate::options::Options;
use crate::outbox::{SharedOutbox, Undelivered};
use crate::trust::TrustReport;
use crate::watched::Caches;

/// One node: its connections and its receive loop. Dropping the last handle ends all of it.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) timeouts: Timeouts,
    /// Whether a cache may be built while L2 cannot be reached.
    pub(crate) start_degraded: bool,
    pub(crate) caches: Arc<Caches>,
    l2: Arc<Guarded>,
    link: Link,
    #[cfg(feature = "metrics")]
    pub(crate) reporter: Reporter,
    closed: AtomicBool,
    /// What the receive loop has left undone, once it has ended.
    left: Arc<Mutex<Vec<Undelivered>>>,
    /// Guards the names of the caches that exist: two of one name would have two truths in one process.
    names: Mutex<HashMap<Namespace, Named>>,
    /// Guards the list alone; each outbox lives as long as somebody fills or empties it.
    outboxes: Mutex<HashMap<PartitionId, Weak<SharedOutbox>>>,
}

/// A cache that exists, or is being built.
struct Named {
    /// What it asks for.
    options: Options,
    /// Its first partition, once that follows the bus.
    first: Option<Weak<dyn Follows>>,
}

/// How long a node waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) command: Duration,
}

impl Node {
    pub(crate) fn start(
        (l2, bus): (Arc<dyn L2>, Box<dyn Bus>),
        clock: Clock,
        timeouts: Timeouts,
        start_degraded: bool,
    ) -> Arc<Self> {
        let id = NodeId::new(fastrand::u64(..));
        let left = Arc::default();
        let caches = Arc::<Caches>::default();
        let l2 = Arc::new(Guarded::new(l2, clock, Arc::clone(&caches)));
        #[cfg(feature = "metrics")]
        let reporter = Reporter::start(Arc::clone(&caches), Arc::clone(&l2), clock);
        let context = LinkContext {
            node: id,
            l2: Arc::clone(&l2) as Arc<dyn L2>,
            clock,
            patience: patience(timeouts),
            command_timeout: timeouts.command,
            left: Arc::clone(&left),
        };
        let link = Link::start(bus, context);
        let (closed, names, outboxes) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        Arc::new(Self {
            id,
            clock,
            timeouts,
            start_degraded,
            caches,
            l2,
            link,
            #[cfg(feature = "metrics")]
            reporter,
            closed,
            left,
            names,
            outboxes,
        })
    }

    /// The store, unless the node was shut down.
    pub(crate) fn l2(&self) -> Result<&dyn L2, Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(&*self.l2) }
    }

    /// The store, for whoever has made sure of [`l2`](Self::l2) before each use.
    pub(crate) fn store(&self) -> Arc<dyn L2> {
        Arc::clone(&self.l2) as Arc<dyn L2>
    }

    pub(crate) fn circuits(&self) -> Vec<(ServerId, CircuitState)> {
        self.l2.states()
    }

    pub(crate) fn default_partitions(&self) -> u16 {
        self.l2.default_partitions()
    }

    /// Reserves a name until the returned claim is dropped.
    pub(crate) fn claim_name(
        self: &Arc<Self>,
        namespace: &Namespace,
        options: &Options,
    ) -> Result<NameClaim, Error> {
        let mut names = self.names();
        match names.entry(namespace.clone()) {
            Entry::Vacant(free) => free.insert(Named { options: *options, first: None }),
            Entry::Occupied(_) => {
                let namespace = namespace.to_string();
                return Err(Error::config(ConfigProblem::NamespaceInUse { namespace }));
            }
        };
        Ok(NameClaim { node: Arc::clone(self), namespace: namespace.clone() })
    }

    /// Has a cache's partition follow the bus. The receiver hears when its subscription is proved, or that it is refused.
    pub(crate) fn attach(
        &self,
        partition: PartitionId,
        options: &Options,
        held: Arc<dyn Follows>,
        agreement: Arc<Agreement>,
    ) -> oneshot::Receiver<Subscription> {
        if partition.index() == 0
            && let Some(named) = self.names().get_mut(partition.namespace())
        {
            named.first = Some(Arc::downgrade(&held));
        }
        // Beats are numbered on from the time: those of an earlier cache of the same name are not taken for its own.
        let first_beat = BeatId::new(self.clock.now().micros());
        let follower = Follower::new(FollowerOptions { max_staleness: options.max_staleness }, first_beat);
        let (proved, proof) = oneshot::channel();
        let fence_window = options.fence_window;
        let courier = Courier { partition: partition.clone(), held, agreement, fence_window };
        let trust = TrustReport::new(options.max_staleness, self.clock.now());
        let member = Member::new(follower, courier, proved, (patience(self.timeouts), trust));
        self.link.order(Order::Attach { partition, member: Box::new(member) });
        proof
    }

    /// The namespaces of the caches that exist, with the settings that each asks for.
    pub(crate) fn namespaces(&self) -> HashMap<Namespace, Options> {
        self.names().iter().map(|(namespace, named)| (namespace.clone(), named.options)).collect()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Namespace, Named>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live nodes of all caches of this node, and how long ago each was heard of.
    pub(crate) async fn live_nodes(&self) -> Result<Vec<LiveNode>, Error> {
        let l2 = self.l2()?;
        // A node beats in every partition of its caches.
        let first = |(namespace, named): (&Namespace, &Named)| {
            (PartitionId::new(namespace.clone(), 0), named.first.clone())
        };
        let firsts: Vec<_> = self.names().iter().map(first).collect();
        let listed = firsts.into_iter().map(async |(partition, held)| {
            let nodes = l2.nodes(&partition).await?;
            let now = self.time_at(held.as_ref());
            Ok(nodes.into_iter().map(move |(id, seen)| (id, now.since(seen))))
        });
        let listed = try_join_all(listed).await.map_err(|cause| Error::l2(Operation::Nodes, cause))?;
        let mut silences = BTreeMap::new();
        for (id, silent_for) in listed.into_iter().flatten() {
            let shortest = silences.entry(id).or_insert(silent_for);
            *shortest = silent_for.min(*shortest);
        }
        let live = |(id, silent_for)| LiveNode { id, silent_for, is_this_one: id == self.id };
        Ok(silences.into_iter().map(live).collect())
    }

    /// What the clock of a partition's server says by now, which is not that of another's.
    fn time_at(&self, held: Option<&Weak<dyn Follows>>) -> Moment {
        let held = held.and_then(Weak::upgrade);
        held.and_then(|held| held.remote().latest(self.clock.now())).unwrap_or_default()
    }

    /// The outbox of a partition. An earlier cache of that name may have left something in it: what this node knows to
    /// be wrong in L2 is wrong for the next one too.
    pub(crate) fn outbox(&self, partition: &PartitionId) -> Arc<SharedOutbox> {
        let mut outboxes = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        outboxes.retain(|_, outbox| outbox.strong_count() > 0);
        if let Some(outbox) = outboxes.get(partition).and_then(Weak::upgrade) {
            return outbox;
        }
        let outbox = Arc::new(SharedOutbox::new(self.link.orders()));
        outboxes.insert(partition.clone(), Arc::downgrade(&outbox));
        outbox
    }

    pub(crate) async fn shut_down(&self) -> Vec<Undelivered> {
        self.closed.store(true, Ordering::Release);
        let (done, finished) = oneshot::channel();
        self.link.order(Order::Shutdown { done });
        // An error means that the loop has ended before.
        let _ = finished.await;
        #[cfg(feature = "metrics")]
        self.reporter.report();
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A node that shares a namespace with this one; see [`Nearfar::nodes`](crate::Nearfar::nodes).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// let nearfar = nearfar::Nearfar::in_process();
/// let _names = nearfar.cache::<u64, String>("names").build().await?;
/// let nodes = nearfar.nodes().await?;
/// assert!(nodes[0].is_this_one && nodes[0].silent_for.as_secs() < 60);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveNode {
    /// Its id, drawn at random when it started.
    pub id: NodeId,
    /// How long ago it was heard of last, by L2's clock.
    pub silent_for: Duration,
    /// Whether it is the node that was asked.
    pub is_this_one: bool,
}

/// When a server is to refuse a change that begins now and may take so long: its caller will have given up by then (race
/// R11). `None` while nothing is known of the server's clock.
pub(crate) fn deadline(remote: &RemoteClock, now: Moment, limit: Duration) -> Option<Moment> {
    Some(remote.earliest(now)? + limit)
}

/// How long a beat may go unanswered: its command's time, and time for another try.
fn patience(timeouts: Timeouts) -> Duration {
    timeouts.command.saturating_add(Duration::from_secs(2))
}

/// The right to a namespace on a node, held by the cache of that name.
pub(crate) struct NameClaim {
    pub(crate) node: Arc<Node>,
    pub(crate) namespace: Namespace,
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        self.node.link.order(Order::Detach { namespace: self.namespace.clone() });
        self.node.names().remove(&self.namespace);
    }
}
