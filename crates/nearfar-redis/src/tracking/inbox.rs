//! What listeners have heard and nobody has looked at yet.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nearfar_core::backend::ServerId;
use tokio::sync::Notify;

/// With more keys than this it is cheaper to forget everything. A listener never waits: a server that cannot get rid of its
/// pushes ends the connection.
const MOST_KEYS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Guards what has come.
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By their full names.
    keys: HashSet<Bytes>,
    missed: bool,
    refused: Option<Arc<str>>,
    /// Which servers tell at the moment.
    standing: BTreeSet<ServerId>,
}

/// What has come, most urgent first.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    Refused(Arc<str>),
    Missed,
    Keys(Vec<Bytes>),
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut State)) {
        note(&mut self.lock());
        self.news.notify_one();
    }

    pub(super) fn stands(&self, server: ServerId) {
        self.note(|state| {
            state.standing.insert(server);
            state.miss();
        });
    }

    pub(super) fn fell(&self, server: ServerId) {
        self.note(|state| {
            state.standing.remove(&server);
        });
    }

    pub(super) fn flushed(&self) {
        self.note(State::miss);
    }

    pub(super) fn refused(&self, reason: Arc<str>) {
        self.note(|state| state.refused = Some(reason));
    }

    pub(super) fn written(&self, keys: Vec<Bytes>) {
        self.note(|state| {
            state.keys.extend(keys);
            if state.keys.len() > MOST_KEYS {
                state.miss();
            }
        });
    }

    pub(super) fn take(&self) -> Option<News> {
        let mut state = self.lock();
        if let Some(reason) = state.refused.take() {
            return Some(News::Refused(reason));
        }
        if std::mem::take(&mut state.missed) {
            return Some(News::Missed);
        }
        if state.keys.is_empty() {
            return None;
        }
        Some(News::Keys(std::mem::take(&mut state.keys).into_iter().collect()))
    }

    /// Whether all of these servers tell.
    pub(super) fn all_stand(&self, servers: impl IntoIterator<Item = ServerId>) -> bool {
        let state = self.lock();
        servers.into_iter().all(|server| state.standing.contains(&server))
    }

    /// Whether there is something to take.
    pub(super) fn has_news(&self) -> bool {
        let state = self.lock();
        state.missed || state.refused.is_some() || !state.keys.is_empty()
    }

    /// Waits until there may be something to take.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

impl State {
    /// What was heard before is part of what may have been missed.
    fn miss(&mut self) {
        self.missed = true;
        self.keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_keys_becomes_one_forgetting() {
        let inbox = Inbox::default();
        for number in 0..MOST_KEYS {
            inbox.written(vec![number.to_string().into(), "k".into()]);
        }
        assert_eq!(inbox.take(), Some(News::Missed));
        assert_eq!(inbox.take(), None);
        inbox.written(vec!["k".into()]);
        assert_eq!(inbox.take(), Some(News::Keys(vec!["k".into()])));
    }
}
