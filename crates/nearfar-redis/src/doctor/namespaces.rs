//! What stands in Redis of the namespaces in question.

use std::time::Duration;

use nearfar_core::backend::Settings;
use nearfar_core::{Namespace, PartitionId};

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

pub(crate) async fn examine(
    visit: &mut Visit,
    namespace: &Namespace,
    expected: Option<Expected>,
) -> Answered<()> {
    let Some(recorded) = recorded(visit, namespace, expected).await? else { return Ok(()) };
    let now = time(visit).await?;
    let names = Keys::of(&PartitionId::new(namespace.clone(), 0));
    let nodes = nodes(visit, &names, now).await?;
    let log = log(visit, &names).await?;
    let window = recorded.fence_window;
    let about = format!("namespace {namespace}");
    visit.fact(&*about, format!("fence window {window:?}, {nodes}{log}"));
    head(visit, &names, now).await
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

/// How many nodes live.
async fn nodes(visit: &mut Visit, names: &Keys, now: Option<Duration>) -> Answered<String> {
    let listing = visit.attempt(&["ZRANGE", &text(names.nodes()), "0", "-1", "WITHSCORES"]).await?;
    let listed: Option<Vec<(String, f64)>> = listing.ok().and_then(|listing| listing.convert().ok());
    let Some(listed) = listed else { return Ok("nodes unknown".to_owned()) };
    let silent: Vec<_> = listed.iter().filter_map(|(node, seen)| silence(node, *seen, now?)).collect();
    if !silent.is_empty() {
        visit.found(FindingKind::SilentNodes, silent.join(", "));
    }
    Ok(format!("live nodes: {}", listed.len()))
}

/// What there is to say of a node that should have been heard of; `seen` is in microseconds on the server's clock.
fn silence(node: &str, seen: f64, now: Duration) -> Option<String> {
    let seen = Duration::try_from_secs_f64(seen / 1e6).ok()?;
    let silent = now.checked_sub(seen).filter(|&silent| silent >= SILENT)?;
    Some(format!("node {node} silent for {silent:.0?}"))
}

/// How long the log is, as far as this may be asked; nearfar itself does not need to.
async fn log(visit: &mut Visit, names: &Keys) -> Answered<String> {
    let log = text(names.log());
    let length = visit.attempt(&["XLEN", &log]).await?.ok().and_then(|length| length.as_u64());
    let size = visit.attempt(&["MEMORY", "USAGE", &log]).await?.ok().and_then(|size| size.as_u64());
    let length = length.map(|length| format!(", messages in the log: {length}")).unwrap_or_default();
    Ok(length + &size.map(|size| format!(" ({})", bytes(size))).unwrap_or_default())
}

async fn head(visit: &mut Visit, names: &Keys, now: Option<Duration>) -> Answered<()> {
    let head = text(names.head());
    let Ok(answer) = visit.attempt(&["GET", &head]).await? else { return Ok(()) };
    let (Some(found), Some(now)) = (parse_head(&answer), now) else { return Ok(()) };
    let ahead = Duration::from_micros(found.sequence.number()).saturating_sub(now);
    if ahead > AHEAD {
        visit.found(
            FindingKind::ClockWentBack,
            format!("`{head}` is ahead of the server's clock by {ahead:.1?}"),
        );
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
