use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::{Batch, Moment, Subject, Version};

/// One node's invalidations that the shared store may not know of, of one cache.
///
/// A change of truth that L2 has not acknowledged becomes an *invalidation* here, which is always safe, however late:
/// it never puts an old value back. It is sent again until L2 acknowledges it. A key waits once, however often it
/// changed. Too many keys become one [`Everything`](Batch::Everything), which raises the floor.
///
/// What L2 has acknowledged lately is remembered: a failover, or a restore, may lose it, and then
/// [`reissue`](Self::reissue) has it sent again.
///
/// ```text
///  failed, timed out,      ┌─────────┐  poll   ┌──────┐  acknowledged   ┌────────────┐
///  cancelled  ───────────▶ │ waiting │ ──────▶ │ sent │ ──────────────▶ │ remembered │ ──▶ forgotten after
///                          └─────────┘ ◀────── └──────┘    ┌──────────▶ │            │     REMEMBERED_FOR
///                               ▲       failed             │            └────────────┘
///                               │              acknowledged at once           │
///                               └──────────────── history lost ───────────────┘
/// ```
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Batch, Moment, Outbox, Setback, Subject};
///
/// let now = Moment::from_micros(1_000);
/// let key = Bytes::from_static(b"user 1");
/// let mut outbox = Outbox::default();
/// outbox.add(now, key.clone(), now);
/// outbox.add(now, key.clone(), now);
/// let subject = Subject::Key(key.clone());
/// assert!(outbox.holds(&subject));
///
/// assert_eq!(outbox.poll(now), Some(Batch::Keys(vec![key.clone()])));
/// outbox.fail(now, Setback::Away);
/// assert_eq!(outbox.poll(now), None, "it is tried again after a pause");
///
/// outbox.nudge(); // L2 is there again
/// assert!(outbox.poll(now).is_some());
/// outbox.acknowledge();
/// assert!(!outbox.holds(&subject));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outbox {
    waiting: Waiting,
    /// The batch under way; at most one, so that a node that comes back does not flood L2.
    sent: Option<Sent>,
    /// Nothing is sent before this.
    resume_at: Moment,
    /// How often in a row a batch was not acknowledged.
    failures: u32,
    /// Whether the last one failed because L2 was away, so that a sign of life from L2 ends the pause.
    away: bool,
    /// How often in a row, with pauses between, L2 has acknowledged a change that it had lost by then.
    losses: u32,
    /// When that pause is over.
    lost_until: Moment,
    overflows: u64,
    remembered: Remembered,
    witness: Witness,
}

/// Why L2 did not acknowledge a batch.
///
/// ```
/// assert_ne!(nearfar_core::Setback::Away, nearfar_core::Setback::Refused);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// It could not be reached, or did not answer in time.
    Away,
    /// It came to it too late.
    Late,
    /// It did not want to.
    Refused,
}

/// What waits to be invalidated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Waiting {
    subjects: BTreeMap<Subject, Wait>,
    /// The length of all names.
    bytes: usize,
    everything: Option<Wait>,
    /// Nothing of it may be sent before this; what may be sent then is looked up then.
    look_at: Option<Moment>,
}

/// Since when something waits, and until when it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wait {
    since: Moment,
    /// When it was added last.
    last: Moment,
    /// The change that it stands for may be executed until then: an invalidation before it could be overtaken.
    executed_by: Moment,
    not_before: Moment,
    /// Whether it stands only for what was acknowledged once, which is remembered from then on, and no longer.
    is_reissue: bool,
}

impl Wait {
    fn for_change(now: Moment, executed_by: Moment) -> Self {
        Self { since: now, last: now, executed_by, not_before: executed_by, is_reissue: false }
    }

    fn for_reissue(now: Moment, not_before: Moment) -> Self {
        Self { since: now, last: now, executed_by: now, not_before, is_reissue: true }
    }

    fn and(self, other: Wait) -> Wait {
        Wait {
            since: self.since.min(other.since),
            last: self.last.max(other.last),
            executed_by: self.executed_by.max(other.executed_by),
            not_before: self.not_before.max(other.not_before),
            is_reissue: self.is_reissue && other.is_reissue,
        }
    }
}

