//! A hit, while what was missed is made good and trust is extended.

use std::time::Duration;

use crate::gate::Disconnected;
use crate::node::{AT_FIRST, BETWEEN, Held, NEW, NEXT_TRUST, Node, OLD, Part, explore};

/// Both ways of using trust; with the second, withdrawing it does not stop a reader.
const POLICIES: [Disconnected; 2] = [Disconnected::Bypass, Disconnected::ServeFor(Duration::from_micros(1))];

/// The old copy is in L1, and the message of the change in L2 was missed.
fn missed_a_message(node: &Node) {
    node.fill();
    node.write_l2(NEW);
}

fn never_old(held: Option<Held>) {
    assert!(held.is_none_or(|held| held.version != OLD), "an old copy was served under the new trust");
}

fn explore_hits(repair: Part, read: Part) {
    for policy in POLICIES {
        explore(policy, missed_a_message, [repair, read], |_| {});
    }
}

fn get(node: &Node) {
    never_old(node.get(BETWEEN));
}

/// As `Follower::catch_up`, `Member::replay` and `Follower::finish_replay` do.
fn replay(node: &Node) {
    node.gate.distrust();
    node.settle(NEW);
    node.gate.extend(NEXT_TRUST);
}

/// As `Follower::resync` does.
fn resync(node: &Node) {
    node.gate.distrust();
    node.gate.forget();
    node.gate.extend(NEXT_TRUST);
}

#[test]
fn a_replay_that_overtakes_a_hit_leaves_it_nothing_old() {
    explore_hits(replay, get);
}

#[test]
fn a_resync_that_overtakes_a_hit_leaves_it_nothing_old() {
    explore_hits(resync, get);
}

/// The fill has read L2 before it changed, and is admitted when it pleases.
#[test]
fn a_resync_that_overtakes_a_fill_leaves_a_hit_nothing_old() {
    let change_and_resync: Part = |node| {
        node.write_l2(NEW);
        resync(node);
    };
    explore(Disconnected::Bypass, |_| {}, [change_and_resync, Node::fill, get], |_| {});
}

/// Whoever knows that trust was withdrawn does not serve: L2, which it asks next, is what tells it here.
#[test]
fn who_knows_of_the_doubt_is_not_served() {
    let doubt: Part = |node| {
        node.gate.distrust();
        node.write_l2(NEW);
    };
    let read: Part = |node| {
        if node.read_l2() == NEW {
            assert_eq!(node.get(AT_FIRST), None, "served without trust");
            assert!(!node.gate.trusts(AT_FIRST), "trusted after a doubt");
        }
    };
    explore(Disconnected::Bypass, Node::fill, [doubt, read], |_| {});
}

/// Whatever the policy for being without trust.
#[test]
fn who_knows_of_the_shutdown_is_not_served() {
    let close: Part = |node| {
        node.gate.close();
        node.write_l2(NEW);
    };
    let read: Part = |node| {
        if node.read_l2() == NEW {
            assert_eq!(node.get(AT_FIRST), None, "served after the shutdown");
        }
    };
    for policy in [POLICIES[0], POLICIES[1], Disconnected::Serve] {
        explore(policy, Node::fill, [close, read], |_| {});
    }
}

mod refuted {
    use super::*;

    /// The new trust is seen, the copy from before it as well.
    #[test]
    #[should_panic(expected = "an old copy was served")]
    fn not_comparing_how_often_trust_was_extended() {
        let read: Part = |node| {
            let held = node.look_up();
            never_old(held.filter(|held| BETWEEN < node.gate.serve_until() && node.is_current(*held)));
        };
        explore_hits(replay, read);
    }

    #[test]
    #[should_panic(expected = "an old copy was served")]
    fn asking_how_often_trust_was_extended_after_looking_up() {
        let read: Part = |node| {
            let held = node.look_up();
            let until = node.gates.serve_until(&node.gates.look_up(), 0);
            let served = |held: &Held| until.is_some_and(|until| BETWEEN < until) && node.is_current(*held);
            never_old(held.filter(served));
        };
        explore_hits(replay, read);
    }

    #[test]
    #[should_panic(expected = "an old copy was served")]
    fn not_looking_at_the_generation() {
        let read: Part = |node| {
            let look_up = node.gates.look_up();
            let held = node.look_up();
            let until = node.gates.serve_until(&look_up, 0);
            never_old(held.filter(|_| until.is_some_and(|until| BETWEEN < until)));
        };
        explore_hits(resync, read);
    }

    #[test]
    #[should_panic(expected = "an old copy was served")]
    fn extending_before_evicting() {
        let repair: Part = |node| {
            node.gate.extend(NEXT_TRUST);
            node.settle(NEW);
        };
        explore_hits(repair, get);
    }

    #[test]
    #[should_panic(expected = "an old copy was served")]
    fn extending_before_forgetting() {
        let repair: Part = |node| {
            node.gate.extend(NEXT_TRUST);
            node.gate.forget();
        };
        explore_hits(repair, get);
    }

    #[test]
    #[should_panic(expected = "served without trust")]
    fn a_doubt_that_withdraws_trust_after_it_is_known() {
        let doubt: Part = |node| {
            node.write_l2(NEW);
            node.gate.distrust();
        };
        let read: Part = |node| {
            if node.read_l2() == NEW {
                assert_eq!(node.get(AT_FIRST), None, "served without trust");
            }
        };
        explore(Disconnected::Bypass, Node::fill, [doubt, read], |_| {});
    }
}
