//! Discrete choices for a network, their costs as sums over layers, and the descent that minimizes
//! a weighted sum of these costs.

use paretune_joint_space::layer::{LayerSchedules, ScheduleChoice, schedule_bits};
use paretune_kernels::weights::Numbers;
use paretune_names::{BACKEND, CHANNELS, SPARSITY, THREADS, layer_parameter, numbers};
use paretune_record::survey::{GroupSurvey, LayerSchedule, LayerSurvey, ScheduleTime, Survey};
use paretune_spaces::{Configuration, Value};
use rand::{Rng, RngExt};

/// Seconds per value that is converted from one precision to another between layers.
const CONVERSION: f64 = 0.3e-9;

/// A choice for every layer and channel group of a network.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) threads: i64,
    /// Kept fraction of the channels of each group.
    pub(super) shares: Vec<f64>,
    pub(super) layers: Vec<LayerChoice>,
}

/// Number type, sparsity and schedule of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LayerChoice {
    /// Number type of the weights.
    pub(super) numbers: Numbers,
    pub(super) sparsity: f64,
    /// Index into the layer's surveyed schedules.
    pub(super) schedule: usize,
}

/// Loss, time and size as sums over layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) loss: f64,
    pub(super) seconds: f64,
    pub(super) bytes: f64,
}

/// Loss (in nats) that a relative change of time or size by one is worth.
pub(super) struct Weights {
    pub(super) seconds: f64,
    pub(super) bytes: f64,
}

impl Choice {
    /// Reads the choice from a configuration. Returns `None` if a layer's schedule was not
    /// surveyed.
    pub(super) fn read(survey: &Survey, configuration: &Configuration) -> Option<Self> {
        let shares = survey
            .groups
            .iter()
            .map(|group| {
                configuration.get(&format!("{CHANNELS}{}", group.name)).and_then(Value::as_f64)
            })
            .map(|share| share.unwrap_or(1.0))
            .collect();
        let mut layers = Vec::with_capacity(survey.layers.len());
        for layer in &survey.layers {
            let wanted = LayerSchedule::read(configuration, &layer.name)?;
            let same = |time: &ScheduleTime| time.schedule == wanted;
            // A schedule with an unmeasured tile is approximated by the first one of the same
            // algorithm.
            let alike = |time: &ScheduleTime| {
                time.schedule.bits == wanted.bits
                    && time.schedule.sparsity == wanted.sparsity
                    && time.schedule.algorithm == wanted.algorithm
            };
            let schedules = &layer.schedules;
            let schedule =
                schedules.iter().position(same).or_else(|| schedules.iter().position(alike))?;
            let sparsity = configuration.get(&layer_parameter(&layer.name, SPARSITY));
            let sparsity = sparsity.and_then(Value::as_f64).unwrap_or(0.0);
            let numbers = numbers::chosen(configuration, &layer.name).unwrap_or_default();
            layers.push(LayerChoice { numbers, sparsity, schedule });
        }
        let threads = configuration.get(THREADS).and_then(Value::as_i64).unwrap_or(1);
        Some(Self { threads, shares, layers })
    }

    /// Converts the choice to values of the space's parameters.
    pub(super) fn write(&self, survey: &Survey) -> Configuration {
        let mut wanted = Configuration::new();
        wanted.insert(THREADS, Value::Int(self.threads));
        wanted.insert(BACKEND, Value::Text(survey.backend.clone()));
        for (group, share) in survey.groups.iter().zip(&self.shares) {
            wanted.insert(format!("{CHANNELS}{}", group.name), Value::Real(*share));
        }
        for (layer, choice) in survey.layers.iter().zip(&self.layers) {
            wanted.insert(layer_parameter(&layer.name, SPARSITY), Value::Real(choice.sparsity));
            if let Some(time) = layer.schedules.get(choice.schedule) {
                time.schedule.write(&layer.name, &mut wanted);
            }
            numbers::choose(choice.numbers, &layer.name, &mut wanted);
        }
        wanted
    }

    pub(super) fn parts(&self, survey: &Survey) -> Parts {
        let mut parts = Parts { seconds: survey.other_seconds, ..Parts::default() };
        for (group, share) in survey.groups.iter().zip(&self.shares) {
            parts.loss += group_loss(group, *share);
        }
        let mut bits_before = None;
        for (layer, choice) in survey.layers.iter().zip(&self.layers) {
            let part = self.layer(survey, layer, choice);
            parts.loss += part.loss;
            parts.seconds += part.seconds;
            parts.bytes += part.bytes;
            // Activations are in single precision for 16-bit weights as well, so nothing is
            // converted between these.
            let bits = schedule_bits(choice.numbers).min(16);
            if bits_before.is_some_and(|before| before != bits) {
                parts.seconds += CONVERSION * real(layer.inputs);
            }
            bits_before = Some(bits);
        }
        parts
    }

