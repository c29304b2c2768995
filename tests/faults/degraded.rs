//! A service whose servers are away, and come back: it goes on with L1 and its loaders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nearfar::{Cache, CircuitState, Disconnected, Nearfar, Outcome};
use nearfar_testkit::eventually;
use nearfar_tests::trusted;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::servers::{Servers, on_single_and_cluster};

const KEYS: u32 = 32;
const ROUNDS: u64 = 3;
const NODES: usize = 2;
const READERS: usize = 8;

/// A database that counts how often it is asked.
#[derive(Debug, Default)]
struct Origin {
    revisions: [AtomicU64; 32],
    loads: AtomicU64,
}

impl Origin {
    fn of(&self, key: u32) -> &AtomicU64 {
        &self.revisions[usize::try_from(key).unwrap()]
    }

    fn changes(&self, key: u32) {
        self.of(key).fetch_add(1, SeqCst);
    }

    fn loads(&self) -> u64 {
        self.loads.load(SeqCst)
    }

    async fn read(self: Arc<Self>, key: u32) -> Result<u64, std::convert::Infallible> {
        self.loads.fetch_add(1, SeqCst);
        let revision = self.of(key).load(SeqCst);
        tokio::task::yield_now().await;
        Ok(revision)
    }
}

/// Nodes under load.
struct Service {
    nodes: Vec<(Nearfar, Cache<u32, u64>)>,
    origin: Arc<Origin>,
    readers: JoinSet<()>,
    reads: watch::Sender<u64>,
}

impl Service {
    async fn start(servers: &Servers, policy: Disconnected) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let builder = Nearfar::builder().command_timeout(Duration::from_millis(500));
            let nearfar = builder.connect(&servers.url()).await.unwrap();
            let builder = nearfar.cache("n").max_staleness(Duration::from_secs(1)).disconnected(policy);
            let cache = builder.build().await.unwrap();
            nodes.push((nearfar, cache));
        }
        let mut service =
            Self { nodes, origin: Arc::default(), readers: JoinSet::new(), reads: watch::Sender::new(0) };
        for (_, cache) in &service.nodes {
            for reader in 0..READERS {
                let (cache, origin, reads) =
                    (cache.clone(), Arc::clone(&service.origin), service.reads.clone());
                service.readers.spawn(async move {
                    for key in (0..KEYS).cycle().skip(reader * 5) {
                        // Reads never fail.
                        read(&cache, &origin, key).await;
                        reads.send_modify(|count| *count += 1);
                        tokio::task::yield_now().await;
                    }
                });
            }
        }
        service
    }

    async fn reads(&self, count: u64) {
        let mut reads = self.reads.subscribe();
        let until = *reads.borrow() + count;
        let done =
            tokio::time::timeout(Duration::from_secs(60), reads.wait_for(|reads| *reads >= until)).await;
        done.expect("the readers go on").unwrap();
    }

    fn circuits(&self) -> Vec<CircuitState> {
        let of_node = |(nearfar, _): &(Nearfar, _)| nearfar.circuits().into_iter().map(|(_, state)| state);
        self.nodes.iter().flat_map(of_node).collect()
    }

    /// Changes every key several times, and says whether each was only queued.
    async fn change_all(&self) {
        for _ in 0..ROUNDS {
            for (key, (_, cache)) in (0..KEYS).zip(self.nodes.iter().cycle()) {
                self.origin.changes(key);
                assert_eq!(cache.invalidate(&key).await.unwrap(), Outcome::Queued);
            }
        }
    }
}

async fn read(cache: &Cache<u32, u64>, origin: &Arc<Origin>, key: u32) -> u64 {
    let origin = Arc::clone(origin);
    *cache.get_or_load(&key, |key| origin.read(key)).await.unwrap()
}

on_single_and_cluster! {
    async fn a_service_whose_servers_are_away_goes_on_and_agrees_when_they_are_back(mut servers: Servers) {
        let mut service = Service::start(&servers, Disconnected::Bypass).await;
        service.reads(5_000).await;
        servers.kill().await;
        eventually("every node knows", async || {
            service.nodes.iter().all(|(_, cache)| cache.stats().partitions_trusted == 0)
        })
        .await;
        service.change_all().await;
        // One node does not know of the other's changes, so its callers may have joined a load from before, within the bound.
        for (_, cache) in &service.nodes {
            for key in 0..KEYS {
                eventually("it reads what is true", async || read(cache, &service.origin, key).await == ROUNDS).await;
            }
        }
        service.reads(5_000).await;
        for (_, cache) in &service.nodes {
            let stats = cache.stats();
            assert!(stats.outbox_keys <= KEYS.into(), "as many as there are keys: {}", stats.outbox_keys);
            assert_eq!(stats.outbox_overflows, 0);
        }

        servers.restart().await;
        for (_, cache) in &service.nodes {
            trusted(cache).await;
            eventually("the outbox is empty", async || cache.stats().outbox_keys == 0).await;
        }
        service.readers.shutdown().await;
        for (_, cache) in &service.nodes {
            for key in 0..KEYS {
                assert_eq!(read(cache, &service.origin, key).await, ROUNDS);
            }
        }
        // Everything is warm again: one load of each key, perhaps two where an outbox came behind the first.
        let loads = service.origin.loads();
        for (_, cache) in &service.nodes {
            for key in 0..KEYS {
                assert_eq!(read(cache, &service.origin, key).await, ROUNDS);
            }
        }
        assert_eq!(service.origin.loads(), loads, "nothing is loaded twice now");
    }

    /// Its policy lets it: whoever would rather have what is old than ask the origin.
    async fn resident_values_cost_neither_server_nor_origin_where_the_policy_says_so(mut servers: Servers) {
        let mut service = Service::start(&servers, Disconnected::Serve).await;
        service.reads(5_000).await;
        eventually("everything is resident", async || {
            service.nodes.iter().all(|(_, cache)| (0..KEYS).all(|key| cache.peek(&key).is_some()))
        })
        .await;
        servers.kill().await;
        eventually("every node knows", async || {
            service.nodes.iter().all(|(_, cache)| cache.stats().partitions_trusted == 0)
        })
        .await;
        let (loads, failures) = (service.origin.loads(), failures(&service));
        service.reads(20_000).await;
        assert_eq!((service.origin.loads(), self::failures(&service)), (loads, failures));
        servers.restart().await;
        for (_, cache) in &service.nodes {
            trusted(cache).await;
        }
        service.readers.shutdown().await;
    }

    /// A server that says nothing is waited for a few times, and then not at all.
    async fn servers_that_hang_are_not_waited_for_by_each_read(servers: Servers) {
        let mut service = Service::start(&servers, Disconnected::Bypass).await;
        service.reads(5_000).await;
        servers.pause().await;
        eventually("every node knows", async || {
            service.nodes.iter().all(|(_, cache)| cache.stats().partitions_trusted == 0)
        })
        .await;
        eventually("the circuits open", async || {
            service.circuits().iter().any(|state| *state != CircuitState::Closed)
        })
        .await;
        let failed = failures(&service);
        service.reads(2_000).await;
        assert!(failures(&service) > failed, "reads of L2 fail, at once");
        servers.resume().await;
        for (_, cache) in &service.nodes {
            trusted(cache).await;
        }
        service.readers.shutdown().await;
    }
}

fn failures(service: &Service) -> u64 {
    service.nodes.iter().map(|(_, cache)| cache.stats().l2_failures).sum()
}
