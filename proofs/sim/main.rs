//! Whole nodes on a simulated network, on virtual time.
//!
//! Each history is decided by its seed: how many nodes and keys there are, how they are set, what their clients do, and
//! which faults strike when. The nodes are real ones, the server is the [`Partition`](nearfar_core::Partition) that
//! ships; the network between them is [`network`], and the [`judge`] has every read judged.
//!
//! ```text
//!   client ─ Nearfar ─ SimL2, SimBus ─┐  latency, cuts, half-open links,
//!   client ─ Nearfar ─ SimL2, SimBus ─┤  partitions, lost replies, lag
//!   client ─ Nearfar ─ SimL2, SimBus ─┴────────────────▶ server: Partition ─▶ judge
//! ```
//!
//! Not simulated: several caches on a node, threads, eviction in L2, a clock of L2 that goes back, and a primary that was
//! cut off and goes on answering. The last three are limits of the contract.
//!
//! A seed that failed is repeated, with its trace, by
//! `SIM_SEED=<seed> scripts/test -p nearfar-proofs --test sim replay -- --nocapture`.

mod backend;
mod chaos;
mod claims;
mod client;
mod clock;
mod database;
mod directed;
mod docket;
mod fleet;
mod freshness;
mod history;
mod judge;
mod network;
mod origin;
mod plan;
mod server;
mod several;
mod station;
mod world;

use chaos::Fault;
use history::{Account, run};

/// How many histories a test goes through.
const SEEDS: u64 = 5_000;

#[test]
fn the_promises_hold_in_every_history_of_the_first_half() {
    go_through(0..SEEDS);
}

#[test]
fn the_promises_hold_in_every_history_of_the_second_half() {
    go_through(SEEDS..2 * SEEDS);
}

/// The same seed is the same history. `SIM_SEED` says which; its trace is printed.
#[test]
fn replay() {
    let chosen = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().expect("SIM_SEED is a number"));
    let account = run(chosen.unwrap_or(TYPICAL), true);
    account.trace.iter().for_each(|line| println!("{line}"));
    assert_eq!(account.violations, Vec::<String>::new());
    assert_eq!(run(chosen.unwrap_or(TYPICAL), true).trace, account.trace, "a seed is one history");
}

/// A seed in which much happens.
const TYPICAL: u64 = 165;

fn go_through(seeds: std::ops::Range<u64>) {
    let (mut total, mut failures) = (Account::default(), Vec::new());
    for seed in seeds.clone() {
        let account = run(seed, false);
        failures.extend((!account.violations.is_empty()).then(|| failure(seed, &account.violations)));
        total.add(account);
        if failures.len() == FAILURES_SHOWN {
            break;
        }
    }
    println!("{seeds:?}: {total}");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let faults = Fault::ALL.iter().map(|fault| fault.name());
    let expected = EXPECTED.iter().copied().chain(faults);
    let never: Vec<_> = expected.filter(|what| !total.counts.contains_key(what)).collect();
    assert!(never.is_empty(), "this never happened, so these histories prove nothing about it: {never:?}");
}

/// More would say the same again.
const FAILURES_SHOWN: usize = 5;

fn failure(seed: u64, violations: &[String]) -> String {
    format!(
        "seed {seed}: {}\nreplay it: SIM_SEED={seed} scripts/test -p nearfar-proofs --test sim replay -- --nocapture",
        violations.join("\n")
    )
}

impl Account {
    fn add(&mut self, other: Account) {
        for (what, count) in other.counts.into_iter().filter(|(_, count)| *count > 0) {
            *self.counts.entry(what).or_default() += count;
        }
        self.reads += other.reads;
        self.stale_reads += other.stale_reads;
        self.worst = self.worst.max(other.worst);
        self.settled_in = self.settled_in.max(other.settled_in);
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reads, stale_reads, worst, settled_in, counts, .. } = self;
        write!(f, "{reads} reads, {stale_reads} of them stale, the worst by {worst}% of its bound; ")?;
        write!(f, "settled within {settled_in:?}; {counts:?}")
    }
}

/// What has to happen somewhere, besides every fault, or nothing is shown.
const EXPECTED: &[&str] = &[
    "L1 hits",
    "L2 hits",
    "answers not modified",
    "answers of absence",
    "callers that left",
    "changes answered by Queued",
    "changes answered by an error",
    "changes applied",
    "changes lost",
    "changes together with others",
    "changes whose caller left",
    "claims granted",
    "claims held by others",
    "claims overtaken",
    "commands lost",
    "copies refused by the fence",
    "entries purged",
    "expirations",
    "fills refused at the node",
    "flights joined",
    "invalidations by tag",
    "invalidations received",
    "keys left undone at a goodbye",
    "keys orphaned by a crash",
    "keys reissued",
    "late changes refused",
    "late fills refused",
    "links replaced by the watchdog",
    "loads ahead",
    "loads failed",
    "loads of what is stale",
    "loads that a claim kept waiting for long",
    "loads timed out",
    "messages replayed",
    "nodes told of a release",
    "old fills refused",
    "old renewals refused",
    "packets lost in silence",
    "packets overrun",
    "reads by who knew a version",
    "reads of L2 failed",
    "reads together with others",
    "renewals",
    "replies lost",
    "resyncs",
    "served stale, load failed",
    "served stale, load slow",
    "served stale, revalidating",
    "starts failed",
    "touches",
];
