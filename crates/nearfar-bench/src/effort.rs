//! How long to measure, and what.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Of each phase.
    pub(crate) phase: Duration,
    pub(crate) rounds: usize,
    /// Recorded accesses.
    pub(crate) traces: Vec<PathBuf>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { phase: Duration::from_secs(5), rounds: 3, traces: Vec::new() }
    }
}

impl Effort {
    /// Takes its options out of a command line, and leaves the rest.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<(Self, Vec<String>), String> {
        let (mut effort, mut rest, mut args) = (Self::default(), Vec::new(), args);
        while let Some(arg) = args.next() {
            if arg == "--trace" {
                effort.traces.push(args.next().ok_or("--trace takes a file")?.into());
                continue;
            }
            let mut number = || {
                let number = args.next().and_then(|number| number.parse::<u32>().ok());
                number.filter(|number| *number > 0).ok_or_else(|| format!("{arg} takes a number from 1"))
            };
            match arg.as_str() {
                "--seconds" => effort.phase = Duration::from_secs(number()?.into()),
                "--rounds" => effort.rounds = number()? as usize,
                _ => rest.push(arg),
            }
        }
        Ok((effort, rest))
    }
}
