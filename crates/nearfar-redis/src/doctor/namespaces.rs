//! What stands in Redis of the namespaces in question.

use std::fmt;
use std::time::Duration;

use nearfar_core::backend::Settings;
use nearfar_core::{Namespace, PartitionId};

use crate::doctor::Round;
use crate::doctor::figures::bytes;
use crate::doctor::kinds::FindingKind;
use crate::doctor::timing::time;
use crate::doctor::visit::{Answered, Visit};
use crate::keys::{self, Keys};
use crate::store::parse_head;

/// A namespace that [`diagnose`](crate::diagnose) looks at.
///
/// ```
/// let users = nearfar_redis::Subject { name: "users".into(), expected: None };
/// assert!(nearfar_core::Namespace::new(&users.name).is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name. One that cannot be a [`Namespace`] is a finding.
    pub name: String,
    /// What a node of this process wants of it; `None` if nothing is known.
    pub expected: Option<Expected>,
}

/// What a node wants of a namespace.
///
/// ```
/// use nearfar_core::backend::Settings;
/// use nearfar_redis::Expected;
/// use std::time::Duration;
///
/// let settings = Settings { partitions: 1, fence_window: Duration::from_secs(60) };
/// let expected = Expected { settings, max_staleness: Duration::from_secs(5) };
/// assert!(expected.max_staleness < expected.settings.fence_window);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// What all its nodes must agree on.
    pub settings: Settings,
    /// The bound that beats have to prove.
    pub max_staleness: Duration,
}

/// Nodes beat every second, and are forgotten after a minute.
const SILENT: Duration = Duration::from_secs(10);

/// Numbers grow with the clock, or by one per change if those come quicker than microseconds pass.
const AHEAD: Duration = Duration::from_secs(1);

pub(crate) async fn examine(round: &mut Round<'_>, namespace: &Namespace, expected: Option<Expected>) {
    let home = round.topology.owner_of(|| keys::meta_slot(namespace));
    let Some(visit) = round.at(home) else { return };
    let outcome = recorded(visit, namespace, expected).await;
    let Some(Settings { partitions, fence_window }) = visit.kept(outcome).flatten() else { return };
    let of = |index| PartitionId::new(namespace.clone(), index);
    let nodes = live_nodes(round, &of(0)).await;
    let mut log = Log::default();
    for partition in (0..partitions).map(of) {
        let Some(visit) = round.at(round.topology.server_of(&partition)) else { continue };
        let outcome = look_at(visit, &Keys::of(&partition), &mut log).await;
        visit.kept(outcome);
    }
    if let Some(visit) = round.at(home) {
        let partitions = if partitions == 1 { String::new() } else { format!("{partitions} partitions, ") };
        visit.fact(
            format!("namespace {namespace}"),
            format!("{partitions}fence window {fence_window:?}, {nodes}{log}"),
        );
    }
}

/// The recorded settings, as far as there are any and they can be read.
async fn recorded(
    visit: &mut Visit,
    namespace: &Namespace,
    expected: Option<Expected>,
) -> Answered<Option<Settings>> {
    let meta = text(keys::meta(namespace));
    let Ok(answer) = visit.attempt(&["GET", &meta]).await? else { return Ok(None) };
    if answer.is_null() {
        visit.found(FindingKind::NamespaceUnused, format!("there is no key `{meta}`"));
        return Ok(None);
    }
    let Some(settings) = answer.as_str().and_then(|recorded| Settings::decode(&recorded)) else {
        visit.found(FindingKind::SettingsUnreadable, format!("`{meta}` has no settings of this version"));
        return Ok(None);
    };
    if let Some(expected) = expected.filter(|expected| expected.settings != settings) {
        let (theirs, ours) = (settings.encode(), expected.settings.encode());
        visit.found(
            FindingKind::NamespaceDisagrees,
            format!("`{meta}` has `{theirs}`, this node wants `{ours}`"),
        );
    }
    Ok(Some(settings))
}

