//! The handle of a server.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::authority::{Authority, Certificate, Validity};
use crate::config::{Config, Mode};
use crate::door::{CertificateFiles, Door, TlsDoor};
use crate::engine::{Engine, LaunchError};
use crate::ports::Reservation;
use crate::resp::{Reply, RespClient};

/// A port can be lost to a program that is not of the testkit, between the look and the start.
const ATTEMPTS: usize = 5;

/// How servers speak of `tls-port` that were compiled without it: Redis, and Valkey.
const WITHOUT_TLS: [&str; 2] = ["Bad directive", "Failed finding TLS support"];

/// A `redis-server` or `valkey-server` of the test's own, on a free loopback port.
///
/// The server is the file that the environment variable `NEARFAR_SERVER` names, else `redis-server`
/// or `valkey-server` from the `PATH`, else the one that `scripts/test` unpacks. `NEARFAR_SERVER=docker` has it run
/// in a container.
///
/// Unless built otherwise it persists nothing. Any number may run in parallel.
///
/// # Leaves nothing behind
///
/// Dropping the handle kills the process, running or paused, and removes its directory; a test that
/// panics drops it. When the test process itself dies, by a signal or with the handle in a `static`,
/// a guardian process does the same.
///
/// # Panics
///
/// A test has no use for a server that does not obey: all methods but
/// [`try_command`](Self::try_command) panic when they cannot do their work.
#[derive(Debug)]
pub struct RedisServer {
    engine: Engine,
    persistent: bool,
    /// Neither down nor paused.
    awake: AtomicBool,
    // After `engine`: the ports are free again once the server is gone.
    port: Reservation,
    tls: Option<TlsPort>,
    _bus: Option<Reservation>,
}

#[derive(Debug)]
struct TlsPort {
    port: Reservation,
    files: CertificateFiles,
}

impl RedisServer {
    /// Starts a server that persists nothing, and returns when it accepts commands.
    ///
    /// # Panics
    ///
    /// If there is no server binary, saying what to do about it; or if it does not come up, with its
    /// log.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts a server with settings of its own.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// `redis://127.0.0.1:PORT`, or `redis+unix:///PATH`. The same through every restart.
    pub fn url(&self) -> String {
        match self.engine.door() {
            Door::Port(port) => format!("redis://127.0.0.1:{port}"),
            Door::Socket(path) => format!("redis+unix://{}", path.display()),
        }
    }

    /// The port with TLS. The same through every restart.
    ///
    /// # Panics
    ///
    /// If the server was built without [`tls`](RedisServerBuilder::tls).
    pub fn tls_port(&self) -> u16 {
        self.tls().port.port()
    }

    /// Gives the server another certificate, which it shows from its next start on.
    ///
    /// # Panics
    ///
    /// If the server was built without [`tls`](RedisServerBuilder::tls).
    pub fn replace_certificate(&self, certificate: &Certificate) {
        self.tls().files.write(certificate);
    }

    fn tls(&self) -> &TlsPort {
        self.tls.as_ref().expect("the server was built without `tls`")
    }

    /// The port at which the others of a group know the server, and name it to clients.
    pub(crate) fn known_port(&self) -> u16 {
        self.tls.as_ref().map_or(self.port(), |tls| tls.port.port())
    }

