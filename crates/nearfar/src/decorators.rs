//! Attributes that put a cache before a function.

/// Puts a cache before an `async fn`: what it has returned for a key is returned again, until it expires or is invalidated.
///
/// Needs the feature `macros`. It expands to calls of [`Cache`](crate::Cache)'s public methods and to nothing else, so
/// everything that a cache promises holds.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar, cached, invalidates};
///
/// #[derive(Clone)]
/// struct Shop {
///     prices: Cache<String, u64>,
/// }
///
/// impl Shop {
///     #[cached(cache = self.prices, key = "{article}:{currency}", ttl = "5m")]
///     async fn price(&self, article: u64, currency: &str) -> Result<u64, nearfar::Error> {
///         Ok(article * currency.len() as u64) // your query
///     }
///
///     #[invalidates(cache = self.prices, key = "{article}:{currency}")]
///     async fn change(&self, article: u64, currency: &str, price: u64) -> Result<(), nearfar::Error> {
///         Ok(println!("UPDATE prices SET price = {price}"))
///     }
/// }
///
/// let shop = Shop { prices: Nearfar::in_process().cache("prices").build().await? };
/// assert_eq!(shop.price(7, "EUR").await?, 21);
/// assert!(shop.prices.contains("7:EUR").await?);
///
/// shop.change(7, "EUR", 9).await?; // invalidates once it has returned `Ok`
/// assert!(!shop.prices.contains("7:EUR").await?);
/// # Ok(())
/// # }
/// ```
///
/// # Arguments
///
/// | argument | what |
/// |---|---|
/// | `cache = self.prices` | an expression that is a cache or a reference to one: a field, `prices()`, `PRICES.get().unwrap()` |
/// | `key = "{article}:{currency}"` | text with parameters in it, as `format!` takes it; the cache's keys are `String`s |
/// | `key = article` | or an expression, for a cache with keys of another type |
/// | `ttl = "5m"` | in place of the cache's; or an expression that is a `Duration` |
/// | `tags = ["article:{article}"]` | see [`Loaded::tags`](crate::Loaded::tags) |
/// | `unless = article == 0` | if true, the function is called and the cache is neither asked nor filled |
/// | `refresh_if = forced` | if true, the function is called whatever is cached, and what it returns is stored |
/// | `store_if = \|price\| *price > 0` | a predicate on `&T`: if false, what was loaded is returned and not stored |
///
/// Free text in a key may contain what separates it from the next parameter: put it last, or use a key of your own type.
///
/// # What stands beside it
///
/// Of `price` above, with the same visibility:
///
/// * `price_uncached(article, currency)` is the function as it was written.
/// * `price_invalidate(article, currency)` invalidates the entry of such a call. It takes those parameters that the key and
///   the cache name, in their order.
/// * `price_key(article, currency)` is its key, if that is text: for [`Cache::set`](crate::Cache::set), say. In an `impl` it
///   is an associated function.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar, cached};
///
/// #[cached(cache = squares, key = n)]
/// async fn square(squares: &Cache<u64, u64>, n: u64) -> u64 {
///     n * n
/// }
///
/// let squares: Cache<u64, u64> = Nearfar::in_process().cache("squares").build().await?;
/// assert_eq!(square(&squares, 3).await, 9);
/// squares.set(&3, 10).await?;
/// assert_eq!((square(&squares, 3).await, square_uncached(&squares, 3).await), (10, 9));
///
/// square_invalidate(&squares, 3).await?;
/// assert_eq!(square(&squares, 3).await, 9);
/// # Ok(())
/// # }
/// ```
///
/// # What it returns
///
/// | function | cache | method | what is not found |
/// |---|---|---|---|
/// | `Result<T, E>` | `Cache<_, T>` | [`get_or_load`](crate::Cache::get_or_load) | is for `E` to say, and not cached |
/// | `Result<Option<T>, E>`, `Option<T>` | `Cache<_, T>` | [`get_or_load_optional`](crate::Cache::get_or_load_optional) | `None`, cached for [`absent_ttl`](crate::CacheBuilder::absent_ttl) |
/// | `T` | `Cache<_, T>` | `get_or_load` | |
///
/// With `ttl`, `tags` or `store_if` it is [`get_or_load_with`](crate::Cache::get_or_load_with). Which one is told by the
/// name of the type, so an alias has to be called `Result`. The value is cloned out of the cache: make what is large an
/// `Arc<T>`, with serde's feature `rc`.
///
/// # Errors
///
/// `E` must be an error type, and `From<nearfar::Error>`. All tasks that waited for a load share its error, as an
/// [`Error`](crate::Error) of kind `Loader` with the function's own inside, from which [`downcast_ref`](crate::Error::downcast_ref) gives it back:
///
/// ```
/// #[derive(Clone, Debug)]
/// enum ShopError {
///     SoldOut,
///     Cache(nearfar::Error),
/// }
///
/// impl From<nearfar::Error> for ShopError {
///     fn from(error: nearfar::Error) -> Self {
///         error.downcast_ref::<Self>().cloned().unwrap_or(Self::Cache(error))
///     }
/// }
/// # impl std::fmt::Display for ShopError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{self:?}") }
/// # }
/// # impl std::error::Error for ShopError {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// # use nearfar::{Cache, Nearfar, cached};
/// #[cached(cache = prices, key = article)]
/// async fn price(prices: &Cache<u64, u64>, article: u64) -> Result<u64, ShopError> {
///     Err(ShopError::SoldOut)
/// }
///
/// let prices = Nearfar::in_process().cache("prices").build().await?;
/// assert!(matches!(price(&prices, 7).await, Err(ShopError::SoldOut)));
/// # Ok(())
/// # }
/// ```
///
/// A function that returns no `Result` cannot fail, and does not because of its cache: where that gives an error, the
/// function is called directly. If it has panicked in another task's load, it panics here as well, with that text.
///
/// # What it asks for
///
/// A load may outlive the call that began it, so it owns its arguments. References to what can be cloned (`&str`, `&[u8]`,
/// `&T`) are taken to the owned type; other arguments are cloned where they are needed again. A method's `self` is cloned
/// on each call: a service is `Clone` and has its state behind `Arc`s, as `Cache` itself does. Or take `self: &Arc<Self>`.
///
/// Not supported, with an error that says why: functions that are not `async` or are generic (but for lifetimes), parameters
/// without a name, mutable references. An associated function without `self` is found if it names `Self` somewhere. In the
/// `impl` of a trait there is no place for the functions beside it: call a cached one from there.
///
/// # Cancel safety
///
/// As [`get_or_load`](crate::Cache::get_or_load).
pub use nearfar_macros::cached;

