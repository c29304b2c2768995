use std::fmt;
use std::sync::Arc;

/// The named keyspace of one cache: 1 to 64 characters out of `A-Z a-z 0-9 _ - . :`, so that it can stand in a Redis
/// hash tag and in a log line without escaping.
///
/// ```
/// use nearfar_core::Namespace;
///
/// let users = Namespace::new("shop:users-v2").unwrap();
/// assert_eq!(users.as_str(), "shop:users-v2");
/// assert!(Namespace::new("").is_err());
/// assert!(Namespace::new("users{1}").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    const MAX_LEN: usize = 64;

    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, NamespaceError> {
        if name.is_empty() {
            return Err(NamespaceError::Empty);
        }
        if name.len() > Self::MAX_LEN {
            return Err(NamespaceError::TooLong { len: name.len() });
        }
        match name.chars().find(|&c| !Self::allows(c)) {
            Some(found) => Err(NamespaceError::Forbidden { found }),
            None => Ok(Self(name.into())),
        }
    }

    fn allows(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a name cannot be a [`Namespace`].
///
/// ```
/// use nearfar_core::{Namespace, NamespaceError};
///
/// let refused = Namespace::new("a b").unwrap_err();
/// assert_eq!(refused, NamespaceError::Forbidden { found: ' ' });
/// assert!(refused.to_string().contains("' '"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceError {
    /// It has no characters.
    Empty,
    /// It has more than 64 bytes.
    TooLong {
        /// How many it has.
        len: usize,
    },
    /// It has a character outside `A-Z a-z 0-9 _ - . :`.
    Forbidden {
        /// The first such character.
        found: char,
    },
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a namespace must not be empty"),
            Self::TooLong { len } => {
                write!(f, "a namespace has at most {} bytes, this one has {len}", Namespace::MAX_LEN)
            }
            Self::Forbidden { found } => {
                write!(f, "a namespace has only the characters A-Z a-z 0-9 _ - . : and not {found:?}")
            }
        }
    }
}

impl std::error::Error for NamespaceError {}
