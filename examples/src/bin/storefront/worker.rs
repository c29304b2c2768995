//! A node serves some customers at a time; each worker serves one after another.

use std::sync::Arc;

use fastrand::Rng;
use nearfar::Outcome;

use crate::clock;
use crate::failure::Failure;
use crate::messages::{Plan, Recording, Span, Until};
use crate::service::Storefront;

/// Requests that a node serves concurrently.
pub(crate) const WORKERS_PER_NODE: u64 = 8;

#[derive(Debug)]
pub(crate) struct Worker {
    shop: Storefront,
    accesses: Arc<[u32]>,
    /// This worker's next access, of those that all workers share out by turns.
    turn: u64,
    workers: u64,
    until: Until,
    start: u64,
    writes_per_read: f64,
    rng: Rng,
    recording: Recording,
}

impl Worker {
    /// The worker of this number on the node of the plan.
    pub(crate) fn new(plan: &Plan, number: u64, shop: Storefront, accesses: Arc<[u32]>) -> Self {
        let turn = number * u64::from(plan.nodes) + u64::from(plan.node);
        Self {
            shop,
            accesses,
            turn,
            workers: WORKERS_PER_NODE * u64::from(plan.nodes),
            until: plan.until,
            start: clock::micros(),
            writes_per_read: plan.writes_per_read,
            rng: Rng::with_seed(plan.seed ^ (turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            recording: Recording::default(),
        }
    }

    pub(crate) async fn run(mut self) -> Result<Recording, Failure> {
        while let Some(product) = self.next_access() {
            if self.rng.f64() < self.writes_per_read {
                self.write().await?;
            }
            read(&self.shop, product, &mut self.recording).await?;
            // Between two requests a service waits for its socket.
            tokio::task::yield_now().await;
        }
        Ok(self.recording)
    }

    fn next_access(&mut self) -> Option<u32> {
        let goes_on = match self.until {
            Until::Reads(reads) => self.turn < reads,
            Until::Passed(duration) => clock::since(self.start) < duration,
        };
        let access = self.accesses[index(self.turn, self.accesses.len())];
        self.turn += self.workers;
        goes_on.then_some(access)
    }

    /// Popular products change more often than others, which is what makes coherence hard.
    async fn write(&mut self) -> Result<(), Failure> {
        let product = self.accesses[self.rng.usize(..self.accesses.len())];
        let price = self.rng.u32(100..10_000);
        let start = clock::micros();
        let repriced = self.shop.reprice(product, price).await;
        let repriced = repriced.map_err(|error| failed("changing the price of", product, &error))?;
        match repriced.invalidated {
            Ok(Outcome::Applied(_)) => {
                let end = clock::micros();
                self.recording.writes.push(Span { product, revision: repriced.revision, start, end });
            }
            Ok(Outcome::Queued) => self.recording.unacknowledged += 1,
            Err(error) => {
                self.recording.unacknowledged += 1;
                self.recording.refusal = Some(error.to_string());
            }
        }
        Ok(())
    }
}

/// Reads a product as a customer does, and records what it was.
pub(crate) async fn read(shop: &Storefront, product: u32, recording: &mut Recording) -> Result<(), Failure> {
    let start = clock::micros();
    let shown = shop.product(product).await.map_err(|error| failed("reading", product, &error))?;
    let end = clock::micros();
    recording.reads.push(Span { product, revision: shown.revision, start, end });
    Ok(())
}

fn failed(doing: &str, product: u32, error: &dyn std::error::Error) -> Failure {
    Failure::run(format!("{doing} product {product} failed: {error}"))
}

/// Workloads longer than what was recorded repeat it.
fn index(turn: u64, len: usize) -> usize {
    usize::try_from(turn % len as u64).expect("less than a length")
}
