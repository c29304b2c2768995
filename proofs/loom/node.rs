//! The users of the gate, as they are in `nearfar`'s `l1`, `engine`, `holdings` and `change`.

use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::gate::{Disconnected, Gate, Ticket};
use crate::gates::Gates;
use crate::{Moment, Version};

pub(crate) const KEY: &[u8] = b"k";

/// What L2 holds at first.
pub(crate) const OLD: Version = Version::new(3);
/// What it holds after a change.
pub(crate) const NEW: Version = Version::new(5);

/// Until when trust lasts at first, and until when it is extended.
const FIRST_TRUST: Moment = Moment::from_micros(10);
pub(crate) const NEXT_TRUST: Moment = Moment::from_micros(20);
/// When any trust lets L1 be served.
pub(crate) const AT_FIRST: Moment = Moment::from_micros(5);
/// When only the new trust lets L1 be served.
pub(crate) const BETWEEN: Moment = Moment::from_micros(15);

/// A node with one key, and the L2 that it reads.
pub(crate) struct Node {
    pub(crate) gates: Gates,
    /// That of its one partition.
    pub(crate) gate: std::sync::Arc<Gate>,
    l1: L1,
    /// What stands in the front of L1 as well, with the number of changes before it was seen in L1.
    front: Mutex<Option<(Held, u64)>>,
    /// The version of what L2 holds.
    truth: Mutex<Version>,
}

/// A copy in L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) generation: u64,
}

impl Held {
    const BITS: u32 = 8;

    fn word(self) -> u64 {
        (self.generation + 1) << Self::BITS | self.version.number()
    }

    fn from_word(word: u64) -> Option<Self> {
        let generation = (word >> Self::BITS).checked_sub(1)?;
        Some(Self { version: Version::new(word & ((1 << Self::BITS) - 1)), generation })
    }
}

/// Changes are made under a lock of the key. Reads take no lock, and here they are relaxed: what they must not find
/// has to be kept from them by the gate, whatever moka's orderings are.
struct L1 {
    lock: Mutex<()>,
    slot: AtomicU64,
}

impl L1 {
    /// Returns what was there and what is.
    fn change(&self, change: impl FnOnce(Option<Held>) -> Option<Held>) -> (Option<Held>, Option<Held>) {
        let locked = self.lock.lock().expect("nobody panics under it");
        let before = self.get();
        let after = change(before);
        self.slot.store(after.map_or(0, Held::word), Ordering::Relaxed);
        drop(locked);
        (before, after)
    }

    fn get(&self) -> Option<Held> {
        Held::from_word(self.slot.load(Ordering::Relaxed))
    }
}

impl Node {
    /// Trusted, L1 empty, the old value in L2.
    pub(crate) fn new(policy: Disconnected) -> Self {
        let gates = Gates::with_stripes(policy, 1, 1);
        let gate = std::sync::Arc::clone(gates.of(0));
        gate.extend(FIRST_TRUST);
        let l1 = L1 { lock: Mutex::new(()), slot: AtomicU64::new(0) };
        Self { gates, gate, l1, front: Mutex::new(None), truth: Mutex::new(OLD) }
    }

    /// Somebody changes L2.
    pub(crate) fn write_l2(&self, version: Version) {
        *self.truth.lock().expect("nobody panics under it") = version;
    }

    pub(crate) fn read_l2(&self) -> Version {
        *self.truth.lock().expect("nobody panics under it")
    }

    /// `L1::get` without the look at the trust.
    pub(crate) fn look_up(&self) -> Option<Held> {
        self.l1.get()
    }

    pub(crate) fn is_current(&self, held: Held) -> bool {
        held.generation == self.gate.generation()
    }

