//! What a node is set to do with what is old.

use std::time::Duration;

use fastrand::Rng;
use nearfar::{CacheBuilder, RefreshAhead};

use crate::clock::millis;
use crate::database::Value;
use crate::plan::{chance, pick};

/// The settings that nodes need not agree on. Absent ones are off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freshness {
    pub(crate) ttl: Duration,
    pub(crate) jitter: f64,
    pub(crate) idle: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) retry_interval: Duration,
    pub(crate) absent_ttl: Option<Duration>,
    pub(crate) refresh_ahead: Option<RefreshAhead>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) finish_timed_out_loads: bool,
    /// At most the fence window.
    pub(crate) claims: Option<Duration>,
}

impl Freshness {
    /// Everything is off, and nothing ends by itself.
    pub(crate) const PLAIN: Self = Self {
        ttl: millis(300_000),
        jitter: 0.0,
        idle: None,
        grace: Duration::ZERO,
        stale_while_revalidate: Duration::ZERO,
        retry_interval: millis(1_000),
        absent_ttl: None,
        refresh_ahead: None,
        soft_timeout: None,
        hard_timeout: None,
        finish_timed_out_loads: true,
        claims: None,
    };

    /// Each feature is on in a part of the draws. In a third of them all are off.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let ttl = millis(pick(rng, &[80, 300, 300_000, 300_000, 300_000]));
        let jitter = pick(rng, &[0.0, 0.5]);
        if chance(rng, 33) {
            return Self { ttl, jitter, ..Self::PLAIN };
        }
        Self {
            ttl,
            jitter,
            idle: some(rng, 25, &[250, 700]),
            grace: some(rng, 75, &[150, 1_500, 60_000]).unwrap_or_default(),
            stale_while_revalidate: some(rng, 50, &[100, 60_000]).unwrap_or_default(),
            retry_interval: millis(pick(rng, &[40, 1_000])),
            absent_ttl: some(rng, 60, &[150, 5_000]),
            refresh_ahead: chance(rng, 40).then(|| ahead(rng)),
            soft_timeout: some(rng, 30, &[20, 60]),
            hard_timeout: some(rng, 30, &[100, 250]),
            finish_timed_out_loads: chance(rng, 50),
            claims: some(rng, 40, &[30, 80, 150]),
        }
    }

    pub(crate) fn applied_to(self, builder: CacheBuilder<u64, Value>) -> CacheBuilder<u64, Value> {
        let mut builder = builder
            .ttl(self.ttl)
            .jitter(self.jitter)
            .grace(self.grace)
            .stale_while_revalidate(self.stale_while_revalidate)
            .retry_interval(self.retry_interval)
            .finish_timed_out_loads(self.finish_timed_out_loads);
        if let Some(when) = self.refresh_ahead {
            builder = builder.refresh_ahead(when);
        }
        let limits: [(Option<Duration>, Limit); 5] = [
            (self.idle, CacheBuilder::idle),
            (self.absent_ttl, CacheBuilder::absent_ttl),
            (self.soft_timeout, CacheBuilder::soft_timeout),
            (self.hard_timeout, CacheBuilder::hard_timeout),
            (self.claims, CacheBuilder::cluster_single_flight),
        ];
        let set = |builder, (limit, set): (Option<Duration>, Limit)| match limit {
            Some(limit) => set(builder, limit),
            None => builder,
        };
        limits.into_iter().fold(builder, set)
    }
}

/// A setting that is a duration.
type Limit = fn(CacheBuilder<u64, Value>, Duration) -> CacheBuilder<u64, Value>;

fn some(rng: &mut Rng, percent: u32, choices: &[u64]) -> Option<Duration> {
    chance(rng, percent).then(|| millis(pick(rng, choices)))
}

fn ahead(rng: &mut Rng) -> RefreshAhead {
    pick(rng, &[RefreshAhead::After(0.3), RefreshAhead::Probabilistic(2.0)])
}
