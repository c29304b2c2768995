//! Faults on real servers, with every read judged.
//!
//! Each test is a [`Trial`](trial::Trial): nodes read and write all the time while something goes wrong and is put
//! right again. It prints one line of figures; to see them:
//!
//! ```sh
//! scripts/test -p nearfar-tests --test faults -- --show-output | grep '^fault:'
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claims;
mod cluster;
mod degraded;
mod failover;
mod links;
mod memory;
mod mishaps;
mod processes;
mod sentinel;
mod server;
mod servers;
mod soak;
mod stale;
mod station;
mod trial;
mod warmth;
