//! One cache, as the receive loop knows it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::L2Error;
use nearfar_core::{
    BeatId, Echo, Follower, Gate, Message, MessageBody, Moment, NodeId, Notice, PartitionId, Proof,
    RemoteClock, Replay, Standing, Version, Watchdog,
};
use tokio::sync::oneshot;

use crate::courier::Courier;
use crate::event::{By, Event};
use crate::log;
use crate::outbox::SharedOutbox;
use crate::stats::Counters;
use crate::tags::TagChange;
use crate::trust::TrustReport;

/// What the receive loop does to a cache, whatever its types are. User code runs in it (keys are decoded, values
/// dropped), so it may panic.
pub(crate) trait Follows: Send + Sync {
    /// Copies of these keys with a smaller version are wrong.
    fn apply(&self, version: Version, keys: &[Bytes]);
    /// Copies of these keys with a smaller version are stale.
    fn apply_expired(&self, version: Version, keys: &[Bytes], now: Moment);
    /// Copies that carry one of these tags and have a smaller version are wrong, or stale.
    fn apply_tags(&self, version: Version, tags: &[Bytes], change: TagChange, now: Moment);
    /// All messages up to this one were applied.
    fn advance(&self, applied: Version);
    /// Messages were missed, and are from here on not any more.
    fn start_over(&self, since: Version);
    /// Every copy from before this clear is wrong. `own` if this node asked for it.
    fn apply_clear(&self, version: Version, own: bool);
    /// The gate forgot every copy: give their memory back.
    fn reclaim(&self);
    /// The claim of a key was released.
    fn wake(&self, key: &[u8]);
    /// The node shuts down: serve nothing from L1 any more.
    fn close(&self);
    fn gate(&self) -> &Gate;
    fn outbox(&self) -> &SharedOutbox;
    fn remote(&self) -> &RemoteClock;
    fn counters(&self) -> &Counters;
}

/// How many beats of a cache may be unanswered by L2 at once.
const BEATS_AT_ONCE: usize = 4;

/// What has become of a subscription: proved, or refused for this reason.
pub(crate) type Subscription = Result<(), Arc<str>>;

/// What time it was at a server when it executed a beat, which was sent and answered at these times.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    pub(crate) sent: Moment,
    pub(crate) answered: Moment,
    pub(crate) time: Moment,
}

impl Told {
    pub(crate) fn to(self, remote: &RemoteClock) {
        remote.observe(self.sent, self.answered, self.time);
    }
}

/// What an echo brought.
pub(crate) enum Heard {
    /// Nothing to rely on.
    Nothing,
    /// The subscription is alive.
    Echo,
    /// It is alive, and these messages have to be fetched from the log.
    Missing { since: Version, until: Version },
}

pub(crate) struct Member {
    follower: Follower,
    held: Arc<dyn Follows>,
    courier: Arc<Courier>,
    /// Whether its cache is gone.
    detached: bool,
    /// Told once, when the subscription is proved for the first time or refused.
    waits: Option<oneshot::Sender<Subscription>>,
    /// Whether an echo has ever come.
    proved: bool,
    /// Beats that L2 has not answered.
    under_way: Vec<BeatId>,
    /// Barks if this cache's echoes stay away although those of others may come.
    watchdog: Watchdog,
    trust: TrustReport,
}

impl Member {
    pub(crate) fn new(
        follower: Follower,
        courier: Courier,
        waits: oneshot::Sender<Subscription>,
        (patience, trust): (Duration, TrustReport),
    ) -> Self {
        Self {
            follower,
            held: Arc::clone(&courier.held),
            courier: Arc::new(courier),
            detached: false,
            waits: Some(waits),
            proved: false,
            under_way: Vec::new(),
            watchdog: Watchdog::new(patience),
            trust,
        }
    }

    pub(crate) fn courier(&self) -> &Arc<Courier> {
        &self.courier
    }

    /// Its cache is gone: nobody needs what it holds.
    pub(crate) fn detach(&mut self) {
        self.detached = true;
        self.close();
        self.held.gate().forget_copies();
        self.drop_copies();
    }

    /// Whether nothing is left to do for it.
    pub(crate) fn may_leave(&self) -> bool {
        self.detached && self.courier.is_idle()
    }

    /// Whether an echo has ever come.
    pub(crate) fn was_proved(&self) -> bool {
        self.proved
    }

    /// The beat to send now, if one is due.
    pub(crate) fn poll_beat(&mut self, now: Moment) -> Option<BeatId> {
        if self.under_way.len() >= BEATS_AT_ONCE {
            return None;
        }
        let beat = self.follower.poll_beat(self.held.gate(), now)?;
        self.under_way.push(beat);
        self.watchdog.beat(now);
        Some(beat)
    }

    /// Whether the subscription of this cache is to be asked for again.
    pub(crate) fn poll_watchdog(&mut self, now: Moment) -> bool {
        self.watchdog.poll(now)
    }

