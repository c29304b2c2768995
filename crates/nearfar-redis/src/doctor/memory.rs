//! Room: for entries, and for messages that wait for their readers.

use crate::doctor::figures::{bytes, percent};
use crate::doctor::finding::Finding;
use crate::doctor::kinds::FindingKind;
use crate::doctor::visit::Visit;
use crate::inspect::{Config, Info};

/// From this share on, memory counts as nearly full.
const NEARLY_FULL: u64 = 80;

/// An outbox sends up to 1 MiB of keys in one message; this leaves room for some.
const LEAST_OUTPUT_BUFFER: u64 = 4 * 1024 * 1024;

/// What a message of one 20-byte key takes on its way to a subscriber, frame included.
const USUAL_MESSAGE: u64 = 130;

pub(crate) fn examine(visit: &mut Visit, info: &Info, config: &Config) {
    if let Some(memory) = Memory::of(info) {
        visit.fact("memory", memory.to_string());
    }
    let finding = full(info, visit.server());
    visit.note(finding);
    if let Some(limit) = config.get("client-output-buffer-limit").and_then(OutputBuffer::parse) {
        visit.fact("messages", limit.to_string());
        if let Some(kind) = limit.problem() {
            visit.found(kind, limit.to_string());
        }
    }
}

/// What will happen when its memory is full, if that is limited.
pub(crate) fn full(info: &Info, server: &str) -> Option<Finding> {
    let memory = Memory::of(info)?;
    let kind = match (memory.limit, memory.policy) {
        (0, _) => return None,
        (_, "noeviction") if memory.share() < NEARLY_FULL => return None,
        (_, "noeviction") => FindingKind::NearlyFull,
        _ => FindingKind::EvictsFences,
    };
    Some(Finding::new(kind, server, memory.to_string()))
}

struct Memory<'a> {
    used: u64,
    /// 0 for none.
    limit: u64,
    policy: &'a str,
    evicted: u64,
}

impl<'a> Memory<'a> {
    fn of(info: &'a Info) -> Option<Self> {
        Some(Self {
            used: info.number("used_memory")?,
            limit: info.number("maxmemory")?,
            policy: info.get("maxmemory_policy")?,
            evicted: info.number("evicted_keys").unwrap_or_default(),
        })
    }

    fn share(&self) -> u64 {
        percent(self.used, self.limit)
    }
}

impl std::fmt::Display for Memory<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { used, limit, policy, evicted } = *self;
        if limit == 0 {
            return write!(f, "{} in use, no `maxmemory`", bytes(used));
        }
        let (used, share) = (bytes(used), self.share());
        write!(
            f,
            "{used} ({share} %) of `maxmemory` {} in use, `maxmemory-policy` is {policy}",
            bytes(limit)
        )?;
        if evicted > 0 { write!(f, ", {evicted} keys evicted since it started") } else { Ok(()) }
    }
}

/// `client-output-buffer-limit` of subscribers; 0 is no limit.
#[derive(Debug, PartialEq, Eq)]
struct OutputBuffer {
    hard: u64,
    soft: u64,
    soft_seconds: u64,
}

impl OutputBuffer {
    fn parse(limits: &str) -> Option<Self> {
        let words: Vec<_> = limits.split_whitespace().collect();
        let [_, numbers @ ..] = words.chunks_exact(4).find(|limit| limit[0] == "pubsub")? else {
            return None;
        };
        let number = |at: usize| numbers[at].parse().ok();
        Some(Self { hard: number(0)?, soft: number(1)?, soft_seconds: number(2)? })
    }

    fn problem(&self) -> Option<FindingKind> {
        match self.least() {
            None => Some(FindingKind::OutputBufferUnlimited),
            Some(least) => (least < LEAST_OUTPUT_BUFFER).then_some(FindingKind::OutputBufferSmall),
        }
    }

    fn least(&self) -> Option<u64> {
        // A soft limit without a time is none.
        let soft = if self.soft_seconds > 0 { self.soft } else { 0 };
        [self.hard, soft].into_iter().filter(|&limit| limit > 0).min()
    }
}

impl std::fmt::Display for OutputBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hard, soft, soft_seconds } = self;
        write!(f, "`client-output-buffer-limit pubsub {hard} {soft} {soft_seconds}`: ")?;
        match self.least() {
            Some(least) => {
                write!(f, "{} messages of {USUAL_MESSAGE} bytes may wait for a node", least / USUAL_MESSAGE)
            }
            None => write!(f, "any number of messages may wait for a node"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_does_not_say_is_no_verdict() {
        for silent in ["", "maxmemory:100", "used_memory:1\r\nmaxmemory:much\r\nmaxmemory_policy:noeviction"]
        {
            assert_eq!(full(&Info::new(silent.to_owned()), "a:1"), None, "{silent}");
        }
        for silent in ["", "pubsub", "normal 0 0 0", "pubsub a b c"] {
            assert_eq!(OutputBuffer::parse(silent), None, "{silent}");
        }
    }

    #[test]
    fn the_least_limit_of_subscribers_counts() {
        let problem = |limit: &str| OutputBuffer::parse(&format!("normal 0 0 0 {limit}")).unwrap().problem();
        assert_eq!(problem("pubsub 33554432 8388608 60"), None);
        assert_eq!(problem("pubsub 33554432 1048576 60"), Some(FindingKind::OutputBufferSmall));
        assert_eq!(problem("pubsub 33554432 1048576 0"), None);
        assert_eq!(problem("pubsub 0 0 0"), Some(FindingKind::OutputBufferUnlimited));
    }
}
