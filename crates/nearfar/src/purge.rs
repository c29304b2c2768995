use std::fmt;
use std::sync::Arc;

use nearfar_core::backend::PurgeCursor;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::error::{Error, Operation};
use crate::key::CacheKey;

/// A purge under way, of [`Cache::purge`](crate::Cache::purge). It ends when this is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
/// let purge = names.purge();
/// assert!(purge.progress().partitions_done <= purge.progress().partitions);
/// assert_eq!(purge.finish().await?.removed, 0);
/// # Ok(())
/// # }
/// ```
#[must_use = "a purge ends when it is dropped"]
pub struct Purge {
    progress: watch::Receiver<PurgeProgress>,
    task: JoinHandle<Result<(), Error>>,
}

/// How far a purge is.
///
/// ```
/// assert_eq!(nearfar::PurgeProgress::default().removed, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeProgress {
    /// How many entries it has looked at.
    pub examined: u64,
    /// How many of them it has removed.
    pub removed: u64,
    /// How many partitions there are.
    pub partitions: usize,
    /// How many of them it is through with.
    pub partitions_done: usize,
}

impl Purge {
    pub(crate) fn start<K, V>(engine: &Arc<Engine<K, V>>) -> Self
    where
        K: CacheKey,
        V: Send + Sync + 'static,
    {
        let partitions = engine.held.parts.len();
        let (report, progress) = watch::channel(PurgeProgress { partitions, ..PurgeProgress::default() });
        let engine = Arc::clone(engine);
        let task = tokio::spawn(async move { engine.purge(&report).await });
        Self { progress, task }
    }

    /// How far it is now.
    pub fn progress(&self) -> PurgeProgress {
        *self.progress.borrow()
    }

    /// Waits for the end of it.
    ///
    /// # Errors
    /// If L2 fails: the rest is as it was.
    ///
    /// # Cancel safety
    /// Safe, but the purge ends.
    pub async fn finish(mut self) -> Result<PurgeProgress, Error> {
        match (&mut self.task).await {
            Ok(done) => done?,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down.
                Err(_) => return Err(Error::closed()),
            },
        }
        Ok(self.progress())
    }
}

impl Drop for Purge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purge").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    async fn purge(&self, report: &watch::Sender<PurgeProgress>) -> Result<(), Error> {
        for part in &self.held.parts {
            let mut from = Some(PurgeCursor::default());
            while let Some(at) = from {
                let step = self.node().l2()?.purge(&part.id, at, self.options.fence_window).await;
                let step = step.map_err(|cause| Error::l2(Operation::Purge, cause))?;
                report.send_modify(|progress| {
                    progress.examined += step.examined;
                    progress.removed += step.removed;
                });
                from = step.next;
            }
            report.send_modify(|progress| progress.partitions_done += 1);
        }
        Ok(())
    }
}
