use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
use crate::{Moment, Version};

/// How many stripes share the keys of a cache. A stripe that is raised for one key also refuses fills of the others
/// on it: with 4096, one in 4096 invalidations during a load costs that load its place in L1 (it keeps the one in L2).
const STRIPES: usize = 4096;

/// What a node does with L1 while it has no proof that it would hear of an invalidation.
///
/// ```
/// use nearfar_core::Disconnected;
///
/// assert_eq!(Disconnected::default(), Disconnected::Bypass);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disconnected {
    /// Read from L2: the staleness bound holds. The default.
    #[default]
    Bypass,
    /// Serve L1 for so much longer: the bound grows by this.
    ServeFor(Duration),
    /// Serve L1 for as long as it has something: no bound but the entries' own lifetimes.
    Serve,
}

/// What L1 may hold and serve of one partition: the fence, the generation and the trust of a cache on one node.
///
/// ```
/// use nearfar_core::{Disconnected, Gate, Moment, Version};
///
/// let gate = Gate::new(Disconnected::Bypass);
/// let ticket = gate.ticket(b"key"); // before reading
/// assert!(gate.admits(&ticket, Version::new(3)));
///
/// let _raised = gate.raise(b"key", Version::new(4)); // an invalidation overtakes the read
/// assert!(!gate.admits(&ticket, Version::new(3)));
/// assert!(gate.admits(&ticket, Version::new(4)), "the change itself may stay");
///
/// gate.extend(Moment::from_micros(100));
/// assert!(gate.serves(Moment::from_micros(99)));
/// assert!(!gate.serves(Moment::from_micros(100)));
/// ```
#[derive(Debug)]
pub struct Gate {
    disconnected: Disconnected,
    /// L1 may be served before this. One word, so that a read pays one load for it.
    serve_until: AtomicU64,
    /// Trust alone, whatever the policy adds to it.
    trusted_until: AtomicU64,
    /// Entries of another generation are forgotten.
    generation: AtomicU64,
    /// How often L2's numbers went back, after it lost its data and its clock was set. A [`Height`] of a later epoch is
    /// above every one of an earlier.
    epoch: AtomicU64,
    /// The greatest version that entered L1, raised the fence or cleared, in this history.
    newest: AtomicU64,
    /// How often trust was extended, here and in the other partitions of the cache; see [`Gates`](crate::Gates).
    extensions: Arc<AtomicU64>,
    stripes: Box<[Stripe]>,
    /// For each stripe, how often L1 has changed what it holds of one of its keys. Decides nothing here; close together, as
    /// hits read it.
    changes: Box<[AtomicU64]>,
}

/// The keys whose hashes end alike.
#[derive(Debug, Default)]
struct Stripe {
    /// The greatest height that an invalidation of one of its keys had.
    height: AtomicU64,
    /// How many changes of its keys have an outcome that nobody knows.
    unsettled: AtomicU64,
}

/// How high the fence stands for a key: a version, and which count of versions it is of.
///
/// ```
/// use nearfar_core::{Disconnected, Gate, Height, Version};
///
/// let gate = Gate::new(Disconnected::Bypass);
/// let before = gate.height(b"key");
/// let raised = gate.raise(b"key", Version::new(4));
/// assert!(before < raised.height() && raised.height() < Height::TOP);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(u64);

impl Height {
    /// Above every fence.
    pub const TOP: Height = Height(u64::MAX);

    /// What a version takes; one that does not fit comes from a hostile message.
    const VERSION_BITS: u32 = Version::GREATEST.number().count_ones();
    /// What is left for the epoch, less one so that `TOP` is above all.
    const LAST_EPOCH: u64 = (u64::MAX >> Self::VERSION_BITS) - 1;

    fn of(epoch: u64, version: Version) -> Self {
        let version = version.min(Version::GREATEST).number();
        Self((epoch.min(Self::LAST_EPOCH) << Self::VERSION_BITS) | version)
    }
}

/// Taken before a read or a load; whoever comes back with a value shows it to be admitted.
///
/// Only the gate makes one and it cannot be cloned, so a fill that forgot its ticket does not compile.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "a ticket that is not shown at the gate protects nothing"]
pub struct Ticket {
    stripe: u32,
    seen: Height,
    unsettled: u64,
    generation: u64,
}

