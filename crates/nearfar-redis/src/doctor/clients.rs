//! How the server treats connections.

use crate::doctor::figures::percent;
use crate::doctor::kinds::FindingKind;
use crate::doctor::visit::Visit;
use crate::inspect::{Config, Info};

/// From this share on, the server's places count as nearly taken.
const NEARLY_FULL: u64 = 80;

/// Beats are at most a second apart, and a late one must not cost the connection.
const SHORT_IDLE: u64 = 5;

pub(crate) fn examine(visit: &mut Visit, info: &Info, config: &Config) {
    if let (Some(clients), Some(most)) = (info.number("connected_clients"), info.number("maxclients")) {
        let seen = format!("{clients} connected, `maxclients` is {most}");
        if percent(clients, most) >= NEARLY_FULL {
            visit.found(FindingKind::ClientsNearlyFull, seen.clone());
        }
        visit.fact("clients", seen);
    }
    if let Some(idle) = config.number("timeout").filter(|idle| (1..SHORT_IDLE).contains(idle)) {
        visit.found(FindingKind::IdleClients, format!("`timeout` is {idle} s"));
    }
    if config.number("tcp-keepalive") == Some(0) {
        visit.found(FindingKind::KeepaliveOff, "`tcp-keepalive` is 0");
    }
}
