use bytes::Bytes;

/// What is to be invalidated in one step.
///
/// ```
/// assert_ne!(nearfar_core::Batch::Everything, nearfar_core::Batch::Keys(vec![]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Batch {
    /// These keys.
    Keys(Vec<Bytes>),
    /// What carries these tags.
    Tags(Vec<Bytes>),
    /// Every key: the floor rises.
    Everything,
}

impl Batch {
    /// What it names; nothing for everything.
    pub(crate) fn subjects(self) -> impl Iterator<Item = Subject> {
        let (keys, tags) = match self {
            Self::Keys(keys) => (keys, Vec::new()),
            Self::Tags(tags) => (Vec::new(), tags),
            Self::Everything => Default::default(),
        };
        keys.into_iter().map(Subject::Key).chain(tags.into_iter().map(Subject::Tag))
    }

    /// Those of one kind that come first; the others are for another batch.
    pub(crate) fn of(subjects: impl Iterator<Item = Subject>) -> Self {
        let (mut keys, mut tags) = (Vec::new(), Vec::new());
        for subject in subjects {
            match subject {
                Subject::Key(key) => keys.push(key),
                Subject::Tag(tag) => tags.push(tag),
            }
        }
        if keys.is_empty() && !tags.is_empty() { Self::Tags(tags) } else { Self::Keys(keys) }
    }
}

/// What can be wrong in L2.
///
/// ```
/// use bytes::Bytes;
/// use nearfar_core::Subject;
///
/// assert_ne!(Subject::Key(Bytes::from_static(b"a")), Subject::Tag(Bytes::from_static(b"a")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A key.
    Key(Bytes),
    /// What carries a tag.
    Tag(Bytes),
}

impl Subject {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Key(name) | Self::Tag(name) => name.len(),
        }
    }

    pub(crate) fn is_tag(&self) -> bool {
        matches!(self, Self::Tag(_))
    }
}
