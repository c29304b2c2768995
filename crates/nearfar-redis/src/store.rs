use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::WithOptions;
use fred::interfaces::{ClientLike, KeysInterface, SortedSetsInterface, StreamsInterface};
use fred::types::{CustomCommand, Key, Value};
use nearfar_core::backend::{Beat, ForeignWrites, L2, L2Error, PurgeCursor, Purged, ServerId, Settings};
use nearfar_core::{
    BeatReply, Change, Claim, ClaimOutcome, Echo, Effect, Fill, FillOutcome, Head, Holder, KeyWrite, Moment,
    Namespace, NodeId, Notice, PartitionId, Precondition, Reading, Renewal, TagHead, TagMark, Version,
};

use crate::doctor::Finding;
use crate::keys::{self, Keys};
use crate::lane::{Failure, Lane};
use crate::lanes::{Lanes, final_error};
use crate::rights;
use crate::scripts::{BEAT, CHANGE, CLAIM, FILL, OPEN, PURGE, RELEASE, RENEW, Script, TAGS, TOUCH};
use crate::topology::Kind;
use crate::tracking::Tracking;
use crate::wire::Owned;

/// A log longer than this is not fetched to its end: forgetting L1 is cheaper.
const MOST_REPLAYED: u64 = 20_000;

/// How many keys one step of a purge looks at, of whatever namespace, and how many one script: neither holds Redis up.
const SCANNED_AT_ONCE: i64 = 1_000;
const PURGED_AT_ONCE: usize = 100;

/// Lua's numbers are exact below this, so versions are.
const VERSIONS_END: u64 = 1 << 53;

/// How many partitions a namespace has on a cluster. Each is beaten for, so there are not more than it takes to spread
/// over the servers that people have.
const ON_A_CLUSTER: u16 = 16;

/// The shared store on Redis. [`connect`](crate::connect) makes it.
///
/// ```
/// fn assert_store<T: nearfar_core::backend::L2>() {}
/// assert_store::<nearfar_redis::RedisL2>();
/// ```
pub struct RedisL2 {
    lanes: Arc<Lanes>,
    log_len: u64,
    warnings: Vec<Finding>,
    /// Where servers may take each other's place.
    _scout: Option<Owned<()>>,
}

impl RedisL2 {
    /// Must be called inside the runtime.
    pub(crate) fn new(lanes: Lanes, log_len: u64, warnings: Vec<Finding>) -> Self {
        let lanes = Arc::new(lanes);
        let scouts = !matches!(lanes.topology.kind(), Kind::Single);
        let scout = scouts.then(|| Owned(tokio::spawn(Arc::clone(&lanes).scout())));
        Self { lanes, log_len, warnings, _scout: scout }
    }