    /// With what the URL of a group begins that has such servers.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "rediss" } else { "redis" }
    }

    /// The port. The same through every restart, and nobody else's while the server is down.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The version, major and minor, of the Redis whose commands the server has. Valkey says that it is like Redis 7.2.
    ///
    /// For a test of what some servers lack, which says what is so on those: Redis 6.2 has no sharded pub/sub.
    ///
    /// # Panics
    ///
    /// If no reply comes: the server is down or paused.
    pub async fn version(&self) -> (u16, u16) {
        let info = self.command(&["INFO", "server"]).await;
        info.text().and_then(version_in).expect("a server knows its version")
    }

    /// All that the server has logged since it was first started.
    pub fn log(&self) -> String {
        self.engine.log()
    }

    /// Sends a command on a connection of its own. An error reply is a reply.
    ///
    /// # Panics
    ///
    /// If no reply comes: the server is down, or has been paused for 5 seconds.
    pub async fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> Reply {
        match self.try_command(args).await {
            Ok(reply) => reply,
            Err(error) => panic!("no reply from {}: {error}", self.url()),
        }
    }

    /// Sends a command on a connection of its own, to a server that may be down.
    ///
    /// # Errors
    ///
    /// If no reply comes within 5 seconds.
    pub async fn try_command<A: AsRef<[u8]>>(&self, args: &[A]) -> io::Result<Reply> {
        self.connect().await?.command(args).await
    }

    /// Opens a connection, for commands that belong together, such as `SUBSCRIBE`.
    ///
    /// # Errors
    ///
    /// If nothing accepts the connection within 5 seconds.
    pub async fn connect(&self) -> io::Result<RespClient> {
        RespClient::through(self.engine.door()).await
    }

    /// Kills the server without a warning (SIGKILL). Does nothing if it is down.
    pub async fn kill(&mut self) {
        self.awake.store(false, Ordering::SeqCst);
        self.engine.kill().await;
    }

    /// Asks the server to end (SIGTERM), and waits for it. Does nothing if it is down.
    pub async fn stop(&mut self) {
        self.awake.store(false, Ordering::SeqCst);
        self.engine.stop().await;
    }

    /// Freezes the server (SIGSTOP): its connections stay open and nothing is answered. It has stopped
    /// when this returns.
    ///
    /// # Panics
    ///
    /// If the server is down.
    pub async fn pause(&self) {
        self.awake.store(false, Ordering::SeqCst);
        self.engine.pause().await;
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Panics
    ///
    /// If the server is down.
    pub async fn resume(&self) {
        self.engine.resume().await;
        self.awake.store(true, Ordering::SeqCst);
    }

    /// Whether the server should answer: it is up, and not paused.
    pub(crate) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::SeqCst)
    }

    /// Starts the server again with its data, after [`kill`](Self::kill) (a crash),
    /// [`stop`](Self::stop), or neither (then it stops the server first).
    ///
    /// # Panics
    ///
    /// If the server is not [`persistent`](RedisServerBuilder::persistent), or does not come up.
    pub async fn restart(&mut self) {
        assert!(
            self.persistent,
            "restart() keeps data: build the server with persistent(), or use restart_empty()"
        );
        self.stop().await;
        self.launch_or_panic().await;
    }

    /// Starts the server again with what the command `SAVE` has last written, as after a restore from an old backup,
    /// killing it first if it runs.
    ///
    /// # Panics
    ///
    /// If the server is [`persistent`](RedisServerBuilder::persistent), which would win over the backup, or does not
    /// come up.
    pub async fn restart_from_snapshot(&mut self) {
        assert!(
            !self.persistent,
            "a persistent server starts from its append-only file, not from a snapshot"
        );
        self.kill().await;
        self.launch_or_panic().await;
    }

    /// Starts the server again without data, killing it first if it runs.
    ///
    /// # Panics
    ///
    /// If the server does not come up.
    pub async fn restart_empty(&mut self) {
        self.engine.wipe().await;
        self.launch_or_panic().await;
    }

    async fn launch_or_panic(&mut self) {
        if let Err(error) = self.engine.launch().await {
            self.give_up(&error);
        }
        self.awake.store(true, Ordering::SeqCst);
    }

    fn give_up(&self, error: &LaunchError) -> ! {
        let log = self.log();
        assert!(
            !(self.tls.is_some() && WITHOUT_TLS.iter().any(|words| log.contains(words))),
            "this server was compiled without TLS: NEARFAR_SERVER names one that has it, such as the redis-server \
             of Debian or Ubuntu\n{log}"
        );
        panic!("the server did not come up: {error}\n{log}");
    }
}

