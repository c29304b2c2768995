//! What a seed decides before anything runs.

use std::time::Duration;

use fastrand::Rng;
use nearfar::{Disconnected, Unacknowledged};

use crate::clock::millis;
use crate::freshness::Freshness;

/// The settings of one world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) keys: u64,
    pub(crate) nodes: usize,
    pub(crate) partitions: u16,
    /// How long clients work and faults strike.
    pub(crate) length: Duration,
    /// The longest way of a packet while the network is well, in milliseconds.
    pub(crate) latency: u64,
    pub(crate) slowest_load: u64,
    pub(crate) longest_gap: u64,
    pub(crate) faults_every: u64,
    pub(crate) log_len: usize,
    pub(crate) command_timeout: Duration,
    pub(crate) fence_window: Duration,
    /// Of how many loads, in percent, the origin fails while it is up.
    pub(crate) failing_loads: u32,
    /// How many of the invalidations, in percent, follow a deletion.
    pub(crate) deletions: u32,
    /// How many of the loads, in percent, ask only whether what is cached has changed.
    pub(crate) revalidations: u32,
    /// Whether values carry the tag of their group; then they are invalidated by it now and then.
    pub(crate) tagged: bool,
    /// That of most nodes.
    pub(crate) freshness: Freshness,
    /// How many nodes, in percent, have another.
    pub(crate) odd_ones: u32,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            keys: rng.u64(2..=4),
            nodes: rng.usize(2..=4),
            partitions: pick(rng, &[1, 1, 2, 3]),
            length: millis(rng.u64(600..=2_000)),
            latency: pick(rng, &[0, 2, 8, 20]),
            slowest_load: pick(rng, &[5, 50, 150, 500]),
            longest_gap: pick(rng, &[30, 60, 120]),
            faults_every: pick(rng, &[120, 250, 500]),
            log_len: pick(rng, &[2, 8, 1_000, 1_000]),
            command_timeout: millis(pick(rng, &[60, 100, 200])),
            fence_window: millis(pick(rng, &[150, 400, 2_000, 60_000])),
            failing_loads: pick(rng, &[0, 0, 10, 40]),
            deletions: pick(rng, &[0, 0, 30]),
            revalidations: pick(rng, &[20, 90]),
            tagged: chance(rng, 60),
            freshness: Freshness::draw(rng),
            odd_ones: pick(rng, &[0, 30]),
        }
    }
}

/// The settings of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodePlan {
    pub(crate) max_staleness: Duration,
    pub(crate) serves_for: Option<Duration>,
    pub(crate) fails: bool,
    pub(crate) starts_degraded: bool,
    pub(crate) clients: usize,
    pub(crate) freshness: Freshness,
}

impl NodePlan {
    pub(crate) fn draw(rng: &mut Rng, plan: &Plan) -> Self {
        Self {
            max_staleness: millis(pick(rng, &[250, 500, 1_000])),
            serves_for: chance(rng, 25).then(|| millis(rng.u64(100..=500))),
            fails: chance(rng, 25),
            starts_degraded: chance(rng, 50),
            clients: rng.usize(1..=7),
            freshness: if chance(rng, plan.odd_ones) { Freshness::draw(rng) } else { plan.freshness },
        }
    }

    /// How stale a read may be.
    pub(crate) fn bound(&self) -> Duration {
        self.max_staleness + self.serves_for.unwrap_or_default()
    }

    pub(crate) fn disconnected(&self) -> Disconnected {
        self.serves_for.map_or(Disconnected::Bypass, Disconnected::ServeFor)
    }

    pub(crate) fn unacknowledged(&self) -> Unacknowledged {
        if self.fails { Unacknowledged::Fail } else { Unacknowledged::Queue }
    }
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

pub(crate) fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}