    /// The same store, for whoever goes on with it by himself.
    fn alike(&self) -> Self {
        Self { lanes: Arc::clone(&self.lanes), log_len: self.log_len, warnings: Vec::new(), _scout: None }
    }

    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
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
        &self.warnings
    }

    /// Does something where a partition is. If it has moved, nothing was executed, and it is done once more there.
    async fn at<T, F>(
        &self,
        partition: &PartitionId,
        work: impl Fn(Arc<Lane>) -> F + Send + Sync,
    ) -> Result<T, L2Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        self.redirected(|| self.lanes.topology.home_of(partition), work).await
    }

    async fn redirected<T, F>(
        &self,
        home: impl Fn() -> Option<ServerId> + Send + Sync,
        work: impl Fn(Arc<Lane>) -> F + Send + Sync,
    ) -> Result<T, L2Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let lane = self.lane_to(home())?;
        match work(Arc::clone(&lane)).await {
            Err(Failure::Moved(to)) => self.lanes.redirect(to, &lane),
            Err(Failure::ReadOnly(_)) if self.has_sentinels() => {
                // It was replaced. The sentinels know by whom, if not yet then soon.
                self.lanes.doubt();
                return Err(L2Error::Unreachable);
            }
            Err(Failure::L2(lost @ L2Error::ConnectionLost(_))) => {
                // Perhaps over a slot that nobody owns, and would be again.
                self.lanes.doubt();
                return Err(lost);
            }
            outcome => return outcome.map_err(final_error),
        }
        work(self.lane_to(home())?).await.map_err(final_error)
    }

    /// What nobody has may be somewhere soon, so it is looked for.
    fn lane_to(&self, home: Option<ServerId>) -> Result<Arc<Lane>, L2Error> {
        let Some(server) = home else {
            self.lanes.doubt();
            return Err(L2Error::Unreachable);
        };
        self.lanes.lane(server)
    }

    pub(crate) async fn run(
        &self,
        partition: &PartitionId,
        script: &'static Script,
        (keys, args): (Vec<Key>, Vec<Value>),
    ) -> Result<Value, L2Error> {
        self.run_where(|| self.lanes.topology.home_of(partition), script, (keys, args)).await
    }

    async fn run_where(
        &self,
        home: impl Fn() -> Option<ServerId> + Send + Sync,
        script: &'static Script,
        (keys, args): (Vec<Key>, Vec<Value>),
    ) -> Result<Value, L2Error> {
        let run = |lane: Arc<Lane>| {
            let (keys, args) = (keys.clone(), args.clone());
            async move { lane.run(script, keys, args).await }
        };
        self.redirected(home, run).await
    }

    /// A step of a scan through all keys of the server that has the partition. Returns where to go on, 0 at the end, and the
    /// partition's keys of values among them.
    async fn scan(
        &self,
        partition: &PartitionId,
        names: &Keys,
        from: PurgeCursor,
    ) -> Result<(u64, Vec<Key>), L2Error> {
        let scan = |lane: Arc<Lane>| {
            let words = [from.number().to_string(), "MATCH".into(), names.all_values(), "COUNT".into()];
            let args: Vec<Value> =
                words.into_iter().map(Value::from).chain([SCANNED_AT_ONCE.into()]).collect();
            let command = CustomCommand::new_static("SCAN", None::<u16>, false);
            async move { lane.command(async |client| Box::pin(client.custom(command, args)).await).await }
        };
        let (next, keys): (String, Vec<Bytes>) = self.at(partition, scan).await?;
        let next = next.parse().map_err(|_| L2Error::Unexpected)?;
        Ok((next, keys.into_iter().map(Key::from).collect()))
    }

    fn has_sentinels(&self) -> bool {
        matches!(self.lanes.topology.kind(), Kind::Sentinel(_))
    }

    /// Whether messages go to their shard alone.
    pub(crate) fn is_sharded(&self) -> bool {
        self.lanes.topology.is_sharded()
    }
}

#[async_trait]
impl L2 for RedisL2 {
    fn default_partitions(&self) -> u16 {
        default_partitions(self.lanes.topology.is_cluster())
    }

    fn server_of(&self, partition: &PartitionId) -> ServerId {
        self.lanes.topology.server_of(partition)
    }

    async fn open(&self, namespace: &Namespace, settings: &Settings) -> Result<Settings, L2Error> {
        let first = PartitionId::new(namespace.clone(), 0);
        rights::check(self, &first).await?;
        let home = || self.lanes.topology.home_of_slot(|| keys::meta_slot(namespace));
        let call = (vec![keys::meta(namespace)], vec![settings.encode().into()]);
        let recorded = self.run_where(home, &OPEN, call).await;
        let recorded = recorded.map_err(|error| rights::of_settings(error, namespace))?;
        recorded.as_str().and_then(|text| Settings::decode(&text)).ok_or(L2Error::Unexpected)
    }

