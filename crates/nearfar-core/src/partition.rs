use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::backend::Purged;
use crate::claims::Claims;
use crate::tag_table::TagTable;
use crate::{
    BeatId, Change, Claim, ClaimOutcome, Echo, Effect, Envelope, Fill, FillOutcome, Head, Holder, KeyWrite,
    Kind, Message, Moment, NodeId, Precondition, Refusal, Renewal, Stamp, TagHead, TagMark, Tags, Version,
};

/// What L2 holds of a key, together with where the partition stood at that very moment.
///
/// ```
/// use nearfar_core::Snapshot;
///
/// let nothing = Snapshot { envelope: None, head: None };
/// assert!(nothing.envelope.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The stored bytes; not checked yet. Whatever lacks a head, or has a version outside of it, is dead.
    pub envelope: Option<Bytes>,
    /// `None` if the partition has no history (yet, or any more).
    pub head: Option<Head>,
}

/// What L2 holds of several keys, all at the same moment; see [`Snapshot`].
///
/// ```
/// use nearfar_core::{Reading, Snapshot};
///
/// let reading = Reading { envelopes: vec![None, None], head: None };
/// assert_eq!(reading.snapshots().collect::<Vec<_>>(), vec![Snapshot { envelope: None, head: None }; 2]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// The bytes of each key, in the order in which they were asked for.
    pub envelopes: Vec<Option<Bytes>>,
    /// `None` if the partition has no history (yet, or any more).
    pub head: Option<Head>,
}

impl Reading {
    /// The same, key by key.
    pub fn snapshots(self) -> impl Iterator<Item = Snapshot> {
        let head = self.head;
        self.envelopes.into_iter().map(move |envelope| Snapshot { envelope, head })
    }
}

/// What L2 answers to a beat. It carries L2's clock; it proves nothing about messages, which only the echo does.
///
/// ```
/// use nearfar_core::{BeatReply, Moment, Version};
///
/// let reply = BeatReply { sequence: Version::new(3), time: Moment::from_micros(8) };
/// assert_eq!(reply.time.micros(), 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatReply {
    /// The partition's sequence.
    pub sequence: Version,
    /// When the beat executed, on L2's clock.
    pub time: Moment,
}

/// What L2 holds of one partition, and what one atomic step does to it.
///
/// This is the meaning of the Redis scripts, as code: the in-process L2 runs it.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Change, KeyWrite, Moment, NodeId, Partition};
///
/// let mut partition = Partition::new(16);
/// let now = Moment::from_micros(1_000);
/// let key = Bytes::from_static(b"k");
/// let write = KeyWrite { key: key.clone(), envelope: Bytes::from(vec![0; 100]), keep: None };
///
/// let (version, _message) = partition.change(now, &Change::set(NodeId::new(1), write)).expect("no deadline");
/// let snapshot = partition.read(now, &key);
/// assert_eq!(snapshot.head.unwrap().sequence, version);
/// assert!(snapshot.envelope.is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    head: Option<Head>,
    entries: BTreeMap<Bytes, Stored>,
    /// How many entries there may be before the expired ones are swept out.
    sweep_at: usize,
    log: VecDeque<(Version, Bytes)>,
    log_len: usize,
    nodes: BTreeMap<NodeId, Moment>,
    claims: Claims,
    tags: TagTable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stored {
    envelope: Bytes,
    expires_at: Moment,
}

const SWEEP_AT_LEAST: usize = 1024;

impl Partition {
    /// An empty partition whose log keeps so many messages.
    pub fn new(log_len: usize) -> Self {
        Self {
            head: None,
            entries: BTreeMap::new(),
            sweep_at: SWEEP_AT_LEAST,
            log: VecDeque::new(),
            log_len,
            nodes: BTreeMap::new(),
            claims: Claims::default(),
            tags: TagTable::default(),
        }
    }

    /// What is stored under a key, and the head at that moment.
    pub fn read(&self, now: Moment, key: &[u8]) -> Snapshot {
        Snapshot { envelope: self.live(now, key).cloned(), head: self.head }
    }

