//! Proposing to both tiers what was loaded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use nearfar_core::{
    Envelope, EnvelopeHeader, Fill, FillOutcome, KeyWrite, Kind, Moment, Renewal, Validators, Version,
};

use crate::chunks::chunks;
use crate::engine::{Engine, boxed, weight};
use crate::entry::{Content, Entry, Slot, Tier};
use crate::error::Error;
use crate::event::Event;
use crate::holdings::Part;
use crate::key::CacheKey;
use crate::lifetime::{Left, Lifetime};
use crate::loaded::Loaded;
use crate::log;
use crate::look::{Errand, Previous, Start};
use crate::tags::{SlotTags, TagLedger};

/// What L2 is asked to store of a load.
enum Proposal {
    Fill(Bytes),
    /// What stands there, with this header.
    Renewal {
        identity: Bytes,
        header: Bytes,
        len: u32,
    },
}

impl Proposal {
    fn renewal(header: &EnvelopeHeader, stored: &Envelope, identity: Bytes) -> Self {
        // The payload stays, and with it what says how to read it.
        let EnvelopeHeader { codec, compression, schema, tag_count, .. } = stored.header;
        let header = EnvelopeHeader { codec, compression, schema, tag_count, ..*header };
        let renewed = Envelope::encode(&header, &stored.notes, &stored.payload);
        Self::Renewal { identity, len: weight(&renewed), header: renewed.slice(..Envelope::HEADER_LEN) }
    }

    fn weight(&self) -> u32 {
        match self {
            Self::Fill(envelope) => weight(envelope),
            Self::Renewal { len, .. } => *len,
        }
    }
}

/// What a loader has found, together with what it was given.
struct News<V> {
    content: Content<V>,
    validators: Validators,
    tags: Option<Box<SlotTags>>,
    /// What the notes of an envelope of it are, and how many tags those begin with.
    notes: Result<(Vec<u8>, u16), Error>,
    /// What L2 has of it already, and the [identity](Envelope::identity) of that.
    renews: Option<(Envelope, Bytes)>,
}

impl<V> News<V> {
    fn of(
        loaded: Loaded<V>,
        previous: Option<Previous<V>>,
        ledger: &TagLedger,
        as_of: Version,
    ) -> Result<Self, Error> {
        let notes = loaded.notes();
        let Some(content) = loaded.answer.content() else {
            let not_modified = |previous| Self::not_modified(previous, notes, as_of);
            return previous.map(not_modified).ok_or_else(Error::nothing_to_be_modified);
        };
        let tags = loaded.tags.ok().and_then(|tags| ledger.slot_tags(&tags, as_of));
        Ok(Self { content, validators: loaded.validators, tags, notes, renews: None })
    }

    fn not_modified(
        Previous { slot, stored }: Previous<V>,
        notes: Result<(Vec<u8>, u16), Error>,
        as_of: Version,
    ) -> Self {
        let renews = stored.and_then(|bytes| {
            let identity = bytes.slice_ref(Envelope::identity(&bytes));
            Some((Envelope::decode(&bytes).ok()?, identity))
        });
        let tags = slot.tags.as_ref().map(|tags| Box::new(tags.renewed(as_of)));
        Self { content: Slot::shared(&slot), validators: slot.validators().clone(), tags, notes, renews }
    }
}

/// What was loaded of a key, on its way to both tiers.
pub(crate) struct Candidate<K, V> {
    key: K,
    encoded: Bytes,
    slot: Arc<Slot<V>>,
    start: Start,
    /// `None` if it is not to be stored.
    proposal: Option<Proposal>,
    keep: Option<Duration>,
    skips_l1: bool,
}

impl<K, V> Candidate<K, V> {
    /// For whoever waits for it.
    pub(crate) fn entry(&self) -> Entry<V> {
        Entry::new(Arc::clone(&self.slot), Tier::Loader, self.slot.taken_at)
    }

    fn renews(&self) -> bool {
        matches!(self.proposal, Some(Proposal::Renewal { .. }))
    }
}

/// What became of a proposal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reception {
    /// L2 has it, or may have: the ticket decides about L1.
    MayBeKept,
    /// L2 knows of something newer, or the load outlasted its fence.
    Refused,
}

