//! What a node believes, from what it is fed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use nearfar_core::{
    BeatId, Disconnected, Echo, Follower, FollowerOptions, Gate, Message, MessageBody, Moment, NodeId, Proof,
    Standing, Version,
};

const BOUND: Duration = Duration::from_secs(5);

struct Node {
    gate: Arc<Gate>,
    follower: Follower,
}

impl Node {
    fn new() -> Self {
        Self::with(Disconnected::Bypass)
    }

    fn with(disconnected: Disconnected) -> Self {
        let gate = Arc::new(Gate::new(disconnected));
        let follower =
            Follower::new(FollowerOptions { max_staleness: BOUND }, Arc::clone(&gate), BeatId::new(1));
        Self { gate, follower }
    }

    /// A node whose subscription was proved at that moment, with the partition at that sequence.
    fn trusting(sequence: u64, now: Moment) -> Self {
        let mut node = Self::new();
        let beat = node.beat(now);
        assert_eq!(node.echo(beat, sequence), Proof::Resynced);
        node
    }

    fn beat(&mut self, now: Moment) -> BeatId {
        self.follower.poll_beat(now).unwrap()
    }

    fn echo(&mut self, beat: BeatId, sequence: u64) -> Proof {
        let echo = Echo { beat, sequence: Version::new(sequence), time: Moment::default() };
        self.follower.handle_echo(&echo)
    }

    fn message(&mut self, previous: u64, sequence: u64) -> Standing {
        self.follower.handle_message(&Message {
            sequence: Version::new(sequence),
            previous: Version::new(previous),
            origin: NodeId::new(9),
            body: MessageBody::Clear,
        })
    }
}

fn at(seconds: u64) -> Moment {
    Moment::default() + Duration::from_secs(seconds)
}

#[test]
fn trust_lasts_for_the_bound_from_when_the_beat_was_sent() {
    let node = Node::trusting(10, at(100));
    assert!(node.gate.serves(at(104)));
    assert!(!node.gate.serves(at(105)));
}

#[test]
fn an_echo_that_agrees_extends_trust_and_forgets_nothing() {
    let mut node = Node::trusting(10, at(100));
    let generation = node.gate.generation();
    assert_eq!(node.message(10, 17), Standing::Next);
    let beat = node.beat(at(102));
    assert_eq!(node.echo(beat, 17), Proof::Extended);
    assert!(node.gate.serves(at(106)));
    assert_eq!(node.gate.generation(), generation);
}

#[test]
fn a_missing_message_is_noticed_at_the_next_one() {
    let mut node = Node::trusting(10, at(100));
    assert_eq!(node.message(12, 13), Standing::Gap);
    assert!(!node.gate.serves(at(100)));
    let beat = node.beat(at(100));
    assert_eq!(node.message(13, 14), Standing::OutOfStep, "nothing is believed before an echo");
    assert_eq!(node.echo(beat, 14), Proof::Resynced);
    assert_eq!(node.message(14, 15), Standing::Next);
}

#[test]
fn a_missing_message_is_noticed_at_the_next_echo() {
    let mut node = Node::trusting(10, at(100));
    let generation = node.gate.generation();
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 11), Proof::Resynced);
    assert_ne!(node.gate.generation(), generation);
}

#[test]
fn a_history_that_forked_is_noticed_though_its_numbers_go_on() {
    let mut node = Node::trusting(10, at(100));
    node.message(10, 13);
    assert_eq!(node.message(11, 14), Standing::Gap, "14 follows another 13");

    let mut node = Node::trusting(10, at(100));
    assert_eq!(node.message(8, 9), Standing::Gap, "numbers never go back");
    let mut node = Node::trusting(10, at(100));
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 9), Proof::Resynced);
}

#[test]
fn a_message_that_comes_twice_is_nothing_new() {
    let mut node = Node::trusting(10, at(100));
    assert_eq!(node.message(10, 11), Standing::Next);
    assert_eq!(node.message(10, 11), Standing::Duplicate);
    assert!(node.gate.serves(at(100)));
}

