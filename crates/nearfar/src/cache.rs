use std::borrow::Borrow;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::call::CallOptions;
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::entry::{Entry, LookUp};
use crate::error::Error;
use crate::event::Events;
use crate::key::{self, CacheKey};
use crate::load::Load;
use crate::loaded::Loaded;
use crate::look::{Errand, Wanted};
use crate::stats::Stats;

mod changing;
mod many;
mod tagging;
mod updating;

/// A typed cache in one namespace: L1 in this process, L2 shared by all nodes.
///
/// Cheap to clone; clones are the same cache. Keys are looked up by any borrowed form, as in a `HashMap`: a
/// `Cache<String, _>` by `&str`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar, Tier};
///
/// let users: Cache<u64, String> = Nearfar::in_process().cache("users").build().await?;
/// let load = |id: u64| async move { Ok::<_, std::io::Error>(format!("user {id}")) };
///
/// let user = users.get_or_load(&42, load).await?;
/// assert_eq!((user.as_str(), user.tier()), ("user 42", Tier::Loader));
/// assert_eq!(users.get_or_load(&42, load).await?.tier(), Tier::L1);
///
/// users.invalidate(&42).await?; // after the database has changed
/// assert!(users.get(&42).await?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct Cache<K, V> {
    engine: Arc<Engine<K, V>>,
    /// Of every call through this handle.
    call: CallOptions,
}

/// What comes after L1, boxed: a small future keeps the hit fast, and a box is nothing beside a round trip.
type BeyondL1<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

impl<K, V> Cache<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(engine: Arc<Engine<K, V>>) -> Self {
        Self { engine, call: CallOptions::new() }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<K, V>> {
        &self.engine
    }

