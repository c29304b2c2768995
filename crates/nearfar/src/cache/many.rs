//! Several keys in one call.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::RandomState;

use crate::batch::LoadMany;
use crate::cache::{Cache, loader_error};
use crate::entry::{Entry, LookUp};
use crate::error::Error;
use crate::key::{self, CacheKey};
use crate::loaded::Loaded;
use crate::look::Errand;
use crate::outcome::Outcome;

/// What is said of one key.
type Answer<V> = Result<Option<Entry<V>>, Error>;

/// What L1 says of several keys, and what it leaves to be asked.
struct Split<K, V> {
    /// The answers so far, in the order of the keys.
    answers: Vec<Option<Answer<V>>>,
    /// For each key, which of those that are left it is, if it is one.
    places: Vec<Option<usize>>,
    /// Those that are left, each once, with their encoded forms.
    left: Vec<(K, Bytes)>,
}

impl<K: CacheKey, V> Split<K, V> {
    fn of<'a, Q>(keys: impl IntoIterator<Item = &'a Q>, mut in_l1: impl FnMut(&Q) -> LookUp<V>) -> Self
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized + 'a,
    {
        let mut split = Self { answers: Vec::new(), places: Vec::new(), left: Vec::new() };
        let mut seen: HashMap<&Q, usize, RandomState> = HashMap::default();
        for key in keys {
            let (mut answer, mut place) = (None, seen.get(key).copied());
            if place.is_none() {
                match in_l1(key) {
                    LookUp::Value(entry) => answer = Some(Ok(Some(entry))),
                    LookUp::Absent => answer = Some(Ok(None)),
                    LookUp::Miss => match split.leave(key.to_owned()) {
                        Ok(at) => place = Some(*seen.entry(key).or_insert(at)),
                        Err(error) => answer = Some(Err(error)),
                    },
                }
            }
            split.answers.push(answer);
            split.places.push(place);
        }
        split
    }

    fn leave(&mut self, key: K) -> Result<usize, Error> {
        let encoded = key::encode(&key)?;
        self.left.push((key, encoded));
        Ok(self.left.len() - 1)
    }
}

/// The answers of L1, and for the places that are left those that were found.
fn filled_in<V>(
    answers: Vec<Option<Answer<V>>>,
    places: Vec<Option<usize>>,
    found: impl Fn(usize) -> Answer<V>,
) -> Vec<Answer<V>> {
    let answer = |(answer, place): (Option<Answer<V>>, Option<usize>)| {
        answer.unwrap_or_else(|| found(place.expect("what has no answer has a place")))
    };
    answers.into_iter().zip(places).map(answer).collect()
}

