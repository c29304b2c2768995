//! All nodes, whatever they live in.

use std::sync::Arc;

use nearfar::InProcess;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::child::NodeProcess;
use crate::failure::Failure;
use crate::messages::{Event, Order, Plan};
use crate::node::{self, Lines, Store};

/// The nodes of a run. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Fleet {
    orders: Vec<UnboundedSender<Order>>,
    events: UnboundedReceiver<(u16, Event)>,
    tasks: JoinSet<()>,
    processes: Vec<NodeProcess>,
}

impl Fleet {
    /// Starts the nodes as tasks, on a store in process.
    pub(crate) fn of_tasks(plans: Vec<Plan>, accesses: &Arc<[u32]>) -> Self {
        let (sender, events) = unbounded_channel();
        let store = InProcess::new();
        let mut fleet = Self::new(events);
        for plan in plans {
            let lines = Lines::new(fleet.line(), sender.clone());
            fleet.tasks.spawn(node::run(plan, Store::InProcess(store.clone()), Arc::clone(accesses), lines));
        }
        fleet
    }

    /// Starts the nodes as processes, on a Redis.
    pub(crate) fn of_processes(plans: Vec<Plan>, url: &str) -> Result<Self, Failure> {
        let (sender, events) = unbounded_channel();
        let mut fleet = Self::new(events);
        for plan in plans {
            let orders = fleet.line();
            let process = NodeProcess::spawn(plan, url.to_owned(), orders, sender.clone());
            fleet.processes.push(process.map_err(Failure::run)?);
        }
        Ok(fleet)
    }

    fn new(events: UnboundedReceiver<(u16, Event)>) -> Self {
        Self { orders: Vec::new(), events, tasks: JoinSet::new(), processes: Vec::new() }
    }

    fn line(&mut self) -> UnboundedReceiver<Order> {
        let (sender, orders) = unbounded_channel();
        self.orders.push(sender);
        orders
    }

    pub(crate) fn len(&self) -> usize {
        self.orders.len()
    }

    /// The process of each node, if it has one of its own.
    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.processes.iter().map(NodeProcess::id).collect()
    }

    /// Tells all nodes.
    pub(crate) fn order(&self, order: &Order) {
        for node in &self.orders {
            // A node that is gone reports it itself.
            let _ = node.send(order.clone());
        }
    }

    /// The next event of any node. A node's failure is that of the run.
    pub(crate) async fn event(&mut self) -> Result<(u16, Event), Failure> {
        let (node, event) = tokio::select! {
            Some(event) = self.events.recv() => event,
            Some(Err(panic)) = self.tasks.join_next() => return Err(Failure::run(panic)),
            else => return Err(Failure::run("all nodes ended before their work was done")),
        };
        match event {
            Event::Failed(Failure::Run(why)) => Err(Failure::Run(format!("node {}: {why}", node + 1))),
            Event::Failed(failure) => Err(failure),
            event => Ok((node, event)),
        }
    }
}
