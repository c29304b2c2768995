//! What the user is allowed, and how a refusal is told.

use std::fmt;
use std::sync::Arc;

use fred::types::Value;
use nearfar_core::backend::L2Error;
use nearfar_core::{Namespace, PartitionId};

use crate::error::Cause;
use crate::keys::{self, Keys};
use crate::scripts::RIGHTS;
use crate::store::RedisL2;

/// What an operation cannot do without.
#[derive(Debug)]
pub(crate) struct Missing {
    /// In the words of `ACL SETUSER`.
    rules: Vec<String>,
    /// Commands that the server has for nobody.
    disabled: Vec<String>,
}

impl Missing {
    fn rule(rule: impl Into<String>) -> Self {
        Self { rules: vec![rule.into()], disabled: Vec::new() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rules, disabled) = (self.rules.join(" "), self.disabled.join(", "));
        match (rules.as_str(), disabled.as_str()) {
            (rules, "") => write!(f, "the user lacks rights that `ACL SETUSER` gives: {rules}"),
            ("", disabled) => write!(f, "commands are disabled or renamed there: {disabled}"),
            (rules, disabled) => write!(
                f,
                "the user lacks rights that `ACL SETUSER` gives: {rules}; commands are disabled or renamed there: \
                 {disabled}"
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// The commands that nearfar sends, those in its scripts included, apart from what connecting and subscribing need. Each
/// is tried where it does no harm: on a key that nobody has, on a channel that nobody hears. A server that refuses one
/// for want of a right does so before it looks at anything else.
///
/// Building a cache has a script try them, which takes one round trip. The doctor sends them one by one, since a user who
/// may not run scripts, or not use the keys, is to hear of all that is missing at once.
const TRIALS: &[&[&str]] = &[
    &["PING"],
    &["TIME"],
    &["GET", KEY],
    &["MGET", KEY],
    &["GETRANGE", KEY, "0", "0"],
    &["SET", KEY, "-", "XX", "PX", "1"],
    // Refused as out of range, after the rights were looked at.
    &["SETRANGE", KEY, "-1", "-"],
    &["DEL", KEY],
    &["PERSIST", KEY],
    &["XADD", KEY, "NOMKSTREAM", "*", "m", "-"],
    &["XRANGE", KEY, "-", "+", "COUNT", "1"],
    &["ZADD", KEY, "XX", "0", "-"],
    &["ZRANGE", KEY, "0", "0"],
    &["ZREM", KEY, "-"],
    &["ZREMRANGEBYSCORE", KEY, "0", "0"],
    &["ZSCORE", KEY, "-"],
    &["UNLINK", KEY],
    &["SCAN", "0", "COUNT", "1"],
    &[PUBLISH, CHANNEL, "-"],
];

/// Stand for what depends on the partition and on the server.
const KEY: &str = "<key>";
const CHANNEL: &str = "<channel>";
const PUBLISH: &str = "<publish>";

/// The commands to try, with their arguments, of which none has a space.
pub(crate) fn trials(names: &Keys, sharded: bool) -> Vec<Vec<String>> {
    let key = String::from_utf8_lossy(names.trial().as_bytes()).into_owned();
    let word = |&word: &&str| match word {
        KEY => key.clone(),
        CHANNEL => names.trial_channel(),
        PUBLISH => publish(sharded).to_owned(),
        word => word.to_owned(),
    };
    TRIALS.iter().map(|command| command.iter().map(word).collect()).collect()
}

/// The command that publishes.
pub(crate) fn publish(sharded: bool) -> &'static str {
    if sharded { "SPUBLISH" } else { "PUBLISH" }
}

/// Whether everything that is needed in a partition is allowed.
pub(crate) async fn check(store: &RedisL2, partition: &PartitionId) -> Result<(), L2Error> {
    let names = Keys::of(partition);
    let keys = vec![names.head(), names.log(), names.nodes(), names.tags(), names.value(b""), names.trial()];
    let commands = trials(&names, store.is_sharded()).into_iter().map(|command| command.join(" ").into());
    let refused = store.run(partition, &RIGHTS, (keys, commands.collect())).await;
    let refused = refused.map_err(|error| of_keys(error, &names.all_keys()))?;
    match missing(refused, &names)? {
        Missing { rules, disabled } if rules.is_empty() && disabled.is_empty() => Ok(()),
        missing => Err(rejected(missing)),
    }
}

/// Names the right to the settings of a namespace if that is what an error is about.
pub(crate) fn of_settings(error: L2Error, namespace: &Namespace) -> L2Error {
    of_keys(error, &String::from_utf8_lossy(keys::meta(namespace).as_bytes()))
}

/// Names the right that a refused subscription lacks.
pub(crate) fn of_subscription(cause: &Cause, partition: &PartitionId) -> Arc<str> {
    let text = cause.to_string();
    let missing = if text.contains("channel") {
        Missing::rule(channel_rule(&Keys::of(partition)))
    } else if let Some(command) = ["'subscribe'", "'ssubscribe'"].into_iter().find(|name| text.contains(name))
    {
        Missing::rule(format!("+{}", command.trim_matches('\'')))
    } else {
        return text.into();
    };
    missing.to_string().into()
}

/// Names the right that a server lacks to tell which keys are written to.
pub(crate) fn of_tracking(reason: &str) -> Arc<str> {
    if reason.starts_with("NOPERM") {
        Missing::rule("+client|tracking").to_string().into()
    } else {
        reason.into()
    }
}

/// Names the right that is lacking to look at them.
pub(crate) fn of_looking(reason: &str) -> Arc<str> {
    if reason.contains("pttl") || reason.contains("can't run this command") {
        Missing::rule("+pttl").to_string().into()
    } else {
        reason.into()
    }
}

fn of_keys(error: L2Error, pattern: &str) -> L2Error {
    match &error {
        L2Error::Rejected(cause) if is_about_keys(&cause.to_string()) => {
            rejected(Missing::rule(format!("~{pattern}")))
        }
        _ => error,
    }
}

fn is_about_keys(text: &str) -> bool {
    text.starts_with("NOPERM") && text.contains("key")
}

fn rejected(missing: Missing) -> L2Error {
    L2Error::Rejected(Arc::new(missing))
}

fn missing(refused: Value, names: &Keys) -> Result<Missing, L2Error> {
    let words: Vec<String> = refused.convert().map_err(|_| L2Error::Unexpected)?;
    let mut missing = Missing { rules: Vec::new(), disabled: Vec::new() };
    for pair in words.chunks_exact(2) {
        match pair[1].as_str() {
            "unknown" => missing.disabled.push(pair[0].clone()),
            "channel" => missing.rules.push(channel_rule(names)),
            _ => missing.rules.push(format!("+{}", pair[0].to_lowercase())),
        }
    }
    Ok(missing)
}

fn channel_rule(names: &Keys) -> String {
    format!("&{}", names.all_channels())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_documented_right_is_tried() {
        let docs = include_str!("../../../docs/security.md");
        let lines = docs.lines().filter(|line| line.starts_with("ACL SETUSER"));
        let names = Keys::of(&PartitionId::new(Namespace::new("users").unwrap(), 0));
        let single = ["CLIENT|ID", "INFO", "EVAL", "EVALSHA", "SUBSCRIBE", "UNSUBSCRIBE"];
        let cluster = ["CLIENT|ID", "INFO", "EVAL", "EVALSHA", "SSUBSCRIBE", "SUNSUBSCRIBE", "CLUSTER|SLOTS"];
        let both: [(bool, &[&str]); 2] = [(false, &single), (true, &cluster)];
        for (line, (sharded, elsewhere)) in lines.zip(both) {
            let documented: BTreeSet<_> =
                line.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_uppercase).collect();
            let tried = trials(&names, sharded).into_iter().map(|command| command[0].clone());
            let elsewhere = elsewhere.iter().map(|&command| command.to_owned());
            assert_eq!(documented, tried.chain(elsewhere).collect());
        }
    }
}
