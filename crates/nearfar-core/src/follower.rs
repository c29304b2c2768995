use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

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
///            ▲  ▲  ▲      max_staleness over          │
///            │  │  │                                  │ gap, or any doubt: distrust at once
///    echo of │  │  │ no log: forget L1, adopt         ▼
///  the last  │  │  └───────────────────────┐   ┌─────────────┐
///  number    │  │ log connects: apply it   └── │ out of step │
///  applied   │  └──────┌───────────┐ ◀──────── └─────────────┘
///            │         │ replaying │  echo of a greater    │
///            │         └───────────┘  number               │
///            └─────────────────────────────────────────────┘
/// ```
///
/// ```
/// use nearfar_core::{BeatId, Disconnected, Echo, Follower, FollowerOptions, Gate, Moment, Proof, Version};
/// use std::time::Duration;
///
/// let gate = Gate::new(Disconnected::Bypass);
/// let options = FollowerOptions { max_staleness: Duration::from_secs(5) };
/// let mut follower = Follower::new(options, BeatId::new(1));
///
/// let sent = Moment::from_micros(1);
/// let beat = follower.poll_beat(&gate, sent).expect("the first beat is due at once");
/// let echo = Echo { beat, sequence: Version::new(40), time: sent };
/// assert_eq!(follower.handle_echo(&gate, &echo), Proof::Resynced);
/// assert!(gate.trusts(sent));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    options: FollowerOptions,
    step: Step,
    /// The greatest number heard of in this history, true or not.
    heard: Version,
    /// Beats under way, oldest first. Those sent before the last doubt are dropped:
    /// their echoes may still sit in the queue of a connection that is gone.
    beats: VecDeque<SentBeat>,
    next_beat: BeatId,
    beat_due: Moment,
}

/// A beat under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SentBeat {
    id: BeatId,
    at: Moment,
    /// The greatest version in L1 then. L2 cannot stand below it when it executes the beat, unless it lost something.
    newest: Version,
}

/// How a follower stands to the chain of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Every message up to this one is applied.
    In(Link),
    /// Messages may be missing since this one; `None` if nothing was ever proved.
    Out { since: Option<Link> },
    /// The messages between `since` and `until` are being fetched from the log; those behind `until` arrive and are
    /// applied meanwhile.
    Replaying {
        since: Link,
        until: Version,
        last: Link,
        /// When the beat was sent whose echo trust will be drawn from.
        sent: Moment,
    },
}

/// A point of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    sequence: Version,
    /// The message of that number, if it came as one and not as an echo's word.
    frame: Option<Bytes>,
}

impl Link {
    /// Whether the message at this place of the log is this point, or follows it directly.
    fn is_met_by(&self, message: &Message, frame: &Bytes) -> bool {
        if message.sequence == self.sequence {
            // A history that forked may use a number again, but not for the same bytes.
            return self.frame.as_ref().is_none_or(|known| known == frame);
        }
        self.frame.is_none() && message.previous == self.sequence
    }
}

/// A part of the log that connects what was applied with what an echo proved. Apply its messages, in order, then hand
/// it to [`Follower::finish_replay`].
#[derive(Debug)]
#[must_use = "what is missing stays missing until it is applied"]
pub struct Replay {
    messages: Vec<Message>,
    /// The bytes of the last one.
    last_frame: Bytes,
    /// The last message that was applied meanwhile: there the chain goes on.
    reaches: Version,
}

