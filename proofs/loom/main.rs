//! The interleavings of a few threads at the gate, and every value that a weak memory lets them read.
//!
//! What runs is the source that ships, compiled on loom's atomics. Around it stand the few lines that use it: L1's
//! `get`, `admit` and `evict`, and what fills and invalidations do in which order. Each order that matters is turned
//! round in a test of its own, named `refuted::…`, which passes only if loom finds the interleaving that breaks it.
//!
//! loom takes `SeqCst` for acquire and release, and lets no load see a store that is yet to come. Neither hides anything
//! here: the gate uses no `SeqCst`, and its loads are acquiring ones.

mod breaking;
mod fills;
mod fronts;
mod history;
mod hits;
mod node;

use nearfar_core::{Moment, Version};

#[path = "../../crates/nearfar-core/src/breaker.rs"]
#[expect(unreachable_pub, reason = "it is public where it ships")]
mod breaker;

#[path = "../../crates/nearfar-core/src/gate.rs"]
#[expect(dead_code, unreachable_pub, reason = "the whole of it, of which the tests use a part")]
mod gate;

#[path = "../../crates/nearfar-core/src/gates.rs"]
#[expect(dead_code, unreachable_pub, reason = "the whole of it, of which the tests use a part")]
mod gates;

mod sync {
    //! What the shipped sources find under this name.

    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}
