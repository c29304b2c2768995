//! Servers that sentinels watch.

use std::ops::{Index, IndexMut};

use crate::authority::Authority;
use crate::clock::in_the_end;
use crate::resp::Reply;
use crate::server::{RedisServer, RedisServerBuilder};

/// What the sentinels call the primary.
const NAME: &str = "nearfar";

/// Of three sentinels.
const QUORUM: u16 = 2;

/// How many milliseconds a primary may be silent. On a busy machine a second passes soon, and a primary that is well
/// must not be replaced because of it.
const PATIENT: &str = "20000";
/// Where it is known to be silent.
const IMPATIENT: &str = "1000";

/// A primary, two replicas of it, and three sentinels that watch them, on free loopback ports.
///
/// The servers are known by index: `sentinels[0]` is a [`RedisServer`], at first the primary. Who is now is asked from
/// the sentinels: [`primary`](Self::primary). A primary that is silent for 20 seconds is replaced, or in some 3 seconds
/// with [`replace`](Self::replace). One that comes back is made a replica after some 6 seconds, or 11 on Redis 6.2.
///
/// When a test fails, it prints what all of them have logged.
///
/// # Leaves nothing behind
///
/// As [`RedisServer`] does.
///
/// # Panics
///
/// All methods do, when they cannot do their work within a minute.
///
/// # Examples
///
/// ```
/// # use nearfar_testkit::Sentinels;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut sentinels = Sentinels::start().await;
/// let old = sentinels.primary().await;
/// assert!(sentinels[old].command(&["SET", "key", "value"]).await.is_ok());
///
/// sentinels[old].kill().await;
/// let new = sentinels.replace(old).await;
/// assert_ne!(new, old);
/// # }
/// ```
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

/// Settings of [`Sentinels`] and their servers.
#[derive(Debug, Clone)]
pub struct SentinelsBuilder {
    server: RedisServerBuilder,
    sentinel: RedisServerBuilder,
}

impl SentinelsBuilder {
    /// Has servers and sentinels speak TLS with clients and with each other, and ask for certificates that this authority
    /// has signed. Handles go on using plain ports.
    pub fn tls(self, authority: &Authority) -> Self {
        Self { server: self.server.tls_among(authority), sentinel: self.sentinel.tls_among(authority) }
    }

    /// Starts them all, and returns when they have [settled](Sentinels::settled).
    pub async fn start(self) -> Sentinels {
        let primary = self.server.clone().start().await;
        let address = format!("127.0.0.1 {}", primary.known_port());
        let mut servers = vec![primary];
        for _ in 0..2 {
            servers.push(self.server.clone().arg("replicaof", &address).start().await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(watching(self.sentinel.clone(), &address).start().await);
        }
        let all = Sentinels { servers, sentinels };
        all.introduce().await;
        all.hurry().await;
        all.settled().await;
        all
    }
}

impl Sentinels {
    /// Starts servers that persist nothing, and their sentinels, and returns when they have
    /// [settled](Self::settled).
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts them with settings of their own.
    pub fn builder() -> SentinelsBuilder {
        SentinelsBuilder { server: replicating(), sentinel: RedisServerBuilder::sentinel() }
    }

