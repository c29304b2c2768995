//! What a server says about itself.

use fred::clients::{Client, WithOptions};
use fred::interfaces::ClientLike;

use crate::warning::Warning;

/// Lines of `name:value`; none if the user may not ask. Such a user finds out at the first write.
pub(crate) struct Info(String);

impl Info {
    pub(crate) async fn of(client: &WithOptions<Client>) -> Self {
        Self(Box::pin(client.info(None)).await.unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
    }

    /// The primary's address if this is a replica that takes no writes.
    pub(crate) fn primary(&self) -> Option<String> {
        let replica = self.get("role")? == "slave" && self.get("slave_read_only")? == "1";
        replica.then(|| {
            let part = |name| self.get(name).unwrap_or("?");
            format!("{}:{}", part("master_host"), part("master_port"))
        })
    }

    /// Whether it has sharded channels; one that does not tell its version is taken for a present one.
    pub(crate) fn has_sharded_channels(&self) -> bool {
        let major = self.get("redis_version").and_then(|version| version.split('.').next());
        major.and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major >= 7)
    }

    /// Whether it is a server of a cluster.
    pub(crate) fn is_of_cluster(&self) -> bool {
        self.get("cluster_enabled") == Some("1")
    }

    /// What will happen when its memory is full, if that is limited.
    pub(crate) fn memory_warning(&self) -> Option<Warning> {
        let max_memory = self.get("maxmemory")?.parse().ok().filter(|&bytes| bytes > 0)?;
        Some(match self.get("maxmemory_policy")? {
            "noeviction" => Warning::RefusesWhenFull { max_memory },
            policy => Warning::EvictsFences { policy: policy.to_owned(), max_memory },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_does_not_say_is_no_verdict() {
        for silent in ["", "role:slave", "maxmemory:100", "maxmemory:much\r\nmaxmemory_policy:noeviction"] {
            let info = Info(silent.to_owned());
            assert_eq!((info.primary(), info.memory_warning()), (None, None), "{silent}");
        }
    }

    #[test]
    fn a_replica_that_takes_writes_is_its_owners_business() {
        let info = |read_only: &str| {
            Info(format!("role:slave\r\nmaster_host:a\r\nmaster_port:1\r\nslave_read_only:{read_only}\r\n"))
        };
        assert_eq!(info("1").primary().as_deref(), Some("a:1"));
        assert_eq!(info("0").primary(), None);
    }
}
