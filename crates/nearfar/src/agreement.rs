//! Whether the nodes of a namespace fence for as long as each other.

use std::sync::atomic::{AtomicBool, Ordering};

use nearfar_core::Namespace;
use nearfar_core::backend::{L2, L2Error, Settings};

use crate::log;

/// A node compares its settings with the recorded ones when it builds a cache. One that started without L2 compares
/// before its first fill and its first change: a tombstone that is too short protects nobody.
pub(crate) struct Agreement {
    namespace: Namespace,
    ours: Settings,
    reached: AtomicBool,
    is_warned_of: AtomicBool,
}

/// Why there is no agreement.
pub(crate) enum Disagreement {
    /// L2 could not be asked.
    Unasked(L2Error),
    /// Other nodes have recorded something else.
    Settings { ours: Settings, theirs: Settings },
}

impl Agreement {
    pub(crate) fn new(namespace: Namespace, ours: Settings) -> Self {
        Self { namespace, ours, reached: AtomicBool::new(false), is_warned_of: AtomicBool::new(false) }
    }

    pub(crate) async fn reach(&self, l2: &dyn L2) -> Result<(), Disagreement> {
        if self.reached.load(Ordering::Relaxed) {
            return Ok(());
        }
        let ours = self.ours;
        match l2.open(&self.namespace, &ours).await {
            Ok(theirs) if theirs == ours => self.reached.store(true, Ordering::Relaxed),
            Ok(theirs) => {
                self.warn_once(theirs);
                return Err(Disagreement::Settings { ours, theirs });
            }
            Err(cause) => return Err(Disagreement::Unasked(cause)),
        }
        Ok(())
    }

    /// Each operation asks anew, as long as they differ.
    fn warn_once(&self, theirs: Settings) {
        if !self.is_warned_of.swap(true, Ordering::Relaxed) {
            let (namespace, ours) = (self.namespace.as_str(), self.ours);
            tracing::warn!(target: log::CACHE, namespace, ?ours, ?theirs, "the nodes' settings disagree");
        }
    }
}
