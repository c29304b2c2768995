//! What a test may rely on in a [`FaultProxy`].
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nearfar_testkit::{Cut, Direction, FaultProxy, Flow, RedisServer, RespClient, Stopwatch, eventually};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

async fn proxied() -> (RedisServer, FaultProxy) {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(server.port()).await;
    (server, proxy)
}

async fn connect(proxy: &FaultProxy) -> RespClient {
    RespClient::connect(proxy.port()).await.unwrap()
}

/// Sends a command, and gives up on the reply, which will come later.
async fn send(client: &mut RespClient, args: &[&str]) {
    let reply = tokio::time::timeout(Duration::from_millis(50), client.command(args)).await;
    assert!(reply.is_err(), "a reply came through: {reply:?}");
}

async fn exists(server: &RedisServer, key: &str) -> bool {
    server.command(&["EXISTS", key]).await.int() == Some(1)
}

#[tokio::test]
async fn a_proxy_passes_large_values_unharmed() {
    let (_server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    let value: Vec<u8> = (0..5_000_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    assert!(client.command(&[b"SET".as_slice(), b"key", &value]).await.unwrap().is_ok());
    assert_eq!(client.command(&["GET", "key"]).await.unwrap().bytes(), Some(value.as_slice()));
}

#[tokio::test]
async fn commands_that_are_held_do_not_reach_the_server_until_released() {
    let (server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    client.command(&["PING"]).await.unwrap();

    proxy.set(Direction::ToServer, Flow::Hold);
    send(&mut client, &["SET", "key", "value"]).await;
    assert!(!exists(&server, "key").await);

    proxy.set(Direction::ToServer, Flow::Forward);
    assert!(client.next().await.unwrap().is_ok());
    assert!(exists(&server, "key").await);
}

#[tokio::test]
async fn replies_that_are_held_do_not_undo_the_command() {
    let (server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    proxy.set(Direction::ToClient, Flow::Hold);
    send(&mut client, &["SET", "key", "value"]).await;
    eventually("the command takes effect", async || exists(&server, "key").await).await;

    proxy.set(Direction::ToClient, Flow::Forward);
    assert!(client.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn the_end_of_a_stream_is_held_like_its_bytes() {
    let (mut server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    client.command(&["PING"]).await.unwrap();
    proxy.set(Direction::Both, Flow::Hold);
    server.kill().await;
    let silence = tokio::time::timeout(Duration::from_millis(50), client.next()).await;
    assert!(silence.is_err(), "the client heard of the server's end: {silence:?}");

    proxy.set(Direction::Both, Flow::Forward);
    assert_eq!(client.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_delay_is_added_to_every_reply() {
    let (_server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    let delay = Duration::from_millis(40);
    proxy.set(Direction::ToClient, Flow::Delay(delay));
    for _ in 0..3 {
        let taken = Stopwatch::start();
        client.command(&["PING"]).await.unwrap();
        assert!(taken.elapsed() >= delay);
    }
}

#[tokio::test]
async fn what_was_delayed_passes_at_once_when_the_delay_ends() {
    let (_server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    proxy.set(Direction::ToClient, Flow::Delay(Duration::from_secs(3600)));
    send(&mut client, &["PING"]).await;
    proxy.set(Direction::ToClient, Flow::Forward);
    assert_eq!(client.next().await.unwrap().text(), Some("PONG"));
}

async fn error_after(how: Cut) -> io::Result<usize> {
    let (_server, proxy) = proxied().await;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    eventually("the proxy has accepted", async || proxy.connections() == 1).await;
    proxy.cut(how).await;
    assert_eq!(proxy.connections(), 0);
    stream.read(&mut [0]).await
}

#[tokio::test]
async fn a_reset_is_an_error_and_a_close_is_the_end_of_the_stream() {
    assert_eq!(error_after(Cut::Reset).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(error_after(Cut::Close).await.unwrap(), 0);
}

#[tokio::test]
async fn what_was_held_is_lost_in_a_cut_and_a_new_connection_works() {
    let (server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    proxy.set(Direction::ToServer, Flow::Hold);
    send(&mut client, &["SET", "key", "value"]).await;
    proxy.cut(Cut::Reset).await;
    proxy.set(Direction::ToServer, Flow::Forward);

    client.next().await.unwrap_err();
    connect(&proxy).await.command(&["PING"]).await.unwrap();
    assert!(!exists(&server, "key").await);
}

#[tokio::test]
async fn stranded_connections_hear_nothing_more_while_new_ones_work() {
    let (server, proxy) = proxied().await;
    let mut old = connect(&proxy).await;
    old.command(&["PING"]).await.unwrap();
    proxy.strand();
    send(&mut old, &["SET", "key", "value"]).await;
    let mut new = connect(&proxy).await;
    new.command(&["PING"]).await.unwrap();

    proxy.set(Direction::Both, Flow::Forward);
    send(&mut old, &["PING"]).await;
    assert!(!exists(&server, "key").await, "stranded is for good");
    new.command(&["PING"]).await.unwrap();

    proxy.cut(Cut::Reset).await;
    for mut client in [old, new] {
        client.next().await.unwrap_err();
    }
}

#[tokio::test]
async fn a_redirected_proxy_leads_new_connections_to_another_server() {
    let (first, proxy) = proxied().await;
    let second = RedisServer::start().await;
    let mut old = connect(&proxy).await;
    old.command(&["PING"]).await.unwrap();
    proxy.redirect(second.port());
    let mut new = connect(&proxy).await;
    new.command(&["SET", "new", "value"]).await.unwrap();
    old.command(&["SET", "old", "value"]).await.unwrap();
    assert!(exists(&first, "old").await && !exists(&first, "new").await);
    assert!(exists(&second, "new").await && !exists(&second, "old").await);
}

#[tokio::test]
async fn new_connections_are_refused_while_old_ones_live_on() {
    let (_server, proxy) = proxied().await;
    let mut old = connect(&proxy).await;
    old.command(&["PING"]).await.unwrap();

    proxy.refuse().await;
    let refused = RespClient::connect(proxy.port()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    old.command(&["PING"]).await.unwrap();

    proxy.accept().await;
    connect(&proxy).await.command(&["PING"]).await.unwrap();
}

#[tokio::test]
async fn a_connection_to_a_server_that_is_down_is_reset() {
    let (mut server, proxy) = proxied().await;
    server.kill().await;
    connect(&proxy).await.command(&["PING"]).await.unwrap_err();
    server.restart_empty().await;
    connect(&proxy).await.command(&["PING"]).await.unwrap();
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections() {
    let (_server, proxy) = proxied().await;
    let mut client = connect(&proxy).await;
    client.command(&["PING"]).await.unwrap();
    let port = proxy.port();
    drop(proxy);
    client.next().await.unwrap_err();
    eventually("nothing listens", async || RespClient::connect(port).await.is_err()).await;
}

/// Until it executes its program, a process that is just being started holds what its parent had open, the socket of a
/// port that was just looked at among it.
#[tokio::test]
async fn a_proxy_gets_its_port_while_processes_are_started() {
    let stop = Arc::new(AtomicBool::new(false));
    let starting = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::SeqCst) {
                assert!(Command::new("true").status().unwrap().success());
            }
        }
    });
    for _ in 0..2_000 {
        let proxy = FaultProxy::start(1).await;
        proxy.refuse().await;
        proxy.accept().await;
    }
    stop.store(true, Ordering::SeqCst);
    starting.join().unwrap();
}
