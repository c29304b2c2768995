//! Sends what waits in the outbox of a partition.

use std::sync::Arc;
use std::time::Duration;

use nearfar_core::backend::L2Error;
use nearfar_core::{Batch, Change, Moment, PartitionId, Setback, Version};

use crate::agreement::{Agreement, Disagreement};
use crate::event::Event;
use crate::link::LinkContext;
use crate::log;
use crate::member::Follows;
use crate::node::deadline;
use crate::outbox::{SharedOutbox, Undelivered};
use crate::tags::TagChange;

pub(crate) struct Courier {
    pub(crate) partition: PartitionId,
    pub(crate) held: Arc<dyn Follows>,
    pub(crate) agreement: Arc<Agreement>,
    pub(crate) fence_window: Duration,
}

impl Courier {
    /// The batch to send now, if one is due.
    pub(crate) fn poll(&self, now: Moment) -> Option<Batch> {
        self.in_use()?.with(|outbox| outbox.poll(now))
    }

    /// When to poll next.
    pub(crate) fn due(&self) -> Moment {
        self.in_use().map_or(Moment::NEVER, |outbox| outbox.with(|outbox| outbox.due()))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_use().is_none()
    }

    /// Whether a batch is under way.
    pub(crate) fn is_sending(&self) -> bool {
        !self.is_idle() && self.due() == Moment::NEVER
    }

    /// L2 has shown that it is there.
    pub(crate) fn nudge(&self) {
        if let Some(outbox) = self.in_use() {
            outbox.with(nearfar_core::Outbox::nudge);
        }
    }

    /// The loop asks at each turn: no lock is taken while there is nothing to send.
    fn in_use(&self) -> Option<&SharedOutbox> {
        Some(self.held.outbox()).filter(|outbox| !outbox.is_empty())
    }

    /// Nothing is delivered from here on. Returns what was not.
    pub(crate) fn close(&self) -> impl Iterator<Item = Undelivered> {
        let undelivered = |what| Undelivered { namespace: self.partition.namespace().to_string(), what };
        self.held.outbox().close().into_iter().map(undelivered)
    }

    /// Sends a batch, and says whether L2 has acknowledged it.
    pub(crate) async fn deliver(&self, context: &LinkContext, batch: &Batch) -> bool {
        let outcome = context.bounded(self.send(context, batch)).await;
        let now = context.clock.now();
        let version = match outcome {
            Ok(version) => version,
            Err(cause) => {
                self.held.outbox().with(|outbox| outbox.fail(now, setback(&cause)));
                return false;
            }
        };
        let outbox = self.held.outbox();
        outbox.with(|outbox| outbox.remember_sent(now, version));
        // Applied here first: who finds the outbox empty finds the fence raised.
        self.apply(batch, version, now);
        outbox.with(nearfar_core::Outbox::acknowledge);
        let (namespace, partition) = (self.partition.namespace().as_str(), self.partition.index());
        tracing::debug!(target: log::CACHE, namespace, partition, "what waited in the outbox was delivered");
        self.held.counters().outlet.tell(|| Event::Delivered { what: batch.clone() });
        true
    }

    async fn send(&self, context: &LinkContext, batch: &Batch) -> Result<Version, L2Error> {
        // Nodes that disagree on the window must not write, as each change tells its caller. What waits since before this
        // was known is invalidated for the longer of the two, which protects everybody.
        let fence_window = match self.agreement.reach(&*context.l2).await {
            Ok(()) => self.fence_window,
            Err(Disagreement::Settings { ours, theirs }) => ours.fence_window.max(theirs.fence_window),
            Err(Disagreement::Unasked(cause)) => return Err(cause),
        };
        let change = match batch {
            Batch::Keys(keys) => Change::invalidate(context.node, keys.clone(), fence_window),
            Batch::Tags(tags) => Change::invalidate_tags(context.node, tags.clone(), fence_window),
            Batch::Everything => Change::clear(context.node),
        };
        let deadline = deadline(self.held.remote(), context.clock.now(), context.command_timeout);
        let deadline = deadline.ok_or(L2Error::Unreachable)?;
        context.l2.change(&self.partition, change.by(deadline)).await
    }

    /// A panic of user code leaves the rest to the message of this very change, which is on its way.
    fn apply(&self, batch: &Batch, version: Version, now: Moment) {
        let held = std::panic::AssertUnwindSafe(&self.held);
        let _ = std::panic::catch_unwind(|| match batch {
            Batch::Keys(keys) => held.apply(version, keys),
            Batch::Tags(tags) => held.apply_tags(version, tags, TagChange::Wrong, now),
            Batch::Everything => held.apply_clear(version, false),
        });
    }
}

fn setback(cause: &L2Error) -> Setback {
    match cause {
        L2Error::Rejected(_) => Setback::Refused,
        cause if cause.is_absence() => Setback::Away,
        _ => Setback::Late,
    }
}
