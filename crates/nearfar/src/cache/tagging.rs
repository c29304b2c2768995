//! Changes of truth about whatever carries a tag, and purging.

use nearfar_core::Tags;

use crate::cache::Cache;
use crate::error::{ConfigProblem, Error};
use crate::key::CacheKey;
use crate::outcome::Outcome;
use crate::purge::Purge;
use crate::tags::TagChange;

impl<K, V> Cache<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Declares wrong whatever is cached with this [tag](crate::Loaded::tags), on every node: one step per partition, however
    /// many entries there are. Redis gives their memory back as they expire, or by a [`purge`](Self::purge).
    ///
    /// # Consistency, cancel safety
    /// As [`set`](Self::set), for every key that carries the tag. What is loaded meanwhile is returned to its callers, and is
    /// served to nobody else if it turns out to carry the tag.
    ///
    /// Nobody knows which copies carry a tag. So where L2 does not acknowledge it, or its caller goes away meanwhile, this node
    /// forgets all copies of the partitions concerned.
    ///
    /// # Errors
    /// As [`set`](Self::set); and of kind [`Config`](crate::ErrorKind::Config) for what cannot be a tag.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Cache, Loaded, Nearfar};
    /// let pages: Cache<String, String> = Nearfar::in_process().cache("pages").build().await?;
    /// pages.set_with("/news", Loaded::new("...".to_owned()).tags(["author:7"])).await?;
    /// pages.set_with("/about", Loaded::new("...".to_owned())).await?;
    ///
    /// pages.invalidate_tag("author:7").await?;
    /// assert!(pages.get("/news").await?.is_none());
    /// assert!(pages.get("/about").await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn invalidate_tag(&self, tag: &str) -> Result<Outcome, Error> {
        self.change_tag(tag, TagChange::Wrong).await
    }

    /// Declares stale whatever is cached with this tag, on every node: from now on it is a miss, but serves as a fallback
    /// within its [`grace`](crate::CacheBuilder::grace), as after [`expire`](Self::expire).
    ///
    /// # Consistency, errors, cancel safety
    /// As [`invalidate_tag`](Self::invalidate_tag). What is queued is an invalidation, which leaves no fallback.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Cache, Loaded, Nearfar, Staleness};
    /// # use std::{io, time::Duration};
    /// let nearfar = Nearfar::in_process();
    /// let pages: Cache<String, String> = nearfar.cache("pages").grace(Duration::from_secs(60)).build().await?;
    /// pages.set_with("/news", Loaded::new("...".to_owned()).tags(["author:7"])).await?;
    ///
    /// pages.expire_tag("author:7").await?;
    /// let fails = |_| async { Err::<String, _>(io::Error::other("no database")) };
    /// assert_eq!(pages.get_or_load("/news", fails).await?.staleness(), Some(Staleness::LoadFailed));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn expire_tag(&self, tag: &str) -> Result<Outcome, Error> {
        self.change_tag(tag, TagChange::Stale).await
    }

    async fn change_tag(&self, tag: &str, change: TagChange) -> Result<Outcome, Error> {
        let tag = Tags::encode_one(tag).map_err(|problem| Error::config(ConfigProblem::Tag(problem)))?;
        Box::pin(self.engine.change_tags(&[tag], change)).await
    }

    /// Begins to give back the memory, in L2, of what is dead: cleared, of an invalidated tag, of a history that is over. It
    /// would expire by itself; this is for who needs the memory sooner.
    ///
    /// It goes through the keys of each server in small steps (1,000 keys looked at, 100 examined at once), one after the
    /// other, in a task of its own, until it is done or the [`Purge`] is dropped. What still fences stays.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// names.clear().await?;
    /// let done = names.purge().finish().await?;
    /// assert_eq!((done.examined, done.removed), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn purge(&self) -> Purge {
        Purge::start(&self.engine)
    }
}