/// A batch under way, as it waited.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sent {
    subjects: BTreeMap<Subject, Wait>,
    everything: Option<Wait>,
}

impl Outbox {
    /// How many keys wait at the most: beyond it, or beyond [`MAX_BYTES`](Self::MAX_BYTES), they become one raise of
    /// the floor.
    pub const MAX_KEYS: usize = 10_000;
    /// How many bytes of keys wait at the most.
    pub const MAX_BYTES: usize = 16 * 1024 * 1024;
    /// How many keys one step invalidates at the most, and how many bytes of keys: it holds up everything else.
    const BATCH_KEYS: usize = 1_000;
    const BATCH_BYTES: usize = 1024 * 1024;
    /// For how long acknowledged changes are remembered at least, unless there are too many.
    pub const REMEMBERED_FOR: Duration = Duration::from_secs(30);
    /// The pause after a failure; it doubles with each further one.
    const FIRST_PAUSE: Duration = Duration::from_millis(20);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);
    /// The pause after L2 has refused one key alone: the others get their turn.
    const PAUSE_OF_ONE: Duration = Duration::from_secs(10);

    /// A change was not acknowledged. It may still be executed until `executed_by`.
    pub fn add_batch(&mut self, now: Moment, batch: Batch, executed_by: Moment) {
        self.wait(batch, Wait::for_change(now, executed_by));
    }

    /// A change of the key was not acknowledged. It may still be executed until `executed_by`.
    pub fn add(&mut self, now: Moment, key: Bytes, executed_by: Moment) {
        self.wait(Batch::Keys(vec![key]), Wait::for_change(now, executed_by));
    }

    /// A clear was not acknowledged. It may still be executed until `executed_by`.
    pub fn add_everything(&mut self, now: Moment, executed_by: Moment) {
        self.wait(Batch::Everything, Wait::for_change(now, executed_by));
    }

    fn wait(&mut self, batch: Batch, wait: Wait) {
        match batch {
            Batch::Everything => self.waiting.add_everything(wait),
            named => named.subjects().for_each(|subject| self.waiting.add(subject, wait)),
        }
        self.limit();
    }

    fn limit(&mut self) {
        if self.waiting.subjects.len() > Self::MAX_KEYS || self.waiting.bytes > Self::MAX_BYTES {
            self.overflows += 1;
            self.waiting.overflow();
        }
    }

    /// Whether what L2 has of this is known to be wrong, though L2 does not know.
    pub fn holds(&self, subject: &Subject) -> bool {
        let sent = self.sent.as_ref();
        self.waiting.everything.is_some()
            || self.waiting.subjects.contains_key(subject)
            || sent.is_some_and(|sent| sent.everything.is_some() || sent.subjects.contains_key(subject))
    }

    /// Whether a change of this that was given up may still be executed: one that is made now could be overtaken. `None`
    /// asks for all.
    pub fn may_be_overtaken(&self, subject: Option<&Subject>, now: Moment) -> bool {
        let late = |wait: &Wait| now < wait.executed_by;
        let all = &self.waiting.subjects;
        let of_it = subject.map_or_else(|| all.values().any(late), |one| all.get(one).is_some_and(late));
        of_it || self.waiting.everything.as_ref().is_some_and(late)
    }

    /// The batch to send now, if one is due and none is under way. Then say what became of it:
    /// [`acknowledge`](Self::acknowledge) or [`fail`](Self::fail).
    pub fn poll(&mut self, now: Moment) -> Option<Batch> {
        if self.sent.is_some() || now < self.resume_at {
            return None;
        }
        // After a failure a smaller one: the last may have been too much to get through in time.
        let share = |most: usize| (most >> self.failures.min(16)).max(1);
        let sent = self.waiting.take(now, share(Self::BATCH_KEYS), share(Self::BATCH_BYTES))?;
        let batch = sent.batch();
        self.sent = Some(sent);
        Some(batch)
    }

    /// When to poll next.
    pub fn due(&self) -> Moment {
        if self.sent.is_some() {
            return Moment::NEVER;
        }
        self.waiting.look_at.map_or(Moment::NEVER, |look_at| look_at.max(self.resume_at))
    }

    /// L2 has executed the batch under way, and this node has applied it to L1.
    pub fn acknowledge(&mut self) {
        self.sent = None;
        self.resume();
    }

    fn resume(&mut self) {
        self.failures = 0;
        self.resume_at = Moment::default();
    }

    /// L2 has executed a change of these that began then, and after which nothing older counts. What was executed before it, or
    /// never, needs no invalidation any more; what is under way cannot be stopped.
    pub fn strike_out(&mut self, subjects: impl IntoIterator<Item = Subject>, began: Moment) {
        self.waiting.strike_out(subjects, began);
    }

    /// L2 has not acknowledged the batch under way: it waits again. Whether it was executed does not matter, one more
    /// invalidation does no harm.
    pub fn fail(&mut self, now: Moment, setback: Setback) {
        let Some(mut sent) = self.sent.take() else { return };
        if setback == Setback::Refused && sent.subjects.len() == 1 {
            sent.subjects.values_mut().for_each(|wait| wait.not_before = now + Self::PAUSE_OF_ONE);
        }
        for (subject, wait) in sent.subjects {
            self.waiting.add(subject, wait);
        }
        if let Some(wait) = sent.everything {
            self.waiting.add_everything(wait);
        }
        self.resume_at = now + Self::pause(self.failures);
        self.failures += 1;
        self.away = setback == Setback::Away;
        self.limit();
    }

    fn pause(failures: u32) -> Duration {
        (Self::FIRST_PAUSE * 2_u32.saturating_pow(failures.min(16))).min(Self::LONGEST_PAUSE)
    }

    /// L2 has shown that it is there: no more pause, if that was what it was for. A batch that failed stays small.
    pub fn nudge(&mut self) {
        if self.away {
            self.resume_at = Moment::default();
        }
    }

    /// How many keys wait, or are under way. Everything counts as one.
    pub fn depth(&self) -> usize {
        let sent = self.sent.as_ref();
        let sent = sent.map_or(0, |sent| sent.subjects.len() + usize::from(sent.everything.is_some()));
        self.waiting.subjects.len() + usize::from(self.waiting.everything.is_some()) + sent
    }

    /// Since when the longest waits.
    pub fn oldest(&self) -> Option<Moment> {
        let sent = self.sent.iter().flat_map(|sent| sent.subjects.values().chain(&sent.everything));
        sent.chain(self.waiting.subjects.values())
            .chain(&self.waiting.everything)
            .map(|wait| wait.since)
            .min()
    }

    /// How often too many keys waited.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// What waits, or is under way, for a last report.
    pub fn left(&self) -> Vec<Batch> {
        let sent = self.sent.as_ref();
        if self.waiting.everything.is_some() || sent.is_some_and(|sent| sent.everything.is_some()) {
            return vec![Batch::Everything];
        }
        let sent = sent.into_iter().flat_map(|sent| sent.subjects.keys());
        // One may be under way and wait again.
        let all: BTreeSet<Subject> = sent.chain(self.waiting.subjects.keys()).cloned().collect();
        let (tags, keys): (Vec<_>, Vec<_>) = all.into_iter().partition(Subject::is_tag);
        let batches = [keys, tags].into_iter().filter(|some| !some.is_empty());
        batches.map(|some| Batch::of(some.into_iter())).collect()
    }

    /// L2 has acknowledged a change by this node, with that number. If the chain of messages has passed that number
    /// without it, the history that had it may be lost, and it is added again.
    ///
    /// Call it **before** the gate learns of the number. A history that is lost in between is then either reissued with
    /// this change, or shows at the next echo, which is below the number.
    pub fn remember(&mut self, now: Moment, change: Batch, version: Version) {
        self.witness(now, &change, version);
        self.remembered.turn(now);
        self.remembered.add(change);
    }

    /// As [`remember`](Self::remember), for the batch under way. What was only issued again is remembered from when it
    /// was acknowledged first.
    pub fn remember_sent(&mut self, now: Moment, version: Version) {
        let Some(sent) = &self.sent else { return };
        let (all, new) = (sent.batch(), sent.new_ones());
        self.witness(now, &all, version);
        self.remembered.turn(now);
        self.remembered.add(new);
    }

    fn witness(&mut self, now: Moment, change: &Batch, version: Version) {
        if self.witness.acknowledged(version) {
            self.losses = 0;
            return;
        }
        // With a pause, since the next may be lost as well.
        if now >= self.lost_until {
            self.lost_until = now + Self::pause(self.losses);
            self.losses += 1;
        }
        self.wait(change.clone(), Wait::for_reissue(now, self.lost_until));
    }

    /// The message of a change by this node has come, in its place of the chain.
    pub fn hear(&mut self, version: Version) {
        self.witness.heard(version);
    }

    /// Every message up to this number has been heard. `false` if L2 has acknowledged one that is not among them: then
    /// history is another one now, which lacks it, and all that this node knows of the old one is worth nothing (race
    /// R30).
    pub fn pass(&mut self, version: Version) -> bool {
        self.witness.passed(version)
    }

    /// The history that acknowledged the changes so far may be lost, and the chain begins anew at this number: what is
    /// remembered of them waits to be sent once more. Returns how many keys; everything counts as one.
    pub fn reissue(&mut self, now: Moment, adopted: Version) -> usize {
        self.witness = Witness { passed: adopted, ..Witness::default() };
        let Span { subjects, everything, .. } = self.remembered.recent(now);
        let count = subjects.len() + usize::from(everything);
        let wait = Wait::for_reissue(now, now);
        if everything {
            self.wait(Batch::Everything, wait);
        }
        for subject in subjects {
            self.waiting.add(subject, wait);
        }
        self.limit();
        count
    }
}

