//! Which server has which partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use fred::types::Value;
use fred::util::redis_keyslot;
use nearfar_core::PartitionId;
use nearfar_core::backend::ServerId;
use tokio::sync::watch;

use crate::keys;
use crate::server::Server;

const SLOTS: u16 = 16_384;

/// Beside the last owner of a slot, while nobody owns it.
const VACANT: u32 = 1 << 31;

/// The servers that are known, and which of them has what.
pub(crate) struct Topology {
    kind: Kind,
    /// Those that have ever been heard of, by id. Few ever are, so none is forgotten.
    servers: RwLock<Vec<Arc<Server>>>,
    /// Who owns each slot; where there are no slots, everything is one.
    owners: Box<[AtomicU32]>,
    /// Whether a message goes to its shard alone, once it is known.
    sharded: OnceLock<bool>,
    changed: watch::Sender<()>,
}

/// Who says which server has what.
pub(crate) enum Kind {
    /// The URL, once and for all.
    Single,
    /// Each server of the cluster.
    Cluster,
    Sentinel(Sentinels),
}

/// Those who know which server is the primary, and by which name they know it.
pub(crate) struct Sentinels {
    /// Each of them.
    pub(crate) council: Vec<Arc<Server>>,
    pub(crate) service: String,
    /// As which any primary is reached, but for its address.
    pub(crate) primary: Arc<Server>,
}

/// Slots that a server has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SlotRange {
    first: u16,
    last: u16,
    /// Without a host, it is the one that was asked.
    host: Option<String>,
    port: u16,
}

impl Topology {
    /// One server for everything.
    pub(crate) fn single(server: Arc<Server>) -> Self {
        Self::new(Kind::Single, vec![server], 1)
    }

    /// A cluster, of which nothing is known but where to ask.
    pub(crate) fn cluster(seeds: Vec<Arc<Server>>) -> Self {
        Self::new(Kind::Cluster, seeds, SLOTS)
    }

    /// A primary, which may be replaced, and those who say by which server.
    pub(crate) fn sentinel(primary: Arc<Server>, sentinels: Sentinels) -> Self {
        Self::new(Kind::Sentinel(sentinels), vec![primary], 1)
    }

