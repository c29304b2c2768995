use std::fmt;

use crate::Namespace;

/// One partition of a namespace: a slice of its keys that has a sequence, a log and a channel of its own. On a cluster,
/// one slot.
///
/// ```
/// use nearfar_core::{Namespace, PartitionId};
///
/// let users = Namespace::new("users").unwrap();
/// let partition = PartitionId::new(users.clone(), 3);
/// assert_eq!(partition.to_string(), "users.3");
/// assert_eq!((partition.namespace(), partition.index()), (&users, 3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    namespace: Namespace,
    index: u16,
}

impl PartitionId {
    /// The partition of that number, counted from 0.
    pub fn new(namespace: Namespace, index: u16) -> Self {
        Self { namespace, index }
    }

    /// Whose it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The number of the partition that a key is in, out of so many: its CRC-32 modulo their number.
    ///
    /// ```
    /// use nearfar_core::PartitionId;
    ///
    /// assert_eq!(PartitionId::index_of(b"any key", 1), 0);
    /// assert!(PartitionId::index_of(b"any key", 16) < 16);
    /// ```
    ///
    /// # Panics
    /// If there are none.
    pub fn index_of(key: &[u8], partitions: u16) -> u16 {
        if partitions == 1 {
            return 0;
        }
        let index = crc32fast::hash(key) % u32::from(partitions);
        u16::try_from(index).expect("it is below a number of 16 bits")
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.index)
    }
}