    async fn read_many(&self, partition: &PartitionId, keys: &[Bytes]) -> Result<Reading, L2Error> {
        let names = Keys::of(partition);
        let read = |lane: Arc<Lane>| {
            let keys: Vec<Key> = keys.iter().map(|key| names.value(key)).chain([names.head()]).collect();
            async move { lane.command(async |client| Box::pin(client.mget::<Value, _>(keys)).await).await }
        };
        let Value::Array(mut found) = self.at(partition, read).await? else {
            return Err(L2Error::Unexpected);
        };
        let head = found.pop().filter(|_| found.len() == keys.len()).ok_or(L2Error::Unexpected)?;
        let envelopes = found.into_iter().map(Value::into_bytes).collect();
        Ok(Reading { envelopes, head: parse_head(&head) })
    }

    async fn change(&self, partition: &PartitionId, change: Change) -> Result<Version, L2Error> {
        let call = change_call(&Keys::of(partition), &change, self.log_len);
        let answer = self.run(partition, CHANGE.for_shard(self.is_sharded()), call).await?;
        match answer.as_i64().ok_or(L2Error::Unexpected)? {
            0 => Err(L2Error::DeadlinePassed),
            -1 => Err(L2Error::Unmet),
            version => u64::try_from(version).map(Version::new).map_err(|_| L2Error::Unexpected),
        }
    }

    async fn fill_many(
        &self,
        partition: &PartitionId,
        fills: Vec<Fill>,
    ) -> Result<Vec<FillOutcome>, L2Error> {
        let names = Keys::of(partition);
        let (mut keys, mut args) = (vec![names.head()], Vec::new());
        for Fill { write: KeyWrite { key, envelope, keep }, base, deadline } in fills {
            keys.push(names.value(&key));
            let (deadline, base) = (decimal(deadline.micros()), decimal(base.number()));
            args.extend([deadline, base, envelope.into(), keep_millis(keep)]);
        }
        let Value::Array(answers) = self.run(partition, &FILL, (keys, args)).await? else {
            return Err(L2Error::Unexpected);
        };
        answers.iter().map(fill_outcome).collect()
    }

    async fn tag_marks(&self, partition: &PartitionId, tags: &[Bytes]) -> Result<Vec<TagMark>, L2Error> {
        let names = Keys::of(partition);
        let call = (vec![names.head(), names.tags()], tags.iter().cloned().map(Value::from).collect());
        let Value::Array(numbers) = self.run(partition, &TAGS, call).await? else {
            return Err(L2Error::Unexpected);
        };
        let mark = |pair: &[Value]| {
            let (wrong, stale) = (Version::new(number(&pair[0])?), Version::new(number(&pair[1])?));
            Ok::<_, L2Error>(TagMark { wrong, stale })
        };
        let marks: Vec<TagMark> = numbers.chunks_exact(2).map(mark).collect::<Result<_, _>>()?;
        if marks.len() == tags.len() { Ok(marks) } else { Err(L2Error::Unexpected) }
    }

    async fn purge(
        &self,
        partition: &PartitionId,
        from: PurgeCursor,
        fence_window: Duration,
    ) -> Result<Purged, L2Error> {
        let names = Keys::of(partition);
        let (next, found) = self.scan(partition, &names, from).await?;
        let examined = found.len() as u64;
        let mut removed = 0;
        for some in found.chunks(PURGED_AT_ONCE) {
            let keys = [names.head(), names.tags()].into_iter().chain(some.iter().cloned()).collect();
            let call = (keys, vec![keep_millis(Some(fence_window))]);
            removed += number(&self.run(partition, &PURGE, call).await?)?;
        }
        Ok(Purged { examined, removed, next: (next != 0).then(|| PurgeCursor::new(next)) })
    }

    async fn renew(&self, partition: &PartitionId, renewal: Renewal) -> Result<FillOutcome, L2Error> {
        let names = Keys::of(partition);
        let keys = vec![names.head(), names.value(&renewal.key)];
        let (deadline, base) = (decimal(renewal.deadline.micros()), decimal(renewal.base.number()));
        let keep = keep_millis(renewal.keep);
        let args = vec![deadline, base, renewal.identity.into(), renewal.header.into(), keep];
        fill_outcome(&self.run(partition, &RENEW, (keys, args)).await?)
    }

