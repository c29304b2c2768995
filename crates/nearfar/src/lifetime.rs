//! For how long a value is good for what.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nearfar_core::{Envelope, EnvelopeHeader, Moment};

/// Decided when a value is written or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// Since it was written; `None` for ever.
    pub(crate) ttl: Option<Duration>,
    /// Since it was last read; `None` for ever. A part of it is the margin for reads that L2 is not told of.
    pub(crate) idle: Option<Duration>,
    /// How long past both the value may be served stale.
    pub(crate) grace: Duration,
}

impl Lifetime {
    pub(crate) fn of(header: &EnvelopeHeader) -> Self {
        Self { ttl: header.ttl, idle: header.idle, grace: header.grace }
    }

    /// For how long the value is of any use if nobody reads it; `None` for ever.
    pub(crate) fn whole(self) -> Option<Duration> {
        Some(shorter(self.ttl, self.idle)?.saturating_add(self.grace))
    }
}

/// `None` is for ever.
fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// What is left of a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Of each of its parts, the grace whole.
    Fresh(Lifetime, Spent),
    Stale {
        /// For how long it has been.
        since: Duration,
        /// Until it is of no use; `None` for ever.
        whole: Option<Duration>,
    },
}

/// How much of `idle` is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent(Duration);

impl Left {
    /// All of it.
    pub(crate) fn all(lifetime: Lifetime) -> Self {
        Self::Fresh(lifetime, Spent::default())
    }

    /// Of an envelope that is so old. `now` is that of L2. `None` if nothing is left.
    pub(crate) fn of(envelope: &Envelope, age: Duration, now: Moment) -> Option<Self> {
        let (header, stamp) = (&envelope.header, &envelope.stamp);
        let unread = now.since(stamp.read_at);
        let over =
            |limit: Option<Duration>, spent: Duration| limit.and_then(|limit| spent.checked_sub(limit));
        let left = |limit: Option<Duration>, spent| limit.map(|limit: Duration| limit.saturating_sub(spent));
        let fresh =
            Lifetime { ttl: left(header.ttl, age), idle: left(header.idle, unread), grace: header.grace };
        let past_end = over(header.ttl, age).max(over(header.idle, unread));
        let whole = match past_end {
            Some(past_end) => Some(header.grace.checked_sub(past_end)?),
            None => fresh.whole(),
        };
        // The change that declared it stale has its number from L2's clock.
        let declared = stamp.expired.then(|| now.since(Moment::from_micros(stamp.version.number())));
        let left = match past_end.max(declared) {
            Some(since) => Self::Stale { since, whole },
            None => Self::Fresh(fresh, Spent(unread)),
        };
        (whole != Some(Duration::ZERO)).then_some(left)
    }

    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(..))
    }

    /// The same of what was declared stale so long ago.
    pub(crate) fn declared_stale(self, ago: Duration) -> Self {
        match self {
            Self::Fresh(fresh, _) => Self::Stale { since: ago, whole: fresh.whole() },
            Self::Stale { since, whole } => Self::Stale { since: since.max(ago), whole },
        }
    }
}

/// What L1 needs to know besides what is left.
pub(crate) struct Limits {
    /// L1 serves no copy for longer.
    pub(crate) l1_ttl: Duration,
    /// Since a read of it.
    pub(crate) idle: Option<Duration>,
    /// How long before its ttl is over it may have to be loaded again.
    pub(crate) lead: Option<Duration>,
}

/// Until when a copy in L1 is good for what, by this node's clock.
///
/// Relaxed: a reader who misses what was stored just now reads as if it had come just before.
///
/// In this order: a hit looks at the first two.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Life {
    /// L1 serves it before this.
    served_until: AtomicU64,
    /// A read has to see to it from then on: load it again, or say that it was read. One word, so that a hit pays one
    /// comparison for all of this. It never stands behind both reasons.
    due_from: AtomicU64,
    /// It is stale from then on.
    expires_at: AtomicU64,
    /// It is of no use from then on.
    ends_at: AtomicU64,
    /// A load has failed: before this, a stale value is served without another.
    retry_at: AtomicU64,
    /// A read may have to load it again from then on, though it is fresh.
    refresh_from: AtomicU64,
    load_cost: Duration,
    idle: Option<Box<Idle>>,
}

