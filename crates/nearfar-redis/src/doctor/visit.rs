use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{CustomCommand, Value};
use futures_util::future::try_join_all;
use nearfar_core::backend::L2Error;
use tokio::time::Instant;

use crate::clock;
use crate::doctor::diagnosis::{Examination, Fact};
use crate::doctor::finding::Finding;
use crate::doctor::kinds::FindingKind;
use crate::error::{Cause, is_refusal, l2_error};
use crate::inspect::{Config, Info};
use crate::server::Server;
use crate::wire::Wire;

/// However many questions there are, and however slowly they are answered.
const COMMAND_TIMEOUTS: u32 = 30;

/// One server being examined: it is asked, and what there is to say is gathered.
pub(crate) struct Visit {
    /// Closed with it.
    _wire: Wire,
    client: WithOptions<Client>,
    options: Options,
    /// How long nearfar itself waits.
    pub(crate) command_timeout: Duration,
    /// No question is waited for beyond this.
    until: Instant,
    /// Whether it is examined as one of a cluster.
    pub(crate) of_cluster: bool,
    is_sharded: bool,
    examination: Examination,
    /// What may not be asked, with the server's words.
    refused: BTreeMap<String, String>,
    /// Nothing more is asked.
    is_over: bool,
}

/// Why an examination ends early.
pub(crate) enum Over {
    /// The server no longer answers, with the reason as text. So a paused server costs one time limit.
    Silence(String),
    /// It is nothing that could be examined; there is a finding that says so.
    Pointless,
}

/// What a question leads to as long as the examination goes on.
pub(crate) type Answered<T> = Result<T, Over>;

/// A server's refusal, in its own words.
pub(crate) struct Refusal(pub(crate) String);

impl Visit {
    /// Questions have twice the time of operations: how slow a slow server is must be seen.
    pub(crate) fn new(wire: Wire, server: &Server, command_timeout: Duration, of_cluster: bool) -> Self {
        let options = Options { timeout: Some(command_timeout.saturating_mul(2)), ..server.once() };
        let client = wire.client.with_options(&options);
        let newer = client.server_version().is_none_or(|version| version.major >= 7);
        Self {
            client,
            options,
            command_timeout,
            until: patience(command_timeout.saturating_mul(COMMAND_TIMEOUTS)),
            of_cluster,
            is_sharded: of_cluster && newer,
            examination: Examination::new(server.address()),
            refused: BTreeMap::new(),
            is_over: false,
            _wire: wire,
        }
    }

    /// Whether messages are published to their shard alone.
    pub(crate) fn is_sharded(&self) -> bool {
        self.is_sharded
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Notes why the examination ends, if it does.
    pub(crate) fn kept<T>(&mut self, outcome: Answered<T>) -> Option<T> {
        let over = match outcome {
            Ok(answer) => return Some(answer),
            Err(over) => over,
        };
        self.is_over = true;
        if let Over::Silence(words) = over {
            self.found(FindingKind::NoAnswer, words);
        }
        None
    }

    /// Another client of the server, to be waited for as long.
    pub(crate) fn alike(&self, client: &Client) -> WithOptions<Client> {
        client.with_options(&self.options)
    }

    pub(crate) fn client(&self) -> &WithOptions<Client> {
        &self.client
    }

    pub(crate) fn server(&self) -> &str {
        &self.examination.server
    }

    pub(crate) fn fact(&mut self, about: impl Into<String>, value: impl Into<String>) {
        self.examination.facts.push(Fact { about: about.into(), value: value.into() });
    }

    pub(crate) fn found(&mut self, kind: FindingKind, seen: impl Into<Arc<str>>) {
        let finding = Finding::new(kind, &self.examination.server, seen);
        self.examination.findings.push(finding);
    }

    pub(crate) fn note(&mut self, finding: Option<Finding>) {
        self.examination.findings.extend(finding);
    }

    /// Sends a command and waits for the answer, or for the refusal.
    pub(crate) async fn attempt(&self, command: &[impl AsRef<str>]) -> Answered<Result<Value, Refusal>> {
        let (name, args) = command.split_first().expect("a command has a name");
        let args: Vec<Value> = args.iter().map(|arg| arg.as_ref().into()).collect();
        let name = name.as_ref();
        let command = CustomCommand::new(name.to_owned(), None, false);
        self.outcome(name, self.client.custom(command, args)).await
    }

    /// Several attempts at once, which takes one round trip. The outcomes are in the order of the commands.
    pub(crate) async fn attempts<W: AsRef<str>>(
        &self,
        commands: &[impl AsRef<[W]>],
    ) -> Answered<Vec<Result<Value, Refusal>>> {
        try_join_all(commands.iter().map(|command| self.attempt(command.as_ref()))).await
    }

    /// Waits for what must not be refused either.
    pub(crate) async fn bounded<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, FredError>>,
    ) -> Answered<T> {
        let outcome = self.outcome(what, work).await?;
        outcome.map_err(|Refusal(words)| Over::Silence(format!("{what}: {words}")))
    }