/// How many nodes live. They beat in every partition, so one tells.
async fn live_nodes(round: &mut Round<'_>, partition: &PartitionId) -> String {
    let unknown = || "nodes unknown".to_owned();
    let Some(visit) = round.at(round.topology.server_of(partition)) else { return unknown() };
    let outcome = nodes(visit, &Keys::of(partition)).await;
    visit.kept(outcome).flatten().map_or_else(unknown, |count| format!("live nodes: {count}"))
}

async fn nodes(visit: &mut Visit, names: &Keys) -> Answered<Option<usize>> {
    let now = time(visit).await?;
    let listing = visit.attempt(&["ZRANGE", &text(names.nodes()), "0", "-1", "WITHSCORES"]).await?;
    let listed: Option<Vec<(String, f64)>> = listing.ok().and_then(|listing| listing.convert().ok());
    let silent = listed.iter().flatten().filter_map(|(node, seen)| silence(node, *seen, now?));
    let silent: Vec<_> = silent.collect();
    if !silent.is_empty() {
        visit.found(FindingKind::SilentNodes, silent.join(", "));
    }
    Ok(listed.map(|listed| listed.len()))
}

/// What there is to say of a node that should have been heard of; `seen` is in microseconds on the server's clock.
fn silence(node: &str, seen: f64, now: Duration) -> Option<String> {
    let seen = Duration::try_from_secs_f64(seen / 1e6).ok()?;
    let silent = now.checked_sub(seen).filter(|&silent| silent >= SILENT)?;
    Some(format!("node {node} silent for {silent:.0?}"))
}

/// What the logs of all partitions have, as far as this may be asked; nearfar itself does not need to.
#[derive(Default)]
struct Log {
    length: Option<u64>,
    size: Option<u64>,
}

impl Log {
    fn add(&mut self, length: Option<u64>, size: Option<u64>) {
        let sum = |sum: Option<u64>, more: Option<u64>| match (sum, more) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            (sum, more) => sum.or(more),
        };
        (self.length, self.size) = (sum(self.length, length), sum(self.size, size));
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(length) = self.length {
            write!(f, ", messages in the log: {length}")?;
        }
        if let Some(size) = self.size { write!(f, " ({})", bytes(size)) } else { Ok(()) }
    }
}

/// Looks at one partition, where it is.
async fn look_at(visit: &mut Visit, names: &Keys, log: &mut Log) -> Answered<()> {
    let now = time(visit).await?;
    let (stream, head) = (text(names.log()), text(names.head()));
    let questions: [&[&str]; 3] = [&["XLEN", &stream], &["MEMORY", "USAGE", &stream], &["GET", &head]];
    let mut answers = visit.attempts(&questions).await?.into_iter().map(Result::ok);
    let mut answer = || answers.next().flatten();
    let mut number = || answer().and_then(|answer| answer.as_u64());
    log.add(number(), number());
    if let (Some(found), Some(now)) = (answer().as_ref().and_then(parse_head), now) {
        let ahead = Duration::from_micros(found.sequence.number()).saturating_sub(now);
        if ahead > AHEAD {
            let seen = format!("`{head}` is ahead of the server's clock by {ahead:.1?}");
            visit.found(FindingKind::ClockWentBack, seen);
        }
    }
    Ok(())
}

/// Namespaces are ASCII.
fn text(key: fred::types::Key) -> String {
    key.into_string().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition that was never written to has no log.
    #[test]
    fn what_one_partition_does_not_tell_leaves_the_sum_of_the_others() {
        let mut log = Log::default();
        assert_eq!(log.to_string(), "");
        for (length, size) in [(Some(0), None), (Some(2), Some(1000)), (Some(3), None), (None, Some(500))] {
            log.add(length, size);
        }
        assert_eq!((log.length, log.size), (Some(5), Some(1500)));
    }

    #[test]
    fn a_node_is_silent_after_ten_seconds_and_hostile_scores_are_no_times() {
        let now = Duration::from_secs(100);
        let of = |seen| silence("a", seen, now);
        assert_eq!(of(90_000_001.0), None);
        assert_eq!(of(85_000_000.0).as_deref(), Some("node a silent for 15s"));
        assert_eq!(of(2e8), None, "heard of after the clock was read");
        for hostile in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            assert_eq!(of(hostile), None);
        }
    }
}
