use std::fmt;

/// The sequence number that L2 gives each change of truth in a partition; also the version of an entry, which is the
/// sequence as of which that entry is known true.
///
/// Numbers grow with every change, and they are drawn from L2's clock in microseconds whenever that is ahead
/// (`max(previous + 1, clock)`), so that they do not repeat after the store lost its data.
///
/// ```
/// use nearfar_core::Version;
///
/// assert!(Version::new(7) > Version::UNKNOWN);
/// assert_eq!(Version::new(7).to_string(), "7");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// Smaller than every version that L2 gives out: an entry with it yields to any message.
    pub const UNKNOWN: Version = Version(0);

    /// The greatest version that L2 can give out: from 2^53 on, the numbers of its scripts skip some.
    pub const GREATEST: Version = Version((1 << 53) - 1);

    /// A version from its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
