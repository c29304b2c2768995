//! Proposals of loaded values.

use std::sync::Arc;

use nearfar_core::backend::{L2, L2Error};
use nearfar_core::{Fill, FillOutcome, PartitionId};

use super::{BYTES, Carrier, shares, size_of};
use crate::stats::Counters;

/// Brings what was loaded of a partition to L2.
pub(crate) struct Fills {
    pub(crate) l2: Arc<dyn L2>,
    pub(crate) partition: PartitionId,
    pub(crate) counters: Arc<Counters>,
}

impl Carrier for Fills {
    type Request = Vec<Fill>;
    type Answer = Vec<FillOutcome>;

    const ROOM: usize = BYTES;

    async fn carry(&self, requests: Vec<Vec<Fill>>) -> Vec<Result<Vec<FillOutcome>, L2Error>> {
        let lens: Vec<usize> = requests.iter().map(Vec::len).collect();
        let fills: Vec<Fill> = requests.into_iter().flatten().collect();
        let count = fills.len();
        match self.l2.fill_many(&self.partition, fills).await {
            Ok(outcomes) if outcomes.len() == count => shares(outcomes, &lens).map(Ok).collect(),
            outcome => vec![Err(outcome.err().unwrap_or(L2Error::Unexpected)); lens.len()],
        }
    }

    fn count_shared(&self, requests: usize) {
        self.counters.coalesced_fills.add(requests as u64);
    }

    fn size(&self, fills: &Vec<Fill>) -> usize {
        fills.iter().map(|fill| size_of(&fill.write)).sum()
    }
}
