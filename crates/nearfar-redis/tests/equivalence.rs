//! The scripts mean what `Partition` means: random operations, applied to both, have the same outcome.
//!
//! Only the clocks differ, so versions are compared by what they are to each other: each is replaced by its rank among
//! all versions that its side has shown so far.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::{NODE, beat, key, options, partition, value};
use nearfar_core::backend::{L2, L2Error, PurgeCursor};
use nearfar_core::{
    Change, Claim, ClaimOutcome, Envelope, EnvelopeHeader, Fill, FillOutcome, Holder, KeyWrite, Kind,
    Message, Moment, Partition, Precondition, Refusal, Renewal, Snapshot, TagMark, Tags, Version,
};
use nearfar_redis::{RedisL2, connect};
use nearfar_testkit::RedisServer;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

const KEYS: [&str; 3] = ["", "#head", "k\u{0}\r\n"];
const TAGS: [&str; 3] = ["red", "ed", "+"];
const HOUR: Duration = Duration::from_secs(3600);
const PAST: Moment = Moment::from_micros(1);

/// What another program, or another generation of this one, may have left under a key.
const FOREIGN: [&[u8]; 5] = [
    b"",
    b"NF\x01",
    b"hello from another program, which goes on for a while",
    b"NF\x09\x01 of another generation, and as long as a header",
    b"NF\x01\x01\0\0\0\0",
];

