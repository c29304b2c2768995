//! Histories that are told, not drawn.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use nearfar::{Loaded, Outcome};

use crate::clock::{millis, sleep};
use crate::database::Value;
use crate::fleet::{Process, Values};
use crate::freshness::Freshness;
use crate::history::on_virtual_time;
use crate::plan::Plan;
use crate::station::Flow;
use crate::world::World;

/// Longer than a watchdog waits, and connecting takes.
const LONG: Duration = millis(4_000);
const SECOND: Duration = millis(1_000);

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

/// A node clears, L2 acknowledges it and fails over to a replica that lacks the clear, before the node has heard its
/// message. Then nobody changes anything any more. A changed key leaves a version behind in L1 by which the next echo
/// shows the loss; a clear left nothing, so the old value stayed in L2 until somebody changed something.
#[test]
fn a_clear_that_l2_has_lost_is_issued_again_though_nothing_follows() {
    on_virtual_time(1, async {
        let (world, _process, cache) = one_quiet_node().await;
        cache.set(&1, Value { key: 1, revision: 1 }).await.expect("L2 is there");
        sleep(millis(100)).await;
        world.lock().stations[0].subscriber.to_node = Flow::Hold;
        assert!(cache.clear().await.expect("L2 is there").is_applied());

        world.crash_server();
        {
            let mut state = world.lock();
            state.lose_since(millis(50));
            state.server.up = true;
        }
        sleep(LONG).await;
        assert!(cache.stats().trusted);
        assert!(cache.get(&1).await.expect("L2 is there").is_none(), "the clear has been issued again");
    });
}

/// The same with a change of a tag, which leaves no copy behind either.
#[test]
fn a_change_of_a_tag_that_l2_has_lost_is_issued_again_though_nothing_follows() {
    on_virtual_time(1, async {
        let (world, _process, cache) = one_quiet_node().await;
        let value = Loaded::new(Value { key: 1, revision: 1 }).tags(["red"]);
        cache.set_with(&1, value).await.expect("L2 is there");
        sleep(millis(100)).await;
        world.lock().stations[0].subscriber.to_node = Flow::Hold;
        assert!(cache.invalidate_tag("red").await.expect("L2 is there").is_applied());

        world.crash_server();
        {
            let mut state = world.lock();
            state.lose_since(millis(50));
            state.server.up = true;
        }
        sleep(LONG).await;
        assert!(cache.stats().trusted);
        assert!(cache.get(&1).await.expect("L2 is there").is_none(), "it has been issued again");
    });
}

/// The clocks of the partitions are minutes apart, see [`APART`](crate::server::APART). By that of another partition, a
/// value would live for ever or not at all, and every deadline would be far away or long over.
#[test]
fn each_partition_goes_by_the_clock_of_its_own_server() {
    on_virtual_time(1, async {
        let mut rng = Rng::with_seed(1);
        let freshness = Freshness { ttl: millis(600), ..Freshness::PLAIN };
        let times = Plan { fence_window: millis(400), ..plain(&mut rng) };
        let world = World::of(&Plan { keys: 12, partitions: 3, freshness, ..times }, rng, false);
        let ((a_lives, a), (b_lives, b)) = (quiet_node(&world).await, quiet_node(&world).await);
        let indices = (0..12).map(|key| world.lock().index_of(key));
        assert_eq!(indices.collect::<BTreeSet<_>>().len(), 3, "each partition has a key");

        for key in 0..12 {
            let (old, new) = (Value { key, revision: 0 }, Value { key, revision: 1 });
            assert!(a.set(&key, old).await.expect("L2 is there").is_applied(), "before its deadline");
            sleep(millis(300)).await;
            assert!(b.get(&key).await.expect("L2 is there").is_some(), "half of its ttl is left, in L2");
            sleep(millis(310)).await;
            let (of_a, of_b) = (a.get(&key).await, b.get(&key).await);
            assert!(of_a.expect("L2 is there").or(of_b.expect("L2 is there")).is_none(), "its ttl is over");

            load(&a, new, millis(100)).await;
            assert_eq!(
                b.get(&key).await.expect("L2 is there").as_deref(),
                Some(&new),
                "it is within the fence"
            );
            assert!(b.invalidate(&key).await.expect("L2 is there").is_applied(), "before its deadline");
            load(&a, new, millis(500)).await;
            assert!(b.get(&key).await.expect("L2 is there").is_none(), "no fence stands for so long");
        }

        let (nearfar, _) = a_lives.node().expect("it was built");
        let silences = async || {
            let nodes = nearfar.nodes().await.expect("L2 is there");
            let of_this = |this: bool| nodes.iter().find(|node| node.is_this_one == this);
            (of_this(true).expect("it beats").silent_for, of_this(false).expect("it beat").silent_for)
        };
        let (of_a, of_b) = silences().await;
        assert!(of_a < SECOND && of_b < SECOND, "{of_a:?} {of_b:?}");
        b_lives.crash(&world);
        sleep(5 * SECOND).await;
        let (of_a, of_b) = silences().await;
        assert!(of_a < SECOND && of_b > 4 * SECOND && of_b < 6 * SECOND, "{of_a:?} {of_b:?}");
    });
}

/// Loads a value, which takes so long.
async fn load(cache: &Values, value: Value, time: Duration) {
    let loader = async move |_| {
        sleep(time).await;
        Ok::<_, std::io::Error>(value)
    };
    let entry = cache.get_or_load(&value.key, loader).await.expect("the loader works");
    assert_eq!(*entry, value);
}

/// A node that trusts its subscription, whose own clients have gone.
async fn one_quiet_node() -> (Arc<World>, Process, Values) {
    let mut rng = Rng::with_seed(1);
    let plan = plain(&mut rng);
    let world = World::of(&plan, rng, false);
    let (process, cache) = quiet_node(&world).await;
    (world, process, cache)
}

/// Settings that a story can go by.
pub(crate) fn plain(rng: &mut Rng) -> Plan {
    Plan { freshness: Freshness::PLAIN, odd_ones: 0, latency: 2, ..Plan::draw(rng) }
}

pub(crate) async fn quiet_node(world: &Arc<World>) -> (Process, Values) {
    world.lock().quiet = true;
    let process = Process::start(world);
    sleep(LONG).await;
    let cache = process.cache().expect("nothing keeps it from starting");
    assert!(cache.stats().trusted);
    (process, cache)
}