impl Ticket {
    /// The generation that an entry admitted with this ticket belongs to.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The stripe of the fence that the key is on.
    pub fn stripe(&self) -> u32 {
        self.stripe
    }
}

/// Proof that the fence was raised; evicting asks for it, so the order "raise, then evict" cannot be turned round.
#[derive(Debug)]
pub struct Raised {
    version: Version,
    height: Height,
    stripe: u32,
}

impl Raised {
    /// Flights that knew of less are not to be joined.
    pub fn height(&self) -> Height {
        self.height
    }

    /// Entries with a smaller version are to be evicted.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The stripe of the fence that the key is on.
    pub fn stripe(&self) -> u32 {
        self.stripe
    }
}

impl Gate {
    /// A gate that trusts nothing yet.
    pub fn new(disconnected: Disconnected) -> Self {
        Self::with_stripes(disconnected, STRIPES)
    }

    /// As [`new`](Self::new), with so many stripes, of which there must be one. Fewer refuse more than they need to;
    /// a model that is explored state by state wants few.
    ///
    /// ```
    /// use nearfar_core::{Disconnected, Gate, Version};
    ///
    /// let gate = Gate::with_stripes(Disconnected::Bypass, 1);
    /// let ticket = gate.ticket(b"key");
    /// gate.raise(b"any other", Version::new(4));
    /// assert!(!gate.admits(&ticket, Version::new(3)));
    /// ```
    pub fn with_stripes(disconnected: Disconnected, stripes: usize) -> Self {
        Self::counting(disconnected, stripes, Arc::new(AtomicU64::new(0)))
    }

