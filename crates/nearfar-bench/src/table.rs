use std::fmt;

use crate::grid::Grid;

/// Rows of figures, and grids of those that are not beside anything bare.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    grids: Vec<Grid>,
}

#[derive(Debug)]
struct Row {
    work: String,
    unit: &'static str,
    bare: f64,
    ours: f64,
    ratio: f64,
}

impl Table {
    /// Adds a row: pairs of a bare measurement and ours, taken in turn.
    pub(crate) fn add(&mut self, work: impl Into<String>, unit: &'static str, pairs: &[(f64, f64)]) {
        let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
        let row = Row {
            work: work.into(),
            unit,
            bare: of(|pair| pair.0),
            ours: of(|pair| pair.1),
            ratio: of(|pair| pair.1 / pair.0),
        };
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// Adds a row: what the second of each pair has more than the first, beside the first.
    pub(crate) fn add_difference(
        &mut self,
        work: impl Into<String>,
        unit: &'static str,
        pairs: &[(f64, f64)],
    ) {
        let more: Vec<_> = pairs.iter().map(|(first, second)| (*first, second - first)).collect();
        self.add(work, unit, &more);
    }

    pub(crate) fn add_grid(&mut self, grid: Grid) {
        self.grids.push(grid);
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, unit, bare, ours, ratio } = self;
        write!(f, "{work:<62} {bare:>10.1} {ours:>10.1} {unit:<8} {ratio:>6.2}")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rows.is_empty() {
            writeln!(f, "{:<62} {:>10} {:>10} {:<8} {:>6}", "work", "bare", "nearfar", "unit", "ratio")?;
        }
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        self.grids.iter().try_for_each(|grid| writeln!(f, "\n{grid}"))
    }
}
