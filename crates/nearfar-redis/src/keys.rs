use bytes::Bytes;
use fred::types::Key;
use fred::util::redis_keyslot;
use nearfar_core::{Namespace, NodeId, PartitionId};

/// The names of a partition's keys and channels.
///
/// The braces are a hash tag, which keeps a partition in one slot. A namespace has neither brace nor `#`, and the
/// names of values go on with `:` where the others go on with `#`, so no user key can collide with them.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn of(partition: &PartitionId) -> Self {
        Self { prefix: prefix(partition) }
    }

    pub(crate) fn value(&self, key: &[u8]) -> Key {
        self.of_key(":", key)
    }

    /// What the names of all values of the partition begin with.
    pub(crate) fn values(&self) -> String {
        self.named(":")
    }

    /// Where the claim of a key stands.
    pub(crate) fn claim(&self, key: &[u8]) -> Key {
        self.of_key("#claim:", key)
    }

    fn of_key(&self, infix: &str, key: &[u8]) -> Key {
        Bytes::from([self.prefix.as_bytes(), infix.as_bytes(), key].concat()).into()
    }

    pub(crate) fn head(&self) -> Key {
        self.named("#head").into()
    }

    pub(crate) fn log(&self) -> Key {
        self.named("#log").into()
    }

    /// The changes of tags.
    pub(crate) fn tags(&self) -> Key {
        self.named("#tags").into()
    }

    pub(crate) fn nodes(&self) -> Key {
        self.named("#nodes").into()
    }

    pub(crate) fn bus(&self) -> String {
        self.named("#bus")
    }

    pub(crate) fn echo(&self, node: NodeId) -> String {
        format!("{}{node}", self.echoes())
    }

    /// What the names of all nodes' echo channels begin with.
    pub(crate) fn echoes(&self) -> String {
        self.named("#echo:")
    }

    /// What rights are tried on; it never exists.
    pub(crate) fn trial(&self) -> Key {
        self.named("#rights").into()
    }

    /// Where the right to publish is tried; nobody listens.
    pub(crate) fn trial_channel(&self) -> String {
        self.named("#echo:rights")
    }

    /// The pattern of the keys of values.
    pub(crate) fn all_values(&self) -> String {
        self.named(":*")
    }

    /// The pattern of all keys of the partition.
    pub(crate) fn all_keys(&self) -> String {
        self.named("*")
    }

    /// The pattern of all channels of the partition.
    pub(crate) fn all_channels(&self) -> String {
        self.named("#*")
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// What the names of all keys and channels of a partition begin with: its hash tag.
pub(crate) fn prefix(partition: &PartitionId) -> String {
    format!("{{{partition}}}")
}

/// Where the settings of a namespace stand.
pub(crate) fn meta(namespace: &Namespace) -> Key {
    format!("{{{namespace}}}#meta").into()
}

/// In which slot.
pub(crate) fn meta_slot(namespace: &Namespace) -> u16 {
    redis_keyslot(namespace.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let namespace = Namespace::new("users").unwrap();
        let keys = Keys::of(&PartitionId::new(namespace.clone(), 0));
        assert_eq!(keys.value(b"#head").as_bytes(), b"{users.0}:#head");
        assert_eq!(keys.head().as_bytes(), b"{users.0}#head");
        assert_eq!(keys.claim(b"42").as_bytes(), b"{users.0}#claim:42");
        assert_eq!(keys.log().as_bytes(), b"{users.0}#log");
        assert_eq!(keys.tags().as_bytes(), b"{users.0}#tags");
        assert_eq!(keys.nodes().as_bytes(), b"{users.0}#nodes");
        assert_eq!(keys.bus(), "{users.0}#bus");
        assert_eq!(keys.echo(NodeId::new(255)), "{users.0}#echo:00000000000000ff");
        assert_eq!(meta(&namespace).as_bytes(), b"{users}#meta");
    }
}
