//! Which products customers look at, in order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
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
const LONGEST_GENERATED: u64 = 2_000_000;
const ZIPF_EXPONENT: f64 = 0.99;

impl Accesses {
    pub(crate) fn load(&self) -> Result<Arc<[u32]>, Failure> {
        match self {
            Self::Zipf { products, count, seed } => Ok(zipf(*products, *count, *seed)),
            Self::Trace(file) => read_trace(file),
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

fn zipf(products: u32, count: u64, seed: u64) -> Arc<[u32]> {
    let mut rng = Rng::with_seed(seed);
    let cumulated: Vec<f64> = (1..=products)
        .scan(0.0, |sum, rank| {
            *sum += f64::from(rank).powf(-ZIPF_EXPONENT);
            Some(*sum)
        })
        .collect();
    let total = cumulated.last().copied().unwrap_or_default();
    let mut draw = || {
        let point = rng.f64() * total;
        let rank = cumulated.partition_point(|sum| *sum <= point);
        u32::try_from(rank).unwrap_or(products).min(products - 1) + 1
    };
    (0..count.min(LONGEST_GENERATED)).map(|_| draw()).collect()
}

fn read_trace(file: &Path) -> Result<Arc<[u32]>, Failure> {
    let from_bytes = match file.extension().and_then(|extension| extension.to_str()) {
        Some("u32be") => u32::from_be_bytes,
        Some("u32le") => u32::from_le_bytes,
        _ => return Err(unusable(file, "its name ends neither in .u32be nor in .u32le")),
    };
    let bytes = std::fs::read(file).map_err(|error| unusable(file, error))?;
    let (accesses, rest) = bytes.as_chunks();
    if accesses.is_empty() || !rest.is_empty() {
        return Err(unusable(file, format!("{} bytes are not accesses of 4 bytes each", bytes.len())));
    }
    Ok(accesses.iter().map(|access| from_bytes(*access)).collect())
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::settings(format!("the trace {} cannot be used: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_a_workload() {
        assert_eq!(zipf(100, 1_000, 7), zipf(100, 1_000, 7));
        assert_ne!(zipf(100, 1_000, 7), zipf(100, 1_000, 8));
    }

    #[test]
    fn the_first_product_is_looked_at_about_twice_as_often_as_the_second() {
        let accesses = zipf(5_000, 100_000, 1);
        let of = |product| accesses.iter().filter(|access| **access == product).count();
        assert!((of(2) * 17 / 10..of(2) * 23 / 10).contains(&of(1)), "{} and {}", of(1), of(2));
        assert!(accesses.iter().all(|product| (1..=5_000).contains(product)));
    }

    #[test]
    fn a_trace_is_read_in_the_order_of_bytes_that_its_name_tells() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name, bytes: &[u8]| {
            let file = dir.path().join(name);
            std::fs::write(&file, bytes).unwrap();
            read_trace(&file)
        };
        assert_eq!(*read("a.u32be", &[0, 0, 1, 2]).unwrap(), [258]);
        assert_eq!(*read("a.u32le", &[2, 1, 0, 0]).unwrap(), [258]);
        for (name, bytes) in [("a.u32le.xz", [0; 4].as_slice()), ("b.u32be", &[0; 5]), ("c.u32be", &[])] {
            assert!(matches!(read(name, bytes), Err(Failure::Settings(_))), "{name}");
        }
    }
}
