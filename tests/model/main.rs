//! Every state that the protocol can get into, within bounds.
