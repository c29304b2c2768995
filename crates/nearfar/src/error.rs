use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nearfar_core::backend::{L2Error, Settings};
use nearfar_core::{MAX_KEY_LEN, NamespaceError, TagError};
use nearfar_redis::ConnectError;

use crate::refresh::RefreshAhead;

/// What went wrong. Cheap to clone: every caller of a failed flight gets the same one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, ErrorKind, Nearfar};
///
/// #[derive(Debug, PartialEq)]
/// struct NoSuchUser(u64);
/// # impl std::fmt::Display for NoSuchUser {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "no user {}", self.0) }
/// # }
/// impl std::error::Error for NoSuchUser {}
///
/// let users: Cache<u64, String> = Nearfar::in_process().cache("users").build().await?;
/// let error = users.get_or_load(&7, |id| async move { Err(NoSuchUser(id)) }).await.unwrap_err();
///
/// assert_eq!(error.kind(), ErrorKind::Loader);
/// assert_eq!(error.downcast_ref(), Some(&NoSuchUser(7)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Problem>);

/// The kinds of [`Error`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let refused = nearfar::Nearfar::in_process().cache::<u64, u64>("no spaces").build().await;
/// assert_eq!(refused.unwrap_err().kind(), nearfar::ErrorKind::Config);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// L2 could not be reached, did not answer in time, or got to a change only when its time was over. See
    /// [`Error::outcome_is_unknown`] for changes.
    Unavailable,
    /// L2 answered with a refusal: missing rights, out of memory, a read-only replica.
    Rejected,
    /// The loader failed. [`Error::downcast_ref`] and `source()` give its own error.
    Loader,
    /// The loader panicked, or the codec did on its value.
    LoaderPanicked,
    /// The loader took longer than [`hard_timeout`](crate::CacheBuilder::hard_timeout).
    LoadTimedOut,
    /// Another caller of the same key, who [takes that for an answer](crate::Cache::get_or_load_optional), has just found
    /// that there is no such thing.
    Absent,
    /// What an [`update`](crate::Cache::update) was to replace was changed by others each time that it was tried.
    Contended,
    /// A value could not be encoded, or what was to be updated not read.
    Value,
    /// A value has more bytes, encoded, than [`max_value_bytes`](crate::CacheBuilder::max_value_bytes).
    ValueTooLarge,
    /// A key cannot be used: too long, or its text does not read back to the same key.
    Key,
    /// A setting is wrong, or contradicts what other nodes have recorded.
    Config,
    /// The [`Nearfar`](crate::Nearfar) was shut down.
    Closed,
}

