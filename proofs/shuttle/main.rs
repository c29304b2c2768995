//! Many interleavings of tasks at the flight table.
//!
//! What runs is the source that ships, compiled on shuttle's locks; shuttle prints the schedule of a run that fails, for
//! [`shuttle::replay`]. A use of the table that is wrong has a test of its own, named `refuted::…`, which passes only if
//! shuttle finds the schedule that breaks it.

mod leaving;
mod retiring;
mod world;

#[path = "../../crates/nearfar/src/flight.rs"]
#[expect(dead_code, reason = "the whole of it, of which the tests use a part")]
mod flight;

mod sync {
    //! What the shipped table finds under this name.

    pub(crate) use shuttle::sync::{Mutex, MutexGuard, PoisonError};
    pub(crate) use shuttle::thread_local;
}