impl Sent {
    fn batch(&self) -> Batch {
        if self.everything.is_some() { Batch::Everything } else { Batch::of(self.subjects.keys().cloned()) }
    }

    /// What of it does not only stand for what was acknowledged once.
    fn new_ones(&self) -> Batch {
        if self.everything.is_some_and(|wait| !wait.is_reissue) {
            return Batch::Everything;
        }
        let new = self.subjects.iter().filter(|(_, wait)| !wait.is_reissue);
        Batch::of(new.map(|(subject, _)| subject.clone()))
    }
}

/// Watches that what L2 has acknowledged to this node is in the chain of messages, by numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Witness {
    /// Acknowledged, not heard yet.
    acknowledged: BTreeSet<Version>,
    /// There were too many of those, while no messages came: one may be lost.
    overrun: bool,
    /// Heard, not acknowledged yet. Some never are, so only the greatest are kept.
    heard: BTreeSet<Version>,
    /// Up to here all was heard.
    passed: Version,
}

impl Witness {
    /// A few more than there can be changes under way.
    const MOST: usize = 8_192;

    /// `false` if it should have been heard by now.
    fn acknowledged(&mut self, version: Version) -> bool {
        if self.heard.remove(&version) {
            return true;
        }
        let may_come = version > self.passed;
        if may_come {
            self.acknowledged.insert(version);
        }
        if self.acknowledged.len() > Self::MOST {
            self.acknowledged.clear();
            self.overrun = true;
        }
        may_come
    }

