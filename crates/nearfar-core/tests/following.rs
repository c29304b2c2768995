//! What a node believes, from what it is fed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{
    BeatId, Disconnected, Echo, Follower, FollowerOptions, Gate, Message, MessageBody, Moment, NodeId, Proof,
    Standing, Version,
};

const BOUND: Duration = Duration::from_secs(5);

struct Node {
    gate: Gate,
    follower: Follower,
}

impl Node {
    fn new() -> Self {
        Self::with(Disconnected::Bypass)
    }

    fn with(disconnected: Disconnected) -> Self {
        let gate = Gate::new(disconnected);
        let follower = Follower::new(FollowerOptions { max_staleness: BOUND }, BeatId::new(1));
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
        self.follower.poll_beat(&self.gate, now).unwrap()
    }

    fn echo(&mut self, beat: BeatId, sequence: u64) -> Proof {
        let echo = Echo { beat, sequence: Version::new(sequence), time: Moment::default() };
        self.follower.handle_echo(&self.gate, &echo)
    }

    fn message(&mut self, previous: u64, sequence: u64) -> Standing {
        let frame = frame(previous, sequence);
        self.follower.handle_message(&self.gate, &Message::decode(&frame).unwrap(), &frame)
    }

    /// Hands over a part of the log, and applies it if it connects.
    fn log(&mut self, frames: &[Bytes]) -> bool {
        let replay = self.follower.check_log(frames);
        let connects = replay.is_some();
        match replay {
            Some(replay) => self.follower.finish_replay(&self.gate, &replay),
            None => self.follower.give_up_replay(&self.gate),
        }
        connects
    }
}

fn frame(previous: u64, sequence: u64) -> Bytes {
    let unstamped = Message::encode(NodeId::new(9), &MessageBody::Clear);
    Message::stamped(&unstamped, Version::new(sequence), Version::new(previous))
}

fn replay(since: u64, until: u64) -> Proof {
    Proof::Replay { since: Version::new(since), until: Version::new(until) }
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
    assert_eq!(node.echo(beat, 14), replay(10, 14));
    assert!(!node.gate.serves(at(100)), "nor before what is missing is there");
}

#[test]
fn a_missing_message_is_noticed_at_the_next_echo() {
    let mut node = Node::trusting(10, at(100));
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 11), replay(10, 11));
    assert!(!node.gate.serves(at(101)));
}

#[test]
fn a_log_that_connects_brings_trust_back_and_forgets_nothing() {
    let mut node = Node::trusting(10, at(100));
    let generation = node.gate.generation();
    assert_eq!(node.message(10, 12), Standing::Next);
    node.follower.handle_doubt(&node.gate);
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 20), replay(12, 20));
    assert_eq!(node.message(20, 21), Standing::Next, "what comes behind the echo goes on from there");
    assert!(!node.gate.serves(at(101)));

    assert!(node.log(&[frame(10, 12), frame(12, 15), frame(15, 20)]));
    assert!(node.gate.serves(at(105)) && !node.gate.serves(at(106)), "from when the beat was sent");
    assert_eq!(node.gate.generation(), generation);
    assert_eq!(node.message(21, 22), Standing::Next);
}

#[test]
fn a_number_that_came_as_an_echo_is_met_by_the_message_behind_it() {
    for frames in [vec![frame(10, 15), frame(15, 20)], vec![frame(8, 10), frame(10, 20)]] {
        let mut node = Node::trusting(10, at(100));
        let beat = node.beat(at(101));
        assert_eq!(node.echo(beat, 20), replay(10, 20));
        assert!(node.log(&frames));
    }
}

#[test]
fn a_log_that_does_not_connect_makes_a_node_forget() {
    let other_bytes = {
        let unstamped = Message::encode(NodeId::new(8), &MessageBody::Clear);
        Message::stamped(&unstamped, Version::new(12), Version::new(10))
    };
    let logs = [
        ("it was lost", vec![]),
        ("it was trimmed", vec![frame(15, 20)]),
        ("it starts behind what was applied", vec![frame(12, 15), frame(15, 20)]),
        ("history forked", vec![frame(11, 14), frame(14, 20)]),
        ("a number was used again", vec![other_bytes, frame(12, 20)]),
        ("one is missing", vec![frame(10, 12), frame(15, 20)]),
        ("it ends early", vec![frame(10, 12), frame(12, 15)]),
        ("it goes on too long", vec![frame(10, 12), frame(12, 20), frame(20, 21)]),
        ("its numbers go up and down", vec![frame(10, 12), frame(12, u64::MAX), frame(u64::MAX, 20)]),
        ("it cannot be read", vec![frame(10, 12), "rubbish".into(), frame(12, 20)]),
    ];
    for (why, frames) in logs {
        let mut node = Node::trusting(10, at(100));
        let generation = node.gate.generation();
        node.message(10, 12);
        let beat = node.beat(at(101));
        assert_eq!(node.echo(beat, 20), replay(12, 20));
        assert!(!node.log(&frames), "{why}");
        assert_ne!(node.gate.generation(), generation, "{why}");
        assert!(node.gate.serves(at(105)), "what is read from now on may be served: {why}");
        assert_eq!(node.message(20, 21), Standing::Next, "{why}");
    }
}