#[derive(Debug)]
enum Problem {
    L2 { doing: Operation, cause: L2Error },
    Connect(ConnectError),
    SubscriptionUnproven { waited: Duration },
    SubscriptionRefused { reason: Arc<str> },
    ForeignWritesUntold { waited: Duration },
    ForeignWritesRefused { reason: Arc<str> },
    MayBeOvertaken,
    Unmet,
    Unreadable,
    Loader(Box<dyn StdError + Send + Sync>),
    LoaderPanicked { message: Option<String> },
    LoaderWaitsForItself,
    LoadTimedOut { limit: Duration },
    NothingToBeModified,
    Absent,
    Encode(Box<dyn StdError + Send + Sync>),
    ValueTooLarge { len: usize, most: usize },
    Key { type_name: &'static str, problem: KeyProblem },
    Config(ConfigProblem),
    Closed,
}

/// What was asked of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Nodes,
    Read,
    Touch,
    Set,
    /// With a precondition.
    SetIf,
    Invalidate,
    Expire,
    InvalidateTags,
    ExpireTags,
    Clear,
    Purge,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyProblem {
    TooLong { len: usize },
    DoesNotReadBack,
}

#[derive(Debug)]
pub(crate) enum ConfigProblem {
    Namespace(NamespaceError),
    NamespaceInUse { namespace: String },
    Zero { setting: &'static str },
    Jitter { given: f64 },
    RefreshAhead { given: RefreshAhead },
    ValuesTooLarge { given: usize, most: usize },
    KeyIdTwice { id: u32 },
    StoresNothing,
    Tag(TagError),
    NobodyElseWrites,
    SoftNotSooner { soft: Duration, hard: Duration },
    ClaimTooLong { claim: Duration, window: Duration },
    Partitions { given: u16 },
    TooShort { setting: &'static str, given: Duration, least: Duration },
    Disagrees { namespace: String, ours: Settings, theirs: Settings },
    Variable { variable: String, problem: Box<str> },
    Missing { setting: &'static str },
    NoSuchCache { namespace: String, known: Vec<String> },
    File { setting: &'static str, file: PathBuf, cause: std::io::Error },
}

impl Error {
    pub(crate) fn l2(doing: Operation, cause: L2Error) -> Self {
        match cause {
            L2Error::Closed => Self::closed(),
            cause => Self::of(Problem::L2 { doing, cause }),
        }
    }

    pub(crate) fn connect(cause: ConnectError) -> Self {
        Self::of(Problem::Connect(cause))
    }

    pub(crate) fn subscription_unproven(waited: Duration) -> Self {
        Self::of(Problem::SubscriptionUnproven { waited })
    }

    pub(crate) fn subscription_refused(reason: Arc<str>) -> Self {
        Self::of(Problem::SubscriptionRefused { reason })
    }

    pub(crate) fn foreign_writes_untold(waited: Duration) -> Self {
        Self::of(Problem::ForeignWritesUntold { waited })
    }

    pub(crate) fn foreign_writes_refused(reason: Arc<str>) -> Self {
        Self::of(Problem::ForeignWritesRefused { reason })
    }

    pub(crate) fn may_be_overtaken() -> Self {
        Self::of(Problem::MayBeOvertaken)
    }

    pub(crate) fn unmet() -> Self {
        Self::of(Problem::Unmet)
    }

    pub(crate) fn unreadable() -> Self {
        Self::of(Problem::Unreadable)
    }

    pub(crate) fn loader(cause: Box<dyn StdError + Send + Sync>) -> Self {
        Self::of(Problem::Loader(cause))
    }

    pub(crate) fn loader_panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => Some((*text).to_owned()),
            (None, text) => text.cloned(),
        };
        Self::of(Problem::LoaderPanicked { message })
    }

    pub(crate) fn loader_waits_for_itself() -> Self {
        Self::of(Problem::LoaderWaitsForItself)
    }

    pub(crate) fn nothing_to_be_modified() -> Self {
        Self::of(Problem::NothingToBeModified)
    }

    pub(crate) fn load_timed_out(limit: Duration) -> Self {
        Self::of(Problem::LoadTimedOut { limit })
    }

    pub(crate) fn absent() -> Self {
        Self::of(Problem::Absent)
    }

    pub(crate) fn encode(cause: Box<dyn StdError + Send + Sync>) -> Self {
        Self::of(Problem::Encode(cause))
    }

    pub(crate) fn value_too_large(len: usize, most: usize) -> Self {
        Self::of(Problem::ValueTooLarge { len, most })
    }

    pub(crate) fn key<K>(problem: KeyProblem) -> Self {
        Self::of(Problem::Key { type_name: std::any::type_name::<K>(), problem })
    }

    pub(crate) fn config(problem: ConfigProblem) -> Self {
        Self::of(Problem::Config(problem))
    }

    pub(crate) fn closed() -> Self {
        Self::of(Problem::Closed)
    }

    fn of(problem: Problem) -> Self {
        Self(Arc::new(problem))
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Problem::L2 { cause: L2Error::Rejected(_), .. }
            | Problem::SubscriptionRefused { .. }
            | Problem::ForeignWritesRefused { .. }
            | Problem::Connect(
                ConnectError::AuthRefused { .. }
                | ConnectError::MissingRight { .. }
                | ConnectError::ScriptsDisabled { .. }
                | ConnectError::ReadOnlyReplica { .. },
            ) => ErrorKind::Rejected,
            Problem::Config(_) | Problem::Connect(ConnectError::BadUrl(_) | ConnectError::BadTls(_)) => {
                ErrorKind::Config
            }
            Problem::L2 { .. }
            | Problem::Connect(_)
            | Problem::SubscriptionUnproven { .. }
            | Problem::ForeignWritesUntold { .. }
            | Problem::MayBeOvertaken => ErrorKind::Unavailable,
            Problem::Loader(_) | Problem::LoaderWaitsForItself | Problem::NothingToBeModified => {
                ErrorKind::Loader
            }
            Problem::LoaderPanicked { .. } => ErrorKind::LoaderPanicked,
            Problem::LoadTimedOut { .. } => ErrorKind::LoadTimedOut,
            Problem::Absent => ErrorKind::Absent,
            Problem::Unmet => ErrorKind::Contended,
            Problem::Encode(_) | Problem::Unreadable => ErrorKind::Value,
            Problem::ValueTooLarge { .. } => ErrorKind::ValueTooLarge,
            Problem::Key { .. } => ErrorKind::Key,
            Problem::Closed => ErrorKind::Closed,
        }
    }

    /// L2 could not be reached, or did not answer in time.
    pub fn is_unavailable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }

