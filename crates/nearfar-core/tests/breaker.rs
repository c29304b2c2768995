//! When operations are tried.

use std::time::Duration;

use nearfar_core::{Breaker, CircuitState, Moment};

fn at(millis: u64) -> Moment {
    Moment::from_micros(1_000_000_000) + Duration::from_millis(millis)
}

fn open(now: Moment) -> Breaker {
    let breaker = Breaker::default();
    (0..3).for_each(|_| breaker.failed(now, now));
    breaker
}

#[test]
fn three_failures_in_a_row_open_it_and_two_do_not() {
    let breaker = Breaker::default();
    for _ in 0..5 {
        breaker.failed(at(0), at(0));
        breaker.failed(at(0), at(0));
        assert_eq!(breaker.state(at(0)), CircuitState::Closed);
        breaker.answered(at(0));
    }
    assert_eq!(open(at(0)).state(at(0)), CircuitState::Open);
}

#[test]
fn an_open_one_lets_one_operation_a_second_find_out() {
    let breaker = open(at(0));
    assert!(!breaker.admits(at(999)));
    assert_eq!(breaker.state(at(1000)), CircuitState::HalfOpen);
    for second in 1..5 {
        let now = at(second * 1000);
        assert!(breaker.admits(now) && !breaker.admits(now), "one");
        breaker.failed(now, now);
        assert_eq!(breaker.state(now), CircuitState::Open);
    }
    breaker.answered(at(5000));
    assert!(breaker.admits(at(5000)) && breaker.admits(at(5000)));
}

/// Of a hundred operations that were under way when the server stood still, the last times out after it is back.
#[test]
fn a_failure_from_before_the_last_answer_opens_nothing() {
    let breaker = open(at(0));
    breaker.answered(at(500));
    (0..100).for_each(|_| breaker.failed(at(400), at(600)));
    assert_eq!(breaker.state(at(600)), CircuitState::Closed);
    (0..3).for_each(|_| breaker.failed(at(501), at(600)));
    assert_eq!(breaker.state(at(600)), CircuitState::Open);
}