#[test]
fn a_doubt_during_a_replay_begins_it_anew() {
    let mut node = Node::trusting(10, at(100));
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 20), replay(10, 20));
    node.follower.handle_doubt(&node.gate);
    let beat = node.beat(at(102));
    assert_eq!(node.echo(beat, 30), replay(10, 30));
    assert!(
        !node.follower.replays(Version::new(10), Version::new(20)),
        "the log of the first is not wanted now"
    );
    assert!(!node.gate.serves(at(102)));

    let beat = node.beat(at(103));
    assert_eq!(node.echo(beat, 30), Proof::Void, "and an echo meanwhile proves nothing yet");
    assert!(!node.gate.serves(at(103)));
    assert!(node.log(&[frame(10, 30)]));
    assert!(node.gate.serves(at(107)), "but it counts when the log is there");
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

/// A replay applied 20; then a failover lost it, and L2's clock is behind.
#[test]
fn numbers_that_go_back_after_a_replay_are_noticed() {
    let mut node = Node::trusting(10, at(100));
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 20), replay(10, 20));
    let _raised = node.gate.raise(b"k", Version::new(20));
    assert!(node.log(&[frame(10, 20)]));
    let beat = node.beat(at(102));
    assert_eq!(node.echo(beat, 15), Proof::Resynced);
    let ticket = node.gate.ticket(b"k");
    let _raised = node.gate.raise(b"k", Version::new(16));
    assert!(!node.gate.admits(&ticket, Version::new(15)));
}

/// A number that is used again, by a history that forked, is no duplicate.
#[test]
fn the_same_number_with_other_bytes_is_a_gap() {
    let other = Message::stamped(
        &Message::encode(NodeId::new(8), &MessageBody::Clear),
        Version::new(12),
        Version::new(10),
    );
    let mut direct = Node::trusting(10, at(100));
    direct.message(10, 12);
    let mut replayed = Node::trusting(10, at(100));
    let beat = replayed.beat(at(101));
    assert_eq!(replayed.echo(beat, 12), replay(10, 12));
    assert!(replayed.log(&[frame(10, 12)]));
    for mut node in [direct, replayed] {
        assert_eq!(node.message(10, 12), Standing::Duplicate);
        let message = Message::decode(&other).unwrap();
        assert_eq!(node.follower.handle_message(&node.gate, &message, &other), Standing::Gap);
    }
}

/// A failover lost the node's own last write, whose message had not come yet. The numbers fit; the copy does not.
#[test]
fn a_copy_that_l2_has_lost_is_forgotten() {
    let mut node = Node::trusting(10, at(100));
    let ticket = node.gate.ticket(b"k");
    assert!(node.gate.admits(&ticket, Version::new(15)));
    let generation = node.gate.generation();
    let beat = node.beat(at(101));
    assert_eq!(node.echo(beat, 10), Proof::Resynced);
    assert_ne!(node.gate.generation(), generation);
    let beat = node.beat(at(102));
    assert_eq!(node.echo(beat, 10), Proof::Extended, "once is enough");
}

/// An echo from before the write proves nothing against it.
#[test]
fn a_copy_from_after_the_beat_was_sent_is_kept() {
    let mut node = Node::trusting(10, at(100));
    let beat = node.beat(at(101));
    let ticket = node.gate.ticket(b"k");
    assert!(node.gate.admits(&ticket, Version::new(15)));
    assert_eq!(node.echo(beat, 10), Proof::Extended);
    assert_eq!(node.message(10, 15), Standing::Next);
    let beat = node.beat(at(102));
    assert_eq!(node.echo(beat, 15), Proof::Extended);
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
    node.follower.handle_doubt(&node.gate);
    assert_eq!(node.echo(early, 10), Proof::Void);
    assert!(!node.gate.serves(at(101)));
    let late = node.beat(at(101));
    assert_eq!(node.echo(late, 10), Proof::Extended, "nothing was published, so nothing was missed");
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
    node.follower.handle_doubt(&node.gate);
    assert!(node.gate.admits(&ticket, Version::new(10)), "nothing is known to be wrong yet");
    let beat = node.beat(at(100));
    assert_eq!(node.echo(beat, 9), Proof::Resynced);
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
    assert_eq!(node.follower.poll_beat(&node.gate, now), None);
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
        node.follower.handle_doubt(&node.gate);
        assert!(!node.gate.trusts(at(100)));
        assert_eq!(node.gate.serves(last), policy != Disconnected::Bypass);
        node.gate.close();
        assert!(!node.gate.serves(at(100)), "closing ends it all");
    }
}