impl Replay {
    /// The messages to apply, in order.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Up to which number nothing is missing once they are applied.
    pub fn reaches(&self) -> Version {
        self.reaches
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Messages are missing, from behind the first of these numbers to the second: fetch both and what is between from
    /// the log and hand it to [`Follower::check_log`].
    Replay {
        /// The last message that was applied before.
        since: Version,
        /// The last message that was executed before the echo.
        until: Version,
    },
    /// Something may have been missing that no log can prove: L1 is forgotten, the echo's sequence adopted, trust
    /// begins anew.
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
    pub fn new(options: FollowerOptions, first_beat: BeatId) -> Self {
        Self {
            options,
            step: Step::Out { since: None },
            heard: Version::UNKNOWN,
            beats: VecDeque::new(),
            next_beat: first_beat,
            beat_due: Moment::default(),
        }
    }

    /// Takes in a message whose keys have been applied to L1, together with its bytes.
    pub fn handle_message(&mut self, gate: &Gate, message: &Message, frame: &Bytes) -> Standing {
        self.heard = self.heard.max(message.sequence);
        let (Step::In(last) | Step::Replaying { last, .. }) = &mut self.step else {
            return Standing::OutOfStep;
        };
        if message.sequence == last.sequence && last.frame.as_ref().is_none_or(|known| known == frame) {
            last.frame = Some(frame.clone());
            return Standing::Duplicate;
        }
        if message.previous == last.sequence && message.sequence > last.sequence {
            *last = Link { sequence: message.sequence, frame: Some(frame.clone()) };
            return Standing::Next;
        }
        self.handle_doubt(gate);
        Standing::Gap
    }

    /// Takes in an echo of one of this node's beats.
    pub fn handle_echo(&mut self, gate: &Gate, echo: &Echo) -> Proof {
        let Some(beat) = self.take_beat(echo.beat) else { return Proof::Void };
        self.beat_due = self.beat_due.max(beat.at + self.options.beat_every());
        if echo.sequence < beat.newest {
            // L1 has something that L2 has lost, though its message may never have come.
            self.heard = self.heard.max(beat.newest);
            return self.catch_up(gate, echo, beat.at);
        }
        match &mut self.step {
            Step::Replaying { last, sent, .. } if last.sequence == echo.sequence => {
                *sent = beat.at;
                return Proof::Void;
            }
            Step::In(last) if last.sequence == echo.sequence => {}
            _ => return self.catch_up(gate, echo, beat.at),
        }
        gate.extend(beat.at + self.options.max_staleness);
        Proof::Extended
    }

    /// Messages were missing when this echo came, or may have been.
    fn catch_up(&mut self, gate: &Gate, echo: &Echo, sent: Moment) -> Proof {
        gate.distrust();
        let adopted = Link { sequence: echo.sequence, frame: None };
        // A number above the echo's: history was replaced, or somebody made the number up.
        let proved = self.proved().cloned().filter(|_| self.heard <= echo.sequence);
        match proved {
            // Nothing was published since, and there are no bytes to compare: whatever was in doubt, no message was lost.
            Some(since) if since.sequence == echo.sequence && since.frame.is_none() => {
                self.step = Step::In(since);
                gate.extend(sent + self.options.max_staleness);
                Proof::Extended
            }
            Some(since) if since.sequence <= echo.sequence => {
                let (from, until) = (since.sequence, echo.sequence);
                self.heard = until;
                self.step = Step::Replaying { since, until, last: adopted, sent };
                Proof::Replay { since: from, until }
            }
            _ => {
                self.resync(gate, adopted, sent);
                Proof::Resynced
            }
        }
    }

    /// The last point up to which nothing is missing.
    fn proved(&self) -> Option<&Link> {
        match &self.step {
            Step::In(last) => Some(last),
            Step::Out { since } => since.as_ref(),
            Step::Replaying { since, .. } => Some(since),
        }
    }

    /// Checks a part of the log that [`Proof::Replay`] asked for: it must begin with the last message applied, byte for
    /// byte, or right behind it, be a chain, and end with the message that the echo named. `None` if it does not, or is
    /// not what is needed any more; then see [`give_up_replay`](Self::give_up_replay).
    pub fn check_log(&self, frames: &[Bytes]) -> Option<Replay> {
        let Step::Replaying { since, until, last, .. } = &self.step else { return None };
        let mut messages: Vec<Message> =
            frames.iter().map(|frame| Message::decode(frame).ok()).collect::<Option<_>>()?;
        let begins = since.is_met_by(messages.first()?, &frames[0]);
        let connects = messages.windows(2).all(|pair| pair[1].previous == pair[0].sequence)
            && messages.iter().all(Message::is_plausible);
        let ends = messages.last()?.sequence == *until;
        let last_frame = frames.last()?.clone();
        messages.retain(|message| message.sequence > since.sequence);
        (begins && connects && ends).then_some(Replay { messages, last_frame, reaches: last.sequence })
    }

    /// Whether this is the replay that is waited for.
    pub fn replays(&self, since: Version, until: Version) -> bool {
        matches!(&self.step, Step::Replaying { since: from, until: to, .. } if from.sequence == since && *to == until)
    }

    /// The messages of the replay have been applied: nothing is missing any more.
    pub fn finish_replay(&mut self, gate: &Gate, replay: &Replay) {
        let Step::Replaying { last, sent, until, .. } = &self.step else { return };
        let (mut last, sent) = (last.clone(), *sent);
        if last.sequence == *until {
            last.frame.get_or_insert_with(|| replay.last_frame.clone());
        }
        self.step = Step::In(last);
        gate.extend(sent + self.options.max_staleness);
    }

    /// The log does not connect: it was trimmed, or history is another one. L1 is forgotten.
    pub fn give_up_replay(&mut self, gate: &Gate) {
        let Step::Replaying { last, sent, .. } = &self.step else { return };
        let (last, sent) = (last.clone(), *sent);
        self.resync(gate, last, sent);
    }

    fn resync(&mut self, gate: &Gate, adopted: Link, sent: Moment) {
        // Everything from here on arrives behind the echo, so its sequence is where the chain goes on. Fills under way
        // were read before it and lose their tickets with the generation.
        if adopted.sequence < self.heard {
            gate.forget_numbers();
        } else {
            gate.forget();
        }
        self.heard = adopted.sequence;
        self.step = Step::In(adopted);
        gate.extend(sent + self.options.max_staleness);
    }

    /// Up to which number every message has been applied; `None` while some may be missing.
    pub fn applied(&self) -> Option<Version> {
        match &self.step {
            Step::In(last) => Some(last.sequence),
            Step::Out { .. } | Step::Replaying { .. } => None,
        }
    }

    /// Takes in that history is another one now: nothing that was applied proves anything. Trust is withdrawn; the next
    /// echo has L1 forgotten.
    pub fn handle_fork(&mut self, gate: &Gate) {
        self.handle_doubt(gate);
        self.step = Step::Out { since: None };
    }

    /// Takes in that messages may be missing. Trust is withdrawn; a beat is due at once.
    pub fn handle_doubt(&mut self, gate: &Gate) {
        gate.distrust();
        self.step = Step::Out { since: self.proved().cloned() };
        self.beats.clear();
        self.beat_due = Moment::default();
    }

    /// The subscription has just been (re)made: worth a beat now instead of at the next turn.
    pub fn handle_subscribed(&mut self) {
        self.beat_due = Moment::default();
    }

    /// The beat to send now, if one is due.
    pub fn poll_beat(&mut self, gate: &Gate, now: Moment) -> Option<BeatId> {
        if now < self.beat_due {
            return None;
        }
        let beat = self.next_beat;
        self.next_beat = BeatId::new(beat.number() + 1);
        if self.beats.len() == BEATS_REMEMBERED {
            self.beats.pop_front();
        }
        self.beats.push_back(SentBeat { id: beat, at: now, newest: gate.newest() });
        let in_step = matches!(self.step, Step::In(_));
        let pause = if in_step { self.options.beat_every() } else { self.options.retry_every() };
        self.beat_due = now + pause;
        Some(beat)
    }

    /// When a beat was sent whose echo would prove something.
    pub fn sent_at(&self, beat: BeatId) -> Option<Moment> {
        self.beats.iter().find(|sent| sent.id == beat).map(|sent| sent.at)
    }

    /// When to poll for a beat next.
    pub fn beat_due(&self) -> Moment {
        self.beat_due
    }

    /// Takes a beat out of those under way, and the older ones with it.
    fn take_beat(&mut self, beat: BeatId) -> Option<SentBeat> {
        let at = self.beats.iter().position(|sent| sent.id == beat)?;
        self.beats.drain(..=at).next_back()
    }
}
