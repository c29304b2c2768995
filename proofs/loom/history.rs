//! A fill, while L1 is forgotten, and while L2's numbers go back.

use crate::Version;
use crate::gate::Disconnected;
use crate::node::{KEY, NEW, Node, Part, explore};

/// What L2 holds after it lost its data and its clock was set back, and after the next change.
const REBORN: Version = Version::new(1);
const CHANGED: Version = Version::new(2);

fn nothing_old_stays(node: &Node) {
    let left = node.left();
    assert!(left.is_none_or(|version| version == node.read_l2()), "an old copy stays: {left:?}");
}

fn explore_fills<const PARTS: usize>(setting: Part, parts: [Part; PARTS]) {
    explore(Disconnected::Bypass, setting, parts, nothing_old_stays);
}

/// The fence of the key stands at the number of the history that will be lost.
fn fence_is_up(node: &Node) {
    node.write_l2(NEW);
    node.settle(NEW);
}

fn forgotten(node: &Node) {
    node.write_l2(NEW);
    node.gate.forget();
}

/// And then L2 has lost its data, which this node does not know yet.
fn data_is_lost(node: &Node) {
    fence_is_up(node);
    node.write_l2(REBORN);
}

/// An echo tells that the data was lost; then the key is changed.
fn numbers_went_back_and_on(node: &Node) {
    node.gate.forget_numbers();
    node.write_l2(CHANGED);
    node.settle(CHANGED);
}

#[test]
fn a_fill_that_forgetting_overtakes_does_not_stay() {
    explore_fills(|_| {}, [Node::fill, forgotten]);
}

#[test]
fn a_fill_from_a_lost_history_does_not_stay() {
    let lost: Part = |node| {
        node.write_l2(REBORN);
        node.gate.forget_numbers();
    };
    explore_fills(fence_is_up, [Node::fill, lost]);
}

#[test]
fn fences_of_a_lost_history_do_not_hide_an_invalidation() {
    explore_fills(data_is_lost, [Node::fill, numbers_went_back_and_on]);
}

#[test]
fn two_fills_across_a_lost_history_do_not_stay() {
    let lost: Part = |node| {
        node.write_l2(REBORN);
        numbers_went_back_and_on(node);
    };
    explore_fills(fence_is_up, [Node::fill, Node::fill, lost]);
}

#[test]
fn a_write_of_unknown_outcome_across_a_lost_history_lets_nothing_old_stay() {
    let unsettled: Part = |node| {
        node.gate.forget_numbers();
        node.write_l2(CHANGED);
        node.gate.raise_unsettled(KEY);
        node.discard();
    };
    explore_fills(data_is_lost, [Node::fill, unsettled]);
}

/// It has happened: the epoch began after the generation, and in between a fill took its ticket from the new generation,
/// while the own write raised the fence within the old epoch, below where it stood.
#[test]
fn an_own_write_while_numbers_go_back_lets_nothing_old_stay() {
    let set: Part = |node| {
        node.write_l2(CHANGED);
        node.settle(CHANGED);
    };
    explore_fills(data_is_lost, [Node::fill, |node| node.gate.forget_numbers(), set]);
}

mod refuted {
    use super::*;

    /// The fence stands at a number that the new history has not got to yet, and so refuses nothing.
    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn forgetting_the_copies_and_not_the_numbers() {
        let change: Part = |node| {
            node.gate.forget();
            node.write_l2(CHANGED);
            node.settle(CHANGED);
        };
        explore_fills(data_is_lost, [Node::fill, change]);
    }

    #[test]
    #[should_panic(expected = "an old copy stays")]
    fn forgetting_before_the_change_and_not_after() {
        let change: Part = |node| {
            node.gate.forget();
            node.write_l2(NEW);
        };
        explore_fills(|_| {}, [Node::fill, change]);
    }
}
