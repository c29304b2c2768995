//! What a function says about itself: for how long, under which tags, and whether at all.

use std::time::Duration;

use nearfar::{InProcess, Nearfar, cached};
use nearfar_tests::on_every_backend;

use crate::service::{Failure, Service};

const LONG: Duration = Duration::from_secs(3600);

#[cached(cache = service.numbers, key = number, unless = number > 10)]
async fn small(service: &Service, number: u64) -> u64 {
    number * 100 + service.call()
}

#[cached(cache = service.numbers, key = number, refresh_if = forced)]
async fn fresh(service: &Service, number: u64, forced: bool) -> Result<u64, Failure> {
    Ok(number * 100 + service.call())
}

#[cached(cache = service.numbers, key = number, store_if = |value| value % 2 == 0)]
async fn even(service: &Service, number: u64) -> u64 {
    number * 100 + service.call()
}

#[cached(cache = service.texts, key = "{name}", store_if = |name| is_short(name))]
async fn short(service: &Service, name: String) -> Result<Option<String>, Failure> {
    service.call();
    Ok((!name.is_empty()).then_some(name))
}

fn is_short(name: &str) -> bool {
    name.len() < 5
}

#[cached(cache = service.texts, key = "{user}/{name}", tags = ["users", "user:{user}", name], ttl = LONG)]
async fn tagged(service: &Service, user: u64, name: String) -> Result<String, Failure> {
    Ok(format!("{name} #{}", service.call()))
}

#[cached(cache = numbers, key = number, ttl = "1m 30s")]
async fn brief(numbers: &nearfar::Cache<u64, u64>, number: u64) -> u64 {
    number
}

on_every_backend! {
    async fn unless_it_says_so_the_cache_is_used(world: World) {
        let service = Service::on(&world.node().await).await;
        assert_eq!((small(&service, 7).await, small(&service, 7).await), (701, 701));
        assert_eq!((small(&service, 11).await, small(&service, 11).await), (1102, 1103));
        assert!(!service.numbers.contains(&11).await.unwrap());
    }

    async fn a_forced_refresh_is_what_others_get_from_then_on(world: World) {
        let (a, b) = (Service::on(&world.node().await).await, Service::on(&world.node().await).await);
        assert_eq!((fresh(&a, 7, false).await.unwrap(), fresh(&a, 7, true).await.unwrap()), (701, 702));
        assert_eq!((fresh(&a, 7, false).await.unwrap(), fresh(&b, 7, false).await.unwrap()), (702, 702));
    }

    async fn what_its_predicate_refuses_is_returned_and_not_stored(world: World) {
        let service = Service::on(&world.node().await).await;
        assert_eq!((even(&service, 7).await, even(&service, 7).await, even(&service, 7).await), (701, 702, 702));
    }

    async fn the_predicate_is_on_what_was_found(world: World) {
        let service = Service::on(&world.node().await).await;
        for name in ["Ada", "Lovelace", "Ada", "Lovelace"] {
            assert_eq!(short(&service, name.to_owned()).await.unwrap().unwrap(), name);
        }
        assert_eq!(service.calls(), 3);
        assert_eq!(short(&service, String::new()).await.unwrap(), None);
    }

    async fn tags_invalidate_what_carries_them(world: World) {
        let service = Service::on(&world.node().await).await;
        let mut calls = 1;
        for tag in ["users", "user:7", "Ada"] {
            assert_eq!(tagged(&service, 7, "Ada".into()).await.unwrap(), format!("Ada #{calls}"));
            assert_eq!(tagged(&service, 7, "Ada".into()).await.unwrap(), format!("Ada #{calls}"));
            service.texts.invalidate_tag(tag).await.unwrap();
            calls += 1;
        }
        assert_eq!(tagged(&service, 7, "Ada".into()).await.unwrap(), format!("Ada #{calls}"));
    }
}

#[tokio::test(start_paused = true)]
async fn its_own_ttl_is_in_place_of_the_caches() {
    let nearfar = Nearfar::builder().in_process(&InProcess::new());
    let numbers = nearfar.cache("numbers").ttl(LONG).build().await.unwrap();
    brief(&numbers, 7).await;
    tokio::time::advance(Duration::from_secs(89)).await;
    assert!(numbers.contains(&7).await.unwrap());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!numbers.contains(&7).await.unwrap());
}
