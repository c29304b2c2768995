use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::{BeatId, Echo, Gate, Message, Moment, Version};

/// How many unanswered beats are remembered. An echo older than that proves nothing worth having.
const BEATS_REMEMBERED: usize = 64;

/// One node's view of one partition: which changes it has heard of, and until when it may believe itself.
///
/// The receive loop feeds it, in the order in which the subscription delivers, and applies each message's keys to L1
/// **before** it feeds the next thing. The law it lives by:
///
/// > Trust comes only from an [`Echo`]. The echo of a beat sent at `s` stands in the same queue as the messages, so
/// > when it is handled, all that L2 executed before it has been applied or is known to be missing. If nothing is
/// > missing, L1 may be served until `s + max_staleness`.
///
/// ```text
///             message links to the last one            echo agrees
///               ┌──────────────┐                      ┌────────────┐
///               ▼              │                      ▼            │
///          ┌─────────┐ ────────┘   echo agrees   ┌─────────┐ ──────┘
///          │ in step │ ────────────────────────▶ │ trusted │
///          └─────────┘ ◀──────────────────────── └─────────┘
///               ▲           max_staleness over        │
///        echo:  │                                     │ gap, or any doubt: distrust at once
///  forget L1,   │        ┌─────────────┐              │
///  adopt its    └─────── │ out of step │ ◀────────────┘
///  sequence              └─────────────┘
/// ```
///
/// ```
/// use nearfar_core::{BeatId, Disconnected, Echo, Follower, FollowerOptions, Gate, Moment, Proof, Version};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let gate = Arc::new(Gate::new(Disconnected::Bypass));
/// let options = FollowerOptions { max_staleness: Duration::from_secs(5) };
/// let mut follower = Follower::new(options, Arc::clone(&gate), BeatId::new(1));
///
/// let sent = Moment::from_micros(1);
/// let beat = follower.poll_beat(sent).expect("the first beat is due at once");
/// let echo = Echo { beat, sequence: Version::new(40), time: sent };
/// assert_eq!(follower.handle_echo(&echo), Proof::Resynced);
/// assert!(gate.trusts(sent));
/// ```
#[derive(Debug)]
pub struct Follower {
    options: FollowerOptions,
    gate: Arc<Gate>,
    /// The last change of an unbroken chain; `None` while messages may be missing.
    applied: Option<Version>,
    /// The greatest number heard of in this history, true or not.
    heard: Version,
    /// Beats under way with the moment each was sent, oldest first. Those sent before the last doubt are dropped:
    /// their echoes may still sit in the queue of a connection that is gone.
    beats: VecDeque<(BeatId, Moment)>,
    next_beat: BeatId,
    beat_due: Moment,
}

/// What a [`Follower`] is set to.
///
/// ```
/// use nearfar_core::FollowerOptions;
/// use std::time::Duration;
///
/// let options = FollowerOptions { max_staleness: Duration::from_secs(5) };
/// assert_eq!(options.beat_every(), Duration::from_secs(1));
/// assert!(options.retry_every() < options.beat_every());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FollowerOptions {
    /// How long after a write the old value may still be served from L1.
    pub max_staleness: Duration,
}

impl FollowerOptions {
    /// The pause between beats while trusted: a fifth of the bound, so that four in a row may be lost, and at most a
    /// second, so that a dead link is noticed soon whatever the bound.
    pub fn beat_every(&self) -> Duration {
        (self.max_staleness / 5).min(Duration::from_secs(1))
    }

    /// The pause between beats while not trusted, when every read goes to L2.
    pub fn retry_every(&self) -> Duration {
        self.beat_every().min(Duration::from_millis(100))
    }
}

/// Where a message stands in the chain.
///
/// ```
/// assert_ne!(nearfar_core::Standing::Next, nearfar_core::Standing::Gap);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It links to the last one applied.
    Next,
    /// It was applied before.
    Duplicate,
    /// It does not link: messages are missing, or history is another one.
    Gap,
    /// Nothing was known before it either.
    OutOfStep,
}

/// What an echo proved.
///
/// ```
/// assert_ne!(nearfar_core::Proof::Extended, nearfar_core::Proof::Resynced);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing was missing; trust is extended.
    Extended,
    /// Something may have been missing: L1 is forgotten, the echo's sequence adopted, trust begins anew.
    Resynced,
    /// Nothing: its beat is unknown, or was sent before the last doubt.
    Void,
}

