//! What a person reads at the end.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use nearfar_testkit::{History, Read, Report, Write};

use crate::messages::{Figures, Outcome, Span};

/// What the nodes did, and how stale their reads were.
#[derive(Debug)]
pub(crate) struct Summary {
    figures: Vec<Figures>,
    /// Reads before the sweep.
    served: u64,
    took: Duration,
    unacknowledged: u64,
    /// Why the last unacknowledged update was one.
    refusal: Option<String>,
    history: Report,
    bound: Duration,
}

/// Violations that are shown one by one.
const SHOWN: usize = 10;

impl Summary {
    pub(crate) fn new(outcomes: Vec<Outcome>, took: Duration, bound: Duration) -> Self {
        let figures = outcomes.iter().map(|outcome| outcome.figures).collect();
        let served = outcomes.iter().map(|outcome| outcome.served).sum();
        let recordings = || outcomes.iter().map(|outcome| &outcome.recording);
        let unacknowledged = recordings().map(|recording| recording.unacknowledged).sum();
        let refusal = recordings().find_map(|recording| recording.refusal.clone());
        Self { figures, served, took, unacknowledged, refusal, history: judge(outcomes), bound }
    }

    pub(crate) fn bound_held(&self) -> bool {
        self.history.violations(self.bound).is_empty()
    }

    fn sum(&self, count: impl Fn(&Figures) -> u64) -> u64 {
        self.figures.iter().map(count).sum()
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "node",
            "L1 hits",
            "L2 hits",
            "loads",
            "joined",
            "invalidations\nsent",
            "\nreceived",
            "evictions",
            "propagation\np50",
            "\np99",
            "\nmax",
        ]);
        for (node, figures) in (1_u16..).zip(&self.figures) {
            let times = [figures.p50, figures.p99, figures.max].map(short);
            table.add_row(row(&node.to_string(), figures, times));
        }
        let total = self.total();
        // Quantiles of several nodes do not add up.
        table.add_row(row("all", &total, [String::new(), String::new(), short(total.max)]));
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn total(&self) -> Figures {
        Figures {
            l1_hits: self.sum(|figures| figures.l1_hits),
            l2_hits: self.sum(|figures| figures.l2_hits),
            loads: self.sum(|figures| figures.loads),
            joined: self.sum(|figures| figures.joined),
            sent: self.sum(|figures| figures.sent),
            received: self.sum(|figures| figures.received),
            evictions: self.sum(|figures| figures.evictions),
            max: self.figures.iter().map(|figures| figures.max).max().unwrap_or_default(),
            ..Figures::default()
        }
    }

    fn write_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = u128::from(self.served) * 1_000 / self.took.as_millis().max(1);
        let (l1, l2) = (self.sum(|figures| figures.l1_hits), self.sum(|figures| figures.l2_hits));
        writeln!(
            f,
            "{} reads in {}: {} reads/s on all nodes together",
            grouped(self.served),
            short(self.took),
            grouped(u64::try_from(per_second).unwrap_or(u64::MAX))
        )?;
        writeln!(
            f,
            "hit ratio {}: {} in L1, {} in L2",
            percent(l1 + l2, self.served),
            percent(l1, self.served),
            percent(l2, self.served)
        )?;
        writeln!(
            f,
            "the database was asked {} times for {} reads",
            grouped(self.sum(|figures| figures.queries)),
            grouped(self.served)
        )
    }

    fn write_trouble(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doubts = self.sum(|figures| figures.doubts);
        if doubts > 0 {
            writeln!(
                f,
                "messages may have been lost {} times, and L1 was checked or forgotten",
                grouped(doubts)
            )?;
        }
        if self.unacknowledged > 0 {
            writeln!(
                f,
                "{} price updates whose invalidation failed, so nothing is promised of them; the last: {}",
                grouped(self.unacknowledged),
                self.refusal.as_deref().unwrap_or("reason unknown")
            )?;
        }
        Ok(())
    }

    fn write_history(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worst = self
            .history
            .worst()
            .map_or_else(String::new, |worst| format!(", the worst by {}", short(worst.staleness)));
        writeln!(
            f,
            "history check: {} reads, {} acknowledged price updates; stale reads: {}{worst}",
            grouped(self.history.reads() as u64),
            grouped(self.history.writes() as u64),
            grouped(self.history.stale_reads() as u64),
        )?;
        writeln!(
            f,
            "(stale: it returned a price that had been overwritten, and the invalidation acknowledged, before it began)"
        )
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let violations = self.history.violations(self.bound);
        for stale in violations.iter().take(SHOWN) {
            writeln!(
                f,
                "VIOLATION: product {} was read at revision {}, {} after revision {} had been acknowledged",
                stale.read.key,
                stale.read.revision,
                short(stale.staleness),
                stale.missed.revision
            )?;
        }
        match violations.len() {
            0 => writeln!(f, "no read was staler than the bound of {}", short(self.bound)),
            count => writeln!(f, "{count} reads were staler than the bound of {}", short(self.bound)),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.table())?;
        self.write_work(f)?;
        self.write_trouble(f)?;
        writeln!(f)?;
        self.write_history(f)?;
        self.write_verdict(f)
    }
}

