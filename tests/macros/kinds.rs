//! Each kind of function that can be cached.

use std::sync::Arc;

use nearfar::{Cache, cached};
use nearfar_tests::on_every_backend;

use crate::service::{Failure, Service};

#[cached(cache = service.numbers, key = number)]
async fn plain(service: &Service, number: u64) -> u64 {
    number * 100 + service.call()
}

#[cached(cache = &service.numbers, key = number)]
async fn optional(service: &Service, number: u64) -> Option<u64> {
    let call = service.call();
    (number > 0).then_some(number * 100 + call)
}

#[cached(cache = service.numbers.clone(), key = &number)]
async fn fallible_optional(service: Service, mut number: u64) -> Result<Option<u64>, Failure> {
    let call = service.call();
    number *= 100;
    Ok((number > 0).then_some(number + call))
}

#[cached(cache = service.texts, key = "the {{only}} one")]
async fn single(service: &Service) -> Result<String, Failure> {
    Ok(format!("#{}", service.call()))
}

/// Its key is a `String` that it is given by reference, and it takes what has no `Clone`.
#[cached(cache = texts, key = name)]
async fn by_name<'a>(texts: &Cache<String, String>, name: &'a str, once: Once) -> Result<String, Failure>
where
    'a: 'a,
{
    let Once(suffix) = once;
    Ok(format!("{name}{suffix}"))
}

struct Once(&'static str);

impl Clone for Once {
    fn clone(&self) -> Self {
        panic!("nobody needs a copy")
    }
}

#[cached(cache = texts, key = "{number}{}")]
#[cfg(any())]
async fn left_out(texts: &Cache<String, String>, number: u64) -> Result<String, Failure> {
    Ok(number.to_string())
}

impl Service {
    #[cached(cache = self.numbers, key = number)]
    async fn by_pointer(self: &Arc<Self>, number: u64) -> u64 {
        number * 100 + self.call()
    }

    #[cached(cache = self.numbers, key = number)]
    async fn by_value(self, number: u64) -> u64 {
        number * 100 + self.call()
    }

    #[cached(cache = service.numbers, key = number)]
    async fn associated(service: &Self, number: u64) -> u64 {
        number * 100 + service.call()
    }
}

on_every_backend! {
    async fn a_method_is_called_once_for_all_nodes(world: World) {
        let (a, b) = (Service::on(&world.node().await).await, Service::on(&world.node().await).await);
        assert_eq!(a.greeting(7, "en").await.unwrap(), "en 7 #1");
        assert_eq!(a.greeting(7, "en").await.unwrap(), "en 7 #1");
        assert_eq!(b.greeting(7, "en").await.unwrap(), "en 7 #1");
        assert_eq!(b.greeting(7, "de").await.unwrap(), "de 7 #1", "another key, the other node's first call");
        assert_eq!((a.calls(), b.calls()), (1, 1));
    }

    async fn a_function_that_cannot_fail_is_called_once(world: World) {
        let service = Service::on(&world.node().await).await;
        assert_eq!((plain(&service, 7).await, plain(&service, 7).await, plain(&service, 8).await), (701, 701, 802));
    }

    async fn that_there_is_nothing_is_cached_as_the_cache_is_set(world: World) {
        let service = Service::on(&world.node().await).await;
        assert_eq!((optional(&service, 0).await, optional(&service, 0).await), (None, None));
        assert_eq!((optional(&service, 7).await, optional(&service, 7).await), (Some(702), Some(702)));
        assert_eq!(service.calls(), 2);
    }

    async fn a_fallible_function_may_find_nothing(world: World) {
        let service = Service::on(&world.node().await).await;
        for _ in 0..2 {
            assert_eq!(fallible_optional(service.clone(), 0).await.unwrap(), None);
            assert_eq!(fallible_optional(service.clone(), 7).await.unwrap(), Some(702));
        }
        assert_eq!(service.calls(), 2);
    }

    async fn a_key_without_parameters_is_one_entry(world: World) {
        let service = Service::on(&world.node().await).await;
        assert_eq!((single(&service).await.unwrap(), single(&service).await.unwrap()), ("#1".into(), "#1".into()));
        assert_eq!(single_key(), "the {only} one");
        assert!(service.texts.contains("the {only} one").await.unwrap());
    }

    async fn arguments_are_not_cloned_where_nobody_needs_them_again(world: World) {
        let service = Service::on(&world.node().await).await;
        let name = "Ada".to_owned();
        assert_eq!(by_name(&service.texts, &name, Once("!")).await.unwrap(), "Ada!");
        assert_eq!(by_name(&service.texts, &name, Once("?")).await.unwrap(), "Ada!");
    }

    async fn self_may_be_a_pointer_or_a_value_or_missing(world: World) {
        let service = Arc::new(Service::on(&world.node().await).await);
        assert_eq!(service.by_pointer(7).await, 701);
        assert_eq!(Service::clone(&service).by_value(7).await, 701);
        assert_eq!(Service::associated(&service, 7).await, 701);
        assert_eq!(service.calls(), 1);
    }

    async fn callers_at_once_share_one_call(world: World) {
        let service = Service::on(&world.node().await).await;
        let greetings = futures_util::future::join_all((0..10).map(|_| service.greeting(7, "en"))).await;
        assert!(greetings.iter().all(|greeting| greeting.as_deref().unwrap() == "en 7 #1"));
    }
}
