//! What the user must be allowed, and whether this one is.
//!
//! A user who may run `ACL DRYRUN` is an administrator; the others are found out by trying. Each attempt is one that a
//! server refuses for its arguments, or that finds nothing to do, *after* it has looked at the rights: nothing is
//! changed. Where a right is missing, an attempt leaves a line in `ACL LOG`, as using it would.

use std::collections::BTreeSet;
use std::future::pending;

use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::{CustomCommand, Value};
use nearfar_core::{Namespace, NodeId, PartitionId};

use crate::doctor::kinds::FindingKind;
use crate::doctor::visit::{Answered, Refusal, Visit};
use crate::keys::{self, Keys};
use crate::server::Server;
use crate::wire::Wire;

/// What it costs to do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    Want,
}

use Need::{Must, Want};

/// Stands for a key of the namespace, and for a channel: see [`Names`].
const KEY: &str = "<key>";
const META: &str = "<meta>";
const CHANNEL: &str = "<channel>";

const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";

/// The commands that nearfar sends, those in its scripts included, each as a harmless attempt. What connecting itself
/// needs (`HELLO`, `CLIENT ID`, `INFO`) has been tried by then, and subscriptions need a connection of their own.
/// `docs/security.md` has the same list.
const RIGHTS: &[(Need, &[&str])] = &[
    (Must, &["PING"]),
    (Must, &["TIME"]),
    (Must, &["EVAL", "return 1", "0"]),
    (Must, &["EVALSHA", NO_SCRIPT, "0"]),
    (Must, &["MGET", KEY]),
    (Must, &["GET", KEY]),
    (Must, &["GET", META]),
    (Must, &["GETRANGE", KEY, "0", "0"]),
    (Must, &["SET", KEY, "", "no-option"]),
    (Must, &["SET", META, "", "no-option"]),
    (Must, &["PERSIST", KEY]),
    (Must, &["PUBLISH", CHANNEL, ""]),
    (Must, &["ZADD", KEY, "no-number", "member"]),
    (Must, &["ZREMRANGEBYSCORE", KEY, "no-number", "no-number"]),
    (Want, &["DEL", KEY]),
    (Want, &["XADD", KEY, "no-id", "field", "value"]),
    (Want, &["XRANGE", KEY, "-", "+", "COUNT", "1"]),
    (Want, &["ZRANGE", KEY, "0", "0"]),
    (Want, &["ZREM", KEY, "member"]),
];

/// Looks at the rights on these namespaces; without any, at the commands alone.
pub(crate) async fn examine(
    visit: &mut Visit,
    server: &Server,
    namespaces: impl Iterator<Item = &Namespace>,
) -> Answered<()> {
    let mut missing = Missing::default();
    let mut named = false;
    for namespace in namespaces {
        named = true;
        of_namespace(visit, server, &Names::of(namespace), &mut missing).await?;
    }
    if !named {
        let any = Namespace::new("doctor").expect("it is a name");
        of_namespace(visit, server, &Names::of(&any), &mut missing).await?;
        missing.names.clear();
    }
    missing.report(visit).await
}

async fn of_namespace(visit: &Visit, server: &Server, names: &Names, missing: &mut Missing) -> Answered<()> {
    let filled = |(_, attempt): &(Need, &'static [&'static str])| -> Vec<_> {
        attempt.iter().map(|word| names.fill(word)).collect()
    };
    let attempts: Vec<_> = RIGHTS.iter().map(filled).collect();
    for ((need, attempt), outcome) in RIGHTS.iter().zip(visit.attempts(&attempts).await?) {
        if let Err(refusal) = outcome {
            missing.add(*need, attempt, &refusal, names);
        }
    }
    subscriptions(visit, server, names, missing).await
}

/// That the server has room for a second connection shows too.
async fn subscriptions(visit: &Visit, server: &Server, names: &Names, missing: &mut Missing) -> Answered<()> {
    for (need, command) in [(Must, "SUBSCRIBE"), (Want, "UNSUBSCRIBE")] {
        let opening = async {
            let mut wire = Wire::open(server.subscriber_client());
            wire.established(|_| ()).await.map(|()| wire)
        };
        let wire = visit.bounded("a second connection", opening).await?;
        let client = visit.alike(&wire.client);
        let Err(refusal) = visit.outcome(command, confirmed(&client, command, names)).await? else {
            continue;
        };
        // Refused was what was to confirm it; whether it was refused itself cannot be told.
        if !refusal.0.contains("'ping'") {
            missing.add(need, &[command], &refusal, names);
        }
    }
    Ok(())
}

/// Sends a command that has no reply but a push if it succeeds, so that it takes the reply to the PING behind it. The
/// PING then gets none: the connection is good for nothing else.
async fn confirmed(
    client: &WithOptions<Client>,
    command: &'static str,
    names: &Names,
) -> Result<Value, FredError> {
    let command = CustomCommand::new_static(command, None, false);
    tokio::select! {
        // In this order, so that it is sent first.
        biased;
        answer = Box::pin(client.custom(command, names.channels.to_vec())) => answer,
        never = async {
            let _ = Box::pin(client.ping::<()>(None)).await;
            pending().await
        } => never,
    }
}

