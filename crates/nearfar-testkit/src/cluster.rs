//! A cluster of servers.

use std::ops::{Deref, DerefMut, Index, IndexMut};

use crate::clock::in_the_end;
use crate::proxy::FaultProxy;
use crate::resp::Reply;
use crate::server::{RedisServer, RedisServerBuilder};
use view::{Map, View};

mod formation;
mod view;

/// How many keys of a slot are moved at a time.
const BATCH: &str = "100";
/// Whether a replica leaves its primary alone, however long that is silent.
const NO_FAILOVER: &str = "cluster-replica-no-failover";

/// A Redis Cluster of the test's own: three primaries with a replica each, on free loopback ports.
///
/// Its servers are known by index: `cluster[0]` is a [`ClusterServer`], which is a [`RedisServer`] to kill, pause or
/// restart. What they are at the moment is asked from them: [`primaries`](Self::primaries),
/// [`replica_of`](Self::replica_of), [`owner_of_slot`](Self::owner_of_slot).
///
/// A server that comes up again, also [empty](RedisServer::restart_empty), is the member that it was. When a primary is
/// silent for 2 seconds, the whole cluster refuses commands until that speaks again, or its replica is told to
/// [`replace`](Self::replace) it.
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
/// # use nearfar_testkit::RedisCluster;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut cluster = RedisCluster::start().await;
/// let slot = cluster.slot_of("key").await;
/// let owner = cluster.owner_of_slot(slot).await;
/// let replica = cluster.replica_of(owner).await;
/// assert!(cluster[owner].command(&["SET", "key", "value"]).await.is_ok());
///
/// cluster[owner].kill().await;
/// assert_eq!(cluster.replace(owner).await, replica);
/// assert_eq!(cluster.owner_of_slot(slot).await, replica);
/// # }
/// ```
#[derive(Debug)]
pub struct RedisCluster {
    members: Vec<ClusterServer>,
    builder: RedisClusterBuilder,
}

/// A server of a [`RedisCluster`]. It is a [`RedisServer`], whose own port and URL lead past its proxy.
#[derive(Debug)]
pub struct ClusterServer {
    server: RedisServer,
    proxy: Option<FaultProxy>,
    id: String,
}

/// Settings of a [`RedisCluster`].
#[derive(Debug, Clone)]
pub struct RedisClusterBuilder {
    server: RedisServerBuilder,
    proxied: bool,
}