#[derive(Clone, Debug)]
enum Op {
    Set { key: usize, payload: Vec<u8>, keep: Option<Duration>, late: bool },
    SetWithIdle { key: usize, payload: Vec<u8> },
    SetForeign { key: usize, which: usize },
    SetTagged { key: usize, tags: Vec<&'static str>, ttl: Option<Duration> },
    SetAbsent { key: usize, payload: Vec<u8> },
    Update { key: usize, payload: Vec<u8>, base: Base, of_another: bool },
    ChangeTags { tags: Vec<&'static str>, stale: bool },
    TagMarks,
    Purge,
    Invalidate { keys: Vec<usize> },
    Expire { key: usize },
    Clear,
    Fill { proposals: Vec<Proposal>, tags: Vec<&'static str> },
    Renew { key: usize, payload: Vec<u8>, base: Base, late: bool, of_another: bool },
    Touch { key: usize },
    Claim { key: usize, holder: u64, of_another: bool },
    Release { key: usize, holder: u64 },
    Beat,
    Read { key: usize },
    Flush,
}

/// Of a fill: a key, and with which base, and whether too late.
type Proposal = (usize, Base, bool);

/// A base, chosen so that it means the same on both sides.
#[derive(Clone, Debug)]
enum Base {
    Zero,
    Head,
    Beyond,
    /// The n-th of the versions that were ever seen.
    Seen(prop::sample::Index),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0..KEYS.len();
    let payload = || prop::collection::vec(any::<u8>(), 0..40);
    let late = || prop::bool::weighted(0.1);
    let keep = prop::option::of(Just(HOUR));
    let set = (key(), payload(), keep, late());
    let tags = || prop::sample::subsequence(TAGS.to_vec(), 0..=2);
    let fill = (prop::collection::vec((key(), bases(), late()), 1..4), tags());
    let update = (key(), payload(), bases(), late());
    let renew = (key(), payload(), bases(), late(), late());
    let op = prop_oneof![
        6 => set.prop_map(|(key, payload, keep, late)| Op::Set { key, payload, keep, late }),
        1 => (key(), 0..FOREIGN.len()).prop_map(|(key, which)| Op::SetForeign { key, which }),
        4 => prop::collection::vec(key(), 1..4).prop_map(|keys| Op::Invalidate { keys }),
        3 => key().prop_map(|key| Op::Expire { key }),
        2 => (key(), payload()).prop_map(|(key, payload)| Op::SetWithIdle { key, payload }),
        1 => Just(Op::Clear),
        8 => fill.prop_map(|(proposals, tags)| Op::Fill { proposals, tags }),
        6 => (key(), tags(), prop::option::of(Just(HOUR)))
            .prop_map(|(key, tags, ttl)| Op::SetTagged { key, tags, ttl }),
        3 => (key(), payload()).prop_map(|(key, payload)| Op::SetAbsent { key, payload }),
        5 => update.prop_map(|(key, payload, base, of_another)| Op::Update { key, payload, base, of_another }),
        4 => (tags(), prop::bool::weighted(0.3)).prop_map(|(tags, stale)| Op::ChangeTags { tags, stale }),
        3 => Just(Op::TagMarks),
        2 => Just(Op::Purge),
        6 => renew.prop_map(|(key, payload, base, late, of_another)| Op::Renew {
            key, payload, base, late, of_another,
        }),
        4 => key().prop_map(|key| Op::Touch { key }),
        5 => (key(), 0..3u64, late()).prop_map(|(key, holder, of_another)| Op::Claim { key, holder, of_another }),
        3 => (key(), 0..3u64).prop_map(|(key, holder)| Op::Release { key, holder }),
        2 => Just(Op::Beat),
        4 => key().prop_map(|key| Op::Read { key }),
        1 => Just(Op::Flush),
    ];
    prop::collection::vec(op, 1..40)
}

fn bases() -> impl Strategy<Value = Base> {
    prop_oneof![
        1 => Just(Base::Zero),
        4 => Just(Base::Head),
        1 => Just(Base::Beyond),
        4 => any::<prop::sample::Index>().prop_map(Base::Seen),
    ]
}

/// The operations of either side.
trait Side {
    async fn change(&mut self, change: Change) -> Result<Version, Refusal>;
    async fn fill(&mut self, fills: Vec<Fill>) -> Vec<FillOutcome>;
    async fn tag_marks(&mut self, tags: &[Bytes]) -> Vec<TagMark>;
    async fn purge(&mut self) -> u64;
    async fn renew(&mut self, renewal: Renewal) -> FillOutcome;
    async fn touch(&mut self, key: &Bytes);
    async fn claim(&mut self, claim: Claim) -> ClaimOutcome;
    async fn release(&mut self, key: &Bytes, holder: Holder);
    async fn beat(&mut self) -> Version;
    async fn read(&mut self, key: &Bytes) -> Snapshot;
    async fn flush(&mut self);
    async fn log(&mut self) -> Vec<Bytes>;
}

/// `Partition` on a clock of its own.
struct Model {
    partition: Partition,
    now: Moment,
}

impl Model {
    fn new() -> Self {
        Self { partition: Partition::new(1000), now: Moment::from_micros(1_000) }
    }

    fn tick(&mut self) -> Moment {
        self.now = self.now + Duration::from_micros(50);
        self.now
    }
}

impl Side for Model {
    async fn change(&mut self, change: Change) -> Result<Version, Refusal> {
        let now = self.tick();
        self.partition.change(now, &change).map(|(version, _)| version)
    }

    async fn fill(&mut self, fills: Vec<Fill>) -> Vec<FillOutcome> {
        let now = self.tick();
        self.partition.fill_many(now, &fills)
    }

    async fn tag_marks(&mut self, tags: &[Bytes]) -> Vec<TagMark> {
        self.partition.tag_marks(tags)
    }

    async fn purge(&mut self) -> u64 {
        let now = self.tick();
        self.partition.purge(now, HOUR).removed
    }

    async fn renew(&mut self, renewal: Renewal) -> FillOutcome {
        let now = self.tick();
        self.partition.renew(now, &renewal)
    }

    async fn touch(&mut self, key: &Bytes) {
        let now = self.tick();
        self.partition.touch(now, key, HOUR);
    }

    async fn claim(&mut self, claim: Claim) -> ClaimOutcome {
        let now = self.tick();
        self.partition.claim(now, &claim)
    }

    async fn release(&mut self, key: &Bytes, holder: Holder) {
        self.partition.release(key, holder);
    }

    async fn beat(&mut self) -> Version {
        let now = self.tick();
        self.partition.beat(now, NODE, beat(1).id, beat(1).forget_after).0.sequence
    }

    async fn read(&mut self, key: &Bytes) -> Snapshot {
        self.partition.read(self.now, key)
    }

    async fn flush(&mut self) {
        self.partition = Partition::new(1000);
    }

    async fn log(&mut self) -> Vec<Bytes> {
        self.partition.log(Version::UNKNOWN, Version::new(u64::MAX)).cloned().collect()
    }
}

struct Real<'a> {
    server: &'a RedisServer,
    l2: &'a RedisL2,
}

impl Side for Real<'_> {
    async fn change(&mut self, change: Change) -> Result<Version, Refusal> {
        match self.l2.change(&partition(), change).await {
            Ok(version) => Ok(version),
            Err(L2Error::DeadlinePassed) => Err(Refusal::Late),
            Err(L2Error::Unmet) => Err(Refusal::Unmet),
            Err(error) => panic!("{error}"),
        }
    }

    async fn fill(&mut self, fills: Vec<Fill>) -> Vec<FillOutcome> {
        self.l2.fill_many(&partition(), fills).await.unwrap()
    }

    async fn tag_marks(&mut self, tags: &[Bytes]) -> Vec<TagMark> {
        self.l2.tag_marks(&partition(), tags).await.unwrap()
    }

    async fn purge(&mut self) -> u64 {
        let (mut removed, mut next) = (0, Some(PurgeCursor::default()));
        while let Some(from) = next {
            let purged = self.l2.purge(&partition(), from, HOUR).await.unwrap();
            (removed, next) = (removed + purged.removed, purged.next);
        }
        removed
    }

    async fn renew(&mut self, renewal: Renewal) -> FillOutcome {
        self.l2.renew(&partition(), renewal).await.unwrap()
    }

    async fn touch(&mut self, key: &Bytes) {
        self.l2.touch(&partition(), key, HOUR).await.unwrap();
    }

    async fn claim(&mut self, claim: Claim) -> ClaimOutcome {
        self.l2.claim(&partition(), claim).await.unwrap()
    }

    async fn release(&mut self, key: &Bytes, holder: Holder) {
        self.l2.release(&partition(), key, holder).await.unwrap();
    }

    async fn beat(&mut self) -> Version {
        self.l2.beat(&partition(), &beat(1)).await.unwrap().sequence
    }

    async fn read(&mut self, key: &Bytes) -> Snapshot {
        self.l2.read(&partition(), key).await.unwrap()
    }

    async fn flush(&mut self) {
        assert!(self.server.command(&["FLUSHALL"]).await.is_ok());
    }

    async fn log(&mut self) -> Vec<Bytes> {
        self.l2.log(&partition(), Version::UNKNOWN, Version::new(u64::MAX)).await.unwrap()
    }
}

/// What an operation showed, with ranks for versions.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Changed(Result<usize, Refusal>),
    Filled(Vec<FillOutcome>),
    Marked(Vec<(usize, usize)>),
    Purged(u64),
    Claimed(ClaimOutcome),
    Done,
    Beaten(usize),
    Found { head: Option<((usize, usize, usize), u64)>, entry: Option<(Option<usize>, Bytes)> },
}

