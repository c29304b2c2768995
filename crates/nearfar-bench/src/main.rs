//! Figures of one run: nearfar beside bare moka and bare fred, in turn, on the same data.
//!
//! `cargo run --release -p nearfar-bench` starts a server of its own. Each row is the median of the rounds, and the
//! ratio is the median of the ratios of neighbouring measurements: the machine may be noisy, both sides share it.

mod l1;
mod l2;
mod propagation;
mod table;

use nearfar::{Cache, Error};
use nearfar_testkit::RedisServer;
use serde::{Deserialize, Serialize};

/// About 1 KiB when encoded.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    id: u64,
    name: String,
    description: String,
}

impl Row {
    fn new(id: u64) -> Self {
        Self { id, name: format!("row {id}"), description: "x".repeat(980) }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = RedisServer::start().await;
    let mut table = table::Table::default();
    l1::measure(&mut table).await?;
    l2::measure(&mut table, &server).await?;
    propagation::measure(&mut table, &server).await?;
    print!("{table}");
    Ok(())
}

/// A cache of rows on a server.
async fn rows(server: &RedisServer, l1_max_entries: u64) -> Result<Cache<u64, Row>, Error> {
    let nearfar = nearfar::Nearfar::connect(&server.url()).await?;
    nearfar.cache("rows").l1_max_entries(l1_max_entries).build().await
}
