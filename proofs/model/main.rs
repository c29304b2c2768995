//! Every state that the protocol can get into, within bounds.
//!
//! The gate, the follower, the outbox and the partition are those that ship; what `nearfar` puts round them (flights,
//! L1, the order of steps) is sketched in `node.rs`. A scenario says how often each thing may happen, and all orders of
//! it are explored, until no new state is left:
//!
//! * `scenario.rs`: what is explored, and what each exploration must reach lest it proves nothing.
//! * `world.rs`, `server.rs`, `node.rs`: a state. The truth is a database of row revisions.
//! * `action.rs`: what may happen in a state.
//! * `explore.rs`: what must hold in every state, and the explorations.
//! * `mutants.rs`: the protocol broken in one way at a time, which the explorations must find.
//!
//! What is taken for granted: L2 executes one thing at a time, its clock does not go back, and nobody changes a row in
//! the database while a `set` of its key is under way elsewhere.

mod action;
mod explore;
mod mutants;
mod node;
mod scenario;
mod server;
mod world;
