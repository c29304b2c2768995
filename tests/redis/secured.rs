//! Nodes whose connections go through TLS, or through a socket of the file system.

use std::time::Duration;

use nearfar::{Cache, Nearfar, NearfarBuilder};
use nearfar_testkit::{RedisServer, eventually};
use nearfar_tests::trusted;

async fn cache(builder: NearfarBuilder, url: &str) -> Cache<String, String> {
    let nearfar = builder.command_timeout(Duration::from_millis(500)).connect(url).await.unwrap();
    nearfar.cache("texts").max_staleness(Duration::from_millis(500)).build().await.unwrap()
}

/// That what one of them changes, the other sees, and drops its copy.
async fn hear_each_other(a: &Cache<String, String>, b: &Cache<String, String>) {
    hear_of(a, b, "k").await;
}

async fn hear_of(a: &Cache<String, String>, b: &Cache<String, String>, key: &str) {
    // What a server has lost is invalidated again, and would take with it what is set meanwhile.
    let nothing_waits = async || a.stats().outbox_keys + b.stats().outbox_keys == 0;
    eventually("nothing is left to be invalidated again", nothing_waits).await;
    a.set(key, "old".into()).await.unwrap();
    eventually("the other has a copy", async || {
        b.get(key).await.unwrap().is_some_and(|entry| *entry == "old") && b.peek(key).is_some()
    })
    .await;
    a.set(key, "new".into()).await.unwrap();
    eventually("the copy is dropped", async || b.peek(key).is_none()).await;
    assert_eq!(*b.get(key).await.unwrap().unwrap(), "new");
    b.invalidate(key).await.unwrap();
    eventually("the copy is dropped", async || a.peek(key).is_none()).await;
    assert!(a.get(key).await.unwrap().is_none());
}

