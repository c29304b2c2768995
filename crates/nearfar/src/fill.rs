//! Proposing to both tiers what was loaded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearfar_core::{
    Envelope, EnvelopeHeader, Fill, FillOutcome, KeyWrite, Kind, Renewal, Validators, Version,
};

use crate::engine::{Engine, boxed, weight};
use crate::entry::{Content, Entry, Slot, Tier};
use crate::error::Error;
use crate::key::CacheKey;
use crate::lifetime::{Left, Lifetime};
use crate::loaded::Loaded;
use crate::look::{Errand, Previous, Start};

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
    /// What L2 has of it already, and the [identity](Envelope::identity) of that.
    renews: Option<(Envelope, Bytes)>,
}

impl<V> News<V> {
    fn of(loaded: Loaded<V>, previous: Option<Previous<V>>) -> Result<Self, Error> {
        let Some(content) = loaded.answer.content() else {
            return previous.map(Self::not_modified).ok_or_else(Error::nothing_to_be_modified);
        };
        Ok(Self { content, validators: loaded.validators, renews: None })
    }

    fn not_modified(Previous { slot, stored }: Previous<V>) -> Self {
        let renews = stored.and_then(|bytes| {
            let identity = bytes.slice_ref(Envelope::identity(&bytes));
            Some((Envelope::decode(&bytes).ok()?, identity))
        });
        Self { content: Slot::shared(&slot), validators: slot.validators().clone(), renews }
    }
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
        let loaded_at = self.now();
        let (kind, lifetime) = self.plan(&loaded, previous.as_ref());
        let load_cost = loaded_at.since(start.began_at);
        let news = News::of(loaded, previous)?;
        let proposal = kind.map(|kind| {
            let header = EnvelopeHeader { load_cost, ..self.header(kind, lifetime) };
            self.proposal(&errand.encoded, &header, &news)
        });
        let written = proposal.as_ref().and_then(|proposal| proposal.as_ref().ok());
        let slot = Arc::new(Slot {
            content: news.content,
            version: start.base.unwrap_or(Version::UNKNOWN),
            age_when_taken: Duration::ZERO,
            taken_at: loaded_at,
            life: self.options.life(loaded_at, Left::all(lifetime), lifetime, load_cost),
            partition: self.held.part_of(&errand.encoded).id.index(),
            generation: start.ticket.generation(),
            encoded_len: written.map_or(0, Proposal::weight),
            validators: boxed(news.validators),
        });
        let entry = Entry::new(Arc::clone(&slot), Tier::Loader, loaded_at);
        match proposal {
            None => {}
            Some(Err(_)) => self.held.counters.unstorable.add(1),
            Some(Ok(proposal)) => {
                if self.propose(&errand.encoded, proposal, self.options.keep(lifetime), &start).await {
                    self.held.l1.admit(errand.key.clone(), start.ticket, slot);
                } else {
                    self.held.counters.fills_refused.add(1);
                }
            }
        }
        Ok(entry)
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
                self.envelope(encoded, header, &news.validators, news.content.value()).map(Proposal::Fill)
            }
        }
    }

    /// Whether the value may go to L1 as well: not if L2 knows of something newer, or the load outlasted its fence.
    async fn propose(
        &self,
        encoded: &Bytes,
        proposal: Proposal,
        keep: Option<Duration>,
        start: &Start,
    ) -> bool {
        if self.now().since(start.asked_at) >= self.options.fence_window {
            return false;
        }
        let (Some(base), Some(deadline)) = (start.base, start.fenced_until) else { return true };
        if self.agree().await.is_err() {
            return true;
        }
        let Ok(l2) = self.node().l2() else { return false };
        let partition = &self.held.part_of(encoded).id;
        let key = encoded.clone();
        let answer = match proposal {
            Proposal::Fill(envelope) => {
                let write = KeyWrite { key, envelope, keep };
                l2.fill(partition, Fill { write, base, deadline }).await
            }
            Proposal::Renewal { identity, header, .. } => {
                l2.renew(partition, Renewal { key, identity, header, base, deadline, keep }).await
            }
        };
        match answer {
            Ok(FillOutcome::Stored) => true,
            Ok(FillOutcome::Refused | FillOutcome::Late) => false,
            // L2 has it or not; the ticket decides about L1.
            Err(_) => {
                self.held.counters.l2_failures.add(1);
                true
            }
        }
    }
}
