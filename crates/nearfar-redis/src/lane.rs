//! The way of commands to one server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::types::{Key, Value};
use nearfar_core::backend::L2Error;
use tokio::sync::Semaphore;

use crate::connection::Connection;
use crate::error::{Cause, l2_error};
use crate::scripts::Script;
use crate::server::{IN_FLIGHT, Server};
use crate::topology::SlotRange;
use crate::wire::Wire;

/// fred's own time limit comes first, since it also takes the command out of the queue; this one is for its gaps.
const LAST_RESORT: Duration = Duration::from_millis(20);

/// The commands to one server, over a connection that is replaced when it hangs.
pub(crate) struct Lane {
    pub(crate) server: Arc<Server>,
    /// `None` once closed.
    connection: ArcSwapOption<Connection>,
    /// Held by operations under way; see [`IN_FLIGHT`].
    turns: Semaphore,
    time_limit: Duration,
}

/// Why a command was not executed, or may not have been.
pub(crate) enum Failure {
    /// Its partition is somewhere else; nothing was executed.
    Moved(SlotRange),
    /// The server is a replica now; nothing was executed.
    ReadOnly(Cause),
    L2(L2Error),
}

impl From<L2Error> for Failure {
    fn from(error: L2Error) -> Self {
        Self::L2(error)
    }
}

impl From<&FredError> for Failure {
    fn from(error: &FredError) -> Self {
        if error.details().starts_with("READONLY") {
            return Self::ReadOnly(Cause::new(error));
        }
        SlotRange::of_redirection(error.details()).map_or_else(|| Self::L2(l2_error(error)), Self::Moved)
    }
}

impl Lane {
    pub(crate) fn new(server: Arc<Server>, connection: Connection, time_limit: Duration) -> Self {
        let (connection, turns) = (ArcSwapOption::from_pointee(connection), Semaphore::new(IN_FLIGHT));
        Self { server, connection, turns, time_limit }
    }

    /// One whose connection may come about. Must be called inside the runtime.
    pub(crate) fn opening(server: Arc<Server>, time_limit: Duration) -> Self {
        let connection = opening(&server);
        Self::new(server, connection, time_limit)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.connection().is_ok_and(|connection| connection.is_up())
    }

    fn connection(&self) -> Result<Arc<Connection>, L2Error> {
        self.connection.load_full().ok_or(L2Error::Closed)
    }

    fn healthy(&self) -> Result<Arc<Connection>, L2Error> {
        let connection = self.connection()?;
        if connection.is_up() { Ok(connection) } else { Err(L2Error::Unreachable) }
    }

    /// Runs a command, in its turn, if the server is not known to be unreachable.
    pub(crate) async fn command<T, F>(
        &self,
        command: impl FnOnce(WithOptions<Client>) -> F + Send,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, FredError>> + Send,
    {
        let connection = self.healthy()?;
        let in_turn = async {
            let _turn = self.turns.acquire().await;
            command(connection.client().clone()).await
        };
        self.limited(in_turn).await
    }

    pub(crate) async fn run(
        &self,
        script: &Script,
        keys: Vec<Key>,
        args: Vec<Value>,
    ) -> Result<Value, Failure> {
        self.command(async |client| script.run(&client, keys, args).await).await
    }

    /// Runs a script even when the server is known to be unreachable, and without waiting for a turn: it is what finds
    /// out that things are well again. Must be called inside the runtime.
    pub(crate) async fn try_out(
        &self,
        script: &Script,
        keys: Vec<Key>,
        args: Vec<Value>,
    ) -> Result<Value, Failure> {
        let connection = self.connection()?;
        if connection.has_ended() {
            self.reconnect();
        }
        let answer = self.limited(script.run(connection.client(), keys, args)).await?;
        connection.proved_up();
        Ok(answer)
    }

    async fn limited<T>(&self, work: impl Future<Output = Result<T, FredError>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.time_limit.saturating_add(LAST_RESORT), work).await {
            Ok(answer) => answer.map_err(|error| Failure::from(&error)),
            Err(_) => Err(L2Error::TimedOut.into()),
        }
    }

    /// Operations under way keep the old connection until they end, each within its time limit. Must be called inside
    /// the runtime.
    pub(crate) fn reconnect(&self) {
        let present = self.connection.load();
        let Some(connection) = present.as_ref().filter(|connection| connection.is_settled()) else { return };
        let fresh = Arc::new(opening(&self.server));
        // Whoever came first has replaced it, or closed the lane: then the fresh one is dropped again.
        self.connection.compare_and_swap(connection, Some(fresh));
    }

    pub(crate) fn close(&self) {
        self.connection.store(None);
    }
}

fn opening(server: &Server) -> Connection {
    Connection::opening(Wire::open(server.command_client()), &server.once())
}
