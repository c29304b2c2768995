//! The process of a node stops, or ends.

use std::process::Command;

use nearfar::Nearfar;
use nearfar_testkit::{Program, Read, RedisServer, eventually};

use crate::trial::{BOUND, KEYS, NAMESPACE, Trial};

/// Another node of the trial, in a process of its own, that prints what it serves from L1.
fn lone_reader(trial: &Trial, server: &RedisServer) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lone-reader"));
    command.args([server.url(), NAMESPACE.to_owned(), KEYS.to_string(), BOUND.as_millis().to_string()]);
    command.arg(trial.clock.zero().to_string());
    Program::start(command)
}

fn parse(line: &str) -> Read {
    let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    Read { key: next(), revision: next(), start: next(), end: next() }
}

/// Reads on until there is a read that began after this moment of the trial's clock, and returns all.
async fn reads_until(program: &mut Program, micros: u64) -> Vec<Read> {
    let mut reads = Vec::new();
    while reads.last().is_none_or(|read: &Read| read.start <= micros) {
        reads.push(parse(&program.line().await.unwrap()));
    }
    reads
}

/// R8: it wakes up with copies that were fresh when it fell asleep. Timers and messages that would say otherwise have not
/// had their turn yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stood_still_for_longer_than_the_bound_serves_nothing_stale() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start("client process stopped for 3 s", &server).await;
    let mut program = lone_reader(&trial, &server);
    let mut reads = reads_until(&mut program, 0).await;
    reads.extend(reads_until(&mut program, trial.clock.micros()).await);
    trial.breaks();
    program.pause();
    trial.lasts(3 * BOUND).await;
    trial.calms_down().await;
    let resumed_at = trial.clock.micros();
    program.resume();
    let after = reads_until(&mut program, resumed_at).await;
    let first = after.last().unwrap().start;
    reads.extend(after);
    trial.remarks(format!("the first copy is served {} ms after it goes on", (first - resumed_at) / 1000));
    let afterwards = u64::try_from(BOUND.as_micros()).unwrap();
    reads.extend(reads_until(&mut program, resumed_at + afterwards).await);
    trial.was_also_read(reads);
    trial.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_leave_without_a_goodbye_are_no_loss_to_the_others() {
    let server = RedisServer::start().await;
    let mut trial = Trial::start("two nodes gone without a goodbye", &server).await;
    let mut program = lone_reader(&trial, &server);
    program.line().await.unwrap();
    let dropped = Nearfar::connect(&server.url()).await.unwrap();
    drop(dropped.cache::<u64, u64>(NAMESPACE).build().await.unwrap());
    let here = trial.nodes[0].clone();
    let listed = async || here.nearfar.nodes().await.unwrap().len();
    assert_eq!(listed().await, 5);

    trial.breaks();
    program.kill();
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
