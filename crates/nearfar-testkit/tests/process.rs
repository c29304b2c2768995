//! No process is left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nearfar_testkit::{RedisServer, eventually};

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

async fn folder_of(server: &RedisServer) -> PathBuf {
    let reply = server.command(&["CONFIG", "GET", "dir"]).await;
    PathBuf::from(reply.array().unwrap()[1].text().unwrap())
}

#[tokio::test]
async fn a_dropped_server_is_gone_at_once() {
    let server = RedisServer::start().await;
    let (port, folder) = (server.port(), folder_of(&server).await);
    assert!(listens(port) && folder.exists());
    drop(server);
    assert!(!listens(port) && !folder.exists());
}

#[tokio::test]
async fn a_paused_server_that_is_dropped_is_gone_at_once() {
    let server = RedisServer::start().await;
    let port = server.port();
    server.pause().await;
    assert!(listens(port));
    drop(server);
    assert!(!listens(port));
}

#[tokio::test]
async fn a_test_that_panics_leaves_no_server() {
    let server = RedisServer::start().await;
    let (port, folder) = (server.port(), folder_of(&server).await);
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _held = server;
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && !listens(port) && !folder.exists());
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
