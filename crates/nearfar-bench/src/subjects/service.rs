//! What a service does: keys that nobody has, a node that has just started, and reads and writes of four nodes; beside what
//! the bare client does for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fred::clients::Client;
use futures_util::future::join_all;
use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::{Row, Table, time};
use nearfar_testkit::{RedisServer, accesses};
use tokio::task::JoinHandle;

use super::write::{listener, set_and_publish};
use crate::bare::{client, fill, get};

const ROUNDS: usize = 11;
const KEYS: u32 = 10_000;
const NODES: usize = 4;
const TASKS: usize = 64;
/// Of each task.
const ACCESSES: usize = 1_000;
/// Of a hundred accesses, so many are writes.
const WRITES: u32 = 5;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let (nodes, clients) = (nodes(server, NODES).await?, join_all((0..NODES).map(|_| client(server))).await);
    cold_keys(table, &nodes[0], &clients[0]).await;
    for id in 0..KEYS.into() {
        nodes[0].set(&id, Row::new(id)).await?;
        fill(&clients[0], &Row::new(id)).await;
    }
    cold_node(table, server, &clients[0]).await?;
    mixed(table, &nodes, &clients, server).await;
    Ok(())
}

async fn nodes(server: &RedisServer, count: usize) -> Result<Vec<Cache<u64, Row>>, Error> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let nearfar = Nearfar::connect(&server.url()).await?;
        nodes.push(nearfar.cache("service").l1_max_entries(u64::from(KEYS) * 2).build().await?);
    }
    Ok(nodes)
}

async fn load(id: u64) -> Result<Row, Infallible> {
    Ok(Row::new(id))
}

/// Each is asked for once: it is in neither tier, is loaded for nothing, and kept.
async fn cold_keys(table: &mut Table, ours: &Cache<u64, Row>, bare: &Client) {
    let next = Arc::new(AtomicU64::new(u64::from(KEYS)));
    let fresh = |count: usize| {
        let first = next.fetch_add(count as u64, Ordering::Relaxed);
        first..first + count as u64
    };
    for tasks in [1, TASKS] {
        let loads = if tasks == 1 { 500 } else { 6_400 / tasks };
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let load_bare = |count| {
                let (bare, ids) = (bare.clone(), fresh(count));
                async move {
                    for id in ids {
                        assert!(get(&bare, id).await.is_none());
                        fill(&bare, &load(id).await.expect("it cannot fail")).await;
                    }
                }
            };
            let of_bare = time(tasks, loads, load_bare).await;
            let load_ours = |count| {
                let (ours, ids) = (ours.clone(), fresh(count));
                async move {
                    for id in ids {
                        ours.get_or_load(&id, load).await.expect("it can be loaded");
                    }
                }
            };
            pairs.push((of_bare, time(tasks, loads, load_ours).await));
        }
        table.add(format!("miss and load, {tasks} tasks"), "fred GET, SET", "us", &pairs);
    }
}

/// All is in L2, and nothing in L1 of a node that has just started.
async fn cold_node(table: &mut Table, server: &RedisServer, bare: &Client) -> Result<(), Error> {
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let orders = orders();
        let of_bare = time(TASKS, ACCESSES, |_| read_bare(bare.clone(), next(&orders))).await;
        let ours = nodes(server, 1).await?.remove(0);
        pairs.push((of_bare, time(TASKS, ACCESSES, |_| read_ours(ours.clone(), next(&orders))).await));
    }
    table.add("first 64,000 reads of a new node, Zipf", "fred GET + decode", "us", &pairs);
    Ok(())
}

type Order = Arc<[u32]>;

/// One for each task, the same for both sides.
fn orders() -> Cycle {
    let order = |seed| accesses::zipf(KEYS, 0.99, ACCESSES, seed).into();
    Cycle { items: (0..TASKS as u64).map(order).collect(), turn: AtomicUsize::new(0) }
}

/// Gives one after the other, again and again.
struct Cycle {
    items: Vec<Order>,
    turn: AtomicUsize,
}

fn next(orders: &Cycle) -> Order {
    let turn = orders.turn.fetch_add(1, Ordering::Relaxed);
    Arc::clone(&orders.items[turn % orders.items.len()])
}

async fn read_bare(client: Client, order: Order) {
    for &id in &*order {
        assert!(get(&client, id.into()).await.is_some());
    }
}

async fn read_ours(cache: Cache<u64, Row>, order: Order) {
    for &id in &*order {
        assert!(cache.get(&id.into()).await.expect("the server is up").is_some());
    }
}

async fn mixed(table: &mut Table, nodes: &[Cache<u64, Row>], clients: &[Client], server: &RedisServer) {
    // Nodes hear of writes.
    let listeners = join_all((0..NODES).map(|_| listener(server))).await;
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let (orders, turn) = (orders(), AtomicUsize::new(0));
        let node = || turn.fetch_add(1, Ordering::Relaxed) % NODES;
        let serve_bare = |_| serve_bare(clients[node()].clone(), next(&orders));
        let of_bare = time(TASKS, ACCESSES, serve_bare).await;
        let serve_ours = |_| serve_ours(nodes[node()].clone(), next(&orders));
        pairs.push((of_bare, time(TASKS, ACCESSES, serve_ours).await));
    }
    table.add("4 nodes, 95 % reads, Zipf, 64 tasks", "fred GET; SET + PUBLISH", "us", &pairs);
    listeners.iter().for_each(JoinHandle::abort);
}

fn is_write() -> bool {
    fastrand::u32(..100) < WRITES
}

async fn serve_bare(client: Client, order: Order) {
    for &id in &*order {
        if is_write() {
            set_and_publish(&client, id.into()).await;
        } else {
            assert!(get(&client, id.into()).await.is_some());
        }
    }
}

async fn serve_ours(cache: Cache<u64, Row>, order: Order) {
    for id in order.iter().copied().map(u64::from) {
        if is_write() {
            assert!(cache.set(&id, Row::new(id)).await.expect("the server is up").is_applied());
        } else {
            cache.get_or_load(&id, load).await.expect("it can be loaded");
        }
    }
}
