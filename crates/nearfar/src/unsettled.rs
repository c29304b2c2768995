//! Changes that L2 has not acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::backend::L2Error;
use nearfar_core::{Batch, Moment, Subject, Version};

use crate::agreement::Disagreement;
use crate::engine::Engine;
use crate::error::{Error, Operation};
use crate::event::{By, Event};
use crate::holdings::{Holdings, Part};
use crate::key::CacheKey;
use crate::log;
use crate::outcome::{Outcome, Unacknowledged};

/// What a change is about.
pub(crate) enum About<'a, K> {
    /// These keys, each with its encoded form.
    Keys(&'a [(K, Bytes)]),
    /// Whatever carries one of these tags.
    Tags(&'a [Bytes]),
    Everything,
}

impl<K> Clone for About<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for About<'_, K> {}

impl<K> About<'_, K> {
    fn batch(self) -> Batch {
        match self {
            Self::Keys(keys) => Batch::Keys(keys.iter().map(|(_, encoded)| encoded.clone()).collect()),
            Self::Tags(tags) => Batch::Tags(tags.to_vec()),
            Self::Everything => Batch::Everything,
        }
    }

    /// What a change of this kind is told as, once L2 has acknowledged it.
    pub(crate) fn event(self, doing: Operation) -> Event {
        let by = By::ThisNode;
        match (self.batch(), doing) {
            (Batch::Keys(keys), Operation::Set | Operation::SetIf) => Event::Set { keys },
            (Batch::Keys(keys), Operation::Expire) => Event::Expired { keys, by },
            (Batch::Keys(keys), _) => Event::Invalidated { keys, by },
            (Batch::Tags(tags), Operation::ExpireTags) => Event::TagsExpired { tags, by },
            (Batch::Tags(tags), _) => Event::TagsInvalidated { tags, by },
            (Batch::Everything, _) => Event::Cleared { by },
        }
    }

    /// What it names; nothing for everything.
    fn subjects(self) -> impl Iterator<Item = Subject> {
        let (keys, tags): (&[(K, Bytes)], &[Bytes]) = match self {
            Self::Keys(keys) => (keys, &[]),
            Self::Tags(tags) => (&[], tags),
            Self::Everything => (&[], &[]),
        };
        let keys = keys.iter().map(|(_, encoded)| Subject::Key(encoded.clone()));
        keys.chain(tags.iter().map(|tag| Subject::Tag(tag.clone())))
    }
}

/// Why a change was not acknowledged.
pub(crate) enum Failure {
    Disagreement(Disagreement),
    /// What stands there is not what it was to replace; nothing has happened.
    Unmet,
    /// An earlier `set` of the key, of unknown outcome, may still be executed, and would then be the last.
    MayBeOvertaken,
    L2(L2Error),
}

impl Failure {
    /// Whether the change may still be executed.
    fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::L2(cause) if cause.outcome_is_unknown())
    }

    /// Whether trying again is hopeless.
    fn is_final(&self) -> bool {
        match self {
            Self::Disagreement(Disagreement::Settings { .. }) => true,
            Self::Disagreement(Disagreement::Unasked(cause)) | Self::L2(cause) => {
                matches!(cause, L2Error::Closed)
            }
            Self::MayBeOvertaken | Self::Unmet => false,
        }
    }

    /// Whether the caller is to hear of it whatever happens next: somebody has to do something about it.
    fn is_refusal(&self) -> bool {
        let asked = match self {
            Self::Disagreement(Disagreement::Unasked(L2Error::Unexpected)) => return true,
            Self::Disagreement(Disagreement::Unasked(cause)) | Self::L2(cause) => cause,
            Self::Disagreement(Disagreement::Settings { .. }) | Self::MayBeOvertaken | Self::Unmet => {
                return false;
            }
        };
        matches!(asked, L2Error::Rejected(_))
    }
}

/// A change that L2 has not acknowledged yet. If its caller goes away or it fails, it may have happened all the same:
/// this node drops its own copies, lets nobody join a flight from before, and puts an invalidation into the outbox.
pub(crate) struct Unsettled<'a, K: CacheKey, V: Send + Sync + 'static> {
    engine: &'a Engine<K, V>,
    doing: Operation,
    pub(crate) part: &'a Part,
    about: About<'a, K>,
    began: Moment,
    /// Until when L2 may execute it, by this node's clock, if it would do harm behind the invalidation that repeats it.
    executed_by: Moment,
    /// Whether an earlier `set` may be executed behind it, so that it is not the last word.
    may_be_overtaken: bool,
    is_settled: bool,
}

