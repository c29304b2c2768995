//! What a person sees while the run lasts, on standard error.

use std::io::{IsTerminal, stderr};

use crate::clock;
use crate::messages::{Figures, Until};
use crate::summary::{grouped, percent};

#[derive(Debug)]
pub(crate) struct Progress {
    /// A terminal gets one line that changes, anything else a line a second.
    terminal: bool,
    start: u64,
    until: Until,
    figures: Vec<Figures>,
}

impl Progress {
    pub(crate) fn new(nodes: usize, until: Until) -> Self {
        let figures = vec![Figures::default(); nodes];
        Self { terminal: stderr().is_terminal(), start: clock::micros(), until, figures }
    }

    pub(crate) fn update(&mut self, node: u16, figures: Figures) {
        self.figures[usize::from(node)] = figures;
    }

    pub(crate) fn show(&self) {
        let line = self.line();
        if self.terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    /// Leaves the last line as it is.
    pub(crate) fn end(&self) {
        self.show();
        if self.terminal {
            eprintln!();
        }
    }

    fn line(&self) -> String {
        let sum = |count: fn(&Figures) -> u64| self.figures.iter().map(count).sum::<u64>();
        let reads = sum(Figures::reads);
        let passed = clock::since(self.start);
        let done = match self.until {
            Until::Reads(all) => percent(reads, all),
            Until::Passed(all) => percent(passed.min(all).as_millis(), all.as_millis()),
        };
        format!(
            "{:3} s {done:>7}: {} reads ({} from L1, {} from L2), {} price updates",
            passed.as_secs(),
            grouped(reads),
            percent(sum(|figures| figures.l1_hits), reads),
            percent(sum(|figures| figures.l2_hits), reads),
            grouped(sum(|figures| figures.sent)),
        )
    }
}

/// Says what is done next.
pub(crate) fn step(what: &str) {
    eprintln!("{what}");
}
