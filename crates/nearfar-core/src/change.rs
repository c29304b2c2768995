use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use bytes::Bytes;

use crate::{Batch, Envelope, EnvelopeHeader, Message, MessageBody, Moment, NodeId, Version};

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
    /// L2 refuses to act unless this is so.
    pub precondition: Precondition,
}

/// What must be so for a change to happen. With any but the first, a change is of one key.
///
/// ```
/// assert_eq!(nearfar_core::Precondition::default(), nearfar_core::Precondition::None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// There is no value that is fresh.
    Absent,
    /// What stands there is what was seen, and was not declared wrong since by a clear or by a change of a tag.
    Unchanged {
        /// Of what was seen, see [`Envelope::identity`]; empty for nothing.
        seen: Bytes,
        /// The partition's sequence then.
        base: Version,
    },
}

/// Why a change did not happen.
///
/// ```
/// assert_ne!(nearfar_core::Refusal::Late, nearfar_core::Refusal::Unmet);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It came after its deadline.
    Late,
    /// Its precondition was not met.
    Unmet,
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
    /// Every older entry that carries one of its tags, which stand in the place of keys, is dead.
    InvalidateTags,
    /// Every older entry that carries one of its tags is stale.
    ExpireTags,
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
        Self::of_keys(origin, Effect::Clear, Vec::new())
    }

    /// Kills every older entry that carries one of these tags. No fill of older news lasts for longer than the window.
    pub fn invalidate_tags(origin: NodeId, tags: Vec<Bytes>, fence_window: Duration) -> Self {
        Self::of_keys(origin, Effect::InvalidateTags, named(tags, &Bytes::new(), fence_window))
    }

    /// Declares every older entry that carries one of these tags stale.
    pub fn expire_tags(origin: NodeId, tags: Vec<Bytes>, fence_window: Duration) -> Self {
        Self::of_keys(origin, Effect::ExpireTags, named(tags, &Bytes::new(), fence_window))
    }

    /// Stores envelopes under several keys, of which each is named once.
    pub fn set_many(origin: NodeId, writes: Vec<KeyWrite>) -> Self {
        Self::of_keys(origin, Effect::Write, writes)
    }

    /// Whether one step may do what both do, so that nobody can tell the difference: it has one number for both.
    ///
    /// ```
    /// use nearfar_core::{Change, NodeId, Precondition};
    /// use std::time::Duration;
    ///
    /// let node = NodeId::new(1);
    /// let invalidate = || Change::invalidate(node, vec!["key".into()], Duration::from_secs(60));
    /// assert!(invalidate().goes_with(&invalidate()));
    /// assert!(!invalidate().goes_with(&Change::clear(node)));
    /// assert!(!invalidate().goes_with(&invalidate().only_if(Precondition::Absent)));
    /// ```
    pub fn goes_with(&self, other: &Self) -> bool {
        self.effect == other.effect
            && self.effect != Effect::Clear
            && [self, other].iter().all(|change| change.precondition == Precondition::None)
    }

    /// Does in one step what these do one after the other, by the earliest of their deadlines; of several writes of a key
    /// the last one counts. All of them [go with](Self::goes_with) the first.
    ///
    /// ```
    /// use nearfar_core::{Change, Moment, NodeId};
    /// use std::time::Duration;
    ///
    /// let node = NodeId::new(1);
    /// let invalidate = |key: &'static str| Change::invalidate(node, vec![key.into()], Duration::from_secs(60));
    /// let until = Moment::from_micros;
    /// let both = Change::as_one(node, &[invalidate("a").by(until(9)), invalidate("b").by(until(7)), invalidate("a")]);
    /// assert_eq!((both.writes.len(), both.deadline), (2, until(7)));
    /// ```
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn as_one(origin: NodeId, changes: &[Self]) -> Self {
        let first = changes.first().expect("there are changes");
        if changes.len() == 1 {
            return first.clone();
        }
        let deadline = changes.iter().map(|change| change.deadline).min().expect("there are changes");
        let (mut places, mut writes): (_, Vec<KeyWrite>) = (HashMap::new(), Vec::new());
        for write in changes.iter().flat_map(|change| &change.writes).cloned() {
            match places.entry(write.key.clone()) {
                Entry::Occupied(place) => writes[*place.get()] = write,
                Entry::Vacant(place) => {
                    place.insert(writes.len());
                    writes.push(write);
                }
            }
        }
        Self::of_keys(origin, first.effect, writes).by(deadline)
    }

    /// What it is about.
    ///
    /// ```
    /// use nearfar_core::{Batch, Change, NodeId};
    ///
    /// assert_eq!(Change::clear(NodeId::new(1)).subjects(), Batch::Everything);
    /// ```
    pub fn subjects(&self) -> Batch {
        let names = self.writes.iter().map(|write| write.key.clone()).collect();
        match self.effect {
            Effect::Write | Effect::Expire => Batch::Keys(names),
            Effect::InvalidateTags | Effect::ExpireTags => Batch::Tags(names),
            Effect::Clear => Batch::Everything,
        }
    }

    fn of_keys(origin: NodeId, effect: Effect, writes: Vec<KeyWrite>) -> Self {
        let keys = writes.iter().map(|write| write.key.clone()).collect();
        let body = match effect {
            Effect::Write => MessageBody::Keys(keys),
            Effect::Clear => MessageBody::Clear,
            Effect::Expire => MessageBody::Expired(keys),
            Effect::InvalidateTags => MessageBody::Tags(keys),
            Effect::ExpireTags => MessageBody::ExpiredTags(keys),
        };
        let message = Message::encode(origin, &body);
        Self { writes, effect, message, deadline: Moment::NEVER, precondition: Precondition::None }
    }

    /// The same change, to be refused after this moment of L2's clock.
    pub fn by(self, deadline: Moment) -> Self {
        Self { deadline, ..self }
    }

    /// The same change, to be refused unless this is so.
    pub fn only_if(self, precondition: Precondition) -> Self {
        Self { precondition, ..self }
    }
}

fn tombstones(keys: Vec<Bytes>, fence_window: Duration) -> Vec<KeyWrite> {
    named(keys, &Envelope::encode(&EnvelopeHeader::tombstone(), &[], &[]), fence_window)
}

fn named(keys: Vec<Bytes>, envelope: &Bytes, fence_window: Duration) -> Vec<KeyWrite> {
    let write = |key| KeyWrite { key, envelope: envelope.clone(), keep: Some(fence_window) };
    keys.into_iter().map(write).collect()
}