    fn new(kind: Kind, servers: Vec<Arc<Server>>, slots: u16) -> Self {
        let owners = (0..slots).map(|_| AtomicU32::new(0)).collect();
        let (servers, sharded, changed) = (RwLock::new(servers), OnceLock::new(), watch::Sender::new(()));
        Self { kind, servers, owners, sharded, changed }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster)
    }

    /// Whether messages are published to their shard alone, which takes Redis 7.
    pub(crate) fn is_sharded(&self) -> bool {
        self.is_cluster() && self.sharded.get().is_none_or(|sharded| *sharded)
    }

    /// For good: a cluster that has learnt of sharded channels since still has the others.
    pub(crate) fn set_sharded(&self, sharded: bool) {
        let _ = self.sharded.set(sharded);
    }

    pub(crate) fn knows_channels(&self) -> bool {
        self.sharded.get().is_some()
    }

    /// The server of a partition; on a cluster of which nothing is known yet, one that can be asked.
    pub(crate) fn server_of(&self, partition: &PartitionId) -> ServerId {
        self.owner_of(|| redis_keyslot(keys::prefix(partition).as_bytes()))
    }

    /// The last server of a slot, also if nobody owns it now.
    pub(crate) fn owner_of(&self, slot: impl FnOnce() -> u16) -> ServerId {
        ServerId::new(self.entry_of(slot) & !VACANT)
    }

    /// The server of a partition; `None` while nobody owns it.
    pub(crate) fn home_of(&self, partition: &PartitionId) -> Option<ServerId> {
        self.home_of_slot(|| redis_keyslot(keys::prefix(partition).as_bytes()))
    }

    /// The server of a slot; `None` while nobody owns it. A command for it would end the connection; see
    /// [`is_cluster_down`](crate::error::is_cluster_down).
    pub(crate) fn home_of_slot(&self, slot: impl FnOnce() -> u16) -> Option<ServerId> {
        owned(self.entry_of(slot))
    }

    fn entry_of(&self, slot: impl FnOnce() -> u16) -> u32 {
        let entry = if let [only] = &*self.owners { only } else { &self.owners[usize::from(slot())] };
        entry.load(Ordering::Relaxed)
    }

    pub(crate) fn server(&self, id: ServerId) -> Arc<Server> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&servers[id.number() as usize])
    }

    pub(crate) fn servers(&self) -> Vec<ServerId> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        (0..servers.len()).filter_map(|number| u32::try_from(number).ok()).map(ServerId::new).collect()
    }

    /// Of all that are known, for people.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers().into_iter().map(|id| self.server(id).address()).collect()
    }

    /// Those that have slots, each once.
    pub(crate) fn owners(&self) -> Vec<ServerId> {
        let owners: BTreeSet<u32> = self.owners.iter().map(|owner| owner.load(Ordering::Relaxed)).collect();
        owners.into_iter().filter_map(owned).collect()
    }

    /// Takes in what a server has said of the cluster.
    pub(crate) fn learn(&self, ranges: &[SlotRange], asked: &Server) {
        if !self.is_cluster() {
            return;
        }
        self.assign(ranges.iter().flat_map(|range| self.assignments(range, asked)));
    }

    /// Takes in what several servers have said of the cluster: of each slot, what most of them say. Where they are of two
    /// minds, all stays as it is. A slot is nobody's if nobody names an owner, or the one that they name does not.
    pub(crate) fn learn_from_all(&self, answers: &[(Vec<SlotRange>, &Server)]) {
        let mut votes: Vec<Vec<u32>> = vec![Vec::new(); self.owners.len()];
        let mut views = Vec::new();
        for (ranges, asked) in answers {
            let mut knows = vec![false; self.owners.len()];
            for (slot, id) in ranges.iter().flat_map(|range| self.assignments(range, asked)) {
                votes[slot].push(id);
                knows[slot] = true;
            }
            views.push((self.id_of((*asked).clone()), knows));
        }
        let elected = votes.into_iter().enumerate().filter_map(|(slot, votes)| {
            let all = votes.len();
            if all == 0 {
                return Some((slot, self.owners[slot].load(Ordering::Relaxed) | VACANT));
            }
            let id = majority(votes, all)?;
            let disowned = views.iter().any(|(asked, knows)| *asked == id && !knows[slot]);
            Some((slot, if disowned { id | VACANT } else { id }))
        });
        self.assign(elected);
    }

    /// Takes in who the primary is.
    pub(crate) fn promote(&self, host: &str, port: u16) {
        let Kind::Sentinel(Sentinels { primary, .. }) = &self.kind else { return };
        self.assign([(0, self.id_of(primary.at(host, port)))]);
    }

    /// The slots of a range, each with the id of the server that it names.
    fn assignments(&self, range: &SlotRange, asked: &Server) -> impl Iterator<Item = (usize, u32)> + use<> {
        let named =
            range.host.as_ref().map_or_else(|| asked.beside(range.port), |host| asked.at(host, range.port));
        let id = self.id_of(named);
        (range.first..=range.last.min(SLOTS - 1)).map(move |slot| (usize::from(slot), id))
    }

    /// Gives slots to servers, and says so if that is news.
    fn assign(&self, assignments: impl IntoIterator<Item = (usize, u32)>) {
        let mut news = false;
        for (slot, id) in assignments {
            news |= self.owners[slot].swap(id, Ordering::Relaxed) != id;
        }
        if news {
            self.changed.send_replace(());
        }
    }

    /// The id of a server, which is a new one if it was never heard of.
    fn id_of(&self, named: Server) -> u32 {
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        let known = servers.iter().position(|server| server.address() == named.address());
        let position = known.unwrap_or_else(|| {
            servers.push(Arc::new(named));
            servers.len() - 1
        });
        u32::try_from(position).expect("there are not as many servers")
    }

    /// Speaks when slots have moved.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl SlotRange {
    /// Reads what `CLUSTER SLOTS` says: arrays of first slot, last slot, and servers, of which the first is the
    /// primary: host, port, and more. What cannot be read is left out.
    pub(crate) fn parse_all(answer: Value) -> Vec<Self> {
        let ranges = if let Value::Array(ranges) = answer { ranges } else { Vec::new() };
        ranges.into_iter().filter_map(Self::parse).collect()
    }

    fn parse(range: Value) -> Option<Self> {
        let Value::Array(range) = range else { return None };
        let [first, last, Value::Array(primary), ..] = range.as_slice() else { return None };
        let [host, port, ..] = primary.as_slice() else { return None };
        let slot = |value: &Value| u16::try_from(value.as_u64()?).ok();
        Some(Self {
            first: slot(first)?,
            last: slot(last)?,
            host: host_of(host.as_str().as_deref()),
            port: slot(port)?,
        })
    }

    /// Reads `MOVED 3999 127.0.0.1:6381`.
    pub(crate) fn of_redirection(details: &str) -> Option<Self> {
        let mut words = details.strip_prefix("MOVED ")?.split_whitespace();
        let slot = words.next()?.parse().ok()?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        Some(Self { first: slot, last: slot, host: host_of(Some(host)), port: port.parse().ok()? })
    }
}

/// The owner of a slot, if it has one.
fn owned(entry: u32) -> Option<ServerId> {
    (entry & VACANT == 0).then(|| ServerId::new(entry))
}