    /// What is stored under each of these keys, and the head at that moment.
    pub fn read_many(&self, now: Moment, keys: &[Bytes]) -> Reading {
        let envelopes = keys.iter().map(|key| self.live(now, key).cloned()).collect();
        Reading { envelopes, head: self.head }
    }

    /// Applies a change. Returns its number and the message to publish.
    pub fn change(&mut self, now: Moment, change: &Change) -> Result<(Version, Bytes), Refusal> {
        if now > change.deadline {
            return Err(Refusal::Late);
        }
        if !self.meets(now, change) {
            return Err(Refusal::Unmet);
        }
        let before = self.head_or_begin(now);
        let version = before.next(now);
        let floor = if change.effect == Effect::Clear { version } else { before.floor };
        let mut head = Head { sequence: version, floor, ..before };
        self.apply(now, change, before, &mut head);
        self.head = Some(head);
        let message = Message::stamped(&change.message, version, before.sequence);
        self.log.push_back((version, message.clone()));
        while self.log.len() > self.log_len {
            self.log.pop_front();
        }
        Ok((version, message))
    }

    fn apply(&mut self, now: Moment, change: &Change, before: Head, head: &mut Head) {
        let version = head.sequence;
        let tags = || change.writes.iter().map(|write| write.key.clone());
        match change.effect {
            Effect::Clear => {
                // Whatever carries a tag is dead.
                (head.tags, self.tags) = (TagHead::default(), TagTable::default());
            }
            Effect::Write => {
                for write in &change.writes {
                    note_tagged(head, &write.envelope);
                    self.store(now, write, version);
                }
            }
            Effect::Expire => {
                for write in &change.writes {
                    if !self.expire(now, before, write, version) {
                        self.store(now, write, version);
                    }
                }
            }
            Effect::InvalidateTags => self.tags.change(tags(), version, head, |mark| &mut mark.wrong),
            Effect::ExpireTags => self.tags.change(tags(), version, head, |mark| &mut mark.stale),
        }
        if let (Effect::InvalidateTags | Effect::ExpireTags, Some(window)) =
            (change.effect, change.writes.first().and_then(|write| write.keep))
        {
            self.tags.prune(now, head.tags, window);
        }
    }

    /// Whether what the change asks for is so.
    fn meets(&self, now: Moment, change: &Change) -> bool {
        let present = || change.writes.first().and_then(|write| self.live(now, &write.key));
        match &change.precondition {
            Precondition::None => true,
            Precondition::Absent => !present().is_some_and(|bytes| self.is_fresh(now, bytes)),
            Precondition::Unchanged { seen, base } => {
                let identity = present().map_or(&[][..], |bytes| Envelope::identity(bytes));
                let still = |head: Head| head.covers(*base) && head.tags.changed <= *base;
                identity == seen && (seen.is_empty() || self.head.is_some_and(still))
            }
        }
    }

    /// Whether these bytes are of a value that may be served.
    fn is_fresh(&self, now: Moment, bytes: &Bytes) -> bool {
        let (Some(envelope), Some(head)) = (Envelope::unchecked(bytes), self.head) else { return false };
        let Envelope { header, stamp, .. } = &envelope;
        let lasts = |since: Moment, limit: Option<Duration>| limit.is_none_or(|limit| now < since + limit);
        let in_time = lasts(stamp.written_at, header.ttl) && lasts(stamp.read_at, header.idle);
        let is_value = header.kind == Kind::Value && head.covers(stamp.version) && !stamp.expired;
        is_value && in_time && self.is_served(&envelope, head)
    }

    /// Whether no tag of it was declared wrong or stale since.
    fn is_served(&self, envelope: &Envelope, head: Head) -> bool {
        let version = envelope.stamp.version;
        self.tags_allow(envelope, head, |mark| mark.wrong.max(mark.stale) <= version)
    }

    fn tags_allow(&self, envelope: &Envelope, head: Head, allows: impl Fn(TagMark) -> bool) -> bool {
        let Some(tags) = Tags::of(envelope) else { return false };
        head.tags.changed <= envelope.stamp.version
            || tags.iter().all(|tag| allows(self.tags.mark(tag, head)))
    }

