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

/// What the values of half of the keys are tagged with, where they are.
pub(crate) fn tag_of(key: u64) -> &'static str {
    ["even", "odd"][index(key % 2)]
}

#[derive(Debug)]
pub(crate) struct Database {
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    revision: u64,
    /// The last revision in which there was no such row, if there was one.
    deleted: Option<u64>,
    /// Who committed it, and so has to tell the cache.
    author: Option<Id>,
    /// The last `set` of it.
    set: Option<Set>,
}

/// A `set` that is under way, or was given up.
#[derive(Clone, Copy, Debug)]
struct Set {
    by: Id,
    /// It may be executed until then.
    until: Duration,
    under_way: bool,
}

impl Set {
    fn keeps_waiting(self, author: Id, now: Duration) -> bool {
        now < self.until && (self.under_way || self.by != author)
    }
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

    /// What there is of a key now.
    pub(crate) fn find(&self, key: u64) -> Option<Value> {
        let (revision, deleted) = (self.revision(key), self.deleted(key));
        (deleted != Some(revision)).then_some(Value { key, revision })
    }

    /// The last revision in which there was no such row.
    pub(crate) fn deleted(&self, key: u64) -> Option<u64> {
        self.row(key).deleted
    }

    pub(crate) fn author(&self, key: u64) -> Option<Id> {
        self.row(key).author
    }

    /// Commits a new revision. Not while a `set` of an older one may be executed: the cache orders changes by arrival
    /// and does not know the database's order, so a `set` must be alone. The node that has given a `set` up need not
    /// wait: its own later changes are not overtaken.
    pub(crate) fn commit(&mut self, key: u64, author: Id, now: Duration) -> Option<u64> {
        let row = self.row_mut(key);
        if row.set.is_some_and(|set| set.keeps_waiting(author, now)) {
            return None;
        }
        row.revision += 1;
        row.author = Some(author);
        Some(row.revision)
    }

    /// The last commit was a deletion.
    pub(crate) fn delete(&mut self, key: u64) {
        let row = self.row_mut(key);
        row.deleted = Some(row.revision);
    }

    pub(crate) fn set_begins(&mut self, key: u64, by: Id) {
        self.row_mut(key).set = Some(Set { by, until: Duration::MAX, under_way: true });
    }

    pub(crate) fn set_ends(&mut self, key: u64, until: Duration) {
        if let Some(set) = &mut self.row_mut(key).set {
            set.until = until;
            set.under_way = false;
        }
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
