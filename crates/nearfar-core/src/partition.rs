use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::claims::Claims;
use crate::{
    BeatId, Claim, ClaimOutcome, Echo, Envelope, EnvelopeHeader, Holder, Message, MessageBody, Moment,
    NodeId, Renewal, Stamp, Version,
};

/// Where a partition stands.
///
/// ```
/// use nearfar_core::{Head, Version};
///
/// let head = Head { sequence: Version::new(9), floor: Version::new(4) };
/// assert!(head.floor <= head.sequence);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// The number of the last change.
    pub sequence: Version,
    /// Entries with a smaller version are dead.
    pub floor: Version,
}

impl Head {
    /// Whether an entry of this version is of this history and has not been cleared.
    pub fn covers(self, version: Version) -> bool {
        self.floor <= version && version <= self.sequence
    }

    /// A new history: it begins at the clock, and nothing older counts.
    fn begin(now: Moment) -> Self {
        let sequence = Version::new(now.micros().max(1));
        Self { sequence, floor: sequence }
    }

    /// The number of the change after this head.
    fn next(self, now: Moment) -> Version {
        Version::new((self.sequence.number() + 1).max(now.micros()))
    }
}

/// One key's part of a change.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::KeyWrite;
/// use std::time::Duration;
///
/// let write = KeyWrite { key: Bytes::from_static(b"k"), envelope: Bytes::new(), keep: Some(Duration::from_secs(60)) };
/// assert_eq!(&write.key[..], b"k");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyWrite {
    /// The encoded key.
    pub key: Bytes,
    /// The unstamped envelope that takes its place.
    pub envelope: Bytes,
    /// How long L2 keeps it at least; `None` for ever.
    pub keep: Option<Duration>,
}

/// A change of truth: one atomic step, one sequence number, one message.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Change, Moment, NodeId};
/// use std::time::Duration;
///
/// let change = Change::invalidate(NodeId::new(1), vec![Bytes::from_static(b"k")], Duration::from_secs(60))
///     .by(Moment::from_micros(5));
/// assert_eq!(change.writes.len(), 1);
/// assert_eq!(change.deadline, Moment::from_micros(5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The keys that it is about.
    pub writes: Vec<KeyWrite>,
    /// What it does to them, or to all.
    pub effect: Effect,
    /// The unstamped message that tells the others.
    pub message: Bytes,
    /// L2 refuses to act after this moment of its own clock.
    pub deadline: Moment,
}

/// What a change does.
///
/// ```
/// assert_ne!(nearfar_core::Effect::Write, nearfar_core::Effect::Expire);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Its keys get new envelopes.
    Write,
    /// The floor rises, which kills every older entry.
    Clear,
    /// The values of its keys become stale. Where there is none, the key gets the envelope of the change.
    Expire,
}

impl Change {
    /// Stores an envelope under a key.
    pub fn set(origin: NodeId, write: KeyWrite) -> Self {
        Self::of_keys(origin, Effect::Write, vec![write])
    }

    /// Leaves tombstones under these keys for the fence window.
    pub fn invalidate(origin: NodeId, keys: Vec<Bytes>, fence_window: Duration) -> Self {
        Self::of_keys(origin, Effect::Write, tombstones(keys, fence_window))
    }

    /// Declares what is stored under these keys stale. It stays for as long as it would have, and at least for the fence
    /// window.
    pub fn expire(origin: NodeId, keys: Vec<Bytes>, fence_window: Duration) -> Self {
        Self::of_keys(origin, Effect::Expire, tombstones(keys, fence_window))
    }

    /// Kills every entry so far.
    pub fn clear(origin: NodeId) -> Self {
        let message = Message::encode(origin, &MessageBody::Clear);
        Self { writes: Vec::new(), effect: Effect::Clear, message, deadline: Moment::NEVER }
    }

    fn of_keys(origin: NodeId, effect: Effect, writes: Vec<KeyWrite>) -> Self {
        let keys = writes.iter().map(|write| write.key.clone()).collect();
        let body =
            if effect == Effect::Expire { MessageBody::Expired(keys) } else { MessageBody::Keys(keys) };
        let message = Message::encode(origin, &body);
        Self { writes, effect, message, deadline: Moment::NEVER }
    }