/// What reads prolong.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    /// A read says that there was one from then on.
    touch_from: AtomicU64,
    /// Whether it was declared stale. Guards the limits that reads prolong: either a read does, or it is too late.
    declared_stale: Mutex<bool>,
    /// No read prolongs its freshness beyond this, nor its service from L1 beyond that.
    latest: (Moment, Moment),
    grace: Duration,
}

impl Idle {
    /// A read within so small a part of the limit after the last is not told: those who promise `limit` to their users
    /// set theirs longer by as much, see [`Options`](crate::options::Options).
    fn untold(limit: Duration) -> Duration {
        limit / IDLE_MARGIN
    }
}

/// Of this many parts of an idle limit, the last is the margin.
pub(crate) const IDLE_MARGIN: u32 = 9;

impl Life {
    /// Of a value that is taken into L1 now.
    pub(crate) fn new(now: Moment, left: Left, limits: &Limits, load_cost: Duration) -> Self {
        let at = |left: Option<Duration>| left.map_or(Moment::NEVER, |left| now + left);
        let (served_until, expires_at, ends_at, refresh_from, idle) = match left {
            Left::Fresh(fresh, Spent(unread)) => {
                let (by_ttl, by_l1) = (at(fresh.ttl), now + limits.l1_ttl);
                let expires_at = by_ttl.min(at(fresh.idle));
                let idle = limits.idle.map(|limit| {
                    let touch_from = now + Idle::untold(limit).saturating_sub(unread);
                    Box::new(Idle {
                        limit,
                        touch_from: AtomicU64::new(touch_from.micros()),
                        declared_stale: Mutex::new(false),
                        latest: (by_ttl, by_l1),
                        grace: fresh.grace,
                    })
                });
                let refresh_from = limits.lead.map_or(Moment::NEVER, |lead| by_ttl - lead);
                (expires_at.min(by_l1), expires_at, at(fresh.whole()), refresh_from, idle)
            }
            Left::Stale { since, whole } => (Moment::default(), now - since, at(whole), Moment::NEVER, None),
        };
        let life = Self {
            served_until: AtomicU64::new(served_until.micros()),
            expires_at: AtomicU64::new(expires_at.micros()),
            ends_at: AtomicU64::new(ends_at.micros()),
            retry_at: AtomicU64::new(0),
            refresh_from: AtomicU64::new(refresh_from.micros()),
            due_from: AtomicU64::new(0),
            load_cost,
            idle,
        };
        life.set_due();
        life
    }

    #[inline]
    pub(crate) fn served_until(&self) -> Moment {
        load(&self.served_until)
    }

    pub(crate) fn expires_at(&self) -> Moment {
        load(&self.expires_at)
    }

    pub(crate) fn ends_at(&self) -> Moment {
        load(&self.ends_at)
    }

    /// A read that comes from then on has to see to it.
    #[inline]
    pub(crate) fn due_from(&self) -> Moment {
        load(&self.due_from)
    }

    pub(crate) fn refresh_from(&self) -> Moment {
        load(&self.refresh_from)
    }

    pub(crate) fn load_cost(&self) -> Duration {
        self.load_cost
    }

    /// The right to load it again, which nobody else gets before `next`.
    pub(crate) fn take_refresh(&self, now: Moment, next: Moment) -> bool {
        let taken = take_turn(&self.refresh_from, now, next);
        self.set_due();
        taken
    }

