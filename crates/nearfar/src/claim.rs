//! One load per cluster: the node that is granted the claim of a key loads it, and the others wait for what it fills.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{Claim, ClaimOutcome, Holder, PartitionId};
use tokio::runtime::Handle;

use crate::engine::Engine;
use crate::entry::Entry;
use crate::error::Error;
use crate::key::CacheKey;
use crate::look::{Errand, Look, Start, Verdict};
use crate::node::Node;

/// What a load that asked for the claim is to do.
pub(crate) enum Turn<V> {
    /// Load from where the last look was, and let the claim go after.
    Load(Option<ClaimGuard>),
    /// Another node has loaded it.
    Loaded(Entry<V>),
}

/// What became of asking for it.
pub(crate) enum Claimed {
    Granted(ClaimGuard),
    /// Another node holds it for so long at most.
    Held {
        left: Duration,
    },
    /// Something has come since the look.
    Overtaken,
    /// L2 cannot help.
    Unasked,
}

/// A claim that this node may hold. Dropping it lets it go.
pub(crate) struct ClaimGuard {
    node: Arc<Node>,
    partition: PartitionId,
    /// `None` if another has it.
    key: Option<Bytes>,
    holder: Holder,
}

impl ClaimGuard {
    fn forget(mut self) {
        self.key = None;
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        // Outside of a runtime, or after the shutdown, it ends by itself.
        let Ok(runtime) = Handle::try_current() else { return };
        let (node, partition, holder) = (Arc::clone(&self.node), self.partition.clone(), self.holder);
        drop(runtime.spawn(async move {
            if let Ok(l2) = node.l2() {
                // That it fails costs the others a wait, which has an end.
                let _ = l2.release(&partition, &key, holder).await;
            }
        }));
    }
}

/// A node waits for no longer than this many claims last: for that of one who dies, and for that of one who takes over.
const PATIENCE: u32 = 2;

/// Longer claims are those of loads that nobody waits for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often a node that may not hear of a release looks.
const DEAF: Duration = Duration::from_millis(100);

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Waits until it is this node's turn to load, or another has.
    pub(crate) async fn turn(&self, errand: &Errand<K>, look: &mut Look<V>) -> Result<Turn<V>, Error> {
        let Some(lasts) = self.claims_for(errand) else { return Ok(Turn::Load(None)) };
        let give_up_at = self.now() + lasts.saturating_mul(PATIENCE);
        let part = self.held.part_of(&errand.encoded);
        loop {
            // First, so that a release is heard of however soon it comes.
            let wait = part.waiting.wait_for(&errand.encoded);
            match self.ask_for_claim(errand, &look.start, lasts).await {
                Claimed::Granted(guard) => return Ok(Turn::Load(Some(guard))),
                Claimed::Unasked => return Ok(Turn::Load(None)),
                Claimed::Overtaken => {}
                Claimed::Held { left } => {
                    self.held.counters.claim_waits.add(1);
                    let now = self.now();
                    // Where notices may be missed, it is looked now and then.
                    let longest = if part.gate.trusts(now) { self.options.max_staleness } else { DEAF };
                    let over = (now + left.min(longest)).min(give_up_at);
                    tokio::select! {
                        biased;
                        () = wait.released() => {}
                        () = self.until(over) => {}
                    }
                }
            }
            *look = self.look(errand).await?;
            match &look.verdict {
                Verdict::Answer(entry) | Verdict::Meanwhile(entry) => return Ok(Turn::Loaded(entry.clone())),
                Verdict::Load if self.now() >= give_up_at => return Ok(Turn::Load(None)),
                Verdict::Load => {}
            }
        }
    }

    /// For how long a load of it is claimed, if it is: who loads whatever others have does not wait for them.
    fn claims_for(&self, errand: &Errand<K>) -> Option<Duration> {
        let lasts = self.options.claims.filter(|_| !errand.wanted.call.is_to_load());
        lasts.map(|lasts| lasts.min(LONGEST))
    }

    /// Asks for the claim once.
    pub(crate) async fn claim(&self, errand: &Errand<K>, look: &Look<V>) -> Claimed {
        match self.claims_for(errand) {
            Some(lasts) => self.ask_for_claim(errand, &look.start, lasts).await,
            None => Claimed::Unasked,
        }
    }

    async fn ask_for_claim(&self, errand: &Errand<K>, start: &Start, lasts: Duration) -> Claimed {
        // Where nothing can be filled, nobody would find it.
        let (Some(_), Ok(l2)) = (start.base, self.node().l2()) else { return Claimed::Unasked };
        let (key, partition) = (errand.encoded.clone(), self.held.part_of(&errand.encoded).id.clone());
        let holder = Holder { node: self.node().id, load: NEXT.fetch_add(1, Ordering::Relaxed) };
        // Whoever gives up while it is under way may have got it.
        let guard = ClaimGuard { node: Arc::clone(self.node()), partition, key: Some(key.clone()), holder };
        let claim = Claim { key, holder, seen: start.seen.clone(), keep: lasts };
        match l2.claim(&guard.partition, claim).await {
            Ok(ClaimOutcome::Granted) => Claimed::Granted(guard),
            Ok(ClaimOutcome::Held { left }) => {
                guard.forget();
                Claimed::Held { left }
            }
            Ok(ClaimOutcome::Overtaken) => {
                guard.forget();
                Claimed::Overtaken
            }
            Err(_) => Claimed::Unasked,
        }
    }
}

/// No load of this process has the number of another.
static NEXT: AtomicU64 = AtomicU64::new(0);
