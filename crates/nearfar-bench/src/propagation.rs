//! From the call on one node until the other has dropped its copy, beside a bare publish until it is received.

use std::hint::spin_loop;

use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use nearfar::{Cache, Error};
use nearfar_testkit::{RedisServer, Stopwatch};

use crate::{Row, l2::client, rows, table::Table};

const ROUNDS: usize = 9;
const MESSAGES: usize = 500;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let (here, there) = (rows(server, 1_000).await?, rows(server, 1_000).await?);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((bare(server).await, ours(&here, &there).await?));
    }
    for (name, index) in [("p50", MESSAGES / 2), ("p99", MESSAGES * 99 / 100)] {
        let pairs: Vec<_> = rounds.iter().map(|(bare, ours)| (bare[index], ours[index])).collect();
        table.add(format!("propagation {name}, beside fred publish -> receive"), "us", &pairs);
    }
    let measured = there.stats().propagation;
    eprintln!("as the receiving node's own stats have it: p50 {:?}, p99 {:?}", measured.p50, measured.p99);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn micros(watch: Stopwatch) -> f64 {
    watch.elapsed().as_nanos() as f64 / 1_000.0
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
async fn ours(here: &Cache<u64, Row>, there: &Cache<u64, Row>) -> Result<Vec<f64>, Error> {
    let mut times = Vec::new();
    for id in 0..MESSAGES as u64 {
        here.set(&id, Row::new(id)).await?;
        while there.get(&id).await?.is_none() || there.peek(&id).is_none() {
            tokio::task::yield_now().await;
        }
        let watch = Stopwatch::start();
        let change = tokio::spawn({
            let here = here.clone();
            async move { here.invalidate(&id).await }
        });
        while there.peek(&id).is_some() {
            spin_loop();
            tokio::task::yield_now().await;
        }
        times.push(micros(watch));
        change.await.expect("it does not panic")?;
    }
    Ok(sorted(times))
}