/// One side under observation.
struct Observed<S> {
    side: S,
    versions: BTreeSet<Version>,
}

impl<S: Side> Observed<S> {
    fn new(side: S) -> Self {
        Self { side, versions: BTreeSet::new() }
    }

    fn rank(&mut self, version: Version) -> usize {
        self.versions.insert(version);
        self.versions.range(..version).count()
    }

    async fn apply(&mut self, op: &Op) -> Shown {
        match op {
            Op::Set { key: at, payload, keep, late } => {
                let write = KeyWrite { key: key(KEYS[*at]), envelope: value(payload), keep: *keep };
                self.change(Change::set(NODE, write).by(deadline(*late))).await
            }
            Op::SetWithIdle { key: at, payload } => {
                let header =
                    EnvelopeHeader { ttl: Some(HOUR), idle: Some(HOUR), ..EnvelopeHeader::of(Kind::Value) };
                let envelope = Envelope::encode(&header, &[], payload);
                self.change(Change::set(NODE, KeyWrite { key: key(KEYS[*at]), envelope, keep: None })).await
            }
            Op::SetForeign { key: at, which } => {
                let envelope = Bytes::from_static(FOREIGN[*which]);
                self.change(Change::set(NODE, KeyWrite { key: key(KEYS[*at]), envelope, keep: None })).await
            }
            Op::Invalidate { keys } => {
                let keys = keys.iter().map(|&at| key(KEYS[at])).collect();
                self.change(Change::invalidate(NODE, keys, HOUR)).await
            }
            Op::Expire { key: at } => self.change(Change::expire(NODE, vec![key(KEYS[*at])], HOUR)).await,
            Op::Clear => self.change(Change::clear(NODE)).await,
            Op::SetTagged { key: at, tags, ttl } => {
                let write = KeyWrite { key: key(KEYS[*at]), envelope: tagged(tags, *ttl), keep: Some(HOUR) };
                self.change(Change::set(NODE, write)).await
            }
            Op::SetAbsent { key: at, payload } => {
                let write = KeyWrite { key: key(KEYS[*at]), envelope: value(payload), keep: Some(HOUR) };
                self.change(Change::set(NODE, write).only_if(Precondition::Absent)).await
            }
            Op::Update { key: at, payload, base, of_another } => {
                let key = key(KEYS[*at]);
                let (seen, base) = (self.identity(&key, *of_another).await, self.base(base).await);
                let write = KeyWrite { key, envelope: value(payload), keep: Some(HOUR) };
                let precondition = Precondition::Unchanged { seen, base };
                self.change(Change::set(NODE, write).only_if(precondition)).await
            }
            Op::ChangeTags { tags, stale } => {
                let make = if *stale { Change::expire_tags } else { Change::invalidate_tags };
                self.change(make(NODE, names(tags), HOUR)).await
            }
            Op::TagMarks => {
                let marks = self.side.tag_marks(&names(&TAGS)).await;
                let ranks = |mark: &TagMark| (self.rank(mark.wrong), self.rank(mark.stale));
                Shown::Marked(marks.iter().map(ranks).collect())
            }
            Op::Purge => Shown::Purged(self.side.purge().await),
            Op::Fill { proposals, tags } => {
                let mut fills = Vec::new();
                for (at, base, late) in proposals {
                    let (key, envelope) = (key(KEYS[*at]), tagged(tags, None));
                    let write = KeyWrite { key, envelope, keep: Some(HOUR) };
                    fills.push(Fill { write, base: self.base(base).await, deadline: deadline(*late) });
                }
                Shown::Filled(self.side.fill(fills).await)
            }
            Op::Renew { key: at, payload, base, late, of_another } => {
                let (key, base) = (key(KEYS[*at]), self.base(base).await);
                let identity = self.identity(&key, *of_another).await;
                let header = value(payload).slice(..Envelope::HEADER_LEN);
                let deadline = deadline(*late);
                let keep = Some(HOUR);
                let renewal = Renewal { key, identity, header, base, deadline, keep };
                Shown::Filled(vec![self.side.renew(renewal).await])
            }
            Op::Touch { key: at } => {
                self.side.touch(&key(KEYS[*at])).await;
                Shown::Done
            }
            Op::Claim { key: at, holder, of_another } => {
                let key = key(KEYS[*at]);
                let seen = self.identity(&key, *of_another).await;
                let claim = Claim { key, holder: Holder { node: NODE, load: *holder }, seen, keep: HOUR };
                Shown::Claimed(match self.side.claim(claim).await {
                    // The clocks differ.
                    ClaimOutcome::Held { .. } => ClaimOutcome::Held { left: HOUR },
                    outcome => outcome,
                })
            }
            Op::Release { key: at, holder } => {
                self.side.release(&key(KEYS[*at]), Holder { node: NODE, load: *holder }).await;
                Shown::Done
            }
            Op::Beat => {
                let sequence = self.side.beat().await;
                Shown::Beaten(self.rank(sequence))
            }
            Op::Read { key: at } => self.read(KEYS[*at]).await,
            Op::Flush => {
                self.side.flush().await;
                Shown::Done
            }
        }
    }

