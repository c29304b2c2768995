use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearfar::backend::{Bus, L2, Namespace, PartitionId};
use nearfar::{Cache, InProcess, Nearfar, NearfarBuilder};
use nearfar_redis::{OnUnreachable, RedisOptions};
use nearfar_testkit::{Cut, FaultProxy, RedisServer, eventually};

use crate::{Valves, least_rights};

const USER: &str = "nearfar";
const PASSWORD: &str = "hunter2";

/// A shared store that nodes can be put on.
#[derive(Debug)]
pub enum World {
    /// In memory, with so many partitions.
    InProcess(InProcess, u16),
    /// On a real server of this test's own, as a user with the documented rights and no others, each node behind a proxy
    /// that lives as long as the world.
    Redis(Box<RedisServer>, Mutex<Vec<Arc<FaultProxy>>>),
}

/// One node, as a process would be.
#[derive(Debug)]
pub struct Node {
    /// The handle.
    pub nearfar: Nearfar,
    /// Where it can be stopped.
    pub valves: Valves,
    /// What its connections go through, if there are any.
    proxy: Option<Arc<FaultProxy>>,
}

impl Node {
    /// A cache of strings by strings with default settings.
    pub async fn texts(&self) -> Cache<String, String> {
        self.nearfar.cache("texts").build().await.expect("the store is up")
    }
}

impl World {
    /// A world in memory.
    pub fn in_process() -> Self {
        Self::InProcess(InProcess::new(), 1)
    }

    /// A world in memory whose namespaces have several partitions.
    pub fn partitioned() -> Self {
        Self::InProcess(InProcess::new(), 4)
    }

    /// A world on a server that starts now.
    pub async fn redis() -> Self {
        let server = RedisServer::start().await;
        assert!(server.command(&least_rights(USER, PASSWORD, "*")).await.is_ok());
        Self::Redis(Box::new(server), Mutex::default())
    }

    /// A new node.
    pub async fn node(&self) -> Node {
        self.node_with(Nearfar::builder()).await
    }

    /// A new node with settings of its own.
    pub async fn node_with(&self, builder: NearfarBuilder) -> Node {
        let valves = Valves::default();
        match self {
            Self::InProcess(shared, partitions) => {
                let (l2, bus) = shared.backend();
                let (l2, bus) = valves.wrap(l2, bus, Some(*partitions));
                Node { nearfar: builder.tokio_time().backend(l2, bus), valves, proxy: None }
            }
            Self::Redis(server, proxies) => {
                let proxy = Arc::new(FaultProxy::start(server.port()).await);
                proxies.lock().expect("no test panics in here").push(Arc::clone(&proxy));
                let (l2, bus) = redis_backend(proxy.port()).await;
                let (l2, bus) = valves.wrap(l2, bus, None);
                Node { nearfar: builder.backend(l2, bus), valves, proxy: Some(proxy) }
            }
        }
    }

    /// The partition that a key is in.
    pub fn partition_of(&self, namespace: &str, key: &str) -> PartitionId {
        let partitions = match self {
            Self::InProcess(_, partitions) => *partitions,
            Self::Redis(..) => 1,
        };
        let namespace = Namespace::new(namespace).expect("the test names a good one");
        PartitionId::new(namespace, PartitionId::index_of(key.as_bytes(), partitions))
    }

    /// A raw way to the store, as a program that is not a node would have it.
    pub async fn backend(&self) -> (Arc<dyn L2>, Box<dyn Bus>) {
        match self {
            Self::InProcess(shared, _) => shared.backend(),
            Self::Redis(server, _) => redis_backend(server.port()).await,
        }
    }

    /// Has a node miss every message until it rejoins. On a server all its connections are down; in process every
    /// node's subscription is.
    pub async fn isolate(&self, node: &Node) {
        match (self, &node.proxy) {
            (Self::InProcess(shared, _), _) => shared.cut_bus(),
            (Self::Redis(..), proxy) => {
                let proxy = proxy.as_ref().expect("nodes on a server have one");
                proxy.refuse().await;
                proxy.cut(Cut::Reset).await;
            }
        }
    }

    /// Ends what [`isolate`](Self::isolate) began.
    pub async fn rejoin(&self, node: &Node) {
        match (self, &node.proxy) {
            (Self::InProcess(shared, _), _) => shared.heal_bus(),
            (Self::Redis(..), proxy) => proxy.as_ref().expect("nodes on a server have one").accept().await,
        }
    }

    /// Takes the store away from a node, messages included. In process, from every node.
    pub async fn cut_off(&self, node: &Node) {
        if let Self::InProcess(shared, _) = self {
            shared.cut_store();
        }
        self.isolate(node).await;
    }

    /// Ends what [`cut_off`](Self::cut_off) began.
    pub async fn bring_back(&self, node: &Node) {
        if let Self::InProcess(shared, _) = self {
            shared.heal_store();
        }
        self.rejoin(node).await;
    }

    /// Loses everything in the store, as an operator's `FLUSHALL` does.
    pub async fn flush(&self) {
        match self {
            Self::InProcess(shared, _) => shared.flush(),
            Self::Redis(server, _) => assert!(server.command(&["FLUSHALL"]).await.is_ok()),
        }
    }

    /// Interrupts every subscription for a moment. What is published in that moment is lost.
    pub async fn interrupt_subscriptions(&self) {
        match self {
            Self::InProcess(shared, _) => {
                shared.cut_bus();
                shared.heal_bus();
            }
            Self::Redis(server, _) => {
                server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            }
        }
    }
}

async fn redis_backend(port: u16) -> (Arc<dyn L2>, Box<dyn Bus>) {
    let options = RedisOptions {
        url: format!("redis://{USER}:{PASSWORD}@127.0.0.1:{port}"),
        tls: None,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(1),
        log_len: 10_000,
        on_unreachable: OnUnreachable::Fail,
    };
    let (l2, bus) = nearfar_redis::connect(options).await.expect("the server is up");
    (Arc::new(l2), Box::new(bus))
}

/// Waits until a cache has proof that it hears of every invalidation.
pub async fn trusted<K, V>(cache: &Cache<K, V>)
where
    K: nearfar::CacheKey,
    V: Send + Sync + 'static,
{
    eventually("the node trusts its subscription", async || cache.stats().trusted).await;
}
