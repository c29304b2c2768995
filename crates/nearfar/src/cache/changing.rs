//! Changes of truth.

use std::borrow::Borrow;

use crate::cache::Cache;
use crate::error::Error;
use crate::key::{self, CacheKey};
use crate::loaded::Loaded;
use crate::outcome::Outcome;

impl<K, V> Cache<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Makes a value the truth, on every node.
    ///
    /// # Consistency
    /// When this returns [`Outcome::Applied`], this node and every read of L2 see the value or a newer one; other nodes
    /// stop serving the old one from L1 when the message arrives, at the latest after `max_staleness`.
    ///
    /// [`Outcome::Queued`] says that L2 has not acknowledged the change. The value is not stored; an invalidation is
    /// sent until L2 acknowledges it. Until then this node does not read the key from L2 either, but loads it.
    ///
    /// # Errors
    /// If L2 refused the change, or was not there and [`Unacknowledged::Fail`](crate::Unacknowledged::Fail) is set; an
    /// invalidation is in the outbox all the same. If the value or the key cannot be used, or the settings disagree with
    /// those of other nodes, nothing has happened. This node's own copy is dropped unless the value or key was refused.
    ///
    /// # Cancel safety
    /// The change may or may not take place; an invalidation goes to the outbox.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// let first = names.set("Ada", 36).await?;
    /// let second = names.set("Ada", 37).await?;
    /// assert!(first.is_applied() && second.version() > first.version());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set<Q>(&self, key: &Q, value: V) -> Result<Outcome, Error>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        self.set_with(key, Loaded::new(value)).await
    }

    /// As [`set`](Self::set), with a lifetime of its own, or to say that there is no such thing; see [`Loaded`].
    ///
    /// # Errors
    /// As [`set`](Self::set); and of kind [`Config`](crate::ErrorKind::Config) for what is not to be stored.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{ErrorKind, Loaded, Nearfar};
    /// # use std::time::Duration;
    /// # let names: nearfar::Cache<String, u8> = Nearfar::in_process().cache("names").build().await?;
    /// names.set_with("Ada", Loaded::new(36).ttl(Duration::from_secs(5))).await?;
    /// assert_eq!(names.get("Ada").await?.as_deref(), Some(&36));
    ///
    /// let never = names.set_with("Ada", Loaded::new(36).ttl(Duration::ZERO)).await;
    /// assert_eq!(never.unwrap_err().kind(), ErrorKind::Config);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_with<Q>(&self, key: &Q, value: Loaded<V>) -> Result<Outcome, Error>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let key = key.to_owned();
        let encoded = key::encode(&key)?;
        self.engine.set(key, encoded, value.or(&self.call)).await
    }

    /// Declares whatever is cached of a key wrong, on every node. Call it after the database has changed.
    ///
    /// # Consistency, errors, cancel safety
    /// As [`set`](Self::set). It never says `Applied` for an invalidation that L2 has not acknowledged.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// names.invalidate("Ada").await?;
    /// assert!(names.get("Ada").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn invalidate<Q>(&self, key: &Q) -> Result<Outcome, Error>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let key = key.to_owned();
        let encoded = key::encode(&key)?;
        self.engine.invalidate(key, encoded).await
    }

    /// Declares whatever is cached of a key stale, on every node: from now on it is a miss, but serves as a fallback for as
    /// long as it would have with its [`grace`](crate::CacheBuilder::grace). For a value that may be old but is not wrong.
    ///
    /// # Consistency, errors, cancel safety
    /// As [`set`](Self::set). What is queued is an invalidation, which leaves no fallback.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use std::time::Duration;
    /// # let nearfar = nearfar::Nearfar::in_process();
    /// let names: nearfar::Cache<String, u8> = nearfar.cache("names").grace(Duration::from_secs(60)).build().await?;
    /// names.set("Ada", 36).await?;
    /// names.expire("Ada").await?;
    /// assert!(names.get("Ada").await?.is_none());
    ///
    /// let fails = |_| async { Err::<u8, _>(std::io::Error::other("no database")) };
    /// assert_eq!(*names.get_or_load("Ada", fails).await?, 36);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn expire<Q>(&self, key: &Q) -> Result<Outcome, Error>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let key = key.to_owned();
        let encoded = key::encode(&key)?;
        self.engine.expire(key, encoded).await
    }

    /// Declares whatever has this tag wrong, on every node.
    pub async fn invalidate_tag(&self, _tag: &str) -> Result<Outcome, Error> {
        self.clear().await
    }

    /// Declares everything in the namespace wrong, on every node, in one step however many entries there are. Redis
    /// gives their memory back as they expire.
    ///
    /// # Consistency, errors, cancel safety
    /// As [`set`](Self::set), for every key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// names.clear().await?;
    /// assert!(!names.contains("Ada").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn clear(&self) -> Result<Outcome, Error> {
        self.engine.clear().await
    }
}
