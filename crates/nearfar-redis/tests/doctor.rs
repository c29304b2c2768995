//! The doctor on real servers: each finding is provoked by a setting or a state, and absent without it.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::time::Duration;

use common::{NODE, beat, documented_rights, namespace, options, pair, partition, set};
use nearfar_core::backend::{L2, Settings};
use nearfar_redis::{Diagnosis, Expected, Finding, FindingKind, RedisOptions, Severity, Subject, diagnose};
use nearfar_testkit::{Direction, FaultProxy, Flow, RedisServer, Sentinels, Stopwatch, eventually};

use FindingKind::{
    BadNamespace, BadUrl, Before7, BusyThreshold, ClientsNearlyFull, ClockWentBack, ClusterMode,
    EvictsFences, FsyncEverySecond, FsyncNo, IdleClients, KeepaliveOff, LoginRefused, MinReplicasLagLong,
    NamespaceDisagrees, NamespaceUnused, NearlyFull, NoAnswer, NoMinReplicas, NotAsked, OutputBufferSmall,
    OutputBufferUnlimited, Replica, ReplicaLags, RightsMissing, RightsWanted, ScriptsRefused, SentinelItself,
    SettingsUnreadable, SilentNodes, SlowRoundTrips, Snapshots, StalenessTight, TooFewReplicas, Unreachable,
    WritesStopped,
};

const SECRET: &str = "hunter2";

async fn examined(url: String, namespaces: &[&str]) -> Diagnosis {
    let subject = |name: &&str| Subject { name: (*name).to_owned(), expected: None };
    let subjects: Vec<_> = namespaces.iter().map(subject).collect();
    diagnose(&options(url), &subjects).await
}

/// What is found apart from the server's age, which is the machine's and not the test's.
fn kinds(diagnosis: &Diagnosis) -> Vec<FindingKind> {
    diagnosis.findings().map(Finding::kind).filter(|&kind| kind != Before7).collect()
}

async fn found(server: &RedisServer) -> Vec<FindingKind> {
    kinds(&examined(server.url(), &[]).await)
}

fn the(diagnosis: &Diagnosis, kind: FindingKind) -> &Finding {
    let finding = diagnosis.findings().find(|finding| finding.kind() == kind);
    finding.unwrap_or_else(|| panic!("no {kind:?} in\n{diagnosis}"))
}

async fn config(server: &RedisServer, name: &str, value: &str) {
    let answer = server.command(&["CONFIG", "SET", name, value]).await;
    assert!(answer.is_ok(), "{name} {value}: {answer:?}");
}

async fn info(server: &RedisServer, name: &str) -> Option<String> {
    let info = server.command(&["INFO", "everything"]).await;
    let line = info.text()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::to_owned)
}

#[tokio::test]
async fn a_well_kept_server_needs_nothing_and_is_left_as_it_was() {
    let server = RedisServer::start().await;
    let diagnosis = examined(server.url(), &[]).await;
    assert_eq!(kinds(&diagnosis), []);
    assert!(diagnosis.to_string().contains("Nothing to do."), "{diagnosis}");
    let facts: Vec<_> = diagnosis.examinations()[0].facts().iter().map(|fact| &*fact.about).collect();
    assert_eq!(facts, ["server", "memory", "messages", "disk", "clients", "round trip", "clock"]);
    assert_eq!(server.command(&["DBSIZE"]).await.int(), Some(0));
    assert_eq!(server.command(&["ACL", "LOG"]).await.array().unwrap().len(), 0);
    eventually("its connections are closed", async || {
        server.command(&["CLIENT", "LIST"]).await.text().unwrap().lines().count() == 1
    })
    .await;
}

#[tokio::test]
async fn a_server_older_than_7_is_noted_and_no_other() {
    let server = RedisServer::start().await;
    let version = info(&server, "redis_version").await.unwrap();
    let older = version.starts_with("6.");
    let diagnosis = examined(server.url(), &[]).await;
    assert_eq!(diagnosis.findings().any(|finding| finding.kind() == Before7), older, "{version}");
}

