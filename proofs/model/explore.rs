//! The properties, and the explorations of the protocol as it is.

use nearfar_testkit::Stopwatch;
use stateright::{Checker, Model, Property};

use crate::action::{Action, act, pay, possible};
use crate::scenario::{self, Scenario};
use crate::world::World;

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::warm(self);
        self.prelude.iter().for_each(|action| act(self, &mut world, action));
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        possible(self, world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        pay(&mut next.left, &action);
        act(self, &mut next, &action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("L1 serves nothing beyond the bound", |_, world| l1_is_within_bound(world)),
            Property::always("no caller gets what it must not", |_, world: &World| {
                world.wrong_read.is_none()
            }),
            Property::always("L2 holds nothing older than a change", |_, world| l2_is_current(world)),
            Property::always("all agree once all is settled", |_, world| all_agree(world)),
        ];
        properties.extend(self.reaches.iter().map(|(name, seen)| Property::sometimes(name, *seen)));
        properties
    }
}

fn l1_is_within_bound(world: &World) -> bool {
    world.nodes.iter().enumerate().all(|(at, node)| {
        world.keys().all(|key| node.served(key, world.now).is_none_or(|got| got >= world.required(at, key)))
    })
}

fn l2_is_current(world: &World) -> bool {
    world.keys().all(|key| {
        let value = world.server.value(world.now, key);
        value.is_none_or(|(_, revision)| revision >= world.server.newest(key))
    })
}

fn all_agree(world: &World) -> bool {
    let agrees = |key: usize| {
        let in_l2 = world.server.value(world.now, key).map(|(_, revision)| revision);
        let in_l1 = world.nodes.iter().filter_map(|node| node.served(key, world.now));
        in_l2.into_iter().chain(in_l1).all(|revision| revision == world.database[key])
    };
    !world.is_settled() || world.keys().all(|key| world.excused[key] || agrees(key))
}

/// Explores a scenario to its end, and prints how far that was.
#[track_caller]
fn explore(name: &str, scenario: Scenario) {
    let began = Stopwatch::start();
    let checker = scenario.checker().spawn_dfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("model: {name} | {states} states | depth {depth} | {:.1} s", began.elapsed().as_secs_f64());
    checker.assert_properties();
}

#[test]
fn fills_race_changes() {
    explore("fills race changes", scenario::FILLS);
}

#[test]
fn fills_race_a_message_that_is_half_applied() {
    explore("fills race a message that is half applied", scenario::HALF_APPLIED);
}

#[test]
fn fills_come_late() {
    explore("fills come late", scenario::LATE_FILLS);
}

#[test]
fn answers_to_changes_are_lost() {
    explore("answers to changes are lost", scenario::LOST_ANSWERS);
}

#[test]
fn answers_to_reads_and_changes_are_lost() {
    explore("answers to reads and changes are lost", scenario::LOST_ANSWERS_TO_READS);
}

#[test]
fn answers_to_clears_are_lost() {
    explore("answers to clears are lost", scenario::LOST_ANSWERS_TO_CLEARS);
}

#[test]
fn changes_overtake_each_other() {
    explore("changes overtake each other", scenario::OVERTAKEN);
}

#[test]
fn messages_are_lost() {
    explore("messages are lost", scenario::LOST_MESSAGES);
}

#[test]
fn the_log_is_trimmed() {
    explore("the log is trimmed", scenario::TRIMMED_LOG);
}

#[test]
fn beats_are_slow() {
    explore("beats are slow", scenario::SLOW_BEATS);
}

#[test]
fn a_failover_loses_a_change() {
    explore("a failover loses a change", scenario::FAILOVER);
}

#[test]
fn a_failover_loses_a_nodes_own_changes() {
    explore("a failover loses a node's own changes", scenario::OWN_LOST);
}

#[test]
fn a_failover_loses_a_clear() {
    explore("a failover loses a clear", scenario::CLEAR_LOST);
}

#[test]
fn a_lost_change_is_followed_by_another() {
    explore("a lost change is followed by another", scenario::FORK);
}

#[test]
fn l2_is_flushed() {
    explore("L2 is flushed", scenario::FLUSHED);
}

#[test]
fn l2_restarts_without_data() {
    explore("L2 restarts without data", scenario::WIPED);
}

#[test]
fn nodes_crash() {
    explore("nodes crash", scenario::CRASHES);
}

#[test]
fn everything_is_cleared() {
    explore("everything is cleared", scenario::CLEARS);
}

#[test]
fn three_nodes_are_cut_off() {
    explore("three nodes are cut off", scenario::THREE);
}