    fn heard(&mut self, version: Version) {
        if !self.acknowledged.remove(&version) {
            self.heard.insert(version);
            if self.heard.len() > Self::MOST {
                self.heard.pop_first();
            }
        }
    }

    fn passed(&mut self, version: Version) -> bool {
        self.passed = self.passed.max(version);
        !self.overrun && self.acknowledged.first().is_none_or(|first| *first > version)
    }
}

impl Waiting {
    fn add(&mut self, subject: Subject, wait: Wait) {
        // Everything includes it.
        if let Some(everything) = &mut self.everything {
            *everything = everything.and(wait);
            return;
        }
        self.look_at(wait);
        let len = subject.len();
        let known = self.subjects.entry(subject).or_insert_with(|| {
            self.bytes += len;
            wait
        });
        *known = known.and(wait);
    }

    fn add_everything(&mut self, wait: Wait) {
        self.look_at(wait);
        self.everything = Some(self.everything.map_or(wait, |known| known.and(wait)));
        self.overflow();
    }

    fn strike_out(&mut self, subjects: impl IntoIterator<Item = Subject>, began: Moment) {
        // What was added at the same moment may be of a change that came after it.
        let is_over = |wait: &Wait| wait.last < began && wait.executed_by <= began;
        let mut any = false;
        for subject in subjects {
            if self.subjects.get(&subject).is_some_and(is_over) {
                self.subjects.remove(&subject);
                self.bytes -= subject.len();
                any = true;
            }
        }
        if any {
            self.look_again();
        }
    }

