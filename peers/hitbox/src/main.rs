//! Figures of one run: hitbox beside bare clients, on the same data as its peers.
//!
//! `cargo run --release --manifest-path peers/hitbox/Cargo.toml`. The README of the workspace above has the rest.

mod hitbox;

use std::error::Error;

use nearfar_peers_harness::{Peer, Run, Work};

use crate::hitbox::Hitbox;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut run = Run::new(std::env::args().skip(1), &[Hitbox::NAME])?;
    for work in Work::all() {
        run.measure_loader::<Hitbox>(work).await;
    }
    run.finish("peers-hitbox")?;
    Ok(())
}
