//! Requests of one kind that travel together.
//!
//! Up to [`AT_ONCE`] trips are under way at once. Who comes while there are fewer goes straight out: no task, no timer
//! and no queue is in between. Who comes beyond that waits with the others, and goes with them, in one trip, as soon as
//! one that is under way has come back. So requests share trips exactly as far as they outrun them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nearfar_core::KeyWrite;
use nearfar_core::backend::L2Error;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) use changes::{Changes, Written};
pub(crate) use fills::Fills;
pub(crate) use reads::Reads;

mod changes;
mod fills;
mod reads;
#[cfg(test)]
mod tests;

/// How many trips are under way before requests wait for each other: then one comes back four times in the time that each
/// takes, and who waits does so for a quarter of it at the most.
const AT_ONCE: usize = 4;

/// How long a trip holds up those who wait, if it does not come back. They go then, in one trip more.
const PATIENCE: Duration = Duration::from_millis(10);

/// What brings requests to L2, and answers back.
pub(crate) trait Carrier: Send + Sync + 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// Brings all of them, in one step if there is a way, and answers in their order.
    fn carry(
        &self,
        requests: Vec<Self::Request>,
    ) -> impl Future<Output = Vec<Result<Self::Answer, L2Error>>> + Send;

    /// So many requests have shared a trip.
    fn count_shared(&self, requests: usize);

    /// How much of a trip's room a request takes. One that takes more than there is goes alone.
    fn size(&self, request: &Self::Request) -> usize;

    /// A trip's room.
    const ROOM: usize;
}

/// The requests of one kind to one partition.
pub(crate) struct Gathering<C: Carrier> {
    carrier: C,
    runtime: Handle,
    queue: Mutex<Queue<C>>,
}

struct Queue<C: Carrier> {
    under_way: usize,
    waiting: VecDeque<Waiting<C>>,
}

struct Waiting<C: Carrier> {
    request: C::Request,
    answer: oneshot::Sender<Result<C::Answer, L2Error>>,
}

/// What somebody waits for.
type Answer<C> = oneshot::Receiver<Result<<C as Carrier>::Answer, L2Error>>;

/// How a request goes.
enum Boarding<C: Carrier> {
    Straight(C::Request),
    With(Answer<C>),
}

impl<C: Carrier> Gathering<C> {
    /// Must be called inside the runtime.
    pub(crate) fn new(carrier: C) -> Arc<Self> {
        let queue = Mutex::new(Queue { under_way: 0, waiting: VecDeque::new() });
        Arc::new(Self { carrier, runtime: Handle::current(), queue })
    }

    /// Brings a request to L2, alone or with others.
    ///
    /// # Cancel safety
    ///
    /// Others are not disturbed. A request that still waited is not sent.
    pub(crate) async fn ask(self: &Arc<Self>, request: C::Request) -> Result<C::Answer, L2Error> {
        match self.board(request) {
            Boarding::Straight(request) => {
                let _trip = Trip(Arc::clone(self));
                only(self.carrier.carry(vec![request]).await)
            }
            Boarding::With(answer) => self.wait_for(answer).await,
        }
    }

    async fn wait_for(self: &Arc<Self>, mut answer: Answer<C>) -> Result<C::Answer, L2Error> {
        // Without a runtime there are no timers; then those who are under way are waited for.
        if Handle::try_current().is_ok() {
            match tokio::time::timeout(PATIENCE, &mut answer).await {
                Ok(answer) => return answer.unwrap_or(Err(L2Error::Unexpected)),
                Err(_) => self.wait_no_longer(),
            }
        }
        // Else its trip has ended with its runtime, or by a panic.
        answer.await.unwrap_or(Err(L2Error::Unexpected))
    }

    fn board(&self, request: C::Request) -> Boarding<C> {
        let mut queue = self.queue();
        if queue.under_way < AT_ONCE {
            queue.under_way += 1;
            return Boarding::Straight(request);
        }
        let (tell, answer) = oneshot::channel();
        queue.waiting.push_back(Waiting { request, answer: tell });
        Boarding::With(answer)
    }

    /// All who wait go, whatever is under way.
    fn wait_no_longer(self: &Arc<Self>) {
        loop {
            let mut queue = self.queue();
            let Some(next) = self.next(&mut queue) else { return };
            queue.under_way += 1;
            drop(queue);
            self.send(next);
        }
    }

    /// A trip has ended: those who wait take its place, unless there are too many trips still.
    fn ended(self: &Arc<Self>) {
        let mut queue = self.queue();
        let next = if queue.under_way > AT_ONCE { None } else { self.next(&mut queue) };
        if next.is_none() {
            queue.under_way -= 1;
        }
        drop(queue);
        if let Some(next) = next {
            self.send(next);
        }
    }

    /// On the runtime of whoever is here, which runs; else on that of the build. Not under the lock: a runtime that has ended
    /// drops the trip at once.
    fn send(self: &Arc<Self>, waiting: Vec<Waiting<C>>) {
        let trip = Trip(Arc::clone(self));
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        runtime.spawn(async move { trip.0.go(waiting).await });
    }

    async fn go(&self, waiting: Vec<Waiting<C>>) {
        let (requests, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.request, waiting.answer)).unzip();
        if requests.len() > 1 {
            self.carrier.count_shared(requests.len());
        }
        for (answer, tell) in self.carrier.carry(requests).await.into_iter().zip(answers) {
            // Whoever asked may have gone.
            let _ = tell.send(answer);
        }
    }

    /// Those who wait, as many as there is room for.
    fn next(&self, queue: &mut Queue<C>) -> Option<Vec<Waiting<C>>> {
        let (mut next, mut room) = (Vec::new(), C::ROOM);
        while let Some(waiting) = queue.waiting.pop_front() {
            if waiting.answer.is_closed() {
                continue;
            }
            let size = self.carrier.size(&waiting.request);
            if size > room && !next.is_empty() {
                queue.waiting.push_front(waiting);
                break;
            }
            room = room.saturating_sub(size);
            next.push(waiting);
        }
        (!next.is_empty()).then_some(next)
    }

    fn queue(&self) -> MutexGuard<'_, Queue<C>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one trip, which others take when it ends, whatever ends it.
struct Trip<C: Carrier>(Arc<Gathering<C>>);

impl<C: Carrier> Drop for Trip<C> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

fn only<T>(answers: Vec<Result<T, L2Error>>) -> Result<T, L2Error> {
    answers.into_iter().next().unwrap_or(Err(L2Error::Unexpected))
}

/// A trip's room, in bytes: large values go in several trips, so that nobody waits for much that is not his.
const BYTES: usize = 512 * 1024;

/// Below this a value on its way to L2 counts as if it were as large, so that one step has 256 at the most.
const LEAST: usize = 2 * 1024;

/// How much of a step's room, in bytes, a write takes.
fn size_of(write: &KeyWrite) -> usize {
    (write.key.len() + write.envelope.len()).max(LEAST)
}

/// What each of those has a share in that brought so many.
fn shares<T>(all: Vec<T>, lens: &[usize]) -> impl Iterator<Item = Vec<T>> {
    let mut all = all.into_iter();
    lens.iter().map(move |len| all.by_ref().take(*len).collect())
}
