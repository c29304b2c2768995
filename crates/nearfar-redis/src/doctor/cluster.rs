//! What a server of a cluster does when another one is away.

use crate::doctor::kinds::FindingKind;
use crate::doctor::visit::{Answered, Visit};
use crate::inspect::{Config, Info};

pub(crate) async fn examine(visit: &mut Visit, info: &Info, config: &Config) -> Answered<()> {
    if config.get("cluster-require-full-coverage") == Some("yes") {
        visit.found(FindingKind::FullCoverage, "`cluster-require-full-coverage` is yes");
    }
    if let Some(timeout) = config.number("cluster-node-timeout") {
        visit.found(FindingKind::NodeTimeout, format!("`cluster-node-timeout` is {timeout} ms"));
    }
    if info.get("role") == Some("master") && info.number("connected_slaves") == Some(0) {
        visit.found(FindingKind::NoReplica, "`connected_slaves` is 0");
    }
    let state = visit.ask(&["CLUSTER", "INFO"]).await?.and_then(|text| text.as_string());
    if Info::new(state.unwrap_or_default()).get("cluster_state") == Some("fail") {
        visit.found(FindingKind::ClusterDown, "`cluster_state` is fail");
    }
    Ok(())
}
