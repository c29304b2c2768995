//! The caches of a node, for what concerns all of them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nearfar_core::Moment;
#[cfg(feature = "metrics")]
use nearfar_core::Namespace;

use crate::event::Event;
use crate::outlet::Outlet;
use crate::stats::Stats;

/// A cache, whatever its types are.
pub(crate) trait Watched: Send + Sync {
    fn outlet(&self) -> &Outlet;
    fn stats(&self, now: Moment) -> Stats;
    #[cfg(feature = "metrics")]
    fn namespace(&self) -> &Namespace;
    /// What of its counts the recorder has been told.
    #[cfg(feature = "metrics")]
    fn reported(&self) -> &Mutex<Stats>;
}

/// Those that exist.
#[derive(Default)]
pub(crate) struct Caches {
    /// Guards the list alone.
    list: Mutex<Vec<Weak<dyn Watched>>>,
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

impl Caches {
    pub(crate) fn add(&self, cache: &Arc<impl Watched + 'static>) {
        let cache = Arc::downgrade(cache) as Weak<dyn Watched>;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|cache| cache.strong_count() > 0);
        list.push(cache);
    }

    pub(crate) fn all(&self) -> Vec<Arc<dyn Watched>> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter_map(Weak::upgrade).collect()
    }

    /// Tells the listeners of each.
    pub(crate) fn tell(&self, event: &Event) {
        for cache in self.all() {
            cache.outlet().tell(|| event.clone());
        }
    }
}
