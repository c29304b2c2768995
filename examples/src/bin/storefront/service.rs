//! What a service of your own would have: a database, a cache before it, and an operation for each thing it does.

use std::sync::Arc;
use std::time::Duration;

use nearfar::{Cache, Entry, Nearfar, Outcome, Stats};
use serde::{Deserialize, Serialize};

use crate::origin::Origin;

/// What the database knows of a product, and the cache holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) price_cents: u32,
    /// Counts the changes. The shop has no use for it: it is there to see how old a copy is.
    pub(crate) revision: u32,
}

/// One node of the shop.
#[derive(Clone, Debug)]
pub(crate) struct Storefront {
    products: Cache<u32, Product>,
    origin: Arc<Origin>,
}

/// How the cache of a node is built. All nodes build theirs alike.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CacheSettings {
    pub(crate) max_staleness: Duration,
    pub(crate) l1_entries: u64,
}

impl CacheSettings {
    pub(crate) async fn build(self, nearfar: &Nearfar) -> Result<Cache<u32, Product>, nearfar::Error> {
        nearfar
            .cache("storefront")
            .max_staleness(self.max_staleness)
            .l1_max_entries(self.l1_entries)
            .build()
            .await
    }
}

impl Storefront {
    pub(crate) fn new(products: Cache<u32, Product>, origin: Origin) -> Self {
        Self { products, origin: Arc::new(origin) }
    }

    /// What a customer is shown.
    pub(crate) async fn product(&self, id: u32) -> Result<Entry<Product>, nearfar::Error> {
        let origin = Arc::clone(&self.origin);
        self.products.get_or_load(&id, |id| origin.product(id)).await
    }

    /// Changes a price: first the database, then the cache, so that no reader can put the old row back.
    pub(crate) async fn reprice(&self, id: u32, price_cents: u32) -> rusqlite::Result<Repriced> {
        let revision = Arc::clone(&self.origin).reprice(id, price_cents).await?;
        let invalidated = self.products.invalidate(&id).await;
        Ok(Repriced { revision, invalidated })
    }

    pub(crate) fn stats(&self) -> Stats {
        self.products.stats()
    }

    /// How often the database was asked for a product.
    pub(crate) fn queries(&self) -> u64 {
        self.origin.queries()
    }
}

/// A price is in the database.
#[derive(Debug)]
pub(crate) struct Repriced {
    pub(crate) revision: u32,
    /// Whether the other nodes can be relied on to have heard of it.
    pub(crate) invalidated: Result<Outcome, nearfar::Error>,
}
