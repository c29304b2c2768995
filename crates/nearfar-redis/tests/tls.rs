//! Connections with TLS: that they work, and what is said when they do not.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use common::{degraded, options, set};
use nearfar_core::backend::L2;
use nearfar_redis::{
    ConnectError, FindingKind, RedisOptions, Tls, TlsProblem, TlsSettingProblem, UrlProblem, connect,
    diagnose,
};
use nearfar_testkit::{Authority, Certificate, RedisCluster, RedisServer, Sentinels, Validity};

const SECRET: &str = "hunter2";

/// What the doctor finds where it cannot connect.
const NO_CONNECTION: [FindingKind; 3] = [FindingKind::Tls, FindingKind::Unreachable, FindingKind::NoAnswer];

/// What a client says of whom it believes.
fn believing(authority: &Authority) -> Tls {
    Tls::new().ca_pem(authority.pem())
}

async fn server(certificate: &Certificate) -> RedisServer {
    RedisServer::builder().tls(certificate, None).start().await
}

fn secured(host: &str, port: u16, tls: impl Into<Option<Tls>>) -> RedisOptions {
    RedisOptions { tls: tls.into(), ..options(format!("rediss://default:{SECRET}@{host}:{port}")) }
}

/// Everything that it says is free of what must stay secret.
async fn refusal(options: RedisOptions) -> ConnectError {
    let error = connect(options).await.expect_err("it cannot be connected to");
    let text = format!("{error} {error:?}");
    assert!(!text.contains(SECRET) && !text.contains("PRIVATE"), "{text}");
    error
}

