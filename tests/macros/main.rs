//! Functions with a cache before them, on every backend.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::unused_async, reason = "what is cached is async, and these have nothing to wait for")]

mod changes;
mod choices;
mod failures;
mod kinds;
mod service;