    /// Returns the costs of one layer under `choice`, with the channels that this network keeps.
    pub(super) fn layer(
        &self,
        survey: &Survey,
        layer: &LayerSurvey,
        choice: &LayerChoice,
    ) -> Parts {
        let share = |group: Option<usize>| group.map_or(1.0, |group| self.shares[group]);
        let (reads, writes) = (share(layer.reads), share(layer.writes));
        // Kernels compute whole vectors of output channels, so the time follows the number of
        // vectors.
        let width = layer.writes.map_or(layer.outputs, |group| survey.groups[group].width);
        let vectors = |channels: f64| (channels / 8.0).ceil();
        let written = vectors(writes * real(width)) / vectors(real(width)).max(1.0);
        let (work, kept) =
            if layer.depthwise { (written, writes) } else { (reads * written, reads * writes) };
        let loss = layer
            .losses
            .iter()
            .find(|loss| loss.numbers == choice.numbers && loss.sparsity == choice.sparsity)
            .map_or(f64::MAX / 1e6, |loss| loss.loss);
        let weights = real(layer.weights) * kept;
        let outputs = real(layer.outputs) * writes;
        // Sparse weights take the entropy of the positions of the zeros, then the bits of the other
        // values.
        let zero = choice.sparsity;
        let places = if zero > 0.0 {
            -(zero * zero.log2() + (1.0 - zero) * (1.0 - zero).log2())
        } else {
            0.0
        };
        let scales = if choice.numbers.is_integer() { 8.0 } else { 4.0 };
        let bytes =
            weights * (places + (1.0 - zero) * choice.numbers.bits()) / 8.0 + scales * outputs;
        let seconds =
            layer.schedules.get(choice.schedule).map_or(0.0, |schedule| schedule.seconds) * work;
        Parts { loss, seconds, bytes }
    }

    /// Changes layer by layer and group by group to the choice with the smallest cost under
    /// `weights`, until nothing changes.
    pub(super) fn descend(&mut self, survey: &Survey, baseline: &Parts, weights: &Weights) {
        let cost = |parts: &Parts| {
            parts.loss
                + weights.seconds * parts.seconds / baseline.seconds
                + weights.bytes * parts.bytes / baseline.bytes
        };
        for _ in 0..4 {
            let before = self.clone();
            for (index, layer) in survey.layers.iter().enumerate() {
                let best = options(layer).min_by(|left, right| {
                    cost(&self.layer(survey, layer, left))
                        .total_cmp(&cost(&self.layer(survey, layer, right)))
                });
                if let Some(best) = best {
                    self.layers[index] = best;
                }
            }
            for (index, group) in survey.groups.iter().enumerate() {
                let mut best = (f64::INFINITY, self.shares[index]);
                for (share, _) in &group.shares {
                    self.shares[index] = *share;
                    let cost = cost(&self.parts(survey));
                    if cost < best.0 {
                        best = (cost, *share);
                    }
                }
                self.shares[index] = best.1;
            }
            if *self == before {
                break;
            }
        }
    }

    /// Changes one layer or one group at random.
    pub(super) fn vary(&mut self, survey: &Survey, rng: &mut dyn Rng) {
        let groups = survey.groups.len();
        if groups > 0 && rng.random_bool(0.4) {
            let index = rng.random_range(0..groups);
            let shares = &survey.groups[index].shares;
            if let Some(now) = shares.iter().position(|(share, _)| *share == self.shares[index]) {
                let next = if rng.random_bool(0.5) { now + 1 } else { now.saturating_sub(1) };
                self.shares[index] = shares[next.min(shares.len() - 1)].0;
            }
            return;
        }
        let index = rng.random_range(0..survey.layers.len().max(1));
        let (Some(layer), Some(choice)) = (survey.layers.get(index), self.layers.get_mut(index))
        else {
            return;
        };
        if rng.random_bool(0.5) {
            let all: Vec<LayerChoice> = options(layer).collect();
            if !all.is_empty() {
                *choice = all[rng.random_range(0..all.len())];
            }
        } else {
            let fast = layer.fastest(choice.numbers, choice.sparsity, 4);
            if !fast.is_empty() {
                choice.schedule = fast[rng.random_range(0..fast.len())];
            }
        }
    }
}

/// Lists the choices of a layer, each with its fastest schedule.
pub(super) fn options(layer: &LayerSurvey) -> impl Iterator<Item = LayerChoice> + '_ {
    layer.losses.iter().filter_map(|loss| {
        let schedule = *layer.fastest(loss.numbers, loss.sparsity, 1).first()?;
        Some(LayerChoice { numbers: loss.numbers, sparsity: loss.sparsity, schedule })
    })
}

