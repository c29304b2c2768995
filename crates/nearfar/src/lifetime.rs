//! For how long a value is good for what.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nearfar_core::{Envelope, Moment};

/// Decided when a value is written or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// `None` for ever.
    pub(crate) ttl: Option<Duration>,
    /// How long past `ttl` the value may be served stale.
    pub(crate) grace: Duration,
}

impl Lifetime {
    /// For how long the value is of any use; `None` for ever.
    pub(crate) fn whole(self) -> Option<Duration> {
        Some(self.ttl?.saturating_add(self.grace))
    }
}

/// What is left of a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Fresh {
        /// `None` for ever.
        ttl: Option<Duration>,
        /// Until it is of no use; `None` for ever.
        whole: Option<Duration>,
    },
    Stale {
        /// For how long it has been.
        since: Duration,
        whole: Option<Duration>,
    },
}

impl Left {
    /// All of it.
    pub(crate) fn all(lifetime: Lifetime) -> Self {
        Self::Fresh { ttl: lifetime.ttl, whole: lifetime.whole() }
    }

    /// Of an envelope that is so old. `now` is that of L2. `None` if nothing is left.
    pub(crate) fn of(envelope: &Envelope, age: Duration, now: Moment) -> Option<Self> {
        let header = &envelope.header;
        let lifetime = Lifetime { ttl: header.ttl, grace: header.grace };
        let whole = match lifetime.whole() {
            Some(whole) => Some(whole.checked_sub(age)?),
            None => None,
        };
        // The change that declared it stale has its number from L2's clock.
        let declared =
            envelope.stamp.expired.then(|| now.since(Moment::from_micros(envelope.stamp.version.number())));
        let over = header.ttl.and_then(|ttl| age.checked_sub(ttl)).max(declared);
        Some(match over {
            Some(since) => Self::Stale { since, whole },
            None => Self::Fresh { ttl: header.ttl.map(|ttl| ttl.saturating_sub(age)), whole },
        })
        .filter(|left| !left.is_over())
    }

    fn is_over(&self) -> bool {
        let (Self::Fresh { whole, .. } | Self::Stale { whole, .. }) = self;
        *whole == Some(Duration::ZERO)
    }

    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh { .. })
    }
}

/// Until when a copy in L1 is good for what, by this node's clock.
///
/// Relaxed: a reader who misses what was stored just now reads as if it had come just before.
#[derive(Debug)]
pub(crate) struct Life {
    /// L1 serves it before this.
    served_until: AtomicU64,
    /// It is stale from then on.
    expires_at: AtomicU64,
    /// It is of no use from then on.
    ends_at: Moment,
    /// A load has failed: before this, a stale value is served without another.
    retry_at: AtomicU64,
    /// A read may have to load it again from then on, though it is fresh.
    refresh_from: AtomicU64,
    load_cost: Duration,
}

