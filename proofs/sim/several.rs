//! What clients do with several keys at once.

use std::sync::Arc;

use nearfar::{Entry, Error};

use crate::client::{Client, Task, What};
use crate::database::{Value, tag_of};
use crate::docket::Steps;
use crate::origin::Origin;

impl Client {
    /// As many reads of one key each.
    pub(crate) async fn read_many(&self, task: Task) {
        let (keys, began) = (self.some_keys(), self.world.now());
        let cache = self.cache.with(task.call());
        let read: Option<Vec<Result<Option<Entry<Value>>, Error>>> = if task.what == What::GetMany {
            self.within(task.patience, cache.get_many(&keys)).await
        } else {
            let origin = Arc::new(Origin::of(self, false));
            let load = move |keys| {
                let origin = Arc::clone(&origin);
                async move { origin.find_many(keys).await }
            };
            self.within(task.patience, cache.get_or_load_many(&keys, load)).await
        };
        let found = read.into_iter().flatten().zip(keys);
        for (entry, key) in found {
            match entry {
                Ok(None) if task.what == What::GetMany => {}
                // The letter is one of another key.
                Ok(entry) => drop(self.judge(task.of_another(key), entry.as_ref(), began)),
                Err(_) => {}
            }
        }
    }

    pub(crate) async fn invalidate_many(&self, task: Task) {
        let commit = |key: u64| Some((key, self.commit(key, false)?));
        let committed: Vec<(u64, u64)> = self.some_keys().into_iter().filter_map(commit).collect();
        let keys: Vec<u64> = committed.iter().map(|(key, _)| *key).collect();
        let outcomes = self.within(task.patience, self.cache.invalidate_many(&keys)).await;
        for (at, change) in committed.iter().enumerate() {
            let outcome = outcomes.as_ref().map(|outcomes| outcomes[at].clone());
            self.changed(&[*change], outcome.as_ref(), Steps::One);
        }
    }

    pub(crate) async fn invalidate_tag(&self, task: Task) {
        let committed: Vec<_> = {
            let state = self.world.lock();
            self.tagged_as(task.key).map(|key| (key, state.database.revision(key))).collect()
        };
        let outcome = self.within(task.patience, self.cache.invalidate_tag(tag_of(task.key))).await;
        self.world.lock().count("invalidations by tag");
        self.changed(&committed, outcome.as_ref(), Steps::OnePerPartition);
    }

    pub(crate) async fn expire_tag(&self, task: Task) {
        let outcome = self.within(task.patience, self.cache.expire_tag(tag_of(task.key))).await;
        self.world.lock().note(|| format!("node {} has expired a tag: {outcome:?}", self.id));
    }

    pub(crate) async fn purge(&self, task: Task) {
        // It may fail, and then leaves the rest.
        let _ = self.within(task.patience, self.cache.purge().finish()).await;
    }

    fn tagged_as(&self, key: u64) -> impl Iterator<Item = u64> {
        (0..self.world.plan.keys).filter(move |other| tag_of(*other) == tag_of(key))
    }

    fn some_keys(&self) -> Vec<u64> {
        let state = &mut *self.world.lock();
        let keys = state.database.keys();
        keys.filter(|_| state.rng.bool()).collect()
    }
}