impl RedisCluster {
    /// Starts a cluster that persists nothing, and returns when it is [settled](Self::settled). Takes some 3 seconds, of
    /// which 2 are the time for which a new cluster refuses to work.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts a cluster with settings of its own.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder::new()
    }

    /// `redis-cluster://127.0.0.1:PORT?node=127.0.0.1:PORT&node=...`, with all servers that there are now, or their
    /// proxies. With [`tls`](RedisClusterBuilder::tls) it is `rediss-cluster`, and the ports are those with TLS.
    pub fn url(&self) -> String {
        let addresses: Vec<_> =
            self.members.iter().map(|member| format!("127.0.0.1:{}", member.public_port())).collect();
        let (scheme, others) = (self[0].scheme(), addresses[1..].join("&node="));
        format!("{scheme}-cluster://{}?node={others}", addresses[0])
    }

    /// The servers that own slots, in the order of their first ones.
    pub async fn primaries(&self) -> Vec<usize> {
        let map = self.map().await;
        map.owners().map(|id| self.index(id)).collect()
    }

    /// A replica, awake, of `primary`.
    ///
    /// # Panics
    ///
    /// If it has none.
    pub async fn replica_of(&self, primary: usize) -> usize {
        for (index, member) in self.awake() {
            let view = member.view().await;
            let view = view.expect("a server that is awake answers");
            if view.myself().primary.as_ref() == Some(&self[primary].id) {
                return index;
            }
        }
        panic!("server {primary} has no replica that is awake")
    }

    /// The server that owns `slot`: where servers disagree, the one that took it last.
    pub async fn owner_of_slot(&self, slot: u16) -> usize {
        self.index(self.map().await.owner(slot))
    }

    /// The slot of `key`, according to the cluster.
    pub async fn slot_of(&self, key: impl AsRef<[u8]>) -> u16 {
        let slot = self.any().command(&[b"CLUSTER".as_slice(), b"KEYSLOT", key.as_ref()]).await;
        slot_in(&slot)
    }

    /// Has a replica of `primary` take its place, with the consent of both (`CLUSTER FAILOVER`), and returns that
    /// replica when the cluster has [settled](Self::settled).
    pub async fn failover(&self, primary: usize) -> usize {
        self.settled().await;
        let replica = self.replica_of(primary).await;
        self[replica].obey(&["CLUSTER", "FAILOVER"]).await;
        in_the_end("the replica has taken over", || async { self.primaries().await.contains(&replica) })
            .await;
        self.settled().await;
        replica
    }

    /// Has the replica of a primary that was killed or paused take its place after two seconds of silence, and returns
    /// that replica when the cluster has [settled](Self::settled).
    pub async fn replace(&self, primary: usize) -> usize {
        let replica = self.replica_of(primary).await;
        self[replica].obey(&["CONFIG", "SET", NO_FAILOVER, "no"]).await;
        self.settled().await;
        self[replica].obey(&["CONFIG", "SET", NO_FAILOVER, "yes"]).await;
        replica
    }

    /// Moves `slot` with its keys to server `to`, while clients use it, and returns when the cluster has
    /// [settled](Self::settled).
    ///
    /// A primary whose last slot moves becomes a replica of the other.
    pub async fn migrate_slot(&self, slot: u16, to: usize) {
        let from = self.owner_of_slot(slot).await;
        if from != to {
            self.open_slot(slot, from, to).await;
            self.move_keys(slot, from, to).await;
            self.close_slot(slot, from, to).await;
            self.settled().await;
        }
    }

    /// From here on, clients are sent on from `from` to `to` for each key that has moved or is not there.
    async fn open_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self[to].obey(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self[from].id]).await;
        self[from].obey(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self[to].id]).await;
    }

    async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self[to].known_port().to_string());
        let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"].map(str::as_bytes);
        loop {
            let keys = self[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot, BATCH]).await;
            let keys: Vec<_> =
                keys.array().expect("an array").iter().map(|key| key.bytes().expect("a key")).collect();
            if keys.is_empty() {
                return;
            }
            let reply = self[from].command(&[&migrate, keys.as_slice()].concat()).await;
            // They may have expired meanwhile.
            assert!(reply.is_ok() || reply.text() == Some("NOKEY"), "MIGRATE: {reply:?}");
        }
    }

    /// The new owner is told first: if the old one were, nobody would own the slot for a moment.
    async fn close_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let mut others = self.primaries().await;
        others.retain(|&other| other != from && other != to && self[other].is_awake());
        for index in [to, from].into_iter().chain(others) {
            self[index].obey(&["CLUSTER", "SETSLOT", &slot, "NODE", &self[to].id]).await;
        }
    }

    /// Starts one more server, a primary without slots, and returns it when the cluster has [settled](Self::settled).
    pub async fn add_node(&mut self) -> usize {
        self.members.push(self.builder.launch().await);
        let newcomer = self.members.len() - 1;
        for (_, member) in self.awake().filter(|&(index, _)| index != newcomer) {
            member.meet(&self[newcomer]).await;
        }
        self.settled().await;
        newcomer
    }

    /// All servers, primaries and replicas.
    pub fn members(&self) -> &[ClusterServer] {
        &self.members
    }

    /// All servers, to be killed and restarted.
    pub fn members_mut(&mut self) -> &mut [ClusterServer] {
        &mut self.members
    }

    /// Waits until all servers that are awake know each other, agree on who owns which slot and is whose replica, and
    /// find their cluster in order; each slot is owned by one of them; and each replica is linked to its primary.
    pub async fn settled(&self) {
        in_the_end("the cluster settles", || self.is_settled()).await;
    }

    async fn is_settled(&self) -> bool {
        for (_, member) in self.awake() {
            if !member.is_linked().await {
                return false;
            }
        }
        let Some(views) = self.views().await else { return false };
        let awake: Vec<_> = self.awake().map(|(_, member)| member.id.as_str()).collect();
        views.iter().all(|view| view.is_whole(&awake)) && view::agree(&views, &awake)
    }

    fn any(&self) -> &ClusterServer {
        self.awake().next().expect("a server is awake").1
    }

    async fn map(&self) -> Map {
        Map::of(&self.views().await.expect("the servers are awake"))
    }

    /// How each server sees the cluster. `None` if one that should be awake does not say.
    async fn views(&self) -> Option<Vec<View>> {
        let mut views = Vec::new();
        for (_, member) in self.awake() {
            views.push(member.view().await?);
        }
        Some(views)
    }

    fn awake(&self) -> impl Iterator<Item = (usize, &ClusterServer)> {
        self.members.iter().enumerate().filter(|(_, member)| member.is_awake())
    }

    fn index(&self, id: &str) -> usize {
        self.members.iter().position(|member| member.id == id).expect("all members are this cluster's own")
    }
}

impl Index<usize> for RedisCluster {
    type Output = ClusterServer;

    fn index(&self, index: usize) -> &ClusterServer {
        &self.members[index]
    }
}

impl IndexMut<usize> for RedisCluster {
    fn index_mut(&mut self, index: usize) -> &mut ClusterServer {
        &mut self.members[index]
    }
}

impl ClusterServer {
    /// The proxy through which clients and replicas reach this server. The servers' own bus, with its votes and
    /// failovers, does not pass through it.
    ///
    /// # Panics
    ///
    /// If the cluster is not [`proxied`](RedisClusterBuilder::proxied).
    pub fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("build the cluster with proxied()")
    }

    /// The port that the cluster names to clients.
    fn public_port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.server.known_port(), FaultProxy::port)
    }

    async fn obey(&self, args: &[&str]) {
        let reply = self.command(args).await;
        assert!(reply.is_ok(), "{args:?}: {reply:?}");
    }

    async fn view(&self) -> Option<View> {
        let nodes = self.try_command(&["CLUSTER", "NODES"]).await.ok()?;
        let info = self.try_command(&["CLUSTER", "INFO"]).await.ok()?;
        Some(View::parse(nodes.text()?, info.text()?))
    }

    /// Whether this is a primary, or a replica that follows its primary.
    async fn is_linked(&self) -> bool {
        match self.try_command(&["ROLE"]).await {
            Ok(Reply::Array(role)) => role[0].text() == Some("master") || role[3].text() == Some("connected"),
            _ => false,
        }
    }
}

impl Deref for ClusterServer {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        &self.server
    }
}

impl DerefMut for ClusterServer {
    fn deref_mut(&mut self) -> &mut RedisServer {
        &mut self.server
    }
}

fn slot_in(reply: &Reply) -> u16 {
    reply.int().and_then(|slot| slot.try_into().ok()).expect("slots are below 16384")
}