async fn problem(options: RedisOptions) -> TlsProblem {
    match refusal(options).await {
        ConnectError::Tls { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

async fn setting(tls: Tls) -> ConnectError {
    refusal(secured("localhost", 1, tls)).await
}

#[tokio::test]
async fn the_name_and_the_address_of_a_certificate_both_connect() {
    let authority = Authority::new("ours");
    let server = server(&authority.issue(&["localhost", "127.0.0.1"], Validity::Now)).await;
    for scheme in ["rediss", "valkeys"] {
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("{scheme}://{host}:{}", server.tls_port());
            let options = RedisOptions { tls: Some(believing(&authority)), ..options(url) };
            let (l2, _bus) = connect(options).await.unwrap();
            l2.change(&common::partition(), set("k", b"v")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let authority = Authority::new("ours");
    let server = server(&authority.issue(&["localhost"], Validity::Now)).await;
    let impostor = Authority::new("ours");
    for tls in [believing(&Authority::new("theirs")), believing(&impostor), Tls::new()] {
        assert_eq!(problem(secured("localhost", server.tls_port(), tls)).await, TlsProblem::UnknownCa);
    }
    assert_eq!(problem(secured("localhost", server.tls_port(), None)).await, TlsProblem::UnknownCa);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new("ours");
    let server = server(&authority.issue(&["cache.internal"], Validity::Now)).await;
    for host in ["localhost", "127.0.0.1"] {
        let options = secured(host, server.tls_port(), believing(&authority));
        assert_eq!(problem(options).await, TlsProblem::WrongName, "{host}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_now_is_refused() {
    let authority = Authority::new("ours");
    for validity in [Validity::Expired, Validity::NotYet] {
        let server = server(&authority.issue(&["localhost"], validity)).await;
        let options = secured("localhost", server.tls_port(), believing(&authority));
        assert_eq!(problem(options).await, TlsProblem::NotValidNow, "{validity:?}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let authority = Authority::new("ours");
    let own = authority.issue(&["localhost"], Validity::Now);
    let server = RedisServer::builder().tls(&own, Some(&authority)).start().await;
    let with = |tls: Tls| secured_without_login("localhost", server.tls_port(), tls);
    let client = authority.issue(&["client"], Validity::Now);
    let tls = believing(&authority).client_pem(&client.pem, &client.key);
    assert!(!format!("{tls:?} {:?}", with(tls.clone())).contains("PRIVATE"));
    assert!(connect(with(tls)).await.is_ok());

    assert_eq!(problem(with(believing(&authority))).await, TlsProblem::ClientCertificateRequired);

    let impostor = Authority::new("ours").issue(&["client"], Validity::Now);
    let stranger = Authority::new("theirs").issue(&["client"], Validity::Now);
    let expired = authority.issue(&["client"], Validity::Expired);
    for refused in [impostor, stranger, expired] {
        let tls = believing(&authority).client_pem(&refused.pem, &refused.key);
        let problem = problem(with(tls)).await;
        assert!(matches!(problem, TlsProblem::ClientCertificateRefused(_)), "{problem}");
    }
}

fn secured_without_login(host: &str, port: u16, tls: Tls) -> RedisOptions {
    RedisOptions { url: format!("rediss://{host}:{port}"), ..secured(host, port, tls) }
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_is_not_there() {
    let mut server = RedisServer::start().await;
    let options = || secured("127.0.0.1", server.port(), believing(&Authority::new("ours")));
    assert_eq!(problem(options()).await, TlsProblem::ServerIsPlain);
    let gone = options();
    server.kill().await;
    let error = refusal(gone).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_server_with_tls_behind_a_plain_url_is_named_as_such() {
    let authority = Authority::new("ours");
    let certificate = authority.issue(&["localhost"], Validity::Now);
    for clients in [None, Some(&authority)] {
        let server = RedisServer::builder().tls(&certificate, clients).start().await;
        let error = options(format!("redis://default:{SECRET}@localhost:{}", server.tls_port()));
        assert_eq!(problem(error).await, TlsProblem::ServerIsTls);
    }
}

#[tokio::test]
async fn a_cluster_of_an_unknown_authority_is_refused_and_diagnosed() {
    let authority = Authority::new("ours");
    let cluster = RedisCluster::builder().tls(&authority).start().await;
    assert_only_its_own_authority_is_believed(&authority, &cluster.url()).await;
}

#[tokio::test]
async fn sentinels_of_an_unknown_authority_are_refused_and_diagnosed() {
    let authority = Authority::new("ours");
    let servers = Sentinels::builder().tls(&authority).start().await;
    assert_only_its_own_authority_is_believed(&authority, &servers.url()).await;
}

async fn assert_only_its_own_authority_is_believed(authority: &Authority, url: &str) {
    let client = authority.issue(&["client"], Validity::Now);
    let believing = |ca: &Authority| RedisOptions {
        tls: Some(Tls::new().ca_pem(ca.pem()).client_pem(&client.pem, &client.key)),
        ..options(url)
    };
    assert!(connect(believing(authority)).await.is_ok());
    let diagnosis = diagnose(&believing(authority), &[]).await;
    assert!(diagnosis.findings().all(|finding| !NO_CONNECTION.contains(&finding.kind())), "{diagnosis}");

    let impostor = believing(&Authority::new("ours"));
    let error = refusal(impostor.clone()).await;
    assert!(matches!(error, ConnectError::Tls { problem: TlsProblem::UnknownCa, .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:"), "{error}");
    let diagnosis = diagnose(&impostor, &[]).await;
    assert!(diagnosis.findings().any(|finding| finding.kind() == FindingKind::Tls), "{diagnosis}");
}

/// What a cluster without `tls-cluster` names to its clients does not speak TLS.
#[tokio::test]
async fn a_cluster_that_names_its_plain_ports_is_told_as_such() {
    let authority = Authority::new("ours");
    let certificate = authority.issue(&["127.0.0.1"], Validity::Now);
    let server = RedisServer::builder().tls(&certificate, None).arg("cluster-enabled", "yes").start().await;
    assert!(server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await.is_ok());
    let url = format!("rediss-cluster://127.0.0.1:{}", server.tls_port());
    assert_named_as_plain(RedisOptions { tls: Some(believing(&authority)), ..options(url) }, &server).await;
}

/// As one does that is told to watch the plain port of a server.
#[tokio::test]
async fn sentinels_that_name_a_plain_port_are_told_as_such() {
    let authority = Authority::new("ours");
    let mut servers = Sentinels::builder().tls(&authority).start().await;
    let port = servers[0].port().to_string();
    for sentinel in servers.sentinels() {
        assert!(sentinel.command(&["SENTINEL", "MONITOR", "plain", "127.0.0.1", &port, "2"]).await.is_ok());
    }
    let url = servers.url().replace("sentinelServiceName=nearfar", "sentinelServiceName=plain");
    let client = authority.issue(&["client"], Validity::Now);
    let tls = believing(&authority).client_pem(&client.pem, &client.key);
    assert_named_as_plain(RedisOptions { tls: Some(tls), ..options(url) }, &servers[0]).await;
}

/// Whoever says which servers there are does not speak TLS itself.
#[tokio::test]
async fn a_plain_server_behind_a_url_with_tls_is_named_as_such_whatever_its_kind() {
    let server = RedisServer::builder().arg("cluster-enabled", "yes").start().await;
    for url in [
        format!("rediss-cluster://127.0.0.1:{}", server.port()),
        format!("rediss-sentinel://127.0.0.1:{}?sentinelServiceName=main", server.port()),
    ] {
        let options = RedisOptions { tls: Some(believing(&Authority::new("ours"))), ..options(url) };
        assert_named_as_plain(options.clone(), &server).await;
        let diagnosis = diagnose(&options, &[]).await;
        assert!(diagnosis.findings().any(|finding| finding.kind() == FindingKind::Tls), "{diagnosis}");
    }
}

async fn assert_named_as_plain(options: RedisOptions, server: &RedisServer) {
    let error = refusal(options).await;
    assert!(matches!(error, ConnectError::Tls { problem: TlsProblem::ServerIsPlain, .. }), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{}:", server.port())), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_reported_as_such_through_tls_too() {
    let authority = Authority::new("ours");
    let server = server(&authority.issue(&["localhost"], Validity::Now)).await;
    server.command(&["ACL", "SETUSER", "default", "resetpass", ">correct"]).await;
    let error = refusal(secured("localhost", server.tls_port(), believing(&authority))).await;
    assert!(matches!(error, ConnectError::AuthRefused { .. }), "{error}");
}

#[tokio::test]
async fn pem_that_cannot_be_read_is_refused_by_the_name_of_its_setting() {
    let authority = Authority::new("ours");
    let Certificate { pem, key } = authority.issue(&["client"], Validity::Now);
    let other = authority.issue(&["client"], Validity::Now).key;
    let damaged = pem.replace("MII", "M?I");
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let client = |pem: &str, key: &str| Tls::new().ca_pem(authority.pem()).client_pem(pem, key);
    for (tls, expected) in [
        (Tls::new().ca_pem(""), TlsSettingProblem::Ca),
        (Tls::new().ca_pem(&key), TlsSettingProblem::Ca),
        (Tls::new().ca_pem(&damaged), TlsSettingProblem::Ca),
        (Tls::new().ca_pem("/etc/ssl/ca.pem"), TlsSettingProblem::Ca),
        (client("", &key), TlsSettingProblem::ClientCertificate),
        (client(&damaged, &key), TlsSettingProblem::ClientCertificate),
        (client(&pem, ""), TlsSettingProblem::ClientKey),
        (client(&pem, &pem), TlsSettingProblem::ClientKey),
        (client(&pem, &encrypted), TlsSettingProblem::ClientKey),
        (client(&pem, &other), TlsSettingProblem::ClientPair),
    ] {
        assert_eq!(setting(tls).await, ConnectError::BadTls(expected));
    }
}

#[tokio::test]
async fn settings_for_tls_with_a_url_that_does_without_are_refused() {
    for url in ["redis://localhost", "redis+unix:///run/redis.sock"] {
        let tls = Some(Tls::new());
        let error = refusal(RedisOptions { tls, ..degraded(url) }).await;
        assert_eq!(error, ConnectError::BadUrl(UrlProblem::TlsUnused));
    }
}
