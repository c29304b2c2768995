//! The settings of a cache, checked.

use std::time::Duration;

use nearfar_core::backend::Settings;
use nearfar_core::{Disconnected, Moment};

use crate::compression::Compression;
use crate::config::{CacheConfig, Switch};
use crate::error::{ConfigProblem, Error};
use crate::lifetime::{IDLE_MARGIN, Left, Life, Lifetime, Limits};
use crate::loaded::{Answer, Loaded};
use crate::log::LogKeys;
use crate::outcome::Unacknowledged;
use crate::refresh::RefreshAhead;

/// What `Cache::builder` collects. Every field's default has its reason at its setter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) ttl: Duration,
    pub(crate) idle: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) absent_ttl: Option<Duration>,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) refresh_ahead: Option<RefreshAhead>,
    pub(crate) retry_interval: Duration,
    /// For how long a claim holds; `None` if every node loads for itself.
    pub(crate) claims: Option<Duration>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) finish_timed_out_loads: bool,
    pub(crate) jitter: f64,
    pub(crate) l1_ttl: Duration,
    pub(crate) l1_max_entries: u64,
    pub(crate) l1_max_bytes: Option<u64>,
    pub(crate) max_staleness: Duration,
    pub(crate) disconnected: Disconnected,
    pub(crate) unacknowledged: Unacknowledged,
    pub(crate) log_keys: LogKeys,
    pub(crate) fence_window: Duration,
    pub(crate) schema: u32,
    pub(crate) max_value_bytes: usize,
    pub(crate) compression: Option<Compression>,
    /// `None` for what the backend proposes.
    pub(crate) partitions: Option<u16>,
}

/// What L1 needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct L1Options {
    pub(crate) max_entries: u64,
    pub(crate) max_bytes: Option<u64>,
    /// No entry is served for longer than this.
    pub(crate) longest_stay: Option<Duration>,
    /// Nor if it was not read for so long.
    pub(crate) longest_rest: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            idle: None,
            grace: Duration::ZERO,
            absent_ttl: None,
            stale_while_revalidate: Duration::ZERO,
            refresh_ahead: None,
            retry_interval: Duration::from_secs(1),
            claims: None,
            soft_timeout: None,
            hard_timeout: None,
            finish_timed_out_loads: true,
            jitter: 0.0,
            l1_ttl: Duration::MAX,
            l1_max_entries: 10_000,
            l1_max_bytes: None,
            max_staleness: Duration::from_secs(5),
            disconnected: Disconnected::Bypass,
            unacknowledged: Unacknowledged::Queue,
            log_keys: LogKeys::Hashed,
            fence_window: Duration::from_secs(60),
            schema: 0,
            max_value_bytes: 64 << 20,
            compression: None,
            partitions: None,
        }
    }
}

/// How settings are said as data. Both ways take everything apart, so that no option can be forgotten.
impl Options {
    /// Takes over what is said.
    pub(crate) fn apply(&mut self, config: &CacheConfig) {
        let CacheConfig {
            ttl,
            idle,
            grace,
            absent_ttl,
            stale_while_revalidate,
            retry_interval,
            refresh_ahead,
            cluster_single_flight,
            soft_timeout,
            hard_timeout,
            finish_timed_out_loads,
            jitter,
            l1_ttl,
            l1_max_entries,
            l1_max_bytes,
            max_staleness,
            disconnected,
            unacknowledged,
            fence_window,
            partitions,
            schema,
            compression,
            max_value_bytes,
            log_keys,
        } = config.clone();
        put(&mut self.ttl, ttl);
        put(&mut self.idle, idle.map(Switch::setting));
        put(&mut self.grace, grace);
        put(&mut self.absent_ttl, absent_ttl.map(Switch::setting));
        put(&mut self.stale_while_revalidate, stale_while_revalidate);
        put(&mut self.retry_interval, retry_interval);
        put(&mut self.refresh_ahead, refresh_ahead.map(Switch::setting));
        put(&mut self.claims, cluster_single_flight.map(Switch::setting));
        put(&mut self.soft_timeout, soft_timeout.map(Switch::setting));
        put(&mut self.hard_timeout, hard_timeout.map(Switch::setting));
        put(&mut self.finish_timed_out_loads, finish_timed_out_loads);
        put(&mut self.jitter, jitter);
        put(&mut self.l1_ttl, l1_ttl);
        put(&mut self.l1_max_entries, l1_max_entries);
        put(&mut self.l1_max_bytes, l1_max_bytes.map(Switch::setting));
        put(&mut self.max_staleness, max_staleness);
        put(&mut self.disconnected, disconnected);
        put(&mut self.unacknowledged, unacknowledged);
        put(&mut self.fence_window, fence_window);
        put(&mut self.partitions, partitions.map(Some));
        put(&mut self.schema, schema);
        put(&mut self.compression, compression.map(Switch::setting));
        put(&mut self.max_value_bytes, max_value_bytes);
        put(&mut self.log_keys, log_keys);
    }

