//! Keeps a server telling.

use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nearfar_core::backend::ServerId;

use super::inbox::Inbox;
use super::talk::{Said, Talk};
use crate::error::is_reply;
use crate::rights;
use crate::server::Server;

/// How often a silent server is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Between attempts to connect: at first, and at the most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Listener {
    pub(super) id: ServerId,
    pub(super) server: Arc<Server>,
    /// `CLIENT TRACKING ON` with all that is asked for.
    pub(super) request: Arc<[String]>,
    pub(super) inbox: Arc<Inbox>,
}

/// Why a server does not tell.
enum Trouble {
    Lost,
    Refused(String),
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

impl Listener {
    /// For ever.
    pub(super) async fn listen(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Ok(mut talk) = self.begin().await {
                // Whatever was written before this is over, and what comes is in the talk.
                self.inbox.stands(self.id);
                pause = FIRST_PAUSE;
                self.hear(&mut talk).await;
                self.inbox.fell(self.id);
            }
            let _ = tokio::time::timeout(pause, pending::<()>()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn begin(&self) -> Result<Talk, Trouble> {
        let begun = self.within(self.server.attempt(), self.handshake()).await;
        if let Err(Trouble::Refused(reason)) = &begun {
            // What passes (it loads its data, say) is no refusal.
            if is_reply(reason) && !reason.starts_with("LOADING") {
                self.inbox.refused(rights::of_tracking(reason));
            }
        }
        begun
    }

    async fn handshake(&self) -> Result<Talk, Trouble> {
        let mut talk = Talk::open(&self.server).await?;
        match self.server.login() {
            Some((user, password)) => talk.ask(&["HELLO", "3", "AUTH", user, password]).await?,
            None => talk.ask(&["HELLO", "3"]).await?,
        }
        answered(&mut talk).await?;
        talk.ask(&self.request).await?;
        answered(&mut talk).await?;
        Ok(talk)
    }

    /// Until the connection is lost, or is as good as that.
    async fn hear(&self, talk: &mut Talk) {
        let patience = self.server.command_timeout() + ASK_EVERY;
        while let Ok(said) = self.within(patience, next_or_ask(talk)).await {
            match said {
                Said::Written(keys) => self.inbox.written(keys),
                Said::Flushed => self.inbox.flushed(),
                Said::Answer | Said::Refusal(_) => {}
            }
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        tokio::time::timeout(limit, work).await.unwrap_or(Err(Trouble::Lost))
    }
}

/// What a server says next; one that is silent is asked to answer.
async fn next_or_ask(talk: &mut Talk) -> Result<Said, Trouble> {
    if let Ok(said) = tokio::time::timeout(ASK_EVERY, talk.next()).await {
        return Ok(said?);
    }
    talk.ask(&["PING"]).await?;
    Ok(talk.next().await?)
}

/// What is pushed before is of no use: nothing from before is.
async fn answered(talk: &mut Talk) -> Result<(), Trouble> {
    loop {
        match talk.next().await? {
            Said::Answer => return Ok(()),
            Said::Refusal(reason) => return Err(Trouble::Refused(reason)),
            Said::Written(_) | Said::Flushed => {}
        }
    }
}
