use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fred::clients::{Client, WithOptions};
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use tokio::sync::broadcast::error::RecvError;

use crate::wire::{Owned, Wire};

/// A client for commands together with what is known of its health. Dropping it closes the connection.
pub(crate) struct Connection {
    client: WithOptions<Client>,
    health: Arc<Health>,
    watch: Owned<()>,
}

/// Relaxed throughout: these are hints, and every wrong one costs a time limit or an early refusal, no more.
#[derive(Debug, Default)]
struct Health {
    /// Whether commands are worth a try.
    up: AtomicBool,
    /// Whether an attempt to connect has ended, one way or the other.
    settled: AtomicBool,
}

impl Health {
    fn set(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
        self.settled.store(true, Ordering::Relaxed);
    }
}

impl Connection {
    /// A connection that stands already.
    pub(crate) fn established(wire: Wire, options: &Options) -> Self {
        let connection = Self::opening(wire, options);
        connection.health.set(true);
        connection
    }

    /// A connection that may come about.
    pub(crate) fn opening(wire: Wire, options: &Options) -> Self {
        let health = Arc::new(Health::default());
        let client = wire.client.with_options(options);
        let watch = Owned(tokio::spawn(watch(wire, Arc::clone(&health))));
        Self { client, health, watch }
    }

    pub(crate) fn client(&self) -> &WithOptions<Client> {
        &self.client
    }

    /// Whether commands are worth a try.
    pub(crate) fn is_up(&self) -> bool {
        self.health.up.load(Ordering::Relaxed)
    }

    /// A command went through, whatever the events said.
    pub(crate) fn proved_up(&self) {
        self.health.set(true);
    }

    /// Whether replacing it makes sense: not while it is still in its first attempt to connect.
    pub(crate) fn is_settled(&self) -> bool {
        self.health.settled.load(Ordering::Relaxed) || self.has_ended()
    }

    /// Whether fred has given up.
    pub(crate) fn has_ended(&self) -> bool {
        self.watch.0.is_finished()
    }
}

/// Keeps the health up to date until fred gives up. Owns the connection, so that aborting this closes it.
async fn watch(mut wire: Wire, health: Arc<Health>) {
    loop {
        let up = tokio::select! {
            biased;
            _ = &mut wire.task.0 => break,
            // Lagged means that many errors came: down, and a beat will find out if not.
            error = wire.errors.recv() => match error {
                Ok(_) | Err(RecvError::Lagged(_)) => false,
                Err(RecvError::Closed) => break,
            },
            made = wire.reconnects.recv() => match made {
                Ok(_) | Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => break,
            },
        };
        health.set(up);
    }
    health.set(false);
}
