//! How fast a node drops what others invalidate, in its own time on a processor, while another thread reads its L1.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nearfar::{Cache, Error, Stats};
use nearfar_bench::{Grid, Row, Table};
use nearfar_testkit::{RedisServer, let_pass, thread_time};
use tokio::sync::{mpsc, oneshot};

use super::{figure, rows};

const ROUNDS: usize = 5;
const KEYS: u64 = 50_000;
/// As many as go to L2 without waiting for each other: no two of them share a message.
const WRITERS: usize = 4;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let writer = rows(server, 1).await?;
    let mut grid =
        Grid::new("invalidations received, per message", &["us/key", "keys/s of a core", "most waiting"]);
    let node = Receiver::start(server.url());
    let reader = tokio::task::spawn_blocking({
        let (cache, stop) = (node.cache().await, Arc::clone(&node.stop));
        move || read_until(&cache, &stop)
    });
    for _ in 0..ROUNDS {
        for per_message in [1, 100, 1_000] {
            let keys = if per_message == 1 { KEYS / 5 } else { KEYS };
            set_all(&writer, keys).await;
            let work = node.drop_all(keys).await;
            invalidate_all(&writer, keys, per_message).await;
            let Work { time, most_waiting } = work.await.expect("the node runs");
            let micros = time.as_secs_f64() * 1e6 / figure(keys);
            grid.add(format!("{per_message}"), vec![micros, 1e6 / micros, figure(most_waiting)]);
        }
    }
    drop(node);
    reader.await.expect("it does not panic");
    table.add_grid(grid);
    Ok(())
}

fn read_until(cache: &Cache<u64, Row>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::black_box(cache.peek(&fastrand::u64(..KEYS)));
    }
}

async fn set_all(writer: &Cache<u64, Row>, keys: u64) {
    for ids in (0..keys).collect::<Vec<_>>().chunks(1_000) {
        for outcome in writer.set_many(ids.iter().map(|id| (*id, Row::new(*id)))).await {
            assert!(outcome.expect("the server is up").is_applied());
        }
    }
}

async fn invalidate_all(writer: &Cache<u64, Row>, keys: u64, per_message: usize) {
    let ids: Vec<u64> = (0..keys).collect();
    if per_message > 1 {
        for ids in ids.chunks(per_message) {
            for outcome in writer.invalidate_many(ids).await {
                assert!(outcome.expect("the server is up").is_applied());
            }
        }
        return;
    }
    let ids = &ids;
    join_all((0..WRITERS).map(async |first| {
        for id in ids.iter().skip(first).step_by(WRITERS) {
            assert!(writer.invalidate(id).await.expect("the server is up").is_applied());
        }
    }))
    .await;
}

/// What dropping copies took.
struct Work {
    time: Duration,
    most_waiting: u64,
}

/// What is asked of the node.
enum Order {
    Cache(oneshot::Sender<Cache<u64, Row>>),
    /// Reads so many keys, tells so, and waits until others have invalidated them.
    Drop {
        keys: u64,
        ready: oneshot::Sender<()>,
        done: oneshot::Sender<Work>,
    },
}

/// A node with a thread of its own, which does nothing else.
struct Receiver {
    orders: mpsc::UnboundedSender<Order>,
    stop: Arc<AtomicBool>,
}

impl Receiver {
    fn start(url: String) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("threads can be made").block_on(live(url, inbox));
        });
        Self { orders, stop: Arc::default() }
    }

    async fn cache(&self) -> Cache<u64, Row> {
        let (tell, cache) = oneshot::channel();
        self.order(Order::Cache(tell));
        cache.await.expect("the node runs")
    }

    /// Once it holds these keys.
    async fn drop_all(&self, keys: u64) -> oneshot::Receiver<Work> {
        let ((ready, is_ready), (done, work)) = (oneshot::channel(), oneshot::channel());
        self.order(Order::Drop { keys, ready, done });
        is_ready.await.expect("the node runs");
        work
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the node runs");
    }
}

/// Else whoever reads from it would go on for ever.
impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn live(url: String, mut orders: mpsc::UnboundedReceiver<Order>) {
    let nearfar = nearfar::Nearfar::connect(&url).await.expect("the server is up");
    let cache: Cache<u64, Row> =
        nearfar.cache("rows").l1_max_entries(KEYS * 2).build().await.expect("the server is up");
    while let Some(order) = orders.recv().await {
        match order {
            Order::Cache(tell) => {
                let _ = tell.send(cache.clone());
            }
            Order::Drop { keys, ready, done } => {
                let ids: Vec<u64> = (0..keys).collect();
                for row in cache.get_many(&ids).await {
                    assert!(row.expect("the server is up").is_some());
                }
                let before = (cache.stats(), thread_time());
                let _ = ready.send(());
                let _ = done.send(wait_for(&cache, keys, before).await);
            }
        }
    }
}

async fn wait_for(cache: &Cache<u64, Row>, keys: u64, (before, began): (Stats, Duration)) -> Work {
    let mut most_waiting = 0;
    loop {
        let stats = cache.stats();
        most_waiting = most_waiting.max(stats.backlog);
        if stats.invalidations_received >= before.invalidations_received + keys {
            assert_eq!((stats.doubts, stats.resyncs), (before.doubts, before.resyncs), "nothing was missed");
            return Work { time: thread_time().saturating_sub(began), most_waiting };
        }
        let_pass(Duration::from_millis(10)).await;
    }
}
