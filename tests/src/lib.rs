//! What the tests stand on: worlds of several nodes, and valves that force an interleaving.
//!
//! A [`World`] is a shared store, in process or on a real server. Each of its nodes has a [`Valve`] in front of every
//! operation that a race turns on, so that a test can stop a node at the very point where the race happens, let the
//! other nodes act, and let it go on.

#![expect(clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod rights;
mod truth;
mod valves;
mod world;

pub use rights::{least_rights, least_rights_on_cluster};
pub use truth::{Truth, Turn};
pub use valves::{Valve, Valves};
pub use world::{Node, World, trusted};

/// Defines tests that run on every backend: as `in_process::name`, as `partitioned::name`, which is in process with
/// several partitions, and as `redis::name`.
///
/// ```
/// nearfar_tests::on_every_backend! {
///     async fn a_value_set_on_one_node_is_read_on_another(world: World) {
///         let (a, b) = (world.node().await, world.node().await);
///         assert_eq!(a.nearfar.cache::<u64, u64>("n").build().await.unwrap().namespace(), "n");
///         drop(b);
///     }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! on_every_backend {
    ($($(#[$doc:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        $($(#[$doc])* async fn $name($world: $crate::World) $body)*

        mod in_process {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::World::in_process()).await;
            })*
        }

        mod partitioned {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::World::partitioned()).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::World::redis().await).await;
            })*
        }
    };
}