    /// One that counts there how often trust is extended.
    pub(crate) fn counting(disconnected: Disconnected, stripes: usize, extensions: Arc<AtomicU64>) -> Self {
        let serve_until = match disconnected {
            Disconnected::Serve => Moment::NEVER,
            Disconnected::Bypass | Disconnected::ServeFor(_) => Moment::default(),
        };
        Self {
            disconnected,
            serve_until: AtomicU64::new(serve_until.micros()),
            trusted_until: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            extensions,
            stripes: (0..stripes).map(|_| Stripe::default()).collect(),
            changes: (0..stripes).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether L1 may be served at this moment.
    #[inline]
    pub fn serves(&self, now: Moment) -> bool {
        now < self.serve_until()
    }

    /// Until when L1 may be served, as far as is known now.
    ///
    /// For a hit, ask [`Gates::serve_until`](crate::Gates::serve_until), which tells trust from before the look-up from
    /// trust that was given for removing what was found.
    #[inline]
    pub fn serve_until(&self) -> Moment {
        Moment::from_micros(self.serve_until.load(Ordering::Acquire))
    }

    /// Whether trust holds at this moment, whatever the policy for being without it.
    pub fn trusts(&self, now: Moment) -> bool {
        now.micros() < self.trusted_until.load(Ordering::Acquire)
    }

    /// Until when trust holds, as far as is known now; the beginning of time if it does not.
    pub fn trusted_until(&self) -> Moment {
        Moment::from_micros(self.trusted_until.load(Ordering::Acquire))
    }

    /// The generation that a served entry must be of.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A ticket for a read or load of this key that has not begun yet.
    pub fn ticket(&self, key: &[u8]) -> Ticket {
        let stripe = self.stripe_of(key);
        // Generation first: one that changes in between makes the ticket worthless, never too good.
        let generation = self.generation();
        let unsettled = self.stripe(stripe).unsettled.load(Ordering::Acquire);
        Ticket { stripe, seen: self.height_of(stripe), unsettled, generation }
    }

    /// How high an invalidation of this key, or of one that shares its stripe, has raised the fence.
    pub fn height(&self, key: &[u8]) -> Height {
        self.height_of(self.stripe_of(key))
    }

    /// Whether a value of this version, read or loaded after the ticket was taken, may enter L1.
    ///
    /// Call it while holding L1's lock of the key, as evicting does. Then for a fill and an invalidation of one key
    /// (races R1, R3) there are two orders. The fill locks first: the evictor finds the entry and drops it. The
    /// evictor locks first: it raised the fence before, the lock passes that on, and this returns `false`.
    pub fn admits(&self, ticket: &Ticket, version: Version) -> bool {
        let own = Height::of(self.epoch.load(Ordering::Acquire), version);
        let raised_to = self.height_of(ticket.stripe);
        let settled = self.stripe(ticket.stripe).unsettled.load(Ordering::Acquire) == ticket.unsettled;
        // With a ticket from before the numbers went back, `own` may be of the epoch that has just begun. Then the entry
        // is of a generation that is over, or is just ending, and is not served.
        let admitted = raised_to <= ticket.seen.max(own) && settled && self.generation() == ticket.generation;
        if admitted {
            self.newest.fetch_max(version.number(), Ordering::AcqRel);
        }
        admitted
    }

    /// The greatest version that entered L1, raised the fence or cleared. L2 gave it out, so a later head below it is of
    /// another history.
    pub fn newest(&self) -> Version {
        Version::new(self.newest.load(Ordering::Acquire))
    }

    /// Raises the fence of a key, before its copy in L1 is evicted.
    pub fn raise(&self, key: &[u8], version: Version) -> Raised {
        let height = Height::of(self.epoch.load(Ordering::Acquire), version);
        let stripe = self.stripe_of(key);
        self.stripe(stripe).height.fetch_max(height.0, Ordering::AcqRel);
        self.newest.fetch_max(version.number(), Ordering::AcqRel);
        Raised { version, height, stripe }
    }

    /// A change of the key may have happened, with a number that nobody knows. What was read or loaded before, be it
    /// of whatever version, is not admitted any more. Call it before the copy in L1 is dropped. Returns the stripe of the
    /// fence that the key is on.
    ///
    /// ```
    /// use nearfar_core::{Disconnected, Gate, Version};
    ///
    /// let gate = Gate::new(Disconnected::Bypass);
    /// let ticket = gate.ticket(b"key");
    /// gate.raise_unsettled(b"key");
    /// assert!(!gate.admits(&ticket, Version::GREATEST));
    /// assert!(gate.admits(&gate.ticket(b"key"), Version::new(3)), "what is read from now on may stay");
    /// ```
    pub fn raise_unsettled(&self, key: &[u8]) -> u32 {
        let stripe = self.stripe_of(key);
        self.stripe(stripe).unsettled.fetch_add(1, Ordering::AcqRel);
        stripe
    }

    /// How often L1 has changed what it holds of keys on this stripe.
    ///
    /// For who keeps something that L1 holds in a second place. He asks for this number, then looks into L1, and keeps the two
    /// together: as long as the number is the same, L1 holds the same still, or has dropped it for want of space.
    ///
    /// ```
    /// use nearfar_core::{Disconnected, Gate, Version};
    ///
    /// let gate = Gate::new(Disconnected::Bypass);
    /// let stripe = gate.ticket(b"key").stripe();
    /// let kept_at = gate.changes(stripe);
    /// gate.raise(b"key", Version::new(4));
    /// // ... L1's copy is evicted ...
    /// gate.changed(stripe);
    /// assert_ne!(gate.changes(stripe), kept_at);
    /// ```
    #[inline]
    pub fn changes(&self, stripe: u32) -> u64 {
        self.changes[stripe as usize].load(Ordering::Acquire)
    }

    /// L1 has changed what it holds of a key on this stripe. Call it **after** the change: a number from before it then tells
    /// that what was found with it may be gone.
    pub fn changed(&self, stripe: u32) {
        self.changes[stripe as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets all of L1 in one step: entries and tickets of the generation so far are worth nothing any more.
    pub fn forget_copies(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// As [`forget_copies`](Self::forget_copies), because of a clear of that number, which leaves no copy behind by
    /// which to see that L2 has lost it.
    ///
    /// ```
    /// use nearfar_core::{Disconnected, Gate, Version};
    ///
    /// let gate = Gate::new(Disconnected::Bypass);
    /// let ticket = gate.ticket(b"key");
    /// gate.clear(Version::new(4));
    /// assert!(!gate.admits(&ticket, Version::new(3)));
    /// assert_eq!(gate.newest(), Version::new(4));
    /// ```
    pub fn clear(&self, version: Version) {
        self.forget_copies();
        self.newest.fetch_max(version.number(), Ordering::AcqRel);
    }

    /// A change of that number is known, which leaves no copy behind either, and raises no fence.
    ///
    /// ```
    /// use nearfar_core::{Disconnected, Gate, Version};
    ///
    /// let gate = Gate::new(Disconnected::Bypass);
    /// gate.note(Version::new(4));
    /// assert_eq!(gate.newest(), Version::new(4));
    /// ```
    pub fn note(&self, version: Version) {
        self.newest.fetch_max(version.number(), Ordering::AcqRel);
    }

    /// As [`forget_copies`](Self::forget_copies), when history may be another one: what is known of its numbers is
    /// forgotten too.
    pub fn forget(&self) {
        self.forget_copies();
        // A fill that is just being admitted may undo this; then the next echo finds it, and L1 is forgotten again.
        self.newest.store(0, Ordering::Release);
    }

    /// As [`forget`](Self::forget), when L2's numbers went back: fences of the numbers so far must not outlast them.
    pub fn forget_numbers(&self) {
        // The epoch first. Otherwise a fill could have its ticket from the new generation while a write of this node's
        // own, with its new and smaller number, still raised the fence within the old epoch, where it stands above both.
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.forget();
    }

    fn height_of(&self, stripe: u32) -> Height {
        Height(self.stripe(stripe).height.load(Ordering::Acquire))
    }

    #[inline]
    fn stripe(&self, number: u32) -> &Stripe {
        &self.stripes[number as usize]
    }

    fn stripe_of(&self, key: &[u8]) -> u32 {
        // The high bits: the low ones are alike for all keys of a partition.
        let (hash, stripes) = (u64::from(crc32fast::hash(key)), self.stripes.len() as u64);
        u32::try_from((hash * stripes) >> u32::BITS).expect("it is below the number of stripes")
    }

    /// Lets L1 be served until then. Only the proof of an echo may call this; see [`Follower`](crate::Follower).
    pub fn extend(&self, until: Moment) {
        let serve_until = match self.disconnected {
            Disconnected::Bypass => until,
            Disconnected::ServeFor(longer) => until + longer,
            Disconnected::Serve => Moment::NEVER,
        };
        self.extensions.fetch_add(1, Ordering::AcqRel);
        self.trusted_until.store(until.micros(), Ordering::Release);
        self.serve_until.store(serve_until.micros(), Ordering::Release);
    }

    /// Withdraws trust now. What the policy grants beyond trust stays.
    pub fn distrust(&self) {
        self.trusted_until.store(0, Ordering::Release);
        if self.disconnected == Disconnected::Bypass {
            self.serve_until.store(0, Ordering::Release);
        }
    }

    /// Stops serving, whatever the policy: the node is shutting down.
    pub fn close(&self) {
        self.trusted_until.store(0, Ordering::Release);
        self.serve_until.store(0, Ordering::Release);
    }
}

impl Gate {
    /// All that it decides by, for copying and comparing.
    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        let single = [&self.serve_until, &self.trusted_until, &self.generation, &self.epoch, &self.newest];
        single.into_iter().chain(self.stripes.iter().flat_map(|stripe| [&stripe.height, &stripe.unsettled]))
    }
}

/// A copy with a life of its own. Whoever explores what a node may do goes on from the same state more than once.
impl Clone for Gate {
    fn clone(&self) -> Self {
        let copy = Self::with_stripes(self.disconnected, self.stripes.len());
        for (new, old) in copy.words().zip(self.words()) {
            new.store(old.load(Ordering::Acquire), Ordering::Release);
        }
        copy
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        self.disconnected == other.disconnected && numbers(self).eq(numbers(other))
    }
}

impl Eq for Gate {}

impl Hash for Gate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        numbers(self).for_each(|number| number.hash(state));
    }
}

fn numbers(gate: &Gate) -> impl Iterator<Item = u64> {
    gate.words().map(|word| word.load(Ordering::Acquire))
}
