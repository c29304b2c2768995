//! From where something happens to who listens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::event::{CAPACITY, Event};

/// Where a cache's events go.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Outlet {
    /// How many listen. First, see [`Counters`](crate::stats::Counters).
    listeners: AtomicUsize,
    /// There while somebody listens. Guards the count as well while that changes.
    sender: Mutex<Option<broadcast::Sender<Event>>>,
}

impl Outlet {
    /// Whether anybody listens: all that an event costs if not.
    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) != 0
    }

    /// Tells those who listen. If nobody does, the event is not even made.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.is_heard() {
            self.send(event());
        }
    }

    #[cold]
    fn send(&self, event: Event) {
        // Sent without the lock: an event that is overwritten may drop what a user's error holds.
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sender) = sender {
            // Nobody listens any more.
            let _ = sender.send(event);
        }
    }

    pub(crate) fn join(&self) -> broadcast::Receiver<Event> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let events = sender.get_or_insert_with(|| broadcast::Sender::new(CAPACITY)).subscribe();
        self.listeners.fetch_add(1, Ordering::Relaxed);
        events
    }

    /// With the last listener the memory for events goes.
    pub(crate) fn leave(&self) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = if self.listeners.fetch_sub(1, Ordering::Relaxed) == 1 { sender.take() } else { None };
        drop(sender);
        drop(gone);
    }
}
