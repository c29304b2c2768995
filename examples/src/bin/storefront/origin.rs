//! The database: the truth, and what is expensive to ask.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Row, TransactionBehavior, params};

use crate::service::Product;

/// One node's connections to the database that all nodes share.
#[derive(Debug)]
pub(crate) struct Origin {
    file: PathBuf,
    /// Guards the connections that no query uses now.
    idle: Mutex<Vec<Connection>>,
    /// Only one connection at a time may write. A node's own writers queue here for theirs.
    writer: Mutex<Connection>,
    queries: AtomicU64,
}

/// The size of a row; what a product page has to say.
const DESCRIPTION: usize = 1_000;

impl Origin {
    /// Makes the database, with these products at revision 0.
    pub(crate) fn create(file: &Path, products: &BTreeSet<u32>) -> rusqlite::Result<()> {
        let mut database = connect(file)?;
        // Readers do not wait for writers.
        database.pragma_update(None, "journal_mode", "wal")?;
        database.execute_batch(
            "CREATE TABLE products (
                id INTEGER PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL,
                price_cents INTEGER NOT NULL, revision INTEGER NOT NULL)",
        )?;
        let transaction = database.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO products VALUES (?1, ?2, ?3, ?4, 0)")?;
            for id in products {
                let name = format!("product {id}");
                let description = format!("{name} is all that one could wish for. ").repeat(DESCRIPTION / 40);
                insert.execute(params![id, name, description, 100 + id % 9_900])?;
            }
        }
        transaction.commit()
    }

    pub(crate) fn open(file: &Path) -> rusqlite::Result<Self> {
        let writer = Mutex::new(connect(file)?);
        Ok(Self { file: file.to_owned(), idle: Mutex::default(), writer, queries: AtomicU64::new(0) })
    }

    /// Reads a product.
    pub(crate) async fn product(self: Arc<Self>, id: u32) -> rusqlite::Result<Product> {
        blocking(move || {
            self.queries.fetch_add(1, Ordering::Relaxed);
            let idle = lock(&self.idle).pop();
            let database = idle.map_or_else(|| connect(&self.file), Ok)?;
            let product = read_product(&database, id);
            lock(&self.idle).push(database);
            product
        })
        .await
    }

    /// Changes a price. Returns the product's new revision, once it is committed.
    pub(crate) async fn reprice(self: Arc<Self>, id: u32, price_cents: u32) -> rusqlite::Result<u32> {
        blocking(move || {
            let mut database = lock(&self.writer);
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let revision = transaction
                .prepare_cached(
                    "UPDATE products SET price_cents = ?2, revision = revision + 1 WHERE id = ?1 RETURNING revision",
                )?
                .query_row(params![id, price_cents], |row| row.get(0))?;
            transaction.commit()?;
            Ok(revision)
        })
        .await
    }

    /// How many products were read.
    pub(crate) fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(file)?;
    // The database lives as long as the run: it need not survive a power cut.
    database.pragma_update(None, "synchronous", "off")?;
    Ok(database)
}

fn read_product(database: &Connection, id: u32) -> rusqlite::Result<Product> {
    let product = |row: &Row<'_>| {
        Ok(Product {
            id: row.get(0)?,
            name: row.get(1)?,
            description: row.get(2)?,
            price_cents: row.get(3)?,
            revision: row.get(4)?,
        })
    };
    database.prepare_cached("SELECT * FROM products WHERE id = ?1")?.query_row([id], product)
}

/// Queries block, and would hold up the other tasks of a runtime thread.
async fn blocking<T: Send + 'static>(
    query: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> rusqlite::Result<T> {
    tokio::task::spawn_blocking(query).await.expect("a query does not panic, and is not aborted")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_committed_price_is_what_other_nodes_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shop.db");
        Origin::create(&file, &BTreeSet::from([7])).unwrap();
        let (here, there) = (Arc::new(Origin::open(&file).unwrap()), Arc::new(Origin::open(&file).unwrap()));
        assert_eq!(Arc::clone(&there).product(7).await.unwrap().revision, 0);

        assert_eq!(here.reprice(7, 1_999).await, Ok(1));
        let product = Arc::clone(&there).product(7).await.unwrap();
        assert_eq!((product.price_cents, product.revision), (1_999, 1));
        assert!((900..1_100).contains(&product.description.len()));
        assert_eq!(there.queries(), 2);
    }
}
