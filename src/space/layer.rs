//! Schedules of one layer: which weights they serve, and how a configuration chooses them.

use std::collections::BTreeMap;

use crate::tunables::{space_value, tunable_value};
use paretune_kernels::weights::{Grid, Numbers, Pattern, WeightFormat};
use paretune_kernels::{conv, registry};
use paretune_names::{ALGORITHM, SPARSITY, layer_parameter, numbers, tunable_parameter};
use paretune_record::survey::{LayerSchedule, LayerSurvey};
use paretune_spaces::{Configuration, Value};

/// Questions about the schedules that a survey knows of a layer.
pub trait LayerSchedules {
    /// Returns the indices of up to `count` schedules for weights of this type and sparsity,
    /// fastest first.
    #[must_use]
    fn fastest(&self, numbers: Numbers, sparsity: f64, count: usize) -> Vec<usize>;
}

/// A schedule as a part of a configuration.
pub trait ScheduleChoice: Sized {
    /// Returns the default schedule of `algorithm`.
    #[must_use]
    fn default_of(bits: i64, sparsity: f64, algorithm: String) -> Self;

    /// Returns whether weights of this type, with a fraction `sparsity` of zeros anywhere, can run
    /// under this schedule and take its recorded time.
    #[must_use]
    fn serves(&self, numbers: Numbers, sparsity: f64) -> bool;

    /// Reads what `configuration` chooses for `layer`.
    #[must_use]
    fn read(configuration: &Configuration, layer: &str) -> Option<Self>;

    /// Writes this choice into the configuration of `layer`.
    fn write(&self, layer: &str, wanted: &mut Configuration);
}

impl LayerSchedules for LayerSurvey {
    fn fastest(&self, numbers: Numbers, sparsity: f64, count: usize) -> Vec<usize> {
        let schedules = &self.schedules;
        let serves = |index: &usize| schedules[*index].schedule.serves(numbers, sparsity);
        let mut serving: Vec<usize> = (0..schedules.len()).filter(serves).collect();
        serving.sort_by(|a, b| schedules[*a].seconds.total_cmp(&schedules[*b].seconds));
        serving.truncate(count);
        serving
    }
}

impl ScheduleChoice for LayerSchedule {
    fn default_of(bits: i64, sparsity: f64, algorithm: String) -> Self {
        Self { bits, sparsity, algorithm, tunables: BTreeMap::new() }
    }

    fn serves(&self, numbers: Numbers, sparsity: f64) -> bool {
        let widest = widest(&self.algorithm, self.bits);
        self.bits == schedule_bits(numbers)
            && (self.sparsity <= 0.0 || self.sparsity == sparsity)
            && if numbers.is_integer() {
                numbers.bits() <= widest.bits()
            } else {
                numbers == widest
            }
    }

    fn read(configuration: &Configuration, layer: &str) -> Option<Self> {
        let bits = schedule_bits(numbers::chosen(configuration, layer)?);
        let algorithm = configuration.get(&layer_parameter(layer, ALGORITHM))?.as_str()?.to_owned();
        let prefix = tunable_parameter(layer, &algorithm, "");
        let tunables = configuration
            .iter()
            .filter_map(|(name, value)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), tunable_value(value)?))
            })
            .collect();
        let sparsity = if needs_zeros(&algorithm) {
            configuration
                .get(&layer_parameter(layer, SPARSITY))
                .and_then(Value::as_f64)
                .unwrap_or(0.0)
        } else {
            0.0
        };
        Some(Self { bits, sparsity, algorithm, tunables })
    }

    fn write(&self, layer: &str, wanted: &mut Configuration) {
        numbers::choose(widest(&self.algorithm, self.bits), layer, wanted);
        wanted.insert(layer_parameter(layer, ALGORITHM), Value::Text(self.algorithm.clone()));
        if self.sparsity > 0.0 {
            wanted.insert(layer_parameter(layer, SPARSITY), Value::Real(self.sparsity));
        }
        for (name, value) in &self.tunables {
            wanted.insert(tunable_parameter(layer, &self.algorithm, name), space_value(*value));
        }
    }
}

/// All values that [`schedule_bits`] returns.
pub const SCHEDULE_BITS: [i64; 3] = [8, 16, 32];

/// Returns the bits of the schedules that run such weights.
#[must_use]
pub fn schedule_bits(numbers: Numbers) -> i64 {
    match numbers {
        Numbers::Integer(_) => 8,
        Numbers::Bf16 | Numbers::Fp16 => 16,
        Numbers::F32 => 32,
    }
}

/// Returns the widest number type that an algorithm executes, among integers or among
/// floating-point types.
fn widest(algorithm: &str, bits: i64) -> Numbers {
    if bits == 32 {
        return Numbers::F32;
    }
    let known = conv::algorithm(algorithm);
    let executes = |numbers| {
        let patterns = [Pattern::Dense, Pattern::Unstructured];
        known.is_none_or(|known| {
            patterns.into_iter().any(|pattern| known.executes(WeightFormat { numbers, pattern }))
        })
    };
    if bits == 16 {
        return Numbers::HALVES
            .into_iter()
            .find(|numbers| executes(*numbers))
            .unwrap_or(Numbers::Bf16);
    }
    let grids = Grid::ALL.into_iter().rev().map(Numbers::Integer);
    grids.into_iter().find(|numbers| executes(*numbers)).unwrap_or(Numbers::Integer(Grid::Bits8))
}

/// Returns whether an algorithm executes only sparse weights, so that its time falls with the
/// sparsity.
#[must_use]
pub fn needs_zeros(algorithm: &str) -> bool {
    let numbers = Numbers::all();
    let dense = |numbers| WeightFormat { numbers, pattern: Pattern::Dense };
    registry::info(algorithm)
        .is_some_and(|info| !numbers.into_iter().any(|numbers| info.executes(dense(numbers))))
}