/// On this server, before and after it is killed and comes back.
async fn hear_each_other_again(server: &mut RedisServer, a: Cache<String, String>, b: Cache<String, String>) {
    trusted(&a).await;
    trusted(&b).await;
    hear_each_other(&a, &b).await;
    server.kill().await;
    eventually("the loss is noticed", async || !a.stats().trusted && !b.stats().trusted).await;
    server.restart_empty().await;
    trusted(&a).await;
    trusted(&b).await;
    hear_each_other(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_a_socket_hear_each_other_and_come_back_after_a_crash() {
    let mut server = RedisServer::builder().socket().start().await;
    let url = server.url();
    let node = async || cache(Nearfar::builder(), &url).await;
    hear_each_other_again(&mut server, node().await, node().await).await;
}

/// That a node which follows foreign writes is told of one.
async fn is_told(cache: &Cache<String, String>, server: &RedisServer) {
    let _following = cache.follow_foreign_writes().await.unwrap();
    trusted(cache).await;
    cache.set("k", "v".into()).await.unwrap();
    assert!(cache.peek("k").is_some());
    assert_eq!(server.command(&["DEL", "{texts.0}:k"]).await.int(), Some(1));
    eventually("the copy goes", async || cache.peek("k").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_writes_are_told_on_a_socket() {
    let server = RedisServer::builder().socket().start().await;
    is_told(&cache(Nearfar::builder(), &server.url()).await, &server).await;
}

mod tls {
    use nearfar::{Cache, ErrorKind, Nearfar, Tls};
    use nearfar_core::PartitionId;
    use nearfar_testkit::{Authority, RedisCluster, RedisServer, Sentinels, Validity, eventually};
    use nearfar_tests::trusted;

    use super::{cache, hear_each_other, hear_each_other_again, hear_of, is_told};

    /// What a node says that believes this authority and has a certificate of it.
    fn of(authority: &Authority) -> Tls {
        let client = authority.issue(&["node"], Validity::Now);
        Tls::new().ca_pem(authority.pem()).client_pem(&client.pem, &client.key)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nodes_hear_each_other_and_come_back_after_a_crash() {
        let authority = Authority::new("ours");
        let certificate = authority.issue(&["localhost"], Validity::Now);
        let mut server = RedisServer::builder().tls(&certificate, Some(&authority)).start().await;
        let url = format!("rediss://localhost:{}", server.tls_port());
        let node = async || cache(Nearfar::builder().tls(of(&authority)), &url).await;
        hear_each_other_again(&mut server, node().await, node().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn foreign_writes_are_told_with_tls() {
        let authority = Authority::new("ours");
        let certificate = authority.issue(&["localhost"], Validity::Now);
        let server = RedisServer::builder().tls(&certificate, Some(&authority)).start().await;
        let url = format!("rediss://localhost:{}", server.tls_port());
        is_told(&cache(Nearfar::builder().tls(of(&authority)), &url).await, &server).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nodes_on_a_cluster_hear_each_other_in_all_partitions_and_follow_a_failover() {
        let authority = Authority::new("ours");
        let mut cluster = RedisCluster::builder().tls(&authority).start().await;
        let url = cluster.url();
        let node = async || cache(Nearfar::builder().tls(of(&authority)), &url).await;
        let (a, b) = (node().await, node().await);
        hear_each_other_everywhere(&a, &b).await;

        let victim = cluster.primaries().await[0];
        cluster[victim].kill().await;
        eventually("the loss is noticed", async || !a.stats().trusted && !b.stats().trusted).await;
        cluster.replace(victim).await;
        hear_each_other_everywhere(&a, &b).await;
    }

    async fn hear_each_other_everywhere(a: &Cache<String, String>, b: &Cache<String, String>) {
        trusted(a).await;
        trusted(b).await;
        for partition in 0..16 {
            let mut keys = (0..).map(|number: u32| number.to_string());
            let key = keys.find(|key| PartitionId::index_of(key.as_bytes(), 16) == partition).unwrap();
            hear_of(a, b, &key).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nodes_behind_sentinels_hear_each_other_and_follow_a_failover() {
        let authority = Authority::new("ours");
        let mut servers = Sentinels::builder().tls(&authority).start().await;
        let url = servers.url();
        let node = async || cache(Nearfar::builder().tls(of(&authority)), &url).await;
        let (a, b) = (node().await, node().await);
        trusted(&a).await;
        trusted(&b).await;
        hear_each_other(&a, &b).await;

        let primary = servers.primary().await;
        servers[primary].kill().await;
        eventually("the loss is noticed", async || !a.stats().trusted && !b.stats().trusted).await;
        servers.replace(primary).await;
        trusted(&a).await;
        trusted(&b).await;
        hear_each_other(&a, &b).await;
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_and_nothing_secret_with_it() {
        let authority = Authority::new("ours");
        let certificate = authority.issue(&["localhost"], Validity::Now);
        let server = RedisServer::builder().tls(&certificate, None).start().await;
        let url = format!("rediss://:hunter2@localhost:{}", server.tls_port());
        let refused = async |tls: Tls, url: &str| {
            let error = Nearfar::builder().tls(tls).connect(url).await.unwrap_err();
            let text = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
            assert!(!text.contains("hunter2") && !text.contains("PRIVATE"), "{text}");
            (error.kind(), error.to_string())
        };
        let (kind, text) = refused(Tls::new(), &url).await;
        assert_eq!(kind, ErrorKind::Unavailable);
        assert!(text.contains("`ca_pem`"), "{text}");
        let (kind, text) = refused(Tls::new().client_pem(&certificate.key, &certificate.pem), &url).await;
        assert_eq!(kind, ErrorKind::Config);
        assert!(text.contains("`client_pem`"), "{text}");
        let (kind, text) = refused(Tls::new(), "redis://:hunter2@localhost").await;
        assert_eq!(kind, ErrorKind::Config);
        assert!(text.contains("`rediss://`"), "{text}");
    }

    /// A node must never begin to trust a server that it would not have begun with.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_comes_back_with_a_wrong_certificate_is_not_talked_to() {
        let authority = Authority::new("ours");
        let certificate = authority.issue(&["localhost"], Validity::Now);
        let mut server =
            RedisServer::builder().arg("loglevel", "debug").tls(&certificate, None).start().await;
        let url = format!("rediss://localhost:{}", server.tls_port());
        let node = cache(Nearfar::builder().tls(Tls::new().ca_pem(authority.pem())), &url).await;
        trusted(&node).await;

        let impostor = Authority::new("ours").issue(&["localhost"], Validity::Now);
        server.replace_certificate(&impostor);
        server.restart_empty().await;
        let refused = || server.log().matches("Error accepting a client connection").count();
        let before = refused();
        eventually("the node has tried several times", async || refused() > before + 5).await;
        assert!(node.get("k").await.unwrap_err().is_unavailable());
        assert!(!node.stats().trusted);

        server.replace_certificate(&certificate);
        server.restart_empty().await;
        trusted(&node).await;
    }
}
