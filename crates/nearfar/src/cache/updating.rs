//! Changes that depend on what is there.

use std::borrow::Borrow;
use std::hash::Hash;

use bytes::Bytes;
use nearfar_core::{Envelope, Precondition, Version};

use crate::cache::Cache;
use crate::error::Error;
use crate::key::{self, CacheKey};
use crate::loaded::Loaded;

/// How often an update is tried: whoever fails does so because another has succeeded.
const ATTEMPTS: usize = 16;

impl<K, V> Cache<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// As [`set_with`](Self::set_with), if L2 has no value of the key that is fresh; `None` if it has one, else the number of
    /// the change. Of several nodes that do this at once, one succeeds. That there is no such thing, and what is stale, counts
    /// as no value.
    ///
    /// # Errors
    /// As [`set`](Self::set), but it is never queued: what L2 was not there for is an error, and nothing has happened unless
    /// [its outcome is unknown](Error::outcome_is_unknown). Then an invalidation is in the outbox.
    ///
    /// # Cancel safety
    /// As [`set`](Self::set).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// assert!(names.set_if_absent("Ada", 36).await?.is_some());
    /// assert!(names.set_if_absent("Ada", 37).await?.is_none());
    /// assert_eq!(names.get("Ada").await?.as_deref(), Some(&36));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_if_absent<Q>(
        &self,
        key: &Q,
        value: impl Into<Loaded<V>>,
    ) -> Result<Option<Version>, Error>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let key = key.to_owned();
        let encoded = key::encode(&key)?;
        let loaded = value.into().or(&self.call);
        match Box::pin(self.engine.set_if(key, encoded, loaded, Precondition::Absent)).await {
            Err(error) if error.is_unmet() => Ok(None),
            set => set.map(Some),
        }
    }

    /// Replaces a value by what is made of it, as one step: if it is changed meanwhile, be it by another node, by a
    /// [`clear`](Self::clear) or by a tag, the newer one is read and `change` is called again, up to 16 times. It is given the
    /// value that L2 has, or `None` if that has none which is fresh.
    ///
    /// # Errors
    /// As [`set_if_absent`](Self::set_if_absent); if L2 cannot be read; of kind [`Value`](crate::ErrorKind::Value) if this
    /// version of the service cannot read what L2 has; and of kind [`Contended`](crate::ErrorKind::Contended) if others were
    /// faster each time.
    ///
    /// # Cancel safety
    /// As [`set`](Self::set).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let visits: nearfar::Cache<String, u64> = nearfar::Nearfar::in_process().cache("visits").build().await?;
    /// for _ in 0..3 {
    ///     visits.update("/home", |visits| visits.map_or(1, |visits| visits + 1)).await?;
    /// }
    /// assert_eq!(visits.get("/home").await?.as_deref(), Some(&3));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update<Q, L>(
        &self,
        key: &Q,
        mut change: impl FnMut(Option<&V>) -> L,
    ) -> Result<Version, Error>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
        L: Into<Loaded<V>>,
    {
        let key = key.to_owned();
        let encoded = key::encode(&key)?;
        for _ in 0..ATTEMPTS {
            let found = Box::pin(self.engine.read_l2(&key, &encoded, &self.call)).await?;
            if found.is_unreadable {
                return Err(Error::unreadable());
            }
            let present = found.fresh().and_then(crate::entry::Entry::present);
            let loaded = change(present.as_deref()).into().or(&self.call);
            let base = found.snapshot.head.map(|head| head.sequence).unwrap_or_default();
            let seen = found.snapshot.envelope;
            let seen = seen.map_or_else(Bytes::new, |bytes| bytes.slice_ref(Envelope::identity(&bytes)));
            let precondition = Precondition::Unchanged { seen, base };
            match Box::pin(self.engine.set_if(key.clone(), encoded.clone(), loaded, precondition)).await {
                Err(error) if error.is_unmet() => {}
                set => return set,
            }
        }
        Err(Error::unmet())
    }

    /// Counts as a read of the key, for its [`idle`](crate::CacheBuilder::idle) time, on every node and at once. Nothing else
    /// has an idle time to begin anew.
    ///
    /// # Errors
    /// If L2 fails.
    ///
    /// # Cancel safety
    /// Safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use std::time::Duration;
    /// # let nearfar = nearfar::Nearfar::in_process();
    /// let sessions: nearfar::Cache<String, u8> =
    ///     nearfar.cache("sessions").idle(Duration::from_secs(600)).build().await?;
    /// sessions.set("Ada", 1).await?;
    /// sessions.touch("Ada").await?; // still here
    /// assert!(sessions.contains("Ada").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn touch<Q>(&self, key: &Q) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let encoded = key::encode(&key.to_owned())?;
        if let Some(entry) = self.engine.peek(key) {
            entry.life().touch_at_once(entry.read_at());
        }
        Box::pin(self.engine.touch_l2(&encoded)).await
    }
}
