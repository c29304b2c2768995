use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use fred::error::Error as FredError;
use fred::interfaces::{KeysInterface, SortedSetsInterface, StreamsInterface};
use fred::types::{Key, Value};
use nearfar_core::backend::{Beat, L2, L2Error, Settings};
use nearfar_core::{
    BeatReply, Change, Echo, Fill, FillOutcome, Head, KeyWrite, Moment, Namespace, NodeId, Snapshot, Version,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::connection::Connection;
use crate::doctor::Finding;
use crate::error::l2_error;
use crate::keys::{self, Keys};
use crate::scripts::{BEAT, CHANGE, FILL, OPEN, Script};
use crate::server::{IN_FLIGHT, Server};
use crate::wire::Wire;

/// A log longer than this is not fetched to its end: forgetting L1 is cheaper.
const MOST_REPLAYED: u64 = 20_000;

/// fred's own time limit comes first, since it also takes the command out of the queue; this one is for its gaps.
const LAST_RESORT: Duration = Duration::from_millis(20);

/// Lua's numbers are exact below this, so versions are.
const VERSIONS_END: u64 = 1 << 53;

/// The shared store on Redis. [`connect`](crate::connect) makes it.
///
/// ```
/// fn assert_store<T: nearfar_core::backend::L2>() {}
/// assert_store::<nearfar_redis::RedisL2>();
/// ```
pub struct RedisL2 {
    server: Arc<Server>,
    /// `None` once closed.
    connection: ArcSwapOption<Connection>,
    /// Held by operations under way; see [`IN_FLIGHT`].
    turns: Semaphore,
    log_len: u64,
    time_limit: Duration,
    warning: Option<Finding>,
    /// Where replacement connections live, whatever thread asks for them.
    runtime: Handle,
}

impl RedisL2 {
    pub(crate) fn new(
        server: Arc<Server>,
        connection: Connection,
        log_len: u64,
        time_limit: Duration,
    ) -> Self {
        Self {
            server,
            connection: ArcSwapOption::from_pointee(connection),
            turns: Semaphore::new(IN_FLIGHT),
            log_len,
            time_limit,
            warning: None,
            runtime: Handle::current(),
        }
    }

    pub(crate) fn warned(self, warning: Option<Finding>) -> Self {
        Self { warning, ..self }
    }

    /// What of the server's settings, as they were when it was connected to, will hurt one day. None after
    /// [`StartDegraded`](crate::OnUnreachable::StartDegraded), nor if the user may not ask.
    ///
    /// ```no_run
    /// # // Needs a server.
    /// # fn f(l2: &nearfar_redis::RedisL2) {
    /// for warning in l2.warnings() {
    ///     eprintln!("{warning}");
    /// }
    /// # }
    /// ```
    pub fn warnings(&self) -> &[Finding] {
        self.warning.as_slice()
    }

    fn connection(&self) -> Result<Arc<Connection>, L2Error> {
        self.connection.load_full().ok_or(L2Error::Closed)
    }

    fn healthy(&self) -> Result<Arc<Connection>, L2Error> {
        let connection = self.connection()?;
        if connection.is_up() { Ok(connection) } else { Err(L2Error::Unreachable) }
    }

    /// Waits for its turn, then for the answer, no longer than an operation may take.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, FredError>>) -> Result<T, L2Error> {
        let in_turn = async {
            let _turn = self.turns.acquire().await;
            work.await
        };
        limited(self.time_limit, in_turn).await
    }

    async fn run(&self, script: &Script, keys: Vec<Key>, args: Vec<Value>) -> Result<Value, L2Error> {
        let connection = self.healthy()?;
        self.bounded(script.run(connection.client(), keys, args)).await
    }
}

async fn limited<T>(limit: Duration, work: impl Future<Output = Result<T, FredError>>) -> Result<T, L2Error> {
    match tokio::time::timeout(limit.saturating_add(LAST_RESORT), work).await {
        Ok(answer) => answer.map_err(|error| l2_error(&error)),
        Err(_) => Err(L2Error::TimedOut),
    }
}

