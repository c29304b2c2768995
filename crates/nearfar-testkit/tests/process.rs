//! No process is left behind. A container has no process here to look for.
#![cfg(not(feature = "docker"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::panic::AssertUnwindSafe;
use std::process::{Child, Command, Stdio};

use nearfar_testkit::{RedisServer, eventually};
use rustix::process::{Pid, test_kill_process};

fn runs(id: u32) -> bool {
    Pid::from_raw(id.try_into().unwrap()).is_some_and(|pid| test_kill_process(pid).is_ok())
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[tokio::test]
async fn a_dropped_server_is_gone_at_once() {
    let server = RedisServer::start().await;
    let id = server.pid();
    assert!(runs(id));
    drop(server);
    assert!(!runs(id));
}

#[tokio::test]
async fn a_paused_server_that_is_dropped_is_gone_at_once() {
    let server = RedisServer::start().await;
    let id = server.pid();
    server.pause().await;
    drop(server);
    assert!(!runs(id));
}

#[tokio::test]
async fn a_test_that_panics_leaves_no_server() {
    let server = RedisServer::start().await;
    let id = server.pid();
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _held = server;
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && !runs(id));
}

/// A process that holds a server, and the port of that server.
fn holder() -> (Child, u16) {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_test-server"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let port = url.trim().rsplit(':').next().unwrap().parse().unwrap();
    (holder, port)
}

#[tokio::test]
async fn a_killed_test_process_leaves_no_server() {
    let (mut holder, port) = holder();
    assert!(listens(port));
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("the guardian kills the server", async || !listens(port)).await;
}

#[tokio::test]
async fn servers_of_parallel_processes_do_not_meet() {
    let servers: Vec<_> = (0..4).map(|_| holder()).collect();
    for (mut holder, port) in servers {
        assert!(listens(port));
        drop(holder.stdin.take());
        holder.wait().unwrap();
        assert!(!listens(port));
    }
}