/// Why messages may be missing.
///
/// ```
/// assert_eq!(nearfar_core::Doubt::Lagged { messages: 3 }.to_string(), "3 messages overran the receive queue");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The subscription's connection was lost, or replaced.
    Disconnected,
    /// The receive queue overflowed.
    Lagged {
        /// How many messages were lost, as far as is known.
        messages: u64,
    },
    /// A frame could not be read.
    BadFrame,
    /// The servers behind the connection changed.
    TopologyChanged,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disconnected => write!(f, "the subscription was interrupted"),
            Self::Lagged { messages } => write!(f, "{messages} messages overran the receive queue"),
            Self::BadFrame => write!(f, "a frame on the bus could not be read"),
            Self::TopologyChanged => write!(f, "the servers behind the subscription changed"),
        }
    }
}

impl Follower {
    /// A follower that knows nothing yet; its first beat is due at once and has this id.
    pub fn new(options: FollowerOptions, gate: Arc<Gate>, first_beat: BeatId) -> Self {
        Self {
            options,
            gate,
            applied: None,
            heard: Version::UNKNOWN,
            beats: VecDeque::new(),
            next_beat: first_beat,
            beat_due: Moment::default(),
        }
    }

    /// Takes in a message whose keys have been applied to L1.
    pub fn handle_message(&mut self, message: &Message) -> Standing {
        self.heard = self.heard.max(message.sequence);
        let Some(applied) = self.applied else { return Standing::OutOfStep };
        if message.sequence == applied {
            return Standing::Duplicate;
        }
        if message.previous == applied && message.sequence > applied {
            self.applied = Some(message.sequence);
            return Standing::Next;
        }
        self.handle_doubt();
        Standing::Gap
    }

    /// Takes in an echo of one of this node's beats.
    pub fn handle_echo(&mut self, echo: &Echo) -> Proof {
        let Some(sent) = self.take_beat(echo.beat) else { return Proof::Void };
        let in_step = self.applied == Some(echo.sequence);
        if !in_step {
            // Everything from here on arrives behind this echo, so its sequence is where the chain goes on. Fills
            // under way were read before it and lose their tickets with the generation.
            self.gate.distrust();
            if echo.sequence < self.heard {
                self.gate.forget_numbers();
            } else {
                self.gate.forget();
            }
            self.applied = Some(echo.sequence);
            self.heard = echo.sequence;
        }
        self.gate.extend(sent + self.options.max_staleness);
        self.beat_due = self.beat_due.max(sent + self.options.beat_every());
        if in_step { Proof::Extended } else { Proof::Resynced }
    }

    /// Takes in that messages may be missing. Trust is withdrawn; a beat is due at once.
    pub fn handle_doubt(&mut self) {
        self.gate.distrust();
        self.applied = None;
        self.beats.clear();
        self.beat_due = Moment::default();
    }

    /// The subscription has just been (re)made: worth a beat now instead of at the next turn.
    pub fn handle_subscribed(&mut self) {
        self.beat_due = Moment::default();
    }

    /// The beat to send now, if one is due.
    pub fn poll_beat(&mut self, now: Moment) -> Option<BeatId> {
        if now < self.beat_due {
            return None;
        }
        let beat = self.next_beat;
        self.next_beat = BeatId::new(beat.number() + 1);
        if self.beats.len() == BEATS_REMEMBERED {
            self.beats.pop_front();
        }
        self.beats.push_back((beat, now));
        let pause =
            if self.applied.is_some() { self.options.beat_every() } else { self.options.retry_every() };
        self.beat_due = now + pause;
        Some(beat)
    }

    /// When a beat was sent whose echo would prove something.
    pub fn sent_at(&self, beat: BeatId) -> Option<Moment> {
        self.beats.iter().find(|(sent, _)| *sent == beat).map(|(_, sent_at)| *sent_at)
    }

    /// When to poll for a beat next.
    pub fn beat_due(&self) -> Moment {
        self.beat_due
    }

    /// The last change of an unbroken chain; `None` while messages may be missing.
    pub fn applied(&self) -> Option<Version> {
        self.applied
    }

    /// Takes a beat out of those under way, and the older ones with it.
    fn take_beat(&mut self, beat: BeatId) -> Option<Moment> {
        let at = self.beats.iter().position(|(sent, _)| *sent == beat)?;
        self.beats.drain(..=at).next_back().map(|(_, sent_at)| sent_at)
    }
}