    /// All that waits becomes everything.
    fn overflow(&mut self) {
        self.bytes = 0;
        let subjects = std::mem::take(&mut self.subjects);
        self.everything = subjects.into_values().chain(self.everything).reduce(Wait::and);
    }

    fn look_at(&mut self, wait: Wait) {
        self.look_at = self.look_at.into_iter().chain([wait.not_before]).min();
    }

    fn take(&mut self, now: Moment, most_keys: usize, most_bytes: usize) -> Option<Sent> {
        let taken = self.take_ready(now, most_keys, most_bytes);
        self.look_again();
        taken
    }

    fn look_again(&mut self) {
        self.look_at = self.subjects.values().chain(&self.everything).map(|wait| wait.not_before).min();
    }

    fn take_ready(&mut self, now: Moment, most_keys: usize, most_bytes: usize) -> Option<Sent> {
        if let Some(everything) = self.everything.take_if(|everything| everything.not_before <= now) {
            return Some(Sent { subjects: BTreeMap::new(), everything: Some(everything) });
        }
        let mut room = most_bytes;
        let ready = || self.subjects.iter().filter(|(_, wait)| wait.not_before <= now);
        let (first, _) = ready().next()?;
        // One step is about keys or about tags.
        let alike = ready().filter(|(subject, _)| subject.is_tag() == first.is_tag()).take(most_keys);
        let chosen = alike.take_while(|(subject, _)| {
            let fits = room > 0;
            room = room.saturating_sub(subject.len());
            fits
        });
        let chosen: BTreeMap<Subject, Wait> = chosen.map(|(one, wait)| (one.clone(), *wait)).collect();
        self.subjects.retain(|subject, _| !chosen.contains_key(subject));
        self.bytes -= chosen.keys().map(Subject::len).sum::<usize>();
        Some(Sent { subjects: chosen, everything: None })
    }
}

/// Acknowledged changes of the last one or two spans of [`Outbox::REMEMBERED_FOR`], each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Remembered {
    young: Span,
    old: Span,
    turned_at: Moment,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Span {
    subjects: BTreeSet<Subject>,
    /// The length of all names.
    bytes: usize,
    everything: bool,
}

impl Span {
    fn add(&mut self, change: Batch) {
        match change {
            Batch::Everything => self.everything = true,
            named => {
                for subject in named.subjects() {
                    let len = subject.len();
                    self.bytes += if self.subjects.insert(subject) { len } else { 0 };
                }
            }
        }
    }

    fn and(mut self, mut other: Span) -> Span {
        self.subjects.append(&mut other.subjects);
        Span { everything: self.everything || other.everything, ..self }
    }

    fn is_full(&self) -> bool {
        self.subjects.len() >= Outbox::MAX_KEYS / 2 || self.bytes >= Outbox::MAX_BYTES / 2
    }
}

impl Remembered {
    fn add(&mut self, change: Batch) {
        self.young.add(change);
    }

    /// Begins a new span when the present one is over, or full.
    fn turn(&mut self, now: Moment) {
        let age = now.since(self.turned_at);
        if age < Outbox::REMEMBERED_FOR && !self.young.is_full() {
            return;
        }
        let young = std::mem::take(&mut self.young);
        let is_recent = age < 2 * Outbox::REMEMBERED_FOR;
        self.old = if is_recent { young } else { Span::default() };
        self.turned_at = now;
    }

    /// All that is recent.
    fn recent(&self, now: Moment) -> Span {
        let Self { young, old, turned_at } = self.clone();
        let age = now.since(turned_at);
        let recent = [(young, 2 * Outbox::REMEMBERED_FOR), (old, Outbox::REMEMBERED_FOR)];
        let recent = recent.into_iter().filter(|(_, limit)| age < *limit).map(|(span, _)| span);
        recent.reduce(Span::and).unwrap_or_default()
    }
}