#[tokio::test]
async fn a_server_that_evicts_is_warned_of_and_one_that_refuses_only_when_nearly_full() {
    let server = RedisServer::builder().arg("maxmemory-policy", "allkeys-lru").start().await;
    assert_eq!(found(&server).await, [], "no limit");
    config(&server, "maxmemory", "100mb").await;
    for policy in ["allkeys-lru", "allkeys-random", "volatile-lfu", "volatile-ttl"] {
        config(&server, "maxmemory-policy", policy).await;
        let diagnosis = examined(server.url(), &[]).await;
        assert_eq!(kinds(&diagnosis), [EvictsFences]);
        assert!(the(&diagnosis, EvictsFences).seen().contains(policy));
    }
    config(&server, "maxmemory-policy", "noeviction").await;
    assert_eq!(found(&server).await, []);
    let used: u64 = info(&server, "used_memory").await.unwrap().parse().unwrap();
    config(&server, "maxmemory", &used.to_string()).await;
    assert!(found(&server).await.contains(&NearlyFull));
}

#[tokio::test]
async fn the_output_buffer_of_subscribers_is_looked_at() {
    let server = RedisServer::start().await;
    config(&server, "client-output-buffer-limit", "pubsub 1mb 0 0").await;
    let diagnosis = examined(server.url(), &[]).await;
    assert_eq!(kinds(&diagnosis), [OutputBufferSmall]);
    assert!(the(&diagnosis, OutputBufferSmall).seen().contains("1048576 0 0"));
    config(&server, "client-output-buffer-limit", "pubsub 0 0 0").await;
    assert_eq!(found(&server).await, [OutputBufferUnlimited]);
}

