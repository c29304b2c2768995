//! What the user must be allowed, and whether this one is.
//!
//! A user who may run `ACL DRYRUN` is an administrator; the others are found out by trying. Each attempt is one that a
//! server refuses for its arguments, or that finds nothing to do, *after* it has looked at the rights: nothing is
//! changed. A server of a cluster looks at the rights even before it says that a key is not its own. Where a right is
//! missing, an attempt leaves a line in `ACL LOG`, as using it would.

use std::collections::BTreeSet;
use std::future::pending;

use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::{CustomCommand, Value};
use nearfar_core::{Namespace, PartitionId};

use crate::doctor::kinds::FindingKind;
use crate::doctor::visit::{Answered, Refusal, Visit};
use crate::keys::{self, Keys};
use crate::rights::{publish, trials};
use crate::server::Server;
use crate::wire::Wire;

const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";

/// Looks at the rights on these namespaces, each with its number of partitions; without any, at the commands alone.
pub(crate) async fn examine(
    visit: &mut Visit,
    server: &Server,
    namespaces: &[(Namespace, u16)],
) -> Answered<()> {
    let mut missing = Missing::default();
    for (namespace, partitions) in namespaces {
        of_namespace(visit, server, &Names::of(namespace, *partitions), &mut missing).await?;
    }
    if namespaces.is_empty() {
        let any = Namespace::new("doctor").expect("it is a name");
        of_namespace(visit, server, &Names::of(&any, 1), &mut missing).await?;
        missing.names.clear();
    }
    missing.report(visit).await
}

async fn of_namespace(visit: &Visit, server: &Server, names: &Names, missing: &mut Missing) -> Answered<()> {
    let attempts = names.attempts(visit.is_sharded());
    for (attempt, outcome) in attempts.iter().zip(visit.attempts(&attempts).await?) {
        if let Err(refusal) = outcome {
            missing.add(attempt, &refusal, names);
        }
    }
    subscriptions(visit, server, names, missing).await
}

/// That the server has room for a second connection shows too.
async fn subscriptions(visit: &Visit, server: &Server, names: &Names, missing: &mut Missing) -> Answered<()> {
    let commands =
        if visit.is_sharded() { ["SSUBSCRIBE", "SUNSUBSCRIBE"] } else { ["SUBSCRIBE", "UNSUBSCRIBE"] };
    for command in commands {
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
            missing.add(&[command.to_owned()], &refusal, names);
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
        answer = Box::pin(client.custom(command, vec![names.first.trial_channel()])) => answer,
        never = async {
            let _ = Box::pin(client.ping::<()>(None)).await;
            pending().await
        } => never,
    }
}

/// The names of a namespace, as far as they are tried.
struct Names {
    first: Keys,
    others: Vec<Keys>,
    meta: String,
    /// As rules of an ACL.
    key_rule: String,
    channel_rule: String,
}

impl Names {
    fn of(namespace: &Namespace, partitions: u16) -> Self {
        let of = |index| Keys::of(&PartitionId::new(namespace.clone(), index));
        let all = if partitions > 1 { format!("{{{namespace}.*}}") } else { format!("{{{namespace}.0}}") };
        Self {
            first: of(0),
            others: (1..partitions).map(of).collect(),
            meta: keys::meta(namespace).into_string().unwrap_or_default(),
            key_rule: format!("~{all}*"),
            channel_rule: format!("&{all}#*"),
        }
    }

    /// All commands on one partition, and on the others what shows whether they are in reach.
    fn attempts(&self, sharded: bool) -> Vec<Vec<String>> {
        let mut attempts = vec![words(&["EVAL", "return 1", "0"]), words(&["EVALSHA", NO_SCRIPT, "0"])];
        attempts.extend(trials(&self.first, sharded));
        // That one may exist, so it is an option that no server knows.
        attempts.extend([words(&["GET", &self.meta]), words(&["SET", &self.meta, "-", "no-option"])]);
        for other in &self.others {
            let key = other.trial().into_string().unwrap_or_default();
            attempts.push(words(&["DEL", &key]));
            attempts.push(words(&[publish(sharded), &other.trial_channel(), "-"]));
        }
        attempts
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What was refused, as rules of an ACL that would allow it.
#[derive(Default)]
struct Missing {
    must: BTreeSet<String>,
    want: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Missing {
    fn add(&mut self, attempt: &[String], refusal: &Refusal, names: &Names) {
        let command = &attempt[0];
        let commands = if command.ends_with("UNSUBSCRIBE") { &mut self.want } else { &mut self.must };
        match cause(&refusal.0) {
            Cause::Command => commands.insert(format!("+{}", command.to_lowercase())),
            Cause::Unknown => commands.insert(format!("{command} (unknown to the server)")),
            Cause::Channel => self.names.insert(names.channel_rule.clone()),
            Cause::Key if attempt.get(1) == Some(&names.meta) => {
                self.names.insert(format!("~{}", names.meta))
            }
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
}