    /// The [`Nearfar`](crate::Nearfar) was shut down.
    pub fn is_closed(&self) -> bool {
        self.kind() == ErrorKind::Closed
    }

    /// Others have changed what was to be replaced.
    pub(crate) fn is_unmet(&self) -> bool {
        matches!(&*self.0, Problem::Unmet)
    }

    /// The loader failed, panicked, or took too long.
    pub fn is_loader(&self) -> bool {
        matches!(self.kind(), ErrorKind::Loader | ErrorKind::LoaderPanicked | ErrorKind::LoadTimedOut)
    }

    /// For a failed `set`, `invalidate` or `clear`: whether the change may have taken place all the same. This node
    /// has dropped its own copy; the others may hold the old value until the outbox has had it invalidated.
    pub fn outcome_is_unknown(&self) -> bool {
        match &*self.0 {
            Problem::L2 { doing, .. } if !doing.changes() => false,
            Problem::L2 { cause, .. } => cause.outcome_is_unknown(),
            _ => false,
        }
    }

    /// The loader's own error, if it is of this type.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match &*self.0 {
            Problem::Loader(cause) => cause.downcast_ref(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Problem::L2 { cause, .. } => Some(cause),
            Problem::Connect(cause) => Some(cause),
            Problem::Loader(cause) | Problem::Encode(cause) => Some(&**cause),
            _ => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L2 { doing, cause } => write!(f, "{doing}: {cause}{}", doing.consequence(cause)),
            Self::Connect(cause) => write!(f, "cannot connect: {cause}"),
            Self::SubscriptionUnproven { waited } => {
                write!(f, "L2 answers, but none of this node's own messages came back within {waited:?}")
            }
            Self::SubscriptionRefused { reason } => write!(f, "subscribing to invalidations: {reason}"),
            Self::ForeignWritesUntold { waited } => {
                write!(f, "not all servers of L2 could be asked within {waited:?} to tell what others write")
            }
            Self::ForeignWritesRefused { reason } => {
                write!(f, "a server of L2 refuses to tell what others write: {reason}")
            }
            Self::MayBeOvertaken => write!(
                f,
                "an earlier change of unknown outcome may still be executed, so this one was not sent; \
                 an invalidation waits in the outbox"
            ),
            Self::Loader(cause) => write!(f, "the loader failed: {cause}"),
            Self::LoaderPanicked { message: Some(message) } => write!(f, "the loader panicked: {message}"),
            Self::LoaderPanicked { message: None } => write!(f, "the loader panicked"),
            Self::Unmet => write!(f, "others have changed the value each time that it was to be updated"),
            Self::Unreadable => {
                write!(
                    f,
                    "L2 has an entry that this version of the service cannot read, so it was not updated"
                )
            }
            Self::Absent => write!(f, "another caller's loader has just found that there is no such thing"),
            Self::NothingToBeModified => {
                write!(f, "the loader said \"not modified\", but there was no entry that it was given")
            }
            Self::LoadTimedOut { limit } => write!(f, "the load took longer than {limit:?}"),
            Self::LoaderWaitsForItself => {
                write!(
                    f,
                    "the loader asked the cache for the key that it is loading, and would wait for itself"
                )
            }
            Self::Encode(cause) => write!(f, "the value could not be encoded: {cause}"),
            Self::ValueTooLarge { len, most } => {
                write!(f, "the encoded value has {len} bytes, `max_value_bytes` allows {most}")
            }
            Self::Key { type_name, problem } => {
                write!(f, "a key of type {type_name} cannot be used: {problem}")
            }
            Self::Config(problem) => problem.fmt(f),
            Self::Closed => write!(f, "this Nearfar was shut down"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "opening the namespace",
            Self::Nodes => "listing the live nodes",
            Self::Read => "reading",
            Self::Touch => "touching",
            Self::Set | Self::SetIf => "setting a value",
            Self::Invalidate => "invalidating",
            Self::Expire => "declaring stale",
            Self::InvalidateTags => "invalidating by tag",
            Self::ExpireTags => "declaring stale by tag",
            Self::Clear => "clearing the namespace",
            Self::Purge => "purging",
        })
    }
}

