//! A run from beginning to end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use nearfar_testkit::RedisServer;
use tempfile::TempDir;

use crate::accesses::Accesses;
use crate::clock;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::messages::{Event, Order, Outcome, Plan, Until};
use crate::options::{Options, Redis};
use crate::origin::Origin;
use crate::progress::{Progress, step};
use crate::redis;
use crate::service::CacheSettings;
use crate::summary::{Summary, grouped};

/// Some seconds of work.
const DEFAULT_READS: u64 = 1_000_000;

pub(crate) async fn run(options: &Options) -> Result<Summary, Failure> {
    let source = accesses(options);
    let accesses = source.load()?;
    let until = until(options, accesses.len() as u64);
    let cache = CacheSettings { max_staleness: options.max_staleness, l1_entries: options.l1_entries };
    let redis = SharedRedis::get(options.redis.as_ref(), cache).await?;

    // Declared before the fleet, so that it goes after it.
    let dir = TempDir::with_prefix("storefront-").map_err(Failure::run)?;
    let database = dir.path().join("shop.db");
    let products = source.products(&accesses);
    step(&format!("filling a database with {} products", grouped(products.len() as u64)));
    seed(database.clone(), products).await?;

    let plan = Plan {
        node: 0,
        nodes: options.nodes,
        database,
        cache,
        accesses: source,
        until,
        writes_per_read: options.write_percent / (100.0 - options.write_percent),
        seed: options.seed,
    };
    let plans = (0..options.nodes).map(|node| Plan { node, ..plan.clone() }).collect();
    let mut fleet = match &redis {
        Some(redis) => Fleet::of_processes(plans, &redis.url)?,
        None => Fleet::of_tasks(plans, &accesses),
    };
    conduct(&mut fleet, &plan).await
}

fn accesses(options: &Options) -> Accesses {
    if let Some(file) = &options.trace {
        return Accesses::Trace(file.clone());
    }
    let count = options.reads.unwrap_or(DEFAULT_READS);
    Accesses::Zipf { products: options.products, count, seed: options.seed }
}

/// Without another wish, each access is replayed once.
fn until(options: &Options, accesses: u64) -> Until {
    match options.duration {
        Some(duration) => Until::Passed(duration),
        None => Until::Reads(options.reads.unwrap_or(accesses)),
    }
}

/// A Redis, and the server if it is of this run.
#[derive(Debug)]
struct SharedRedis {
    url: String,
    _server: Option<RedisServer>,
}

impl SharedRedis {
    async fn get(redis: Option<&Redis>, cache: CacheSettings) -> Result<Option<Self>, Failure> {
        let (url, server) = match redis {
            None => return Ok(None),
            Some(Redis::Url(url)) => (url.clone(), None),
            Some(Redis::Spawn) => {
                let server = redis::spawn().await?;
                step(&format!("started a Redis of this run's own at {}", server.url()));
                (server.url(), Some(server))
            }
        };
        redis::prepare(&url, cache).await?;
        Ok(Some(Self { url, _server: server }))
    }
}

async fn seed(database: PathBuf, products: BTreeSet<u32>) -> Result<(), Failure> {
    let seeding = tokio::task::spawn_blocking(move || Origin::create(&database, &products));
    seeding.await.map_err(Failure::run)?.map_err(Failure::run)
}

/// Leads nodes that have been started through the run.
async fn conduct(fleet: &mut Fleet, plan: &Plan) -> Result<Summary, Failure> {
    for _ in 0..fleet.len() {
        fleet.event().await?;
    }
    step(&match fleet.process_ids() {
        ids if ids.is_empty() => format!("{} nodes are up, all in this process", fleet.len()),
        ids => format!("{} nodes are up, each a process of its own: {ids:?}", fleet.len()),
    });
    let start = clock::micros();
    fleet.order(&Order::Start);
    let changed = serve(fleet, plan.until).await?;
    let took = clock::since(start);

    // A copy that nobody has evicted by the end of the bound would stay for good.
    let bound = plan.cache.max_staleness;
    step(&format!(
        "after the bound of {bound:?}, every node reads the {} changed products again",
        changed.len()
    ));
    clock::pause(bound).await;
    fleet.order(&Order::Sweep(changed.into_iter().collect()));
    let outcomes = outcomes(fleet).await?;
    Ok(Summary::new(outcomes, took, bound))
}

/// Shows how the nodes serve their customers. Returns the products that were changed.
async fn serve(fleet: &mut Fleet, until: Until) -> Result<BTreeSet<u32>, Failure> {
    let mut progress = Progress::new(fleet.len(), until);
    let mut seconds = clock::every(Duration::from_secs(1));
    let mut changed = BTreeSet::new();
    let mut busy = fleet.len();
    while busy > 0 {
        tokio::select! {
            event = fleet.event() => match event? {
                (node, Event::Progress(figures)) => progress.update(node, figures),
                (node, Event::Finished { figures, changed: products }) => {
                    progress.update(node, figures);
                    changed.extend(products);
                    busy -= 1;
                }
                _ => {}
            },
            _ = seconds.tick() => progress.show(),
        }
    }
    progress.end();
    Ok(changed)
}

/// What the nodes have done, in their order.
async fn outcomes(fleet: &mut Fleet) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = Vec::new();
    while outcomes.len() < fleet.len() {
        if let (node, Event::Done(outcome)) = fleet.event().await? {
            outcomes.push((node, outcome));
        }
    }
    outcomes.sort_by_key(|(node, _)| *node);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}