    async fn change(&mut self, change: Change) -> Shown {
        let version = self.side.change(change).await;
        Shown::Changed(version.map(|version| self.rank(version)))
    }

    /// Of what stands there, or of something else.
    async fn identity(&mut self, key: &Bytes, of_another: bool) -> Bytes {
        let present = self.side.read(key).await.envelope.unwrap_or_default();
        let identity = Bytes::copy_from_slice(Envelope::identity(&present));
        if of_another { [&identity[..], b"another"].concat().into() } else { identity }
    }

    async fn base(&mut self, base: &Base) -> Version {
        match base {
            Base::Zero => Version::UNKNOWN,
            Base::Beyond => Version::new(u64::MAX),
            Base::Head => self.side.read(&key("")).await.head.map_or(Version::UNKNOWN, |head| head.sequence),
            Base::Seen(_) if self.versions.is_empty() => Version::UNKNOWN,
            Base::Seen(index) => *self.versions.iter().nth(index.index(self.versions.len())).unwrap(),
        }
    }

    async fn read(&mut self, name: &'static str) -> Shown {
        let Snapshot { envelope, head } = self.side.read(&key(name)).await;
        let head = head.map(|head| {
            let ranks = (self.rank(head.sequence), self.rank(head.floor), self.rank(head.tags.changed));
            (ranks, head.tags.longest_millis)
        });
        let entry = envelope.map(|bytes| {
            let version = Envelope::peek_version(&bytes).filter(|version| *version != Version::UNKNOWN);
            (version.map(|version| self.rank(version)), without(Envelope::STAMP_AT, &bytes))
        });
        Shown::Found { head, entry }
    }

