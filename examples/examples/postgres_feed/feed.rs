//! What PostgreSQL notifies of, as a change feed.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use nearfar::{ChangeFeed, Changed};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls, Socket};

/// Between attempts to connect: at first, and at the most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a connection may be silent, and unanswered, until it counts as lost.
const SILENCE: Duration = Duration::from_secs(5);

/// How many keys are invalidated together. While they are, the rest waits at the server.
const AT_ONCE: usize = 1_000;

/// Listens to a channel whose notifications name a key each, or nothing for all of them.
pub(crate) struct Notifications {
    config: Config,
    channel: &'static str,
    listening: Option<Listening>,
    pause: Duration,
}

struct Listening {
    connection: Connection<Socket, NoTlsStream>,
    /// The connection ends with it.
    _client: Client,
}

impl Notifications {
    /// Of a database, at a URL.
    pub(crate) fn new(url: &str, channel: &'static str) -> Result<Self, Error> {
        let mut config: Config = url.parse()?;
        // A server that is cut off does not say so.
        config.connect_timeout(SILENCE).tcp_user_timeout(SILENCE);
        config.keepalives_idle(SILENCE).keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
        Ok(Self { config, channel, listening: None, pause: FIRST_PAUSE })
    }
}

impl Listening {
    /// Connects and listens. What is said from here on waits in the connection.
    async fn begin(config: &Config, channel: &str) -> Result<Self, Error> {
        let (client, mut connection) = config.connect(NoTls).await?;
        let listen = format!("LISTEN {channel}");
        let mut asked = Box::pin(client.batch_execute(&listen));
        // Nothing comes of the question unless the connection is driven. What it brings meanwhile is part of what may have
        // been missed.
        let answered = poll_fn(|cx| {
            while let Poll::Ready(Some(message)) = connection.poll_message(cx) {
                if let Err(lost) = message {
                    return Poll::Ready(Err(lost));
                }
            }
            asked.as_mut().poll(cx)
        });
        answered.await?;
        drop(asked);
        Ok(Self { connection, _client: client })
    }

    /// Waits for a notification, and takes those that are there as well. `None` if the connection is lost.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<String>>> {
        let mut said = Vec::new();
        while said.len() < AT_ONCE {
            match self.connection.poll_message(cx) {
                Poll::Ready(Some(Ok(AsyncMessage::Notification(one)))) => said.push(one.payload().to_owned()),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending if said.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Some(said))
    }
}

impl<K: FromStr + Send + 'static> ChangeFeed<K> for Notifications {
    async fn next(&mut self) -> Option<Changed<K>> {
        loop {
            let Some(listening) = &mut self.listening else {
                match Listening::begin(&self.config, self.channel).await {
                    Ok(listening) => {
                        (self.listening, self.pause) = (Some(listening), FIRST_PAUSE);
                        // PostgreSQL keeps nothing for who does not listen.
                        return Some(Changed::Everything);
                    }
                    Err(error) => {
                        eprintln!("the database cannot be listened to: {error}");
                        let _ = tokio::time::timeout(self.pause, pending::<()>()).await;
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    }
                }
                continue;
            };
            match poll_fn(|cx| listening.poll(cx)).await {
                Some(said) => return Some(changed(&said)),
                None => self.listening = None,
            }
        }
    }
}

/// What is no key is everything: better too much than too little.
fn changed<K: FromStr>(said: &[String]) -> Changed<K> {
    let keys: Result<Vec<K>, _> = said.iter().map(|key| key.parse()).collect();
    keys.map_or(Changed::Everything, Changed::Keys)
}

impl fmt::Debug for Notifications {
    /// Leaves the configuration out, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications").field("channel", &self.channel).finish_non_exhaustive()
    }
}
