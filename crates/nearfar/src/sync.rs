//! What the flight table is made of, by a name of our own: the tests of its interleavings compile the same source on what
//! explores them.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
pub(crate) use std::thread_local;
