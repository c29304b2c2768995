//! How one server sees its cluster.

use std::ops::RangeInclusive;

/// What a server says in `CLUSTER NODES` and `CLUSTER INFO`.
#[derive(Debug)]
pub(super) struct View {
    in_order: bool,
    lines: Vec<Line>,
}

/// A member of the cluster, as another one sees it.
#[derive(Debug)]
pub(super) struct Line {
    id: String,
    flags: Vec<String>,
    /// The id of the primary, if this one is a replica.
    pub(super) primary: Option<String>,
    /// Of two that claim a slot, the one with the larger epoch is right.
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

impl View {
    pub(super) fn parse(nodes: &str, info: &str) -> Self {
        let lines = nodes.lines().map(|line| Line::parse(line).expect("a line of CLUSTER NODES"));
        Self { in_order: info.contains("cluster_state:ok"), lines: lines.collect() }
    }

    /// What the server says of itself.
    pub(super) fn myself(&self) -> &Line {
        self.lines.iter().find(|line| line.is("myself")).expect("a server knows itself")
    }

    /// Whether all of these have been met.
    pub(super) fn knows(&self, ids: &[&str]) -> bool {
        ids.iter().all(|id| self.line(id).is_some_and(|line| !line.is("handshake")))
    }

    /// Whether the cluster works, with these alone.
    pub(super) fn is_whole(&self, awake: &[&str]) -> bool {
        let suspected = |line: &Line| line.is("fail") || line.is("fail?");
        let sound = |id: &&str| self.line(id).is_some_and(|line| !suspected(line));
        let owners_are_awake =
            self.lines.iter().all(|line| line.slots.is_empty() || awake.contains(&line.id.as_str()));
        self.in_order && self.knows(awake) && awake.iter().all(sound) && owners_are_awake
    }

    fn line(&self, id: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.id == id)
    }
}

/// Whether all see the same roles and the same owners of slots among these.
pub(super) fn agree(views: &[View], awake: &[&str]) -> bool {
    let seen = |view: &View, id: &str| {
        view.line(id).map(|line| (line.primary.clone(), line.epoch, line.slots.clone()))
    };
    awake.iter().all(|id| views.iter().all(|view| seen(view, id) == seen(&views[0], id)))
}

impl Line {
    /// `ID ADDRESS FLAGS PRIMARY PING PONG EPOCH LINK SLOTS...`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let id = words.next()?.to_owned();
        let flags = words.nth(1)?.split(',').map(str::to_owned).collect();
        let primary = words.next().filter(|&id| id != "-").map(str::to_owned);
        let epoch = words.nth(2)?.parse().ok()?;
        let slots = words.skip(1).filter(|word| !is_open(word)).map(range).collect::<Option<_>>()?;
        Some(Self { id, flags, primary, epoch, slots })
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own == flag)
    }
}

/// Whether this tells of a slot that moves, such as `[93->-ID]`, in addition to its owner.
fn is_open(word: &str) -> bool {
    word.starts_with('[')
}

/// `0-5460` or `93`.
fn range(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// Who owns which slots, put together from what the servers say.
#[derive(Debug)]
pub(super) struct Map {
    /// Slots, epoch, owner.
    claims: Vec<(RangeInclusive<u16>, u64, String)>,
}

impl Map {
    pub(super) fn of(views: &[View]) -> Self {
        let lines = views.iter().flat_map(|view| &view.lines);
        let claims = lines
            .flat_map(|line| line.slots.iter().map(|slots| (slots.clone(), line.epoch, line.id.clone())));
        Self { claims: claims.collect() }
    }

    pub(super) fn owner(&self, slot: u16) -> &str {
        let claims = self.claims.iter().filter(|(slots, ..)| slots.contains(&slot));
        let (.., owner) = claims
            .max_by_key(|(_, epoch, _)| epoch)
            .expect("every slot below 16384 has been given to a server");
        owner
    }

    /// All owners, each once, in the order of their first slots.
    pub(super) fn owners(&self) -> impl Iterator<Item = &str> {
        let mut owners = Vec::new();
        // An owner's first slot begins one of its ranges.
        let mut firsts: Vec<_> = self.claims.iter().map(|(slots, ..)| *slots.start()).collect();
        firsts.sort_unstable();
        for owner in firsts.into_iter().map(|slot| self.owner(slot)) {
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners.into_iter()
    }
}
