//! How a cluster comes to be.

use super::{ClusterServer, NO_FAILOVER, RedisCluster, RedisClusterBuilder};
use crate::authority::Authority;
use crate::clock::in_the_end;
use crate::proxy::FaultProxy;
use crate::server::RedisServer;

const PRIMARIES: u16 = 3;
const SLOTS: u16 = 16_384;

impl RedisClusterBuilder {
    pub(super) fn new() -> Self {
        let server = RedisServer::builder()
            .clustered()
            .arg("cluster-enabled", "yes")
            // Beside the folder of the data, so that a server that has lost these is still the same member.
            .arg("cluster-config-file", "../nodes.conf")
            .arg("cluster-node-timeout", "2000")
            // On a busy machine, a primary that is well may be silent for so long.
            .arg(NO_FAILOVER, "yes")
            .arg("cluster-announce-ip", "127.0.0.1")
            .arg("repl-diskless-sync", "yes")
            .arg("repl-diskless-sync-delay", "0");
        Self { server, proxied: false }
    }

    /// Sets a directive of the configuration of all servers, as [`RedisServerBuilder::arg`] does.
    ///
    /// [`RedisServerBuilder::arg`]: crate::RedisServerBuilder::arg
    pub fn arg(mut self, directive: &str, value: &str) -> Self {
        self.server = self.server.arg(directive, value);
        self
    }

    /// As [`RedisServerBuilder::persistent`]: what a server has acknowledged survives its crash.
    ///
    /// [`RedisServerBuilder::persistent`]: crate::RedisServerBuilder::persistent
    pub fn persistent(mut self) -> Self {
        self.server = self.server.persistent();
        self
    }

    /// Has all servers speak TLS with clients and with each other, and ask for certificates that this authority has
    /// signed. Handles go on using plain ports. Not together with [`proxied`](Self::proxied).
    pub fn tls(mut self, authority: &Authority) -> Self {
        self.server = self.server.tls_among(authority).arg("tls-cluster", "yes");
        self
    }

    /// Has a [`FaultProxy`] of its own stand before each server: the cluster names the proxies to its clients, and to
    /// its replicas.
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Starts the cluster, and returns when it is [settled](RedisCluster::settled).
    pub async fn start(self) -> RedisCluster {
        let mut members = Vec::new();
        for _ in 0..2 * PRIMARIES {
            members.push(self.launch().await);
        }
        let cluster = RedisCluster { members, builder: self };
        cluster.form().await;
        cluster
    }

    /// A server that knows no other yet.
    pub(super) async fn launch(&self) -> ClusterServer {
        let mut builder = self.server.clone();
        let mut proxy = None;
        if self.proxied {
            let target = 0;
            let before = FaultProxy::start(target).await;
            builder = builder.arg("cluster-announce-port", &before.port().to_string());
            proxy = Some(before);
        }
        let server = builder.start().await;
        if let Some(proxy) = &proxy {
            proxy.redirect(server.port());
        }
        let id = server.command(&["CLUSTER", "MYID"]).await.text().expect("an id").to_owned();
        ClusterServer { server, proxy, id }
    }
}

impl RedisCluster {
    async fn form(&self) {
        let (primaries, replicas) = self.members.split_at(usize::from(PRIMARIES));
        for (index, primary) in (0..).zip(primaries) {
            primary.own_share(index).await;
        }
        self.introduce().await;
        for (primary, replica) in primaries.iter().zip(replicas) {
            replica.obey(&["CLUSTER", "REPLICATE", &primary.id]).await;
        }
        self.settled().await;
    }

    /// Each to each, which spares the rounds of gossip.
    async fn introduce(&self) {
        for (index, member) in self.members.iter().enumerate() {
            for other in &self.members[..index] {
                member.meet(other).await;
            }
        }
        in_the_end("all servers know all", || self.all_have_met()).await;
    }

    async fn all_have_met(&self) -> bool {
        let ids: Vec<_> = self.members.iter().map(|member| member.id.as_str()).collect();
        let views = self.views().await;
        views.is_some_and(|views| views.iter().all(|view| view.knows(&ids)))
    }
}

impl ClusterServer {
    /// Takes the share of the slots of primary `index`.
    async fn own_share(&self, index: u16) {
        let border = |index| u32::from(index) * u32::from(SLOTS) / u32::from(PRIMARIES);
        let slots: Vec<_> = (border(index)..border(index + 1)).map(|slot| slot.to_string()).collect();
        let slots = slots.iter().map(String::as_str);
        // One by one, since Redis 6.2 knows no ranges.
        self.obey(&["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect::<Vec<_>>()).await;
        // No two may claim their slots with the same epoch.
        self.obey(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
    }

    pub(super) async fn meet(&self, other: &Self) {
        // Its own port, not its proxy's, from which the port of the bus is derived.
        self.obey(&["CLUSTER", "MEET", "127.0.0.1", &other.known_port().to_string()]).await;
    }
}
