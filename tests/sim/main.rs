//! Whole nodes on a simulated network, on virtual time.