    /// The same cache, with these options for every call through the handle that this returns, in place of those that this
    /// one has. For one call, or for many.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::CallOptions;
    /// # use std::time::Duration;
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// let briefly = names.with(CallOptions::new().ttl(Duration::from_secs(1)));
    /// briefly.set("Ada", 36).await?;
    /// assert!(names.contains("Ada").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with(&self, call: CallOptions) -> Self {
        Self { engine: Arc::clone(&self.engine), call }
    }

    /// The value of a key from L1, else from L2. A value found in L2 is taken into L1.
    ///
    /// # Consistency
    /// A value out of L1 was overwritten at most `max_staleness` ago. A value out of L2 was the truth while it was
    /// read.
    ///
    /// # Errors
    /// If L1 has nothing to serve and L2 fails. An entry that cannot be read is not an error but `None`.
    ///
    /// # Cancel safety
    /// Safe: nothing but the read is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// assert!(names.get("Ada").await?.is_none());
    /// names.set("Ada", 36).await?;
    /// assert_eq!(names.get("Ada").await?.as_deref(), Some(&36));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get<Q>(&self, key: &Q) -> Result<Option<Entry<V>>, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(entry) = self.hit(key) {
            return Ok(entry.present());
        }
        Ok(self.look_up_beyond_l1(key.to_owned()).await?.value())
    }

    /// As [`get`](Self::get), and tells what is cached to be [absent](Self::get_or_load_optional) from what is not cached.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Loaded, LookUp};
    /// # use std::time::Duration;
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// assert!(matches!(names.look_up("Bob").await?, LookUp::Miss));
    /// names.set_with("Bob", Loaded::absent().ttl(Duration::from_secs(60))).await?;
    /// assert!(matches!(names.look_up("Bob").await?, LookUp::Absent));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn look_up<Q>(&self, key: &Q) -> Result<LookUp<V>, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        match self.hit(key) {
            Some(entry) => Ok(LookUp::of(Some(entry))),
            None => self.look_up_beyond_l1(key.to_owned()).await,
        }
    }

    /// What L1 knows of a key, be it that there is no such thing.
    #[inline]
    fn hit<Q>(&self, key: &Q) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let entry = self.engine.l1_answer(key, &self.call)?;
        if entry.is_due_value() {
            self.engine.touch(&entry, key);
        }
        Some(entry)
    }

    /// The value of a key from L1, else from L2, else from the loader, whose value goes to both.
    ///
    /// However many callers want a key at once, one of them loads it per node; all get its value or its error.
    ///
    /// # Consistency
    /// As [`get`](Self::get). A loader that read the database before an [`invalidate`](Self::invalidate) does not put
    /// the old value back: if the key was changed since the load began, the value is returned to its callers and
    /// stored nowhere, likewise if the load took longer than the fence window. A caller that comes after an
    /// invalidation loads for itself. For this to hold, change the database first and invalidate after.
    ///
    /// # Errors
    /// The loader's own, which [`Error::downcast_ref`] gives back; nothing is cached then. A loader's panic is an
    /// error of kind [`LoaderPanicked`](crate::ErrorKind::LoaderPanicked). That L2 fails is none: the loader is asked.
    ///
    /// # Deadlocks
    /// A loader that asks for its own key gets an error, also through other keys. That is not noticed, and it waits for
    /// ever, if it asks from a task that it spawned, or if two loads of different tasks ask for each other's key. With
    /// [`cluster_single_flight`](crate::CacheBuilder::cluster_single_flight), two nodes may wait so for a claim to end.
    ///
    /// # Cancel safety
    /// Safe: the load goes on while another caller waits for it, and is dropped when nobody does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let pages: nearfar::Cache<String, usize> = nearfar::Nearfar::in_process().cache("pages").build().await?;
    /// let length = pages.get_or_load("/home", |path| async move { Ok::<_, std::io::Error>(path.len()) }).await?;
    /// assert_eq!(*length, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load<Q, F, Fut, E>(&self, key: &Q, loader: F) -> Result<Entry<V>, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        if let Some(entry) = self.engine.l1_hit(key, &self.call) {
            if entry.is_due() {
                self.engine.attend(&entry, key, self.call, plain(loader));
            }
            return Ok(entry);
        }
        self.get_beyond_l1(key.to_owned(), plain(loader)).await
    }

    /// As [`get_or_load`](Self::get_or_load), when there may be no such thing, which is an answer as well: `None`. It is
    /// cached if [`absent_ttl`](crate::CacheBuilder::absent_ttl) is given, in both tiers, and invalidated like a value:
    /// [`set`](Self::set) or [`invalidate`](Self::invalidate) the key once there is one.
    ///
    /// To `get` and `contains` it is the same as nothing, and `get_or_load` asks its loader.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use std::{io, time::Duration};
    /// # let nearfar = nearfar::Nearfar::in_process();
    /// let users: nearfar::Cache<u64, String> =
    ///     nearfar.cache("users").absent_ttl(Duration::from_secs(30)).build().await?;
    /// assert!(users.get_or_load_optional(&7, |_| async { Ok::<_, io::Error>(None) }).await?.is_none());
    ///
    /// let unreachable = |_| async { Err(io::Error::other("nobody asks the database")) };
    /// assert!(users.get_or_load_optional(&7, unreachable).await?.is_none());
    ///
    /// users.set(&7, "Ada".to_owned()).await?; // she has signed up
    /// assert!(users.get_or_load_optional(&7, unreachable).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load_optional<Q, F, Fut, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<Option<Entry<V>>, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let found = |value: Option<V>| value.map_or_else(Loaded::absent, Loaded::new);
        self.get_or_load_with(key, move |key| async move { loader(key).await.map(found) }).await
    }

    /// As [`get_or_load_optional`](Self::get_or_load_optional), with a loader that says how what it has found is to be
    /// cached; see [`Loaded`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Cache, Loaded, Nearfar};
    /// # use std::{io, time::Duration};
    /// # let pages: Cache<String, String> = Nearfar::in_process().cache("pages").build().await?;
    /// let fetch = |path: String| async move {
    ///     Ok::<_, io::Error>(Loaded::new(path).ttl(Duration::from_secs(10)).grace(Duration::from_secs(60)))
    /// };
    /// assert_eq!(pages.get_or_load_with("/home", fetch).await?.as_deref().map(String::as_str), Some("/home"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load_with<Q, F, Fut, E>(&self, key: &Q, loader: F) -> Result<Option<Entry<V>>, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        self.find(key, move |key, _| async move { loader(key).await.map_err(loader_error) }).await
    }

    /// As [`get_or_load_with`](Self::get_or_load_with), with a loader that is given what is cached already, if anything
    /// is: stale, or due to be loaded again, but not known to be wrong. It may ask the origin whether that is still true,
    /// by [etag](Entry::etag) or [last-modified](Entry::last_modified), and answer [`Loaded::not_modified`]. Then the
    /// entry's lifetime begins anew in both tiers: the value does not move, and no other node is told.
    ///
    /// What was invalidated is given to no loader, nor what has outlived its [`grace`](crate::CacheBuilder::grace): without
    /// a grace there is nothing to give but what is refreshed ahead.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load); and of kind [`Loader`](crate::ErrorKind::Loader) for "not modified" where
    /// nothing was given.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use nearfar::{Cache, Entry, Loaded, Nearfar};
    /// # use std::{io, time::Duration};
    /// let nearfar = Nearfar::in_process();
    /// let pages: Cache<String, String> = nearfar.cache("pages").grace(Duration::from_secs(3600)).build().await?;
    /// let fetch = |path: String, cached: Option<Entry<String>>| async move {
    ///     let origin_has = "v1"; // GET with If-None-Match
    ///     Ok::<_, io::Error>(match cached {
    ///         Some(page) if page.etag() == Some(origin_has) => Loaded::not_modified(),
    ///         _ => Loaded::new(path).etag(origin_has),
    ///     })
    /// };
    /// pages.get_or_revalidate("/home", fetch).await?;
    /// pages.expire("/home").await?;
    /// let page = pages.get_or_revalidate("/home", fetch).await?.expect("it exists");
    /// assert_eq!((page.as_str(), page.staleness()), ("/home", None));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_revalidate<Q, F, Fut, E>(&self, key: &Q, loader: F) -> Result<Option<Entry<V>>, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(K, Option<Entry<V>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        self.find(key, move |key, cached| async move { loader(key, cached).await.map_err(loader_error) })
            .await
    }

    async fn find<Q>(&self, key: &Q, loader: impl Load<K, V>) -> Result<Option<Entry<V>>, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(entry) = self.engine.l1_answer(key, &self.call) {
            if entry.is_due_value() {
                self.engine.attend(&entry, key, self.call, loader);
            }
            return Ok(entry.present());
        }
        self.find_beyond_l1(key.to_owned(), loader).await
    }

    /// Whether [`get`](Self::get) would find a value in L1, or an entry in L2 that has not expired. L1 is not filled.
    /// An entry in L2 is neither decoded nor unsealed, so one that cannot be counts here.
    ///
    /// # Errors
    /// If L1 has nothing to serve and L2 fails.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// assert!(names.contains("Ada").await?);
    /// assert!(!names.contains("Bob").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn contains<Q>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if self.call.reads_l1() && self.peek(key).is_some() {
            return Ok(true);
        }
        let encoded = key::encode(&key.to_owned())?;
        self.engine.l2_contains(&encoded, &self.call).await
    }

    /// The value of a key from L1 alone, at once, and not counted in [`stats`](Self::stats).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// assert_eq!(names.peek("Ada").as_deref(), Some(&36));
    /// # Ok(())
    /// # }
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.engine.peek(key).filter(|entry| self.call.takes(entry.slot()))
    }

    /// What this cache has done on this node.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.get("Ada").await?;
    /// assert_eq!(names.stats().misses, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// What happens in this cache from now on, on this node and, as far as this node hears of it, on others: for code of
    /// yours that wants to know. While nobody listens, it costs nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// use nearfar::{By, Cache, Event, InProcess, Nearfar};
    ///
    /// let shared = InProcess::new();
    /// let (a, b) = (Nearfar::builder().in_process(&shared), Nearfar::builder().in_process(&shared));
    /// let here: Cache<u64, String> = a.cache("names").build().await?;
    /// let there: Cache<u64, String> = b.cache("names").build().await?;
    ///
    /// let mut events = there.events();
    /// here.invalidate(&42).await?;
    /// while let Some(event) = events.next().await {
    ///     let Event::Invalidated { keys, by: By::Node(node) } = event else { continue };
    ///     println!("{node:?} has invalidated {keys:?}");
    ///     assert_eq!(keys, ["42"]);
    ///     break;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        self.engine.events()
    }

    #[inline(never)]
    fn look_up_beyond_l1(&self, key: K) -> BeyondL1<'_, LookUp<V>> {
        Box::pin(async move {
            let encoded = key::encode(&key)?;
            let entry = self.engine.read_l2(&key, &encoded, &self.call).await?.fresh();
            let entry = entry.filter(|entry| self.call.takes_cached(entry.slot()));
            if let Some(entry) = entry.as_ref().filter(|entry| entry.is_due()) {
                self.engine.touch(entry, &key);
            }
            Ok(LookUp::of(entry))
        })
    }

    #[inline(never)]
    fn get_beyond_l1(&self, key: K, loader: impl Load<K, V>) -> BeyondL1<'_, Entry<V>> {
        Box::pin(async move {
            let errand = self.errand(key, false)?;
            let entry = self.engine.read_or_load(errand, loader).await?;
            entry.present().ok_or_else(Error::absent)
        })
    }

    #[inline(never)]
    fn find_beyond_l1(&self, key: K, loader: impl Load<K, V>) -> BeyondL1<'_, Option<Entry<V>>> {
        Box::pin(async move {
            let errand = self.errand(key, true)?;
            Ok(self.engine.read_or_load(errand, loader).await?.present())
        })
    }

    fn errand(&self, key: K, or_absent: bool) -> Result<Errand<K>, Error> {
        let encoded = key::encode(&key)?;
        Ok(self.errand_of(key, encoded, or_absent))
    }

    fn errand_of(&self, key: K, encoded: Bytes, or_absent: bool) -> Errand<K> {
        Errand { key, encoded, wanted: Wanted { or_absent, or_old: true, call: self.call } }
    }

    /// The settings that are in force, all of them, but for the codec. A cache that is built with them has the same.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use nearfar::{Cache, Nearfar};
    /// let names: Cache<String, u8> = Nearfar::in_process().cache("names").jitter(0.1).build().await?;
    /// println!("{}", toml::to_string(&names.config())?); // ttl = "5m" and so on
    /// assert_eq!(names.config().jitter, Some(0.1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn config(&self) -> CacheConfig {
        self.engine.config()
    }

    /// The name of its keyspace.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// assert_eq!(names.namespace(), "names");
    /// # Ok(())
    /// # }
    /// ```
    pub fn namespace(&self) -> &str {
        self.engine.namespace().as_str()
    }
}

/// A loader that gives a value and no more.
fn plain<K, V, F, Fut, E>(
    loader: F,
) -> impl FnOnce(K, Option<Entry<V>>) -> BoxFuture<'static, Result<Loaded<V>, Error>> + Send + 'static
where
    F: FnOnce(K) -> Fut + Send + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    K: Send + 'static,
{
    |key, _| Box::pin(async move { loader(key).await.map(Loaded::new).map_err(loader_error) })
}

pub(crate) fn loader_error<E: Into<Box<dyn StdError + Send + Sync>>>(cause: E) -> Error {
    Error::loader(cause.into())
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), call: self.call }
    }
}

impl<K, V> fmt::Debug for Cache<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("namespace", &self.namespace()).finish_non_exhaustive()
    }
}