impl Life {
    /// Of a value that is taken into L1 now, which serves it for no longer than `l1_ttl`. With a lead, it may have to be
    /// loaded again so long before its ttl is over.
    pub(crate) fn new(
        now: Moment,
        left: Left,
        l1_ttl: Duration,
        lead: Option<Duration>,
        load_cost: Duration,
    ) -> Self {
        let at = |left: Option<Duration>| left.map_or(Moment::NEVER, |left| now + left);
        let (served_until, expires_at, whole) = match left {
            Left::Fresh { ttl, whole } => (at(ttl).min(now + l1_ttl), at(ttl), whole),
            Left::Stale { since, whole } => (Moment::default(), now - since, whole),
        };
        let refresh_from = lead.map_or(Moment::NEVER, |lead| expires_at - lead);
        Self {
            refresh_from: AtomicU64::new(refresh_from.micros()),
            load_cost,
            served_until: AtomicU64::new(served_until.micros()),
            expires_at: AtomicU64::new(expires_at.micros()),
            ends_at: at(whole),
            retry_at: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn served_until(&self) -> Moment {
        load(&self.served_until)
    }

    pub(crate) fn expires_at(&self) -> Moment {
        load(&self.expires_at)
    }

    pub(crate) fn ends_at(&self) -> Moment {
        self.ends_at
    }

    #[inline]
    pub(crate) fn refresh_from(&self) -> Moment {
        load(&self.refresh_from)
    }

    pub(crate) fn load_cost(&self) -> Duration {
        self.load_cost
    }

    /// The right to load it again, which nobody else gets before `next`.
    pub(crate) fn claim_refresh(&self, now: Moment, next: Moment) -> bool {
        let from = self.refresh_from();
        let claim = || {
            let (from, next) = (from.micros(), next.micros());
            self.refresh_from.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        now >= from && claim()
    }

    pub(crate) fn retry_at(&self) -> Moment {
        load(&self.retry_at)
    }

    /// It was declared stale.
    pub(crate) fn expire(&self, now: Moment) {
        self.served_until.store(0, Ordering::Relaxed);
        self.expires_at.fetch_min(now.micros(), Ordering::Relaxed);
    }

    /// No load is tried for its sake before this.
    pub(crate) fn retry_not_before(&self, moment: Moment) {
        self.retry_at.fetch_max(moment.micros(), Ordering::Relaxed);
    }
}

fn load(moment: &AtomicU64) -> Moment {
    Moment::from_micros(moment.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nearfar_core::{EnvelopeHeader, Kind, Stamp, Version};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Of a value written at second 100.
    fn left(ttl: Option<u32>, grace: u32, expired_at: Option<u32>, now: u32) -> Option<Left> {
        let at = |second: u32| Moment::default() + SECOND * second;
        let header = EnvelopeHeader {
            ttl: ttl.map(|ttl| SECOND * ttl),
            grace: SECOND * grace,
            ..EnvelopeHeader::of(Kind::Value)
        };
        let version = Version::new(at(expired_at.unwrap_or(100)).micros());
        let stamp = Stamp { version, written_at: at(100), expired: expired_at.is_some() };
        let envelope = Envelope { header, stamp, tags: Bytes::new(), payload: Bytes::new() };
        Left::of(&envelope, at(now).since(at(100)), at(now))
    }

    fn seconds(count: Option<u32>) -> Option<Duration> {
        count.map(|count| SECOND * count)
    }

    fn fresh(ttl: Option<u32>, whole: Option<u32>) -> Left {
        Left::Fresh { ttl: seconds(ttl), whole: seconds(whole) }
    }

    fn stale(since: u32, whole: Option<u32>) -> Left {
        Left::Stale { since: SECOND * since, whole: seconds(whole) }
    }

    #[test]
    fn a_value_is_fresh_then_stale_then_nothing() {
        assert_eq!(left(Some(10), 5, None, 100), Some(fresh(Some(10), Some(15))));
        assert_eq!(left(Some(10), 5, None, 109), Some(fresh(Some(1), Some(6))));
        assert_eq!(left(Some(10), 5, None, 110), Some(stale(0, Some(5))));
        assert_eq!(left(Some(10), 5, None, 114), Some(stale(4, Some(1))));
        assert_eq!(left(Some(10), 5, None, 115), None);
        assert_eq!(left(Some(10), 0, None, 110), None, "without grace it is never stale");
        assert_eq!(left(None, 0, None, 999), Some(fresh(None, None)));
    }

    #[test]
    fn a_value_that_was_declared_stale_ends_when_it_would_have() {
        assert_eq!(left(Some(10), 5, Some(102), 103), Some(stale(1, Some(12))));
        assert_eq!(left(Some(10), 5, Some(102), 112), Some(stale(10, Some(3))));
        assert_eq!(left(Some(10), 5, Some(102), 115), None);
        assert_eq!(
            left(None, 0, Some(102), 999),
            Some(stale(897, None)),
            "without ttl it is a fallback for ever"
        );
    }
}
