//! What can be measured.

mod batches;
mod hits;
mod l1;
mod l2;
mod log;
mod macros;
mod outage;
mod propagation;
mod receive;
mod replay;
mod scale;
mod service;
mod sizes;
mod stampede;
mod traces;
mod traffic;
mod trust;
mod write;
mod xfetch;

use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Row, Table};
use nearfar_testkit::RedisServer;

use crate::effort::Effort;

/// What can be measured, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    L1,
    Hits,
    Macros,
    Trust,
    L2,
    Write,
    Service,
    Propagation,
    Receive,
    Replay,
    Log,
    Stampede,
    Xfetch,
    Outage,
    Sizes,
    Batches,
    Traces,
    Scale,
}

impl Subject {
    const ALL: [(&str, Subject); 18] = [
        ("l1", Self::L1),
        ("hits", Self::Hits),
        ("macros", Self::Macros),
        ("trust", Self::Trust),
        ("l2", Self::L2),
        ("write", Self::Write),
        ("service", Self::Service),
        ("propagation", Self::Propagation),
        ("receive", Self::Receive),
        ("replay", Self::Replay),
        ("log", Self::Log),
        ("stampede", Self::Stampede),
        ("xfetch", Self::Xfetch),
        ("outage", Self::Outage),
        ("sizes", Self::Sizes),
        ("batches", Self::Batches),
        ("traces", Self::Traces),
        ("scale", Self::Scale),
    ];

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(_, subject)| subject)
    }

    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names = || Self::ALL.map(|(known, _)| known).join(", ");
        found.map(|(_, subject)| *subject).ok_or_else(|| format!("no table {name:?}: there are {}", names()))
    }

    pub(crate) async fn measure(self, table: &mut Table, effort: &Effort) -> Result<(), Error> {
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
            Self::Service => service::measure(table, &server).await,
            Self::Receive => receive::measure(table, &server).await,
            Self::Traces => traces::measure(table, &effort.traces).await,
            Self::Scale => scale::measure(table, effort).await,
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

/// A cache of rows on a server.
async fn rows(server: &RedisServer, l1_max_entries: u64) -> Result<Cache<u64, Row>, Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    nearfar.cache("rows").l1_max_entries(l1_max_entries).build().await
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figure(count: u64) -> f64 {
    count as f64
}