    /// When to poll next.
    pub(crate) fn due(&self) -> Moment {
        let beat =
            if self.under_way.len() < BEATS_AT_ONCE { self.follower.beat_due() } else { Moment::NEVER };
        beat.min(self.watchdog.due()).min(self.courier.due()).min(self.trust.due(self.held.gate()))
    }

    /// Tells whether trust was gained or lost since the last time.
    pub(crate) fn report_trust(&mut self, now: Moment) {
        self.trust.report(&self.courier, now);
    }

    /// L2 has answered a beat, and told its time, or will not any more.
    pub(crate) fn handle_beaten(&mut self, beat: BeatId, told: Option<Told>) {
        if let Some(told) = told {
            told.to(self.held.remote());
        }
        self.under_way.retain(|other| *other != beat);
    }

    pub(crate) fn handle_message(&mut self, frame: &Bytes, node: NodeId, now: Moment) {
        let Ok(message) = Message::decode(frame) else { return self.handle_bad_frame() };
        if !message.is_plausible() {
            return self.handle_bad_frame();
        }
        if !self.apply(&message, node, now) {
            // Half applied is not applied.
            return self.handle_bad_frame();
        }
        if message.origin != node {
            self.count_received(&message, self.held.remote().latest(now));
            self.held.counters().outlet.tell(|| event(&message));
        }
        match self.follower.handle_message(self.held.gate(), &message, frame) {
            Standing::Next if self.accounts_for(&[message], node, self.follower.applied()) => {
                // While a part is being fetched, what comes behind it proves nothing about it.
                if let Some(applied) = self.follower.applied() {
                    self.held.advance(applied);
                }
            }
            Standing::Next => {
                self.follower.handle_fork(self.held.gate());
                self.count_doubt();
            }
            Standing::Gap => self.count_doubt(),
            Standing::Duplicate | Standing::OutOfStep => {}
        }
    }

    /// Takes in messages in their places of the chain, which nothing is missing from up to `complete`. Whether all
    /// changes that L2 has acknowledged to this node are among them; if not, L2 has lost one.
    fn accounts_for(&self, messages: &[Message], node: NodeId, complete: Option<Version>) -> bool {
        self.held.outbox().with(|outbox| {
            let own = messages.iter().filter(|message| message.origin == node);
            own.for_each(|message| outbox.hear(message.sequence));
            complete.is_none_or(|complete| outbox.pass(complete))
        })
    }

    /// Whether it could be applied to the end.
    fn apply(&self, message: &Message, node: NodeId, now: Moment) -> bool {
        let applied = catch_unwind(AssertUnwindSafe(|| match &message.body {
            MessageBody::Keys(keys) => self.held.apply(message.sequence, keys),
            MessageBody::Expired(keys) => self.held.apply_expired(message.sequence, keys, now),
            MessageBody::Tags(tags) => self.held.apply_tags(message.sequence, tags, TagChange::Wrong, now),
            MessageBody::ExpiredTags(tags) => {
                self.held.apply_tags(message.sequence, tags, TagChange::Stale, now);
            }
            MessageBody::Clear => self.held.apply_clear(message.sequence, message.origin == node),
        }));
        applied.is_ok()
    }

    fn count_received(&self, message: &Message, remote_now: Option<Moment>) {
        let counters = self.held.counters();
        counters.invalidations_received.add(message.body.names().len() as u64);
        if let Some(now) = remote_now {
            // A sequence is drawn from L2's clock, see `Version`.
            let took = now.since(Moment::from_micros(message.sequence.number()));
            counters.propagation.record(took);
            #[cfg(feature = "metrics")]
            crate::metrics::propagated(self.courier.partition.namespace().as_str(), took);
        }
    }

    pub(crate) fn handle_echo(&mut self, frame: &Bytes, now: Moment) -> Heard {
        if let Ok(notice) = Notice::decode(frame) {
            self.held.wake(&notice.key);
            return Heard::Nothing;
        }
        let Ok(echo) = Echo::decode(frame) else {
            self.handle_bad_frame();
            return Heard::Nothing;
        };
        // The reply to the beat tells the time as well, but may come after this.
        let Some(sent) = self.follower.sent_at(echo.beat) else { return Heard::Nothing };
        self.held.remote().observe(sent, now, echo.time);
        self.watchdog.proof();
        match self.follower.handle_echo(self.held.gate(), &echo) {
            Proof::Void => {}
            Proof::Replay { since, until } => return Heard::Missing { since, until },
            Proof::Extended => self.report_proved(),
            Proof::Resynced => self.resynced(now),
        }
        Heard::Echo
    }

