use std::io;
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
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Cause, ConnectError, UrlProblem};
use crate::options::RedisOptions;
use crate::security::{Security, Stream};
use crate::socket;
use crate::tls::TlsProblem;

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
    security: Security,
}

impl Server {
    pub(crate) fn new(options: &RedisOptions) -> Result<Self, ConnectError> {
        let (asks_for_tls, parsed) = parse(&options.url).map_err(ConnectError::BadUrl)?;
        let mut config = Config { version: RespVersion::RESP3, fail_fast: false, ..parsed };
        let security = Security::of(asks_for_tls, options.tls.as_ref())?;
        security.apply(&mut config);
        let connection = connection_config(options.connect_timeout.min(ATTEMPT_AT_MOST));
        Ok(Self { config, connection, command_timeout: options.command_timeout, security })
    }

    #[cfg(test)]
    pub(crate) fn of_url(url: &str) -> Self {
        let connection = connection_config(ATTEMPT_AT_MOST);
        let (_, config) = parse(url).expect("the test has a good one");
        let security = Security::of(false, None).expect("none is asked for");
        Self { config, connection, command_timeout: ATTEMPT_AT_MOST, security }
    }

    /// As whom to log in, if at all: user and password.
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        let password = self.config.password.as_deref()?;
        Some((self.config.username.as_deref().unwrap_or("default"), password))
    }

    /// A connection that fred has nothing to do with.
    pub(crate) async fn open_stream(&self) -> io::Result<Box<dyn Stream>> {
        if let ServerConfig::Unix { path } = &self.config.server {
            return Ok(Box::new(UnixStream::connect(path).await?));
        }
        let hosts = self.config.server.hosts();
        let address = hosts.first().ok_or(io::ErrorKind::NotFound)?;
        let socket = TcpStream::connect((&*address.host, address.port)).await?;
        socket.set_nodelay(true)?;
        self.security.wrap(&address.host, socket).await
    }

    /// How long one operation may take.
    pub(crate) fn command_timeout(&self) -> Duration {
        self.command_timeout
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

    /// The sentinels that its URL names, and the name under which they know the primary; `None` if it names none.
    pub(crate) fn sentinels(&self) -> Option<(Vec<Arc<Self>>, String)> {
        let ServerConfig::Sentinel { hosts, service_name, username, password } = &self.config.server else {
            return None;
        };
        let login = (username.clone(), password.clone());
        let sentinel =
            |address: &Address| Arc::new(self.at(&address.host, address.port).logged_in(login.clone()));
        Some((hosts.iter().map(sentinel).collect(), service_name.clone()))
    }

    /// The same with another login, and no database.
    fn logged_in(&self, (username, password): (Option<String>, Option<String>)) -> Self {
        Self { config: Config { username, password, database: None, ..self.config.clone() }, ..self.clone() }
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

    /// What of TLS keeps a connection from coming about.
    pub(crate) async fn tls_problem(&self) -> Option<TlsProblem> {
        match &self.config.server {
            ServerConfig::Unix { .. } => None,
            remote => self.security.diagnose(&remote.hosts()).await,
        }
    }

    /// Whether it is asked for TLS and answers in plain text.
    pub(crate) async fn is_plain(&self) -> bool {
        self.security.meets_plain(&self.config.server.hosts()).await
    }

    /// `host:port`, of several separated by commas; of a socket its path.
    pub(crate) fn address(&self) -> String {
        if let ServerConfig::Unix { path } = &self.config.server {
            return path.display().to_string();
        }
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

/// Whether the URL asks for TLS, and the rest of what it says.
///
/// fred takes any scheme. It never sees one that asks for TLS, for which it would choose settings of its own.
fn parse(url: &str) -> Result<(bool, Config), UrlProblem> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlProblem::Scheme)?;
    let from_url = |kind: &str| Config::from_url(&format!("{kind}://{rest}")).map_err(|e| url_problem(&e));
    let (tls, config) = match scheme {
        "redis" | "valkey" => (false, from_url("redis")?),
        "rediss" | "valkeys" => (true, from_url("redis")?),
        "redis-sentinel" | "valkey-sentinel" => (false, from_url("redis-sentinel")?),
        "rediss-sentinel" | "valkeys-sentinel" => (true, from_url("redis-sentinel")?),
        "redis+unix" | "valkey+unix" | "unix" => (false, socket::parse(rest)?),
        "redis-cluster" | "valkey-cluster" => (false, from_url("redis-cluster")?),
        "rediss-cluster" | "valkeys-cluster" => (true, from_url("redis-cluster")?),
        _ => return Err(UrlProblem::Scheme),
    };
    // fred would not log in.
    if logins(&config).into_iter().any(|(user, password)| user.is_some() && password.is_none()) {
        return Err(UrlProblem::UserWithoutPassword);
    }
    Ok((tls, config))
}

/// Users and passwords: those of the servers, and those of the sentinels.
fn logins(config: &Config) -> [(&Option<String>, &Option<String>); 2] {
    let of_sentinels = match &config.server {
        ServerConfig::Sentinel { username, password, .. } => (username, password),
        _ => (&None, &None),
    };
    [(&config.username, &config.password), of_sentinels]
}

pub(crate) fn url_problem(error: &FredError) -> UrlProblem {
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
        assert_eq!(problem("rediss+unix:///run/redis.sock"), UrlProblem::Scheme);
        assert_eq!(problem("redis+unix://run/redis.sock"), UrlProblem::SocketPath);
        assert_eq!(problem("redis://app@localhost"), UrlProblem::UserWithoutPassword);
        let sentinel = "redis-sentinel://localhost?sentinelServiceName=main&sentinelUsername=asker";
        assert_eq!(problem(sentinel), UrlProblem::UserWithoutPassword);
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
        for (redis, valkey) in [("redis", "valkey"), ("rediss", "valkeys")] {
            let rest = "u:p@localhost:7000/3";
            assert_eq!(parse(&format!("{valkey}://{rest}")), parse(&format!("{redis}://{rest}")));
            let rest = "u:p@localhost:7000/3?sentinelServiceName=main&node=other:7001";
            assert_eq!(
                parse(&format!("{valkey}-sentinel://{rest}")),
                parse(&format!("{redis}-sentinel://{rest}"))
            );
        }
        assert_eq!(parse("unix:///run/redis.sock"), parse("valkey+unix:///run/redis.sock"));
    }

    #[test]
    fn only_schemes_of_tls_ask_for_it() {
        for scheme in ["redis", "valkey", "rediss", "valkeys"] {
            for kind in ["", "-sentinel"] {
                let url = format!("{scheme}{kind}://localhost?sentinelServiceName=main");
                assert_eq!(parse(&url).unwrap().0, scheme.ends_with("ss") || scheme.ends_with("ys"), "{url}");
            }
        }
    }
}