impl Operation {
    /// Whether it is a change of truth.
    fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Nodes | Self::Read | Self::Touch | Self::Purge)
    }

    fn consequence(self, cause: &L2Error) -> &'static str {
        if !self.changes() {
            ""
        } else if matches!(cause, L2Error::Rejected(_)) {
            // A refusal halfway is possible, if unlikely; the server's own words must do.
            "; an invalidation waits in the outbox"
        } else if self == Self::SetIf && !cause.outcome_is_unknown() {
            "; nothing has changed"
        } else if cause.outcome_is_unknown() {
            "; whether the change took place is unknown; an invalidation waits in the outbox"
        } else {
            "; the change did not take place; an invalidation waits in the outbox"
        }
    }
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(f, "it has {len} bytes, at most {MAX_KEY_LEN} are allowed"),
            Self::DoesNotReadBack => write!(
                f,
                "its encoding does not read back to an equal key, so an invalidation of it would go astray"
            ),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(problem) => problem.fmt(f),
            Self::NamespaceInUse { namespace } => {
                write!(
                    f,
                    "this Nearfar has a cache {namespace:?} already: clone it instead of building another"
                )
            }
            Self::Zero { setting } => write!(f, "`{setting}` must not be zero"),
            Self::Jitter { given } => {
                write!(f, "`jitter` is a fraction of ttl from 0 up to, not including, 1: {given}")
            }
            Self::RefreshAhead { given: RefreshAhead::After(fraction) } => {
                write!(
                    f,
                    "`refresh_ahead` is after a fraction of ttl from 0 up to, not including, 1: {fraction}"
                )
            }
            Self::RefreshAhead { given: RefreshAhead::Probabilistic(beta) } => {
                write!(f, "`refresh_ahead` takes a positive number, not {beta}")
            }
            Self::ValuesTooLarge { given, most } => {
                write!(f, "`max_value_bytes` of {given} is more than Redis takes: at most {most}")
            }
            Self::KeyIdTwice { id } => write!(f, "`sealed` has two keys with the id {id}"),
            Self::StoresNothing => {
                write!(f, "setting what is not to be stored, with a `ttl` of zero, or absent without one")
            }
            Self::Tag(problem) => problem.fmt(f),
            Self::NobodyElseWrites => write!(
                f,
                "this backend does not tell what others than nodes write: `follow_foreign_writes` is for a `Nearfar` \
                 that is connected to a server"
            ),
            Self::SoftNotSooner { soft, hard } => {
                write!(f, "`soft_timeout` of {soft:?} must be shorter than `hard_timeout` of {hard:?}")
            }
            Self::ClaimTooLong { claim, window } => {
                write!(
                    f,
                    "`cluster_single_flight` of {claim:?} must not be longer than `fence_window` of {window:?}"
                )
            }
            Self::TooShort { setting, given, least } => {
                write!(f, "`{setting}` of {given:?} is too short to work: at least {least:?}")
            }
            Self::Partitions { given } => {
                write!(f, "a namespace has from 1 to {} partitions, not {given}", Settings::MAX_PARTITIONS)
            }
            Self::Variable { variable, problem } => write!(f, "`{variable}`: {problem}"),
            Self::Missing { setting } => write!(f, "`{setting}` is missing"),
            Self::NoSuchCache { namespace, known } if known.is_empty() => {
                write!(f, "there are no settings `caches.{namespace}`; there are none of any cache")
            }
            Self::NoSuchCache { namespace, known } => {
                write!(
                    f,
                    "there are no settings `caches.{namespace}`; there are those of {}",
                    known.join(", ")
                )
            }
            Self::File { setting, file, cause } => {
                write!(f, "`{setting}`: {} cannot be read: {cause}", file.display())
            }
            Self::Disagrees { namespace, ours, theirs } => write!(
                f,
                "other nodes use {namespace:?} with `{}`, this one with `{}`: all nodes of a namespace must agree",
                theirs.encode(),
                ours.encode()
            ),
        }
    }
}