    /// The last changes of these tags.
    pub fn tag_marks(&self, tags: &[Bytes]) -> Vec<TagMark> {
        let mark = |tag: &Bytes| self.head.map_or_else(TagMark::default, |head| self.tags.mark(tag, head));
        tags.iter().map(mark).collect()
    }

    /// Stores a loaded value unless something newer is there.
    pub fn fill(&mut self, now: Moment, fill: &Fill) -> FillOutcome {
        let mut head = match self.head_for(now, fill.deadline, fill.base) {
            Ok(head) => head,
            Err(hindered) => return hindered,
        };
        let newer = |version| fill.base < version && head.covers(version);
        let present = self.live(now, &fill.write.key).and_then(|bytes| Envelope::peek_version(bytes));
        if present.is_some_and(newer) {
            return FillOutcome::Refused;
        }
        note_tagged(&mut head, &fill.write.envelope);
        self.head = Some(head);
        self.store(now, &fill.write, fill.base);
        FillOutcome::Stored
    }

    /// Stores loaded values, one after the other, each unless something newer is there.
    pub fn fill_many(&mut self, now: Moment, fills: &[Fill]) -> Vec<FillOutcome> {
        fills.iter().map(|fill| self.fill(now, fill)).collect()
    }

    /// Keeps what stands under a key for longer, unless something else stands there by now.
    pub fn renew(&mut self, now: Moment, renewal: &Renewal) -> FillOutcome {
        let mut head = match self.head_for(now, renewal.deadline, renewal.base) {
            Ok(head) => head,
            Err(hindered) => return hindered,
        };
        let present = self.live(now, &renewal.key);
        let renewed = present.and_then(|bytes| renewal.applied_to(bytes, now));
        let Some(envelope) = renewed else { return FillOutcome::Refused };
        note_tagged(&mut head, &envelope);
        self.head = Some(head);
        self.put(now, renewal.key.clone(), envelope, renewal.keep);
        FillOutcome::Stored
    }

