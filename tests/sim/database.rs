//! The truth: a revision for each key.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::Id;

/// What stands in the cache: the key as well, so that a value under a wrong key shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Value {
    pub(crate) key: u64,
    pub(crate) revision: u64,
}

#[derive(Debug)]
pub(crate) struct Database {
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    revision: u64,
    /// Who committed it, and so has to tell the cache.
    author: Option<Id>,
    /// A `set` of the present revision is under way, or may be executed until then.
    being_set: Option<Duration>,
}

impl Database {
    pub(crate) fn new(keys: u64) -> Self {
        Self { rows: (0..keys).map(|_| Row::default()).collect() }
    }

    pub(crate) fn keys(&self) -> std::ops::Range<u64> {
        0..self.rows.len() as u64
    }

    pub(crate) fn revision(&self, key: u64) -> u64 {
        self.row(key).revision
    }

    pub(crate) fn value(&self, key: u64) -> Value {
        Value { key, revision: self.revision(key) }
    }

    pub(crate) fn author(&self, key: u64) -> Option<Id> {
        self.row(key).author
    }

    /// Commits a new revision. Not while a `set` of the one before may still be executed: the cache orders changes by
    /// arrival and does not know the database's order, so a `set` must be alone.
    pub(crate) fn commit(&mut self, key: u64, author: Id, now: Duration) -> Option<u64> {
        let row = self.row_mut(key);
        if row.being_set.is_some_and(|until| now < until) {
            return None;
        }
        *row = Row { revision: row.revision + 1, author: Some(author), being_set: None };
        Some(row.revision)
    }

    pub(crate) fn set_is_under_way(&mut self, key: u64, until: Duration) {
        self.row_mut(key).being_set = Some(until);
    }

    fn row(&self, key: u64) -> &Row {
        &self.rows[index(key)]
    }

    fn row_mut(&mut self, key: u64) -> &mut Row {
        &mut self.rows[index(key)]
    }
}

fn index(key: u64) -> usize {
    usize::try_from(key).expect("there are few keys")
}
