use std::collections::HashSet;
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

/// Two that are under way and do not come back yet.
async fn busy() -> (Arc<Gathering<Ferry>>, Vec<Asked>) {
    let gathering = ferries();
    let asked = vec![ask(&gathering, 1).await, ask(&gathering, 2).await];
    assert_eq!(trips(&gathering), [vec![1], vec![2]]);
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
    assert_eq!(trips(&gathering).len(), 2);
    let_go(&gathering, 3);
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.unwrap().unwrap());
    }
    assert_eq!(answers, [1, 2, 3, 3, 3]);
    assert_eq!(trips(&gathering)[2], [3, 4, 5]);
    let_go(&gathering, 1);
    assert_eq!(at_once(&gathering), Some(4), "the places are free again");
}

#[tokio::test(start_paused = true)]
async fn a_trip_that_fails_fails_nobody_elses() {
    let (gathering, mut asked) = busy().await;
    asked.push(ask(&gathering, 100).await);
    let_go(&gathering, 1);
    assert_eq!(asked.remove(0).await.unwrap(), Some(1));
    tokio::task::yield_now().await;
    asked.push(ask(&gathering, 3).await);
    let_go(&gathering, 3);
    assert_eq!(asked.remove(0).await.unwrap(), Some(2));
    assert_eq!(asked.remove(0).await.unwrap(), None);
    assert_eq!(asked.remove(0).await.unwrap(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_disturbs_nobody() {
    let (gathering, mut asked) = busy().await;
    for request in 3..6 {
        asked.push(ask(&gathering, request).await);
    }
    // One that waits, and one whose trip is under way.
    for gone in [asked.remove(3), asked.remove(0)] {
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    let_go(&gathering, 3);
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.unwrap().unwrap());
    }
    assert_eq!((answers.len(), trips(&gathering)[2].as_slice()), (3, [3, 5].as_slice()));
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_from_a_trip_of_several_does_not_end_it() {
    let (gathering, mut asked) = busy().await;
    asked.extend([ask(&gathering, 3).await, ask(&gathering, 4).await]);
    let_go(&gathering, 1);
    asked.remove(0).await.unwrap().unwrap();
    tokio::task::yield_now().await;
    assert_eq!(trips(&gathering)[2], [3, 4]);
    asked.remove(1).abort();
    let_go(&gathering, 2);
    assert_eq!(asked.remove(1).await.unwrap(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_trip_that_does_not_come_back_holds_up_others_for_a_moment_only() {
    let (gathering, _stuck) = busy().await;
    let (a, b) = (ask(&gathering, 3).await, ask(&gathering, 4).await);
    while trips(&gathering).len() < 3 {
        gathering.carrier.arrived.notified().await;
    }
    assert_eq!(trips(&gathering)[2], [3, 4]);
    let_go(&gathering, 3);
    assert_eq!((a.await.unwrap(), b.await.unwrap()), (Some(3), Some(3)));
}

#[tokio::test(start_paused = true)]
async fn a_trip_has_no_more_than_there_is_room_for() {
    let (gathering, asked) = busy().await;
    gathering.carrier.size.store(4, Ordering::SeqCst);
    let mut waiting = Vec::new();
    for request in 3..8 {
        waiting.push(ask(&gathering, request).await);
    }
    let_go(&gathering, 5);
    for asked in asked.into_iter().chain(waiting) {
        asked.await.unwrap().unwrap();
    }
    let mut lens: Vec<usize> = trips(&gathering).iter().map(Vec::len).collect();
    lens.sort_unstable();
    assert_eq!(lens, [1, 1, 1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_under_way_frees_the_place_and_is_an_error_for_its_own() {
    let (gathering, mut asked) = busy().await;
    asked.push(ask(&gathering, 200).await);
    let_go(&gathering, 3);
    let answers: HashSet<_> = [asked.remove(0).await.unwrap(), asked.remove(0).await.unwrap()].into();
    assert_eq!(answers, HashSet::from([Some(1), Some(2)]));
    assert_eq!(asked.remove(0).await.unwrap(), None);
    let_go(&gathering, 1);
    assert_eq!(at_once(&gathering), Some(4));
}
