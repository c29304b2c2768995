//! Connecting: what is said when it fails, and what happens when it is allowed to.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::time::Duration;

use common::{NODE, beat, degraded, is_echo, key, next_that, options, partition, set, subscribed};
use nearfar_core::backend::{Bus, L2, L2Error};
use nearfar_redis::{ConnectError, Finding, FindingKind, RedisOptions, UrlProblem, connect};
use nearfar_testkit::{RedisServer, Stopwatch, eventually};

const SECRET: &str = "hunter2";

async fn refusal(options: RedisOptions) -> ConnectError {
    let error = connect(options).await.expect_err("it cannot be connected to");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    error
}

fn with_password(server: &RedisServer) -> String {
    format!("redis://default:{SECRET}@127.0.0.1:{}", server.port())
}

#[tokio::test]
async fn a_refused_port_is_reported_at_once_with_its_name_and_without_the_password() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let watch = Stopwatch::start();
    let error = refusal(options(with_password(&server))).await;
    assert!(watch.elapsed() < Duration::from_secs(2));
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{}", server.port())) && text.contains("refused"), "{text}");
    assert!(matches!(error, ConnectError::Unreachable { .. }));
}

#[tokio::test]
async fn a_silent_server_is_given_up_when_the_time_is_over() {
    let server = RedisServer::start().await;
    server.pause().await;
    let watch = Stopwatch::start();
    let limited =
        RedisOptions { connect_timeout: Duration::from_millis(700), ..options(with_password(&server)) };
    let error = refusal(limited).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(watch.elapsed() < Duration::from_secs(3), "{:?}", watch.elapsed());
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreachable() {
    let error = refusal(options(format!("redis://:{SECRET}@no-such-host.invalid"))).await;
    assert!(error.to_string().contains("no-such-host.invalid:6379"), "{error}");
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_even_when_degraded() {
    let error = refusal(degraded(format!("http://:{SECRET}@localhost"))).await;
    assert_eq!(error, ConnectError::BadUrl(UrlProblem::Scheme));
    let error = refusal(degraded(format!("redis://:{SECRET}@localhost:port"))).await;
    assert!(matches!(error, ConnectError::BadUrl(UrlProblem::Malformed(_))), "{error}");
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_reported_as_such() {
    let server = RedisServer::start().await;
    server.command(&["ACL", "SETUSER", "app", "on", ">correct", "~*", "&*", "+@all"]).await;
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}", server.port());
    let error = refusal(options(url("app:hunter2@"))).await;
    assert!(matches!(error, ConnectError::AuthRefused { .. }), "{error}");
    assert!(connect(options(url("app:correct@"))).await.is_ok());

    let locked = RedisServer::start().await;
    locked.command(&["CONFIG", "SET", "requirepass", "correct"]).await;
    let error = refusal(options(locked.url())).await;
    assert!(matches!(error, ConnectError::AuthRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_user_without_scripts_is_told_so() {
    let server = RedisServer::start().await;
    for command in ["eval", "evalsha"] {
        let rights = format!("ACL SETUSER app reset on >{SECRET} ~* &* +@all -{command}");
        assert!(server.command(&rights.split(' ').collect::<Vec<_>>()).await.is_ok());
        let error = refusal(options(format!("redis://app:{SECRET}@127.0.0.1:{}", server.port()))).await;
        assert!(matches!(error, ConnectError::MissingRight { .. }), "{error}");
        assert!(error.to_string().contains(&format!("'{command}'")), "{error}");
    }
}

#[tokio::test]
async fn a_server_whose_scripts_are_disabled_or_renamed_is_told_so() {
    for command in ["EVAL", "EVALSHA"] {
        for name in ["''", "HIDDEN"] {
            let server =
                RedisServer::builder().arg("rename-command", &format!("{command} {name}")).start().await;
            let error = refusal(options(server.url())).await;
            let server = format!("127.0.0.1:{}", server.port());
            assert_eq!(error, ConnectError::ScriptsDisabled { server, command }, "{name}");
            assert!(error.to_string().contains(&format!(" {command} is disabled or renamed")), "{error}");
        }
    }
}

/// Redis repeats the arguments of a command that it does not know, and those of HELLO hold the password.
#[tokio::test]
async fn a_server_without_hello_does_not_give_the_password_away() {
    let server = RedisServer::builder().arg("rename-command", "HELLO HIDDEN").start().await;
    let error = refusal(options(with_password(&server))).await;
    assert!(matches!(error, ConnectError::TooOld { version: None, .. }), "{error}");
}

async fn replica_of(primary: &RedisServer) -> RedisServer {
    RedisServer::builder().arg("replicaof", &format!("127.0.0.1 {}", primary.port())).start().await
}

#[tokio::test]
async fn a_read_only_replica_is_refused_with_the_name_of_its_primary() {
    let primary = RedisServer::start().await;
    let replica = replica_of(&primary).await;
    let error = refusal(options(with_password(&replica))).await;
    let address = |server: &RedisServer| format!("127.0.0.1:{}", server.port());
    let (server, primary) = (address(&replica), address(&primary));
    assert_eq!(error, ConnectError::ReadOnlyReplica { server, primary });
}

/// `replica-serve-stale-data no`: it refuses scripts as long as it has not heard of its primary, which is not the point.
#[tokio::test]
async fn a_replica_that_has_lost_its_primary_is_refused_as_a_replica() {
    let mut primary = RedisServer::start().await;
    let replica = replica_of(&primary).await;
    replica.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]).await;
    primary.kill().await;
    let error = refusal(options(replica.url())).await;
    assert!(matches!(error, ConnectError::ReadOnlyReplica { .. }), "{error}");
}

async fn warnings(url: String) -> Vec<Finding> {
    connect(options(url)).await.unwrap().0.warnings().to_vec()
}

/// What the doctor says of it too: see `doctor.rs`.
#[tokio::test]
async fn what_a_full_server_will_do_is_warned_of() {
    let server = RedisServer::builder().arg("maxmemory", "100mb").start().await;
    assert_eq!(warnings(server.url()).await, []);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    let warned = warnings(server.url()).await;
    let [warning] = warned.as_slice() else { panic!("{warned:?}") };
    assert_eq!(warning.kind(), FindingKind::EvictsFences);
    assert!(warning.seen().contains("100.0 MiB") && warning.seen().contains("volatile-ttl"), "{warning}");
}

/// It learns nothing in advance, and is not refused for it.
#[tokio::test]
async fn a_user_without_the_right_to_ask_connects() {
    let primary = RedisServer::builder().arg("maxmemory", "100mb").start().await;
    let replica = replica_of(&primary).await;
    for server in [&primary, &replica] {
        let rights = ["ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all", "-info"];
        assert!(server.command(&rights).await.is_ok());
        assert_eq!(warnings(format!("redis://app:{SECRET}@127.0.0.1:{}", server.port())).await, []);
    }
}

#[tokio::test]
async fn a_degraded_start_returns_at_once_and_heals() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let (l2, mut bus) = connect(degraded(server.url())).await.unwrap();
    bus.subscribe(&partition(), NODE);
    assert!(matches!(l2.read(&partition(), &key("k")).await, Err(L2Error::Unreachable)));

    server.restart_empty().await;
    subscribed(&mut bus).await;
    eventually("beats work", async || l2.beat(&partition(), &beat(1)).await.is_ok()).await;
    next_that(&mut bus, is_echo).await;
    assert!(l2.read(&partition(), &key("k")).await.is_ok());
}

#[tokio::test]
async fn nothing_that_can_be_printed_has_the_password() {
    let server = RedisServer::start().await;
    server.command(&["CONFIG", "SET", "requirepass", SECRET]).await;
    let options = options(with_password(&server));
    let printed = format!("{options:?}");
    let (l2, bus) = connect(options).await.unwrap();
    assert!(!format!("{printed} {l2:?} {bus:?}").contains(SECRET));
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named_by_its_path() {
    let error = refusal(options(format!("redis+unix://default:{SECRET}@/nowhere/redis.sock"))).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/redis.sock: No such file"), "{error}");
}

#[tokio::test]
async fn a_login_and_a_database_go_through_a_socket_too() {
    let server = RedisServer::builder().socket().start().await;
    server.command(&["ACL", "SETUSER", "app", "on", ">p@ss", "~*", "&*", "+@all"]).await;
    let path = server.url().trim_start_matches("redis+unix://").to_owned();
    let url = |login: &str| format!("unix://{login}@{path}?db=3");
    let error = refusal(options(url("app:hunter2"))).await;
    assert!(matches!(error, ConnectError::AuthRefused { .. }), "{error}");

    let (l2, _bus) = connect(options(url("app:p%40ss"))).await.unwrap();
    l2.change(&partition(), set("k", b"one")).await.unwrap();
    let keyspace = server.command(&["INFO", "keyspace"]).await;
    assert!(keyspace.text().unwrap().contains("db3:keys="), "{keyspace:?}");
}
