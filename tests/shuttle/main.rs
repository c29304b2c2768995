//! Many interleavings of threads at the flight table.
