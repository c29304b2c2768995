//! What goes wrong in a function, and around it.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use nearfar::{Cache, ErrorKind, Loaded, cached};
use nearfar_tests::on_every_backend;

use crate::service::{Failure, Service};

#[cached(cache = service.numbers, key = number)]
async fn panics(service: &Service, number: u64) -> u64 {
    service.call();
    assert!(number > 0, "zero is not served");
    number
}

/// Also stored with a ttl, so that it is loaded in a way that can find nothing.
#[cached(cache = service.numbers, key = number, ttl = "1m")]
async fn certain(service: &Service, number: u64) -> Result<u64, Failure> {
    Ok(number * 100 + service.call())
}

#[cached(cache = texts, key = key)]
async fn too_long(texts: &Cache<String, String>, key: String) -> String {
    format!("{} bytes", key.len())
}

on_every_backend! {
    async fn its_own_error_comes_back_to_all_and_is_not_cached(world: World) {
        let service = Service::on(&world.node().await).await;
        let failures = futures_util::future::join_all((0..3).map(|_| service.greeting(0, "en"))).await;
        for failure in failures {
            assert!(matches!(failure, Err(Failure::Origin(1..=3))), "{failure:?}");
        }
        let calls = service.calls();
        assert!(service.greeting(0, "en").await.is_err());
        assert_eq!(service.calls(), calls + 1);
    }

    async fn a_cache_that_was_shut_down_is_an_error_of_a_function_that_can_fail(world: World) {
        let node = world.node().await;
        let service = Service::on(&node).await;
        node.nearfar.shutdown().await;
        let Err(Failure::Cache(error)) = service.greeting(7, "en").await else { panic!("it was served") };
        assert_eq!(error.kind(), ErrorKind::Closed);
    }

    async fn a_function_that_cannot_fail_does_not_for_its_cache(world: World) {
        let node = world.node().await;
        let service = Service::on(&node).await;
        let long = "x".repeat(2 << 20);
        assert_eq!(too_long(&service.texts, long).await, "2097152 bytes", "longer than a key may be");
        node.nearfar.shutdown().await;
        assert_eq!((panics(&service, 7).await, service.calls()), (7, 1));
    }

    async fn without_l2_functions_are_called(world: World) {
        let node = world.node().await;
        let service = Service::on(&node).await;
        world.cut_off(&node).await;
        assert_eq!(service.greeting(7, "en").await.unwrap(), "en 7 #1");
        assert_eq!(panics(&service, 7).await, 7);
        world.bring_back(&node).await;
    }

    async fn a_panic_of_a_function_that_cannot_fail_is_one_of_its_callers(world: World) {
        let service = Service::on(&world.node().await).await;
        let panic = AssertUnwindSafe(panics(&service, 0)).catch_unwind().await.unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert_eq!((text.as_str(), service.calls()), ("the loader panicked: zero is not served", 1));
    }

    async fn what_another_has_found_absent_is_looked_for_where_there_must_be_something(world: World) {
        let service = Service::on(&world.node().await).await;
        service.numbers.set_with(&7, Loaded::absent()).await.unwrap();
        assert_eq!(certain(&service, 7).await.unwrap(), 701);
    }
}
