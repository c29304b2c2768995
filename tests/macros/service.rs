//! A service whose functions are cached, as its tests see it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nearfar::{Cache, Error, cached};
use nearfar_tests::Node;

/// Counts how often its functions have been called in earnest.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) texts: Cache<String, String>,
    pub(crate) numbers: Cache<u64, u64>,
    calls: Arc<AtomicU64>,
}

/// What they fail with: their own error, or the cache's.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Origin(u64),
    Cache(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        error.downcast_ref::<Self>().cloned().unwrap_or(Self::Cache(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Failure {}

impl Service {
    pub(crate) async fn on(node: &Node) -> Self {
        let numbers = node.nearfar.cache("numbers").absent_ttl(std::time::Duration::from_secs(60));
        Self { texts: node.texts().await, numbers: numbers.build().await.unwrap(), calls: Arc::default() }
    }

    /// The number of this call, from 1.
    pub(crate) fn call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Says who it is for, and the how manieth call it is.
    #[cached(cache = self.texts, key = "{user}:{lang}")]
    pub(crate) async fn greeting(&self, user: u64, lang: &str) -> Result<String, Failure> {
        let call = self.call();
        if user == 0 { Err(Failure::Origin(call)) } else { Ok(format!("{lang} {user} #{call}")) }
    }
}
