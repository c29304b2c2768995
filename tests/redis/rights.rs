//! What a user must be allowed, and what is said when one of it is missing.

use std::time::Duration;

use nearfar::{Cache, Error, ErrorKind, Nearfar, NearfarBuilder};
use nearfar_testkit::{RedisCluster, RedisServer, eventually};
use nearfar_tests::{least_rights, least_rights_on_cluster, trusted};

const NAMESPACE: &str = "users";

/// Refused, these cost something, but nothing fails.
const OPTIONAL: [&str; 3] = ["+client|id", "+info", "+unsubscribe"];

fn builder() -> NearfarBuilder {
    Nearfar::builder().connect_timeout(Duration::from_secs(20))
}

/// Gives a user all the rights but one, and another in its place if that says something.
async fn user_without(server: &RedisServer, right: &str, instead: &str) -> String {
    let rights = least_rights("app", "pw", NAMESPACE).into_iter();
    let changed = rights.map(|word| if word == right { instead.to_owned() } else { word });
    server.command(&["ACL", "DELUSER", "app"]).await;
    let words: Vec<String> = changed.filter(|word| !word.is_empty()).collect();
    assert!(server.command(&words).await.is_ok(), "{words:?}");
    format!("redis://app:pw@127.0.0.1:{}", server.port())
}

async fn build(url: &str) -> Result<Cache<String, String>, Error> {
    builder().connect(url).await?.cache(NAMESPACE).build().await
}

/// What is said when a cache cannot be built for the want of a right.
async fn refused(url: &str, right: &str) -> String {
    let Err(error) = build(url).await else { panic!("it works without {right}") };
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let text = error.to_string();
    assert!(!text.contains("pw"), "{text}");
    text
}

/// The rights of the documented line, from the first of this kind on.
fn rights(kind: char) -> Vec<String> {
    let rights = least_rights("app", "pw", NAMESPACE);
    rights.into_iter().filter(|word| word.starts_with(kind)).collect()
}

#[tokio::test]
async fn without_the_right_to_a_command_the_error_names_it() {
    let server = RedisServer::start().await;
    let commands = rights('+');
    assert!(commands.len() > 15, "{commands:?}");
    for right in commands.iter().filter(|right| !OPTIONAL.contains(&right.as_str())) {
        let url = user_without(&server, right, "").await;
        let (text, command) = (refused(&url, right).await, right.trim_start_matches('+'));
        // In our own words, or where a command is refused by itself in those of the server.
        assert!(text.ends_with(right.as_str()) || text.contains(&format!("'{command}'")), "{right}: {text}");
    }
}

#[tokio::test]
async fn without_the_right_to_keys_the_error_names_them() {
    let server = RedisServer::start().await;
    let patterns = rights('~');
    assert_eq!(patterns.len(), 2, "{patterns:?}");
    for right in patterns {
        let url = user_without(&server, &right, "").await;
        let text = refused(&url, &right).await;
        assert!(text.ends_with(&right), "{right}: {text}");
    }
}

#[tokio::test]
async fn without_the_right_to_channels_the_error_names_them() {
    let server = RedisServer::start().await;
    let [right] = &rights('&')[..] else { panic!("there is one") };
    // With the second, only subscribing is refused.
    for instead in ["", "&{users.0}#echo:*", "&{users.0}#bus"] {
        let url = user_without(&server, right, instead).await;
        let text = refused(&url, right).await;
        assert!(text.ends_with(right), "{text}");
    }
}

#[tokio::test]
async fn without_an_optional_right_all_works() {
    let server = RedisServer::start().await;
    for right in OPTIONAL {
        let url = user_without(&server, right, "").await;
        let cache = build(&url).await.unwrap();
        trusted(&cache).await;
        cache.set("k", right.into()).await.unwrap();
        assert_eq!(*cache.get("k").await.unwrap().unwrap(), right);
    }
}