#[async_trait]
impl L2 for RedisL2 {
    async fn open(&self, namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error> {
        let args = vec![settings.encode().into()];
        let recorded = self.run(&OPEN, vec![keys::meta(namespace)], args).await?;
        recorded.as_str().and_then(|text| Settings::decode(&text)).ok_or(L2Error::Unexpected)
    }

    async fn read(&self, namespace: &Namespace, key: &Bytes) -> Result<Snapshot, L2Error> {
        let names = Keys::of(namespace);
        let connection = self.healthy()?;
        let keys = vec![names.value(key), names.head()];
        let found = self.bounded(Box::pin(connection.client().mget(keys))).await?;
        let Value::Array(found) = found else { return Err(L2Error::Unexpected) };
        let [envelope, head] = <[Value; 2]>::try_from(found).map_err(|_| L2Error::Unexpected)?;
        Ok(Snapshot { envelope: envelope.into_bytes(), head: parse_head(&head) })
    }

    async fn change(&self, namespace: &Namespace, change: Change) -> Result<Version, L2Error> {
        let names = Keys::of(namespace);
        let (keys, args) = change_call(&names, &change, self.log_len);
        match number(&self.run(&CHANGE, keys, args).await?)? {
            0 => Err(L2Error::DeadlinePassed),
            version => Ok(Version::new(version)),
        }
    }

    async fn fill(&self, namespace: &Namespace, fill: Fill) -> Result<FillOutcome, L2Error> {
        let names = Keys::of(namespace);
        let KeyWrite { key, envelope, keep } = fill.write;
        let keys = vec![names.head(), names.value(&key)];
        let base = decimal(fill.base.number());
        let args = vec![decimal(fill.deadline.micros()), base, envelope.into(), keep_millis(keep)];
        match number(&self.run(&FILL, keys, args).await?)? {
            0 => Ok(FillOutcome::Refused),
            1 => Ok(FillOutcome::Stored),
            2 => Ok(FillOutcome::Late),
            _ => Err(L2Error::Unexpected),
        }
    }

    async fn log(
        &self,
        namespace: &Namespace,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error> {
        let connection = self.healthy()?;
        let (log, first, last) = (Keys::of(namespace).log(), entry_id(since), entry_id(until));
        let entries: Vec<LogEntry> = self
            .bounded(Box::pin(connection.client().xrange_values(log, first, last, Some(MOST_REPLAYED))))
            .await?;
        entries.into_iter().map(|(_, mut fields)| fields.remove("m").ok_or(L2Error::Unexpected)).collect()
    }

    /// Tries even when the server is known to be unreachable, and without waiting for a turn: it is what finds out
    /// that things are well again.
    async fn beat(&self, namespace: &Namespace, beat: &Beat) -> Result<BeatReply, L2Error> {
        let connection = self.connection()?;
        if connection.has_ended() {
            self.reconnect();
        }
        let (keys, args) = beat_call(&Keys::of(namespace), beat);
        let answer = limited(self.time_limit, BEAT.run(connection.client(), keys, args)).await?;
        connection.proved_up();
        let Value::Array(numbers) = answer else { return Err(L2Error::Unexpected) };
        let [sequence, time] = numbers.as_slice() else { return Err(L2Error::Unexpected) };
        Ok(BeatReply { sequence: Version::new(number(sequence)?), time: Moment::from_micros(number(time)?) })
    }

    async fn nodes(&self, namespace: &Namespace) -> Result<Vec<(NodeId, Moment)>, L2Error> {
        let connection = self.healthy()?;
        let nodes = Keys::of(namespace).nodes();
        let listing = connection.client().zrange(nodes, 0, -1, None, false, None, true);
        let listed: Vec<(String, f64)> = self.bounded(Box::pin(listing)).await?;
        // What is no node's id was written by somebody else.
        Ok(listed.into_iter().filter_map(|(id, seen)| Some((NodeId::parse(&id)?, moment_of(seen)))).collect())
    }

    async fn leave(&self, namespace: &Namespace, node: NodeId) -> Result<(), L2Error> {
        let connection = self.healthy()?;
        let nodes = Keys::of(namespace).nodes();
        self.bounded(Box::pin(connection.client().zrem(nodes, node.to_string()))).await
    }

    /// Operations under way keep the old connection until they end, each within its time limit.
    fn reconnect(&self) {
        let present = self.connection.load();
        let Some(connection) = present.as_ref().filter(|connection| connection.is_settled()) else { return };
        let _inside = self.runtime.enter();
        let wire = Wire::open(self.server.command_client());
        let fresh = Arc::new(Connection::opening(wire, &self.server.once()));
        // Whoever came first has replaced it, or closed the store: then the fresh one is dropped again.
        self.connection.compare_and_swap(connection, Some(fresh));
    }

    async fn close(&self) {
        self.connection.store(None);
    }
}

/// Scores are exact: microseconds stay below 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a hostile score saturates")]
fn moment_of(score: f64) -> Moment {
    Moment::from_micros(score as u64)
}

/// The id of a stream entry with its fields.
type LogEntry = (String, HashMap<String, Bytes>);

fn entry_id(version: Version) -> String {
    format!("{version}-0")
}

fn change_call(names: &Keys, change: &Change, log_len: u64) -> (Vec<Key>, Vec<Value>) {
    let mut keys = vec![names.head(), names.log()];
    let mut args: Vec<Value> = vec![
        decimal(change.deadline.micros()),
        decimal(change.clears.into()),
        names.bus().into(),
        // Redis counts in signed numbers.
        decimal(log_len.min(i64::MAX as u64)),
        change.message.clone().into(),
    ];
    for write in &change.writes {
        keys.push(names.value(&write.key));
        args.extend([write.envelope.clone().into(), keep_millis(write.keep)]);
    }
    (keys, args)
}

fn beat_call(names: &Keys, beat: &Beat) -> (Vec<Key>, Vec<Value>) {
    let echo = Echo { beat: beat.id, sequence: Version::UNKNOWN, time: Moment::default() }.encode();
    let forget_after = u64::try_from(beat.forget_after.as_micros()).unwrap_or(u64::MAX);
    let args = vec![
        beat.node.to_string().into(),
        decimal(forget_after),
        names.echo(beat.node).into(),
        // The script appends sequence and time.
        echo.slice(..echo.len() - 16).into(),
    ];
    (vec![names.head(), names.nodes()], args)
}

/// Milliseconds for PX, where 0 stands for "for ever". Rounded up: an entry fences for at least so long. PX refuses
/// what overflows its clock, so what is out of all proportion is for ever too.
fn keep_millis(keep: Option<Duration>) -> Value {
    let millis = keep.map(|keep| keep.as_micros().div_ceil(1000).max(1));
    let millis = millis.and_then(|millis| u64::try_from(millis).ok()).filter(|&millis| millis < VERSIONS_END);
    decimal(millis.unwrap_or(0))
}

fn decimal(number: u64) -> Value {
    number.to_string().into()
}

fn number(answer: &Value) -> Result<u64, L2Error> {
    answer.as_u64().ok_or(L2Error::Unexpected)
}

/// The scripts' `read_head`.
pub(crate) fn parse_head(value: &Value) -> Option<Head> {
    let text = std::str::from_utf8(value.as_bytes()?).ok()?;
    let (sequence, floor) = text.split_once(' ')?;
    let (sequence, floor) = (parse_digits(sequence)?, parse_digits(floor)?);
    let valid = sequence < VERSIONS_END && floor <= sequence;
    valid.then(|| Head { sequence: Version::new(sequence), floor: Version::new(floor) })
}

fn parse_digits(text: &str) -> Option<u64> {
    // `parse` takes a plus sign, which Lua's pattern does not.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Debug for RedisL2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisL2").field("server", &self.server.address()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Option<(u64, u64)> {
        parse_head(&text.into()).map(|head| (head.sequence.number(), head.floor.number()))
    }

    #[test]
    fn a_garbled_head_is_no_head() {
        assert_eq!(head("9 4"), Some((9, 4)));
        for garbled in ["", "9", "9 ", " 4", "9 4 ", "+9 4", "4 9", "9007199254740992 1", "nine four", "9\n4"]
        {
            assert_eq!(head(garbled), None, "{garbled:?}");
        }
    }

    #[test]
    fn keeping_is_rounded_up_and_never_refused_by_px() {
        let millis = |keep| keep_millis(keep).into_string().unwrap();
        assert_eq!(millis(None), "0");
        assert_eq!(millis(Some(Duration::ZERO)), "1");
        assert_eq!(millis(Some(Duration::from_micros(1001))), "2");
        assert_eq!(millis(Some(Duration::MAX)), "0");
    }
}
