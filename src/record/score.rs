//! Answers counted against labels, and what can be said from the counts.

use serde::{Deserialize, Serialize};

/// Standard normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Counts of correct predictions on a number of images, compared with those of the baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Number of images that were scored.
    pub total: u64,
    /// Number of correct predictions among them.
    pub correct: u64,
    /// Number of images that the baseline classifies correctly and this network does not.
    pub lost: u64,
    /// Number of images that this network classifies correctly and the baseline does not.
    pub gained: u64,
}

impl Score {
    /// Compares the predictions `answers` and `baseline` with the labels.
    #[must_use]
    pub fn count(answers: &[u32], baseline: &[u32], labels: &[u32]) -> Self {
        let mut score = Self::default();
        for ((answer, before), label) in answers.iter().zip(baseline).zip(labels) {
            score.total += 1;
            score.correct += u64::from(answer == label);
            score.lost += u64::from(before == label && answer != label);
            score.gained += u64::from(before != label && answer == label);
        }
        score
    }

    /// Adds the counts of two disjoint sets of images.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            correct: self.correct + other.correct,
            lost: self.lost + other.lost,
            gained: self.gained + other.gained,
        }
    }

    /// Returns the fraction of correct predictions; 0 without images.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        if self.total == 0 { 0.0 } else { real(self.correct) / real(self.total) }
    }

    /// Returns the 95 % interval of the accuracy (Wilson, "Probable inference", 1927).
    #[must_use]
    pub fn interval(&self) -> [f64; 2] {
        if self.total == 0 {
            return [0.0, 1.0];
        }
        let (n, share) = (real(self.total), self.accuracy());
        let center = share + Z * Z / (2.0 * n);
        let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        [((center - reach) / scale).max(0.0), ((center + reach) / scale).min(1.0)]
    }

    /// Returns the loss of accuracy against the baseline with its 95 % interval. Both networks saw
    /// the same images, so only the changed predictions contribute to the variance (paired
    /// differences).
    #[must_use]
    pub fn drop(&self) -> (f64, [f64; 2]) {
        if self.total == 0 {
            return (0.0, [-1.0, 1.0]);
        }
        let n = real(self.total);
        let (lost, gained) = (real(self.lost), real(self.gained));
        let drop = (lost - gained) / n;
        let variance = (lost + gained - (lost - gained) * (lost - gained) / n) / (n * n);
        let reach = Z * variance.max(0.0).sqrt();
        (drop, [drop - reach, drop + reach])
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of images are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_matches_a_published_example() {
        // 15 of 20: [0.531, 0.888], Newcombe 1998, table I's method 3.
        let [low, high] = Score { total: 20, correct: 15, lost: 0, gained: 0 }.interval();
        assert!((low - 0.5313).abs() < 5e-4 && (high - 0.8881).abs() < 5e-4, "{low} {high}");
    }

    #[test]
    fn equal_answers_leave_no_doubt_about_the_drop() {
        let score = Score::count(&[1, 2, 3], &[1, 2, 3], &[1, 2, 0]);
        assert_eq!((score.total, score.correct), (3, 2));
        assert_eq!(score.drop(), (0.0, [0.0, 0.0]));
    }

    #[test]
    fn lost_and_gained_are_told_apart() {
        let score = Score::count(&[1, 0, 0], &[1, 2, 3], &[1, 2, 0]);
        assert_eq!((score.lost, score.gained), (1, 1));
        assert!(score.drop().1[1] > 0.0);
    }
}