    /// Waits for an answer or a refusal, but not for ever.
    pub(crate) async fn outcome<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, FredError>>,
    ) -> Answered<Result<T, Refusal>> {
        let answer = tokio::time::timeout_at(self.until, Box::pin(work)).await;
        match answer {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(error)) if is_refusal(&error) => Ok(Err(Refusal(Cause::new(&error).to_string()))),
            Ok(Err(error)) => Err(Over::Silence(format!("no answer to `{what}`: {}", l2_error(&error)))),
            Err(_) => Err(Over::Silence(format!("no answer to `{what}`: {}", L2Error::TimedOut))),
        }
    }

    /// Like [`attempt`](Self::attempt); a refusal is remembered, and not asked for again.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> Answered<Option<Value>> {
        let name = question(command);
        if self.refused.contains_key(&name) {
            return Ok(None);
        }
        match self.attempt(command).await? {
            Ok(value) => Ok(Some(value)),
            Err(Refusal(words)) => {
                self.refused.insert(name, words);
                Ok(None)
            }
        }
    }

    pub(crate) async fn info(&mut self) -> Answered<Info> {
        let text = self.ask(&["INFO"]).await?;
        Ok(Info::new(text.and_then(|text| text.as_string()).unwrap_or_default()))
    }

    /// The server's settings, each asked for by name, since the answer to all has passwords in it. The first shows
    /// whether they may be asked for.
    pub(crate) async fn config(&mut self, names: &[&str]) -> Answered<Config> {
        let Some((first, others)) = names.split_first() else { return Ok(Config::default()) };
        let Some(answer) = self.ask(&["CONFIG", "GET", first]).await? else { return Ok(Config::default()) };
        let mut config = Config::default();
        config.learn(answer);
        let questions: Vec<_> = others.iter().map(|name| ["CONFIG", "GET", name]).collect();
        // A name that this server does not have is missing from its answer, which is no refusal.
        for answer in self.attempts(&questions).await?.into_iter().flatten() {
            config.learn(answer);
        }
        Ok(config)
    }

    /// Ends the visit; the worst comes first.
    pub(crate) fn ended(mut self) -> Examination {
        if !self.refused.is_empty() {
            let refusals = self.refused.iter().map(|(name, words)| format!("{name} ({words})"));
            let refusals: Vec<_> = refusals.collect();
            self.found(FindingKind::NotAsked, refusals.join(", "));
        }
        self.examination.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
        self.examination
    }
}

/// What a question is called: `CONFIG GET`, `INFO`.
fn question(command: &[&str]) -> String {
    let words = if matches!(command[0], "CONFIG" | "CLUSTER") { 2 } else { 1 };
    command[..words].join(" ")
}

/// The moment after which no question is waited for.
fn patience(limit: Duration) -> Instant {
    let now = clock::now();
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(3600))
}