#[tokio::test]
async fn a_database_takes_the_right_to_select_it() {
    let server = RedisServer::start().await;
    let url = format!("{}/3", user_without(&server, "", "").await);
    let text = refused(&url, "+select").await;
    assert!(text.contains("'select'"), "{text}");
    server.command(&["ACL", "SETUSER", "app", "+select"]).await;
    assert!(build(&url).await.is_ok());
}

/// A login that is refused everything else can still be built on once it is allowed, without connecting anew.
#[tokio::test]
async fn a_right_that_is_given_later_counts_at_once() {
    let server = RedisServer::start().await;
    let url = user_without(&server, "+subscribe", "").await;
    let nearfar = builder().connect(&url).await.unwrap();
    let refused = nearfar.cache::<String, String>(NAMESPACE).build().await.unwrap_err();
    assert!(refused.to_string().ends_with("+subscribe"), "{refused}");
    server.command(&["ACL", "SETUSER", "app", "+subscribe"]).await;
    let cache: Cache<String, String> = nearfar.cache(NAMESPACE).build().await.unwrap();
    trusted(&cache).await;
}

/// A head that counts as missing is begun anew, which clears the namespace; an envelope that does is overwritten, however
/// new it is.
#[tokio::test]
async fn what_may_not_be_read_is_not_taken_for_missing() {
    let server = RedisServer::start().await;
    let url = user_without(&server, "", "").await;
    let cache = build(&url).await.unwrap();
    cache.set("k", "v".into()).await.unwrap();
    server.command(&["ACL", "SETUSER", "app", "-get", "-getrange"]).await;
    let head = server.command(&["GET", "{users.0}#head"]).await;
    let error = cache.set("k", "w".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!(server.command(&["GET", "{users.0}#head"]).await, head, "not begun anew");
    server.command(&["ACL", "SETUSER", "app", "+get", "+getrange"]).await;
    cache.set("k", "w".into()).await.unwrap();
    assert_eq!(*cache.get("k").await.unwrap().unwrap(), "w");
}

#[tokio::test]
async fn a_command_that_the_server_has_under_another_name_is_named() {
    let server = RedisServer::builder().arg("rename-command", "XADD HIDDEN").start().await;
    let error = build(&server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().ends_with("disabled or renamed there: XADD"), "{error}");
}

/// A cluster without sharded channels does not know the commands of the documented line; there it is the other line, for
/// all partitions, and the right to ask for slots.
async fn cluster_rights(cluster: &RedisCluster) -> Vec<String> {
    if cluster[0].version().await >= (7, 0) {
        return least_rights_on_cluster("app", "pw", NAMESPACE);
    }
    let words =
        least_rights("app", "pw", NAMESPACE).into_iter().map(|word| word.replace("users.0", "users.*"));
    words.chain(["+cluster|slots".to_owned()]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_the_documented_rights_are_enough_and_none_is_missed() {
    let cluster = RedisCluster::start().await;
    let words = cluster_rights(&cluster).await;
    for server in 0..6 {
        assert!(cluster[server].command(&words).await.is_ok(), "{words:?}");
    }
    let url = cluster.url().replace("://", "://app:pw@");
    let (here, there) = (build(&url).await.unwrap(), build(&url).await.unwrap());
    for key in (0..100).map(|key| format!("{key}")) {
        here.set(&key, "old".into()).await.unwrap();
        assert_eq!(*there.get(&key).await.unwrap().unwrap(), "old");
        here.invalidate(&key).await.unwrap();
        eventually("it is gone there too", async || there.get(&key).await.unwrap().is_none()).await;
        let load = |_| async { Ok::<_, std::io::Error>("new".to_owned()) };
        assert_eq!(*there.get_or_load(&key, load).await.unwrap(), "new");
    }
    here.clear().await.unwrap();
    drop(here);
    for server in 0..6 {
        let denied = cluster[server].command(&["ACL", "LOG"]).await;
        assert_eq!(denied.array().unwrap().len(), 0, "{denied:?}");
    }
}
