//! Watches over the connections to each server.

use std::collections::BTreeMap;
use std::time::Duration;

use nearfar_core::backend::ServerId;
use nearfar_core::{Moment, Watchdog};

/// What each server owes this node.
pub(crate) struct Vigil {
    patience: Duration,
    servers: BTreeMap<ServerId, Watchdogs>,
}

struct Watchdogs {
    /// Barks if no echoes come.
    echoes: Watchdog,
    /// Barks if no beat is replied to, whatever echoes come: commands may arrive while their replies are lost.
    replies: Watchdog,
}

/// A server that owes something for too long: replies to commands, and echoes as well or not.
pub(crate) struct Silent {
    pub(crate) server: ServerId,
    pub(crate) no_echoes: bool,
}

impl Vigil {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, servers: BTreeMap::new() }
    }

    /// A beat was sent.
    pub(crate) fn beat(&mut self, server: ServerId, now: Moment) {
        let patience = self.patience;
        let watchdogs = self.servers.entry(server).or_insert_with(|| Watchdogs {
            echoes: Watchdog::new(patience),
            replies: Watchdog::new(patience),
        });
        watchdogs.echoes.beat(now);
        watchdogs.replies.beat(now);
    }

    /// An echo has come, or is not needed any more.
    pub(crate) fn echo(&mut self, server: ServerId) {
        if let Some(watchdogs) = self.servers.get_mut(&server) {
            watchdogs.echoes.proof();
        }
    }

    /// It has replied to a beat.
    pub(crate) fn reply(&mut self, server: ServerId) {
        if let Some(watchdogs) = self.servers.get_mut(&server) {
            watchdogs.replies.proof();
        }
    }

    /// Nothing depends on this server any more.
    pub(crate) fn forget(&mut self, server: ServerId) {
        self.servers.remove(&server);
    }

    /// Those whose connections are to be replaced now.
    pub(crate) fn poll(&mut self, now: Moment) -> Vec<Silent> {
        let silent = |(server, watchdogs): (&ServerId, &mut Watchdogs)| {
            let (no_echoes, no_replies) = (watchdogs.echoes.poll(now), watchdogs.replies.poll(now));
            (no_echoes || no_replies).then_some(Silent { server: *server, no_echoes })
        };
        self.servers.iter_mut().filter_map(silent).collect()
    }

    /// When to poll next.
    pub(crate) fn due(&self) -> Moment {
        let due = |watchdogs: &Watchdogs| watchdogs.echoes.due().min(watchdogs.replies.due());
        self.servers.values().map(due).min().unwrap_or(Moment::NEVER)
    }
}