pub(super) fn group_loss(group: &GroupSurvey, share: f64) -> f64 {
    if share >= 1.0 {
        return 0.0;
    }
    group.shares.iter().find(|(known, _)| *known == share).map_or(f64::MAX / 1e6, |(_, loss)| *loss)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of layers are far below 2^53")]
pub(super) fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use paretune_kernels::weights::Grid;

    use super::*;
    use paretune_record::survey::LayerLoss;

    pub(in super::super) const INT8: Numbers = Numbers::Integer(Grid::Bits8);

    /// Two layers: the first writes a group of 16 channels that the second reads. 8 bits are twice
    /// as fast and cost a small loss; half of the channels cost a large one.
    pub(in super::super) fn survey() -> Survey {
        let time = |bits: i64, algorithm: &str, tile: u64, seconds: f64| ScheduleTime {
            schedule: LayerSchedule {
                bits,
                sparsity: 0.0,
                algorithm: algorithm.to_owned(),
                tunables: BTreeMap::from([("tile_m".to_owned(), tile.into())]),
            },
            seconds,
        };
        let layer = |name: &str, reads: Option<usize>, writes: Option<usize>| LayerSurvey {
            name: name.to_owned(),
            weights: 1000,
            outputs: 16,
            inputs: 1000,
            reads,
            writes,
            schedules: vec![time(32, "a", 1, 3e-3), time(32, "a", 2, 2e-3), time(8, "b", 1, 1e-3)],
            losses: vec![
                LayerLoss { numbers: Numbers::F32, sparsity: 0.0, loss: 0.0 },
                LayerLoss { numbers: INT8, sparsity: 0.0, loss: 0.01 },
            ],
            ..LayerSurvey::default()
        };
        Survey {
            threads: 2,
            backend: "cpu".to_owned(),
            other_seconds: 1e-3,
            layers: vec![layer("first", None, Some(0)), layer("second", Some(0), None)],
            groups: vec![GroupSurvey {
                name: "first".into(),
                width: 16,
                shares: vec![(0.5, 1.0), (1.0, 0.0)],
            }],
            thinned: Vec::new(),
            mixed: Vec::new(),
        }
    }

    pub(in super::super) fn baseline() -> Choice {
        let plain = LayerChoice { numbers: Numbers::F32, sparsity: 0.0, schedule: 0 };
        Choice { threads: 2, shares: vec![1.0], layers: vec![plain, plain] }
    }

    #[test]
    fn sums_follow_widths_bits_and_schedules() {
        let survey = survey();
        let parts = baseline().parts(&survey);
        assert_eq!((parts.loss, parts.bytes), (0.0, 2.0 * (4000.0 + 64.0)));
        assert!((parts.seconds - 7e-3).abs() < 1e-12);
        let mut half = baseline();
        half.shares[0] = 0.5;
        let parts = half.parts(&survey);
        assert_eq!(parts.loss, 1.0);
        assert!((parts.seconds - 4e-3).abs() < 1e-12);
        assert_eq!(parts.bytes, 2000.0 + 32.0 + 2000.0 + 64.0);
    }

    #[test]
    fn descent_pays_as_much_as_it_is_told_to() {
        let survey = survey();
        let base = baseline().parts(&survey);
        let descended = |seconds: f64| {
            let mut choice = baseline();
            choice.descend(&survey, &base, &Weights { seconds, bytes: 0.0 });
            choice
        };
        // A sparse schedule serves only its own sparsity.
        let mut sparse = survey.clone();
        let mut zeros = sparse.layers[0].schedules[0].clone();
        (zeros.schedule.sparsity, zeros.seconds) = (0.8, 5e-4);
        sparse.layers[0].schedules.push(zeros);
        assert_eq!(sparse.layers[0].fastest(Numbers::F32, 0.8, 1), [3]);
        assert_eq!(sparse.layers[0].fastest(Numbers::F32, 0.7, 1), [1]);
        // A faster tile costs nothing, so even a small weight of time selects it.
        let free = descended(1e-6);
        assert_eq!(
            free.layers,
            [LayerChoice { numbers: Numbers::F32, sparsity: 0.0, schedule: 1 }; 2]
        );
        assert_eq!(free.shares, [1.0]);
        let eager = descended(0.2);
        assert_eq!(eager.layers, [LayerChoice { numbers: INT8, sparsity: 0.0, schedule: 2 }; 2]);
        assert_eq!(eager.shares, [1.0]);
        assert_eq!(descended(100.0).shares, [0.5]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let survey = survey();
        let mut choice = baseline();
        choice.shares[0] = 0.5;
        choice.layers[1] = LayerChoice { numbers: INT8, sparsity: 0.0, schedule: 2 };
        assert_eq!(Choice::read(&survey, &choice.write(&survey)), Some(choice));
    }
}
