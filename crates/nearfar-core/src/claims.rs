use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{Moment, NodeId};

/// Who holds a claim: a node, and which of its loads.
///
/// ```
/// use nearfar_core::{Holder, NodeId};
///
/// let holder = Holder { node: NodeId::new(255), load: 7 };
/// assert_eq!(holder.to_string(), "00000000000000ff-7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// A number that no other load of the node has.
    pub load: u64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.node, self.load)
    }
}

/// The wish to be the one node that loads a key.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::{Claim, Holder, NodeId};
/// use std::time::Duration;
///
/// let holder = Holder { node: NodeId::new(1), load: 1 };
/// let claim = Claim { key: "k".into(), holder, seen: Bytes::new(), keep: Duration::from_secs(5) };
/// assert!(claim.seen.is_empty(), "there was nothing when it was looked");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The encoded key.
    pub key: Bytes,
    /// Who wants to.
    pub holder: Holder,
    /// The [identity](crate::Envelope::identity) of what stood under the key when it was found wanting.
    pub seen: Bytes,
    /// For how long the claim holds at most. Millisecond precision.
    pub keep: Duration,
}

/// What became of a claim.
///
/// ```
/// assert_ne!(nearfar_core::ClaimOutcome::Granted, nearfar_core::ClaimOutcome::Overtaken);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimOutcome {
    /// Nobody else is granted it until it is released or over.
    Granted,
    /// Another holds it for so long at most, and this node will be told when it is released.
    Held {
        /// For how long.
        left: Duration,
    },
    /// Something else stands under the key than what was seen: look again.
    Overtaken,
}

/// The claims of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Claims {
    held: BTreeMap<Bytes, Held>,
    /// How many there may be before those that are over are swept out.
    sweep_at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    holder: Holder,
    until: Moment,
    /// What stood under the key when it was granted. When something else does, its load cannot be stored any more, or was.
    seen: Bytes,
    waiting: BTreeSet<NodeId>,
}

const SWEEP_AT_LEAST: usize = 64;

impl Claims {
    /// Grants it unless another is held that is of any use. None is believed to last for longer than this one would: a clock
    /// may have been set.
    pub(crate) fn take(&mut self, now: Moment, claim: &Claim) -> ClaimOutcome {
        let until = now + claim.keep;
        let mut waiting = BTreeSet::new();
        if let Some(held) = self.held.get_mut(&claim.key).filter(|held| now < held.until) {
            if held.seen == claim.seen {
                held.waiting.insert(claim.holder.node);
                held.until = held.until.min(until);
                return ClaimOutcome::Held { left: held.until.since(now) };
            }
            waiting = std::mem::take(&mut held.waiting);
        }
        let held = Held { holder: claim.holder, until, seen: claim.seen.clone(), waiting };
        self.held.insert(claim.key.clone(), held);
        if self.held.len() > self.sweep_at {
            self.held.retain(|_, held| now < held.until);
            self.sweep_at = (self.held.len() * 2).max(SWEEP_AT_LEAST);
        }
        ClaimOutcome::Granted
    }

    /// Ends a claim, if it is this holder's. Returns the nodes to tell.
    pub(crate) fn release(&mut self, key: &Bytes, holder: Holder) -> BTreeSet<NodeId> {
        if self.held.get(key).is_none_or(|held| held.holder != holder) {
            return BTreeSet::new();
        }
        self.held.remove(key).map(|held| held.waiting).unwrap_or_default()
    }
}