    /// Prolongs it because it was read now. Whether that is to be told to L2.
    pub(crate) fn touch(&self, now: Moment) -> bool {
        let Some(idle) = &self.idle else { return false };
        let is_told = take_turn(&idle.touch_from, now, now + Idle::untold(idle.limit));
        if is_told {
            self.prolong(idle, now);
        }
        self.set_due();
        is_told
    }

    /// Takes note of a read that L2 is told of in any case.
    pub(crate) fn touch_at_once(&self, now: Moment) {
        let Some(idle) = &self.idle else { return };
        idle.touch_from.fetch_max((now + Idle::untold(idle.limit)).micros(), Ordering::Relaxed);
        self.prolong(idle, now);
        self.set_due();
    }

    fn prolong(&self, idle: &Idle, now: Moment) {
        let declared_stale = idle.declared_stale.lock().unwrap_or_else(PoisonError::into_inner);
        if *declared_stale || now >= self.served_until() {
            return;
        }
        let expires_at = (now + idle.limit).min(idle.latest.0);
        self.served_until.fetch_max(expires_at.min(idle.latest.1).micros(), Ordering::Relaxed);
        self.expires_at.fetch_max(expires_at.micros(), Ordering::Relaxed);
        self.ends_at.fetch_max((expires_at + idle.grace).micros(), Ordering::Relaxed);
    }

    fn set_due(&self) {
        let touch_from = self.idle.as_ref().map_or(Moment::NEVER, |idle| load(&idle.touch_from));
        self.due_from.store(self.refresh_from().min(touch_from).micros(), Ordering::Relaxed);
    }

    pub(crate) fn retry_at(&self) -> Moment {
        load(&self.retry_at)
    }