impl<K, V> Cache<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// As [`get`](Self::get), for several keys: what L1 lacks is read from L2 in one round trip per partition, of up to 1,000
    /// keys each. The answers come in the order of the keys, of which one may come twice. One that fails does not fail the
    /// others; `into_iter().collect::<Result<Vec<_>, _>>()` makes it so.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// let ages: Vec<Option<u8>> =
    ///     names.get_many(["Bob", "Ada"]).await.into_iter().map(|age| age.unwrap().map(|age| *age)).collect();
    /// assert_eq!(ages, [None, Some(36)]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_many<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Vec<Result<Option<Entry<V>>, Error>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized + 'a,
    {
        let Split { answers, places, left } = Split::of(keys, |key: &Q| LookUp::of(self.hit(key)));
        let read = Box::pin(self.engine.read_l2_many(left, &self.call)).await;
        filled_in(answers, places, |place| read[place].clone())
    }

    /// As [`get_or_load_optional`](Self::get_or_load_optional), for several keys: what L1 lacks is read from L2 in one round
    /// trip per partition, and what L2 lacks is loaded in one call of the loader. Keys that others are loading are not: their
    /// flights are joined, as others may join those of this call. What the loader does not name is not there.
    ///
    /// The loader may be called again, for keys whose load by another node or caller brought nothing that will do, and in
    /// the background for those that are due to be loaded again. It gives pairs of keys and values, or of keys and
    /// [`Loaded`]s; of keys that it was not asked for nothing is cached.
    ///
    /// # Errors
    /// Per key, as [`get_or_load`](Self::get_or_load). If the loader fails, it fails for all keys that it was asked for.
    ///
    /// # Cancel safety
    /// Safe: the load goes on while another caller waits for one of its keys.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # use std::{collections::HashMap, io};
    /// # let lengths: nearfar::Cache<String, usize> = nearfar::Nearfar::in_process().cache("lengths").build().await?;
    /// lengths.set("Ada", 3).await?;
    /// let load = |missing: Vec<String>| async move {
    ///     assert_eq!(missing, ["Grace", "Alan"]); // SELECT ... WHERE name IN (...)
    ///     Ok::<_, io::Error>(missing.into_iter().map(|name| (name.clone(), name.len())).collect::<Vec<_>>())
    /// };
    /// let found = lengths.get_or_load_many(["Grace", "Ada", "Alan", "Grace"], load).await;
    /// let found: Vec<usize> = found.into_iter().map(|length| *length.unwrap().unwrap()).collect();
    /// assert_eq!(found, [5, 3, 4, 5]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load_many<'a, Q, F, Fut, M, L, E>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
        loader: F,
    ) -> Vec<Result<Option<Entry<V>>, Error>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized + 'a,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, L)>,
        L: Into<Loaded<V>>,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let loader: LoadMany<K, V> = Arc::new(move |keys| {
            let found = loader(keys);
            Box::pin(async move {
                let found = found.await.map_err(loader_error)?;
                Ok(found.into_iter().map(|(key, loaded)| (key, loaded.into())).collect())
            })
        });
        let mut refresh = Vec::new();
        let Split { answers, places, left } = Split::of(keys, |key| self.hit_or_absent(key, &mut refresh));
        let errand = |(key, encoded)| self.errand_of(key, encoded, true);
        self.engine.refresh_many(refresh.into_iter().map(errand).collect(), &loader, None);
        let errands: Vec<Errand<K>> = left.into_iter().map(errand).collect();
        let names: Vec<K> = errands.iter().map(|errand| errand.key.clone()).collect();
        let found = Box::pin(self.engine.read_or_load_many(errands, loader)).await;
        filled_in(answers, places, |place| found[names[place].borrow()].clone().map(Entry::present))
    }

    /// As [`set`](Self::set), for several values, each a value or a [`Loaded`]: one atomic step per partition and 1,000 keys,
    /// which has one number and sends one message. What became of each is told in their order; of several for one key the
    /// last one counts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// let outcomes = names.set_many([("Ada".to_owned(), 36), ("Alan".to_owned(), 41)]).await;
    /// assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().is_applied()));
    /// assert_eq!(names.get("Alan").await?.as_deref(), Some(&41));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_many<L: Into<Loaded<V>>>(
        &self,
        entries: impl IntoIterator<Item = (K, L)>,
    ) -> Vec<Result<Outcome, Error>> {
        let entry = |(key, loaded): (K, L)| {
            let encoded = key::encode(&key)?;
            Ok((key, encoded, loaded.into().or(&self.call)))
        };
        let entries: Vec<_> = entries.into_iter().map(entry).collect();
        Box::pin(self.engine.set_many(entries)).await
    }

    /// As [`invalidate`](Self::invalidate), for several keys: one atomic step per partition and 1,000 keys. What became of
    /// each is told in their order.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nearfar::Error> {
    /// # let names: nearfar::Cache<String, u8> = nearfar::Nearfar::in_process().cache("names").build().await?;
    /// names.set("Ada", 36).await?;
    /// let outcomes = names.invalidate_many(["Ada", "Bob"]).await;
    /// assert_eq!(outcomes.len(), 2);
    /// assert!(!names.contains("Ada").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn invalidate_many<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Vec<Result<Outcome, Error>>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized + 'a,
    {
        let named = |key: &Q| {
            let key = key.to_owned();
            let encoded = key::encode(&key)?;
            Ok((key, encoded))
        };
        let keys: Vec<_> = keys.into_iter().map(named).collect();
        Box::pin(self.engine.invalidate_many(keys)).await
    }

    /// What L1 knows, be it that there is no such thing. What is due to be loaded again is noted.
    fn hit_or_absent<Q>(&self, key: &Q, refresh: &mut Vec<(K, Bytes)>) -> LookUp<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let entry = self.hit(key);
        if let Some(entry) = entry.as_ref().filter(|entry| entry.is_due_value()) {
            let key = key.to_owned();
            if self.engine.takes_refresh(entry)
                && let Ok(encoded) = key::encode(&key)
            {
                refresh.push((key, encoded));
            }
        }
        LookUp::of(entry)
    }
}