fn version_in(info: &str) -> Option<(u16, u16)> {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"))?;
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Settings of a [`RedisServer`].
#[derive(Debug, Clone)]
pub struct RedisServerBuilder {
    config: Config,
    persistent: bool,
    clustered: bool,
    tls: Option<TlsDoor>,
    socket: bool,
}

impl Default for RedisServerBuilder {
    fn default() -> Self {
        Self {
            config: Config::new(Mode::Server),
            persistent: false,
            clustered: false,
            tls: None,
            socket: false,
        }
    }
}

impl RedisServerBuilder {
    /// Sets a directive of the server's configuration, such as `("maxmemory", "10mb")` or
    /// `("client-output-buffer-limit", "pubsub 1mb 0 0")`.
    ///
    /// Not for `requirepass`: the handle itself does not authenticate. Use `ACL SETUSER`.
    pub fn arg(mut self, directive: &str, value: &str) -> Self {
        self.config.set(directive, value);
        self
    }

    /// Every acknowledged write survives [`kill`](RedisServer::kill) and
    /// [`restart`](RedisServer::restart): append-only file, synced on every write. Defaults to no
    /// persistence.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Opens another port, with TLS; the handle goes on using the plain one. With `clients`, who connects there must
    /// show a certificate that this authority has signed.
    pub fn tls(mut self, certificate: &Certificate, clients: Option<&Authority>) -> Self {
        self.tls = Some(TlsDoor::new(certificate, clients));
        self
    }

    /// As [`tls`](Self::tls), for one of several servers that use it among themselves too.
    pub(crate) fn tls_among(self, authority: &Authority) -> Self {
        let certificate = authority.issue(&["localhost", "127.0.0.1"], Validity::Now);
        self.tls(&certificate, Some(authority)).arg("tls-replication", "yes")
    }

    /// Listens on a socket of the file system, and on no port.
    pub fn socket(mut self) -> Self {
        self.socket = true;
        self
    }

    /// A server of a cluster, which is to be formed yet.
    pub(crate) fn clustered(mut self) -> Self {
        self.clustered = true;
        self
    }

    /// A sentinel, which remembers over a restart what it has learnt.
    pub(crate) fn sentinel() -> Self {
        Self { config: Config::new(Mode::Sentinel), persistent: true, ..Self::default() }
    }

    /// Starts the server, and returns when it accepts commands.
    ///
    /// # Panics
    ///
    /// If there is no server binary, saying what to do about it; or if it does not come up, with its
    /// log.
    pub async fn start(self) -> RedisServer {
        let mut server = self.attempt();
        for _ in 1..ATTEMPTS {
            match server.engine.launch().await {
                Ok(()) => {
                    server.awake.store(true, Ordering::SeqCst);
                    return server;
                }
                // Not tried again on the same port, which may be what was wrong.
                Err(LaunchError::Exited(_) | LaunchError::Foreign) => server = self.attempt(),
                Err(error) => server.give_up(&error),
            }
        }
        server.launch_or_panic().await;
        server
    }

    fn attempt(&self) -> RedisServer {
        let ((known, bus), mut config) = (self.ports(), self.full_config());
        let dir = Engine::folder(&config);
        let (port, tls) = match &self.tls {
            None => (known, None),
            Some(tls) => {
                let files = CertificateFiles::of(dir.path());
                tls.open(known.port(), &files, &mut config);
                (Reservation::take(), Some(TlsPort { port: known, files }))
            }
        };
        let socket = self.socket.then(|| Door::Socket(dir.path().join("redis.sock")));
        let engine = Engine::new(config, socket.unwrap_or(Door::Port(port.port())), dir);
        RedisServer { engine, persistent: self.persistent, awake: false.into(), port, tls, _bus: bus }
    }

    /// The port at which others know the server, and the one above it if it is of a cluster.
    fn ports(&self) -> (Reservation, Option<Reservation>) {
        if self.clustered {
            let (port, bus) = Reservation::take_with_bus();
            (port, Some(bus))
        } else {
            (Reservation::take(), None)
        }
    }

    /// The caller's directives stand last, so that they win.
    fn full_config(&self) -> Config {
        let mut config = Config::new(self.config.mode);
        config.watched |= self.clustered;
        if config.mode == Mode::Server {
            config.set("save", "");
            config.set("appendonly", if self.persistent { "yes" } else { "no" });
            config.set("appendfsync", "always");
        }
        config.followed_by(&self.config)
    }
}