    /// All of it, with the partitions that there are.
    pub(crate) fn config(&self, default_partitions: u16) -> CacheConfig {
        let Self {
            ttl,
            idle,
            grace,
            absent_ttl,
            stale_while_revalidate,
            refresh_ahead,
            retry_interval,
            claims,
            soft_timeout,
            hard_timeout,
            finish_timed_out_loads,
            jitter,
            l1_ttl,
            l1_max_entries,
            l1_max_bytes,
            max_staleness,
            disconnected,
            unacknowledged,
            fence_window,
            schema,
            partitions,
            compression,
            max_value_bytes,
            log_keys,
        } = *self;
        CacheConfig {
            ttl: Some(ttl),
            idle: Some(Switch::of(idle)),
            grace: Some(grace),
            absent_ttl: Some(Switch::of(absent_ttl)),
            stale_while_revalidate: Some(stale_while_revalidate),
            retry_interval: Some(retry_interval),
            refresh_ahead: Some(Switch::of(refresh_ahead)),
            cluster_single_flight: Some(Switch::of(claims)),
            soft_timeout: Some(Switch::of(soft_timeout)),
            hard_timeout: Some(Switch::of(hard_timeout)),
            finish_timed_out_loads: Some(finish_timed_out_loads),
            jitter: Some(jitter),
            l1_ttl: Some(l1_ttl),
            l1_max_entries: Some(l1_max_entries),
            l1_max_bytes: Some(Switch::of(l1_max_bytes)),
            max_staleness: Some(max_staleness),
            disconnected: Some(disconnected),
            unacknowledged: Some(unacknowledged),
            fence_window: Some(fence_window),
            partitions: Some(partitions.unwrap_or(default_partitions)),
            schema: Some(schema),
            compression: Some(Switch::of(compression)),
            max_value_bytes: Some(max_value_bytes),
            log_keys: Some(log_keys),
        }
    }
}

fn put<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

/// Lifetimes from here on count as none: a century is beyond every process and every clock's exactness.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A shorter bound would have nodes beat more often than every 4 ms.
const LEAST_STALENESS: Duration = Duration::from_millis(20);

/// A load includes two round trips, and what is known of L2's clock is about as exact as one.
const LEAST_WINDOW: Duration = Duration::from_millis(100);

/// Redis takes no argument above 512 MiB. A megabyte of it is for header, notes and seal.
const MOST_VALUE_BYTES: usize = 511 << 20;

