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

/// A process that holds a server, or several, and the ports in its URL.
fn holder(kind: Option<&str>) -> (Child, Vec<u16>) {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_test-server"))
        .args(kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut url).unwrap();
    (holder, ports_in(&url))
}

fn ports_in(url: &str) -> Vec<u16> {
    let behind_colons = url.split("127.0.0.1:").skip(1);
    let digits = behind_colons.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap());
    digits.map(|digits| digits.parse().unwrap()).collect()
}

async fn assert_killed_holder_leaves_nothing(kind: Option<&str>, count: usize) {
    let (mut holder, ports) = holder(kind);
    assert_eq!(ports.len(), count);
    assert!(ports.iter().all(|&port| listens(port)));
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("the guardians kill the servers", async || !ports.iter().any(|&port| listens(port))).await;
}

#[tokio::test]
async fn a_killed_test_process_leaves_no_server() {
    assert_killed_holder_leaves_nothing(None, 1).await;
}

#[tokio::test]
async fn a_killed_test_process_leaves_no_cluster() {
    assert_killed_holder_leaves_nothing(Some("cluster"), 6).await;
}

#[tokio::test]
async fn a_killed_test_process_leaves_no_sentinels() {
    assert_killed_holder_leaves_nothing(Some("sentinels"), 3).await;
}

#[tokio::test]
async fn servers_of_parallel_processes_do_not_meet() {
    let servers: Vec<_> = (0..4).map(|_| holder(None)).collect();
    for (mut holder, ports) in servers {
        assert!(listens(ports[0]));
        drop(holder.stdin.take());
        holder.wait().unwrap();
        assert!(!listens(ports[0]));
    }
}
