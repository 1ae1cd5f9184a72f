//! Timing: warm-up, sample collection, and confidence intervals for the median.
//!
//! Latencies on shared machines have long tails and drift, so this module assumes no distribution:
//! the confidence interval of the median uses order statistics alone. Interleaving candidates and
//! deciding when to stop comparing them is up to the callers.

use std::time::Instant;

use crate::error::KernelError;

/// Durations and counts of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Seconds of uncounted runs before the measurement; at least one run is made.
    pub warm_up: f64,
    /// Seconds of counted runs, unless `most_samples` are reached earlier.
    pub seconds: f64,
    /// Minimum number of samples, collected even beyond `seconds`.
    pub least_samples: usize,
    /// Maximum number of samples, at which the measurement ends.
    pub most_samples: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { warm_up: 0.05, seconds: 0.5, least_samples: 11, most_samples: 10_000 }
    }
}

/// Runs `work` repeatedly and returns the seconds of each counted run, in order.
///
/// # Errors
/// Returns the first error of `work`.
pub fn sample(
    sampling: &Sampling,
    mut work: impl FnMut() -> Result<(), KernelError>,
) -> Result<Vec<f64>, KernelError> {
    let start = Instant::now();
    loop {
        work()?;
        if start.elapsed().as_secs_f64() >= sampling.warm_up {
            break;
        }
    }
    let mut samples = Vec::with_capacity(sampling.most_samples.min(1 << 16));
    let begin = Instant::now();
    let mut before = begin;
    while samples.len() < sampling.most_samples {
        work()?;
        let now = Instant::now();
        samples.push((now - before).as_secs_f64());
        before = now;
        if samples.len() >= sampling.least_samples
            && (now - begin).as_secs_f64() >= sampling.seconds
        {
            break;
        }
    }
    Ok(samples)
}

/// A sample median with a confidence interval for the true median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The middle sample, or the mean of the two middle samples.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Probability that the true median is in the interval, for independent samples of any one
    /// distribution. It is at least the requested confidence, unless there are too few samples.
    pub coverage: f64,
}

impl Median {
    /// Computes the median of `samples` and the narrowest symmetric interval of order statistics
    /// with at least the given `confidence`. Returns `None` without samples.
    ///
    /// The number of samples below the true median is binomial for any distribution (David and
    /// Nagaraja, "Order Statistics", 2003, section 7.1). With fewer than 6 samples no interval
    /// covers 95 %, and the interval then spans all samples.
    #[must_use]
    pub fn of(samples: &[f64], confidence: f64) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let middle = n.checked_sub(1)? / 2;
        let median =
            if n % 2 == 1 { sorted[middle] } else { (sorted[middle] + sorted[n / 2]) / 2.0 };
        let (skip, coverage) = skipped(n, confidence);
        Some(Self { median, low: sorted[skip], high: sorted[n - 1 - skip], coverage })
    }

    /// Computes the median of `samples` with an interval of 95 % confidence; see [`Median::of`].
    #[must_use]
    pub fn of_95(samples: &[f64]) -> Option<Self> {
        Self::of(samples, 0.95)
    }

    /// Returns half the width of the interval relative to the median, a measure of precision.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.median
    }
}

/// Returns how many of `n` sorted samples can be dropped at either end, and the coverage of the
/// rest.
fn skipped(n: usize, confidence: f64) -> (usize, f64) {
    // P(Bin(n, 1/2) <= k), summed term by term in logarithms: 2^-n underflows for n above 1,000.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    let mut result = (0, 1.0 - 2.0 * tail);
    for skip in 1..n.div_ceil(2) {
        // `tail` is the probability that fewer than `skip` samples lie below the median. Dropping
        // `skip` samples at each end therefore misses with twice the probability of at most `skip`.
        log_term += (((n - skip + 1) as f64) / skip as f64).ln();
        tail += log_term.exp();
        if 1.0 - 2.0 * tail < confidence {
            break;
        }
        result = (skip, 1.0 - 2.0 * tail);
    }
    result
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn tabulated_intervals_are_found() {
        // Ranks (counted from 1) of the 95 % interval of the median, from the usual tables.
        for (n, rank) in [(6, 1), (9, 2), (12, 3), (20, 6), (50, 18), (100, 40)] {
            assert_eq!(skipped(n, 0.95).0 + 1, rank, "{n} samples");
        }
        assert!((skipped(6, 0.95).1 - 0.96875).abs() < 1e-12);
        assert!(skipped(3, 0.95).1 < 0.95);
        assert!(skipped(100_000, 0.95).1 >= 0.95);
    }

    #[test]
    fn medians_of_few_and_many() {
        assert_eq!(Median::of_95(&[]), None);
        assert_eq!(Median::of_95(&[3.0]).map(|m| (m.median, m.low, m.high)), Some((3.0, 3.0, 3.0)));
        let median = Median::of_95(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((median.median, median.low, median.high), (2.5, 1.0, 4.0));
    }

    #[test]
    fn intervals_cover_the_median_as_often_as_they_say() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let trials = 2_000;
        let covered = (0..trials)
            .filter(|_| {
                // A distribution with a long tail: the median of u^-2 is 4.
                let samples: Vec<f64> = (0..25).map(|_| rng.random::<f64>().powi(-2)).collect();
                Median::of_95(&samples).is_some_and(|m| m.low <= 4.0 && 4.0 <= m.high)
            })
            .count();
        assert!((0.94..0.985).contains(&(covered as f64 / f64::from(trials))), "{covered}");
    }

    #[test]
    fn samples_are_counted_and_errors_returned() {
        let quick = Sampling { warm_up: 0.0, seconds: 0.0, least_samples: 4, most_samples: 9 };
        let mut runs = 0;
        let samples = sample(&quick, || {
            runs += 1;
            Ok(())
        });
        assert_eq!((samples.unwrap().len(), runs), (4, 5));
        assert!(sample(&quick, || Err(KernelError::System("no".into()))).is_err());
    }
}