#[tokio::test]
async fn what_a_crash_would_bring_back_is_looked_at() {
    let server = RedisServer::start().await;
    config(&server, "save", "3600 1").await;
    let diagnosis = examined(server.url(), &[]).await;
    assert_eq!(kinds(&diagnosis), [Snapshots]);
    assert!(the(&diagnosis, Snapshots).seen().contains("3600 1"));

    config(&server, "appendonly", "yes").await;
    for (fsync, kinds) in [("always", &[][..]), ("everysec", &[FsyncEverySecond]), ("no", &[FsyncNo])] {
        config(&server, "appendfsync", fsync).await;
        assert_eq!(found(&server).await, kinds, "{fsync}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_write_its_snapshot_is_critical() {
    // Where nobody can create a file.
    let server = RedisServer::builder().arg("dir", "/dev/fd").start().await;
    config(&server, "save", "3600 1").await;
    server.command(&["BGSAVE"]).await;
    eventually("the snapshot fails", async || {
        info(&server, "rdb_last_bgsave_status").await.as_deref() == Some("err")
    })
    .await;
    let refused = server.command(&["SET", "k", "v"]).await;
    assert!(refused.text().unwrap().starts_with("MISCONF"), "{refused:?}");
    let diagnosis = examined(server.url(), &[]).await;
    assert_eq!(diagnosis.worst(), Some(Severity::Critical));
    assert!(kinds(&diagnosis).contains(&WritesStopped), "{diagnosis}");
}

async fn replica_of(primary: &RedisServer) -> RedisServer {
    config(primary, "repl-diskless-sync-delay", "0").await;
    let replica =
        RedisServer::builder().arg("replicaof", &format!("127.0.0.1 {}", primary.port())).start().await;
    eventually("it is in step", async || {
        info(primary, "slave0").await.is_some_and(|line| line.contains("state=online"))
    })
    .await;
    replica
}

#[tokio::test]
async fn a_replica_is_named_and_examined_all_the_same() {
    let primary = RedisServer::start().await;
    let replica = replica_of(&primary).await;
    config(&replica, "tcp-keepalive", "0").await;
    let diagnosis = examined(replica.url(), &["users"]).await;
    assert!(the(&diagnosis, Replica).seen().contains(&format!("127.0.0.1:{}", primary.port())));
    assert!(kinds(&diagnosis).contains(&KeepaliveOff), "{diagnosis}");
}

#[tokio::test]
async fn a_primary_must_not_go_on_without_its_replicas() {
    let primary = RedisServer::start().await;
    let _replica = replica_of(&primary).await;
    assert_eq!(found(&primary).await, [NoMinReplicas]);
    config(&primary, "min-replicas-to-write", "1").await;
    assert_eq!(found(&primary).await, []);
    config(&primary, "min-replicas-max-lag", "60").await;
    assert_eq!(found(&primary).await, [MinReplicasLagLong]);
    config(&primary, "min-replicas-max-lag", "0").await;
    assert_eq!(found(&primary).await, [NoMinReplicas], "which switches it off");
    config(&primary, "min-replicas-max-lag", "10").await;
    config(&primary, "min-replicas-to-write", "2").await;
    assert!(primary.command(&["SET", "k", "v"]).await.text().unwrap().starts_with("NOREPLICAS"));
    assert_eq!(found(&primary).await, [TooFewReplicas]);
}

#[tokio::test]
async fn a_replica_that_stands_still_is_warned_of() {
    let primary = RedisServer::start().await;
    let replica = replica_of(&primary).await;
    config(&primary, "min-replicas-to-write", "1").await;
    replica.pause().await;
    eventually("its silence is noticed", async || found(&primary).await == [ReplicaLags]).await;
}

#[tokio::test]
async fn settings_that_hurt_connections_and_scripts_are_found() {
    let server = RedisServer::start().await;
    for (name, bad, good, kind) in [
        ("timeout", "3", "60", IdleClients),
        ("tcp-keepalive", "0", "60", KeepaliveOff),
        ("lua-time-limit", "100", "5000", BusyThreshold),
    ] {
        config(&server, name, bad).await;
        assert_eq!(found(&server).await, [kind]);
        config(&server, name, good).await;
        assert_eq!(found(&server).await, []);
    }
}

/// It has room for one connection, and nearfar needs two.
#[tokio::test]
async fn a_server_without_room_for_a_second_connection_is_critical() {
    let server = RedisServer::start().await;
    config(&server, "maxclients", "1").await;
    eventually("the room is free for the doctor", async || {
        let kinds = found(&server).await;
        kinds.contains(&ClientsNearlyFull) && kinds.contains(&NoAnswer)
    })
    .await;
}

#[tokio::test]
async fn a_node_of_a_cluster_is_no_single_server() {
    let server = RedisServer::builder().arg("cluster-enabled", "yes").start().await;
    let diagnosis = examined(server.url(), &[]).await;
    assert_eq!(kinds(&diagnosis), [ClusterMode]);
}

#[tokio::test]
async fn behind_sentinels_it_is_the_primary_that_is_examined() {
    let mut sentinels = Sentinels::start().await;
    let primary = sentinels.primary().await;
    eventually("its replicas are in step", async || {
        kinds(&examined(sentinels.url(), &[]).await) == [NoMinReplicas]
    })
    .await;
    let diagnosis = examined(sentinels.url(), &[]).await;
    let address = format!("127.0.0.1:{}", sentinels[primary].port());
    assert_eq!(diagnosis.examinations()[0].server(), address);

    let misnamed = sentinels.url().replace("sentinelServiceName=", "sentinelServiceName=un");
    let diagnosis = examined(misnamed, &[]).await;
    assert_eq!(kinds(&diagnosis), [FindingKind::UnknownService], "{diagnosis}");

    let itself = sentinels.sentinels()[0].url();
    assert_eq!(kinds(&examined(itself, &[]).await), [SentinelItself]);
}

/// At least so slow, whatever else the machine does.
async fn slow_link(server: &RedisServer, each_way: Duration) -> FaultProxy {
    let proxy = FaultProxy::start(server.port()).await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set(direction, Flow::Delay(each_way));
    }
    proxy
}

#[tokio::test]
async fn a_far_server_is_told_from_a_near_one() {
    let server = RedisServer::start().await;
    let proxy = slow_link(&server, Duration::from_millis(100)).await;
    let of = async |command_timeout, max_staleness| {
        let settings = Settings { partitions: 1, fence_window: common::WINDOW };
        let expected = Some(Expected { settings, max_staleness });
        let options = RedisOptions { command_timeout, ..options(proxy.url()) };
        let diagnosis = diagnose(&options, &[Subject { name: "users".into(), expected }]).await;
        kinds(&diagnosis).into_iter().filter(|&kind| kind != NamespaceUnused).collect::<Vec<_>>()
    };
    config(&server, "lua-time-limit", "0").await;
    let long = Duration::from_secs(60);
    let short = Duration::from_millis(400);
    let (good, tight, slow) = tokio::join!(of(long, long), of(long, short), of(short, long));
    assert_eq!(good, []);
    assert_eq!(tight, [StalenessTight]);
    assert!(slow.contains(&SlowRoundTrips), "{slow:?}");
}

#[tokio::test]
async fn a_server_that_is_down_is_the_one_finding() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let diagnosis = examined(server.url(), &["users"]).await;
    assert_eq!(kinds(&diagnosis), [Unreachable]);
    let finding = the(&diagnosis, Unreachable);
    assert_eq!(finding.server(), format!("127.0.0.1:{}", server.port()));
    assert!(diagnosis.to_string().contains(finding.remedy()), "{diagnosis}");
}

