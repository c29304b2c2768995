//! A shop on several nodes: products in a database, a cache before it, customers who read and prices that change.
//!
//! ```text
//!   customers ──▶ node 1: L1 ─┐
//!   customers ──▶ node 2: L1 ─┼─▶ L2: in process, or Redis ─▶ database (SQLite)
//!   customers ──▶ node 3: L1 ─┘
//! ```
//!
//! `service.rs` is the part that a service of your own would have: some twenty lines around a cache. All the rest
//! plays the world around it, records what every read returned, and has the record judged: no read may be staler
//! than the bound.
//!
//! Exits with 0 if the bound held, with 1 if it did not or the run failed, with 2 if the settings cannot work.

mod accesses;
mod child;
mod clock;
mod conduct;
mod failure;
mod fleet;
mod messages;
mod node;
mod options;
mod origin;
mod progress;
mod redis;
mod service;
mod summary;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::options::Options;
use crate::summary::Summary;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.as_node {
        return child::main();
    }
    match run(&options) {
        Ok(summary) => {
            print!("{summary}");
            if summary.bound_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("storefront: {failure}");
            failure.exit_code()
        }
    }
}

/// Whatever ends the run drops what it has made: node processes, Redis, database.
#[tokio::main]
async fn run(options: &Options) -> Result<Summary, Failure> {
    tokio::select! {
        summary = Box::pin(conduct::run(options)) => summary,
        () = told_to_stop() => Err(Failure::Interrupted),
    }
}

async fn told_to_stop() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
