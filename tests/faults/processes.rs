//! The process of a node stops, or ends.

use std::process::Command;
use std::time::Duration;

use nearfar::Nearfar;
use nearfar_testkit::{Direction, FaultProxy, Flow, Program, Read, RedisServer, eventually};

use crate::trial::{BOUND, KEYS, NAMESPACE, Trial};

/// Another node of the trial, in a process of its own, that prints what it serves from L1.
struct LoneReader {
    program: Program,
    reads: Vec<Read>,
}

impl LoneReader {
    fn start(trial: &Trial, url: String) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lone-reader"));
        command.args([url, NAMESPACE.to_owned(), KEYS.to_string(), BOUND.as_millis().to_string()]);
        command.arg(trial.clock.zero().to_string());
        Self { program: Program::start(command), reads: Vec::new() }
    }

    /// Waits until it has asked for all keys since this moment of the trial's clock.
    async fn asks_for_all_since(&mut self, micros: u64) {
        while self.take_line().await.is_none_or(|round| round < micros) {}
    }

    /// Waits until L1 has served it something since this moment of the trial's clock, and says when.
    async fn is_served_since(&mut self, micros: u64) -> u64 {
        loop {
            self.take_line().await;
            if let Some(read) = self.reads.last().filter(|read| read.start >= micros) {
                return read.start;
            }
        }
    }

    /// When the round began, if this is its end.
    async fn take_line(&mut self) -> Option<u64> {
        let line = self.program.line().await.unwrap();
        if let Some(round) = line.strip_prefix("round ") {
            return Some(round.parse().unwrap());
        }
        let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        self.reads.push(Read { key: next(), revision: next(), start: next(), end: next() });
        None
    }
}

/// R8: it wakes up with copies that were fresh when it fell asleep, and what would say otherwise has not reached it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stood_still_for_longer_than_the_bound_serves_nothing_stale() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start("client process stopped for 3 s", &server).await;
    let proxy = FaultProxy::start(server.port()).await;
    let mut reader = LoneReader::start(&trial, proxy.url());
    reader.is_served_since(0).await;
    trial.goes_well().await;
    trial.breaks();
    proxy.set(Direction::ToClient, Flow::Hold);
    reader.program.pause();
    trial.lasts(3 * BOUND).await;
    trial.calms_down().await;

    let resumed_at = trial.clock.micros();
    reader.program.resume();
    reader.asks_for_all_since(resumed_at).await;
    let released_at = trial.clock.micros();
    proxy.set(Direction::ToClient, Flow::Forward);
    let served_at = reader.is_served_since(released_at).await;
    trial.remarks(format!(
        "its L1 is served again after {:.3} s",
        Duration::from_micros(served_at - released_at).as_secs_f64()
    ));
    reader.asks_for_all_since(released_at + u64::try_from(BOUND.as_micros()).unwrap()).await;
    trial.was_also_read(reader.reads);
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_leave_without_a_goodbye_are_no_loss_to_the_others() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start("two nodes gone without a goodbye", &server).await;
    let mut reader = LoneReader::start(&trial, server.url());
    reader.is_served_since(0).await;
    let dropped = Nearfar::connect(&server.url()).await.unwrap();
    drop(dropped.cache::<u64, u64>(NAMESPACE).build().await.unwrap());
    let here = trial.nodes[0].clone();
    let listed = async || here.nearfar.nodes().await.unwrap().len();
    assert_eq!(listed().await, 5);

    trial.breaks();
    reader.program.kill();
    drop(dropped);
    trial.lasts(BOUND).await;
    assert_eq!(listed().await, 5, "nobody knows yet");
    let nodes = format!("{{{NAMESPACE}.0}}#nodes");
    let silent = server.command(&["ZRANGE", &nodes, "0", "1"]).await;
    for id in silent.array().unwrap() {
        // As if a minute had passed.
        server.command(&["ZADD", &nodes, "1", id.text().unwrap()]).await;
    }
    eventually("they are taken off the list", async || listed().await == 3).await;
    let verdict = trial.ends().await;
    assert!(verdict.trust_was_kept);
}
