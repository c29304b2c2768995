use std::time::Duration;

use nearfar_bench::Row;

/// How long what is stored lives: longer than a run lasts, so that nothing expires while it is measured.
pub const TTL: Duration = Duration::from_mins(5);

/// A two-tier cache of rows by number, set up as its own documentation recommends.
///
/// Its handles are clones, one for each task. What an implementation does besides calling the peer, such as making a
/// string of a number, is what a service would have to do.
pub trait Peer: Clone + Send + Sync + 'static {
    /// What tables call it.
    const NAME: &'static str;
    /// What [`Peer::set`] does.
    const WRITES: Writes;
    /// What a read hands out: a row of the caller's own, or a shared one.
    type Hit: Send;

    /// A node on that server, whose L1 is empty and has room for so many rows.
    fn open(url: &str, l1_entries: u64) -> impl Future<Output = Self> + Send;

    /// The row of a number, if L1 or L2 has it.
    fn get(&self, id: u64) -> impl Future<Output = Option<Self::Hit>> + Send;

    /// What was handed out.
    fn row(hit: &Self::Hit) -> &Row;

    /// Stores a row.
    fn set(&self, id: u64, row: Row) -> impl Future<Output = ()> + Send;
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It goes to L2, and the other nodes are told.
    Tell,
    /// It goes to L2, and the other nodes keep what they have.
    Silent,
    /// There is no write, only the load of a value that is not there.
    Missing,
}

/// A peer that loads what it does not have.
pub trait Loader: Peer {
    /// The row of a number, loaded and stored if neither tier has it.
    fn get_or_load<L, F>(&self, id: u64, load: L) -> impl Future<Output = Self::Hit> + Send
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Row> + Send + 'static;
}