    /// `redis-sentinel://127.0.0.1:PORT?sentinelServiceName=NAME&node=127.0.0.1:PORT&node=...`, with all sentinels. With
    /// [`tls`](SentinelsBuilder::tls) it is `rediss-sentinel`, and the ports are those with TLS.
    pub fn url(&self) -> String {
        let addresses: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.known_port())).collect();
        let (scheme, first, others) =
            (self.sentinels[0].scheme(), &addresses[0], addresses[1..].join("&node="));
        format!("{scheme}-sentinel://{first}?sentinelServiceName={NAME}&node={others}")
    }

    /// The sentinels, to be killed, paused or asked.
    pub fn sentinels(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// The server that most of the sentinels name.
    pub async fn primary(&self) -> usize {
        let named = self.named().await;
        let votes = |index: usize| named.iter().filter(|&&other| other == Some(index)).count();
        (0..self.servers.len()).max_by_key(|&index| votes(index)).unwrap_or_default()
    }

    /// Has the sentinels replace a primary that was killed or paused after a second of silence, or up to 10 more if the
    /// one before was replaced just now; and returns the new one when all have [settled](Self::settled).
    pub async fn replace(&self, old: usize) -> usize {
        self.give_up_after(IMPATIENT).await;
        self.all_name_another_than(old).await;
        self.give_up_after(PATIENT).await;
        self.settled().await;
        self.primary().await
    }

    /// Has the sentinels replace a primary that is well (`SENTINEL FAILOVER`), and returns the new one when all have
    /// [settled](Self::settled).
    ///
    /// The old one does not wait for its replicas: what it acknowledges in the last moment is lost.
    pub async fn failover(&self) -> usize {
        self.settled().await;
        let old = self.primary().await;
        let reply = self.awake_sentinel().command(&["SENTINEL", "FAILOVER", NAME]).await;
        assert_ok(&reply);
        self.all_name_another_than(old).await;
        self.settled().await;
        self.primary().await
    }

    async fn give_up_after(&self, milliseconds: &str) {
        for sentinel in self.awake_sentinels() {
            let set = ["SENTINEL", "SET", NAME, "down-after-milliseconds", milliseconds];
            assert_ok(&sentinel.command(&set).await);
        }
    }

    async fn all_name_another_than(&self, old: usize) {
        in_the_end("the sentinels name another", || async {
            let named = self.named().await;
            named.iter().all(|&index| index.is_some_and(|index| index != old))
        })
        .await;
    }

    /// Waits until all sentinels that are awake name the same server; it is awake and knows that it is the primary; the
    /// others that are awake follow it; and each sentinel knows enough others for a failover, sees all those
    /// replicas, and could promote one.
    pub async fn settled(&self) {
        in_the_end("the sentinels settle", || self.is_settled()).await;
    }

    async fn is_settled(&self) -> bool {
        let named = self.named().await;
        let Some(&Some(primary)) = named.first() else { return false };
        named.iter().all(|&other| other == Some(primary))
            && self.roles_are_right(primary).await
            && self.sentinels_are_ready(primary).await
    }

    /// Whom each sentinel that is awake names.
    async fn named(&self) -> Vec<Option<usize>> {
        let mut named = Vec::new();
        for sentinel in self.awake_sentinels() {
            let address = sentinel.try_command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await;
            let port = address.ok().and_then(|address| port_in(address.array()?.get(1)?));
            named.push(self.servers.iter().position(|server| Some(server.known_port()) == port));
        }
        named
    }

    async fn roles_are_right(&self, primary: usize) -> bool {
        for (index, server) in self.servers.iter().enumerate() {
            let right = if index == primary {
                server.is_awake() && is_primary(server).await
            } else {
                !server.is_awake() || follows(server, self[primary].known_port()).await
            };
            if !right {
                return false;
            }
        }
        true
    }

    async fn sentinels_are_ready(&self, primary: usize) -> bool {
        let replicas = self.servers.iter().enumerate().filter(|&(index, _)| index != primary);
        let ports: Vec<_> = replicas
            .map(|(_, server)| server)
            .filter(|server| server.is_awake())
            .map(RedisServer::known_port)
            .collect();
        for sentinel in self.awake_sentinels() {
            if !has_quorum(sentinel).await || !knows_replicas(sentinel, &ports).await {
                return false;
            }
        }
        true
    }

    /// Tells each of each other, as they would themselves through the primary, but some seconds later.
    async fn introduce(&self) {
        for (index, subject) in self.sentinels.iter().enumerate() {
            let hello = self.hello(subject).await;
            for other in
                self.sentinels.iter().enumerate().filter(|&(other, _)| other != index).map(|(_, it)| it)
            {
                other.command(&["PUBLISH", "__sentinel__:hello", &hello]).await;
            }
        }
    }

    /// Has the sentinels look at the servers more often than every ten seconds, and mend what is wrong sooner; and has
    /// one that stood still itself not stand back for half a minute. Redis 6.2 has no such command.
    async fn hurry(&self) {
        let periods = ["info-period", "2000", "publish-period", "1000", "tilt-period", "2000"];
        for sentinel in &self.sentinels {
            sentinel.command(&[["SENTINEL", "DEBUG"].as_slice(), &periods].concat()).await;
        }
    }

    /// Address, id and epoch of the sentinel; name, address and epoch of what it watches.
    async fn hello(&self, sentinel: &RedisServer) -> String {
        let id = sentinel.command(&["SENTINEL", "MYID"]).await;
        let id = id.text().expect("a sentinel has an id");
        format!("127.0.0.1,{},{id},0,{NAME},127.0.0.1,{},0", sentinel.known_port(), self[0].known_port())
    }

    fn awake_sentinels(&self) -> impl Iterator<Item = &RedisServer> {
        self.sentinels.iter().filter(|sentinel| sentinel.is_awake())
    }

    fn awake_sentinel(&self) -> &RedisServer {
        self.awake_sentinels().next().expect("a sentinel is awake")
    }
}