    /// It was declared stale.
    pub(crate) fn expire(&self, now: Moment) {
        let declared_stale = self.idle.as_ref().map(|idle| &idle.declared_stale);
        let mut declared_stale =
            declared_stale.map(|place| place.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(declared_stale) = &mut declared_stale {
            **declared_stale = true;
        }
        self.served_until.store(0, Ordering::Relaxed);
        self.expires_at.fetch_min(now.micros(), Ordering::Relaxed);
    }

    /// No load is tried for its sake before this.
    pub(crate) fn retry_not_before(&self, moment: Moment) {
        self.retry_at.fetch_max(moment.micros(), Ordering::Relaxed);
    }
}

/// Of those who come from that moment on, one gets it, and puts off the next.
fn take_turn(from: &AtomicU64, now: Moment, next: Moment) -> bool {
    let due = from.load(Ordering::Relaxed);
    let put_off = || from.compare_exchange(due, next.micros(), Ordering::Relaxed, Ordering::Relaxed);
    now >= Moment::from_micros(due) && put_off().is_ok()
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

    /// Of a value written at second 100 and read then, or at another.
    #[derive(Clone, Copy, Default)]
    struct Case {
        ttl: Option<u32>,
        idle: Option<u32>,
        grace: u32,
        read_at: Option<u32>,
        expired_at: Option<u32>,
    }

    impl Case {
        fn left(self, now: u32) -> Option<Left> {
            let at = |second: u32| Moment::default() + SECOND * second;
            let (ttl, idle) = (seconds(self.ttl), seconds(self.idle));
            let header =
                EnvelopeHeader { ttl, idle, grace: SECOND * self.grace, ..EnvelopeHeader::of(Kind::Value) };
            let stamp = Stamp {
                version: Version::new(at(self.expired_at.unwrap_or(100)).micros()),
                written_at: at(100),
                read_at: at(self.read_at.unwrap_or(100)),
                expired: self.expired_at.is_some(),
            };
            let envelope = Envelope { header, stamp, notes: Bytes::new(), payload: Bytes::new() };
            Left::of(&envelope, at(now).since(at(100)), at(now))
        }

        /// How much is left of ttl and idle; `None` if it is not fresh.
        fn fresh(self, now: u32) -> Option<(Option<Duration>, Option<Duration>)> {
            match self.left(now)? {
                Left::Fresh(lifetime, _) => Some((lifetime.ttl, lifetime.idle)),
                Left::Stale { .. } => None,
            }
        }
    }

    fn seconds(count: Option<u32>) -> Option<Duration> {
        count.map(|count| SECOND * count)
    }

    fn stale(since: u32, whole: Option<u32>) -> Left {
        Left::Stale { since: SECOND * since, whole: seconds(whole) }
    }

    #[test]
    fn a_value_is_fresh_then_stale_then_nothing() {
        let case = Case { ttl: Some(10), grace: 5, ..Case::default() };
        assert_eq!(case.fresh(100), Some((seconds(Some(10)), None)));
        assert_eq!(case.fresh(109), Some((seconds(Some(1)), None)));
        assert_eq!(case.left(110), Some(stale(0, Some(5))));
        assert_eq!(case.left(114), Some(stale(4, Some(1))));
        assert_eq!(case.left(115), None);
        assert_eq!(Case { grace: 0, ..case }.left(110), None, "without grace it is never stale");
        assert_eq!(Case::default().fresh(999), Some((None, None)));
    }

    #[test]
    fn a_value_that_nobody_reads_is_stale_after_its_idle_time() {
        let case = Case { ttl: Some(10), idle: Some(4), grace: 5, ..Case::default() };
        assert_eq!(case.fresh(103), Some((seconds(Some(7)), seconds(Some(1)))));
        assert_eq!(case.left(104), Some(stale(0, Some(5))));
        assert_eq!(case.left(109), None);
        let read = Case { read_at: Some(107), ..case };
        assert_eq!(read.fresh(109), Some((seconds(Some(1)), seconds(Some(2)))));
        assert_eq!(read.left(110), Some(stale(0, Some(5))), "its ttl is over, however often it is read");
        let without_ttl = Case { ttl: None, ..read };
        assert_eq!(without_ttl.left(112), Some(stale(1, Some(4))));
    }

    #[test]
    fn a_value_that_was_declared_stale_ends_when_it_would_have() {
        let case = Case { ttl: Some(10), grace: 5, expired_at: Some(102), ..Case::default() };
        assert_eq!(case.left(103), Some(stale(1, Some(12))));
        assert_eq!(case.left(112), Some(stale(10, Some(3))));
        assert_eq!(case.left(115), None);
        let without_ttl = Case { ttl: None, ..case };
        assert_eq!(without_ttl.left(999), Some(stale(897, None)), "without ttl it is a fallback for ever");
    }

    fn life(idle: u32) -> Life {
        let lifetime = Lifetime { ttl: None, idle: Some(SECOND * idle), grace: Duration::ZERO };
        let limits = Limits { l1_ttl: Duration::MAX, idle: lifetime.idle, lead: None };
        Life::new(at(0), Left::all(lifetime), &limits, Duration::ZERO)
    }

    fn at(second: u32) -> Moment {
        Moment::default() + SECOND * (100 + second)
    }

    #[test]
    fn one_read_in_a_ninth_of_the_idle_time_prolongs_it() {
        let life = life(9);
        assert!(!life.touch(at(0)), "it was just written");
        assert_eq!(life.due_from(), at(1));
        assert!(life.touch(at(5)) && !life.touch(at(5)));
        assert_eq!((life.served_until(), life.expires_at(), life.ends_at()), (at(14), at(14), at(14)));
        assert_eq!(life.due_from(), at(6));
    }

    #[test]
    fn a_read_does_not_make_fresh_what_was_declared_stale_or_is_over() {
        let declared = life(9);
        declared.expire(at(3));
        declared.touch(at(5));
        assert_eq!((declared.served_until(), declared.expires_at()), (Moment::default(), at(3)));
        let over = life(9);
        over.touch(at(10));
        assert_eq!(over.served_until(), at(9));
    }
}
