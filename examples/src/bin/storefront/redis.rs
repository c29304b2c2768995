//! A Redis for the nodes to share.

use std::any::Any;
use std::panic;

use nearfar_testkit::RedisServer;

use crate::failure::Failure;
use crate::node::Store;
use crate::service::CacheSettings;

/// Starts a server that ends with its handle.
pub(crate) async fn spawn() -> Result<RedisServer, Failure> {
    // The testkit panics, as tests do, with a message that is all that a person needs.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let server = tokio::spawn(RedisServer::start()).await;
    panic::set_hook(hook);
    server.map_err(|error| match error.try_into_panic() {
        Ok(panic) => Failure::Settings(message(&*panic)),
        Err(error) => Failure::run(error),
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the server did not start").to_owned()
}

/// Shows, before any work is done, that the server can be used; and forgets what earlier runs, whose database is
/// gone, have left there.
pub(crate) async fn prepare(url: &str, cache: CacheSettings) -> Result<(), Failure> {
    let nearfar = Store::Redis(url.to_owned()).connect().await.map_err(Failure::settings)?;
    let products = cache.build(&nearfar).await.map_err(Failure::settings)?;
    products.clear().await.map_err(Failure::settings)?;
    nearfar.shutdown().await;
    Ok(())
}
