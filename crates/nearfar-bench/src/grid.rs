use std::fmt;

use serde_json::{Value, json};

use crate::table::median;

/// Several figures of each of several cases: the medians of its rounds.
///
/// ```
/// let mut grid = nearfar_bench::Grid::new("case", &["loads", "max ms"]);
/// for longest in [3.0, 1.0, 2.0] {
///     grid.add("one load per node", vec![4.0, longest]);
/// }
/// assert!(grid.to_string().ends_with("4.0         2.0\n"));
/// ```
#[derive(Debug)]
pub struct Grid {
    title: &'static str,
    columns: &'static [&'static str],
    cases: Vec<Case>,
}

#[derive(Debug)]
struct Case {
    name: String,
    rounds: Vec<Vec<f64>>,
}

impl Grid {
    /// One without cases.
    pub fn new(title: &'static str, columns: &'static [&'static str]) -> Self {
        Self { title, columns, cases: Vec::new() }
    }

    /// Adds a round of a case.
    ///
    /// # Panics
    ///
    /// If there is not a figure for each column.
    pub fn add(&mut self, name: impl Into<String>, figures: Vec<f64>) {
        let name = name.into();
        assert_eq!(figures.len(), self.columns.len(), "a figure for each column");
        eprintln!("{}", line(&name, figures.iter().map(|figure| format!("{figure:.1}"))));
        match self.cases.iter_mut().find(|case| case.name == name) {
            Some(case) => case.rounds.push(figures),
            None => self.cases.push(Case { name, rounds: vec![figures] }),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let case = |case: &Case| json!({ "case": case.name, "medians": case.medians(), "rounds": case.rounds.len() });
        let cases: Vec<Value> = self.cases.iter().map(case).collect();
        json!({ "title": self.title, "columns": self.columns, "cases": cases })
    }
}

impl Case {
    /// Of each column.
    fn medians(&self) -> Vec<f64> {
        let of = |column: usize| median(self.rounds.iter().map(|round| round[column]).collect());
        (0..self.rounds[0].len()).map(of).collect()
    }
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    cells.fold(format!("{name:<36}"), |line, cell| format!("{line} {cell:>11}"))
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", line(self.title, self.columns.iter().map(ToString::to_string)))?;
        self.cases.iter().try_for_each(|case| {
            let figures = case.medians().into_iter().map(|figure| format!("{figure:.1}"));
            writeln!(f, "{}", line(&case.name, figures))
        })
    }
}
