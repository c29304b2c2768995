use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::*;

/// Answers with the number of the trip, once it is let go. Numbers from 100 on fail, and from 200 on panic.
struct Ferry {
    trips: Mutex<Vec<Vec<u32>>>,
    arrived: Notify,
    let_go: Semaphore,
    size: AtomicUsize,
}

impl Carrier for Ferry {
    type Request = u32;
    type Answer = usize;
    const ROOM: usize = 10;

    async fn carry(&self, requests: Vec<u32>) -> Vec<Result<usize, L2Error>> {
        let trip = {
            let mut trips = self.trips.lock().unwrap();
            trips.push(requests.clone());
            trips.len()
        };
        self.arrived.notify_one();
        self.let_go.acquire().await.unwrap().forget();
        assert!(requests.iter().all(|request| *request < 200), "this one sinks");
        let fails = requests.iter().any(|request| *request >= 100);
        requests.iter().map(|_| if fails { Err(L2Error::TimedOut) } else { Ok(trip) }).collect()
    }

    fn count_shared(&self, _requests: usize) {}

    fn size(&self, _request: &u32) -> usize {
        self.size.load(Ordering::SeqCst)
    }
}

/// The number of its trip; `None` if that failed.
type Answer = Option<usize>;
type Asked = JoinHandle<Answer>;

fn ferries() -> Arc<Gathering<Ferry>> {
    let (trips, arrived) = Default::default();
    Gathering::new(Ferry { trips, arrived, let_go: Semaphore::new(0), size: AtomicUsize::new(1) })
}

/// Asks, and returns once the request is under way or waits.
async fn ask(gathering: &Arc<Gathering<Ferry>>, request: u32) -> Asked {
    let gathering = Arc::clone(gathering);
    let asked = tokio::spawn(async move { gathering.ask(request).await.ok() });
    tokio::task::yield_now().await;
    asked
}

/// As many as may be are under way, and do not come back yet.
async fn busy() -> (Arc<Gathering<Ferry>>, Vec<Asked>) {
    let gathering = ferries();
    let mut asked = Vec::new();
    for _ in 0..AT_ONCE {
        asked.push(ask(&gathering, 1).await);
    }
    assert_eq!(trips(&gathering), [[1]; AT_ONCE]);
    (gathering, asked)
}

/// The answer to a request that finds a place, whose trip is let go.
fn at_once(gathering: &Arc<Gathering<Ferry>>) -> Answer {
    gathering.ask(1).now_or_never().expect("nothing is in between").ok()
}

fn trips(gathering: &Gathering<Ferry>) -> Vec<Vec<u32>> {
    gathering.carrier.trips.lock().unwrap().clone()
}

fn let_go(gathering: &Gathering<Ferry>, trips: usize) {
    gathering.carrier.let_go.add_permits(trips);
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_goes_straight_out() {
    let gathering = ferries();
    let_go(&gathering, 1);
    assert_eq!(at_once(&gathering), Some(1));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_together_as_soon_as_one_is_back() {
    let (gathering, mut asked) = busy().await;
    for request in 3..6 {
        asked.push(ask(&gathering, request).await);
    }
    assert_eq!(trips(&gathering).len(), AT_ONCE);
    let_go(&gathering, AT_ONCE + 1);
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.unwrap().unwrap());
    }
    assert_eq!(answers[AT_ONCE..], [AT_ONCE + 1; 3]);
    assert_eq!(trips(&gathering)[AT_ONCE], [3, 4, 5]);
    let_go(&gathering, 1);
    assert_eq!(at_once(&gathering), Some(AT_ONCE + 2), "the places are free again");
}

