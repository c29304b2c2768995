//! Tells when trust is gained and lost.

use std::time::Duration;

use nearfar_core::{Gate, Moment};

use crate::courier::Courier;
use crate::event::Event;
use crate::log;

/// What was told of the trust of a partition.
///
/// Doubts take trust away at once; that it runs out happens by itself, so somebody has to look.
pub(crate) struct TrustReport {
    /// How long it may be missing before that is worth a warning: by then, a value that L1 held could not be served in any
    /// case.
    patience: Duration,
    told: Told,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Trusted,
    /// Missing since then.
    Missing(Moment),
    /// Missing for so long that it was warned of.
    Warned(Moment),
}

impl TrustReport {
    /// Of a partition that has none yet.
    pub(crate) fn new(patience: Duration, now: Moment) -> Self {
        Self { patience, told: Told::Missing(now) }
    }

    /// When to look next.
    pub(crate) fn due(&self, gate: &Gate) -> Moment {
        match self.told {
            Told::Trusted => gate.trusted_until(),
            Told::Missing(since) => since + self.patience,
            Told::Warned(_) => Moment::NEVER,
        }
    }

    pub(crate) fn report(&mut self, courier: &Courier, now: Moment) {
        let outlet = &courier.held.counters().outlet;
        let (namespace, partition) = (courier.partition.namespace().as_str(), courier.partition.index());
        match (self.told, courier.held.gate().trusts(now)) {
            (Told::Trusted, false) => {
                self.told = Told::Missing(now);
                tracing::debug!(target: log::BUS, namespace, partition, "trust was lost");
                outlet.tell(|| Event::TrustLost { partition });
            }
            (Told::Missing(since) | Told::Warned(since), true) => {
                self.told = Told::Trusted;
                let after = now.since(since);
                tracing::info!(target: log::BUS, namespace, partition, ?after, "trust was gained");
                outlet.tell(|| Event::TrustGained { partition });
            }
            (Told::Missing(since), false) if now.since(since) >= self.patience => {
                self.told = Told::Warned(since);
                let missing_for = now.since(since);
                tracing::warn!(target: log::BUS, namespace, partition, ?missing_for, "there is no trust");
            }
            (Told::Trusted, true) | (Told::Missing(_) | Told::Warned(_), false) => {}
        }
    }
}