fn judge(outcomes: Vec<Outcome>) -> Report {
    let mut history = History::default();
    for recording in outcomes.into_iter().map(|outcome| outcome.recording) {
        for Span { product, revision, start, end } in recording.reads {
            history.read(Read { key: product.into(), revision: revision.into(), start, end });
        }
        for Span { product, revision, start, end } in recording.writes {
            history.write(Write { key: product.into(), revision: revision.into(), start, end });
        }
    }
    history.check()
}

fn row(name: &str, figures: &Figures, [p50, p99, max]: [String; 3]) -> Vec<String> {
    let counts = [
        figures.l1_hits,
        figures.l2_hits,
        figures.loads,
        figures.joined,
        figures.sent,
        figures.received,
        figures.evictions,
    ];
    let counts = counts.into_iter().map(grouped);
    [name.to_owned()].into_iter().chain(counts).chain([p50, p99, max]).collect()
}

fn short(duration: Duration) -> String {
    format!("{duration:.1?}")
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A part of a whole, to one decimal.
pub(crate) fn percent(part: impl Into<u128>, whole: impl Into<u128>) -> String {
    let whole = whole.into().max(1);
    let permille = (part.into() * 1_000 + whole / 2) / whole;
    format!("{}.{} %", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Recording;

    fn summary(reads: &[Span], bound: Duration) -> Summary {
        let write = Span { product: 17, revision: 4, start: 0, end: 1_000 };
        let recording = Recording { reads: reads.to_vec(), writes: vec![write], ..Recording::default() };
        let outcome = Outcome { figures: Figures::default(), served: reads.len() as u64, recording };
        Summary::new(vec![outcome], Duration::from_secs(1), bound)
    }

    #[test]
    fn a_read_beyond_the_bound_is_named_and_fails_the_run() {
        let read = Span { product: 17, revision: 3, start: 251_001, end: 251_002 };
        let summary = summary(&[read], Duration::from_millis(250));
        assert!(!summary.bound_held());
        let text = summary.to_string();
        assert!(text.contains("product 17 was read at revision 3, 250.0ms after revision 4"), "{text}");
    }

    #[test]
    fn a_read_within_the_bound_is_counted_and_passes() {
        let read = Span { product: 17, revision: 3, start: 251_000, end: 251_002 };
        let summary = summary(&[read], Duration::from_millis(250));
        assert!(summary.bound_held());
        assert!(summary.to_string().contains("stale reads: 1, the worst by 250.0ms"), "{summary}");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(percent(1_u64, 3_u64), "33.3 %");
        assert_eq!(percent(0_u64, 0_u64), "0.0 %");
    }
}
