//! Reads of L2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use nearfar_core::backend::{L2, L2Error};
use nearfar_core::{PartitionId, Reading};

use super::{BYTES, Carrier, shares};
use crate::stats::Counters;

/// Brings the reads of a partition to L2.
pub(crate) struct Reads {
    l2: Arc<dyn L2>,
    partition: PartitionId,
    counters: Arc<Counters>,
    /// How many bytes a key's value had on the last trip, on average.
    len: AtomicUsize,
}

impl Reads {
    /// A trip has no more keys than this, since it holds up everything else at the server.
    const MOST: usize = 512;

    pub(crate) fn new(l2: Arc<dyn L2>, partition: PartitionId, counters: Arc<Counters>) -> Self {
        Self { l2, partition, counters, len: AtomicUsize::new(0) }
    }

    fn observe(&self, reading: &Reading) {
        let len: usize = reading.envelopes.iter().flatten().map(Bytes::len).sum();
        self.counters.l2_bytes_read.add(len as u64);
        self.len.store(len / reading.envelopes.len().max(1), Ordering::Relaxed);
    }
}

impl Carrier for Reads {
    type Request = Vec<Bytes>;
    type Answer = Reading;

    const ROOM: usize = BYTES;

    async fn carry(&self, mut requests: Vec<Vec<Bytes>>) -> Vec<Result<Reading, L2Error>> {
        let lens: Vec<usize> = requests.iter().map(Vec::len).collect();
        let keys = if requests.len() == 1 { requests.remove(0) } else { requests.concat() };
        let reading = match self.l2.read_many(&self.partition, &keys).await {
            Ok(reading) if reading.envelopes.len() == keys.len() => reading,
            outcome => {
                let cause = outcome.err().unwrap_or(L2Error::Unexpected);
                return vec![Err(cause); lens.len()];
            }
        };
        self.observe(&reading);
        if lens.len() == 1 {
            return vec![Ok(reading)];
        }
        let Reading { envelopes, head } = reading;
        shares(envelopes, &lens).map(|envelopes| Ok(Reading { envelopes, head })).collect()
    }

    fn count_shared(&self, requests: usize) {
        self.counters.coalesced_reads.add(requests as u64);
    }

    fn size(&self, keys: &Vec<Bytes>) -> usize {
        keys.len() * self.len.load(Ordering::Relaxed).max(Self::ROOM / Self::MOST)
    }
}