    /// The same change, to be refused after this moment of L2's clock.
    pub fn by(self, deadline: Moment) -> Self {
        Self { deadline, ..self }
    }
}

fn tombstones(keys: Vec<Bytes>, fence_window: Duration) -> Vec<KeyWrite> {
    let tombstone = Envelope::encode(&EnvelopeHeader::tombstone(), &[], &[]);
    let bury = |key| KeyWrite { key, envelope: tombstone.clone(), keep: Some(fence_window) };
    keys.into_iter().map(bury).collect()
}

/// A proposed write of a loaded value: stored only if nothing newer is there. Not a change of truth, never broadcast.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Fill, KeyWrite, Moment, Version};
///
/// let write = KeyWrite { key: Bytes::from_static(b"k"), envelope: Bytes::new(), keep: None };
/// let fill = Fill { write, base: Version::new(3), deadline: Moment::NEVER };
/// assert_eq!(fill.base.number(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fill {
    /// What to store; its version becomes `base`.
    pub write: KeyWrite,
    /// The partition's sequence before the load began.
    pub base: Version,
    /// L2 refuses to act after this moment of its own clock: later, a tombstone of the time of the load may be gone.
    pub deadline: Moment,
}

/// What became of a fill.
///
/// ```
/// assert_ne!(nearfar_core::FillOutcome::Stored, nearfar_core::FillOutcome::Refused);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FillOutcome {
    /// It is in L2 now.
    Stored,
    /// Something newer was there, or the history that it belongs to is over.
    Refused,
    /// It came after its deadline.
    Late,
}

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
        }
    }

    /// What is stored under a key, and the head at that moment.
    pub fn read(&self, now: Moment, key: &[u8]) -> Snapshot {
        Snapshot { envelope: self.live(now, key).cloned(), head: self.head }
    }

    /// Applies a change. Returns its number and the message to publish, or `None` after the deadline.
    pub fn change(&mut self, now: Moment, change: &Change) -> Option<(Version, Bytes)> {
        if now > change.deadline {
            return None;
        }
        let head = self.head_or_begin(now);
        let version = head.next(now);
        let floor = if change.effect == Effect::Clear { version } else { head.floor };
        self.head = Some(Head { sequence: version, floor });
        for write in &change.writes {
            if change.effect != Effect::Expire || !self.expire(now, head, write, version) {
                self.store(now, write, version);
            }
        }
        let message = Message::stamped(&change.message, version, head.sequence);
        self.log.push_back((version, message.clone()));
        while self.log.len() > self.log_len {
            self.log.pop_front();
        }
        Some((version, message))
    }

    /// Stores a loaded value unless something newer is there.
    pub fn fill(&mut self, now: Moment, fill: &Fill) -> FillOutcome {
        let head = match self.head_for(now, fill.deadline, fill.base) {
            Ok(head) => head,
            Err(hindered) => return hindered,
        };
        let newer = |version| fill.base < version && head.covers(version);
        let present = self.live(now, &fill.write.key).and_then(|bytes| Envelope::peek_version(bytes));
        if present.is_some_and(newer) {
            return FillOutcome::Refused;
        }
        self.store(now, &fill.write, fill.base);
        FillOutcome::Stored
    }

    /// Keeps what stands under a key for longer, unless something else stands there by now.
    pub fn renew(&mut self, now: Moment, renewal: &Renewal) -> FillOutcome {
        if let Err(hindered) = self.head_for(now, renewal.deadline, renewal.base) {
            return hindered;
        }
        let present = self.live(now, &renewal.key);
        let renewed = present.and_then(|bytes| renewal.applied_to(bytes, now));
        let Some(envelope) = renewed else { return FillOutcome::Refused };
        self.put(now, renewal.key.clone(), envelope, renewal.keep);
        FillOutcome::Stored
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
        let Some(stored) = self.entries.get_mut(&write.key).filter(|stored| now < stored.expires_at) else {
            return false;
        };
        let Some(envelope) = Envelope::expired(&stored.envelope, |present| head.covers(present), version)
        else {
            return false;
        };
        stored.envelope = envelope;
        let kept_until = write.keep.map_or(Moment::NEVER, |keep| now + keep);
        stored.expires_at = stored.expires_at.max(kept_until);
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
