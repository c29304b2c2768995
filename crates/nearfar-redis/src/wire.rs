use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Server as Address;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Owned<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A client that is connecting or connected, with what fred says about that. Dropping it closes the connection.
pub(crate) struct Wire {
    pub(crate) client: Client,
    /// Speaks at once when the connection is lost, and at each failed attempt; `state()` would lag behind.
    pub(crate) errors: Receiver<(FredError, Option<Address>)>,
    /// Speaks when the connection is made, the first time too.
    pub(crate) reconnects: Receiver<Address>,
    /// fred's connection task. It ends when fred gives up, which no event tells.
    pub(crate) task: Owned<Result<(), FredError>>,
}

impl Wire {
    /// Begins to connect. Must be called inside the runtime.
    pub(crate) fn open(client: Client) -> Self {
        // Before connecting, so that nothing is missed.
        let (errors, reconnects) = (client.error_rx(), client.reconnect_rx());
        let task = Owned(client.connect());
        Self { client, errors, reconnects, task }
    }

    /// Waits until the connection stands. Attempts that found nobody in time are repeated, as their errors go to
    /// `failed`; a definite refusal is returned.
    pub(crate) async fn established(&mut self, failed: impl Fn(&FredError)) -> Result<(), FredError> {
        loop {
            let error = tokio::select! {
                made = self.reconnects.recv() => return made.map(drop).map_err(FredError::from),
                error = self.errors.recv() => error.map_err(FredError::from)?.0,
            };
            failed(&error);
            if *error.kind() != ErrorKind::Timeout {
                return Err(error);
            }
        }
    }
}
