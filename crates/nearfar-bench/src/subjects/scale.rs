//! What a write costs, and what a node costs that does nothing, as nodes are added: on the server and on the nodes.

use std::time::Duration;

use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Grid, Table};
use nearfar_testkit::{RedisServer, Stopwatch, eventually, let_pass, process_time};

use super::figure;

const WRITES: u64 = 4_000;
const IDLE: Duration = Duration::from_secs(3);
const COLUMNS: &[&str] =
    &["us server/write", "B out/write", "us node/message", "server us/s/node", "B/s/node", "node us/s"];

pub(crate) async fn measure(table: &mut Table) -> Result<(), Error> {
    let mut grid = Grid::new("nodes", COLUMNS);
    for count in [1, 2, 4, 8, 16, 32, 64] {
        let server = RedisServer::start().await;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(node(&server).await?);
        }
        let nodes_as_figure = figure(count);
        let idle = Spent::during(&server, async || let_pass(IDLE).await).await;
        let seconds = idle.wall.as_secs_f64() * nodes_as_figure;
        let busy = Spent::during(&server, async || write(&nodes).await).await;
        // What it costs to be there goes off.
        let share = busy.wall.as_secs_f64() / idle.wall.as_secs_f64();
        let less = |busy: f64, idle: f64| (busy - idle * share).max(0.0);
        let writes = figure(WRITES);
        grid.add(
            format!("{count}"),
            vec![
                less(busy.server, idle.server) / writes,
                less(busy.bytes, idle.bytes) / writes,
                less(busy.nodes, idle.nodes) / writes / nodes_as_figure,
                idle.server / seconds,
                idle.bytes / seconds,
                idle.nodes / seconds,
            ],
        );
    }
    table.add_grid(grid);
    Ok(())
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
    let mut info = String::new();
    for section in ["cpu", "stats"] {
        let text = server.command(&["INFO", section]).await;
        info.push_str(text.text().expect("INFO is text"));
    }
    let of = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|number| number.trim().parse::<f64>().ok()).expect("every server tells it")
    };
    (of("used_cpu_sys") + of("used_cpu_user"), of("total_net_output_bytes"))
}
