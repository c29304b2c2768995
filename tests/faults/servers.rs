//! One server, or those of a cluster.

use futures_util::future::join_all;
use nearfar_testkit::{RedisCluster, RedisServer, Reply};

/// They keep their data when they are killed.
#[derive(Debug)]
pub(crate) enum Servers {
    Single(Box<RedisServer>),
    Cluster(RedisCluster),
}

impl Servers {
    pub(crate) async fn single() -> Self {
        Self::Single(Box::new(RedisServer::builder().persistent().start().await))
    }

    pub(crate) async fn cluster() -> Self {
        Self::Cluster(RedisCluster::builder().persistent().start().await)
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    pub(crate) async fn pause(&self) {
        join_all(self.all().into_iter().map(RedisServer::pause)).await;
    }

    pub(crate) async fn resume(&self) {
        join_all(self.all().into_iter().map(RedisServer::resume)).await;
        self.settled().await;
    }

    /// All at once, so that nobody takes over.
    pub(crate) async fn kill(&mut self) {
        for server in self.all_mut() {
            server.kill().await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        for server in self.all_mut() {
            server.restart().await;
        }
        self.settled().await;
    }

    /// Asks the server that has this key.
    pub(crate) async fn ask(&self, key: &str, command: &[&str]) -> Reply {
        let owner = match self {
            Self::Single(_) => 0,
            Self::Cluster(cluster) => cluster.owner_of_slot(cluster.slot_of(key).await).await,
        };
        self.all()[owner].command(command).await
    }

    fn all(&self) -> Vec<&RedisServer> {
        match self {
            Self::Single(server) => vec![server],
            Self::Cluster(cluster) => cluster.members().iter().map(|member| &**member).collect(),
        }
    }

    fn all_mut(&mut self) -> Vec<&mut RedisServer> {
        match self {
            Self::Single(server) => vec![server],
            Self::Cluster(cluster) => cluster.members_mut().iter_mut().map(|member| &mut **member).collect(),
        }
    }

    async fn settled(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.settled().await;
        }
    }
}

/// Defines tests that run as `single::name` and as `cluster::name`.
macro_rules! on_single_and_cluster {
    ($($(#[$doc:meta])* async fn $name:ident($($servers:ident)+: Servers) $body:block)*) => {
        $($(#[$doc])* async fn $name($($servers)+: Servers) $body)*

        mod single {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Servers::single().await).await;
            })*
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Servers::cluster().await).await;
            })*
        }
    };
}

pub(crate) use on_single_and_cluster;
