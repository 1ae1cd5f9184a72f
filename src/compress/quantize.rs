//! Quantization to integers: weights rounded one by one with a scale per output channel, and
//! unsigned 8-bit grids for activations, with ranges that minimize the squared error on the
//! calibration images.

use paretune_kernels::operator::Operator;
use paretune_kernels::weights::{Grid, IntegerWeights, Numbers};
use paretune_kernels::{Plan, Quantization, Step, ValueId, WeightValues, Weights};
use rayon::prelude::*;

use super::calibration::Calibration;
use super::channels::f32_weights;
use super::error::CompressError;
use super::reconstruct::clipped_scale;
use super::sparsity::corrected_bias;
use super::statistics::Histogram;

/// Rounds each weight to the nearest value of `grid`.
///
/// The 8-bit grid reaches to the largest weight. Grids of a few bits are clipped at the scale of
/// least error. Ternary weights are those of Li and Liu ("Ternary Weight Networks", 2016): zero
/// below 0.7 times the mean size, else the mean size of those above.
///
/// With `mean`, the inputs' means per input channel of the layer, the bias compensates for the mean
/// rounding error (Nagel et al., "Data-Free Quantization", ICCV 2019).
pub(super) fn round(
    step: &str,
    weights: &Weights,
    groups: usize,
    grid: Grid,
    mean: Option<&[f64]>,
) -> Result<Weights, CompressError> {
    let values = f32_weights(step, weights)?;
    if values.iter().any(|x| !x.is_finite()) {
        return Err(CompressError::plan(step, "a weight is not finite"));
    }
    let [rows, columns, height, width] = weights.dims;
    let taps = height * width;
    let (low, high) = grid.levels();
    let ones = vec![1.0; columns * taps];
    let row = |(row, filter): (usize, &[f32])| {
        let largest = filter.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        // Smaller weights underflow in single precision when multiplied with activations.
        let nothing = largest <= 1e-30;
        let (scale, threshold) = match grid {
            _ if nothing => (1.0, 0.0),
            Grid::Bits8 => (largest / 127.0, 0.0),
            Grid::Ternary => ternary(filter),
            grid => (clipped_scale(filter, None, &ones, grid), 0.0),
        };
        let rounded = filter.iter().map(|&x| match grid {
            Grid::Ternary if x.abs() <= threshold => 0,
            Grid::Ternary => x.signum() as i8,
            _ => (x / scale).round().clamp(f32::from(low), f32::from(high)) as i8,
        });
        let rounded: Vec<i8> = rounded.collect();
        let first_input = row / (rows / groups).max(1) * columns;
        let lost = mean.map_or(0.0, |mean| {
            let pairs = filter.iter().zip(&rounded).enumerate();
            let lost = |(index, (&x, &q)): (usize, (&f32, &i8))| {
                mean[first_input + index / taps] * (f64::from(x) - f64::from(q) * f64::from(scale))
            };
            pairs.map(lost).sum()
        });
        (rounded, scale, lost)
    };
    let made: Vec<(Vec<i8>, f32, f64)> =
        values.par_chunks((columns * taps).max(1)).enumerate().map(row).collect();
    let mut rounded = Vec::with_capacity(values.len());
    made.iter().for_each(|(values, ..)| rounded.extend_from_slice(values));
    let scales: Vec<f32> = made.iter().map(|&(_, scale, _)| scale).collect();
    let lost: Vec<f64> = made.iter().map(|&(.., lost)| lost).collect();
    Ok(Weights {
        dims: weights.dims,
        values: WeightValues::Integer(IntegerWeights {
            values: rounded.into(),
            scales: scales.into(),
            grid,
        }),
        pattern: weights.pattern,
        bias: corrected_bias(weights, mean.is_some().then_some(&lost)),
    })
}

/// Rounds the real `weights` of `step` to the real format `numbers`.
///
/// # Errors
///
/// Fails if a weight would become infinite.
pub(super) fn round_real(
    step: &str,
    mut weights: Weights,
    numbers: Numbers,
) -> Result<Weights, CompressError> {
    let values = weights.values.rounded(numbers);
    weights.values = values.map_err(|overflow| CompressError::plan(step, overflow.to_string()))?;
    Ok(weights)
}

/// Returns scale and threshold of ternary weights. At least one weight must not be zero.
fn ternary(filter: &[f32]) -> (f32, f32) {
    let count = filter.len().max(1) as f32;
    let threshold = 0.7 * filter.iter().map(|x| x.abs()).sum::<f32>() / count;
    let above: Vec<f32> = filter.iter().map(|x| x.abs()).filter(|&x| x > threshold).collect();
    (above.iter().sum::<f32>() / above.len().max(1) as f32, threshold)
}

