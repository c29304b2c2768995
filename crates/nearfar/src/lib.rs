//! A two-tier cache for services that run on many nodes, with a stated bound on staleness.
//!
//! Each node keeps typed values in memory (L1); all nodes share Redis or Valkey (L2); invalidations travel over
//! Redis pub/sub (the *bus*, elsewhere called a backplane), so that a write on one node evicts the stale copies on
//! the others.
//!
//! ```text
//!   node A                      Redis / Valkey                     node B
//! ┌─────────┐  set(k) = 1 step ┌────────────────────────┐        ┌─────────┐
//! │ L1      │ ───────────────▶ │ value, sequence, log   │        │ L1      │
//! │ (moka)  │                  │ ── message, in order ──│──────▶ │ evict k │
//! └─────────┘                  │ ◀─ beat ── echo ───────│──────▶ │ "I hear │
//!                              └────────────────────────┘        │  all"   │
//!                                                                └─────────┘
//! ```
//!
//! # Quick start
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), nearfar::Error> {
//! use nearfar::{Cache, Nearfar};
//! use std::time::Duration;
//!
//! let nearfar = Nearfar::in_process(); // `Nearfar::connect("redis://127.0.0.1:6379").await?` in production
//! let users: Cache<u64, String> = nearfar.cache("users").ttl(Duration::from_secs(300)).build().await?;
//!
//! let user = users.get_or_load(&42, |id| async move { Ok::<_, std::io::Error>(format!("user {id}")) }).await?;
//! assert_eq!(*user, "user 42");
//!
//! users.invalidate(&42).await?; // after the database has changed
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! * A value served from L1 was overwritten in L2 at most [`max_staleness`](CacheBuilder::max_staleness) ago, whatever
//!   happens to the link, unless [`disconnected`](CacheBuilder::disconnected) allows more.
//! * A slow loader never puts an old value back over a newer one, in L1 or in L2.
//! * A change that L2 has not acknowledged is never reported as done, and is invalidated until L2 has acknowledged that.
//! * Invalidations that L2 acknowledged and lost, in a failover say, are issued again.
//!
//! # What is not
//!
//! * Writers that change the database and tell nobody are seen when the ttl is over, unless a [`ChangeFeed`] tells.
//! * What waits in the outbox when a process dies is lost; the ttl is what helps.
//! * Two nodes that `set` the same key at once are ordered by L2, not by which of them read the database last: where that
//!   matters, `invalidate`.
//! * Between Redis's losing an acknowledged invalidation and its being issued again, the old value is read. Redis
//!   evicting young tombstones can bring an old value back.
//!
//! `docs/consistency.md` has each guarantee with its assumptions and the test that shows it.
//!
//! # Cargo features
//!
//! | feature | what |
//! |---|---|
//! | `tls` (default) | `rediss://` |
//! | `json`, `postcard` | the codecs `Json` and `Postcard` |
//! | `lz4`, `zstd` | the [`Compression`]s of those names |
//! | `metrics` | figures through the facade `metrics`: the module of that name |
//! | `sealed` | values that Redis can neither read nor forge: [`CacheBuilder`]'s `sealed` |
//!
//! # When not to use it
//!
//! With a single node, use moka. If every read must see the latest write of every node, no cache will do.

pub mod backend {
    //! The seams to a shared store and a bus, for backends of your own and for wrapping one in something that injects
    //! faults; see [`NearfarBuilder::backend`](crate::NearfarBuilder::backend).

    pub use nearfar_core::backend::*;
    pub use nearfar_core::{
        Batch, BeatId, BeatReply, Change, Claim, ClaimOutcome, Doubt, Echo, Effect, Envelope, Fill,
        FillOutcome, Head, Holder, KeyWrite, Message, Moment, Namespace, NodeId, Notice, Partition,
        PartitionId, Precondition, Reading, Renewal, Snapshot, TagHead, TagMark,
    };
}

mod agreement;
mod batch;
mod builder;
mod cache;
mod call;
mod change;
mod chunks;
mod claim;
mod clock;
mod codec;
mod compression;
mod config;
mod courier;
#[cfg(feature = "macros")]
mod decorators;
mod engine;
mod entry;
mod error;
mod event;
mod feed;
mod fill;
mod flight;
mod front;
mod gathering;
mod guarded;
mod holdings;
mod in_process;
mod key;
mod l1;
mod lifetime;
mod link;
mod load;
mod loaded;
mod log;
mod look;
mod member;
#[cfg(feature = "metrics")]
pub mod metrics;
mod nearfar;
mod node;
mod options;
mod outbox;
mod outcome;
mod outlet;
mod payload;
mod purge;
mod read;
mod refresh;
mod seal;
mod stats;
mod sync;
mod tags;
mod trust;
mod unsettled;
mod vigil;
mod wait;
mod waiting;
mod watched;

pub use builder::CacheBuilder;
pub use bytes::Bytes;
pub use cache::Cache;
pub use call::CallOptions;
#[cfg(feature = "json")]
pub use codec::Json;
#[cfg(feature = "postcard")]
pub use codec::Postcard;
pub use codec::{Codec, CodecError, MessagePack, RawBytes};
pub use compression::Compression;
pub use config::{CacheConfig, NearfarConfig, Switch};
#[cfg(feature = "macros")]
pub use decorators::{cached, invalidates};
pub use entry::{Entry, LookUp, Staleness, Tier};
pub use error::{Error, ErrorKind};
pub use event::{By, Event, Events, Eviction};
pub use feed::{
    ChangeFeed, ChangeReceiver, ChangeSender, Changed, FeedEnd, FeedStats, Following, change_channel,
};
pub use in_process::InProcess;
pub use key::CacheKey;
pub use loaded::Loaded;
pub use log::LogKeys;
pub use nearfar::{Nearfar, NearfarBuilder};
pub use nearfar_core::{CircuitState, Disconnected, NodeId, Version};
pub use nearfar_redis::{Diagnosis, Examination, Fact, Finding, FindingKind, Severity, Tls};
pub use node::LiveNode;
pub use outbox::Undelivered;
pub use outcome::{Outcome, Unacknowledged};
pub use purge::{Purge, PurgeProgress};
pub use refresh::RefreshAhead;
#[cfg(feature = "sealed")]
pub use seal::KeyRing;
pub use stats::{PropagationStats, Stats};
