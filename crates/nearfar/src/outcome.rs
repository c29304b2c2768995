use nearfar_core::Version;
use serde::{Deserialize, Serialize};

/// What became of a change that did not fail.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, InProcess, Nearfar, Outcome};
///
/// let shared = InProcess::new();
/// let names: Cache<u64, String> = Nearfar::builder().in_process(&shared).cache("names").build().await?;
/// assert!(names.set(&1, "Ada".to_owned()).await?.is_applied());
///
/// shared.cut_store();
/// assert_eq!(names.invalidate(&1).await?, Outcome::Queued);
/// assert_eq!(names.stats().outbox_keys, 1);
///
/// shared.heal_store();
/// while names.stats().outbox_keys > 0 {
///     tokio::task::yield_now().await; // the next beat finds the store
/// }
/// assert!(names.get(&1).await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// L2 has executed it, as this version of its partition. A clear of several partitions has one in each; this is the
    /// greatest.
    Applied(Version),
    /// L2 has not acknowledged it, or an earlier `set` that it has not acknowledged may still be executed behind it. An
    /// invalidation is in the outbox of this node, which sends it until L2 acknowledges
    /// it; until then other nodes may serve what was there before. A value that was to be set is not stored. The outbox
    /// is in memory: [`Nearfar::shutdown`](crate::Nearfar::shutdown) delivers it, dropping the last handle does not.
    Queued,
}

impl Outcome {
    /// Of a change in several partitions: whose numbers cannot be compared, so that the greatest stands for them.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Applied(one), Self::Applied(other)) => Self::Applied(one.max(other)),
            _ => Self::Queued,
        }
    }

    /// The version, if L2 has executed the change.
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Applied(version) => Some(version),
            Self::Queued => None,
        }
    }

    /// Whether L2 has executed the change.
    pub fn is_applied(self) -> bool {
        self.version().is_some()
    }
}

/// How a caller is told that L2 has not acknowledged a change: it was not there, or did not answer in time. An
/// invalidation goes to the outbox in any case.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{InProcess, Nearfar, Unacknowledged};
///
/// let shared = InProcess::new();
/// let nearfar = Nearfar::builder().in_process(&shared);
/// let names = nearfar.cache::<u64, String>("names").unacknowledged(Unacknowledged::Fail).build().await?;
/// shared.cut_store();
/// assert!(names.invalidate(&1).await.unwrap_err().is_unavailable());
/// assert_eq!(names.stats().outbox_keys, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unacknowledged {
    /// By [`Outcome::Queued`]. The default.
    #[default]
    Queue,
    /// By an error.
    Fail,
}
