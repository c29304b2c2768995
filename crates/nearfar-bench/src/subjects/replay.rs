//! From a new subscription until trust, when thousands of messages were missed, beside a bare fetch of the same log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::StreamsInterface;
use futures_util::future::join_all;
use nearfar::backend::{Bus, BusEvent, Doubt, NodeId, PartitionId, ServerId};
use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Row, Table, micros};
use nearfar_testkit::{RedisServer, Stopwatch};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::rows;
use crate::bare::{backend, client};

const ROUNDS: usize = 9;
const MISSED: u64 = 9_000;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let (here, bare) = (rows(server, 1).await?, client(server).await);
    let mut node = Node::start(server).await?;
    // The first subscription has nothing to replay.
    let forgotten = node.cache.stats().resyncs;
    let mut pairs = Vec::new();
    for round in 1..=ROUNDS as u64 {
        // It has copies to drop.
        write_all(&here).await?;
        node.read_all().await?;
        node.ear.deaf.store(true, Ordering::SeqCst);
        write_all(&here).await?;
        pairs.push((fetch(&bare).await, node.hear_again().await));
        let stats = node.cache.stats();
        assert_eq!(
            (stats.replayed, stats.resyncs),
            (round * MISSED, forgotten),
            "all was replayed, nothing forgotten"
        );
    }
    table.add("replay of 9,000 messages", "fred XRANGE", "us/msg", &pairs);
    Ok(())
}

async fn write_all(cache: &Cache<u64, Row>) -> Result<(), Error> {
    let write = async |task: u64| {
        for id in (task..MISSED).step_by(64) {
            cache.set(&id, Row::new(id)).await?;
        }
        Ok::<(), Error>(())
    };
    join_all((0..64).map(write)).await.into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_message(watch: Stopwatch) -> f64 {
    micros(watch) / MISSED as f64
}

async fn fetch(client: &Client) -> f64 {
    type Entry = (String, HashMap<String, Bytes>);
    let watch = Stopwatch::start();
    let newest = client.xrevrange_values("{rows.0}#log", "+", "-", Some(MISSED));
    let entries: Vec<Entry> = newest.await.expect("the server is up");
    assert_eq!(entries.len() as u64, MISSED);
    per_message(watch)
}

/// What the node's bus and the measurement share.
#[derive(Debug, Default)]
struct Ear {
    deaf: AtomicBool,
    opened: Notify,
}

/// A node that can be made deaf.
struct Node {
    cache: Cache<u64, Row>,
    ear: Arc<Ear>,
    /// Each turn of its receive loop.
    turns: UnboundedReceiver<()>,
}

impl Node {
    async fn start(server: &RedisServer) -> Result<Self, Error> {
        let (l2, bus) = backend(server).await;
        let (ear, (turned, turns)) = (Arc::<Ear>::default(), unbounded_channel());
        let bus = Deafened { bus: Box::new(bus), ear: Arc::clone(&ear), subscribed: false, turned };
        let nearfar = Nearfar::builder().backend(Arc::new(l2), Box::new(bus));
        let cache = nearfar.cache("rows").l1_max_entries(MISSED * 2).build().await?;
        Ok(Self { cache, ear, turns })
    }

    async fn read_all(&self) -> Result<(), Error> {
        let read = async |task: u64| {
            for id in (task..MISSED).step_by(64) {
                self.cache.get(&id).await?;
            }
            Ok::<(), Error>(())
        };
        join_all((0..64).map(read)).await.into_iter().collect()
    }

    /// Microseconds per message until it is trusted again.
    async fn hear_again(&mut self) -> f64 {
        while self.turns.try_recv().is_ok() {}
        let replayed = self.cache.stats().replayed;
        let watch = Stopwatch::start();
        self.ear.opened.notify_one();
        loop {
            self.turns.recv().await.expect("the node runs");
            let stats = self.cache.stats();
            if stats.trusted && stats.replayed > replayed {
                return per_message(watch);
            }
        }
    }
}

/// A bus that loses everything while it is deaf, and then says so.
#[derive(Debug)]
struct Deafened {
    bus: Box<dyn Bus>,
    ear: Arc<Ear>,
    /// What is to be said next.
    subscribed: bool,
    turned: UnboundedSender<()>,
}

#[async_trait]
impl Bus for Deafened {
    fn subscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.bus.subscribe(partition, node);
    }

    fn unsubscribe(&mut self, partition: &PartitionId, node: NodeId) {
        self.bus.unsubscribe(partition, node);
    }

    fn reconnect(&mut self, _server: ServerId) {}

    async fn next(&mut self) -> Option<BusEvent> {
        // The last measurement is over when nobody listens any more.
        let _ = self.turned.send(());
        if std::mem::take(&mut self.subscribed) {
            return Some(BusEvent::Subscribed);
        }
        loop {
            tokio::select! {
                biased;
                () = self.ear.opened.notified() => {
                    self.ear.deaf.store(false, Ordering::SeqCst);
                    self.subscribed = true;
                    return Some(BusEvent::Doubt(Doubt::Disconnected));
                }
                event = self.bus.next() => {
                    if !self.ear.deaf.load(Ordering::SeqCst) {
                        return event;
                    }
                }
            }
        }
    }
}
