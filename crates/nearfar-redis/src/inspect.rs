//! What a server says about itself.

use std::collections::HashMap;

use fred::clients::{Client, WithOptions};
use fred::interfaces::ClientLike;
use fred::types::{Map, Value};

/// Lines of `name:value`; none if the user may not ask. Such a user finds out at the first write.
pub(crate) struct Info(String);

impl Info {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) async fn of(client: &WithOptions<Client>) -> Self {
        Self::new(Box::pin(client.info(None)).await.unwrap_or_default())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Whether it is a server of a cluster.
    pub(crate) fn is_of_cluster(&self) -> bool {
        self.get("cluster_enabled") == Some("1")
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
}

/// Settings by name; without those that may not be asked for, or that the server does not have.
#[derive(Debug, Default)]
pub(crate) struct Config(HashMap<String, String>);

impl Config {
    /// Takes an answer to `CONFIG GET`.
    pub(crate) fn learn(&mut self, answer: Value) {
        let settings = answer.into_map().map(Map::inner).unwrap_or_default();
        self.0.extend(
            settings.into_iter().filter_map(|(name, value)| Some((name.into_string()?, value.as_string()?))),
        );
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_does_not_say_is_no_verdict() {
        for silent in ["", "role:slave", "slave_read_only:1"] {
            assert_eq!(Info::new(silent.to_owned()).primary(), None, "{silent}");
        }
    }

    #[test]
    fn a_replica_that_takes_writes_is_its_owners_business() {
        let info = |read_only: &str| {
            Info::new(format!(
                "role:slave\r\nmaster_host:a\r\nmaster_port:1\r\nslave_read_only:{read_only}\r\n"
            ))
        };
        assert_eq!(info("1").primary().as_deref(), Some("a:1"));
        assert_eq!(info("0").primary(), None);
    }
}
