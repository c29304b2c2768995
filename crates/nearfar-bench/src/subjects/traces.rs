//! Recorded accesses: how many of them L1 answers, and what that takes, beside bare moka.
//!
//! `cargo run --release -p nearfar-bench -- traces --trace FILE`, with files as
//! [`accesses::trace`](nearfar_testkit::accesses::trace) reads them. Without files there is nothing to measure.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Grid, Row, Table};
use nearfar_testkit::{Stopwatch, accesses};

use super::figure;

const ROUNDS: usize = 11;
/// Longer ones are cut.
const LONGEST: usize = 1_000_000;

type Bare = moka::sync::Cache<u64, Arc<Row>>;

pub(crate) async fn measure(table: &mut Table, files: &[PathBuf]) -> Result<(), Error> {
    let mut grid = Grid::new("trace, L1 of so many entries", &["moka, % hits", "nearfar, % hits"]);
    for file in files {
        let mut trace = accesses::trace(file).unwrap_or_else(|error| panic!("{error}"));
        trace.truncate(LONGEST);
        let trace: Vec<u64> = trace.into_iter().map(u64::from).collect();
        let keys = trace.iter().collect::<BTreeSet<_>>().len() as u64;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        replay(table, &name, &trace, keys).await?;
        for entries in [keys.div_ceil(20), keys.div_ceil(5)] {
            let hits = vec![hits_of_bare(&trace, entries), hits_of_ours(&trace, entries).await?];
            grid.add(format!("{name}, {entries}"), hits);
        }
    }
    if !files.is_empty() {
        table.add_grid(grid);
    }
    Ok(())
}

async fn ours(entries: u64) -> Result<Cache<u64, Row>, Error> {
    Nearfar::in_process().cache("trace").l1_max_entries(entries).build().await
}

async fn load(id: u64) -> Result<Row, Infallible> {
    Ok(Row::new(id))
}

/// All is in L1.
async fn replay(table: &mut Table, name: &str, trace: &[u64], keys: u64) -> Result<(), Error> {
    let (bare, ours) = (Bare::new(keys * 2), ours(keys * 2).await?);
    for id in trace {
        bare.get_with(*id, || Arc::new(Row::new(*id)));
        ours.get_or_load(id, load).await?;
    }
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let watch = Stopwatch::start();
        for id in trace {
            black_box(bare.get(id).expect("it is there"));
        }
        let of_bare = per_access(watch, trace);
        let watch = Stopwatch::start();
        for id in trace {
            black_box(ours.get(id).await?.expect("it is there"));
        }
        pairs.push((of_bare, per_access(watch, trace)));
    }
    table.add(format!("L1 hit, trace {name}, 1 thread"), "moka get", "ns", &pairs);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_access(watch: Stopwatch, trace: &[u64]) -> f64 {
    watch.elapsed().as_nanos() as f64 / trace.len() as f64
}

fn hits_of_bare(trace: &[u64], entries: u64) -> f64 {
    let bare = Bare::new(entries);
    let mut hits = 0;
    for id in trace {
        if bare.get(id).is_some() {
            hits += 1;
        } else {
            bare.insert(*id, Arc::new(Row::new(*id)));
        }
    }
    percent(hits, trace)
}

async fn hits_of_ours(trace: &[u64], entries: u64) -> Result<f64, Error> {
    let ours = ours(entries).await?;
    for id in trace {
        ours.get_or_load(id, load).await?;
    }
    Ok(percent(ours.stats().l1_hits, trace))
}

fn percent(hits: u64, trace: &[u64]) -> f64 {
    100.0 * figure(hits) / figure(trace.len() as u64)
}
