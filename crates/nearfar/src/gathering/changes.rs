//! Changes of truth.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use nearfar_core::backend::{L2, L2Error};
use nearfar_core::{Change, NodeId, PartitionId, Version};

use super::{BYTES, Carrier, LEAST, size_of};
use crate::clock::Clock;
use crate::outbox::SharedOutbox;
use crate::stats::Counters;

/// Brings the changes of a partition to L2. What L2 acknowledges is remembered before anybody is told.
pub(crate) struct Changes {
    pub(crate) l2: Arc<dyn L2>,
    pub(crate) partition: PartitionId,
    pub(crate) node: NodeId,
    pub(crate) clock: Clock,
    pub(crate) outbox: Arc<SharedOutbox>,
    pub(crate) counters: Arc<Counters>,
}

/// What L2 has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) version: Version,
    /// Those of its keys that a later change has replaced in the same step.
    pub(crate) replaced: Vec<Bytes>,
}

impl Changes {
    /// Does in one step what these changes do one after the other.
    async fn carry_as_one(&self, changes: &[Change]) -> Result<Vec<Written>, L2Error> {
        let replaced = replaced(changes);
        let change = Change::as_one(self.node, changes);
        let subjects = change.subjects();
        let version = self.l2.change(&self.partition, change).await?;
        // Once for all of them: its message comes once.
        self.outbox.with(|outbox| outbox.remember(self.clock.now(), subjects, version));
        Ok(replaced.into_iter().map(|replaced| Written { version, replaced }).collect())
    }

    /// In one step. If L2 refuses that, it may be because of one of them, a value for which there is no memory: then one after
    /// the other, so that an invalidation still gets through.
    async fn carry_step(&self, changes: Vec<Change>) -> Vec<Result<Written, L2Error>> {
        match self.carry_as_one(&changes).await {
            Ok(written) => written.into_iter().map(Ok).collect(),
            Err(L2Error::Rejected(_)) if changes.len() > 1 => {
                let mut answers = Vec::new();
                for change in &changes {
                    let written = self.carry_as_one(std::slice::from_ref(change)).await;
                    answers.push(written.map(|mut written| written.remove(0)));
                }
                answers
            }
            Err(cause) => vec![Err(cause); changes.len()],
        }
    }
}

impl Carrier for Changes {
    type Request = Change;
    type Answer = Written;

    const ROOM: usize = BYTES;

    async fn carry(&self, changes: Vec<Change>) -> Vec<Result<Written, L2Error>> {
        let mut steps: Vec<(Vec<usize>, Vec<Change>)> = Vec::new();
        for (place, change) in changes.into_iter().enumerate() {
            match steps.iter_mut().find(|(_, step)| step[0].goes_with(&change)) {
                Some((places, step)) => {
                    places.push(place);
                    step.push(change);
                }
                None => steps.push((vec![place], vec![change])),
            }
        }
        let carried = join_all(steps.into_iter().map(|(places, step)| async move {
            let answers = self.carry_step(step).await;
            places.into_iter().zip(answers)
        }));
        let mut answers: Vec<_> = carried.await.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn count_shared(&self, requests: usize) {
        self.counters.coalesced_changes.add(requests as u64);
    }

    fn size(&self, change: &Change) -> usize {
        change.writes.iter().map(size_of).sum::<usize>().max(LEAST)
    }
}

/// Which keys of each change a later one replaces.
fn replaced(changes: &[Change]) -> Vec<Vec<Bytes>> {
    let mut last = HashMap::new();
    if changes.len() > 1 {
        for (place, change) in changes.iter().enumerate() {
            last.extend(change.writes.iter().map(|write| (&write.key, place)));
        }
    }
    let replaced = |(place, change): (usize, &Change)| {
        let keys = change.writes.iter().map(|write| &write.key);
        keys.filter(|key| last.get(key).is_some_and(|last| *last != place)).cloned().collect()
    };
    changes.iter().enumerate().map(replaced).collect()
}
