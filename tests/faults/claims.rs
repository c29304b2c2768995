//! One load per cluster of processes, and what becomes of it when the one who loads dies or stands still.

use std::process::Command;
use std::time::Duration;

use nearfar::{Cache, Nearfar};
use nearfar_testkit::{Program, eventually};

use crate::servers::{Servers, on_single_and_cluster};

/// How a process of callers is set.
#[derive(Clone, Copy)]
struct Setup {
    callers: u32,
    claim: Duration,
    load_takes: Duration,
    value: u64,
}

const AGES: Duration = Duration::from_secs(3600);

impl Setup {
    /// Starts a process that waits for the start.
    async fn start(self, servers: &Servers) -> Program {
        let Self { callers, claim, load_takes, value } = self;
        let mut command = Command::new(env!("CARGO_BIN_EXE_claimer"));
        command.args([servers.url(), callers.to_string(), claim.as_millis().to_string()]);
        command.args([load_takes.as_millis().to_string(), value.to_string()]);
        let mut program = Program::start(command);
        assert_eq!(program.line().await.as_deref(), Some("ready"));
        program
    }
}

/// A node of this process, which the others wait for.
async fn starter(servers: &Servers) -> (Nearfar, Cache<String, u64>) {
    let nearfar = Nearfar::connect(&servers.url()).await.unwrap();
    let cache = nearfar.cache("claims").build().await.unwrap();
    (nearfar, cache)
}

/// Waits until a node waits for the claim of another.
async fn somebody_waits(servers: &Servers, cache: &Cache<String, u64>) {
    let partitions = cache.stats().partitions.try_into().unwrap();
    let index = nearfar_core::PartitionId::index_of(b"cold", partitions);
    let claim = format!("{{claims.{index}}}#claim:cold");
    eventually("somebody waits for the claim", async || {
        let text = servers.ask(&claim, &["GET", &claim]).await;
        text.text().is_some_and(|text| text.split(' ').count() == 4)
    })
    .await;
}

on_single_and_cluster! {
    async fn a_thousand_callers_in_four_processes_cost_one_load(servers: Servers) {
        let setup = Setup { callers: 250, claim: AGES / 100, load_takes: Duration::from_millis(50), value: 7 };
        let mut programs = Vec::new();
        for _ in 0..4 {
            programs.push(setup.start(&servers).await);
        }
        let (_nearfar, cache) = starter(&servers).await;
        cache.set("start", 1).await.unwrap();
        let mut loads = 0;
        for program in &mut programs {
            let mut line = program.line().await.unwrap();
            while line == "loads" {
                loads += 1;
                line = program.line().await.unwrap();
            }
            assert_eq!(line, "done {7}");
        }
        assert_eq!(loads, 1);
    }

    async fn when_the_claimer_is_killed_another_takes_over(servers: Servers) {
        // Long enough for another process to start.
        let claim = Duration::from_secs(8);
        let hangs = Setup { callers: 1, claim, load_takes: AGES, value: 1 };
        let mut first = hangs.start(&servers).await;
        let (_nearfar, cache) = starter(&servers).await;
        cache.set("start", 1).await.unwrap();
        assert_eq!(first.line().await.as_deref(), Some("loads"));
        let next = Setup { callers: 250, load_takes: Duration::ZERO, value: 2, ..hangs };
        let mut second = next.start(&servers).await;
        somebody_waits(&servers, &cache).await;
        first.kill();
        assert_eq!(second.line().await.as_deref(), Some("loads"));
        assert_eq!(second.line().await.as_deref(), Some("done {2}"));
    }

    /// It goes on when another has loaded what has changed since.
    async fn what_a_claimer_that_stood_still_has_loaded_is_not_stored(servers: Servers) {
        let claim = Duration::from_secs(1);
        let slow = Setup { callers: 1, claim, load_takes: Duration::from_millis(100), value: 1 };
        let mut first = slow.start(&servers).await;
        let (_nearfar, cache) = starter(&servers).await;
        cache.set("start", 1).await.unwrap();
        assert_eq!(first.line().await.as_deref(), Some("loads"));
        first.pause();
        cache.invalidate("cold").await.unwrap();
        let mut second = Setup { callers: 10, value: 2, ..slow }.start(&servers).await;
        assert_eq!(second.line().await.as_deref(), Some("loads"));
        assert_eq!(second.line().await.as_deref(), Some("done {2}"));
        first.resume();
        assert_eq!(first.line().await.as_deref(), Some("done {1}"), "its caller began before the change");
        assert_eq!(cache.get("cold").await.unwrap().as_deref(), Some(&2));
        // In L2, whatever this node has in L1.
        let (_nearfar, fresh) = starter(&servers).await;
        assert_eq!(fresh.get("cold").await.unwrap().as_deref(), Some(&2));
    }
}