impl Options {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let durations = [
            ("ttl", Some(self.ttl)),
            ("l1_ttl", Some(self.l1_ttl)),
            ("idle", self.idle),
            ("cluster_single_flight", self.claims),
            ("absent_ttl", self.absent_ttl),
            ("soft_timeout", self.soft_timeout),
            ("hard_timeout", self.hard_timeout),
        ];
        if let Some((setting, _)) = durations.iter().find(|(_, duration)| *duration == Some(Duration::ZERO)) {
            return Err(Error::config(ConfigProblem::Zero { setting }));
        }
        let capacities = [
            ("l1_max_entries", Some(self.l1_max_entries)),
            ("l1_max_bytes", self.l1_max_bytes),
            ("max_value_bytes", Some(self.max_value_bytes as u64)),
        ];
        if let Some((setting, _)) = capacities.iter().find(|(_, capacity)| *capacity == Some(0)) {
            return Err(Error::config(ConfigProblem::Zero { setting }));
        }
        if self.max_value_bytes > MOST_VALUE_BYTES {
            let (given, most) = (self.max_value_bytes, MOST_VALUE_BYTES);
            return Err(Error::config(ConfigProblem::ValuesTooLarge { given, most }));
        }
        self.refresh_ahead.map_or(Ok(()), RefreshAhead::check)?;
        if let (Some(soft), Some(hard)) = (self.soft_timeout, self.hard_timeout)
            && soft >= hard
        {
            return Err(Error::config(ConfigProblem::SoftNotSooner { soft, hard }));
        }
        if let Some(claim) = self.claims.filter(|claim| *claim > self.fence_window) {
            return Err(Error::config(ConfigProblem::ClaimTooLong { claim, window: self.fence_window }));
        }
        if let Some(given) = self.partitions.filter(|count| !(1..=Settings::MAX_PARTITIONS).contains(count)) {
            return Err(Error::config(ConfigProblem::Partitions { given }));
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return Err(Error::config(ConfigProblem::Jitter { given: self.jitter }));
        }
        let shortest = [
            ("max_staleness", self.max_staleness, LEAST_STALENESS),
            ("fence_window", self.fence_window, LEAST_WINDOW),
        ];
        if let Some(&(setting, given, least)) = shortest.iter().find(|(_, given, least)| given < least) {
            return Err(Error::config(ConfigProblem::TooShort { setting, given, least }));
        }
        Ok(())
    }

    /// What the nodes of a namespace must agree on.
    pub(crate) fn settings(&self, default_partitions: u16) -> Settings {
        // What is recorded has milliseconds; a fraction of one would disagree with itself.
        let millis = u64::try_from(self.fence_window.as_millis()).unwrap_or(u64::MAX);
        let partitions = self.partitions.unwrap_or(default_partitions);
        Settings { partitions, fence_window: Duration::from_millis(millis) }
    }

    /// That of what a loader has found; `None` if it is not to be stored.
    pub(crate) fn lifetime<V>(&self, loaded: &Loaded<V>) -> Option<Lifetime> {
        let (own_ttl, is_absent) = (loaded.own_ttl(), matches!(loaded.answer, Answer::Absent));
        let ttl = if is_absent { own_ttl.or(self.absent_ttl)? } else { own_ttl.unwrap_or(self.ttl) };
        let grace = if is_absent { Duration::ZERO } else { loaded.grace.unwrap_or(self.grace) };
        let idle = loaded.idle.or(self.idle).filter(|_| !is_absent);
        let lasts = !ttl.is_zero() && idle != Some(Duration::ZERO);
        (loaded.is_stored && lasts).then(|| Lifetime {
            ttl: limited(ttl).map(|ttl| ttl.mul_f64(1.0 - self.jitter * fastrand::f64())),
            idle: idle.and_then(with_margin),
            grace: grace.min(FOR_EVER),
        })
    }

    /// How long L2 keeps a value: never shorter than the fence window, or a short-lived value would stop fencing.
    pub(crate) fn keep(&self, lifetime: Lifetime) -> Option<Duration> {
        lifetime.whole().map(|whole| whole.max(self.fence_window))
    }

    /// The life in L1 of a value that is taken in now, and has so much left of its lifetime.
    pub(crate) fn life(&self, now: Moment, left: Left, lifetime: Lifetime, load_cost: Duration) -> Life {
        let lead = self.refresh_ahead.and_then(|ahead| Some(ahead.lead(lifetime.ttl?, load_cost)));
        Life::new(now, left, &Limits { l1_ttl: self.l1_ttl, idle: lifetime.idle, lead }, load_cost)
    }

    pub(crate) fn l1(&self) -> L1Options {
        L1Options {
            max_entries: self.l1_max_entries,
            max_bytes: self.l1_max_bytes,
            longest_stay: if self.grace.is_zero() {
                limited(self.ttl.min(self.l1_ttl))
            } else {
                // What L1 does not serve any more may still be a fallback.
                limited(self.ttl.saturating_add(self.grace))
            },
            longest_rest: self.idle.and_then(|idle| limited(with_margin(idle)?.saturating_add(self.grace))),
        }
    }
}

fn limited(duration: Duration) -> Option<Duration> {
    (duration < FOR_EVER).then_some(duration)
}

/// What reads within the margin are not told to L2, so that they cost it nothing. No value goes early for that.
fn with_margin(idle: Duration) -> Option<Duration> {
    // Whole milliseconds are written, and they must not be fewer.
    let micros = |idle: Duration| (idle + idle / (IDLE_MARGIN - 1)).as_micros();
    limited(idle)
        .map(|idle| Duration::from_millis(u64::try_from(micros(idle).div_ceil(1_000)).unwrap_or(u64::MAX)))
}
