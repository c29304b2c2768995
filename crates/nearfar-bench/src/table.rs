use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::chart::chart;
use crate::grid::Grid;

/// Rows of figures, each beside what it is measured against, and grids of those that stand beside nothing.
///
/// ```
/// use nearfar_bench::{Table, Target};
///
/// let mut table = Table::default();
/// // Pairs of what it is measured against, and what is measured.
/// table.add("a hit", "moka get", "ns", &[(100.0, 50.0), (110.0, 66.0)]).target(Target::AtMost(1.15));
/// assert!(table.to_string().contains("moka get"));
///
/// let dir = tempfile::tempdir().unwrap();
/// let files = table.write(dir.path(), "hits").unwrap();
/// assert!(files.iter().all(|file| file.exists()));
/// ```
#[derive(Debug, Default)]
pub struct Table {
    lines: Vec<Line>,
    grids: Vec<Grid>,
}

/// One row.
#[derive(Debug)]
pub struct Line {
    pub(crate) work: String,
    pub(crate) beside: String,
    unit: &'static str,
    bare: f64,
    measured: f64,
    /// Of neighbouring measurements.
    pub(crate) ratio: f64,
    /// The lowest and the highest of the ratios.
    pub(crate) range: (f64, f64),
    rounds: usize,
    pub(crate) target: Option<Target>,
    /// Then the ratio is none of two times.
    pub(crate) is_difference: bool,
}

/// What a ratio of times ought to be.
///
/// ```
/// use nearfar_bench::Target;
///
/// assert!(Target::AtMost(1.15).is_met_by(1.1));
/// assert!(!Target::Throughput(2.0).is_met_by(0.51), "twice the throughput is half the time");
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// The time, beside the other's.
    AtMost(f64),
    /// How much gets done in the same time, beside the other.
    Throughput(f64),
}

impl Target {
    /// The highest ratio of times that is good enough.
    pub const fn ratio(self) -> f64 {
        match self {
            Self::AtMost(ratio) => ratio,
            Self::Throughput(times) => 1.0 / times,
        }
    }

    /// Whether that ratio of times is good enough.
    pub fn is_met_by(self, ratio: f64) -> bool {
        ratio <= self.ratio()
    }
}

impl Table {
    /// Adds a row: pairs of a measurement of what it stands beside and one of what is measured, taken in turn.
    ///
    /// # Panics
    ///
    /// Without pairs.
    pub fn add(
        &mut self,
        work: impl Into<String>,
        beside: impl Into<String>,
        unit: &'static str,
        pairs: &[(f64, f64)],
    ) -> &mut Line {
        let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
        let ratios = || pairs.iter().map(|(bare, measured)| measured / bare);
        let line = Line {
            work: work.into(),
            beside: beside.into(),
            unit,
            bare: of(|pair| pair.0),
            measured: of(|pair| pair.1),
            ratio: median(ratios().collect()),
            range: (ratios().fold(f64::INFINITY, f64::min), ratios().fold(f64::NEG_INFINITY, f64::max)),
            rounds: pairs.len(),
            target: None,
            is_difference: false,
        };
        eprintln!("{line}");
        self.lines.push(line);
        self.lines.last_mut().expect("it was just added")
    }

    /// Adds a row: what the second of each pair has more than the first, beside the first.
    ///
    /// ```
    /// let mut table = nearfar_bench::Table::default();
    /// table.add_difference("two more", "one", "ns", &[(1.0, 3.0)]);
    /// assert!(table.to_string().contains("2.0 ns"));
    /// ```
    pub fn add_difference(
        &mut self,
        work: impl Into<String>,
        beside: impl Into<String>,
        unit: &'static str,
        pairs: &[(f64, f64)],
    ) {
        let more: Vec<_> = pairs.iter().map(|(first, second)| (*first, second - first)).collect();
        self.add(work, beside, unit, &more).is_difference = true;
    }

    /// Adds a grid.
    ///
    /// ```
    /// use nearfar_bench::{Grid, Table};
    ///
    /// let mut grid = Grid::new("sizes", &["bytes"]);
    /// grid.add("small", vec![1.0]);
    /// let mut table = Table::default();
    /// table.add_grid(grid);
    /// assert!(table.to_string().contains("small"));
    /// ```
    pub fn add_grid(&mut self, grid: Grid) {
        self.grids.push(grid);
    }

    /// Writes all figures as `<name>.json` and the ratios as `<name>.svg` into a directory, which is made if it is not
    /// there, and tells where.
    pub fn write(&self, dir: &Path, name: &str) -> std::io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(dir)?;
        let file = |ending: &str| dir.join(format!("{name}.{ending}"));
        let mut files = vec![file("json")];
        std::fs::write(&files[0], format!("{:#}\n", self.to_json()))?;
        if !self.lines.is_empty() {
            files.push(file("svg"));
            std::fs::write(&files[1], chart(&self.lines))?;
        }
        Ok(files)
    }

    fn to_json(&self) -> Value {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let rows: Vec<Value> = self.lines.iter().map(Line::to_json).collect();
        let grids: Vec<Value> = self.grids.iter().map(Grid::to_json).collect();
        json!({ "cores": cores, "rows": rows, "grids": grids })
    }
}

impl Line {
    /// Says what the ratio ought to be.
    ///
    /// ```
    /// use nearfar_bench::{Table, Target};
    ///
    /// let mut table = Table::default();
    /// table.add("a hit", "moka get", "ns", &[(100.0, 120.0)]).target(Target::AtMost(1.15));
    /// assert!(table.to_string().contains("1.15"));
    /// ```
    pub fn target(&mut self, target: Target) {
        self.target = Some(target);
    }

    fn to_json(&self) -> Value {
        json!({
            "work": self.work,
            "beside": self.beside,
            "unit": self.unit,
            "bare": self.bare,
            "measured": self.measured,
            "ratio": self.ratio,
            "lowest_ratio": self.range.0,
            "highest_ratio": self.range.1,
            "rounds": self.rounds,
            "target_ratio": self.target.map(Target::ratio),
        })
    }
}

/// The median, or the upper one of two.
///
/// ```
/// assert_eq!(nearfar_bench::median(vec![3.0, 1.0, 2.0]), 2.0);
/// ```
///
/// # Panics
///
/// If there is nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, beside, unit, bare, measured, ratio, .. } = self;
        write!(f, "{work:<54} {beside:<28} {bare:>10.1} {measured:>10.1} {unit:<7} {ratio:>6.2}")?;
        match self.target {
            Some(target) if target.is_met_by(*ratio) => write!(f, " {:>7.2}  met", target.ratio()),
            Some(target) => write!(f, " {:>7.2}  missed", target.ratio()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.lines.is_empty() {
            let (work, beside, ratio) = ("work", "beside", "ratio");
            let figures = format!("{:>10} {:>10} {:<7}", "bare", "measured", "unit");
            writeln!(f, "{work:<54} {beside:<28} {figures} {ratio:>6} {:>7}", "at most")?;
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        self.grids.iter().try_for_each(|grid| writeln!(f, "\n{grid}"))
    }
}