    async fn touch(
        &self,
        partition: &PartitionId,
        key: &Bytes,
        fence_window: Duration,
    ) -> Result<(), L2Error> {
        let keys = vec![Keys::of(partition).value(key)];
        self.run(partition, &TOUCH, (keys, vec![keep_millis(Some(fence_window))])).await.map(drop)
    }

    async fn claim(&self, partition: &PartitionId, claim: Claim) -> Result<ClaimOutcome, L2Error> {
        let names = Keys::of(partition);
        let keys = vec![names.value(&claim.key), names.claim(&claim.key)];
        let (holder, node) = (claim.holder.to_string(), claim.holder.node.to_string());
        let args = vec![claim.seen.into(), holder.into(), node.into(), keep_millis(Some(claim.keep))];
        match self.run(partition, &CLAIM, (keys, args)).await?.as_i64() {
            Some(-2) => Ok(ClaimOutcome::Overtaken),
            Some(-1) => Ok(ClaimOutcome::Granted),
            Some(micros) => {
                let left = u64::try_from(micros).map_err(|_| L2Error::Unexpected)?;
                Ok(ClaimOutcome::Held { left: Duration::from_micros(left) })
            }
            None => Err(L2Error::Unexpected),
        }
    }

    async fn release(&self, partition: &PartitionId, key: &Bytes, holder: Holder) -> Result<(), L2Error> {
        let names = Keys::of(partition);
        let notice = Notice { key: key.clone() }.encode();
        let args = vec![holder.to_string().into(), names.echoes().into(), notice.into()];
        let script = RELEASE.for_shard(self.is_sharded());
        self.run(partition, script, (vec![names.claim(key)], args)).await.map(drop)
    }

    async fn log(
        &self,
        partition: &PartitionId,
        since: Version,
        until: Version,
    ) -> Result<Vec<Bytes>, L2Error> {
        let names = Keys::of(partition);
        let read = |lane: Arc<Lane>| {
            let (log, first, last) = (names.log(), entry_id(since), entry_id(until));
            let entries = async |client: Client| {
                Box::pin(client.xrange_values(log, first, last, Some(MOST_REPLAYED))).await
            };
            async move { lane.command(entries).await }
        };
        let entries: Vec<LogEntry> = self.at(partition, read).await?;
        entries.into_iter().map(|(_, mut fields)| fields.remove("m").ok_or(L2Error::Unexpected)).collect()
    }

    async fn beat(&self, partition: &PartitionId, beat: &Beat) -> Result<BeatReply, L2Error> {
        let (keys, args) = beat_call(&Keys::of(partition), beat);
        let script = BEAT.for_shard(self.is_sharded());
        let try_out = |lane: Arc<Lane>| {
            let (keys, args) = (keys.clone(), args.clone());
            async move { lane.try_out(script, keys, args).await }
        };
        let Value::Array(numbers) = self.at(partition, try_out).await? else {
            return Err(L2Error::Unexpected);
        };
        let [sequence, time] = numbers.as_slice() else { return Err(L2Error::Unexpected) };
        Ok(BeatReply { sequence: Version::new(number(sequence)?), time: Moment::from_micros(number(time)?) })
    }

    async fn nodes(&self, partition: &PartitionId) -> Result<Vec<(NodeId, Moment)>, L2Error> {
        let names = Keys::of(partition);
        let list = |lane: Arc<Lane>| {
            let nodes = names.nodes();
            let listing = async |client: Client| client.zrange(nodes, 0, -1, None, false, None, true).await;
            async move { lane.command(listing).await }
        };
        let listed: Vec<(String, f64)> = self.at(partition, list).await?;
        // What is no node's id was written by somebody else.
        Ok(listed.into_iter().filter_map(|(id, seen)| Some((NodeId::parse(&id)?, moment_of(seen)))).collect())
    }

