//! A node as a process of its own: standard input brings the plan and the orders, standard output takes the events.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::failure::Failure;
use crate::messages::{self, Event, Order, Plan};
use crate::node::{self, Lines, Store};

/// A node process, as the conductor holds it. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    id: u32,
    /// Guards the right to kill, and to wait for, the process.
    child: Arc<Mutex<Child>>,
}

impl NodeProcess {
    /// Starts this very program as a node.
    pub(crate) fn spawn(
        plan: Plan,
        url: String,
        orders: UnboundedReceiver<Order>,
        events: UnboundedSender<(u16, Event)>,
    ) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--as-node")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the conductor, which ends its nodes itself.
            .process_group(0)
            .spawn()?;
        let id = child.id();
        let input = child.stdin.take().expect("it is a pipe");
        let output = child.stdout.take().expect("it is a pipe");
        let child = Arc::new(Mutex::new(child));
        let (node, held) = (plan.node, Arc::clone(&child));
        thread::spawn(move || tell(input, &(plan, url), orders));
        thread::spawn(move || hear(output, node, &held, &events));
        Ok(Self { id, child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // Fails where the process has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Passes orders on to a node. One that has ended cannot be told anything; `hear` notices.
fn tell(mut input: ChildStdin, plan: &(Plan, String), mut orders: UnboundedReceiver<Order>) {
    let mut told = messages::send(&mut input, plan);
    while let (Ok(()), Some(order)) = (&told, orders.blocking_recv()) {
        told = messages::send(&mut input, &order);
    }
}

/// Passes the events of a node on, up to its last, or to its unexpected end.
fn hear(mut output: ChildStdout, node: u16, child: &Mutex<Child>, events: &UnboundedSender<(u16, Event)>) {
    loop {
        let event = messages::receive(&mut output).unwrap_or_else(|_| Event::Failed(lost(child)));
        let last = matches!(event, Event::Done(_) | Event::Failed(_));
        if events.send((node, event)).is_err() || last {
            return;
        }
    }
}

fn lost(child: &Mutex<Child>) -> Failure {
    let mut child = lock(child);
    let id = child.id();
    match child.wait() {
        Ok(status) => Failure::run(format!("process {id} ended before its work was done ({status})")),
        Err(error) => Failure::run(format!("process {id} was lost: {error}")),
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The `main` of a node process. What goes wrong later is an event.
pub(crate) fn main() -> ExitCode {
    // Not in the `match`, which would keep the lock that `listen` needs.
    let first = messages::receive(&mut io::stdin().lock());
    match first {
        Ok((plan, url)) => {
            live(plan, url);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("storefront: only another storefront can use --as-node: {error}");
            ExitCode::from(2)
        }
    }
}

fn live(plan: Plan, url: String) {
    let (sender, orders) = unbounded_channel();
    let (events, reports) = unbounded_channel();
    thread::spawn(move || listen(&sender));
    let reporter = thread::spawn(move || report(reports));
    play(plan, url, Lines::new(orders, events));
    // The last event is out before the process ends; if that fails, nobody wants it any more.
    let _ = reporter.join();
}

#[tokio::main]
async fn play(plan: Plan, url: String, lines: Lines) {
    match plan.accesses.load() {
        Ok(accesses) => node::run(plan, Store::Redis(url), accesses, lines).await,
        Err(failure) => lines.report(&plan, Event::Failed(failure)),
    }
}

fn listen(orders: &UnboundedSender<Order>) {
    let mut input = io::stdin().lock();
    while let Ok(order) = messages::receive(&mut input) {
        if orders.send(order).is_err() {
            return;
        }
    }
    // The conductor has ended, however it did. A node on its own is of no use.
    std::process::exit(1);
}

fn report(mut reports: UnboundedReceiver<(u16, Event)>) {
    let mut output = io::stdout().lock();
    while let Some((_, event)) = reports.blocking_recv() {
        if messages::send(&mut output, &event).is_err() {
            return;
        }
    }
}