impl<K, V> Engine<K, V>
where
    K: CacheKey,
    V: Send + Sync + 'static,
{
    /// Proposes what was loaded to both tiers. The caller gets it in any case (race R18).
    pub(crate) async fn fill(
        &self,
        errand: &Errand<K>,
        loaded: Loaded<V>,
        start: Start,
        previous: Option<Previous<V>>,
    ) -> Result<Entry<V>, Error> {
        let candidate = self.candidate(errand, loaded, start, previous)?;
        let entry = candidate.entry();
        self.propose(candidate).await;
        Ok(entry)
    }

    /// Makes of what was loaded what L1 and L2 are to hold of it.
    pub(crate) fn candidate(
        &self,
        errand: &Errand<K>,
        loaded: Loaded<V>,
        start: Start,
        previous: Option<Previous<V>>,
    ) -> Result<Candidate<K, V>, Error> {
        let loaded_at = self.now();
        let part = self.held.part_of(&errand.encoded);
        let (kind, lifetime) = self.plan(&loaded, previous.as_ref());
        let load_cost = loaded_at.since(start.began_at);
        let news = News::of(loaded, previous, &part.tags, start.tags_as_of)?;
        let proposal = kind.map(|kind| {
            let header = EnvelopeHeader { load_cost, ..self.header(kind, lifetime) };
            self.proposal(&errand.encoded, &header, &news)
        });
        if matches!(proposal, Some(Err(_))) {
            self.held.counters.unstorable.add(1);
        }
        let proposal = proposal.and_then(Result::ok);
        let slot = Arc::new(Slot {
            is_absent: news.content.is_absent(),
            content: news.content,
            version: start.base.unwrap_or(Version::UNKNOWN),
            age_when_taken: Duration::ZERO,
            taken_at: loaded_at,
            life: self.options.life(loaded_at, Left::all(lifetime), lifetime, load_cost),
            partition: part.id.index(),
            stripe: start.ticket.stripe(),
            generation: start.ticket.generation(),
            encoded_len: proposal.as_ref().map_or(0, Proposal::weight),
            validators: boxed(news.validators),
            tags: news.tags,
        });
        let (key, encoded, keep) = (errand.key.clone(), errand.encoded.clone(), self.options.keep(lifetime));
        let skips_l1 = errand.wanted.call.skips_l1;
        Ok(Candidate { key, encoded, slot, start, proposal, keep, skips_l1 })
    }

    /// As what it is to be stored, if it is, and for how long it is fresh.
    fn plan(&self, loaded: &Loaded<V>, previous: Option<&Previous<V>>) -> (Option<Kind>, Lifetime) {
        let of_ttl = |ttl| Lifetime { ttl, idle: None, grace: Duration::ZERO };
        match self.options.lifetime(loaded) {
            Some(lifetime) => (Some(loaded.kind()), lifetime),
            // What was found gone is not to stand in for a load that fails.
            None if loaded.kind() == Kind::Absent && previous.is_some() => {
                (Some(Kind::Tombstone), of_ttl(Some(Duration::ZERO)))
            }
            // What is not stored is fresh for who waits for it.
            None => (None, of_ttl(None)),
        }
    }

    fn proposal(&self, encoded: &[u8], header: &EnvelopeHeader, news: &News<V>) -> Result<Proposal, Error> {
        match &news.renews {
            Some((envelope, identity)) => Ok(Proposal::renewal(header, envelope, identity.clone())),
            None if header.kind == Kind::Tombstone => {
                Ok(Proposal::Fill(Envelope::encode(&EnvelopeHeader::tombstone(), &[], &[])))
            }
            None => {
                let notes = news.notes.as_ref().map_err(Error::clone)?;
                self.envelope(encoded, header, notes, news.content.value()).map(Proposal::Fill)
            }
        }
    }

    async fn propose(&self, candidate: Candidate<K, V>) {
        if candidate.renews() {
            let reception = self.propose_renewal(&candidate).await;
            self.receive(candidate, reception);
        } else {
            self.propose_fills(self.held.part_of(&candidate.encoded), vec![candidate]).await;
        }
    }

    /// Proposes several, in one step per partition.
    pub(crate) async fn propose_all(&self, candidates: Vec<Candidate<K, V>>) {
        let (renewals, fills): (Vec<_>, Vec<_>) = candidates.into_iter().partition(Candidate::renews);
        let weight =
            |candidate: &Candidate<K, V>| candidate.proposal.as_ref().map_or(0, Proposal::weight) as usize;
        let fills = self.held.by_part(fills, |candidate| &candidate.encoded).flat_map(|(part, group)| {
            chunks(group, weight).into_iter().map(move |step| Box::pin(self.propose_fills(part, step)))
        });
        let renewals = renewals.into_iter().map(|candidate| Box::pin(self.propose(candidate)));
        join(join_all(fills), join_all(renewals)).await;
    }

    /// Proposes fills to one partition.
    async fn propose_fills(&self, part: &Part, candidates: Vec<Candidate<K, V>>) {
        let (mut sent, mut fills) = (Vec::new(), Vec::new());
        for candidate in candidates {
            match self.fill_of(&candidate) {
                Ok(Some(fill)) => {
                    fills.push(fill);
                    sent.push(candidate);
                }
                // It is for whoever waits for it alone.
                Ok(None) => {}
                Err(reception) => self.receive(candidate, reception),
            }
        }
        if fills.is_empty() {
            return;
        }
        let receptions = match self.agree().await {
            Ok(()) => self.send_fills(part, fills).await,
            Err(_) => vec![Reception::MayBeKept; fills.len()],
        };
        for (candidate, reception) in sent.into_iter().zip(receptions) {
            self.receive(candidate, reception);
        }
    }

    /// How L2 is asked to store what was loaded, if it is; or else what is to become of it without that.
    fn fill_of(&self, candidate: &Candidate<K, V>) -> Result<Option<Fill>, Reception> {
        let Some(Proposal::Fill(envelope)) = &candidate.proposal else { return Ok(None) };
        let (base, deadline) = self.is_to_be_sent(&candidate.start)?;
        let (key, envelope, keep) = (candidate.encoded.clone(), envelope.clone(), candidate.keep);
        Ok(Some(Fill { write: KeyWrite { key, envelope, keep }, base, deadline }))
    }

    async fn send_fills(&self, part: &Part, fills: Vec<Fill>) -> Vec<Reception> {
        let lens: Vec<u64> = fills.iter().map(|fill| fill.write.envelope.len() as u64).collect();
        let Ok(outcomes) = part.fills.ask(fills).await else {
            self.held.counters.l2_failures.add(1);
            return vec![Reception::MayBeKept; lens.len()];
        };
        let stored = outcomes.iter().zip(lens).filter(|(outcome, _)| **outcome == FillOutcome::Stored);
        self.held.counters.l2_bytes_written.add(stored.map(|(_, len)| len).sum());
        outcomes.into_iter().map(Reception::of).collect()
    }

    async fn propose_renewal(&self, candidate: &Candidate<K, V>) -> Reception {
        let Some(Proposal::Renewal { identity, header, .. }) = &candidate.proposal else {
            return Reception::Refused;
        };
        let (base, deadline) = match self.is_to_be_sent(&candidate.start) {
            Ok(sent) => sent,
            Err(reception) => return reception,
        };
        if self.agree().await.is_err() {
            return Reception::MayBeKept;
        }
        let Ok(l2) = self.node().l2() else { return Reception::Refused };
        let (key, keep) = (candidate.encoded.clone(), candidate.keep);
        let renewal =
            Renewal { key, identity: identity.clone(), header: header.clone(), base, deadline, keep };
        let renewed = l2.renew(&self.held.part_of(&candidate.encoded).id, renewal).await;
        renewed.map_or_else(
            |_| {
                self.held.counters.l2_failures.add(1);
                Reception::MayBeKept
            },
            Reception::of,
        )
    }

    /// With which base, and until when, L2 is to be told; or else what is to become of it without that.
    fn is_to_be_sent(&self, start: &Start) -> Result<(Version, Moment), Reception> {
        if self.now().since(start.asked_at) >= self.options.fence_window {
            return Err(Reception::Refused);
        }
        start.base.zip(start.fenced_until).ok_or(Reception::MayBeKept)
    }

    fn receive(&self, candidate: Candidate<K, V>, reception: Reception) {
        match reception {
            Reception::MayBeKept if candidate.skips_l1 => {}
            Reception::MayBeKept => {
                self.held.l1.admit(candidate.key, candidate.start.ticket, candidate.slot);
            }
            Reception::Refused => {
                let key = candidate.encoded;
                self.held.counters.fills_refused.add(1);
                let (namespace, shown) = (self.namespace().as_str(), self.shown(&key));
                tracing::debug!(target: log::CACHE, namespace, key = shown, "a fill was refused");
                self.held.counters.outlet.tell(|| Event::FillRefused { key });
            }
        }
    }
}

impl Reception {
    fn of(outcome: FillOutcome) -> Self {
        match outcome {
            FillOutcome::Stored => Self::MayBeKept,
            FillOutcome::Refused | FillOutcome::Late => Self::Refused,
        }
    }
}
