//! Predictions of the additive model: sums over layers, corrected by the measurements of similar
//! choices.

use paretune_record::metric::{Metric, Metrics};
use paretune_record::survey::Survey;
use paretune_spaces::Point;

use super::choice::{Choice, Parts, real};

/// A measured trial with its prediction by the additive model.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) point: Point,
    pub(super) choice: Choice,
    pub(super) parts: Parts,
    pub(super) accuracy: f64,
    pub(super) drop: f64,
    /// Logarithms of measured by predicted latency and size, and of measured memory by predicted
    /// size.
    pub(super) ratios: [f64; 3],
}

/// Losses and drops below these values are noise.
pub(super) const LEAST_LOSS: f64 = 1e-4;
pub(super) const LEAST_DROP: f64 = 1e-3;
/// Exponent of the power law by which the drop in accuracy grows with the loss.
pub(super) const DROP_GROWTH: f64 = 0.8;

impl Verified {
    pub(super) fn new(point: Point, choice: Choice, parts: Parts, seen: &Metrics) -> Self {
        let value = |metric: Metric| seen.get(metric).unwrap_or_default();
        let ratio = |measured: f64, summed: f64| (measured / summed.max(f64::MIN_POSITIVE)).ln();
        let ratios = [
            ratio(value(Metric::Latency), parts.seconds),
            ratio(value(Metric::Size), parts.bytes),
            ratio(value(Metric::Memory), parts.bytes),
        ];
        let [accuracy, drop] = [Metric::Accuracy, Metric::AccuracyDrop].map(value);
        Self { point, choice, parts, accuracy, drop, ratios }
    }
}

/// The additive model with its corrections from measured trials.
pub(super) struct Model<'m> {
    pub(super) survey: &'m Survey,
    pub(super) verified: &'m [Verified],
    /// Accuracy of the unmodified network (the baseline).
    pub(super) accuracy: f64,
}

impl Model<'_> {
    /// Predicts the metrics of a choice.
    pub(super) fn predict(&self, choice: &Choice) -> Metrics {
        let parts = choice.parts(self.survey);
        let loss = parts.loss.max(LEAST_LOSS).ln();
        let mut sums = [0.0; 3];
        let mut total = 0.0;
        let (mut drop, mut drop_total) = (0.0, 0.0);
        for verified in self.verified {
            let weight = (-distance(choice, &verified.choice) / 0.15).exp() + 1e-4;
            total += weight;
            for (sum, ratio) in sums.iter_mut().zip(&verified.ratios) {
                *sum += weight * ratio;
            }
            let seen = verified.parts.loss.max(LEAST_LOSS).ln();
            let weight = weight.sqrt() * (-(loss - seen).abs()).exp();
            drop += weight * (verified.drop.max(LEAST_DROP).ln() + DROP_GROWTH * (loss - seen));
            drop_total += weight;
        }
        let [seconds, bytes, memory] = sums.map(|sum| (sum / total.max(f64::MIN_POSITIVE)).exp());
        let drop = (drop / drop_total.max(f64::MIN_POSITIVE)).exp().min(1.0);
        Metrics::from([
            (Metric::Accuracy, (self.accuracy - drop).max(0.0)),
            (Metric::AccuracyDrop, drop),
            (Metric::Latency, parts.seconds * seconds),
            (Metric::Size, parts.bytes * bytes),
            (Metric::Memory, parts.bytes * memory),
        ])
    }
}

/// Returns the distance between two choices: 0 for equal ones.
pub(super) fn distance(left: &Choice, right: &Choice) -> f64 {
    let layers = real(left.layers.len().max(1));
    let groups = real(left.shares.len().max(1));
    let mut unlike = if left.threads == right.threads { 0.0 } else { 1.0 };
    for (left, right) in left.layers.iter().zip(&right.layers) {
        let differs = |differs: bool, by: f64| if differs { by } else { 0.0 };
        unlike += (differs(left.numbers != right.numbers, 1.0)
            + differs(left.sparsity != right.sparsity, 0.5)
            + differs(left.schedule != right.schedule, 0.3))
            / layers;
    }
    for (left, right) in left.shares.iter().zip(&right.shares) {
        unlike += 2.0 * (left - right).abs() / groups;
    }
    unlike
}

#[cfg(test)]
mod tests {
    use super::super::choice::LayerChoice;
    use super::super::choice::tests::{INT8, baseline, survey};
    use super::*;

    #[test]
    fn verified_choices_correct_those_like_them() {
        let survey = survey();
        let point = Point::new(vec![0]);
        let trial = |choice: &Choice, [accuracy, latency, size, memory, drop]: [f64; 5]| {
            let seen = Metrics::from([
                (Metric::Accuracy, accuracy),
                (Metric::Latency, latency),
                (Metric::Size, size),
                (Metric::Memory, memory),
                (Metric::AccuracyDrop, drop),
            ]);
            Verified::new(point.clone(), choice.clone(), choice.parts(&survey), &seen)
        };
        let plain = baseline();
        let mut eight = baseline();
        eight.layers = vec![LayerChoice { numbers: INT8, sparsity: 0.0, schedule: 2 }; 2];
        // The baseline is as fast as predicted. The other one is twice as slow and loses 2 points.
        let verified = [
            trial(&plain, [0.9, 7e-3, 8128.0, 9000.0, 0.0]),
            trial(&eight, [0.88, 6e-3, 2300.0, 3000.0, 0.02]),
        ];
        let model = Model { survey: &survey, verified: &verified, accuracy: 0.9 };
        let near = |predicted: &Metrics, metric: Metric, measured: f64| {
            predicted.get(metric).is_some_and(|predicted| (predicted / measured - 1.0).abs() < 0.05)
        };
        let predicted = model.predict(&eight);
        assert!(near(&predicted, Metric::Accuracy, 0.88), "{predicted:?}");
        assert!(near(&predicted, Metric::Latency, 6e-3), "{predicted:?}");
        assert!(near(&predicted, Metric::Size, 2300.0), "{predicted:?}");
        assert!(near(&predicted, Metric::Memory, 3000.0), "{predicted:?}");
        assert!(near(&model.predict(&plain), Metric::Latency, 7e-3));
    }
}