    /// `L1::admit`.
    pub(crate) fn admit(&self, ticket: Ticket, version: Version) {
        let stripe = ticket.stripe();
        let (before, after) = self.l1.change(|present| {
            let held = Held { version, generation: ticket.generation() };
            let newer_present = present.is_some_and(|present| {
                present.generation == held.generation && present.version > held.version
            });
            if newer_present || !self.gate.admits(&ticket, version) { present } else { Some(held) }
        });
        if before.is_some() && before != after {
            self.gate.changed(stripe);
        }
        drop(ticket);
    }

    /// `L1::admit` without asking under the lock.
    pub(crate) fn put(&self, held: Held) {
        self.l1.change(|_| Some(held));
    }

    /// `L1::evict`, which asks for a proof that the fence was raised; here it takes any version.
    pub(crate) fn evict(&self, below: Version) {
        self.evict_untold(below);
        self.gate.changed(0);
    }

    /// `L1::evict` without telling the front.
    pub(crate) fn evict_untold(&self, below: Version) {
        self.l1.change(|present| present.filter(|held| held.version >= below));
    }

    /// `L1::discard`.
    pub(crate) fn discard(&self) {
        self.l1.change(|_| None);
        self.gate.changed(0);
    }

    /// `L1::promote`.
    pub(crate) fn promote(&self) {
        let changes = self.gate.changes(0);
        if let Some(held) = self.look_up() {
            self.put_into_front(held, changes);
        }
    }

    pub(crate) fn put_into_front(&self, held: Held, changes: u64) {
        *self.front.lock().expect("nobody panics under it") = Some((held, changes));
    }

    pub(crate) fn in_front(&self) -> Option<(Held, u64)> {
        *self.front.lock().expect("nobody panics under it")
    }

    /// `L1::look_at` of what stands in the front.
    pub(crate) fn get_from_front(&self, now: Moment) -> Option<Held> {
        let (held, changes) = self.in_front()?;
        let look_up = self.gates.look_up();
        if self.gate.changes(0) != changes {
            return None;
        }
        let until = self.gates.serve_until(&look_up, 0)?;
        (now < until && self.is_current(held)).then_some(held)
    }

    /// `Holdings::settle`, without the flights.
    pub(crate) fn settle(&self, version: Version) {
        let raised = self.gate.raise(KEY, version);
        self.evict(raised.version());
    }

    /// `Engine::read_l2`.
    pub(crate) fn fill(&self) {
        let ticket = self.gate.ticket(KEY);
        let version = self.read_l2();
        self.admit(ticket, version);
    }

    /// `L1::get`.
    pub(crate) fn get(&self, now: Moment) -> Option<Held> {
        let (held, until) = loop {
            let look_up = self.gates.look_up();
            let held = self.look_up()?;
            if let Some(until) = self.gates.serve_until(&look_up, 0) {
                break (held, until);
            }
        };
        (now < until && self.is_current(held)).then_some(held)
    }

    /// What L1 would serve when all is over.
    pub(crate) fn left(&self) -> Option<Version> {
        self.look_up().filter(|held| self.is_current(*held)).map(|held| held.version)
    }
}

/// How often in all a thread is interrupted that could go on. Without this bound, two threads take some seconds more,
/// and three take longer than a test may.
const fn most_preemptions(threads: usize) -> usize {
    if threads > 2 { 2 } else { 4 }
}

/// What one thread does.
pub(crate) type Part = fn(&Node);

/// Runs the parts in every interleaving within those bounds, on a node that `setting` has prepared, and checks what is left.
pub(crate) fn explore<const PARTS: usize>(
    policy: Disconnected,
    setting: Part,
    parts: [Part; PARTS],
    check: Part,
) {
    let mut model = Builder::new();
    model.preemption_bound = Some(most_preemptions(PARTS));
    model.check(move || {
        let node = Arc::new(Node::new(policy));
        setting(&node);
        let threads = parts.map(|part| {
            let node = Arc::clone(&node);
            thread::spawn(move || part(&node))
        });
        for thread in threads {
            thread.join().expect("its panic ends the model");
        }
        check(&node);
    });
}