#[tokio::test]
async fn a_paused_server_is_given_up_in_time() {
    let server = RedisServer::start().await;
    server.pause().await;
    let watch = Stopwatch::start();
    let limited = RedisOptions { connect_timeout: Duration::from_millis(700), ..options(server.url()) };
    let diagnosis = diagnose(&limited, &[]).await;
    assert_eq!(kinds(&diagnosis), [Unreachable]);
    assert!(watch.elapsed() < Duration::from_secs(3), "{:?}", watch.elapsed());
}

/// What was seen before is not lost.
#[tokio::test]
async fn a_server_that_falls_silent_during_the_examination_is_given_up_in_time() {
    let server = RedisServer::start().await;
    let proxy = slow_link(&server, Duration::from_millis(100)).await;
    let limited = RedisOptions { command_timeout: Duration::from_secs(2), ..options(proxy.url()) };
    server.command(&["CONFIG", "RESETSTAT"]).await;
    let examining = tokio::spawn(async move { diagnose(&limited, &[]).await });
    eventually("scripts are tried", async || info(&server, "cmdstat_eval").await.is_some()).await;
    let watch = Stopwatch::start();
    proxy.set(Direction::ToClient, Flow::Hold);
    let diagnosis = examining.await.unwrap();
    assert!(watch.elapsed() < Duration::from_secs(8), "{:?}", watch.elapsed());
    assert_eq!(kinds(&diagnosis)[0], NoAnswer);
    assert_eq!(diagnosis.examinations()[0].facts()[0].about, "server");
}

#[tokio::test]
async fn a_login_or_a_url_that_fails_is_the_one_finding_and_keeps_its_secrets() {
    let server = RedisServer::start().await;
    let address = format!("127.0.0.1:{}", server.port());
    for (url, kind) in [
        (format!("redis://app:{SECRET}@{address}"), LoginRefused),
        (format!("redis://app:{SECRET}@{address}/x"), BadUrl),
        (format!("http://app:{SECRET}@{address}"), BadUrl),
    ] {
        let diagnosis = examined(url, &[]).await;
        assert_eq!(kinds(&diagnosis), [kind]);
        assert!(!format!("{diagnosis} {diagnosis:?}").contains(SECRET), "{diagnosis}");
    }
}

/// A user who has these rules and no other.
async fn user(server: &RedisServer, rules: &str) -> String {
    let command = format!("ACL SETUSER app reset resetchannels on >{SECRET} {rules}");
    let answer = server.command(&command.split_whitespace().collect::<Vec<_>>()).await;
    assert!(answer.is_ok(), "{rules}: {answer:?}");
    format!("redis://app:{SECRET}@127.0.0.1:{}", server.port())
}

#[tokio::test]
async fn a_user_with_the_documented_rights_lacks_nothing_but_the_settings() {
    let server = RedisServer::start().await;
    let url = user(&server, documented_rights()).await;
    let diagnosis = examined(url, &["users"]).await;
    assert_eq!(kinds(&diagnosis), [NamespaceUnused, NotAsked]);
    assert!(the(&diagnosis, NotAsked).seen().starts_with("CONFIG GET (NOPERM"), "{diagnosis}");
    assert_eq!(server.command(&["DBSIZE"]).await.int(), Some(0));
}

#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let server = RedisServer::start().await;
    let all = format!("{} +acl|whoami", documented_rights());
    let not_tried = ["+client|id", "+info"];
    let rights =
        documented_rights().split(' ').filter(|rule| rule.starts_with('+') && !not_tried.contains(rule));
    for right in rights {
        let url = user(&server, &format!("{all} -{}", &right[1..])).await;
        let diagnosis = examined(url, &["users"]).await;
        let kind = if right == "+unsubscribe" { RightsWanted } else { RightsMissing };
        assert_eq!(the(&diagnosis, kind).seen(), format!("user app lacks {right}"));
    }
    assert_eq!(server.command(&["DBSIZE"]).await.int(), Some(0));
}

#[tokio::test]
async fn names_that_are_out_of_reach_are_named() {
    let server = RedisServer::start().await;
    for (rules, missing) in [
        ("~{users.0}* ~{users}#meta", "&{users.0}#*"),
        ("~{users}#meta &*", "~{users.0}*"),
        ("~{users.0}* &*", "~{users}#meta"),
    ] {
        let url = user(&server, &format!("+@all {rules}")).await;
        let diagnosis = examined(url.clone(), &["users"]).await;
        assert_eq!(the(&diagnosis, RightsMissing).seen(), format!("user app lacks {missing}"));
        assert_eq!(kinds(&examined(url, &[]).await), [], "nothing is known of the names that it uses");
    }
}

