//! Figures of one run: nearfar and other cache libraries, each beside bare clients, on the same data.
//!
//! `cargo run --release --manifest-path peers/Cargo.toml` measures everything, on servers of its own; `-- l1 nearfar sisa`
//! only those works and peers. The README beside has how each peer is set up, and what it does not do. Hitbox has a
//! workspace of its own.

mod cachet;
mod multi_tier_cache;
mod nearfar;
mod oxcache;
mod rustis;
mod sisa;

use std::error::Error;
use std::process::{Command, ExitCode};

use nearfar_peers_harness::{Peer, Run, Work};

use crate::cachet::Cachet;
use crate::multi_tier_cache::MultiTierCache;
use crate::nearfar::Nearfar;
use crate::oxcache::Oxcache;
use crate::rustis::Rustis;
use crate::sisa::Sisa;

const PEERS: &[&str] =
    &[Nearfar::NAME, MultiTierCache::NAME, Oxcache::NAME, Sisa::NAME, Rustis::NAME, Cachet::NAME];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if oxcache::may_connect() {
        measure()?;
        return Ok(ExitCode::SUCCESS);
    }
    // The environment of a running program cannot be changed safely; that of another can.
    let mut again = Command::new(std::env::current_exe()?);
    let (name, value) = oxcache::PERMISSION;
    let status = again.args(std::env::args_os().skip(1)).env(name, value).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[tokio::main]
async fn measure() -> Result<(), Box<dyn Error>> {
    let mut run = Run::new(std::env::args().skip(1), PEERS)?;
    for work in Work::all() {
        run.measure_loader::<Nearfar>(work).await;
        run.measure_loader::<MultiTierCache>(work).await;
        run.measure_loader::<Oxcache>(work).await;
        run.measure_loader::<Sisa>(work).await;
        run.measure::<Rustis>(work).await;
        run.measure_loader::<Cachet>(work).await;
    }
    run.finish("peers")?;
    Ok(())
}
