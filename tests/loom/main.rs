//! Every interleaving of a few threads at the gate.