/// Calibrates grids for all values that integer steps read, and for their producers.
///
/// An integer step's output gets a grid if another integer step reads it directly, through steps
/// that only move numbers, or through sums and products. Values joined by steps that only move
/// numbers share one grid, so that the steps can run on 8 bits too.
pub(super) fn set_grids(plan: &mut Plan, calibration: &Calibration) -> Result<(), CompressError> {
    let is_integer = |step: &Step| match &step.operator {
        Operator::Conv(conv) => {
            matches!(plan.weights[conv.weights].values, WeightValues::Integer(_))
        }
        _ => false,
    };
    let mut quantized = vec![false; plan.values.len()];
    let mut leaders: Vec<ValueId> = (0..plan.values.len()).collect();
    for step in plan.steps.iter().filter(|step| is_integer(step)) {
        step.inputs.iter().for_each(|&value| quantized[value] = true);
    }
    let mut made_in_8_bits = vec![false; plan.values.len()];
    for step in &plan.steps {
        made_in_8_bits[step.output] = is_integer(step) || combines(&step.operator);
    }
    for step in plan.steps.iter().rev() {
        if !quantized[step.output] {
            continue;
        }
        for &input in &step.inputs {
            if moves_only(&step.operator) {
                quantized[input] = true;
                let (a, b) = (root(&leaders, input), root(&leaders, step.output));
                leaders[a.max(b)] = a.min(b);
            } else if combines(&step.operator) && made_in_8_bits[input] {
                // A value with one number per channel is small in any format.
                quantized[input] |= plan.values[input].dims == plan.values[step.output].dims;
            }
        }
    }
    for value in 0..plan.values.len() {
        if !quantized[value] {
            plan.values[value].quantization = None;
            continue;
        }
        let leader = root(&leaders, value);
        if leader != value {
            plan.values[value].quantization = plan.values[leader].quantization;
            continue;
        }
        let mut histogram = Histogram::default();
        let mut range = (0.0f32, 0.0f32);
        for member in (value..plan.values.len())
            .filter(|&member| quantized[member] && root(&leaders, member) == leader)
        {
            let statistics = &calibration.values[member];
            let (low, high) = statistics.range().ok_or_else(|| {
                CompressError::Calibration(format!(
                    "value {member} is not finite, or no image was seen"
                ))
            })?;
            range = (range.0.min(low), range.1.max(high));
            histogram.merge(&statistics.histogram);
        }
        plan.values[value].quantization = Some(grid(range, &histogram));
    }
    Ok(())
}

fn root(leaders: &[ValueId], mut value: ValueId) -> ValueId {
    while leaders[value] != value {
        value = leaders[value];
    }
    value
}

/// Returns whether a step only selects or moves numbers, and the runtime supports it on 8 bits.
fn moves_only(operator: &Operator) -> bool {
    matches!(operator, Operator::MaxPool { .. } | Operator::Reshape | Operator::Concat { .. })
}

/// Returns whether the runtime can execute a step from 8 bits to 8 bits of another grid.
fn combines(operator: &Operator) -> bool {
    matches!(operator, Operator::Add(_) | Operator::Mul(_))
}

/// Returns the grid over a part of `range` with the least expected squared error: values outside
/// are clipped, values inside are rounded, which costs a twelfth of the squared step.
fn grid(range: (f32, f32), histogram: &Histogram) -> Quantization {
    let bins: Vec<(f64, f64)> = histogram
        .bins()
        .map(|(x, count)| (f64::from(x.clamp(range.0, range.1)), count as f64))
        .filter(|&(x, _)| x != 0.0)
        .collect();
    let error = |low: f64, high: f64| {
        let step = (high - low) / 255.0;
        bins.iter()
            .map(|&(x, count)| {
                let clipped = x - x.clamp(low, high);
                count * if clipped == 0.0 { step * step / 12.0 } else { clipped * clipped }
            })
            .sum::<f64>()
    };
    // Optimizes each end in turn, a few times, over 40 positions down to a fifth of the range.
    let (mut low, mut high) = (f64::from(range.0), f64::from(range.1));
    let ratios = || (0..40).map(|index| 1.0 - 0.02 * f64::from(index));
    for _ in 0..3 {
        let least = |candidates: &mut dyn Iterator<Item = (f64, f64)>| {
            candidates
                .map(|(low, high)| (error(low, high), low, high))
                .min_by(|a, b| a.0.total_cmp(&b.0))
        };
        if let Some(best) = least(&mut ratios().map(|ratio| (low, f64::from(range.1) * ratio))) {
            high = best.2;
        }
        if range.0 == 0.0 {
            break;
        }
        if let Some(best) = least(&mut ratios().map(|ratio| (f64::from(range.0) * ratio, high))) {
            low = best.1;
        }
    }
    let scale = ((high - low) / 255.0) as f32;
    if !scale.is_normal() {
        return Quantization { scale: 1.0, zero_point: 0 };
    }
    Quantization { scale, zero_point: (-low / f64::from(scale)).round().clamp(0.0, 255.0) as u8 }
}
