//! Writers in other languages that make changes as nodes do, by `examples/foreign_writer.py`.

use std::path::Path;
use std::time::Duration;

use nearfar::{Cache, Nearfar, Tier};
use nearfar_testkit::{RedisCluster, RedisServer, eventually};
use nearfar_tests::trusted;
use tokio::task::spawn_blocking;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/foreign_writer.py");

/// Runs the script, and returns the versions of the changes that it has made.
async fn write(url: &str, words: &[&str]) -> Vec<u64> {
    assert!(Path::new(SCRIPT).exists());
    let mut python = std::process::Command::new("python3");
    python.arg(SCRIPT).arg(url).args(words);
    let ran = spawn_blocking(move || python.output()).await.unwrap();
    let ran = ran.expect("python3 is on the PATH; without it, these tests cannot be run");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let said = String::from_utf8(ran.stdout).unwrap();
    said.lines().map(|line| line.parse().unwrap()).collect()
}

/// Two nodes with a cache of numbers.
struct Pair {
    caches: [Cache<u64, String>; 2],
}

impl Pair {
    async fn at(url: &str) -> Self {
        let build = async || {
            let nearfar =
                Nearfar::builder().connect_timeout(Duration::from_secs(20)).connect(url).await.unwrap();
            nearfar.cache("numbers").build().await.unwrap()
        };
        let pair = Self { caches: [build().await, build().await] };
        for cache in &pair.caches {
            trusted(cache).await;
        }
        pair
    }

    /// Has both nodes hold copies.
    async fn copy(&self, keys: &[u64]) {
        for key in keys {
            self.caches[0].set(key, "old".to_owned()).await.unwrap();
            for cache in &self.caches {
                eventually("it is in L1", async || {
                    cache.get(key).await.unwrap().is_some_and(|entry| entry.tier() == Tier::L1)
                })
                .await;
            }
        }
    }

    async fn drop_all(&self, keys: &[u64]) {
        for (key, cache) in keys.iter().flat_map(|key| self.caches.iter().map(move |cache| (key, cache))) {
            eventually("the copy goes", async || cache.peek(key).is_none()).await;
            assert!(cache.get(key).await.unwrap().is_none());
        }
    }

    /// What a message that is not as nodes write them would cost.
    fn trouble(&self) -> u64 {
        let stats = self.caches.iter().map(Cache::stats);
        stats.map(|stats| stats.bad_frames + stats.doubts + stats.unreadable + stats.resyncs).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_script_invalidates_sets_and_clears_on_all_nodes() {
    let server = RedisServer::start().await;
    let pair = Pair::at(&server.url()).await;
    pair.copy(&[1, 42, 43]).await;
    let before = pair.trouble();

    let versions = write(&server.url(), &["numbers", "invalidate", "42", "43"]).await;
    pair.drop_all(&[42, 43]).await;
    assert_eq!(pair.caches.each_ref().map(|cache| cache.peek(&1).is_some()), [true; 2]);
    assert_eq!(versions.len(), 1, "one message for both");

    let text = "a text of more than thirty-two bytes, in MessagePack";
    for text in ["short", text] {
        let version = write(&server.url(), &["numbers", "set", "1", text, "--ttl", "60"]).await;
        for cache in &pair.caches {
            eventually("the new value is read", async || {
                cache.get(&1).await.unwrap().is_some_and(|entry| *entry == text)
            })
            .await;
            assert_eq!(cache.get(&1).await.unwrap().unwrap().version().number(), version[0]);
        }
    }

    pair.copy(&[42]).await;
    write(&server.url(), &["numbers", "clear"]).await;
    pair.drop_all(&[1, 42]).await;
    assert_eq!(pair.trouble(), before, "messages and envelopes are as nodes write them");
    assert!(
        pair.caches[0].set(&42, "next".to_owned()).await.unwrap().version().unwrap().number() > versions[0]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_needs_few_rights() {
    let server = RedisServer::start().await;
    let pair = Pair::at(&server.url()).await;
    pair.copy(&[42]).await;
    let rights = "~{numbers.*}* ~{numbers}#meta &{numbers.*}#* \
                  +eval +persist +get +set +publish +xadd +del +time +info";
    let words = ["ACL", "SETUSER", "app", "on", ">pw", "resetkeys", "resetchannels", "-@all"];
    let words: Vec<&str> = words.into_iter().chain(rights.split_whitespace()).collect();
    assert!(server.command(&words).await.is_ok());
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port());
    write(&url, &["numbers", "set", "42", "new"]).await;
    write(&url, &["numbers", "invalidate", "42"]).await;
    pair.drop_all(&[42]).await;
}

/// A load that read the old row before it was changed must not put it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_python_script_invalidates_is_fenced() {
    let server = RedisServer::start().await;
    let pair = Pair::at(&server.url()).await;
    let url = server.url();
    let load = move |_| async move {
        write(&url, &["numbers", "invalidate", "7"]).await;
        Ok::<_, std::io::Error>("read before the change".to_owned())
    };
    let loaded = pair.caches[0].get_or_load(&7, load).await.unwrap();
    assert_eq!(*loaded, "read before the change");
    for cache in &pair.caches {
        assert!(cache.get(&7).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_the_script_finds_the_server() {
    let cluster = RedisCluster::start().await;
    let pair = Pair::at(&cluster.url()).await;
    let keys: Vec<u64> = (0..20).collect();
    pair.copy(&keys).await;
    let words: Vec<String> = keys.iter().map(u64::to_string).collect();
    let words: Vec<&str> =
        ["numbers", "invalidate"].into_iter().chain(words.iter().map(String::as_str)).collect();
    write(&cluster[0].url(), &words).await;
    pair.drop_all(&keys).await;
    pair.copy(&keys[..3]).await;
    assert_eq!(write(&cluster[0].url(), &["numbers", "clear"]).await.len(), 16, "in each partition");
    pair.drop_all(&keys[..3]).await;
}
