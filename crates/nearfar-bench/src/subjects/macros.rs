//! A hit in L1 through a function with `#[cached]`, beside the call of `get_or_load` that it stands for.
//!
//! Both sides give the value itself and not an entry, so both clone an `Arc`. The attribute also clones `self`, two `Cache`s
//! here, and what is borrowed, for a loader that a hit does not need.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use nearfar::{Cache, Error, Nearfar, cached};
use nearfar_bench::{Row, Table};
use nearfar_testkit::{RedisServer, Stopwatch};

const ROUNDS: usize = 101;
const READS: usize = 100_000;
const KEYS: u64 = 1_000;

type Shared = Arc<Row>;

#[derive(Clone)]
struct Service {
    rows: Cache<u64, Shared>,
    texts: Cache<String, Shared>,
}

impl Service {
    #[cached(cache = self.rows, key = id)]
    #[expect(clippy::unused_async, reason = "what is cached is async, and this has nothing to wait for")]
    async fn row(&self, id: u64) -> Result<Shared, Error> {
        Ok(load(id))
    }

    #[cached(cache = self.texts, key = "{id}:{lang}")]
    #[expect(clippy::unused_async, reason = "what is cached is async, and this has nothing to wait for")]
    async fn text(&self, id: u64, lang: &str) -> Result<Shared, Error> {
        Ok(load(id + lang.len() as u64))
    }

    async fn row_by_hand(&self, id: u64) -> Result<Shared, Error> {
        let load = |id| async move { Ok::<_, Infallible>(load(id)) };
        Ok(Arc::clone(&*self.rows.get_or_load(&id, load).await?))
    }

    async fn text_by_hand(&self, id: u64, lang: &str) -> Result<Shared, Error> {
        let len = lang.len() as u64;
        let load = move |_| async move { Ok::<_, Infallible>(load(id + len)) };
        Ok(Arc::clone(&*self.texts.get_or_load(&format!("{id}:{lang}"), load).await?))
    }
}

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    let rows = nearfar.cache("rows").l1_max_entries(KEYS * 2).build().await?;
    let texts = nearfar.cache("texts").l1_max_entries(KEYS * 2).build().await?;
    let service = Service { rows, texts };
    for id in 0..KEYS {
        service.row(id).await?;
        service.text(id, "en").await?;
    }
    let order: Vec<u64> = (0..READS).map(|_| fastrand::u64(..KEYS)).collect();
    let (mut by_number, mut by_text) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let by_hand = time(&order, async |id| service.row_by_hand(id).await).await?;
        by_number.push((by_hand, time(&order, async |id| service.row(id).await).await?));
        let by_hand = time(&order, async |id| service.text_by_hand(id, "en").await).await?;
        by_text.push((by_hand, time(&order, async |id| service.text(id, "en").await).await?));
    }
    table.add("#[cached], hit, key of u64", "get_or_load", "ns", &by_number);
    table.add("#[cached], hit, key of text", "get_or_load", "ns", &by_text);
    Ok(())
}

fn load(id: u64) -> Shared {
    Arc::new(Row::new(id))
}

/// Nanoseconds per read.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn time(order: &[u64], read: impl AsyncFn(u64) -> Result<Shared, Error>) -> Result<f64, Error> {
    let watch = Stopwatch::start();
    for id in order {
        black_box(read(*id).await?);
    }
    Ok(watch.elapsed().as_nanos() as f64 / READS as f64)
}
