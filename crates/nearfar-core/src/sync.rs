//! The atomics that [`Gate`](crate::Gate) is made of, by a name of our own: the tests of its interleavings compile the
//! same source on those of a model checker.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
