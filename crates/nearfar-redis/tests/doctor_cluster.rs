//! The doctor on Redis Cluster: each server that has slots is examined, and namespaces where their partitions are.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{NODE, beat, documented_rights, namespace, options, set};
use nearfar_core::PartitionId;
use nearfar_core::backend::{L2, Settings};
use nearfar_redis::{Diagnosis, Examination, Expected, Finding, FindingKind, Subject, connect, diagnose};
use nearfar_testkit::{RedisCluster, RedisServer, eventually};

use FindingKind::{
    Before7, ClockWentBack, ClusterDown, ClusterMode, EvictsFences, FullCoverage, NamespaceDisagrees,
    NamespaceUnused, NoCluster, NoMinReplicas, NoReplica, NoSlots, NodeTimeout, NotAsked, RightsMissing,
    RightsWanted, SilentNodes, Unreachable,
};

const SETTINGS: Settings = Settings { partitions: 16, fence_window: common::WINDOW };

/// With the settings that its nodes would ask for.
async fn examined(url: String, namespaces: &[&str]) -> Diagnosis {
    let expected = Some(Expected { settings: SETTINGS, max_staleness: Duration::from_secs(5) });
    let subjects: Vec<_> =
        namespaces.iter().map(|&name| Subject { name: name.to_owned(), expected }).collect();
    diagnose(&options(url), &subjects).await
}

/// What is found apart from the age of the servers, and from what holds for every cluster of the testkit.
fn kinds(diagnosis: &Diagnosis) -> Vec<FindingKind> {
    let always = [Before7, FullCoverage, NodeTimeout, NoMinReplicas];
    diagnosis.findings().map(Finding::kind).filter(|kind| !always.contains(kind)).collect()
}

fn all(diagnosis: &Diagnosis, kind: FindingKind) -> Vec<&Finding> {
    diagnosis.findings().filter(|finding| finding.kind() == kind).collect()
}

fn the(diagnosis: &Diagnosis, kind: FindingKind) -> &Finding {
    let found = all(diagnosis, kind);
    assert_eq!(found.len(), 1, "{kind:?} in\n{diagnosis}");
    found[0]
}

fn address(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

async fn config(server: &RedisServer, name: &str, value: &str) {
    assert!(server.command(&["CONFIG", "SET", name, value]).await.is_ok(), "{name} {value}");
}

fn partitions() -> impl Iterator<Item = PartitionId> {
    (0..16).map(|index| PartitionId::new(namespace(), index))
}

#[tokio::test]
async fn each_primary_is_examined_and_a_finding_names_its_server() {
    let cluster = RedisCluster::start().await;
    let primaries = cluster.primaries().await;
    let last = &cluster[primaries[2]];
    config(last, "maxmemory", "100mb").await;
    config(last, "maxmemory-policy", "allkeys-lru").await;
    config(last, "cluster-require-full-coverage", "no").await;
    config(last, "cluster-node-timeout", "3000").await;

    let diagnosis = examined(cluster.url(), &[]).await;
    assert_eq!(kinds(&diagnosis), [EvictsFences], "{diagnosis}");
    assert_eq!(the(&diagnosis, EvictsFences).server(), address(last));
    let examined: BTreeSet<_> = diagnosis.examinations().iter().map(|one| one.server().to_owned()).collect();
    assert_eq!(examined, primaries.iter().map(|&index| address(&cluster[index])).collect());

    let full = all(&diagnosis, FullCoverage);
    assert_eq!(full.len(), 2, "not on the last one");
    assert!(full.iter().all(|finding| finding.server() != address(last)));
    let timeouts = all(&diagnosis, NodeTimeout);
    assert_eq!(timeouts.len(), 3);
    assert!(timeouts.iter().any(|finding| finding.seen() == "`cluster-node-timeout` is 3000 ms"));
}

#[tokio::test]
async fn a_namespace_is_looked_at_where_its_partitions_are() {
    let cluster = RedisCluster::start().await;
    assert_eq!(kinds(&examined(cluster.url(), &["users"]).await), [NamespaceUnused]);

    let (l2, _bus) = connect(options(cluster.url())).await.unwrap();
    l2.open(&namespace(), &SETTINGS).await.unwrap();
    for partition in partitions() {
        l2.change(&partition, set("k", b"one")).await.unwrap();
        l2.beat(&partition, &beat(1)).await.unwrap();
    }
    let diagnosis = examined(cluster.url(), &["users"]).await;
    assert_eq!(kinds(&diagnosis), [], "{diagnosis}");
    let facts = diagnosis.examinations().iter().flat_map(Examination::facts);
    let namespaces: Vec<_> = facts.filter(|fact| fact.about == "namespace users").collect();
    let [fact] = namespaces.as_slice() else { panic!("{diagnosis}") };
    let begins = "16 partitions, fence window 60s, live nodes: 1, messages in the log: 16 (";
    assert!(fact.value.starts_with(begins), "{}", fact.value);

    let moved = PartitionId::new(namespace(), 9);
    let owner = cluster.owner_of_slot(cluster.slot_of(format!("{{{moved}}}")).await).await;
    cluster[owner].command(&["SET", "{users.9}#head", "9007199254740000 1"]).await;
    let first = cluster.owner_of_slot(cluster.slot_of("{users.0}").await).await;
    cluster[first].command(&["ZADD", "{users.0}#nodes", "1000000", &NODE.to_string()]).await;
    let diagnosis = examined(cluster.url(), &["users"]).await;
    assert_eq!(the(&diagnosis, ClockWentBack).server(), address(&cluster[owner]));
    assert_eq!(the(&diagnosis, SilentNodes).server(), address(&cluster[first]));

    let settings = Settings { partitions: 4, ..SETTINGS };
    let expected = Some(Expected { settings, max_staleness: Duration::from_secs(5) });
    let other = Subject { name: "users".to_owned(), expected };
    let diagnosis = diagnose(&options(cluster.url()), &[other]).await;
    assert!(the(&diagnosis, NamespaceDisagrees).seen().contains("partitions=16"));
}

/// The line of `docs/security.md`, with what it says of clusters, and the command by which the doctor names the user.
fn rights(prefix: &str) -> String {
    let sharded = |command: &str| (format!("+{command} "), format!("+{prefix}{command} "));
    let mut rules = documented_rights().replace("{users.0}", "{users.*}");
    for (single, cluster) in ["publish", "subscribe", "unsubscribe"].map(sharded) {
        rules = rules.replace(&single, &cluster);
    }
    format!("{rules} +cluster|slots +acl|whoami")
}

/// How the commands of channels begin: before Redis 7 none is sharded.
async fn prefix(server: &RedisServer) -> &'static str {
    let known = server.command(&["COMMAND", "INFO", "SPUBLISH"]).await;
    if known.array().unwrap()[0].array().is_some() { "s" } else { "" }
}

