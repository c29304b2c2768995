//! Histories that are told, not drawn.

use std::sync::Arc;
use std::time::Duration;

use nearfar::Outcome;

use crate::clock::{millis, sleep};
use crate::fleet::{Process, Values};
use crate::history::on_virtual_time;
use crate::station::Flow;
use crate::world::World;

/// Longer than a watchdog waits, and connecting takes.
const LONG: Duration = millis(4_000);

/// Every command arrives, and its reply is lost. Beats arrive too, so echoes come and the node trusts its subscription.
/// While only echoes were watched, nobody replaced the connection: each read of L2 took a command's time and failed,
/// and the outbox never heard that its batches had been executed.
#[test]
fn a_command_connection_that_loses_every_reply_is_replaced() {
    on_virtual_time(1, async {
        let (world, _process, cache) = one_quiet_node().await;
        world.lock().stations[0].commands.to_node = Flow::Vanish;
        assert_eq!(cache.invalidate(&1).await.expect("it is queued"), Outcome::Queued);

        sleep(LONG).await;
        assert_eq!(cache.stats().outbox_keys, 0, "its delivery has been acknowledged");
        assert!(cache.get(&1).await.expect("L2 replies").is_none());
    });
}

/// A node that trusts its subscription, whose own clients have gone.
async fn one_quiet_node() -> (Arc<World>, Process, Values) {
    let world = World::new(1, false);
    world.lock().quiet = true;
    let process = Process::start(&world);
    sleep(LONG).await;
    let cache = process.cache().expect("nothing keeps it from starting");
    assert!(cache.stats().trusted);
    (world, process, cache)
}
