//! Which keys are read how often.

/// How reads are spread over keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spread {
    /// All alike.
    Uniform,
    /// The n-th most popular one is read in proportion to 1 / n^s.
    Zipf(f64),
}

impl Spread {
    /// So many reads of so many keys. Neighbours in popularity are no neighbours in number.
    pub(crate) fn order(self, keys: u64, reads: usize) -> Vec<u64> {
        let Self::Zipf(exponent) = self else { return (0..reads).map(|_| fastrand::u64(..keys)).collect() };
        let mut names: Vec<u64> = (0..keys).collect();
        // All orders have the same favourites, as all threads and rounds of one service have.
        fastrand::Rng::with_seed(1).shuffle(&mut names);
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=keys)
            .map(|rank| {
                sum += weight(rank, exponent);
                sum
            })
            .collect();
        let draw = |_| {
            let at = fastrand::f64() * sum;
            sums.partition_point(|upto| *upto <= at).min(names.len() - 1)
        };
        (0..reads).map(draw).map(|rank| names[rank]).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
fn weight(rank: u64, exponent: f64) -> f64 {
    (rank as f64).powf(-exponent)
}
