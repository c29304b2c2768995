//! Loading again what is about to expire, before it does.

use std::time::Duration;

use nearfar_core::Moment;

use crate::error::{ConfigProblem, Error};

/// When a value is loaded again although it is fresh, in the background, while its readers get it from L1 or L2.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar, RefreshAhead};
/// use std::time::Duration;
///
/// let builder = Nearfar::in_process().cache("prices").ttl(Duration::from_secs(60));
/// let prices: Cache<u64, u64> = builder.refresh_ahead(RefreshAhead::After(0.8)).build().await?;
/// let load = |id| async move { Ok::<_, std::io::Error>(id * 100) };
/// assert_eq!(*prices.get_or_load(&3, load).await?, 300); // a read after 48 s has it loaded again
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum RefreshAhead {
    /// By the first read after this fraction of its ttl, from 0 up to, not including, 1.
    After(f64),
    /// By a read at random, the more probably the nearer its expiry is and the longer its last load took, so that nodes
    /// which know nothing of each other seldom do it at once. This is `XFetch` of Vattani, Chierichetti and Lowenstein,
    /// "Optimal Probabilistic Cache Stampede Prevention" (2015), with its `beta`: 1 is the optimum for one reader after the
    /// other, more is earlier. Values that were `set` and not loaded have no cost, and wait until they expire.
    Probabilistic(f64),
}

/// A draw so unlikely, one in ten million, that reads farther from the expiry need not be bothered with drawing.
const LEAST_LIKELY: f64 = 16.0;

impl RefreshAhead {
    pub(crate) fn check(self) -> Result<(), Error> {
        let sound = match self {
            Self::After(fraction) => (0.0..1.0).contains(&fraction),
            Self::Probabilistic(beta) => beta > 0.0 && beta.is_finite(),
        };
        if sound { Ok(()) } else { Err(Error::config(ConfigProblem::RefreshAhead { given: self })) }
    }

    /// How long before the end of its ttl a value may have to be loaded again.
    pub(crate) fn lead(self, ttl: Duration, load_cost: Duration) -> Duration {
        match self {
            Self::After(fraction) => ttl.mul_f64(1.0 - fraction),
            Self::Probabilistic(beta) => seconds(load_cost.as_secs_f64() * beta * LEAST_LIKELY),
        }
    }

    /// Whether a read that comes now, within the lead, is to do it.
    pub(crate) fn draws(self, now: Moment, expires_at: Moment, load_cost: Duration) -> bool {
        match self {
            Self::After(_) => true,
            Self::Probabilistic(beta) => {
                // From 0, not included, to 1.
                let chance = 1.0 - fastrand::f64();
                expires_at.since(now) <= seconds(load_cost.as_secs_f64() * beta * -chance.ln())
            }
        }
    }
}

/// Saturates, and is zero for what is no number.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
