//! What ends up in the log of a service, at its most talkative: a binary of its own, since there is one logger per process.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::fmt::Write;
use std::sync::Mutex;

use common::{options, set};
use log::{LevelFilter, Log, Metadata, Record};
use nearfar_core::backend::L2;
use nearfar_redis::{RedisOptions, Tls, connect};
use nearfar_testkit::{Authority, RedisServer, Validity};

struct Everything(Mutex<String>);

impl Log for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        writeln!(self.0.lock().unwrap(), "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

static LOG: Everything = Everything(Mutex::new(String::new()));

#[tokio::test]
async fn nothing_that_is_logged_has_a_password_or_a_key() {
    log::set_logger(&LOG).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let authority = Authority::new("ours");
    let certificate = authority.issue(&["localhost"], Validity::Now);
    let server = RedisServer::builder().tls(&certificate, Some(&authority)).start().await;
    server.command(&["ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all"]).await;
    let client = authority.issue(&["node"], Validity::Now);
    let to = |login: &str| RedisOptions {
        tls: Some(Tls::new().ca_pem(authority.pem()).client_pem(&client.pem, &client.key)),
        ..options(format!("rediss://{login}@localhost:{}", server.tls_port()))
    };
    let (l2, _bus) = connect(to("app:hunter2")).await.unwrap();
    l2.change(&common::partition(), set("k", b"v")).await.unwrap();
    assert!(connect(to("nobody:hunter2")).await.is_err());

    let logged = LOG.0.lock().unwrap();
    assert!(logged.contains("fred") && logged.contains("rustls"), "they were listened to");
    let key_line = client.key.lines().nth(1).unwrap();
    assert!(!logged.contains("hunter2") && !logged.contains(key_line), "{logged}");
}
