//! A failure and an answer at once.

use loom::sync::Arc;
use loom::thread;
use nearfar_core::Moment;

use crate::breaker::{Breaker, CircuitState};

/// A failure that is counted before the answer may open the breaker behind it.
#[test]
fn an_answer_closes_it_whatever_came_at_the_same_time() {
    loom::model(|| {
        let now = Moment::from_micros(1);
        let breaker = Arc::new(Breaker::default());
        (0..2).for_each(|_| breaker.failed(now, now));
        let failing = thread::spawn({
            let breaker = Arc::clone(&breaker);
            move || breaker.failed(now, now)
        });
        breaker.answered(now);
        failing.join().expect("it does not panic");
        breaker.answered(now);
        assert_eq!(breaker.state(now), CircuitState::Closed);
        assert!(breaker.admits(now) && breaker.admits(now));
    });
}