#[tokio::test]
async fn what_may_not_be_asked_is_a_note() {
    let server = RedisServer::start().await;
    let url = user(&server, "+@all -info -config ~* &*").await;
    let diagnosis = examined(url, &[]).await;
    assert_eq!(kinds(&diagnosis), [NotAsked]);
    assert_eq!(diagnosis.worst(), Some(Severity::Note));
    let seen = the(&diagnosis, NotAsked).seen();
    assert!(seen.contains("CONFIG GET (") && seen.contains("INFO ("), "{seen}");
}

#[tokio::test]
async fn a_command_that_was_renamed_is_named() {
    let server = RedisServer::builder().arg("rename-command", "EVALSHA ''").start().await;
    assert_eq!(kinds(&examined(server.url(), &[]).await), [ScriptsRefused, RightsMissing]);
    let server = RedisServer::builder().arg("rename-command", "PERSIST kept").start().await;
    let diagnosis = examined(server.url(), &[]).await;
    assert_eq!(kinds(&diagnosis), [RightsMissing]);
    assert!(the(&diagnosis, RightsMissing).seen().contains("PERSIST (unknown to the server)"));
}

#[tokio::test]
async fn what_stands_of_a_namespace_is_told() {
    let server = RedisServer::start().await;
    let settings = Settings { partitions: 1, fence_window: common::WINDOW };
    let (l2, _bus) = pair(&server).await;
    l2.open(&namespace(), &settings).await.unwrap();
    l2.change(&partition(), set("k", b"one")).await.unwrap();
    l2.beat(&partition(), &beat(1)).await.unwrap();

    let of = async |fence_window| {
        let settings = Settings { fence_window, ..settings };
        let expected = Some(Expected { settings, max_staleness: Duration::from_secs(5) });
        diagnose(&options(server.url()), &[Subject { name: "users".into(), expected }]).await
    };
    let diagnosis = of(common::WINDOW).await;
    assert_eq!(kinds(&diagnosis), []);
    let fact = diagnosis.examinations()[0].facts().last().unwrap();
    assert_eq!(fact.about, "namespace users");
    let begins = "fence window 60s, live nodes: 1, messages in the log: 1 (";
    assert!(fact.value.starts_with(begins), "{}", fact.value);

    let diagnosis = of(Duration::from_secs(30)).await;
    assert_eq!(kinds(&diagnosis), [NamespaceDisagrees]);
    let seen = the(&diagnosis, NamespaceDisagrees).seen();
    assert!(seen.contains("=60000`") && seen.contains("=30000`"), "{seen}");
}

#[tokio::test]
async fn a_namespace_that_is_not_as_it_should_be_is_found() {
    let server = RedisServer::start().await;
    let of = async |names: &[&str]| kinds(&examined(server.url(), names).await);
    assert_eq!(of(&["users"]).await, [NamespaceUnused]);
    assert_eq!(of(&["no spaces"]).await, [BadNamespace]);

    server.command(&["SET", "{users}#meta", "rubbish"]).await;
    assert_eq!(of(&["users"]).await, [SettingsUnreadable]);
    let settings = Settings { partitions: 1, fence_window: common::WINDOW };
    server.command(&["SET", "{users}#meta", &settings.encode()]).await;
    assert_eq!(of(&["users"]).await, []);

    let now = time(&server).await;
    server.command(&["SET", "{users.0}#head", &format!("{} 1", now + 3_600_000_000)]).await;
    server.command(&["ZADD", "{users.0}#nodes", &(now - 30_000_000).to_string(), &NODE.to_string()]).await;
    let diagnosis = examined(server.url(), &["users"]).await;
    assert_eq!(kinds(&diagnosis), [ClockWentBack, SilentNodes]);
    assert!(the(&diagnosis, SilentNodes).seen().starts_with(&format!("node {NODE} silent for 30")));
}

/// In microseconds.
async fn time(server: &RedisServer) -> u64 {
    let time = server.command(&["TIME"]).await;
    let parts: Vec<u64> =
        time.array().unwrap().iter().map(|part| part.text().unwrap().parse().unwrap()).collect();
    parts[0] * 1_000_000 + parts[1]
}

#[tokio::test]
async fn it_can_be_asked_from_any_task() {
    let server = RedisServer::start().await;
    let options = options(server.url());
    let diagnosis = tokio::spawn(async move { diagnose(&options, &[]).await }).await.unwrap();
    assert_eq!(diagnosis.examinations()[0].server(), format!("127.0.0.1:{}", server.port()));
}