    async fn leave(&self, partition: &PartitionId, node: NodeId) -> Result<(), L2Error> {
        let names = Keys::of(partition);
        let leave = |lane: Arc<Lane>| {
            let (nodes, node) = (names.nodes(), node.to_string());
            async move { lane.command(async |client: Client| client.zrem(nodes, node).await).await }
        };
        self.at(partition, leave).await
    }

    fn reconnect(&self, server: ServerId) {
        self.lanes.reconnect(server);
    }

    async fn close(&self) {
        self.lanes.close();
    }

    fn foreign_writes(&self, partitions: &[PartitionId], spread: u64) -> Option<Box<dyn ForeignWrites>> {
        Some(Box::new(Tracking::new(self.alike(), partitions, spread)))
    }
}

/// How many partitions a namespace gets if nobody says otherwise.
pub(crate) fn default_partitions(on_a_cluster: bool) -> u16 {
    if on_a_cluster { ON_A_CLUSTER } else { 1 }
}

/// The client that an operation gets.
type Client = WithOptions<fred::clients::Client>;

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
    let mut keys = vec![names.head(), names.log(), names.tags()];
    let mut args: Vec<Value> = vec![
        decimal(change.deadline.micros()),
        effect_word(change.effect).into(),
        names.bus().into(),
        // Redis counts in signed numbers.
        decimal(log_len.min(i64::MAX as u64)),
        change.message.clone().into(),
        precondition(&change.precondition),
    ];
    let is_of_tags = matches!(change.effect, Effect::InvalidateTags | Effect::ExpireTags);
    for KeyWrite { key, envelope, keep } in &change.writes {
        if is_of_tags {
            args.extend([key.clone().into(), keep_millis(*keep)]);
        } else {
            keys.push(names.value(key));
            args.extend([envelope.clone().into(), keep_millis(*keep)]);
        }
    }
    (keys, args)
}

fn precondition(precondition: &Precondition) -> Value {
    match precondition {
        Precondition::None => "".into(),
        Precondition::Absent => "absent".into(),
        Precondition::Unchanged { seen, base } => {
            Bytes::from([format!("={base} ").as_bytes(), seen].concat()).into()
        }
    }
}

fn fill_outcome(answer: &Value) -> Result<FillOutcome, L2Error> {
    match number(answer)? {
        0 => Ok(FillOutcome::Refused),
        1 => Ok(FillOutcome::Stored),
        2 => Ok(FillOutcome::Late),
        _ => Err(L2Error::Unexpected),
    }
}

fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Write => "write",
        Effect::Clear => "clear",
        Effect::Expire => "expire",
        Effect::InvalidateTags => "invalidate_tags",
        Effect::ExpireTags => "expire_tags",
    }
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
    let numbers: Option<Vec<u64>> = text.split(' ').map(parse_digits).collect();
    let (sequence, floor, changed, longest_millis) = match *numbers?.as_slice() {
        [sequence, floor] => (sequence, floor, 0, 0),
        [sequence, floor, changed, longest_millis] => (sequence, floor, changed, longest_millis),
        _ => return None,
    };
    let is_valid = sequence < VERSIONS_END && floor.max(changed) <= sequence;
    let tags = TagHead { changed: Version::new(changed), longest_millis };
    (is_valid && longest_millis <= TagHead::ENDLESS).then(|| Head {
        sequence: Version::new(sequence),
        floor: Version::new(floor),
        tags,
    })
}

fn parse_digits(text: &str) -> Option<u64> {
    // `parse` takes a plus sign, which Lua's pattern does not.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Debug for RedisL2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisL2").field("servers", &self.lanes.topology.addresses()).finish_non_exhaustive()
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
