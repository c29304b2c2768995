/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Reads of what is in L1.
    L1,
    /// Reads of what is in L2 only.
    L2,
    /// Writes.
    Write,
    /// Reads of what is nowhere, and is loaded.
    Load,
    /// A thousand callers of one cold key.
    Stampede,
}

impl Work {
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("l1", Self::L1),
        ("l2", Self::L2),
        ("write", Self::Write),
        ("load", Self::Load),
        ("stampede", Self::Stampede),
    ];

    /// Everything, in the order in which it is measured.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(_, work)| work)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, work)| *work)
    }
}
