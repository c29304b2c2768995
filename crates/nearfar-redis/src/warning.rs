use std::fmt;

/// What of a server's settings will hurt one day, when its memory is full. A server without `maxmemory` gives none.
///
/// ```
/// use nearfar_redis::Warning;
///
/// let warning = Warning::EvictsFences { policy: "volatile-ttl".into(), max_memory: 100_000_000 };
/// assert!(warning.to_string().contains("an old value"), "the consequence");
/// assert!(warning.to_string().contains("noeviction"), "and a remedy");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The server evicts keys. That it drops values is a cache's business; but it may drop a tombstone too, or a value
    /// that is no longer served and still fences off loads from before it.
    EvictsFences {
        /// The server's `maxmemory-policy`.
        policy: String,
        /// The server's `maxmemory`, in bytes.
        max_memory: u64,
    },
    /// The server refuses what needs memory. Invalidations do not.
    RefusesWhenFull {
        /// The server's `maxmemory`, in bytes.
        max_memory: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EvictsFences { policy, max_memory } => write!(
                f,
                "with `maxmemory` {max_memory} and `maxmemory-policy` {policy}, Redis may evict a tombstone that is \
                 still needed; then a slow load can put an old value back, which is served until it expires: give it \
                 more memory than its entries need, or choose `noeviction`"
            ),
            Self::RefusesWhenFull { max_memory } => write!(
                f,
                "with `maxmemory` {max_memory} and `maxmemory-policy` noeviction, a full Redis refuses values: `set` \
                 fails and its key is invalidated instead, and loaded values are not shared: watch its memory, and \
                 give it more or the entries shorter lifetimes"
            ),
        }
    }
}
