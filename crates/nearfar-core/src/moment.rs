use std::time::Duration;

/// A point on a clock, in microseconds since an origin that only that clock knows.
///
/// A node's own moments and L2's moments are both of this type and must not be mixed;
/// [`RemoteClock`](crate::RemoteClock) translates between them. Arithmetic saturates.
///
/// ```
/// use nearfar_core::Moment;
/// use std::time::Duration;
///
/// let start = Moment::from_micros(1_000);
/// let later = start + Duration::from_millis(2);
/// assert_eq!(later.micros(), 3_000);
/// assert_eq!(later.since(start), Duration::from_millis(2));
/// assert_eq!(start.since(later), Duration::ZERO);
/// assert_eq!(start + Duration::MAX, Moment::NEVER);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The end of time.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// The moment so many microseconds after the clock's origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's origin.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// How long before this moment `earlier` was; zero if it was not.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, duration: Duration) -> Moment {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_sub(micros))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(micros))
    }
}