    /// Gives back the memory of what is dead and fences no more.
    pub fn purge(&mut self, now: Moment, fence_window: Duration) -> Purged {
        let examined = self.entries.len();
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|_, stored| !self.is_purgeable(now, stored, fence_window));
        self.entries = entries;
        Purged { examined: examined as u64, removed: (examined - self.entries.len()) as u64, next: None }
    }

    fn is_purgeable(&self, now: Moment, stored: &Stored, fence_window: Duration) -> bool {
        let Some(head) = self.head else { return true };
        if now >= stored.expires_at {
            return true;
        }
        let Some(envelope) = Envelope::unchecked(&stored.envelope) else { return false };
        // Of another history, or cleared: a fill that it could fence is refused for its base.
        if !head.covers(envelope.stamp.version) {
            return true;
        }
        // What was declared stale has the number of that change, and fences since then.
        let since = envelope.stamp.written_at.max(Moment::from_micros(envelope.stamp.version.number()));
        let fences = now < since + fence_window;
        let is_wrong = || !self.tags_allow(&envelope, head, |mark| mark.wrong <= envelope.stamp.version);
        !fences && is_wrong()
    }

    /// Notes that a value was read, if its lifetime depends on that. It stays for the fence window at least.
    pub fn touch(&mut self, now: Moment, key: &Bytes, fence_window: Duration) {
        let touched = self.live(now, key).and_then(|bytes| Envelope::touched(bytes, now));
        if let Some((envelope, left)) = touched {
            self.put(now, key.clone(), envelope, left.map(|left| left.max(fence_window)));
        }
    }

    /// Grants a node the right to load a key, unless another has it or it was just loaded.
    pub fn claim(&mut self, now: Moment, claim: &Claim) -> ClaimOutcome {
        let present = self.live(now, &claim.key).map_or(&[][..], |bytes| Envelope::identity(bytes));
        if present == claim.seen { self.claims.take(now, claim) } else { ClaimOutcome::Overtaken }
    }

    /// Ends a claim, if this holder has it. Returns the nodes that wait, to be told by a [`Notice`](crate::Notice).
    pub fn release(&mut self, key: &Bytes, holder: Holder) -> BTreeSet<NodeId> {
        self.claims.release(key, holder)
    }

    /// Registers a node as live. Returns the reply and the echo to send to that node alone.
    pub fn beat(
        &mut self,
        now: Moment,
        node: NodeId,
        beat: BeatId,
        forget_after: Duration,
    ) -> (BeatReply, Echo) {
        let sequence = self.head_or_begin(now).sequence;
        self.nodes.insert(node, now);
        self.nodes.retain(|_, seen| now.since(*seen) <= forget_after);
        (BeatReply { sequence, time: now }, Echo { beat, sequence, time: now })
    }

    /// How many entries it holds, expired ones that were not swept out yet included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a node off the list of live ones.
    pub fn leave(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// The live nodes, each with the moment of its last beat.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Moment)> {
        self.nodes.iter().map(|(node, seen)| (*node, *seen))
    }

    /// The kept messages with numbers from `since` to `until`, both included, oldest first.
    pub fn log(&self, since: Version, until: Version) -> impl Iterator<Item = &Bytes> {
        let wanted = move |version: &Version| since <= *version && *version <= until;
        self.log.iter().filter(move |(version, _)| wanted(version)).map(|(_, message)| message)
    }

    fn head_or_begin(&mut self, now: Moment) -> Head {
        *self.head.get_or_insert_with(|| Head::begin(now))
    }

    /// The head, or what becomes of a proposal on this base that is late or of another history.
    fn head_for(&self, now: Moment, deadline: Moment, base: Version) -> Result<Head, FillOutcome> {
        if now > deadline {
            return Err(FillOutcome::Late);
        }
        // A base outside of the head's history was read in another one, which a flush or a clear ended.
        self.head.filter(|head| head.covers(base)).ok_or(FillOutcome::Refused)
    }

    fn live(&self, now: Moment, key: &[u8]) -> Option<&Bytes> {
        self.entries.get(key).filter(|stored| now < stored.expires_at).map(|stored| &stored.envelope)
    }

    /// Whether there was a value to be declared stale.
    fn expire(&mut self, now: Moment, head: Head, write: &KeyWrite, version: Version) -> bool {
        let Some(stored) = self.entries.get(&write.key).filter(|stored| now < stored.expires_at) else {
            return false;
        };
        // A wrong value must not become a stale one.
        let is_wrong = |bytes: &Bytes| {
            let not_wrong = |envelope: &Envelope| {
                self.tags_allow(envelope, head, |mark| mark.wrong <= envelope.stamp.version)
            };
            Envelope::unchecked(bytes).is_some_and(|envelope| !not_wrong(&envelope))
        };
        let expired = Envelope::expired(&stored.envelope, |present| head.covers(present), version);
        let Some(envelope) = expired.filter(|_| !is_wrong(&stored.envelope)) else { return false };
        let kept_until = write.keep.map_or(Moment::NEVER, |keep| now + keep);
        let expires_at = stored.expires_at.max(kept_until);
        self.entries.insert(write.key.clone(), Stored { envelope, expires_at });
        true
    }

    fn store(&mut self, now: Moment, write: &KeyWrite, version: Version) {
        let envelope = Envelope::stamped(&write.envelope, Stamp::of(version, now));
        self.put(now, write.key.clone(), envelope, write.keep);
    }

    fn put(&mut self, now: Moment, key: Bytes, envelope: Bytes, keep: Option<Duration>) {
        let expires_at = keep.map_or(Moment::NEVER, |keep| now + keep);
        self.entries.insert(key, Stored { envelope, expires_at });
        if self.entries.len() > self.sweep_at {
            self.entries.retain(|_, stored| now < stored.expires_at);
            self.sweep_at = (self.entries.len() * 2).max(SWEEP_AT_LEAST);
        }
    }
}

/// A tagged entry that is stored may live for longer than all before it.
fn note_tagged(head: &mut Head, envelope: &Bytes) {
    if let Some(envelope) = Envelope::unchecked(envelope) {
        head.tags.note(&envelope.header);
    }
}