#[tokio::test(start_paused = true)]
async fn a_trip_that_fails_fails_nobody_elses() {
    let (gathering, mut asked) = busy().await;
    let fails = ask(&gathering, 100).await;
    let_go(&gathering, 1);
    assert!(asked.remove(0).await.unwrap().is_some());
    tokio::task::yield_now().await;
    asked.push(ask(&gathering, 3).await);
    let_go(&gathering, AT_ONCE + 1);
    assert_eq!(fails.await.unwrap(), None);
    for asked in asked {
        assert!(asked.await.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_disturbs_nobody() {
    let (gathering, mut asked) = busy().await;
    for request in 3..6 {
        asked.push(ask(&gathering, request).await);
    }
    // One that waits, and one whose trip is under way.
    for gone in [asked.remove(AT_ONCE + 1), asked.remove(0)] {
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    let_go(&gathering, AT_ONCE + 1);
    for asked in asked {
        assert!(asked.await.unwrap().is_some());
    }
    assert_eq!(trips(&gathering)[AT_ONCE], [3, 5]);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_from_a_trip_of_several_does_not_end_it() {
    let (gathering, mut asked) = busy().await;
    asked.extend([ask(&gathering, 3).await, ask(&gathering, 4).await]);
    let_go(&gathering, 1);
    asked.remove(0).await.unwrap().unwrap();
    tokio::task::yield_now().await;
    assert_eq!(trips(&gathering)[AT_ONCE], [3, 4]);
    let (stays, goes) = (asked.pop().unwrap(), asked.pop().unwrap());
    goes.abort();
    let_go(&gathering, AT_ONCE);
    assert_eq!(stays.await.unwrap(), Some(AT_ONCE + 1));
}

#[tokio::test(start_paused = true)]
async fn a_trip_that_does_not_come_back_holds_up_others_for_a_moment_only() {
    let (gathering, _stuck) = busy().await;
    let (a, b) = (ask(&gathering, 3).await, ask(&gathering, 4).await);
    while trips(&gathering).len() == AT_ONCE {
        gathering.carrier.arrived.notified().await;
    }
    assert_eq!(trips(&gathering)[AT_ONCE], [3, 4]);
    let_go(&gathering, AT_ONCE + 1);
    assert!(a.await.unwrap().is_some() && b.await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn nobody_depends_on_whoever_waited_first() {
    let (gathering, _stuck) = busy().await;
    let (first, second) = (ask(&gathering, 3).await, ask(&gathering, 4).await);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    while trips(&gathering).len() == AT_ONCE {
        gathering.carrier.arrived.notified().await;
    }
    assert_eq!(trips(&gathering)[AT_ONCE], [4]);
    let_go(&gathering, AT_ONCE + 1);
    assert!(second.await.unwrap().is_some());
}

/// Those who have places may be futures that nobody polls until this one is answered.
#[tokio::test(start_paused = true)]
async fn places_of_futures_that_nobody_polls_hold_up_others_for_a_moment_only() {
    let gathering = ferries();
    let mut held: Vec<_> = (0..AT_ONCE).map(|_| Box::pin(gathering.ask(1))).collect();
    for ask in &mut held {
        assert!(futures_util::poll!(ask).is_pending());
    }
    let_go(&gathering, AT_ONCE + 2);
    for _ in 0..2 {
        assert!(gathering.ask(2).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_trip_has_no_more_than_there_is_room_for() {
    let (gathering, asked) = busy().await;
    gathering.carrier.size.store(4, Ordering::SeqCst);
    let mut waiting = Vec::new();
    for request in 3..8 {
        waiting.push(ask(&gathering, request).await);
    }
    let_go(&gathering, AT_ONCE + 3);
    for asked in asked.into_iter().chain(waiting) {
        asked.await.unwrap().unwrap();
    }
    let mut lens: Vec<usize> = trips(&gathering)[AT_ONCE..].iter().map(Vec::len).collect();
    lens.sort_unstable();
    assert_eq!(lens, [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_under_way_frees_the_place_and_is_an_error_for_its_own() {
    let (gathering, mut asked) = busy().await;
    let sinks = ask(&gathering, 200).await;
    let_go(&gathering, AT_ONCE + 1);
    while let Some(asked) = asked.pop() {
        assert!(asked.await.unwrap().is_some());
    }
    assert_eq!(sinks.await.unwrap(), None);
    let_go(&gathering, 1);
    assert_eq!(at_once(&gathering), Some(AT_ONCE + 2));
}
