//! Ports that parallel tests do not take from each other.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ranges from which Linux and macOS number outgoing connections (32768 and 49152 up), so
/// that none of those takes the port of a server that is down between a kill and a restart.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// How far above a server's port the port of its cluster bus is.
const TO_BUS: u16 = 10_000;

/// A loopback TCP port that belongs to its holder, whether or not anything listens on it now.
///
/// All that reserve a port this way, in whichever process, also bind the UDP port of the same number,
/// and hold it: a lock that the kernel releases when the holder dies, however it dies.
#[derive(Debug)]
pub(crate) struct Reservation {
    port: u16,
    _lock: UdpSocket,
}

impl Reservation {
    /// Reserves a port on which nothing listens.
    pub(crate) fn take() -> Self {
        (0..COUNT)
            .find_map(|_| Self::try_take(next_candidate()))
            .expect("one of 12,000 loopback ports is free")
    }

    /// Reserves a port for a server of a cluster, and the one above it on which the servers talk to each other.
    pub(crate) fn take_with_bus() -> (Self, Self) {
        (0..COUNT)
            .map(|_| next_candidate())
            .filter(|port| port + TO_BUS < FIRST + COUNT)
            .find_map(|port| Some((Self::try_take(port)?, Self::try_take(port + TO_BUS)?)))
            .expect("one of 2,000 pairs of loopback ports is free")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn try_take(port: u16) -> Option<Self> {
        let lock = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        // Programs that are not of the testkit know nothing of the lock.
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self { port, _lock: lock })
    }
}

/// Walks the range, from a place of this process's own so that parallel processes seldom meet.
fn next_candidate() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let step = TAKEN.fetch_add(1, Ordering::Relaxed);
    let offset = start.wrapping_add(step) % u32::from(COUNT);
    FIRST + u16::try_from(offset).expect("less than COUNT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice() {
        let held = Reservation::take();
        assert!(Reservation::try_take(held.port()).is_none());
    }

    #[test]
    fn a_port_with_a_foreign_listener_is_not_given() {
        let port = Reservation::take().port();
        let _foreign = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(Reservation::try_take(port).is_none());
    }
}
