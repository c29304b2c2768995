//! From the call on one node until the other has dropped its copy, beside a bare publish until it is received.

use std::sync::Arc;

use async_trait::async_trait;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use nearfar::backend::{Bus, BusEvent, NodeId, PartitionId, ServerId};
use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Row, Table, Target, micros};
use nearfar_testkit::{RedisServer, Stopwatch};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::rows;
use crate::bare::{backend, client};

const ROUNDS: usize = 9;
const MESSAGES: usize = 500;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let (here, (there, mut applied)) = (rows(server, 1_000).await?, tapped(server).await?);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        for id in 0..MESSAGES as u64 {
            here.set(&id, Row::new(id)).await?;
            applied.recv().await;
            there.get(&id).await?;
        }
        rounds.push((bare(server).await, ours(&here, &mut applied).await?));
    }
    for (name, index, target) in [("p50", MESSAGES / 2, 1.3), ("p99", MESSAGES * 99 / 100, 2.0)] {
        let pairs: Vec<_> = rounds.iter().map(|(bare, ours)| (bare[index], ours[index])).collect();
        let line = table.add(format!("propagation {name}"), "fred publish -> receive", "us", &pairs);
        line.target(Target::AtMost(target));
    }
    assert_eq!(there.stats().doubts, 0, "no message was missed");
    Ok(())
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_by(f64::total_cmp);
    times
}

/// Times in microseconds, sorted.
async fn bare(server: &RedisServer) -> Vec<f64> {
    let (publisher, subscriber) = (client(server).await, client(server).await);
    let mut received = subscriber.message_rx();
    subscriber.subscribe("bare").await.expect("the server is up");
    subscriber.ping::<()>(None).await.expect("the server is up");
    let mut times = Vec::new();
    for _ in 0..MESSAGES {
        let watch = Stopwatch::start();
        let publish = publisher.publish::<(), _, _>("bare", "a key");
        let (_, message) = tokio::join!(publish, async {
            let message = received.recv().await;
            times.push(micros(watch));
            message
        });
        message.expect("the receiver keeps up");
    }
    sorted(times)
}

/// Times in microseconds, sorted.
async fn ours(here: &Cache<u64, Row>, applied: &mut UnboundedReceiver<()>) -> Result<Vec<f64>, Error> {
    let mut times = Vec::new();
    for id in 0..MESSAGES as u64 {
        let watch = Stopwatch::start();
        let (changed, ()) = tokio::join!(here.invalidate(&id), async {
            applied.recv().await;
            times.push(micros(watch));
        });
        changed?;
    }
    Ok(sorted(times))
}

/// A bus that tells when a message has been applied: that is when the node comes for the next event.
#[derive(Debug)]
struct Tapped {
    bus: Box<dyn Bus>,
    delivered: bool,
    applied: UnboundedSender<()>,
}

#[async_trait]
impl Bus for Tapped {
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.bus.subscribe(partition, node);
    }

    fn unsubscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.bus.unsubscribe(partition, node);
    }

    fn reconnect(&mut self, server: ServerId) {
        self.bus.reconnect(server);
    }

    async fn next(&mut self) -> Option<BusEvent> {
        if std::mem::take(&mut self.delivered) {
            // The last measurement is over when nobody listens any more.
            let _ = self.applied.send(());
        }
        let event = self.bus.next().await;
        self.delivered = matches!(event, Some(BusEvent::Message { .. }));
        event
    }
}

/// A node that holds a copy of every row and tells when it has dropped one.
async fn tapped(server: &RedisServer) -> Result<(Cache<u64, Row>, UnboundedReceiver<()>), Error> {
    let (l2, bus) = backend(server).await;
    let (applied, listener) = unbounded_channel();
    let bus = Tapped { bus: Box::new(bus), delivered: false, applied };
    let nearfar = Nearfar::builder().backend(Arc::new(l2), Box::new(bus));
    Ok((nearfar.cache("rows").build().await?, listener))
}
