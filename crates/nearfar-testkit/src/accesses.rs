//! Which keys are asked for, in order.

use std::fmt;
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Keys in the order in which they are asked for, of which each is a number below `keys`.
///
/// ```
/// use nearfar_testkit::accesses;
///
/// let order = accesses::zipf(1_000, 0.99, 10_000, 7);
/// assert_eq!(order.len(), 10_000);
/// assert_eq!(order, accesses::zipf(1_000, 0.99, 10_000, 7), "a seed repeats them");
/// ```
///
/// The key of rank `r`, from 1 on, which is `r - 1`, is asked for in proportion to `1 / r^exponent`. YCSB's exponent is
/// 0.99.
pub fn zipf(keys: u32, exponent: f64, count: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::with_seed(seed);
    let cumulated: Vec<f64> = (1..=keys)
        .scan(0.0, |sum, rank| {
            *sum += f64::from(rank).powf(-exponent);
            Some(*sum)
        })
        .collect();
    let total = cumulated.last().copied().unwrap_or_default();
    let mut draw = || {
        let point = rng.f64() * total;
        let rank = cumulated.partition_point(|sum| *sum <= point);
        u32::try_from(rank).unwrap_or(keys).min(keys.saturating_sub(1))
    };
    (0..count).map(|_| draw()).collect()
}

/// The same when all keys are asked for alike.
///
/// ```
/// use nearfar_testkit::accesses;
///
/// assert!(accesses::uniform(10, 1_000, 7).iter().all(|key| *key < 10));
/// ```
pub fn uniform(keys: u32, count: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|_| rng.u32(..keys)).collect()
}

/// A recorded trace: one key of 32 bits for each access, without a header, big-endian in a file that ends in `.u32be`,
/// little-endian in one that ends in `.u32le`.
///
/// ```
/// use nearfar_testkit::accesses;
///
/// let dir = tempfile::tempdir().unwrap();
/// let file = dir.path().join("a.u32be");
/// std::fs::write(&file, [0, 0, 1, 2]).unwrap();
/// assert_eq!(accesses::trace(&file).unwrap(), [258]);
/// ```
pub fn trace(file: &Path) -> Result<Vec<u32>, TraceError> {
    let unusable = |why: String| TraceError { file: file.to_owned(), why };
    let from_bytes = match file.extension().and_then(|extension| extension.to_str()) {
        Some("u32be") => u32::from_be_bytes,
        Some("u32le") => u32::from_le_bytes,
        _ => return Err(unusable("its name ends neither in .u32be nor in .u32le".into())),
    };
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let (accesses, rest) = bytes.as_chunks();
    if accesses.is_empty() || !rest.is_empty() {
        return Err(unusable(format!("{} bytes are not accesses of 4 bytes each", bytes.len())));
    }
    Ok(accesses.iter().map(|access| from_bytes(*access)).collect())
}

/// Why a trace cannot be used.
///
/// ```
/// use std::path::Path;
///
/// use nearfar_testkit::accesses;
///
/// let error = accesses::trace(Path::new("accesses.csv")).unwrap_err();
/// assert!(error.to_string().contains("neither in .u32be nor in .u32le"));
/// ```
#[derive(Debug)]
pub struct TraceError {
    file: PathBuf,
    why: String,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the trace {} cannot be used: {}", self.file.display(), self.why)
    }
}

impl std::error::Error for TraceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_a_workload() {
        assert_eq!(zipf(100, 0.99, 1_000, 7), zipf(100, 0.99, 1_000, 7));
        assert_ne!(zipf(100, 0.99, 1_000, 7), zipf(100, 0.99, 1_000, 8));
        assert_eq!(uniform(100, 1_000, 7), uniform(100, 1_000, 7));
        assert_ne!(uniform(100, 1_000, 7), uniform(100, 1_000, 8));
    }

    #[test]
    fn the_first_key_is_asked_for_about_twice_as_often_as_the_second() {
        let accesses = zipf(5_000, 0.99, 100_000, 1);
        let of = |key| accesses.iter().filter(|access| **access == key).count();
        assert!((of(1) * 17 / 10..of(1) * 23 / 10).contains(&of(0)), "{} and {}", of(0), of(1));
        assert!(accesses.iter().all(|key| *key < 5_000));
    }

    #[test]
    fn a_trace_is_read_in_the_order_of_bytes_that_its_name_tells() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name, bytes: &[u8]| {
            let file = dir.path().join(name);
            std::fs::write(&file, bytes).unwrap();
            trace(&file)
        };
        assert_eq!(read("a.u32be", &[0, 0, 1, 2]).unwrap(), [258]);
        assert_eq!(read("a.u32le", &[2, 1, 0, 0]).unwrap(), [258]);
        for (name, bytes) in [("a.u32le.xz", [0; 4].as_slice()), ("b.u32be", &[0; 5]), ("c.u32be", &[])] {
            let error = read(name, bytes).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
