//! Follows what others than nodes do to L2.

use std::sync::Arc;

use nearfar_core::backend::{ForeignWrite, ForeignWrites};
use tokio::sync::oneshot;

use super::follow::{Closed, Driver};
use super::following::{FeedEnd, Following};
use crate::error::{ConfigProblem, Error};
use crate::key::CacheKey;

/// A cache that looks out for them.
pub(super) struct Lookout<K, V> {
    driver: Driver<K, V>,
    writes: Box<dyn ForeignWrites>,
    /// Told once, when all is told or a server refuses to tell.
    waits: Option<oneshot::Sender<Result<(), Arc<str>>>>,
}

impl<K, V> Lookout<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Must be called inside the runtime.
    pub(super) fn new(driver: Driver<K, V>) -> Result<Self, Error> {
        let engine = &driver.engine;
        let partitions: Vec<_> = engine.held.parts.iter().map(|part| part.id.clone()).collect();
        let writes = engine.node().l2()?.foreign_writes(&partitions, engine.node().id.number());
        let writes = writes.ok_or_else(|| Error::config(ConfigProblem::NobodyElseWrites))?;
        Ok(Self { driver, writes, waits: None })
    }

    pub(super) async fn follow(mut self) -> Result<Following, Error> {
        let (told, complete) = oneshot::channel();
        self.waits = Some(told);
        let node = Arc::clone(self.driver.engine.node());
        let following = Following::spawn(self.driver.counts(), self.watch());
        let patience = node.timeouts.connect;
        match tokio::time::timeout(patience, complete).await {
            Ok(Ok(Ok(()))) => Ok(following),
            Ok(Ok(Err(reason))) => Err(Error::foreign_writes_refused(reason)),
            Ok(Err(_)) => Err(Error::closed()),
            Err(_) if node.start_degraded => Ok(following),
            Err(_) => Err(Error::foreign_writes_untold(patience)),
        }
    }

    async fn watch(mut self) -> FeedEnd {
        while let Some(write) = self.writes.next().await {
            if self.handle(write).await.is_err() {
                break;
            }
        }
        FeedEnd::Closed
    }

    async fn handle(&mut self, write: ForeignWrite) -> Result<(), Closed> {
        match write {
            ForeignWrite::Missed => self.driver.forget_copies(),
            ForeignWrite::Complete => self.tell(Ok(())),
            ForeignWrite::Replaced(keys) => self.driver.drop_copies(&keys),
            ForeignWrite::Unexplained(keys) => self.driver.invalidate_encoded(keys).await?,
            ForeignWrite::Refused(reason) => self.tell(Err(reason)),
        }
        Ok(())
    }

    fn tell(&mut self, outcome: Result<(), Arc<str>>) {
        match (self.waits.take(), outcome) {
            // It may have been dropped meanwhile.
            (Some(waits), outcome) => drop(waits.send(outcome)),
            (None, Ok(())) => {}
            (None, Err(reason)) => {
                let namespace = self.driver.engine.namespace();
                tracing::warn!("a server does not tell any more what others do to {namespace}: {reason}");
            }
        }
    }
}
