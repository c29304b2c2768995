//! nearfar's shared store and bus on Redis 6.2 or later, or Valkey.
//!
//! ```text
//!              commands: MGET, EVALSHA                 ┌───────────────────────────────┐
//!  RedisL2  ─────────────────────────────────────────▶ │ {ns.0}:<key>     envelopes    │
//!                                                      │ {ns.0}#head      numbers      │
//!                                                      │ {ns.0}#log       messages     │
//!              one connection, never a command on it   │ {ns.0}#nodes     who is alive │
//!  RedisBus ◀───────────────────────────────────────── │ {ns.0}#bus, {ns.0}#echo:<node>│
//!              messages and echoes, in order           │ {ns}#meta        settings     │
//!                                                      └───────────────────────────────┘
//! ```
//!
//! [`connect`] makes the two; they implement [`L2`](nearfar_core::backend::L2) and [`Bus`](nearfar_core::backend::Bus).
//! What a change, a fill and a beat do is defined by [`Partition`](nearfar_core::Partition); each is one Lua script here,
//! of the same meaning.
//!
//! # What is guaranteed
//! * A change of truth, its number, its log entry and its message are one atomic step.
//! * Every operation ends within [`RedisOptions::command_timeout`], give or take some milliseconds. While the server is known to be unreachable, all
//!   but beats fail at once.
//! * Whatever may have lost a message is reported as a [`Doubt`](nearfar_core::Doubt).
//! * Dropping the two leaves no task and no connection behind.
//!
//! # What the user has to be allowed
//! `docs/security.md` has it in one line. What is missing of it fails [`connect`] or
//! [`open`](nearfar_core::backend::L2::open), or is told by [`Refused`](nearfar_core::backend::BusEvent::Refused).
//!
//! # What is not guaranteed
//! * Redis Cluster is not supported yet; URLs that ask for it are refused.
//! * Redis acknowledges writes before its replicas have them: a failover may lose the last ones.

mod bus;
mod clock;
mod connect;
mod connection;
mod doctor;
mod error;
mod inspect;
mod keys;
mod lane;
mod lanes;
mod link;
mod options;
mod rights;
mod scripts;
mod security;
mod sentinel;
mod server;
mod socket;
mod store;
mod tls;
mod topology;
mod tracking;
mod wire;

pub use bus::RedisBus;
pub use connect::connect;
pub use doctor::{Diagnosis, Examination, Expected, Fact, Finding, FindingKind, Severity, Subject, diagnose};
pub use error::{Cause, ConnectError, UrlProblem};
pub use options::{OnUnreachable, RedisOptions};
pub use scripts::FOREIGN_CHANGE;
pub use store::RedisL2;
pub use tls::{Tls, TlsProblem, TlsSettingProblem};
