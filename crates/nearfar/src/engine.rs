//! A cache on a node: what it consists of, and how it begins.
//!
//! Reading is in `read`, loading in `load`, changes of truth in `change`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use nearfar_core::backend::L2Error;
use nearfar_core::{Envelope, Moment, Namespace, PartitionId, Validators};
use tracing::field::DisplayValue;

use crate::agreement::{Agreement, Disagreement};
use crate::config::CacheConfig;
use crate::error::{ConfigProblem, Error, Operation};
use crate::event::Events;
use crate::holdings::{FollowedPart, Holdings, Part};
use crate::key::CacheKey;
use crate::log::ShownKey;
use crate::member::Subscription;
use crate::node::{NameClaim, Node};
use crate::options::Options;
use crate::payload::Payloads;
use crate::stats::Stats;
use crate::watched::Watched;

/// One cache on one node.
pub(crate) struct Engine<K, V> {
    claim: NameClaim,
    pub(crate) options: Options,
    pub(crate) payloads: Payloads<V>,
    pub(crate) held: Arc<Holdings<K, V>>,
    agreement: Arc<Agreement>,
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    pub(crate) async fn start(
        claim: NameClaim,
        options: &Options,
        payloads: Payloads<V>,
    ) -> Result<Arc<Self>, Error> {
        let settings = options.settings(claim.node.default_partitions());
        let partition = |index| PartitionId::new(claim.namespace.clone(), index);
        let partitions = (0..settings.partitions).map(partition).collect();
        let held = Arc::new(Holdings::new(options, &claim.node, partitions));
        claim.node.caches.add(&held);
        let agreement = Arc::new(Agreement::new(claim.namespace.clone(), settings));
        let engine = Arc::new(Self { claim, options: *options, payloads, held, agreement });
        let reachable = match engine.agree().await {
            Ok(()) => true,
            Err(Disagreement::Unasked(cause)) if engine.node().start_degraded && cause.is_absence() => false,
            Err(disagreement) => return Err(engine.disagreement(disagreement)),
        };
        engine.follow(reachable).await?;
        Ok(engine)
    }

    pub(crate) fn config(&self) -> CacheConfig {
        self.options.config(self.node().default_partitions())
    }

    /// Makes sure that the other nodes fence for as long as this one.
    pub(crate) async fn agree(&self) -> Result<(), Disagreement> {
        // After the shutdown there is nothing to ask.
        let l2 = self.node().l2().map_err(|_| Disagreement::Unasked(L2Error::Closed))?;
        self.agreement.reach(l2).await
    }

    pub(crate) fn disagreement(&self, disagreement: Disagreement) -> Error {
        match disagreement {
            Disagreement::Unasked(cause) => Error::l2(Operation::Open, cause),
            Disagreement::Settings { ours, theirs } => {
                let namespace = self.namespace().to_string();
                Error::config(ConfigProblem::Disagrees { namespace, ours, theirs })
            }
        }
    }

    /// Subscribes, and waits for the proof of it if L2 is there to give one.
    async fn follow(&self, reachable: bool) -> Result<(), Error> {
        let attach = |(index, part): (usize, &Part)| {
            let held = Arc::new(FollowedPart::new(&self.held, index));
            self.node().attach(part.id.clone(), &self.options, held, Arc::clone(&self.agreement))
        };
        let proofs: Vec<_> = self.held.parts.iter().enumerate().map(attach).collect();
        if !reachable {
            return Ok(());
        }
        let patience = self.node().timeouts.connect;
        let all_proved =
            async { try_join_all(proofs).await.map(|proofs| proofs.into_iter().collect::<Subscription>()) };
        match tokio::time::timeout(patience, all_proved).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(reason))) => Err(Error::subscription_refused(reason)),
            Ok(Err(_)) => Err(Error::closed()),
            Err(_) if self.node().start_degraded => Ok(()),
            Err(_) => Err(Error::subscription_unproven(patience)),
        }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.claim.node
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.claim.namespace
    }

    pub(crate) fn now(&self) -> Moment {
        self.node().clock.now()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.held.stats(self.now())
    }

    pub(crate) fn events(&self) -> Events {
        let counters = &self.held.counters;
        Events::new(Arc::downgrade(counters), counters.outlet.join())
    }

    /// What a line of the log says of a key.
    pub(crate) fn shown<'a>(&self, key: &'a [u8]) -> Option<DisplayValue<ShownKey<'a>>> {
        self.options.log_keys.show(key)
    }
}

/// Most values have none.
pub(crate) fn boxed(validators: Validators) -> Option<Box<Validators>> {
    (validators != Validators::default()).then(|| Box::new(validators))
}

/// L1's measure of a value: the bytes that it has in L2, or would have if it were not compressed.
pub(crate) fn weight(envelope: &Bytes) -> u32 {
    u32::try_from(Envelope::expanded_len(envelope)).unwrap_or(u32::MAX)
}
