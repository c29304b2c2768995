//! Figures of one run: nearfar beside bare moka and bare fred, in turn, on the same data.
//!
//! `cargo run --release -p nearfar-bench` measures everything, on servers of its own; `-- write log` only that. Each row
//! is the median of the rounds, and the ratio is the median of the ratios of neighbouring measurements: the machine may
//! be noisy, both sides share it.
//!
//! What has nothing bare to stand beside is a grid: a row per case, each figure the median of the rounds.
//! `-- outage --seconds 60 --rounds 1` lets each of its phases last so long, and does them so often.

mod bare;
mod batches;
mod effort;
mod grid;
mod hits;
mod l1;
mod l2;
mod log;
mod macros;
mod outage;
mod propagation;
mod replay;
mod sizes;
mod spread;
mod stampede;
mod table;
mod traffic;
mod trust;
mod write;
mod xfetch;

use std::error::Error as StdError;

use nearfar::{Cache, Error, Nearfar};
use nearfar_testkit::RedisServer;
use serde::{Deserialize, Serialize};

use crate::effort::Effort;
use crate::table::Table;

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

/// What can be measured, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    L1,
    Hits,
    Macros,
    Trust,
    L2,
    Write,
    Propagation,
    Replay,
    Log,
    Stampede,
    Xfetch,
    Outage,
    Sizes,
    Batches,
}

impl Subject {
    const ALL: [(&str, Subject); 14] = [
        ("l1", Self::L1),
        ("hits", Self::Hits),
        ("macros", Self::Macros),
        ("trust", Self::Trust),
        ("l2", Self::L2),
        ("write", Self::Write),
        ("propagation", Self::Propagation),
        ("replay", Self::Replay),
        ("log", Self::Log),
        ("stampede", Self::Stampede),
        ("xfetch", Self::Xfetch),
        ("outage", Self::Outage),
        ("sizes", Self::Sizes),
        ("batches", Self::Batches),
    ];

    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names = || Self::ALL.map(|(known, _)| known).join(", ");
        found.map(|(_, subject)| *subject).ok_or_else(|| format!("no table {name:?}: there are {}", names()))
    }

    async fn measure(self, table: &mut Table, effort: Effort) -> Result<(), Error> {
        let server = RedisServer::start().await;
        match self {
            Self::L1 => l1::measure(table, &server).await,
            Self::Hits => hits::measure(table, &server).await,
            Self::Macros => macros::measure(table, &server).await,
            Self::Trust => {
                trust::measure(table);
                Ok(())
            }
            Self::L2 => l2::measure(table, &server).await,
            Self::Write => write::measure(table, &server).await,
            Self::Propagation => propagation::measure(table, &server).await,
            Self::Replay => replay::measure(table, &server).await,
            Self::Log => log::measure(table, &server).await,
            Self::Stampede => stampede::measure(table, &server).await,
            Self::Xfetch => xfetch::measure(table, &server).await,
            Self::Outage => outage::measure(table, effort).await,
            Self::Sizes => sizes::measure(table, &server).await,
            Self::Batches => batches::measure(table, &server).await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let (effort, rest) = Effort::parse(std::env::args().skip(1))?;
    let named = rest.iter().map(|name| Subject::named(name)).collect::<Result<Vec<_>, _>>()?;
    let wanted = |subject: &Subject| named.is_empty() || named.contains(subject);
    let mut table = Table::default();
    for subject in Subject::ALL.map(|(_, subject)| subject).into_iter().filter(wanted) {
        Box::pin(subject.measure(&mut table, effort)).await?;
    }
    print!("{table}");
    Ok(())
}

/// A cache of rows on a server.
async fn rows(server: &RedisServer, l1_max_entries: u64) -> Result<Cache<u64, Row>, Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    nearfar.cache("rows").l1_max_entries(l1_max_entries).build().await
}
