//! What all peers are measured with, so that what differs between two rows is the peer.
//!
//! A contestant implements [`Peer`], and [`Loader`] if it can load what it does not have. [`Run`] measures it, one
//! [`Work`] after the other, each on a server of its own, in turn with a bare client that does the least that the work
//! needs: the machine may be noisy, both sides share it.

mod bare;
mod hands;
mod peer;
mod run;
mod work;
mod works;

pub use peer::{Loader, Peer, TTL, Writes};
pub use run::Run;
pub use work::Work;