/// What more than half of so many vote for.
pub(crate) fn majority<T: Ord>(votes: impl IntoIterator<Item = T>, of: usize) -> Option<T> {
    let mut count: BTreeMap<T, usize> = BTreeMap::new();
    votes.into_iter().for_each(|vote| *count.entry(vote).or_default() += 1);
    count.into_iter().find(|(_, votes)| 2 * votes > of).map(|(vote, _)| vote)
}

/// A server that does not know its own name says nothing, or a question mark.
fn host_of(named: Option<&str>) -> Option<String> {
    named.filter(|host| !host.is_empty() && *host != "?").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Arc<Server> {
        Arc::new(Server::of_url(url))
    }

    fn range(first: u16, last: u16, host: Option<&str>, port: u16) -> SlotRange {
        SlotRange { first, last, host: host.map(str::to_owned), port }
    }

    #[test]
    fn redirections_are_read_and_rubbish_is_not() {
        let moved = SlotRange::of_redirection("MOVED 3999 127.0.0.1:6381");
        assert_eq!(moved, Some(range(3999, 3999, Some("127.0.0.1"), 6381)));
        assert_eq!(SlotRange::of_redirection("MOVED 1 :6381"), Some(range(1, 1, None, 6381)));
        assert_eq!(SlotRange::of_redirection("MOVED 1 ::1:6381"), Some(range(1, 1, Some("::1"), 6381)));
        for rubbish in ["", "MOVED", "MOVED x y", "MOVED 1 host", "MOVED 99999 h:1", "ASK 1 h:1"] {
            assert_eq!(SlotRange::of_redirection(rubbish), None, "{rubbish:?}");
        }
    }

    #[test]
    fn slots_move_to_servers_that_were_not_known() {
        let seed = server("redis://127.0.0.1:1");
        let topology = Topology::cluster(vec![Arc::clone(&seed)]);
        let mut changes = topology.changes();
        let partition = PartitionId::new(nearfar_core::Namespace::new("users").unwrap(), 3);
        let slot = redis_keyslot(b"{users.3}");
        topology.learn(&[range(0, 16_383, None, 1), range(slot, slot, Some("10.0.0.9"), 7)], &seed);
        assert_eq!(topology.server(topology.server_of(&partition)).address(), "10.0.0.9:7");
        assert_eq!(topology.owners().len(), 2);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        topology.learn(&[range(slot, slot, Some("10.0.0.9"), 7)], &seed);
        assert!(!changes.has_changed().unwrap(), "nothing new");
    }

    #[test]
    fn a_slot_that_nobody_names_or_whose_owner_does_not_is_nobodys_until_it_is_named_again() {
        let servers = [1, 2, 3].map(|port| server(&format!("redis://h:{port}")));
        let topology = Topology::cluster(servers.to_vec());
        let all = |owner| vec![range(0, 16_383, None, owner)];
        let but_5 = || vec![range(0, 4, None, 1), range(6, 16_383, None, 1)];
        let say = |said: [Vec<SlotRange>; 3]| {
            topology
                .learn_from_all(&said.into_iter().zip(servers.iter().map(|it| &**it)).collect::<Vec<_>>());
            let owner = topology.owner_of(|| 5);
            assert_eq!(topology.server(owner).address(), "h:1", "now or before");
            (topology.home_of_slot(|| 5).is_some(), topology.home_of_slot(|| 6).is_some())
        };
        let named = |port| vec![range(0, 16_383, Some("h"), port)];
        let others_name_1 = || [named(1), named(1)];
        let [second, third] = others_name_1();
        assert_eq!(say([all(1), second, third]), (true, true));
        assert_eq!(say([but_5(), Vec::new(), Vec::new()]), (false, true), "nobody names an owner");
        let [second, third] = others_name_1();
        assert_eq!(say([all(1), second, third]), (true, true), "it is named again");
        let [second, third] = others_name_1();
        assert_eq!(say([but_5(), second, third]), (false, true), "its owner does not know of it");
        let [second, _] = others_name_1();
        assert_eq!(say([all(1), second, Vec::new()]), (true, true), "the last to hear of it");
    }

    #[test]
    fn what_cannot_be_read_of_the_slots_is_left_out() {
        let primary = Value::Array(vec!["10.0.0.1".into(), Value::Integer(6379), "id".into()]);
        let good = Value::Array(vec![Value::Integer(0), Value::Integer(5), primary]);
        let answer = Value::Array(vec![Value::Null, good, Value::Array(vec![Value::Integer(1)]), "x".into()]);
        assert_eq!(SlotRange::parse_all(answer), [range(0, 5, Some("10.0.0.1"), 6379)]);
        assert_eq!(SlotRange::parse_all(Value::Null), []);
    }
}
