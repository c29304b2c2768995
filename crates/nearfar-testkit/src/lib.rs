//! What nearfar's tests stand on: real servers, a network that misbehaves on request, and a judge.
//!
//! ```text
//!   test ──▶ FaultProxy ──▶ RedisServer        History ──▶ Report
//!            hold, delay,   kill, pause,       reads and   worst staleness,
//!            cut, redirect  restart            writes      violations of a bound
//! ```
//!
//! * [`RedisServer`] is a `redis-server` or `valkey-server` of the test's own.
//! * [`RedisCluster`] is six of them, three primaries and their replicas.
//! * [`Sentinels`] is a primary, its replicas, and sentinels that watch them.
//! * [`PostgresServer`] is a PostgreSQL, for what stands behind a cache.
//! * [`Authority`] issues certificates for servers with TLS.
//! * [`FaultProxy`] stands in front of it and stops, delays, cuts or redirects what passes.
//! * [`Program`] is another process of the test's own, to be paused or killed.
//! * [`History`] takes what nodes read and when writes were acknowledged, and finds the stalest read.
//! * [`accesses`] are keys in the order in which they are asked for, generated or recorded.
//! * [`eventually`] waits for a condition, [`Stopwatch`] stamps histories, [`let_pass`] lets real
//!   time pass: the only doors through which time enters a test.
//!
//! # Example
//!
//! ```
//! use nearfar_testkit::{Direction, FaultProxy, Flow, RedisServer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let server = RedisServer::start().await;
//! let proxy = FaultProxy::start(server.port()).await;
//! // A node under test connects to `proxy.url()` ...
//!
//! // ... and from here on hears nothing, while the server still hears it:
//! proxy.set(Direction::ToClient, Flow::Hold);
//!
//! assert!(server.command(&["SET", "key", "new"]).await.is_ok());
//! # }
//! ```
//!
//! # Not for paused time
//!
//! Servers and sockets live in real time. On a runtime with `start_paused = true`, timeouts fire while
//! a reply is still on its way.

pub mod accesses;
mod authority;
mod choice;
mod clock;
mod cluster;
mod config;
mod container;
mod door;
mod engine;
mod history;
mod ports;
mod postgres;
mod process;
mod program;
mod proxy;
mod resp;
mod sentinels;
mod server;

pub use authority::{Authority, Certificate, Validity};
pub use clock::{Stopwatch, eventually, let_pass, process_time, thread_time};
pub use cluster::{ClusterServer, RedisCluster, RedisClusterBuilder};
pub use history::{History, Read, Report, StaleRead, Write};
pub use postgres::PostgresServer;
pub use program::Program;
pub use proxy::{Cut, Direction, FaultProxy, Flow};
pub use resp::{Reply, RespClient};
pub use sentinels::{Sentinels, SentinelsBuilder};
pub use server::{RedisServer, RedisServerBuilder};
