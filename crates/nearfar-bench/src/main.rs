//! Figures of one run: nearfar beside bare moka, bare fred and bare redis-rs, in turn, on the same data.
//!
//! `cargo run --release -p nearfar-bench` measures everything, on servers of its own; `-- write log` only that. Each row
//! is the median of the rounds, and the ratio is the median of the ratios of neighbouring measurements: the machine may
//! be noisy, both sides share it. The figures go to `target/bench` too, as JSON and as a picture.
//!
//! What has nothing bare to stand beside is a grid: a row per case, each figure the median of the rounds.
//! `-- outage --seconds 60 --rounds 1` lets each of its phases last so long, and does them so often; `--trace FILE` replays
//! recorded accesses.

mod bare;
mod effort;
mod subjects;

use std::error::Error as StdError;
use std::path::PathBuf;

use nearfar_bench::Table;

use crate::effort::Effort;
use crate::subjects::Subject;

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let (effort, names) = Effort::parse(std::env::args().skip(1))?;
    let subjects = names.iter().map(|name| Subject::named(name)).collect::<Result<Vec<_>, _>>()?;
    let wanted = |subject: &Subject| subjects.is_empty() || subjects.contains(subject);
    let (directory, name) = (directory()?, if names.is_empty() { "all".into() } else { names.join("-") });
    let (mut table, mut files) = (Table::default(), Vec::new());
    for subject in Subject::all().filter(wanted) {
        Box::pin(subject.measure(&mut table, &effort)).await?;
        // Each time: what is measured is not lost with what comes behind it.
        files = table.write(&directory, &name)?;
    }
    print!("{table}");
    for file in files {
        println!("{}", file.display());
    }
    Ok(())
}

/// Beside the folder that this program was built into.
fn directory() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(2).unwrap_or(&program).join("bench"))
}
