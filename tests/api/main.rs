//! What a cache promises, on every backend that it has.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod absent;
mod bad_input;
mod basics;
mod batches;
mod calls;
mod claims;
mod codecs;
mod events;
mod feeds;
mod fills;
mod flights;
mod freshness;
mod hammer;
mod idle;
mod lifetimes;
mod logs;
mod moods;
mod origin;
mod outages;
mod outbox;
mod popular;
mod refreshing;
mod revalidating;
mod sealed;
mod subscriptions;
mod tags;
mod together;
mod updating;
