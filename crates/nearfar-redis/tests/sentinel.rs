//! A store and a bus on a primary that sentinels watch.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{NODE, beat, degraded, is_echo, next_that, options, partition, set};
use nearfar_core::backend::{Bus, BusEvent, L2, L2Error};
use nearfar_redis::{ConnectError, FindingKind, RedisBus, RedisL2, connect, diagnose};
use nearfar_testkit::{RedisServer, Sentinels, eventually};

/// Whether a beat comes back, if not at once then soon.
async fn echoes(l2: &RedisL2, bus: &mut RedisBus) -> bool {
    assert!(matches!(l2.beat(&partition(), &beat(2)).await, Ok(_) | Err(L2Error::Unreachable)));
    tokio::time::timeout(Duration::from_millis(200), next_that(bus, is_echo)).await.is_ok()
}

#[tokio::test]
async fn a_primary_that_was_replaced_is_left_for_the_one_that_the_sentinels_name() {
    let servers = Sentinels::start().await;
    let (l2, mut bus) = connect(options(servers.url())).await.unwrap();
    let before = l2.server_of(&partition());
    bus.subscribe(&partition(), NODE);
    l2.change(&partition(), set("k", b"one")).await.unwrap();

    servers.failover().await;
    eventually("beats go to another server", async || {
        l2.beat(&partition(), &beat(1)).await.is_ok() && l2.server_of(&partition()) != before
    })
    .await;
    next_that(&mut bus, |event| matches!(event, BusEvent::DoubtIn(..))).await;
    let mut beats = 0;
    while !echoes(&l2, &mut bus).await {
        beats += 1;
        assert!(beats < 100, "no subscription there");
    }
    assert!(l2.change(&partition(), set("k", b"two")).await.is_ok());
}

#[tokio::test]
async fn a_name_that_the_sentinels_do_not_know_is_told() {
    let servers = Sentinels::start().await;
    let (known, rest) =
        servers.url().split_once("sentinelServiceName=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let others = rest.split_once('&').map_or("", |(_, others)| others).to_owned();
    let refused = connect(options(format!("{known}sentinelServiceName=nobody&{others}"))).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::UnknownService { service, .. } if service == "nobody"),
        "{refused}"
    );
    assert!(refused.to_string().contains("\"nobody\""), "{refused}");
}

#[tokio::test]
async fn a_node_that_starts_degraded_finds_the_primary_by_itself() {
    let servers = Sentinels::start().await;
    let (l2, mut bus) = connect(degraded(servers.url())).await.unwrap();
    bus.subscribe(&partition(), NODE);
    eventually("beats work", async || l2.beat(&partition(), &beat(1)).await.is_ok()).await;
    let mut beats = 0;
    while !echoes(&l2, &mut bus).await {
        beats += 1;
        assert!(beats < 100, "no subscription there");
    }
    assert!(l2.change(&partition(), set("k", b"one")).await.is_ok());
}

/// Makes a user of these servers.
async fn let_in(servers: impl IntoIterator<Item = &RedisServer>, rules: &[&str]) {
    for server in servers {
        assert!(server.command(&[&["ACL", "SETUSER"], rules].concat()).await.is_ok());
    }
}

/// Servers and sentinels that have different users.
async fn servers_with_logins() -> Sentinels {
    let mut servers = Sentinels::start().await;
    // The least that is documented.
    let right = match servers[0].version().await {
        (..7, _) => "+sentinel",
        _ => "+sentinel|get-master-addr-by-name",
    };
    let_in(servers.sentinels().iter(), &["asker", "on", ">hunter2", "-@all", right]).await;
    let_in((0..3).map(|index| &servers[index]), &["app", "on", ">hunter3", "~*", "&*", "+@all"]).await;
    servers
}

fn with_logins(servers: &Sentinels, of_the_servers: &str, of_the_sentinels: &str) -> String {
    servers.url().replace("://", &format!("://{of_the_servers}@")) + of_the_sentinels
}

fn address(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

async fn is_asked_by(sentinel: &RedisServer, user: &str) -> bool {
    let clients = sentinel.command(&["CLIENT", "LIST"]).await;
    clients.text().unwrap().contains(&format!("user={user} "))
}

#[tokio::test]
async fn sentinels_are_asked_as_a_user_of_their_own_also_for_a_new_primary() {
    let mut servers = servers_with_logins().await;
    let logins = "&sentinelUsername=asker&sentinelPassword=hunter2";
    let (l2, mut bus) = connect(options(with_logins(&servers, "app:hunter3", logins))).await.unwrap();
    bus.subscribe(&partition(), NODE);
    l2.change(&partition(), set("k", b"one")).await.unwrap();
    for sentinel in servers.sentinels() {
        eventually("it is asked", async || is_asked_by(sentinel, "asker").await).await;
        assert!(!is_asked_by(sentinel, "app").await);
    }

    let before = l2.server_of(&partition());
    servers.failover().await;
    eventually("beats go to another server", async || {
        l2.beat(&partition(), &beat(1)).await.is_ok() && l2.server_of(&partition()) != before
    })
    .await;
}

#[tokio::test]
async fn a_login_that_sentinels_refuse_is_told_as_theirs_and_not_shown() {
    let mut servers = servers_with_logins().await;
    let sentinels: Vec<_> = servers.sentinels().iter().map(address).collect();
    let primary = [address(&servers[0])];
    let right = "&sentinelUsername=asker&sentinelPassword=hunter2";
    for (login, logins, refuses) in [
        ("app:hunter3", "&sentinelUsername=asker&sentinelPassword=hunter3", &sentinels[..]),
        ("app:hunter3", "&sentinelUsername=app&sentinelPassword=hunter3", &sentinels),
        ("app:hunter2", right, &primary),
    ] {
        let options = options(with_logins(&servers, login, logins));
        let error = connect(options.clone()).await.unwrap_err();
        assert!(
            matches!(&error, ConnectError::AuthRefused { server, .. } if refuses.contains(server)),
            "{logins}: {error}"
        );
        let diagnosis = diagnose(&options, &[]).await;
        let finding = diagnosis.findings().next().unwrap();
        assert_eq!(finding.kind(), FindingKind::LoginRefused);
        assert!(refuses.iter().any(|server| server == finding.server()), "{diagnosis}");
        let said = format!("{error} {error:?} {options:?} {diagnosis} {diagnosis:?}");
        assert!(!said.contains("hunter"), "{said}");
    }

    let_in(servers.sentinels().iter(), &["mute", "on", ">hunter2", "-@all"]).await;
    let mute = "&sentinelUsername=mute&sentinelPassword=hunter2";
    let error = connect(options(with_logins(&servers, "app:hunter3", mute))).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::MissingRight { server, .. } if sentinels.contains(server)),
        "{error}"
    );
}
