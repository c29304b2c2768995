use crate::{KeyWrite, Moment, Version};

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
