//! Where values come from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use nearfar::{Cache, Entry, Error};
use nearfar_tests::Valve;

#[derive(Debug, PartialEq)]
pub(crate) struct Broken(pub(crate) &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// An origin that counts its loads and can be stopped in the middle of one.
#[derive(Clone)]
pub(crate) struct Origin {
    /// What its values begin with.
    name: &'static str,
    loads: Arc<AtomicU64>,
    pub(crate) loading: Valve,
}

impl Default for Origin {
    fn default() -> Self {
        Self::named("load")
    }
}

impl Origin {
    pub(crate) fn named(name: &'static str) -> Self {
        Self { name, loads: Arc::default(), loading: Valve::default() }
    }

    pub(crate) fn load(
        &self,
    ) -> impl FnOnce(String) -> BoxFuture<'static, Result<String, Broken>> + Send + 'static {
        let origin = self.clone();
        move |_| {
            Box::pin(async move {
                let load = origin.loads.fetch_add(1, Ordering::SeqCst) + 1;
                origin.loading.pass().await;
                Ok(format!("{} {load}", origin.name))
            })
        }
    }

    pub(crate) fn fail(
        &self,
    ) -> impl FnOnce(String) -> BoxFuture<'static, Result<String, Broken>> + Send + 'static {
        let load = self.load();
        |key| {
            Box::pin(async move {
                load(key).await?;
                Err(Broken("no database"))
            })
        }
    }

    pub(crate) fn panic(
        &self,
    ) -> impl FnOnce(String) -> BoxFuture<'static, Result<String, Broken>> + Send + 'static {
        let load = self.load();
        |key| {
            Box::pin(async move {
                load(key).await?;
                panic!("a bug in the loader")
            })
        }
    }

    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }
}

pub(crate) type Outcome = Result<Entry<String>, Error>;

/// Starts a caller and waits until it has joined or leads.
pub(crate) fn call(
    cache: &Cache<String, String>,
    load: impl FnOnce(String) -> BoxFuture<'static, Result<String, Broken>> + Send + 'static,
) -> tokio::task::JoinHandle<Outcome> {
    let cache = cache.clone();
    tokio::spawn(async move { cache.get_or_load("k", load).await })
}