    /// The log has answered, or not.
    pub(crate) fn handle_log(
        &mut self,
        (since, until): (Version, Version),
        frames: Result<Vec<Bytes>, L2Error>,
        node: NodeId,
        now: Moment,
    ) {
        if !self.follower.replays(since, until) {
            return;
        }
        let frames = match frames {
            Ok(frames) => frames,
            // Nothing was asked yet; there will be another echo.
            Err(L2Error::Unreachable) => return self.handle_doubt(),
            // Asking again might fail again, for ever: too much to be sent in time, no right to read it.
            Err(_) => Vec::new(),
        };
        let gate = self.held.gate();
        let replay = self.follower.check_log(&frames).filter(|replay| self.replay(replay, node, now));
        let Some(replay) = replay else {
            self.follower.give_up_replay(gate);
            return self.resynced(now);
        };
        let messages = replay.messages().len() as u64;
        self.held.counters().replayed.add(messages);
        if messages > 0 {
            let (namespace, partition) = self.names();
            tracing::debug!(target: log::BUS, namespace, partition, messages, "missed messages were replayed");
            self.held.counters().outlet.tell(|| Event::Replayed { partition, messages });
        }
        self.held.advance(replay.reaches());
        self.follower.finish_replay(gate, &replay);
        self.report_proved();
    }

    /// Applies what was missed. Whether nothing is missing then: not if user code panics, which it would again, nor if
    /// L2 has lost a change of this node's own.
    fn replay(&self, replay: &Replay, node: NodeId, now: Moment) -> bool {
        if !replay.messages().iter().all(|message| self.apply(message, node, now)) {
            self.held.counters().bad_frames.add(1);
            return false;
        }
        self.accounts_for(replay.messages(), node, Some(replay.reaches()))
    }

    fn report_proved(&mut self) {
        self.proved = true;
        if let Some(builder) = self.waits.take() {
            // It may have been dropped meanwhile.
            let _ = builder.send(Ok(()));
        }
    }

    /// The watchdog has it asked for again.
    pub(crate) fn handle_refused(&mut self, partition: &PartitionId, reason: Arc<str>) {
        if let Some(builder) = self.waits.take() {
            let _ = builder.send(Err(reason));
        } else {
            let (namespace, partition) = (partition.namespace().as_str(), partition.index());
            tracing::warn!(target: log::BUS, namespace, partition, %reason, "the subscription is refused");
        }
    }

    fn resynced(&mut self, now: Moment) {
        self.held.counters().resyncs.add(1);
        let adopted = self.follower.applied().unwrap_or_default();
        self.held.start_over(adopted);
        self.drop_copies();
        // The history that acknowledged this node's last changes may be lost (race R30).
        let reissued = self.held.outbox().with(|outbox| outbox.reissue(now, adopted));
        if reissued > 0 {
            // The resync has brought trust. What was read until the outbox knew of these keys may be what L2 has lost
            // the invalidation of.
            self.held.gate().forget_copies();
        }
        let reissued = reissued as u64;
        self.held.counters().reissued.add(reissued);
        let (namespace, partition) = self.names();
        tracing::info!(target: log::BUS, namespace, partition, reissued, "nothing proved L1: it was forgotten");
        self.held.counters().outlet.tell(|| Event::Resynced { partition, reissued });
        self.report_proved();
    }

    fn drop_copies(&self) {
        // What a value's `drop` does is not this loop's to suffer from; the copies are dead in any case.
        let _ = catch_unwind(AssertUnwindSafe(|| self.held.reclaim()));
    }

    pub(crate) fn handle_subscribed(&mut self) {
        self.follower.handle_subscribed();
    }

    fn handle_bad_frame(&mut self) {
        self.held.counters().bad_frames.add(1);
        self.handle_doubt();
    }

    pub(crate) fn handle_doubt(&mut self) {
        // Counted once it has taken effect: who sees the count finds no trust from before.
        self.follower.handle_doubt(self.held.gate());
        self.count_doubt();
    }

    fn count_doubt(&self) {
        self.held.counters().doubts.add(1);
        let (namespace, partition) = self.names();
        tracing::debug!(target: log::BUS, namespace, partition, "messages may be missing");
        self.held.counters().outlet.tell(|| Event::Doubted { partition });
    }

    /// So many messages wait for this node to apply them.
    pub(crate) fn note_backlog(&self, backlog: u64) {
        self.held.counters().backlog.set(backlog);
    }

    fn names(&self) -> (&str, u16) {
        let partition = &self.courier.partition;
        (partition.namespace().as_str(), partition.index())
    }

    pub(crate) fn close(&self) {
        self.held.close();
    }
}

/// What a message of another node's is told as.
fn event(message: &Message) -> Event {
    let by = By::Node(message.origin);
    match &message.body {
        MessageBody::Keys(keys) => Event::Invalidated { keys: keys.clone(), by },
        MessageBody::Expired(keys) => Event::Expired { keys: keys.clone(), by },
        MessageBody::Tags(tags) => Event::TagsInvalidated { tags: tags.clone(), by },
        MessageBody::ExpiredTags(tags) => Event::TagsExpired { tags: tags.clone(), by },
        MessageBody::Clear => Event::Cleared { by },
    }
}

/// What nobody follows the bus for is not served, however that came: detached, shut down, or after a panic.
impl Drop for Member {
    fn drop(&mut self) {
        self.close();
    }
}
