use std::sync::Arc;

use crate::Moment;
use crate::gate::{Disconnected, Gate};
use crate::sync::{AtomicU64, Ordering};

/// The gates of a cache on one node: one for each partition.
///
/// A hit knows the partition of what it finds only once it has found it, and must not then use trust that was given for
/// removing it. So it begins with [`look_up`](Self::look_up), which remembers how often trust was extended:
///
/// ```
/// use nearfar_core::{Disconnected, Gates, Moment};
///
/// let gates = Gates::new(Disconnected::Bypass, 2);
/// gates.of(1).extend(Moment::from_micros(100));
/// let look_up = gates.look_up();
/// // ... the key is found, with a copy of partition 1 ...
/// assert_eq!(gates.serve_until(&look_up, 1), Some(Moment::from_micros(100)));
///
/// gates.of(0).extend(Moment::from_micros(200));
/// assert_eq!(gates.serve_until(&look_up, 1), None, "look again");
/// ```
#[derive(Debug)]
pub struct Gates {
    gates: Box<[Arc<Gate>]>,
    /// How often trust was extended, in any of them.
    extensions: Arc<AtomicU64>,
}

/// How often trust had been extended when a look-up began.
#[derive(Debug)]
#[must_use = "a look-up that is not shown at the gates proves nothing"]
pub struct LookUp {
    extensions: u64,
}

impl Gates {
    /// How many stripes the fences of all partitions have together, at the least.
    const STRIPES: usize = 4096;
    /// How many that of one has at the least.
    const LEAST_STRIPES: usize = 64;

    /// Gates that trust nothing yet, for so many partitions.
    pub fn new(disconnected: Disconnected, partitions: u16) -> Self {
        let stripes = (Self::STRIPES / usize::from(partitions.max(1))).max(Self::LEAST_STRIPES);
        Self::with_stripes(disconnected, partitions, stripes)
    }

    /// As [`new`](Self::new), with so many stripes for each.
    pub fn with_stripes(disconnected: Disconnected, partitions: u16, stripes: usize) -> Self {
        let extensions = Arc::new(AtomicU64::new(0));
        let gate = |_| Arc::new(Gate::counting(disconnected, stripes, Arc::clone(&extensions)));
        Self { gates: (0..partitions).map(gate).collect(), extensions }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.gates.len()
    }

    /// The gate of a partition.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn of(&self, partition: u16) -> &Arc<Gate> {
        &self.gates[usize::from(partition)]
    }

    /// Call it **before** looking a key up in L1.
    #[inline]
    pub fn look_up(&self) -> LookUp {
        LookUp { extensions: self.extensions.load(Ordering::Acquire) }
    }

    /// Until when a copy of that partition, found by this look-up, may be served; then compare its generation with the
    /// gate's. `None` if trust was extended meanwhile, in whichever partition: then look the key up again.
    ///
    /// Trust is extended after what was missing has been evicted or forgotten, and is counted before it holds. So a
    /// reader who sees the new trust sees the count of it; and one who saw that count before looking up does not find
    /// the evicted copy.
    #[inline]
    pub fn serve_until(&self, look_up: &LookUp, partition: u16) -> Option<Moment> {
        let until = self.gates[usize::from(partition)].serve_until();
        (self.extensions.load(Ordering::Acquire) == look_up.extensions).then_some(until)
    }
}
