use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use fred::bytes_utils::Str;
use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::LuaInterface;
use fred::types::{Key, Value};

use crate::error::is_noscript;

pub(crate) static CHANGE: LazyLock<Publishing> =
    LazyLock::new(|| Publishing::new(concat!(include_str!("lua/head.lua"), include_str!("lua/change.lua"))));
pub(crate) static FILL: Script =
    Script::new(concat!(include_str!("lua/head.lua"), include_str!("lua/fill.lua")));
pub(crate) static RENEW: Script =
    Script::new(concat!(include_str!("lua/head.lua"), include_str!("lua/renew.lua")));
pub(crate) static TAGS: Script =
    Script::new(concat!(include_str!("lua/head.lua"), include_str!("lua/tags.lua")));
pub(crate) static PURGE: Script =
    Script::new(concat!(include_str!("lua/head.lua"), include_str!("lua/purge.lua")));
pub(crate) static TOUCH: Script =
    Script::new(concat!(include_str!("lua/head.lua"), include_str!("lua/touch.lua")));
pub(crate) static CLAIM: Script =
    Script::new(concat!(include_str!("lua/head.lua"), include_str!("lua/claim.lua")));
pub(crate) static RELEASE: LazyLock<Publishing> =
    LazyLock::new(|| Publishing::new(concat!(include_str!("lua/head.lua"), include_str!("lua/release.lua"))));
pub(crate) static BEAT: LazyLock<Publishing> =
    LazyLock::new(|| Publishing::new(concat!(include_str!("lua/head.lua"), include_str!("lua/beat.lua"))));
pub(crate) static LOOK: Script =
    Script::new(concat!(include_str!("lua/head.lua"), include_str!("lua/look.lua")));
pub(crate) static OPEN: Script = Script::new(include_str!("lua/open.lua"));
pub(crate) static RIGHTS: Script = Script::new(include_str!("lua/rights.lua"));
/// The script by which a writer in another language makes a change: that invalidates keys, sets one, or clears a partition.
/// `docs/wire-format.md` says how it is called. It is `lua/head.lua` and `lua/foreign.lua`, one behind the other.
///
/// ```
/// let script = nearfar_redis::FOREIGN_CHANGE;
/// assert!(script.contains("KEYS: head, log, then the values' names"));
/// ```
pub const FOREIGN_CHANGE: &str = concat!(include_str!("lua/head.lua"), include_str!("lua/foreign.lua"));

static NOTHING: Script = Script::new("return 1");

/// Which of the two commands that run scripts does not work here.
pub(crate) async fn probe(client: &WithOptions<Client>) -> Result<(), (&'static str, FredError)> {
    let nothing = || (Vec::<Key>::new(), Vec::<Value>::new());
    let (keys, args) = nothing();
    match Box::pin(client.evalsha::<Value, _, _, _>(NOTHING.hash(), keys, args)).await {
        Err(error) if !is_noscript(&error) => return Err(("EVALSHA", error)),
        _ => {}
    }
    let (keys, args) = nothing();
    let ran = Box::pin(client.eval::<Value, _, _, _>(&*NOTHING.source, keys, args)).await;
    ran.map(drop).map_err(|error| ("EVAL", error))
}

/// A script that publishes, and its form for a cluster's sharded channels.
pub(crate) struct Publishing {
    everywhere: Script,
    in_shard: Script,
}

impl Publishing {
    fn new(source: &'static str) -> Self {
        let in_shard = source.replace("'PUBLISH'", "'SPUBLISH'");
        Self {
            everywhere: Script::new(source),
            in_shard: Script { source: in_shard.into(), hash: OnceLock::new() },
        }
    }

    pub(crate) fn for_shard(&self, sharded: bool) -> &Script {
        if sharded { &self.in_shard } else { &self.everywhere }
    }
}

/// A Lua script, called by its hash.
pub(crate) struct Script {
    source: Cow<'static, str>,
    hash: OnceLock<Str>,
}

impl Script {
    const fn new(source: &'static str) -> Self {
        Self { source: Cow::Borrowed(source), hash: OnceLock::new() }
    }

    /// Runs it; a server that does not know it is told. That is no second execution: nothing ran the first time.
    pub(crate) async fn run(
        &self,
        client: &WithOptions<Client>,
        keys: Vec<Key>,
        args: Vec<Value>,
    ) -> Result<Value, FredError> {
        // Keys and arguments are reference-counted bytes, so keeping them for the second call copies nothing.
        // fred's futures have some 8 KiB: boxed here, lest every caller carries copies of that.
        match Box::pin(client.evalsha(self.hash(), keys.clone(), args.clone())).await {
            Err(error) if is_noscript(&error) => Box::pin(client.eval(&*self.source, keys, args)).await,
            answer => answer,
        }
    }

    fn hash(&self) -> Str {
        self.hash.get_or_init(|| fred::util::sha1_hash(&self.source).into()).clone()
    }
}
