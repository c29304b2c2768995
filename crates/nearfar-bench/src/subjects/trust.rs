//! What a hit pays for the bound: the look at the trust and the generation, beside the same hit without them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use nearfar_bench::{Row, Table};
use nearfar_core::{Disconnected, Gates, Moment};
use nearfar_testkit::Stopwatch;

const ROUNDS: usize = 101;
const READS: usize = 100_000;
const KEYS: u64 = 1_000;

/// What L1 holds of a value.
struct Slot {
    row: Row,
    expires_at: Moment,
    generation: u64,
}

/// An L1 made of the same parts as nearfar's.
struct L1 {
    map: moka::sync::Cache<u64, Arc<Slot>, foldhash::fast::RandomState>,
    clock: Stopwatch,
    gates: Gates,
}

impl L1 {
    fn new() -> Self {
        let gates = Gates::new(Disconnected::Bypass, 1);
        gates.of(0).extend(Moment::NEVER);
        let map = moka::sync::Cache::builder()
            .max_capacity(KEYS * 2)
            .time_to_live(Duration::from_secs(300))
            .build_with_hasher(foldhash::fast::RandomState::default());
        for id in 0..KEYS {
            let slot =
                Slot { row: Row::new(id), expires_at: Moment::NEVER, generation: gates.of(0).generation() };
            map.insert(id, Arc::new(slot));
        }
        Self { map, clock: Stopwatch::start(), gates }
    }

    fn now(&self) -> Moment {
        Moment::default() + self.clock.elapsed()
    }

    /// A hit of a cache whose entries expire.
    fn get(&self, id: u64) -> Option<Arc<Slot>> {
        let slot = self.map.get(&id)?;
        (self.now() < slot.expires_at).then_some(slot)
    }

    /// The same with trust, as `nearfar`'s own `L1::get` does it.
    fn get_trusted(&self, id: u64) -> Option<Arc<Slot>> {
        let look_up = self.gates.look_up();
        let slot = self.map.get(&id)?;
        let until = self.gates.serve_until(&look_up, 0)?;
        let now = self.now();
        let alive = now < until && now < slot.expires_at && slot.generation == self.gates.of(0).generation();
        alive.then_some(slot)
    }
}

pub(crate) fn measure(table: &mut Table) {
    let l1 = L1::new();
    let order: Vec<u64> = (0..READS).map(|_| fastrand::u64(..KEYS)).collect();
    let (mut expiry, mut trust) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let moka = time(&order, |id| l1.map.get(&id));
        let expiring = time(&order, |id| l1.get(id));
        let trusting = time(&order, |id| l1.get_trusted(id));
        expiry.push((moka, expiring));
        trust.push((expiring, trusting));
    }
    table.add("L1 hit that looks at the clock", "moka get", "ns", &expiry);
    table.add("L1 hit that looks at the trust too", "that", "ns", &trust);
    table.add_difference("the look at the trust", "a hit that looks at the clock", "ns", &trust);
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn time(order: &[u64], get: impl Fn(u64) -> Option<Arc<Slot>>) -> f64 {
    let watch = Stopwatch::start();
    for id in order {
        let slot = black_box(get(*id)).expect("it neither expires nor loses trust");
        black_box(slot.row.id);
    }
    watch.elapsed().as_nanos() as f64 / order.len() as f64
}
