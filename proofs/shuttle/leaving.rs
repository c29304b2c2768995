//! Callers that leave, loads that fail, and who gets an answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::join_all;
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::Ordering;
use shuttle::thread;

use crate::flight::{Boarding, Flight};
use crate::world::{Answer, World, boarded, explore, explore_again};

/// Looks at a flight some times and leaves it if it has not landed by then.
async fn leave_early(mut flight: Flight<Answer>, leave: fn(Flight<Answer>)) {
    for _ in 0..thread_rng().gen_range(0..4) {
        if poll_fn(|cx| Poll::Ready(flight.poll_unpin(cx))).await.is_ready() {
            return;
        }
        yield_now().await;
    }
    leave(flight);
}

/// One caller that leaves, and two that stay.
fn a_leader_leaves(leave: fn(Flight<Answer>)) {
    let world = World::new();
    let (leader, joiners) = (world.fly(), [world.fly(), world.fly()]);
    let leaving = spawn(leave_early(leader, leave));
    let staying = joiners.map(spawn);
    block_on(async {
        for answer in join_all(staying).await {
            assert_eq!(answer.expect("its task ends"), Ok(1));
        }
        leaving.await.expect("its task ends");
    });
    assert_eq!(world.loads.load(Ordering::SeqCst), 1, "the load went on");
    world.assert_table_is_empty();
}

#[test]
fn those_who_joined_get_an_answer_although_the_leader_leaves() {
    explore(|| a_leader_leaves(drop));
}

/// Whoever comes when all have left leads again; one that comes just then must not be left with a flight that is over.
#[test]
fn whoever_boards_while_others_leave_gets_an_answer() {
    explore(|| {
        let world = World::new();
        let callers = [0, 1, 2].map(|caller| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let flight = world.fly();
                if caller == 0 {
                    assert_eq!(block_on(flight), Ok(1));
                } else {
                    block_on(leave_early(flight, drop));
                }
            })
        });
        for caller in callers {
            caller.join().expect("it gets an answer");
        }
        world.assert_table_is_empty();
    });
}

#[test]
fn a_flight_that_everybody_left_is_off_the_table() {
    explore(|| {
        let world = World::new();
        let callers = [world.fly(), world.fly()].map(|flight| spawn(leave_early(flight, drop)));
        block_on(join_all(callers));
        world.assert_table_is_empty();
    });
}

fn all_get_the_same(load: fn() -> Answer) {
    let world = World::new();
    let callers = (0..3).map(|_| {
        let world = Arc::clone(&world);
        spawn(async move {
            let (led, flight) = match world.board(async move { load() }) {
                Boarding::Led(flight) => (1, flight),
                boarding => (0, boarded(boarding)),
            };
            (led, flight.await.expect_err("the load fails"))
        })
    });
    let answers = block_on(join_all(callers.collect::<Vec<_>>()));
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("its task ends")).collect();
    let mut errors: Vec<_> = answers.iter().map(|(_, error)| Arc::as_ptr(error).cast::<()>()).collect();
    errors.sort_unstable();
    errors.dedup();
    assert_eq!(errors.len(), answers.iter().map(|(led, _)| led).sum::<usize>(), "one error for each load");
    world.assert_table_is_empty();
}

#[test]
fn an_error_is_shared_by_all_of_a_flight() {
    explore(|| all_get_the_same(|| Err("no".into())));
}

/// Resumed, not raised: the hook that prints panics has nothing to say here.
#[test]
fn a_panic_reaches_all_of_a_flight_as_an_error() {
    explore(|| all_get_the_same(|| std::panic::resume_unwind(Box::new("no"))));
}

/// Nobody else is told that the flight is its own, however the polls of several tasks interleave.
#[test]
fn only_the_load_itself_is_told_that_it_would_wait_for_itself() {
    explore(|| {
        let world = World::new();
        let callers = (0..2).map(|_| {
            let world = Arc::clone(&world);
            let inner = Arc::clone(&world);
            let load = async move {
                thread::yield_now();
                match inner.board(std::future::pending()) {
                    Boarding::Itself => Ok(7),
                    Boarding::Led(_) | Boarding::Joined(..) => panic!("it is listed, and polled here"),
                }
            };
            spawn(async move { boarded(world.board(load)).await })
        });
        for answer in block_on(join_all(callers.collect::<Vec<_>>())) {
            assert_eq!(answer.expect("its task ends"), Ok(7));
        }
        world.assert_table_is_empty();
    });
}

/// A task that has polled the flight and does not at the moment is a caller like any other.
#[test]
fn a_task_that_polled_the_flight_before_may_board_it_again() {
    explore(|| {
        let world = World::new();
        let (mut flight, other) = (world.fly(), spawn(world.fly()));
        block_on(async {
            let _looked = poll_fn(|cx| Poll::Ready(flight.poll_unpin(cx))).await;
            assert_eq!(world.fly().await, Ok(1));
            other.await.expect("its task ends").expect("its load does not fail");
        });
    });
}

mod refuted {
    use super::*;

    /// The load wakes while the leader polls it; a joiner, woken, sees that somebody is at it, and waits; the leader does
    /// not poll again. Leaving must wake those who stay.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn leaving_without_a_word() {
        explore_again(|| a_leader_leaves(std::mem::forget));
    }
}
