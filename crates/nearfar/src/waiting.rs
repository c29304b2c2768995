//! Who waits for a claim that another node holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// The keys of a partition whose claims this node waits for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Guards the table only. Each wait takes itself off.
    by_key: Mutex<HashMap<Bytes, Vec<Arc<Notify>>>>,
}

/// One wait. It hears of every release since it was made.
pub(crate) struct Wait<'a> {
    waiting: &'a Waiting,
    key: Bytes,
    released: Arc<Notify>,
}

impl Waiting {
    pub(crate) fn wait_for(&self, key: &Bytes) -> Wait<'_> {
        let released = Arc::new(Notify::new());
        self.lock().entry(key.clone()).or_default().push(Arc::clone(&released));
        Wait { waiting: self, key: key.clone(), released }
    }

    /// The claim of a key was released.
    pub(crate) fn wake(&self, key: &[u8]) {
        for released in self.lock().get(key).into_iter().flatten() {
            released.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Bytes, Vec<Arc<Notify>>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait<'_> {
    pub(crate) async fn released(&self) {
        self.released.notified().await;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut by_key = self.waiting.lock();
        if let Some(waits) = by_key.get_mut(&self.key) {
            waits.retain(|other| !Arc::ptr_eq(other, &self.released));
            if waits.is_empty() {
                by_key.remove(&self.key);
            }
        }
    }
}
