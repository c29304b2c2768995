//! A fill, while its key is changed (races R1 and R3).

use crate::Version;
use crate::gate::Disconnected;
use crate::node::{Held, KEY, NEW, Node, Part, explore};

/// Another change, after the new one.
const NEWEST: Version = Version::new(7);

/// Once all is over, L1 has what L2 has, or nothing.
fn nothing_old_stays(node: &Node) {
    let left = node.left();
    assert!(left.is_none_or(|version| version == node.read_l2()), "an old copy stays: {left:?}");
}

fn explore_fills<const PARTS: usize>(parts: [Part; PARTS]) {
    explore(Disconnected::Bypass, |_| {}, parts, nothing_old_stays);
}

/// Another node changes the key, and this one hears of it.
fn changed_elsewhere(node: &Node) {
    node.write_l2(NEW);
    node.settle(NEW);
}

/// `Engine::set`.
fn set(node: &Node) {
    let ticket = node.gate.ticket(KEY);
    node.write_l2(NEW);
    node.settle(NEW);
    node.admit(ticket, NEW);
}

/// A change that L2 may have executed, and has, as `Unsettled` leaves it.
fn unsettled(node: &Node) {
    node.write_l2(NEW);
    node.gate.raise_unsettled(KEY);
    node.discard();
}

#[test]
fn a_fill_that_an_invalidation_overtakes_does_not_stay() {
    explore_fills([Node::fill, changed_elsewhere]);
}

#[test]
fn two_fills_that_an_invalidation_overtakes_do_not_stay() {
    explore_fills([Node::fill, Node::fill, changed_elsewhere]);
}

#[test]
fn a_fill_that_an_own_write_overtakes_does_not_stay() {
    explore_fills([Node::fill, set]);
}

#[test]
fn an_own_write_that_a_newer_one_overtakes_does_not_stay() {
    explore(Disconnected::Bypass, |_| {}, [set, changed_again], nothing_old_stays);
}

/// The newer write comes after the own one in L2, or else L2 would have numbered them the other way round.
fn changed_again(node: &Node) {
    if node.read_l2() == NEW {
        node.write_l2(NEWEST);
        node.settle(NEWEST);
    }
}

#[test]
fn a_fill_that_a_change_of_unknown_outcome_overtakes_does_not_stay() {
    explore_fills([Node::fill, unsettled]);
}

/// Its message comes late, and the change before it is settled.
#[test]
fn messages_out_of_order_let_nothing_old_stay() {
    let late_message: Part = |node| {
        node.write_l2(NEW);
        node.write_l2(NEWEST);
        node.settle(NEWEST);
        node.settle(NEW);
    };
    explore_fills([Node::fill, late_message]);
}

mod refuted {
    use super::*;

    /// R1: the fill is admitted and comes in after the eviction, before the raise.
    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn evicting_before_raising() {
        let change: Part = |node| {
            node.write_l2(NEW);
            node.evict(NEW);
            let _raised = node.gate.raise(KEY, NEW);
        };
        explore_fills([Node::fill, change]);
    }

    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn raising_before_the_change_and_not_after() {
        let change: Part = |node| {
            node.settle(NEW);
            node.write_l2(NEW);
        };
        explore_fills([Node::fill, change]);
    }

    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn not_evicting() {
        let change: Part = |node| {
            node.write_l2(NEW);
            let _raised = node.gate.raise(KEY, NEW);
        };
        explore_fills([Node::fill, change]);
    }

    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn taking_the_ticket_after_the_read() {
        let fill: Part = |node| {
            let version = node.read_l2();
            let ticket = node.gate.ticket(KEY);
            node.admit(ticket, version);
        };
        explore_fills([fill, changed_elsewhere]);
    }

    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn asking_the_fence_before_the_lock() {
        let fill: Part = |node| {
            let ticket = node.gate.ticket(KEY);
            let version = node.read_l2();
            if node.gate.admits(&ticket, version) {
                node.put(Held { version, generation: ticket.generation() });
            }
        };
        explore_fills([fill, changed_elsewhere]);
    }

    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn discarding_before_raising_for_an_unknown_outcome() {
        let change: Part = |node| {
            node.write_l2(NEW);
            node.discard();
            node.gate.raise_unsettled(KEY);
        };
        explore_fills([Node::fill, change]);
    }

    /// The own write has come in by a ticket that was taken when the newer one was known.
    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn taking_the_ticket_of_an_own_write_after_it() {
        let set: Part = |node| {
            node.write_l2(NEW);
            node.settle(NEW);
            let ticket = node.gate.ticket(KEY);
            node.admit(ticket, NEW);
        };
        explore_fills([set, changed_again]);
    }
}
