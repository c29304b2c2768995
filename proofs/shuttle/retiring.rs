//! A caller that knows of a change does not join a flight from before it (race R19).

use std::sync::Arc;

use nearfar_core::{Height, Version};
use shuttle::future::{block_on, spawn};
use shuttle::sync::atomic::Ordering;
use shuttle::thread;

use crate::flight::{Departure, FlightId};
use crate::world::{KEY, World, boarded, explore, explore_again};

/// Two changes, while three callers come when they please.
fn read_while_changing(settle: fn(&World, Version)) {
    let world = World::new();
    let readers = [(); 3].map(|()| spawn(Arc::clone(&world).read()));
    let changing = Arc::clone(&world);
    let writer = thread::spawn(move || {
        changing.change(settle);
        changing.change(settle);
    });
    block_on(async {
        for reader in readers {
            reader.await.expect("it read what it may");
        }
    });
    writer.join().expect("it changes");
    world.assert_table_is_empty();
}

#[test]
fn who_knows_of_an_invalidation_does_not_join_a_flight_from_before() {
    explore(|| read_while_changing(World::retire));
}

#[test]
fn who_knows_of_a_change_of_unknown_outcome_does_not_join_a_flight_from_before() {
    explore(|| read_while_changing(World::retire_any));
}

#[test]
fn who_knows_of_a_clear_does_not_join_a_flight_from_before() {
    explore(|| read_while_changing(World::forget));
}

/// The message of a change that the flight knew of when it began.
#[test]
fn a_flight_that_knew_of_the_invalidation_is_not_retired_by_its_message() {
    explore(|| {
        let world = World::new();
        world.change(World::retire);
        let first = world.fly();
        let late = Arc::clone(&world);
        let message = thread::spawn(move || late.retire(Version::new(2)));
        let second = world.fly();
        message.join().expect("it retires nothing");
        assert_eq!(block_on(first), block_on(second));
        assert_eq!(world.loads.load(Ordering::SeqCst), 1, "the second joined");
    });
}

/// A retired flight that ends takes only itself off the table.
#[test]
fn the_end_of_a_retired_flight_does_not_hide_the_one_after_it() {
    explore(|| {
        let world = World::new();
        let retired = spawn(world.fly());
        world.change(World::retire);
        let second = world.fly();
        thread::yield_now();
        let third = world.fly();
        assert_eq!((block_on(second), block_on(third)), (Ok(2), Ok(2)));
        block_on(retired).expect("it lands").expect("its load does not fail");
        // The retired one may have landed, or begun, before or after the change.
        assert!(world.loads.load(Ordering::SeqCst) <= 2, "the third joined the second");
    });
}

mod refuted {
    use super::*;

    #[test]
    #[should_panic(expected = "the value from before a change")]
    fn raising_the_fence_and_retiring_nothing() {
        explore_again(|| {
            read_while_changing(|world, version| {
                let _raised = world.gate.raise(&[KEY], version);
            });
        });
    }

    /// It retires what is there before the change, and a flight that begins between the two stays.
    #[test]
    #[should_panic(expected = "the value from before a change")]
    fn retiring_below_what_the_flight_knew() {
        explore_again(|| {
            read_while_changing(|world, version| {
                let below = world.gate.height(&[KEY]);
                world.table.retire(&KEY, below);
                let _raised = world.gate.raise(&[KEY], version);
            });
        });
    }

    #[test]
    #[should_panic(expected = "the value from before a change")]
    fn departing_above_every_fence() {
        explore_again(|| {
            let world = World::new();
            let departure = Departure { fence: Height::TOP, ..world.departure() };
            let load = Arc::clone(&world).load();
            let flight = boarded(world.table.board(&KEY, FlightId::fresh(), departure, |_| true, load));
            let leader = spawn(flight);
            world.change(World::retire);
            block_on(Arc::clone(&world).read());
            drop(leader);
        });
    }

    #[test]
    #[should_panic(expected = "the value from before a change")]
    fn joining_without_a_look_at_the_generation() {
        explore_again(|| {
            let world = World::new();
            let leader = spawn(world.fly());
            world.change(World::forget);
            let load = Arc::clone(&world).load();
            let flight =
                boarded(world.table.board(&KEY, FlightId::fresh(), world.departure(), |_| true, load));
            assert_eq!(block_on(flight), Ok(2), "the value from before a change");
            drop(leader);
        });
    }
}