impl<'a, K: CacheKey, V: Send + Sync + 'static> Unsettled<'a, K, V> {
    pub(crate) fn new(
        engine: &'a Engine<K, V>,
        doing: Operation,
        part: &'a Part,
        about: About<'a, K>,
    ) -> Self {
        let began = engine.now();
        Self {
            engine,
            doing,
            part,
            about,
            began,
            executed_by: began,
            may_be_overtaken: false,
            is_settled: false,
        }
    }

    /// Called when it is sent, or would be.
    pub(crate) fn may_be_sent(&mut self, now: Moment) -> bool {
        self.may_be_overtaken = self.part.outbox.with(|outbox| match self.about {
            // Which keys carry a tag nobody knows.
            About::Everything | About::Tags(_) => outbox.may_be_overtaken(None, now),
            named @ About::Keys(_) => {
                named.subjects().any(|subject| outbox.may_be_overtaken(Some(&subject), now))
            }
        });
        self.began = now;
        if !self.sets() {
            // An invalidation helps at once, whatever comes behind it; that is invalidated in turn.
            return true;
        }
        if !self.may_be_overtaken {
            let limit = self.engine.node().timeouts.command;
            self.executed_by = now + limit + limit / DRIFT + CLOCK_STEP;
        }
        let compares_with_what_is_wrong = self.is_conditional() && self.is_wrong_in_l2();
        !self.may_be_overtaken && !compares_with_what_is_wrong
    }

    /// Whether an invalidation of it waits, so that what L2 has is not what it is to be compared with.
    fn is_wrong_in_l2(&self) -> bool {
        self.part.outbox.with(|outbox| self.about.subjects().any(|subject| outbox.holds(&subject)))
    }

    pub(crate) fn acknowledged(mut self, version: Version) -> Result<Outcome, Error> {
        // What was only declared stale may be wrong as well, and has to be invalidated still.
        if !matches!(self.doing, Operation::Expire | Operation::ExpireTags) {
            self.part.outbox.with(|outbox| outbox.strike_out(self.about.subjects(), self.began));
        }
        self.is_settled = true;
        if self.may_be_overtaken {
            self.queued(Error::may_be_overtaken())
        } else {
            Ok(Outcome::Applied(version))
        }
    }

    pub(crate) fn failed(mut self, failure: Failure) -> Result<Outcome, Error> {
        if !failure.outcome_is_unknown() {
            self.executed_by = self.began;
        }
        self.is_settled = true;
        // One that asks first is worth nothing later: if it was not executed, nothing is left to do.
        if self.is_conditional() && !failure.outcome_is_unknown() {
            return Err(self.error(failure));
        }
        let is_queued = !failure.is_final() && self.queue();
        self.discard();
        let is_refusal = failure.is_refusal();
        let error = self.error(failure);
        if is_queued && !is_refusal && !self.is_conditional() { self.queued(error) } else { Err(error) }
    }

    /// What the caller is told of a change that waits in the outbox.
    fn queued(&self, error: Error) -> Result<Outcome, Error> {
        match self.engine.options.unacknowledged {
            Unacknowledged::Queue => Ok(Outcome::Queued),
            Unacknowledged::Fail => Err(error),
        }
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Disagreement(Disagreement::Unasked(L2Error::Closed)) => Error::closed(),
            Failure::Disagreement(disagreement) => self.engine.disagreement(disagreement),
            Failure::MayBeOvertaken => Error::may_be_overtaken(),
            Failure::Unmet => Error::unmet(),
            Failure::L2(cause) => Error::l2(self.doing, cause),
        }
    }

    /// Puts an invalidation into the outbox, unless nobody would send it any more.
    fn queue(&self) -> bool {
        let now = self.engine.now();
        let is_queued = self.part.outbox.queue(now, self.about.batch(), self.executed_by);
        if is_queued {
            self.tell_queued();
        }
        is_queued
    }

    fn tell_queued(&self) {
        let counters = &self.held().counters;
        counters.queued.add(1);
        let (partition, doing) = (&self.part.id, self.doing);
        let (namespace, partition) = (partition.namespace().as_str(), partition.index());
        tracing::debug!(target: log::CACHE, namespace, partition, ?doing, "a change waits in the outbox");
        counters.outlet.tell(|| Event::Queued { what: self.about.batch() });
    }

    /// A copy may be wrong now. Once it is queued: a read that begins after this must know that L2 has something wrong.
    fn discard(&self) {
        match self.about {
            About::Keys(keys) => keys.iter().for_each(|(key, encoded)| self.held().discard(key, encoded)),
            // With which number is not known, and no slot is found by its tags.
            About::Tags(_) | About::Everything => self.held().discard_all(self.part),
        }
    }

    fn sets(&self) -> bool {
        matches!(self.doing, Operation::Set | Operation::SetIf)
    }

    /// Whether it has a precondition. Nobody is told that such a one is queued: what waits is an invalidation.
    fn is_conditional(&self) -> bool {
        self.doing == Operation::SetIf
    }

    fn held(&self) -> &'a Holdings<K, V> {
        &self.engine.held
    }
}

/// L2 refuses what comes after a deadline, not at it.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// The clocks of a node and of L2 drift apart by less than a part in so many.
const DRIFT: u32 = 1_000;

/// Its caller has gone away.
impl<K: CacheKey, V: Send + Sync + 'static> Drop for Unsettled<'_, K, V> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.queue();
            self.discard();
        }
    }
}

/// Changes that are to be sent one after the other. If their caller goes away, those that were not sent are as good as sent:
/// what they are about goes to the outbox.
pub(crate) struct Unsent<'a, K: CacheKey, V: Send + Sync + 'static> {
    engine: &'a Engine<K, V>,
    doing: Operation,
    part: &'a Part,
    steps: VecDeque<Vec<(K, Bytes)>>,
}

impl<'a, K: CacheKey, V: Send + Sync + 'static> Unsent<'a, K, V> {
    pub(crate) fn new(
        engine: &'a Engine<K, V>,
        doing: Operation,
        part: &'a Part,
        steps: VecDeque<Vec<(K, Bytes)>>,
    ) -> Self {
        Self { engine, doing, part, steps }
    }

    /// The next one is sent now.
    pub(crate) fn send(&mut self) -> Option<Vec<(K, Bytes)>> {
        self.steps.pop_front()
    }
}

impl<K: CacheKey, V: Send + Sync + 'static> Drop for Unsent<'_, K, V> {
    fn drop(&mut self) {
        for keys in &self.steps {
            drop(Unsettled::new(self.engine, self.doing, self.part, About::Keys(keys)));
        }
    }
}
