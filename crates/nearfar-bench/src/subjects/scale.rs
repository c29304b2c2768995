//! What a write costs, and what a node costs that does nothing, as nodes are added.
//!
//! The columns, in microseconds of a processor and bytes that the server sends: of the server per write; bytes per write; of
//! the server, bytes, and of the node per second and node that does nothing; of each node that hears of a write.

use std::time::Duration;

use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Grid, Table};
use nearfar_testkit::{RedisServer, Stopwatch, eventually, let_pass, process_time};

use super::figure;
use crate::effort::Effort;

const WRITES: u64 = 4_000;
const IDLE: Duration = Duration::from_secs(3);
const COLUMNS: &[&str] = &["server/write", "B/write", "server/s", "B/s", "node/s", "node/message"];

pub(crate) async fn measure(table: &mut Table, effort: &Effort) -> Result<(), Error> {
    let mut grid = Grid::new("nodes", COLUMNS);
    for _ in 0..effort.rounds {
        let mut alone = None;
        for count in [1, 2, 4, 8, 16, 32, 64] {
            let case = Case::of(count).await?;
            let writer = *alone.get_or_insert(case.nodes_per_write);
            // What the writer takes for itself is no share of the others.
            let others = figure(count.saturating_sub(1).max(1));
            let per_message = (case.nodes_per_write - writer) / others;
            grid.add(format!("{count}"), [case.figures.as_slice(), &[per_message]].concat());
        }
    }
    table.add_grid(grid);
    Ok(())
}

/// What so many nodes cost.
struct Case {
    /// In the order of the columns, but for the last.
    figures: Vec<f64>,
    nodes_per_write: f64,
}

impl Case {
    async fn of(count: u64) -> Result<Self, Error> {
        let server = RedisServer::start().await;
        let nobody = Spent::during(&server, async || let_pass(IDLE).await).await;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(node(&server).await?);
        }
        let idle = Spent::during(&server, async || let_pass(IDLE).await).await;
        let busy = Spent::during(&server, async || write(&nodes).await).await;
        let per_node = idle.wall.as_secs_f64() * figure(count);
        // What it costs to be there goes off.
        let share = busy.wall.as_secs_f64() / idle.wall.as_secs_f64();
        let per_write = |busy: f64, idle: f64| (busy - idle * share) / figure(WRITES);
        let figures = vec![
            per_write(busy.server, idle.server),
            per_write(busy.bytes, idle.bytes),
            (idle.server - nobody.server) / per_node,
            (idle.bytes - nobody.bytes) / per_node,
            idle.nodes / per_node,
        ];
        Ok(Self { figures, nodes_per_write: per_write(busy.nodes, idle.nodes) })
    }
}

async fn node(server: &RedisServer) -> Result<Cache<u64, u64>, Error> {
    Nearfar::connect(&server.url()).await?.cache("scale").build().await
}

/// One node writes, one key after the other, and all hear of it.
async fn write(nodes: &[Cache<u64, u64>]) {
    let heard = |cache: &Cache<u64, u64>| cache.stats().invalidations_received;
    let before: Vec<u64> = nodes.iter().map(heard).collect();
    for id in 0..WRITES {
        let outcome = nodes[0].set(&id, id).await.expect("the server is up");
        assert!(outcome.is_applied());
    }
    for (cache, before) in nodes.iter().zip(before).skip(1) {
        eventually("it hears of all", async || heard(cache) >= before + WRITES).await;
    }
}

/// What was spent in some time: microseconds of processors, and bytes that the server sent.
struct Spent {
    wall: Duration,
    server: f64,
    bytes: f64,
    nodes: f64,
}

impl Spent {
    async fn during(server: &RedisServer, work: impl AsyncFnOnce()) -> Self {
        let (watch, before, nodes) = (Stopwatch::start(), figures(server).await, process_time());
        work().await;
        let (wall, after) = (watch.elapsed(), figures(server).await);
        let nodes = process_time().saturating_sub(nodes).as_secs_f64() * 1e6;
        Self { wall, server: (after.0 - before.0) * 1e6, bytes: after.1 - before.1, nodes }
    }
}

/// Seconds that processors have worked for the server, and bytes that it has sent.
async fn figures(server: &RedisServer) -> (f64, f64) {
    let info = server.command(&["INFO", "everything"]).await;
    let info = info.text().expect("INFO is text");
    let of = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|number| number.trim().parse::<f64>().ok()).expect("every server tells it")
    };
    (of("used_cpu_sys") + of("used_cpu_user"), of("total_net_output_bytes"))
}
