//! Settings as data.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod environment;
mod files;
mod nodes;
mod round_trip;

use nearfar::{Cache, CacheConfig, Error, InProcess, Nearfar};

/// A cache with these settings.
async fn built(config: &CacheConfig) -> Result<Cache<u64, u64>, Error> {
    Nearfar::builder().in_process(&InProcess::new()).cache("numbers").config(config).build().await
}
