use std::io;
use std::path::PathBuf;

use nearfar_bench::{Grid, Table};
use nearfar_testkit::RedisServer;

use crate::works::{l1, l2, load, stampede, write};
use crate::{Loader, Peer, Work};

/// A run: what was asked for, and the figures so far.
#[derive(Debug)]
pub struct Run {
    works: Vec<Work>,
    peers: Vec<String>,
    table: Table,
    stampedes: Grid,
}

impl Run {
    /// One of the works and the peers that are named, in any order, or of all if none is.
    pub fn new(names: impl Iterator<Item = String>, peers: &[&str]) -> Result<Self, String> {
        let mut run = Self {
            works: Vec::new(),
            peers: Vec::new(),
            table: Table::default(),
            stampedes: Grid::new("1,000 callers of a cold key", stampede::COLUMNS),
        };
        for name in names {
            match Work::named(&name) {
                Some(work) => run.works.push(work),
                None if peers.contains(&name.as_str()) => run.peers.push(name),
                None => {
                    let works = Work::ALL.map(|(known, _)| known).join(", ");
                    return Err(format!("no {name:?}: there are {works}; {}", peers.join(", ")));
                }
            }
        }
        Ok(run)
    }

    /// Does a work with a peer that does not load, if both are wanted.
    pub async fn measure<P: Peer>(&mut self, work: Work) {
        if !self.wants::<P>(work) {
            return;
        }
        let server = RedisServer::start().await;
        match work {
            Work::L1 => l1::measure::<P>(&mut self.table, &server).await,
            Work::L2 => l2::measure::<P>(&mut self.table, &server).await,
            Work::Write => write::measure::<P>(&mut self.table, &server).await,
            Work::Load | Work::Stampede => {}
        }
    }

    /// Does a work with a peer, if both are wanted.
    pub async fn measure_loader<P: Loader>(&mut self, work: Work) {
        if !self.wants::<P>(work) {
            return;
        }
        match work {
            Work::L1 | Work::L2 | Work::Write => self.measure::<P>(work).await,
            Work::Load => load::measure::<P>(&mut self.table, &RedisServer::start().await).await,
            Work::Stampede => stampede::measure::<P>(&mut self.stampedes, &RedisServer::start().await).await,
        }
    }

    fn wants<P: Peer>(&self, work: Work) -> bool {
        let peer = self.peers.is_empty() || self.peers.iter().any(|name| name == P::NAME);
        peer && (self.works.is_empty() || self.works.contains(&work))
    }

    /// Prints the figures, and writes them into the folder `bench` beside the one that this program was built into.
    pub fn finish(mut self, name: &str) -> io::Result<()> {
        self.table.add_grid(self.stampedes);
        print!("{}", self.table);
        for file in self.table.write(&directory()?, name)? {
            println!("{}", file.display());
        }
        Ok(())
    }
}

fn directory() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(2).unwrap_or(&program).join("bench"))
}