    /// The log, as ranks of each message's sequence and previous and its bytes apart from those.
    async fn log(&mut self) -> Vec<(usize, usize, Bytes)> {
        let mut shown = Vec::new();
        for frame in self.side.log().await {
            let message = Message::decode(&frame).expect("a message of the log is readable");
            let ranks = (self.rank(message.previous), self.rank(message.sequence));
            shown.push((ranks.0, ranks.1, without(Message::STAMP_AT, &frame)));
        }
        shown
    }
}

fn names(tags: &[&'static str]) -> Vec<Bytes> {
    tags.iter().map(|tag| Bytes::from_static(tag.as_bytes())).collect()
}

fn tagged(tags: &[&str], ttl: Option<Duration>) -> Bytes {
    let tags = Tags::new(tags).unwrap();
    let header = EnvelopeHeader { ttl, tag_count: tags.count(), ..EnvelopeHeader::of(Kind::Value) };
    Envelope::encode(&header, &tags.encode(), b"tagged")
}

fn deadline(late: bool) -> Moment {
    if late { PAST } else { Moment::NEVER }
}

fn without(stamp: std::ops::Range<usize>, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(place) = bytes.get_mut(stamp) {
        place.fill(0);
    }
    bytes.into()
}

async fn both_sides_agree(server: &RedisServer, l2: &RedisL2, ops: &[Op]) -> TestCaseResult {
    server.command(&["FLUSHALL"]).await;
    let (mut model, mut real) = (Observed::new(Model::new()), Observed::new(Real { server, l2 }));
    for op in ops {
        let (meant, done) = (model.apply(op).await, real.apply(op).await);
        prop_assert_eq!(meant, done, "{:?}", op);
    }
    for name in KEYS {
        prop_assert_eq!(model.read(name).await, real.read(name).await, "at the end, under {:?}", name);
    }
    prop_assert_eq!(model.log().await, real.log().await);
    Ok(())
}

#[test]
fn random_operations_have_the_same_outcome_as_on_a_partition() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, (l2, _bus)) = runtime.block_on(async {
        let server = RedisServer::start().await;
        let connected = connect(options(server.url())).await.unwrap();
        (server, connected)
    });
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&ops(), |ops| runtime.block_on(both_sides_agree(&server, &l2, &ops)));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