async fn user(servers: impl IntoIterator<Item = &RedisServer>, rules: &str) {
    let command = format!("ACL SETUSER app reset on >hunter2 {rules}");
    let command: Vec<_> = command.split_whitespace().collect();
    for server in servers {
        assert!(server.command(&command).await.is_ok(), "{rules}");
    }
}

#[tokio::test]
async fn rights_are_looked_at_on_each_server_by_the_names_of_sharded_channels() {
    let cluster = RedisCluster::start().await;
    let primaries = cluster.primaries().await;
    let servers: Vec<&RedisServer> = primaries.iter().map(|&index| &*cluster[index]).collect();
    let url = cluster.url().replace("redis-cluster://", "redis-cluster://app:hunter2@");
    let prefix = prefix(servers[0]).await;
    let rights = rights(prefix);
    user((0..6).map(|index| &*cluster[index]), &rights).await;
    let of = async |names: &[&str]| examined(url.clone(), names).await;
    let diagnosis = of(&["users"]).await;
    assert_eq!(all(&diagnosis, NotAsked).len(), 3, "of CONFIG GET and CLUSTER INFO, on each: {diagnosis}");
    the(&diagnosis, NamespaceUnused);
    assert_eq!(kinds(&diagnosis).len(), 4, "and that is all: {diagnosis}");
    // It is enough for nearfar, too.
    let (l2, _bus) = connect(options(url.clone())).await.unwrap();
    l2.open(&namespace(), &SETTINGS).await.unwrap();

    // Servers do not tell each other of users.
    let publish = format!("{prefix}publish");
    let subscribe = format!("{prefix}subscribe");
    let unsubscribe = format!("{prefix}unsubscribe");
    for (rule, kind, lacks) in [
        (format!("-{publish}"), RightsMissing, format!("+{publish}")),
        (format!("-{subscribe}"), RightsMissing, format!("+{subscribe}")),
        (format!("-{unsubscribe}"), RightsWanted, format!("+{unsubscribe}")),
        ("-xadd".to_owned(), RightsMissing, "+xadd".to_owned()),
        ("resetkeys ~{users.0}* ~{users}#meta".to_owned(), RightsMissing, "~{users.*}*".to_owned()),
        ("resetchannels &{users.0}#*".to_owned(), RightsMissing, "&{users.*}#*".to_owned()),
    ] {
        user([servers[1]], &format!("{rights} {rule}")).await;
        let diagnosis = of(&["users"]).await;
        let finding = the(&diagnosis, kind);
        assert_eq!(
            (finding.seen(), finding.server()),
            (&*format!("user app lacks {lacks}"), &*address(servers[1]))
        );
    }
}

#[tokio::test]
async fn a_primary_that_dies_without_a_replica_takes_the_whole_cluster_down() {
    let mut cluster = RedisCluster::start().await;
    let primary = cluster.primaries().await[0];
    let replica = cluster.replica_of(primary).await;
    cluster[replica].kill().await;
    eventually("its loss is noticed", async || {
        all(&examined(cluster.url(), &[]).await, NoReplica).len() == 1
    })
    .await;
    let diagnosis = examined(cluster.url(), &[]).await;
    assert_eq!(the(&diagnosis, NoReplica).server(), address(&cluster[primary]));

    cluster[primary].kill().await;
    eventually("the others give up", async || {
        all(&examined(cluster.url(), &[]).await, ClusterDown).len() == 2
    })
    .await;
    let diagnosis = examined(cluster.url(), &[]).await;
    assert_eq!(the(&diagnosis, Unreachable).server(), address(&cluster[primary]));
    assert_eq!(all(&diagnosis, FullCoverage).len(), 2);
}

#[tokio::test]
async fn a_url_for_a_cluster_needs_one_and_a_cluster_such_a_url() {
    let server = RedisServer::start().await;
    let url = |server: &RedisServer| server.url().replace("redis://", "redis-cluster://");
    assert_eq!(kinds(&examined(url(&server), &[]).await), [NoCluster]);
    let single = RedisServer::builder().arg("cluster-enabled", "yes").start().await;
    assert_eq!(kinds(&examined(url(&single), &[]).await), [NoSlots]);
    assert_eq!(kinds(&examined(single.url(), &[]).await), [ClusterMode]);
}
