//! What an outage of the server costs those who ask three nodes meanwhile, and what its return does.
//!
//! 48 readers, 16 per node, each 10 reads of keys that are in L1, one of a key that nobody has read before, and one of a
//! key that others write, then a pause; 6 writers. The origin takes 2 ms. Who waits asks for nothing else, so that hangs
//! show in the latencies and in fewer reads per second.
//!
//! `cargo run --release -p nearfar-bench -- outage`, in which nodes, callers and server shared two cores. "Beginning" is the
//! first 3 s, "later" the 5 s after; `docs/freshness.md` has the rest, and what the return does:
//!
//! ```text
//!                               warm p50     cold p50     cold max   over 500 ms   loads/s
//! Killed, Bypass: healthy         1.7 us       6.5 ms        27 ms             0      1939
//! Killed, Bypass: beginning       3.4 ms       3.3 ms      1011 ms             5      8877
//! Killed, Bypass: later           3.4 ms       3.4 ms        16 ms             0      9044
//! Silent, ServeFor: healthy       1.6 us       6.3 ms        25 ms             0      1908
//! Silent, ServeFor: beginning     1.6 us       3.2 ms      1011 ms            56      1682
//! Silent, ServeFor: later         1.6 us       3.2 ms        12 ms             0      2436
//! ```

use std::time::Duration;

use nearfar::{Disconnected, Error};
use nearfar_bench::{Grid, Table, micros};
use nearfar_testkit::{RedisServer, Stopwatch, eventually, let_pass};

use super::figure;
use super::traffic::{MAX_STALENESS, Seen, Traffic, Work};
use crate::effort::Effort;

/// Until trust is over, and every time limit has been met once.
const BEGINNING: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

const PHASES: &[&str] = &[
    "reads/s",
    "warm p50 us",
    "warm p99",
    "warm max",
    "cold p50 ms",
    "cold p99",
    "cold max",
    "write p50",
    "write p99",
    "write max",
    "over 500 ms",
    "loads/s",
    "outbox keys",
    "RSS MB",
];
const RETURN: &[&str] =
    &["trusted ms", "emptied ms", "commands/s", "after", "loads/s", "after", "queued keys"];

/// What happens to the server.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is killed, and comes back with its data.
    Killed,
    /// It says nothing, and its connections stay open.
    Silent,
}

impl Fault {
    async fn begin(self, server: &mut RedisServer) {
        match self {
            Self::Killed => server.kill().await,
            Self::Silent => server.pause().await,
        }
    }

    async fn end(self, server: &mut RedisServer) {
        match self {
            Self::Killed => server.restart().await,
            Self::Silent => server.resume().await,
        }
    }
}

pub(crate) async fn measure(table: &mut Table, effort: &Effort) -> Result<(), Error> {
    let mut phases = Grid::new("outage, 3 nodes", PHASES);
    let mut returns = Grid::new("return of the server", RETURN);
    let for_long = Disconnected::ServeFor(Duration::from_secs(24 * 3600));
    for _ in 0..effort.rounds {
        for fault in [Fault::Killed, Fault::Silent] {
            for (name, policy) in [("Bypass", Disconnected::Bypass), ("ServeFor", for_long)] {
                let name = format!("{fault:?}, {name}");
                let mut outage = Outage { fault, name, phases: &mut phases };
                let figures = outage.live_through(policy, effort.phase).await?;
                returns.add(outage.name, figures);
            }
        }
    }
    table.add_grid(phases);
    table.add_grid(returns);
    Ok(())
}

struct Outage<'a> {
    fault: Fault,
    name: String,
    phases: &'a mut Grid,
}

impl Outage<'_> {
    /// Returns the figures of the return.
    async fn live_through(&mut self, policy: Disconnected, span: Duration) -> Result<Vec<f64>, Error> {
        // It answers when a change is on its way to the disk: what it has acknowledged outlives the process.
        let mut server = RedisServer::builder().persistent().arg("appendfsync", "everysec").start().await;
        let mut traffic = Traffic::start(&server, policy).await?;
        let before = commands(&server).await;
        let healthy = self.phase("healthy", &traffic, span).await;
        let counted = commands(&server).await;
        self.fault.begin(&mut server).await;
        self.phase("beginning", &traffic, BEGINNING).await;
        self.phase("later", &traffic, span).await;
        let queued = traffic.queued();
        self.fault.end(&mut server).await;
        let counted_before = match self.fault {
            // It has counted anew, what it has found on its disk.
            Fault::Killed => commands(&server).await,
            Fault::Silent => counted,
        };
        let (after, recovery) =
            tokio::join!(self.phase("second after", &traffic, SECOND), recovery(&traffic));
        let counted_after = commands(&server).await - counted_before;
        traffic.stop().await;
        eventually("all is as it was", async || traffic.queued() == 0 && traffic.are_trusted()).await;
        let_pass(MAX_STALENESS).await;
        assert_eq!(traffic.wrong().await, 0, "all nodes agree with the origin");
        let per_second = (counted - before) / span.as_secs_f64();
        let [trusted, emptied] = recovery;
        let (loads, loads_after) = (healthy.loads(), after.loads());
        Ok(vec![trusted, emptied, per_second, counted_after, loads, loads_after, figure(queued)])
    }

    async fn phase(&mut self, phase: &str, traffic: &Traffic, span: Duration) -> Seen {
        let seen = traffic.observe(span).await;
        let mut figures = vec![seen.reads()];
        for work in [Work::Resident, Work::Cold, Work::Write] {
            figures.extend([0.5, 0.99, 1.0].map(|quantile| seen.time(work, quantile)));
        }
        // Those that L1 answers take less than a microsecond.
        figures[1] *= 1_000.0;
        figures.extend([figure(seen.slow()), seen.loads(), figure(traffic.queued()), resident_megabytes()]);
        self.phases.add(format!("{}: {phase}", self.name), figures);
        seen
    }
}

/// Milliseconds until all nodes have trust, and until nothing is in an outbox.
async fn recovery(traffic: &Traffic) -> [f64; 2] {
    let watch = Stopwatch::start();
    let trusted = after(watch, || traffic.are_trusted());
    let emptied = after(watch, || traffic.queued() == 0);
    tokio::join!(trusted, emptied).into()
}

async fn after(watch: Stopwatch, condition: impl Fn() -> bool) -> f64 {
    eventually("the server is back", async || condition()).await;
    micros(watch) / 1_000.0
}

/// How many commands the server has executed, those inside of scripts too.
async fn commands(server: &RedisServer) -> f64 {
    let info = server.command(&["INFO", "stats"]).await;
    let line = info
        .text()
        .and_then(|info| info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")));
    line.and_then(|count| count.parse().ok()).expect("a server counts its commands")
}

/// What this process, with all nodes and their users, has in memory.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn resident_megabytes() -> f64 {
    const PAGE: f64 = 4096.0;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.map_or(f64::NAN, |pages| pages as f64 * PAGE / 1e6)
}
