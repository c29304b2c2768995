//! A server that does not answer costs a few time limits, and then none.

use std::time::Duration;

use nearfar::backend::ServerId;
use nearfar::{Cache, CircuitState, Event, Nearfar, Tier};
use nearfar_testkit::{RedisServer, eventually};

fn state(nearfar: &Nearfar) -> CircuitState {
    let circuits = nearfar.circuits();
    assert_eq!(circuits.len(), 1);
    assert_eq!(circuits[0].0, ServerId::new(0));
    circuits[0].1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_not_waited_for_by_everybody() {
    let server = RedisServer::start().await;
    let builder = Nearfar::builder().command_timeout(Duration::from_millis(300));
    let nearfar = builder.connect(&server.url()).await.unwrap();
    let cache: Cache<u32, u32> = nearfar.cache("n").build().await.unwrap();
    assert_eq!(state(&nearfar), CircuitState::Closed);
    let mut events = cache.events();

    server.pause().await;
    let mut waited = 0;
    while state(&nearfar) == CircuitState::Closed {
        assert!(cache.get(&1).await.unwrap_err().is_unavailable());
        waited += 1;
        // One may have begun before an answer from before the pause was taken in, which says that the server is well.
        assert!(waited <= 4, "more than three in a row have waited");
    }
    let loaded =
        cache.get_or_load(&1, |key| async move { Ok::<_, std::convert::Infallible>(key) }).await.unwrap();
    assert_eq!((*loaded, loaded.tier()), (1, Tier::Loader));

    server.resume().await;
    eventually("it is tried again", async || cache.set(&1, 2).await.is_ok_and(nearfar::Outcome::is_applied))
        .await;
    assert_eq!(state(&nearfar), CircuitState::Closed);
    assert_eq!(cache.get(&1).await.unwrap().as_deref(), Some(&2));
    let told = std::iter::from_fn(|| events.try_next()).filter_map(|event| match event {
        Event::CircuitOpened { server } => Some((server, CircuitState::Open)),
        Event::CircuitClosed { server } => Some((server, CircuitState::Closed)),
        _ => None,
    });
    let server = ServerId::new(0);
    assert_eq!(
        told.take(2).collect::<Vec<_>>(),
        [(server, CircuitState::Open), (server, CircuitState::Closed)]
    );
}
