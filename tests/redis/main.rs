//! What only a real server can show.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod breaker;
mod connecting;
mod doctor;
mod faults;
mod footprint;
mod foreign;
mod languages;
mod rights;
mod secured;
