use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// What a service has in its database: a revision for each key, which only grows.
#[derive(Clone, Debug)]
pub struct Truth {
    rows: Arc<[Row]>,
}

#[derive(Debug, Default)]
struct Row {
    revision: AtomicU64,
    turn: Mutex<()>,
}

/// The right to change a row: one writer commits and tells the cache before the next one does.
#[derive(Debug)]
pub struct Turn<'a> {
    row: &'a Row,
    _held: MutexGuard<'a, ()>,
}

impl Truth {
    /// Rows for the keys from 0 up to this one, all of revision 0.
    pub fn new(keys: u64) -> Self {
        Self { rows: (0..keys).map(|_| Row::default()).collect() }
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        self.rows.len() as u64
    }

    /// What a loader reads.
    pub fn revision(&self, key: u64) -> u64 {
        self.row(key).revision.load(Ordering::SeqCst)
    }

    /// Waits for the turn to change a row.
    pub async fn turn(&self, key: u64) -> Turn<'_> {
        let row = self.row(key);
        Turn { row, _held: row.turn.lock().await }
    }

    fn row(&self, key: u64) -> &Row {
        usize::try_from(key).ok().and_then(|key| self.rows.get(key)).expect("the key is one of the rows")
    }
}

impl Turn<'_> {
    /// Commits the next revision of the row.
    pub fn commit(&self) -> u64 {
        self.row.revision.fetch_add(1, Ordering::SeqCst) + 1
    }
}
