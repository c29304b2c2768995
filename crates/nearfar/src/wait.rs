//! How long a caller waits for a flight.

use std::sync::Arc;
use std::time::Duration;

use nearfar_core::Moment;

use crate::engine::Engine;
use crate::entry::{Entry, Staleness};
use crate::error::Error;
use crate::flight::Flight;
use crate::key::CacheKey;
use crate::look::Errand;

/// One caller's share of a flight that gives an entry.
pub(crate) type Share<V> = Flight<Result<Entry<V>, Error>>;

/// Sees a flight to its end, whoever waits for it.
pub(crate) fn in_background<T: Clone + Send + Sync + 'static>(flight: Flight<T>) {
    drop(tokio::spawn(flight));
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Waits until the flight has landed, or for as long as the timeouts let this caller.
    pub(crate) async fn wait_for(
        self: &Arc<Self>,
        errand: &Errand<K>,
        mut flight: Share<V>,
        arrived: Moment,
    ) -> Result<Entry<V>, Error> {
        let call = &errand.wanted.call;
        let soft = call.soft_timeout.or(self.options.soft_timeout);
        let hard = call.hard_timeout.or(self.options.hard_timeout);
        // A call may be in more of a hurry than the cache.
        let soft = soft.filter(|soft| hard.is_none_or(|hard| *soft < hard));
        if let Some(soft) = soft {
            if let Some(landed) = self.landed_by(arrived + soft, &mut flight).await {
                return landed;
            }
            // Without a stale value there is nothing to do but wait on.
            let stale = tokio::select! {
                biased;
                landed = &mut flight => return landed,
                stale = self.stand_in(errand, Staleness::LoadSlow) => stale,
                () = self.until(arrived + hard.unwrap_or(Duration::MAX)) => None,
            };
            if let Some(entry) = stale {
                in_background(flight);
                return Ok(entry);
            }
        }
        let Some(hard) = hard else { return flight.await };
        if let Some(landed) = self.landed_by(arrived + hard, &mut flight).await {
            return landed;
        }
        if self.options.finish_timed_out_loads {
            in_background(flight);
        }
        // What L2 may have would take time that there is not.
        self.stand_in_from_l1(errand, Staleness::LoadSlow).ok_or_else(|| Error::load_timed_out(hard))
    }

    async fn landed_by(&self, moment: Moment, flight: &mut Share<V>) -> Option<Result<Entry<V>, Error>> {
        tokio::select! {
            biased;
            landed = flight => Some(landed),
            () = self.until(moment) => None,
        }
    }

    pub(crate) async fn until(&self, moment: Moment) {
        let clock = self.node().clock;
        while clock.now() < moment {
            clock.sleep_until(moment).await;
        }
    }
}