/// Of a test that fails, it tells what the servers and the sentinels went through.
impl Drop for Sentinels {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in self.servers.iter().chain(&self.sentinels) {
                println!("--- {}\n{}", server.port(), server.log());
            }
        }
    }
}

impl Index<usize> for Sentinels {
    type Output = RedisServer;

    fn index(&self, index: usize) -> &RedisServer {
        &self.servers[index]
    }
}

impl IndexMut<usize> for Sentinels {
    fn index_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }
}

fn replicating() -> RedisServerBuilder {
    RedisServer::builder().arg("repl-diskless-sync", "yes").arg("repl-diskless-sync-delay", "0")
}

fn watching(sentinel: RedisServerBuilder, address: &str) -> RedisServerBuilder {
    sentinel
        .arg("sentinel", &format!("monitor {NAME} {address} {QUORUM}"))
        .arg("sentinel", &format!("down-after-milliseconds {NAME} {PATIENT}"))
        // A promotion is looked for once a second, over a link that it has cut: two seconds are too few on a busy
        // machine. After a failure, or a failover, twice the time passes before the next.
        .arg("sentinel", &format!("failover-timeout {NAME} 5000"))
        .arg("sentinel", &format!("parallel-syncs {NAME} 2"))
}

async fn has_quorum(sentinel: &RedisServer) -> bool {
    let answer = sentinel.try_command(&["SENTINEL", "CKQUORUM", NAME]).await;
    answer.is_ok_and(|answer| matches!(answer, Reply::Simple(_)))
}

/// Whether the sentinel sees these, and could promote one of them.
async fn knows_replicas(sentinel: &RedisServer, ports: &[u16]) -> bool {
    let Ok(replicas) = sentinel.try_command(&["SENTINEL", "REPLICAS", NAME]).await else { return false };
    let replicas = replicas.array().unwrap_or_default();
    let seen: Vec<_> = replicas.iter().filter(|replica| field(replica, "flags") == Some("slave")).collect();
    // What a sentinel knows of a link may be 10 seconds old: not all can be waited for.
    let linked = seen.iter().any(|replica| field(replica, "master-link-status") == Some("ok"));
    linked && ports.iter().all(|&port| seen.iter().any(|replica| port_of(replica) == Some(port)))
}

fn port_of(replica: &Reply) -> Option<u16> {
    field(replica, "port")?.parse().ok()
}

/// Of names and values in turn.
fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let pairs = reply.array()?.chunks_exact(2);
    pairs.filter(|pair| pair[0].text() == Some(name)).find_map(|pair| pair[1].text())
}

async fn is_primary(server: &RedisServer) -> bool {
    role(server).await.is_some_and(|role| role[0].text() == Some("master"))
}

async fn follows(server: &RedisServer, primary: u16) -> bool {
    role(server).await.is_some_and(|role| {
        role[0].text() == Some("slave")
            && role[2].int() == Some(primary.into())
            && role[3].text() == Some("connected")
    })
}

async fn role(server: &RedisServer) -> Option<Vec<Reply>> {
    match server.try_command(&["ROLE"]).await {
        Ok(Reply::Array(role)) => Some(role),
        _ => None,
    }
}

fn port_in(reply: &Reply) -> Option<u16> {
    reply.text()?.parse().ok()
}

fn assert_ok(reply: &Reply) {
    assert!(reply.is_ok(), "{reply:?}");
}
