//! What a test may rely on in a [`RedisServer`].

use std::time::Duration;

use nearfar_testkit::{RedisServer, Reply, eventually};

async fn set(server: &RedisServer, key: &str, value: &str) {
    assert!(server.command(&["SET", key, value]).await.is_ok());
}

async fn get(server: &RedisServer, key: &str) -> Option<String> {
    server.command(&["GET", key]).await.text().map(str::to_owned)
}

#[tokio::test]
async fn servers_that_start_in_parallel_share_nothing() {
    let (one, two) = tokio::join!(RedisServer::start(), RedisServer::start());
    set(&one, "key", "one").await;
    assert_ne!(one.port(), two.port());
    assert_eq!(get(&one, "key").await.as_deref(), Some("one"));
    assert_eq!(get(&two, "key").await, None);
}

#[tokio::test]
async fn replies_of_every_kind_come_back() {
    let server = RedisServer::start().await;
    let binary: &[u8] = b"\0\r\n\xff";
    assert!(server.command(&[b"SET".as_slice(), b"key", binary]).await.is_ok());
    assert_eq!(server.command(&["GET", "key"]).await.bytes(), Some(binary));
    assert_eq!(server.command(&["GET", "nothing"]).await, Reply::Bulk(None));
    assert_eq!(server.command(&["EXISTS", "key"]).await.int(), Some(1));
    let both = server.command(&["MGET", "key", "nothing"]).await;
    assert_eq!(both, Reply::Array(vec![Reply::Bulk(Some(binary.to_vec())), Reply::Bulk(None)]));
    let error = server.command(&["INCR", "key"]).await;
    assert!(matches!(error, Reply::Error(text) if text.starts_with("ERR ")));
}

#[tokio::test]
async fn a_subscriber_hears_messages_until_it_is_killed() {
    let server = RedisServer::start().await;
    let mut subscriber = server.connect().await.unwrap();
    subscriber.command(&["SUBSCRIBE", "news"]).await.unwrap();
    assert_eq!(server.command(&["PUBLISH", "news", "hello"]).await.int(), Some(1));
    let message = subscriber.next().await.unwrap();
    assert_eq!(message.array().unwrap()[2].text(), Some("hello"));

    assert_eq!(server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.int(), Some(1));
    subscriber.next().await.unwrap_err();
}

#[tokio::test]
async fn a_paused_server_answers_once_it_is_resumed() {
    let server = RedisServer::start().await;
    let mut client = server.connect().await.unwrap();
    server.pause().await;
    let silence = tokio::time::timeout(Duration::from_millis(50), client.command(&["PING"])).await;
    assert!(silence.is_err(), "a paused server answered: {silence:?}");
    server.resume().await;
    assert_eq!(client.next().await.unwrap().text(), Some("PONG"));
}

#[tokio::test]
async fn a_crash_loses_no_acknowledged_write_of_a_persistent_server() {
    let mut server = RedisServer::builder().persistent().start().await;
    let url = server.url();
    set(&server, "key", "value").await;
    server.kill().await;
    server.try_command(&["PING"]).await.unwrap_err();
    server.restart().await;
    assert_eq!(get(&server, "key").await.as_deref(), Some("value"));
    assert_eq!(server.url(), url);
}

#[tokio::test]
async fn a_restart_without_data_keeps_the_port_and_nothing_else() {
    let mut server = RedisServer::builder().persistent().start().await;
    let port = server.port();
    set(&server, "key", "value").await;
    server.restart_empty().await;
    assert_eq!(get(&server, "key").await, None);
    assert_eq!(server.port(), port);
}

#[tokio::test]
async fn a_restart_from_a_snapshot_has_what_was_there_when_it_was_saved() {
    let mut server = RedisServer::start().await;
    set(&server, "before", "kept").await;
    assert!(server.command(&["SAVE"]).await.is_ok());
    set(&server, "after", "lost").await;
    server.restart_from_snapshot().await;
    assert_eq!(get(&server, "before").await.as_deref(), Some("kept"));
    assert_eq!(get(&server, "after").await, None);
}

#[tokio::test]
async fn a_paused_server_can_be_stopped() {
    let mut server = RedisServer::start().await;
    server.pause().await;
    server.stop().await;
    server.try_command(&["PING"]).await.unwrap_err();
    server.restart_empty().await;
    assert_eq!(server.command(&["PING"]).await.text(), Some("PONG"));
}

#[tokio::test]
async fn directives_of_one_or_several_words_reach_the_server() {
    let limit = "normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 0 0";
    let server = RedisServer::builder()
        .arg("maxmemory", "10mb")
        .arg("client-output-buffer-limit", "pubsub 1mb 0 0")
        .start()
        .await;
    let config = async |name| {
        let reply = server.command(&["CONFIG", "GET", name]).await;
        reply.array().unwrap()[1].text().unwrap().to_owned()
    };
    assert_eq!(config("maxmemory").await, "10485760");
    assert_eq!(config("client-output-buffer-limit").await, limit);
}

#[tokio::test]
async fn the_version_tells_whether_there_is_sharded_pub_sub() {
    let server = RedisServer::start().await;
    let published = server.command(&["SPUBLISH", "channel", "message"]).await;
    assert_eq!(published.int().is_some(), server.version().await >= (7, 0), "{published:?}");
}

#[tokio::test]
async fn the_log_tells_of_every_life_of_the_server() {
    let mut server = RedisServer::start().await;
    server.restart_empty().await;
    eventually("two starts are logged", async || {
        server.log().matches("Ready to accept connections").count() == 2
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "the server did not come up: it ended at once")]
async fn a_server_that_cannot_start_says_why() {
    RedisServer::builder().arg("no-such-directive", "1").start().await;
}

#[tokio::test]
#[should_panic(expected = "build the server with persistent()")]
async fn a_restart_with_data_asks_for_persistence() {
    RedisServer::start().await.restart().await;
}
