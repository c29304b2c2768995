//! Faults on real servers, with every read judged.