/// Has an `async fn` invalidate what it has changed, once it has returned `Ok`.
///
/// Needs the feature `macros`. `cache` and `key` or `tags`, or both, are as for [`cached`](crate::cached). For entries of
/// several caches, use it several times.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Nearfar, invalidates};
///
/// #[invalidates(cache = names, key = id)]
/// #[invalidates(cache = pages, key = "user/{id}")]
/// async fn rename(
///     names: &Cache<u64, String>,
///     pages: &Cache<String, String>,
///     id: u64,
///     name: String,
/// ) -> Result<(), nearfar::Error> {
///     Ok(println!("UPDATE users SET name = '{name}'"))
/// }
///
/// let nearfar = Nearfar::in_process();
/// let (names, pages) = (nearfar.cache("names").build().await?, nearfar.cache("pages").build().await?);
/// names.set(&7, "Ada".to_owned()).await?;
/// pages.set("user/7", "<h1>Ada</h1>".to_owned()).await?;
/// rename(&names, &pages, 7, "Ada Lovelace".to_owned()).await?;
/// assert!(!names.contains(&7).await? && !pages.contains("user/7").await?);
/// # Ok(())
/// # }
/// ```
///
/// Keys, tags and caches are evaluated before the function, which may consume its arguments.
///
/// # Errors
///
/// The function must return a `Result<_, E>` with `E: From<nearfar::Error>`. An `Err` of its own is returned, and nothing is
/// invalidated. If the function has succeeded and the invalidation has not, that error is returned, as
/// [`Cache::invalidate`](crate::Cache::invalidate) gives it: what was done is done, and the invalidation is in the outbox. That
/// L2 is not there is no error unless [`Unacknowledged::Fail`](crate::Unacknowledged::Fail) is set.
///
/// # Cancel safety
///
/// Between the function's end and the invalidation there is nothing to wait for: who cancels it then has it sent by the
/// outbox. What is cancelled within the function is the function's own matter.
pub use nearfar_macros::invalidates;
