//! What is logged, and how keys are shown there.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use foldhash::quality::RandomState;
use serde::{Deserialize, Serialize};

/// The target of what is logged of a cache: loads, misses, the outbox, settings.
pub(crate) const CACHE: &str = "nearfar::cache";
/// That of what is logged of the bus: trust, doubts, replays, resyncs.
pub(crate) const BUS: &str = "nearfar::bus";
/// That of what is logged of servers: connecting, warnings, circuits.
pub(crate) const SERVER: &str = "nearfar::server";

/// How keys are shown in the log: they may be personal data.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, LogKeys, Nearfar};
///
/// let prices: Cache<u64, u64> = Nearfar::in_process().cache("prices").log_keys(LogKeys::Plain).build().await?;
/// assert_eq!(prices.config().log_keys, Some(LogKeys::Plain));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKeys {
    /// As 16 hexadecimal digits: those of a hash with a secret of this process, so that lines about one key can be told to
    /// be so, and the key cannot be guessed and compared. The default.
    #[default]
    Hashed,
    /// As they stand in L2.
    Plain,
    /// Not at all.
    Never,
}

impl LogKeys {
    /// What a line says of a key.
    pub(crate) fn show(self, key: &[u8]) -> Option<tracing::field::DisplayValue<ShownKey<'_>>> {
        match self {
            Self::Hashed => Some(ShownKey::Hash(hash(key))),
            Self::Plain => Some(ShownKey::Plain(key)),
            Self::Never => None,
        }
        .map(tracing::field::display)
    }
}

pub(crate) enum ShownKey<'a> {
    Hash(u64),
    Plain(&'a [u8]),
}

impl fmt::Display for ShownKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(hash) => write!(f, "{hash:016x}"),
            // A key must not be able to begin a line of its own.
            Self::Plain(key) => write!(f, "{}", String::from_utf8_lossy(key).escape_debug()),
        }
    }
}

fn hash(key: &[u8]) -> u64 {
    static SECRET: OnceLock<RandomState> = OnceLock::new();
    SECRET.get_or_init(RandomState::default).hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::LogKeys;

    fn shown(how: LogKeys, key: &[u8]) -> Option<String> {
        how.show(key).map(|shown| format!("{shown:?}"))
    }

    #[test]
    fn a_hash_is_the_same_for_the_same_key_and_does_not_show_it() {
        let hashed = shown(LogKeys::Hashed, b"ada@example.org").unwrap();
        assert_eq!(hashed.len(), 16);
        assert!(hashed.chars().all(|digit| digit.is_ascii_hexdigit()), "{hashed}");
        assert_eq!(shown(LogKeys::Hashed, b"ada@example.org").unwrap(), hashed);
        assert_ne!(shown(LogKeys::Hashed, b"bob@example.org").unwrap(), hashed);
    }

    #[test]
    fn a_plain_key_cannot_forge_a_line() {
        assert_eq!(shown(LogKeys::Plain, b"a\nERROR forged").unwrap(), "a\\nERROR forged");
        assert_eq!(shown(LogKeys::Plain, b"\xff").unwrap(), "\u{fffd}");
        assert_eq!(shown(LogKeys::Never, b"a"), None);
    }
}