/// An echo from before a doubt may still sit in the queue of the connection that is gone.
#[test]
fn an_echo_of_a_beat_from_before_a_doubt_proves_nothing() {
    let mut node = Node::trusting(10, at(100));
    let early = node.beat(at(101));
    node.follower.handle_doubt();
    assert_eq!(node.echo(early, 10), Proof::Void);
    assert!(!node.gate.serves(at(101)));
    let late = node.beat(at(101));
    assert_eq!(
        node.echo(late, 10),
        Proof::Resynced,
        "messages may be missing although the number is the same"
    );
}

#[test]
fn a_stranger_s_echo_proves_nothing() {
    let mut node = Node::trusting(10, at(100));
    assert_eq!(node.echo(BeatId::new(99), 10), Proof::Void);
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 10), Proof::Extended);
    assert_eq!(node.echo(beat, 10), Proof::Void, "and none proves anything twice");
}

#[test]
fn a_resync_makes_tickets_worthless() {
    let mut node = Node::trusting(10, at(100));
    let ticket = node.gate.ticket(b"k");
    node.follower.handle_doubt();
    assert!(node.gate.admits(&ticket, Version::new(10)), "nothing is known to be wrong yet");
    let beat = node.beat(at(100));
    node.echo(beat, 10);
    assert!(!node.gate.admits(&ticket, Version::new(10)));
}

/// The store lost its data and its clock was set back: the fences of the greater numbers must not hide the new ones.
#[test]
fn the_fence_works_for_a_history_of_smaller_numbers() {
    let mut node = Node::trusting(1_000, at(100));
    let _raised = node.gate.raise(b"k", Version::new(1_000));
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 500), Proof::Resynced);

    let ticket = node.gate.ticket(b"k");
    assert!(node.gate.admits(&ticket, Version::new(500)));
    let before = node.gate.height(b"k");
    assert!(node.gate.raise(b"k", Version::new(501)).height() > before);
    assert!(!node.gate.admits(&ticket, Version::new(500)));
    assert!(node.gate.admits(&ticket, Version::new(501)));
}

#[test]
fn a_hostile_number_does_not_open_the_fence_for_good() {
    let mut node = Node::trusting(1_000, at(100));
    let _raised = node.gate.raise(b"k", Version::new(u64::MAX));
    assert_eq!(node.message(u64::MAX - 1, u64::MAX), Standing::Gap);
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 1_000), Proof::Resynced);

    let ticket = node.gate.ticket(b"k");
    let _raised = node.gate.raise(b"k", Version::new(1_001));
    assert!(!node.gate.admits(&ticket, Version::new(1_000)));
}

#[test]
fn beats_come_faster_without_trust_and_unanswered_ones_are_not_hoarded() {
    let mut node = Node::new();
    let mut now = at(100);
    let first = node.beat(now);
    assert_eq!(node.follower.poll_beat(now), None);
    for _ in 0..1_000 {
        now = node.follower.beat_due();
        node.beat(now);
    }
    assert!(now < at(201), "every 100 ms");
    assert_eq!(node.echo(first, 10), Proof::Void, "too old to be remembered");
    let beat = node.beat(node.follower.beat_due());
    node.echo(beat, 10);
    let due = node.follower.beat_due();
    node.beat(due);
    assert_eq!(node.follower.beat_due().since(due), Duration::from_secs(1));
}

#[test]
fn a_policy_may_grant_more_than_trust() {
    let longer = Duration::from_secs(60);
    for (policy, last) in [
        (Disconnected::Bypass, at(104)),
        (Disconnected::ServeFor(longer), at(164)),
        (Disconnected::Serve, at(1_000_000)),
    ] {
        let mut node = Node::with(policy);
        let beat = node.beat(at(100));
        node.echo(beat, 10);
        assert!(node.gate.serves(last), "{policy:?}");
        node.follower.handle_doubt();
        assert!(!node.gate.trusts(at(100)));
        assert_eq!(node.gate.serves(last), policy != Disconnected::Bypass);
        node.gate.close();
        assert!(!node.gate.serves(at(100)), "closing ends it all");
    }
}
