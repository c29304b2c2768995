//! Functions that invalidate, and the functions beside those that are cached.

use nearfar::{Cache, ErrorKind, Unacknowledged, invalidates};
use nearfar_testkit::eventually;
use nearfar_tests::on_every_backend;

use crate::service::{Failure, Service};

impl Service {
    #[invalidates(cache = self.texts, key = "{user}:{lang}")]
    #[invalidates(cache = self.numbers, key = user)]
    async fn rename(&mut self, user: u64, lang: String) -> Result<String, Failure> {
        let call = self.call();
        if user == 0 { Err(Failure::Origin(call)) } else { Ok(lang) }
    }
}

#[invalidates(cache = texts, key = name, tags = ["names", "name:{name}"])]
async fn forget(texts: &Cache<String, String>, name: &str) -> Result<(), Failure> {
    Ok(())
}

#[invalidates(cache = texts, tags = [name])]
async fn forget_tag<T: Clone>(
    texts: &Cache<String, String>,
    name: String,
    (rest, _): (T, u8),
) -> Result<T, Failure> {
    Ok(rest.clone())
}

on_every_backend! {
    async fn what_has_succeeded_is_invalidated_on_every_node(world: World) {
        let (mut a, b) = (Service::on(&world.node().await).await, Service::on(&world.node().await).await);
        a.greeting(7, "en").await.unwrap();
        b.greeting(7, "en").await.unwrap();
        a.numbers.set(&7, 1).await.unwrap();
        assert_eq!(a.rename(7, "en".into()).await.unwrap(), "en");
        assert!(!a.texts.contains("7:en").await.unwrap() && !a.numbers.contains(&7).await.unwrap());
        eventually("the message arrives", async || b.texts.peek("7:en").is_none()).await;
        assert_eq!(b.greeting(7, "en").await.unwrap(), "en 7 #1", "its own first call");
    }

    async fn what_has_failed_invalidates_nothing(world: World) {
        let mut service = Service::on(&world.node().await).await;
        service.texts.set("0:en", "nobody".into()).await.unwrap();
        assert!(matches!(service.rename(0, "en".into()).await, Err(Failure::Origin(1))));
        assert!(service.texts.contains("0:en").await.unwrap());
    }

    async fn an_invalidation_that_failed_is_told_and_waits_in_the_outbox(world: World) {
        let node = world.node().await;
        let builder = node.nearfar.cache("strict").unacknowledged(Unacknowledged::Fail);
        let strict: Cache<String, String> = builder.build().await.unwrap();
        world.cut_off(&node).await;
        let Err(Failure::Cache(error)) = forget(&strict, "Ada").await else { panic!("nobody could be told") };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        world.bring_back(&node).await;
        eventually("the outbox is empty", async || strict.stats().outbox_keys == 0).await;
    }

    async fn an_invalidation_that_is_queued_is_no_failure(world: World) {
        let node = world.node().await;
        let texts = node.texts().await;
        world.cut_off(&node).await;
        assert!(forget(&texts, "Ada").await.is_ok());
        world.bring_back(&node).await;
    }

    async fn tags_are_invalidated_as_well(world: World) {
        let service = Service::on(&world.node().await).await;
        let tagged = || nearfar::Loaded::new("v".to_owned()).tags(["names"]);
        service.texts.set_with("k", tagged()).await.unwrap();
        forget(&service.texts, "other").await.unwrap();
        assert!(!service.texts.contains("k").await.unwrap());
        service.texts.set_with("k", tagged()).await.unwrap();
        assert_eq!(forget_tag(&service.texts, "names".into(), (3, 4)).await.unwrap(), 3);
        assert!(!service.texts.contains("k").await.unwrap());
    }

    async fn what_stands_beside_a_cached_function_bypasses_and_invalidates(world: World) {
        let service = Service::on(&world.node().await).await;
        assert_eq!(Service::greeting_key(7, "en"), "7:en");
        service.texts.set(&Service::greeting_key(7, "en"), "set".into()).await.unwrap();
        assert_eq!(service.greeting(7, "en").await.unwrap(), "set");
        assert_eq!(service.greeting_uncached(7, "en").await.unwrap(), "en 7 #1");
        assert!(service.greeting_invalidate(7, "en").await.unwrap().is_applied());
        assert_eq!(service.greeting(7, "en").await.unwrap(), "en 7 #2");
    }
}
