//! Which products customers look at, in order.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use nearfar_testkit::accesses;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Where the accesses come from. Every process derives the same ones from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Accesses {
    /// Generated: the product of rank `r` is looked at in proportion to `1 / r^0.99`, as in YCSB.
    Zipf { products: u32, count: u64, seed: u64 },
    /// Recorded.
    Trace(PathBuf),
}

/// Longer workloads repeat themselves.
const LONGEST_GENERATED: usize = 2_000_000;
const ZIPF_EXPONENT: f64 = 0.99;

impl Accesses {
    pub(crate) fn load(&self) -> Result<Arc<[u32]>, Failure> {
        match self {
            Self::Zipf { products, count, seed } => {
                let count = usize::try_from(*count).unwrap_or(LONGEST_GENERATED).min(LONGEST_GENERATED);
                let ranks = accesses::zipf(*products, ZIPF_EXPONENT, count, *seed);
                Ok(ranks.into_iter().map(|rank| rank + 1).collect())
            }
            Self::Trace(file) => accesses::trace(file).map(Arc::from).map_err(Failure::settings),
        }
    }

    /// The products of a shop whose customers look at these.
    pub(crate) fn products(&self, accesses: &[u32]) -> BTreeSet<u32> {
        match self {
            Self::Zipf { products, .. } => (1..=*products).collect(),
            Self::Trace(_) => accesses.iter().copied().collect(),
        }
    }
}
