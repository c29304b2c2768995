//! What all benchmarks share: the data, the clock around tasks, and tables of ratios.
//!
//! Two measurements that are to be compared are taken in turn, over several rounds, and what counts is the median of the
//! ratios of neighbours: the machine may be noisy, both sides share it.

mod chart;
mod grid;
mod row;
mod table;
mod tasks;

pub use grid::Grid;
pub use row::Row;
pub use table::{Table, Target, median};
pub use tasks::{micros, time};