/// The names that stand for those of a namespace. Nothing is ever stored under the key, since it is named like the
/// channel to a node whose number no node draws; and nobody subscribes to that.
struct Names {
    key: String,
    meta: String,
    channels: [String; 2],
    /// As rules of an ACL.
    key_rule: String,
    meta_rule: String,
    channel_rule: String,
}

impl Names {
    fn of(namespace: &Namespace) -> Self {
        let names = Keys::of(&PartitionId::new(namespace.clone(), 0));
        let (bus, key) = (names.bus(), names.echo(NodeId::new(0)));
        let meta = keys::meta(namespace).into_string().unwrap_or_default();
        let prefix = bus.strip_suffix("#bus").unwrap_or(&bus);
        Self {
            key_rule: format!("~{prefix}*"),
            channel_rule: format!("&{prefix}#*"),
            meta_rule: format!("~{meta}"),
            channels: [bus.clone(), key.clone()],
            key,
            meta,
        }
    }

    fn fill<'a>(&'a self, word: &'a str) -> &'a str {
        match word {
            KEY | CHANNEL => &self.key,
            META => &self.meta,
            word => word,
        }
    }
}

/// What was refused, as rules of an ACL that would allow it.
#[derive(Default)]
struct Missing {
    must: BTreeSet<String>,
    want: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Missing {
    fn add(&mut self, need: Need, attempt: &[&str], refusal: &Refusal, names: &Names) {
        let command = attempt[0];
        let commands = if need == Must { &mut self.must } else { &mut self.want };
        match cause(&refusal.0) {
            Cause::Command => commands.insert(format!("+{}", command.to_lowercase())),
            Cause::Unknown => commands.insert(format!("{command} (unknown to the server)")),
            Cause::Channel => self.names.insert(names.channel_rule.clone()),
            Cause::Key if attempt.get(1) == Some(&META) => self.names.insert(names.meta_rule.clone()),
            Cause::Key => self.names.insert(names.key_rule.clone()),
            Cause::NoRight => false,
        };
    }

    async fn report(mut self, visit: &mut Visit) -> Answered<()> {
        self.must.append(&mut self.names);
        let user =
            if self.must.is_empty() && self.want.is_empty() { String::new() } else { user(visit).await? };
        for (kind, rules) in [(FindingKind::RightsMissing, self.must), (FindingKind::RightsWanted, self.want)]
        {
            if !rules.is_empty() {
                let rules: Vec<_> = rules.into_iter().collect();
                visit.found(kind, format!("{user} lacks {}", rules.join(" ")));
            }
        }
        Ok(())
    }
}

async fn user(visit: &Visit) -> Answered<String> {
    let name = visit.attempt(&["ACL", "WHOAMI"]).await?.ok().and_then(|name| name.as_string());
    Ok(name.map_or_else(|| "the user".to_owned(), |name| format!("user {name}")))
}

/// Why a command was refused.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    Command,
    Key,
    Channel,
    Unknown,
    /// For its arguments, or for the state of things.
    NoRight,
}

/// In the words of Redis 6.2 to 7 and of Valkey.
fn cause(words: &str) -> Cause {
    if words.contains("unknown command") {
        Cause::Unknown
    } else if !words.starts_with("NOPERM") {
        Cause::NoRight
    } else if words.contains("to run") {
        Cause::Command
    } else if words.contains("channel") {
        Cause::Channel
    } else {
        Cause::Key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_in_every_wording() {
        for (words, meant) in [
            (
                "NOPERM this user has no permissions to run the 'get' command or its subcommand",
                Cause::Command,
            ),
            ("NOPERM User app has no permissions to run the 'get' command", Cause::Command),
            ("NOPERM this user has no permissions to access one of the keys used as arguments", Cause::Key),
            ("NOPERM No permissions to access a key", Cause::Key),
            (
                "NOPERM this user has no permissions to access one of the channels used as arguments",
                Cause::Channel,
            ),
            ("NOPERM No permissions to access a channel", Cause::Channel),
            ("ERR unknown command 'GET', with args beginning with: 'a' ", Cause::Unknown),
            ("ERR syntax error", Cause::NoRight),
            ("NOSCRIPT No matching script. Please use EVAL.", Cause::NoRight),
        ] {
            assert_eq!(cause(words), meant, "{words}");
        }
    }

    /// The line of `docs/security.md` and this list are the same.
    #[test]
    fn every_documented_right_is_tried() {
        let docs = include_str!("../../../../docs/security.md");
        let line = docs.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
        let documented: BTreeSet<_> = line.split(' ').filter_map(|word| word.strip_prefix('+')).collect();
        let elsewhere = ["client|id", "info", "subscribe", "unsubscribe"].map(str::to_owned);
        let tried: BTreeSet<_> =
            RIGHTS.iter().map(|(_, attempt)| attempt[0].to_lowercase()).chain(elsewhere).collect();
        assert_eq!(documented, tried.iter().map(String::as_str).collect());
    }
}
