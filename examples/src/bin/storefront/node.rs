//! One node of the shop: as a task of this process, or as all that a process does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nearfar::{InProcess, Nearfar};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::clock;
use crate::failure::Failure;
use crate::messages::{Event, Figures, Order, Outcome, Plan, Recording};
use crate::origin::Origin;
use crate::service::Storefront;
use crate::worker::{self, WORKERS_PER_NODE, Worker};

/// Where a node finds L2.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    InProcess(InProcess),
    Redis(String),
}

/// More often than a person is shown anything, so that what is shown is fresh.
const REPORTS: Duration = Duration::from_millis(200);

/// A node's two lines to the conductor.
#[derive(Debug)]
pub(crate) struct Lines {
    orders: UnboundedReceiver<Order>,
    events: UnboundedSender<(u16, Event)>,
}

impl Store {
    pub(crate) async fn connect(&self) -> Result<Nearfar, nearfar::Error> {
        match self {
            Self::InProcess(shared) => Ok(Nearfar::builder().in_process(shared)),
            Self::Redis(url) => Nearfar::connect(url).await,
        }
    }
}

/// Lives a node's life, from opening to the last read.
pub(crate) async fn run(plan: Plan, store: Store, accesses: Arc<[u32]>, mut lines: Lines) {
    if let Err(failure) = live(&plan, &store, accesses, &mut lines).await {
        lines.report(&plan, Event::Failed(failure));
    }
}

async fn live(plan: &Plan, store: &Store, accesses: Arc<[u32]>, lines: &mut Lines) -> Result<(), Failure> {
    let nearfar = store.connect().await.map_err(Failure::settings)?;
    let products = plan.cache.build(&nearfar).await.map_err(Failure::settings)?;
    let origin = Origin::open(&plan.database).map_err(Failure::run)?;
    let shop = Storefront::new(products, origin);
    lines.report(plan, Event::Ready);

    let Some(Order::Start) = lines.orders.recv().await else { return Ok(()) };
    let mut recording = serve(plan, &shop, &accesses, lines).await?;
    lines.report(plan, Event::Finished { figures: figures(&shop), changed: changed(&recording) });

    let Some(Order::Sweep(changed)) = lines.orders.recv().await else { return Ok(()) };
    let (figures, served) = (figures(&shop), recording.reads.len() as u64);
    for product in changed {
        worker::read(&shop, product, &mut recording).await?;
    }
    nearfar.shutdown().await;
    lines.report(plan, Event::Done(Outcome { figures, served, recording }));
    Ok(())
}

/// Serves customers until the plan is done, and tells now and then how far it is.
async fn serve(
    plan: &Plan,
    shop: &Storefront,
    accesses: &Arc<[u32]>,
    lines: &Lines,
) -> Result<Recording, Failure> {
    let mut workers: JoinSet<_> = (0..WORKERS_PER_NODE)
        .map(|number| Worker::new(plan, number, shop.clone(), Arc::clone(accesses)).run())
        .collect();
    let mut ticks = clock::every(REPORTS);
    let mut recording = Recording::default();
    loop {
        tokio::select! {
            worker = workers.join_next() => match worker {
                Some(served) => recording.absorb(served.map_err(Failure::run)??),
                None => return Ok(recording),
            },
            _ = ticks.tick() => lines.report(plan, Event::Progress(figures(shop))),
        }
    }
}

impl Lines {
    pub(crate) fn new(orders: UnboundedReceiver<Order>, events: UnboundedSender<(u16, Event)>) -> Self {
        Self { orders, events }
    }

    pub(crate) fn report(&self, plan: &Plan, event: Event) {
        // A conductor that is gone takes its nodes with it.
        let _ = self.events.send((plan.node, event));
    }
}

fn changed(recording: &Recording) -> Vec<u32> {
    let products: BTreeSet<_> = recording.writes.iter().map(|write| write.product).collect();
    products.into_iter().collect()
}

fn figures(shop: &Storefront) -> Figures {
    let stats = shop.stats();
    Figures {
        l1_hits: stats.l1_hits,
        l2_hits: stats.l2_hits,
        loads: stats.loads,
        joined: stats.joined,
        sent: stats.invalidations_sent,
        received: stats.invalidations_received,
        evictions: stats.evictions,
        doubts: stats.doubts,
        queries: shop.queries(),
        p50: stats.propagation.p50,
        p99: stats.propagation.p99,
        max: stats.propagation.max,
    }
}
