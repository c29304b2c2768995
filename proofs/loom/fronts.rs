//! What stands in the front of L1 as well, while L1's copy is evicted.

use crate::gate::Disconnected;
use crate::node::{AT_FIRST, BETWEEN, KEY, NEW, NEXT_TRUST, Node, OLD, Part, explore};

/// The old copy is in L1, and L2 has something newer.
fn old_in_l1(node: &Node) {
    node.fill();
    node.write_l2(NEW);
}

fn old_in_front(node: &Node) {
    old_in_l1(node);
    node.promote();
}

fn settle(node: &Node) {
    node.settle(NEW);
}

/// As `Member::replay` and `Follower::finish_replay` do.
fn replay(node: &Node) {
    node.gate.distrust();
    node.settle(NEW);
    node.gate.extend(NEXT_TRUST);
}

fn promote(node: &Node) {
    node.promote();
}

fn promote_and_hit(node: &Node) {
    node.promote();
    hit(node);
}

fn hit(node: &Node) {
    let held = node.get_from_front(BETWEEN);
    assert!(held.is_none_or(|held| held.version != OLD), "an old copy was served under the new trust");
}

/// When all is over, the front has nothing that L1 has lost.
fn nothing_old_is_left(node: &Node) {
    let held = node.get_from_front(AT_FIRST);
    assert!(held.is_none_or(|held| held.version != OLD), "an old copy was left");
}

fn explore_all<const PARTS: usize>(setting: Part, parts: [Part; PARTS], check: Part) {
    explore(Disconnected::Bypass, setting, parts, check);
}

#[test]
fn what_is_evicted_while_it_is_put_into_the_front_is_not_served_from_there() {
    explore_all(old_in_l1, [settle, promote], nothing_old_is_left);
}

#[test]
fn what_is_evicted_is_not_served_from_the_front_under_new_trust() {
    explore_all(old_in_front, [replay, hit], nothing_old_is_left);
    explore_all(old_in_l1, [replay, promote_and_hit], nothing_old_is_left);
}

#[test]
fn a_copy_that_is_replaced_is_not_left_in_the_front() {
    let fill: Part = |node| node.fill();
    explore_all(old_in_l1, [fill, promote], |node| {
        let (front, l1) = (node.get_from_front(AT_FIRST), node.get(AT_FIRST));
        assert!(front.is_none() || front == l1, "the front has {front:?}, L1 {l1:?}");
    });
}

mod refuted {
    use super::*;

    #[test]
    #[should_panic(expected = "an old copy was left")]
    fn not_telling_of_a_change() {
        let settle: Part = |node| node.evict_untold(node.gate.raise(KEY, NEW).version());
        explore_all(old_in_l1, [settle, promote], nothing_old_is_left);
    }

    /// Told before it is done: who asks in between finds the old copy and the new number.
    #[test]
    #[should_panic(expected = "an old copy was left")]
    fn telling_of_a_change_before_it() {
        let settle: Part = |node| {
            let raised = node.gate.raise(KEY, NEW);
            node.gate.changed(raised.stripe());
            node.evict_untold(raised.version());
        };
        explore_all(old_in_l1, [settle, promote], nothing_old_is_left);
    }

    /// The number is asked for last: then it is that of a change that has removed what was found.
    #[test]
    #[should_panic(expected = "an old copy was left")]
    fn looking_before_asking_for_the_number() {
        let promote: Part = |node| {
            if let Some(held) = node.look_up() {
                node.put_into_front(held, node.gate.changes(0));
            }
        };
        explore_all(old_in_l1, [settle, promote], nothing_old_is_left);
    }

    /// What the front has is looked at before the extensions are counted, and not again.
    #[test]
    #[should_panic(expected = "an old copy was served under the new trust")]
    fn asking_for_the_number_before_the_look_up_begins() {
        let hit: Part = |node| {
            let Some((held, changes)) = node.in_front() else { return };
            let is_held = node.gate.changes(0) == changes;
            let look_up = node.gates.look_up();
            let until = node.gates.serve_until(&look_up, 0);
            let is_served = is_held && until.is_some_and(|until| BETWEEN < until);
            assert!(!is_served || held.version != OLD, "an old copy was served under the new trust");
        };
        explore_all(old_in_front, [replay, hit], |_| {});
    }
}
