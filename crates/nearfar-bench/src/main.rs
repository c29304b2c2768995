//! Figures of one run: nearfar beside bare moka and bare fred, in turn, on the same data.
//!
//! `cargo run --release -p nearfar-bench` measures everything, on servers of its own; `-- write log` only that. Each row
//! is the median of the rounds, and the ratio is the median of the ratios of neighbouring measurements: the machine may
//! be noisy, both sides share it.

mod bare;
mod l1;
mod l2;
mod log;
mod propagation;
mod replay;
mod table;
mod trust;
mod write;

use std::error::Error as StdError;

use nearfar::{Cache, Error, Nearfar};
use nearfar_testkit::RedisServer;
use serde::{Deserialize, Serialize};

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
    Trust,
    L2,
    Write,
    Propagation,
    Replay,
    Log,
}

impl Subject {
    const ALL: [(&str, Subject); 7] = [
        ("l1", Self::L1),
        ("trust", Self::Trust),
        ("l2", Self::L2),
        ("write", Self::Write),
        ("propagation", Self::Propagation),
        ("replay", Self::Replay),
        ("log", Self::Log),
    ];

    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names = || Self::ALL.map(|(known, _)| known).join(", ");
        found.map(|(_, subject)| *subject).ok_or_else(|| format!("no table {name:?}: there are {}", names()))
    }

    async fn measure(self, table: &mut Table) -> Result<(), Error> {
        let server = RedisServer::start().await;
        match self {
            Self::L1 => l1::measure(table, &server).await,
            Self::Trust => {
                trust::measure(table);
                Ok(())
            }
            Self::L2 => l2::measure(table, &server).await,
            Self::Write => write::measure(table, &server).await,
            Self::Propagation => propagation::measure(table, &server).await,
            Self::Replay => replay::measure(table, &server).await,
            Self::Log => log::measure(table, &server).await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let named = std::env::args().skip(1).map(|name| Subject::named(&name)).collect::<Result<Vec<_>, _>>()?;
    let wanted = |subject: &Subject| named.is_empty() || named.contains(subject);
    let mut table = Table::default();
    for subject in Subject::ALL.map(|(_, subject)| subject).into_iter().filter(wanted) {
        Box::pin(subject.measure(&mut table)).await?;
    }
    print!("{table}");
    Ok(())
}

/// A cache of rows on a server.
async fn rows(server: &RedisServer, l1_max_entries: u64) -> Result<Cache<u64, Row>, Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    nearfar.cache("rows").l1_max_entries(l1_max_entries).build().await
}
