use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::socket2::TcpKeepalive;
use fred::types::RespVersion;
use fred::types::config::{
    Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, Server as Address, ServerConfig,
    TcpConfig,
};

use crate::error::{Cause, UrlProblem};
use crate::options::RedisOptions;

/// One attempt to connect does not use up the whole of a long `connect_timeout`: after a lost packet, a new attempt is
/// quicker than the old one's retransmission.
const ATTEMPT_AT_MOST: Duration = Duration::from_secs(2);

/// fred gives each of a client's event queues this room; for messages, 32 lose every second one at full speed.
const SUBSCRIBER_QUEUE: usize = 8192;
const COMMAND_QUEUE: usize = 32;

/// More than [`IN_FLIGHT`] by far: when this queue is full, fred cannot even queue its own order to reconnect, and its
/// connection task ends for good.
const COMMAND_BUFFER: usize = 16 * 1024;

/// How many operations may be under way on one client; the others wait their turn.
pub(crate) const IN_FLIGHT: usize = 4096;

/// The server, and how its clients are set.
#[derive(Clone)]
pub(crate) struct Server {
    config: Config,
    connection: ConnectionConfig,
    command_timeout: Duration,
}

impl Server {
    pub(crate) fn new(options: &RedisOptions) -> Result<Self, UrlProblem> {
        let config = Config { version: RespVersion::RESP3, fail_fast: false, ..parse(&options.url)? };
        let connection = connection_config(options.connect_timeout.min(ATTEMPT_AT_MOST));
        Ok(Self { config, connection, command_timeout: options.command_timeout })
    }

    #[cfg(test)]
    pub(crate) fn of_url(url: &str) -> Self {
        let connection = connection_config(ATTEMPT_AT_MOST);
        Self {
            config: parse(url).expect("the test has a good one"),
            connection,
            command_timeout: ATTEMPT_AT_MOST,
        }
    }

    /// How long one attempt to connect may take.
    pub(crate) fn attempt(&self) -> Duration {
        self.connection.connection_timeout
    }

    /// Another server, reached with the same user, password and settings.
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        let server = ServerConfig::Centralized { server: Address::new(host, port) };
        Self { config: Config { server, ..self.config.clone() }, ..self.clone() }
    }

    /// Another server on the same host.
    pub(crate) fn beside(&self, port: u16) -> Self {
        let hosts = self.config.server.hosts();
        let host = hosts.first().map(|address| address.host.to_string());
        self.at(&host.unwrap_or_default(), port)
    }

    /// The servers of a cluster that its URL names, each on its own; `None` if it names no cluster.
    pub(crate) fn seeds(&self) -> Option<Vec<Arc<Self>>> {
        let ServerConfig::Clustered { hosts, .. } = &self.config.server else { return None };
        Some(hosts.iter().map(|address| Arc::new(self.at(&address.host, address.port))).collect())
    }

    /// A client for commands, not connected yet.
    pub(crate) fn command_client(&self) -> Client {
        self.client(COMMAND_QUEUE)
    }

    /// A client for subscriptions, not connected yet.
    pub(crate) fn subscriber_client(&self) -> Client {
        self.client(SUBSCRIBER_QUEUE)
    }

    fn client(&self, broadcast_channel_capacity: usize) -> Client {
        let performance = PerformanceConfig {
            default_command_timeout: self.command_timeout,
            broadcast_channel_capacity,
            ..PerformanceConfig::default()
        };
        Client::new(self.config.clone(), Some(performance), Some(self.connection.clone()), Some(policy()))
    }

    /// Per command: a lost reply must not run a script twice. Not set client-wide, where it would break QUIT.
    pub(crate) fn once(&self) -> Options {
        Options { max_attempts: Some(1), timeout: Some(self.command_timeout), ..Options::default() }
    }

    /// `host:port`, of several separated by commas.
    pub(crate) fn address(&self) -> String {
        let hosts = self.config.server.hosts();
        hosts.iter().map(|host| format!("{}:{}", host.host, host.port)).collect::<Vec<_>>().join(",")
    }
}

fn connection_config(attempt: Duration) -> ConnectionConfig {
    ConnectionConfig {
        connection_timeout: attempt,
        internal_command_timeout: attempt,
        max_command_buffer_len: COMMAND_BUFFER,
        // fred leaves Nagle's algorithm on.
        tcp: TcpConfig { nodelay: Some(true), keepalive: Some(keepalive()), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    }
}

/// Frees half-open sockets. Noticing them in time is the business of the beats.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(1))
}

/// For ever, at first after 10 ms (fred waits even before the very first attempt), later every second.
fn policy() -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::new_exponential(0, 10, 1000, 2);
    policy.set_jitter(0);
    policy
}

fn parse(url: &str) -> Result<Config, UrlProblem> {
    Config::from_url(&checked_scheme(url)?).map_err(|error| url_problem(&error))
}

/// fred takes any scheme, and without its TLS features it would speak plain text to a `rediss` server.
fn checked_scheme(url: &str) -> Result<Cow<'_, str>, UrlProblem> {
    match url.split_once("://") {
        Some(("redis" | "redis-sentinel" | "redis-cluster", _)) => Ok(url.into()),
        Some(("valkey", rest)) => Ok(format!("redis://{rest}").into()),
        Some(("valkey-cluster", rest)) => Ok(format!("redis-cluster://{rest}").into()),
        Some(("rediss" | "valkeys" | "rediss-sentinel" | "rediss-cluster", _)) => Err(UrlProblem::Tls),
        _ => Err(UrlProblem::Scheme),
    }
}

fn url_problem(error: &FredError) -> UrlProblem {
    match error.kind() {
        ErrorKind::Parse => UrlProblem::Database,
        _ if error.details().contains("database") => UrlProblem::Database,
        _ => UrlProblem::Malformed(Cause::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> UrlProblem {
        parse(url).unwrap_err()
    }

    #[test]
    fn urls_that_cannot_work_are_refused_with_the_reason() {
        assert_eq!(problem("localhost:6379"), UrlProblem::Scheme);
        assert_eq!(problem("http://localhost"), UrlProblem::Scheme);
        assert_eq!(problem("rediss://localhost"), UrlProblem::Tls);
        assert_eq!(problem("redis://localhost/x"), UrlProblem::Database);
        assert_eq!(problem("redis://localhost/1/2"), UrlProblem::Database);
        assert!(matches!(problem("redis://"), UrlProblem::Malformed(_)));
        assert!(matches!(problem("redis://localhost:99999"), UrlProblem::Malformed(_)));
    }

    #[test]
    fn what_is_said_about_a_url_has_nothing_of_its_secrets() {
        for url in
            ["redis://u:hunter2@host:99999", "hunter2", "redis://u:hunter2@", "redis://u:hunter2@h/hunter2"]
        {
            let problem = problem(url);
            assert!(!format!("{problem} {problem:?}").contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn valkey_urls_mean_the_same() {
        assert_eq!(
            parse("valkey://u:p@localhost:7000/3").unwrap(),
            parse("redis://u:p@localhost:7000/3").unwrap()
        );
    }
}
