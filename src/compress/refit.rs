//! Least-squares fit of the remaining weights to the outputs of the baseline, layer by layer.
//!
//! After channels are removed, each convolution gets the weights with which its output comes
//! closest to the baseline's, given the inputs that the *pruned* network computes (He, Zhang and
//! Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017; Luo, Wu and Lin,
//! "ThiNet", ICCV 2017). Layers are fitted in execution order, each on top of the fits before it. A
//! layer with a residual also compensates for the residual's own error.
//!
//! Targets that an activation clips are fitted like others. Moving clipped targets to the fit and
//! repeating it (Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification
//! and Detection", 2015) was tried and generalized worse.

use std::collections::BTreeMap;

use crate::linalg::{View, multiply};
use paretune_kernels::operator::{Conv, Operator};
use paretune_kernels::weights::Pattern;
use paretune_kernels::{Plan, Step, ValueId, WeightValues, Weights};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::channels::{Keep, dense};
use super::error::CompressError;
use super::walk::{Visitor, walk};
use crate::linalg::cholesky::Cholesky;

/// Output positions of a layer that are sampled, per weight of one of its filters.
const PER_WEIGHT: usize = 6;
/// Smallest number of sampled positions, if the images have that many.
const LEAST: usize = 8192;
/// Largest number of sampled positions.
const MOST: usize = 16384;
/// Largest number of values in the unfolded input of one layer.
const HELD: usize = 96 << 20;
/// Damping of the fit relative to the mean power of the inputs. It keeps weights of little
/// influence from moving.
const DAMPING: f64 = 3e-2;
/// Smallest number of rows of the Gram matrix in one parallel task.
const ROWS: usize = 128;

/// Outputs of the baseline at sampled positions, for every convolution with its bias and residual,
/// before its activation. One instance serves every compression of the network.
#[derive(Clone, Debug)]
pub struct References {
    images: usize,
    /// By step: the positions sampled in each image, and the outputs there as `[sample][channel]`.
    sums: BTreeMap<String, (usize, Vec<f32>)>,
}

impl References {
    /// Runs the baseline on normalized images, one after another.
    ///
    /// # Errors
    ///
    /// Fails if the network cannot be executed or there is no image.
    pub fn collect(plan: &Plan, images: &[f32], threads: usize) -> Result<Self, CompressError> {
        let count = images.len() / plan.values[plan.input].len().max(1);
        let mut collector = Collector { plan, this: Self { images: count, sums: BTreeMap::new() } };
        walk(plan, images, threads, &mut collector)?;
        Ok(collector.this)
    }

    /// Returns the number of images seen.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }
}

struct Collector<'a> {
    plan: &'a Plan,
    this: References,
}

impl Visitor for Collector<'_> {
    fn summed(&mut self, step: &Step, sum: &[f32]) {
        let Operator::Conv(conv) = &step.operator else { return };
        let depth: usize = self.plan.weights[conv.weights].dims[1..].iter().product();
        let wanted = (PER_WEIGHT * depth).clamp(LEAST, MOST).div_ceil(self.this.images.max(1));
        let samples = Samples::of(self.plan, step, self.this.images, wanted);
        self.this.sums.insert(step.name.clone(), (wanted, samples.gather(sum, samples.channels)));
    }
}

/// Sampled output positions of a layer. They are equal for a network and all its prunings.
struct Samples {
    /// Positions of each image, ascending.
    positions: Vec<Vec<usize>>,
    /// Number of positions of the output.
    plane: usize,
    channels: usize,
}

impl Samples {
    /// Samples `wanted` positions of each image, or all if there are fewer. `plan` may be pruned,
    /// because positions do not depend on the number of channels.
    fn of(plan: &Plan, step: &Step, images: usize, wanted: usize) -> Self {
        let dims = &plan.values[step.output].dims;
        let plane: usize = dims.get(1..).map_or(1, |rest| rest.iter().product());
        let wanted = wanted.min(plane);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(step.output as u64);
        let positions = (0..images)
            .map(|_| {
                if wanted == plane {
                    return (0..plane).collect();
                }
                // Selection sampling: ascending, without repetition.
                let mut chosen = Vec::with_capacity(wanted);
                for position in 0..plane {
                    if random.random_range(0..plane - position) < wanted - chosen.len() {
                        chosen.push(position);
                    }
                }
                chosen
            })
            .collect();
        Self { positions, plane, channels: dims[0] }
    }

    fn len(&self) -> usize {
        self.positions.iter().map(Vec::len).sum()
    }

    /// Gathers a value with the output's shape, images one after another, into `[sample][channel]`.
    fn gather(&self, data: &[f32], channels: usize) -> Vec<f32> {
        let parts: Vec<Vec<f32>> = self
            .positions
            .par_iter()
            .enumerate()
            .map(|(image, positions)| {
                let data = &data[image * channels * self.plane..][..channels * self.plane];
                let of =
                    |position: usize| (0..channels).map(move |channel| data[channel * self.plane + position]);
                positions.iter().flat_map(|&position| of(position)).collect()
            })
            .collect();
        parts.concat()
    }
}

/// Fits all dense convolutions of `plan`, which keeps the channels of `keep`, to `references` made
/// on the first of `images`. Layers with fixed zeros are left as they are.
pub(super) fn refit(
    plan: &mut Plan,
    keep: &Keep,
    references: &References,
    images: &[f32],
    threads: usize,
) -> Result<(), CompressError> {
    let len = plan.values[plan.input].len().max(1);
    let count = (images.len() / len).min(references.images);
    if count != references.images {
        return Err(CompressError::Calibration("the references were made on other images".into()));
    }
    let mut refit =
        Refit { plan, keep, references, touched: vec![false; plan.values.len()], fitted: BTreeMap::new() };
    walk(plan, &images[..count * len], threads, &mut refit)?;
    let fitted = refit.fitted;
    for step in &mut plan.steps {
        let Operator::Conv(conv) = &mut step.operator else { continue };
        if let Some(weights) = fitted.get(&step.name) {
            // Weights may be shared between steps, but fits are not.
            plan.weights.push(weights.clone());
            conv.weights = plan.weights.len() - 1;
        }
    }
    Ok(())
}

struct Refit<'a> {
    plan: &'a Plan,
    keep: &'a Keep,
    references: &'a References,
    /// By value: whether its remaining channels differ from the baseline's.
    touched: Vec<bool>,
    fitted: BTreeMap<String, Weights>,
}

impl Refit<'_> {
    fn differs(&self, value: ValueId) -> bool {
        self.touched[value] || !self.keep.is_whole(value)
    }
}

impl Visitor for Refit<'_> {
    fn reads(
        &mut self,
        step: &Step,
        input: &[f32],
        residual: Option<&[f32]>,
    ) -> Result<Option<Weights>, CompressError> {
        let Operator::Conv(conv) = &step.operator else { return Ok(None) };
        let weights = &self.plan.weights[conv.weights];
        let changed = step.inputs.iter().any(|&value| self.differs(value));
        self.touched[step.output] = changed || weights.pattern != Pattern::Dense;
        if !changed || weights.pattern != Pattern::Dense {
            return Ok(None);
        }
        let Some((wanted, sums)) = self.references.sums.get(&step.name) else { return Ok(None) };
        let samples = Samples::of(self.plan, step, self.references.images, *wanted);
        let kept: Vec<usize> = indices(self.keep.of(step.output));
        let width = self.keep.of(step.output).len();
        let mut targets: Vec<f32> =
            sums.par_chunks(width).flat_map_iter(|sums| kept.iter().map(|&channel| sums[channel])).collect();
        if let Some(residual) = residual {
            let residual = samples.gather(residual, samples.channels);
            targets.par_iter_mut().zip(&residual).for_each(|(target, residual)| *target -= residual);
        }
        let layer = Layer {
            step,
            conv,
            weights,
            samples: &samples,
            input_dims: &self.plan.values[step.inputs[0]].dims,
        };
        let fitted = layer.fit(input, &targets)?;
        if let Some(fitted) = &fitted {
            self.fitted.insert(step.name.clone(), fitted.clone());
        }
        Ok(fitted)
    }

    fn value(&mut self, value: ValueId, _: &[f32]) {
        let made = self.plan.steps.iter().find(|step| step.output == value);
        if let Some(step) = made.filter(|step| !matches!(step.operator, Operator::Conv(_))) {
            self.touched[value] = step.inputs.iter().any(|&input| self.differs(input));
        }
    }
}

fn indices(keep: &[bool]) -> Vec<usize> {
    keep.iter().enumerate().filter(|&(_, &keep)| keep).map(|(index, _)| index).collect()
}

/// Convolution with the data of its fit.
struct Layer<'a> {
    step: &'a Step,
    conv: &'a Conv,
    weights: &'a Weights,
    samples: &'a Samples,
    input_dims: &'a [usize],
}

impl Layer<'_> {
    /// Fits weights and bias to `targets`, `[sample][output channel]` without the residual.
    fn fit(&self, input: &[f32], targets: &[f32]) -> Result<Option<Weights>, CompressError> {
        let old = dense(&self.step.name, self.weights)?;
        let [rows, columns, height, width] = self.weights.dims;
        let depth = columns * height * width;
        let groups = self.conv.groups;
        let group_rows = rows / groups.max(1);
        let one = |group: usize| -> Option<(Vec<f32>, Vec<f32>)> {
            let (patches, count) = self.patches(input, group * columns, columns);
            let channels = group * group_rows..(group + 1) * group_rows;
            let part = |data: &[f32]| -> Vec<f32> {
                data.chunks(rows).take(count).flat_map(|sample| &sample[channels.clone()]).copied().collect()
            };
            let bias = |row: usize| self.weights.bias.as_ref().map_or(0.0, |bias| bias[row]);
            let problem = Problem { depth, rows: group_rows, count, patches, targets: part(targets) };
            let weights = old[group * group_rows * depth..][..group_rows * depth].to_vec();
            problem.solve(weights, channels.map(bias).collect())
        };
        let parts: Option<Vec<(Vec<f32>, Vec<f32>)>> = if groups > 1 {
            (0..groups).into_par_iter().map(one).collect()
        } else {
            one(0).map(|part| vec![part])
        };
        let Some(parts) = parts else { return Ok(None) };
        let bias: Vec<f32> = parts.iter().flat_map(|(_, bias)| bias).copied().collect();
        let values: Vec<f32> = parts.into_iter().flat_map(|(weights, _)| weights).collect();
        if values.iter().chain(&bias).any(|x| !x.is_finite()) {
            return Ok(None);
        }
        Ok(Some(Weights {
            dims: self.weights.dims,
            values: WeightValues::F32(values.into()),
            pattern: Pattern::Dense,
            bias: Some(bias.into()),
        }))
    }

    /// Unfolds the patches of `columns` channels from `first` on at the sampled positions, one row
    /// per sample. Also returns the number of samples, which is reduced if they would fill the
    /// memory.
    fn patches(&self, input: &[f32], first: usize, columns: usize) -> (Vec<f32>, usize) {
        let at = |axis: usize| self.input_dims.get(axis).copied().unwrap_or(1);
        let (channels, height, width) = (at(0), at(1), at(2));
        let window = &self.conv.window;
        let [kh, kw] = window.kernel;
        let depth = columns * kh * kw;
        let most = (HELD / depth.max(1)).max(1);
        let out_width = {
            let out = window.output([height, width], false).unwrap_or([1, 1]);
            out[1].max(1)
        };
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(self.samples.len());
        for (image, positions) in self.samples.positions.iter().enumerate() {
            places.extend(positions.iter().map(|&position| (image, position)));
        }
        places.truncate(most);
        let mut patches = vec![0.0; places.len() * depth];
        patches.par_chunks_mut(depth.max(1)).zip(&places).for_each(|(patch, &(image, position))| {
            let [y, x] = [position / out_width, position % out_width];
            for ky in 0..kh {
                let row = (y * window.stride[0] + ky * window.dilation[0]).checked_sub(window.padding[0]);
                let Some(row) = row.filter(|&row| row < height) else { continue };
                for kx in 0..kw {
                    let column =
                        (x * window.stride[1] + kx * window.dilation[1]).checked_sub(window.padding[1]);
                    let Some(column) = column.filter(|&column| column < width) else { continue };
                    let start = ((image * channels + first) * height + row) * width + column;
                    let taps = input[start..].iter().step_by(height * width);
                    let places = patch[ky * kw + kx..].iter_mut().step_by(kh * kw);
                    places.zip(taps).take(columns).for_each(|(to, from)| *to = *from);
                }
            }
        });
        (patches, places.len())
    }
}

/// Least-squares problem for the filters of one group.
struct Problem {
    /// Number of weights of a filter.
    depth: usize,
    /// Number of filters of the group.
    rows: usize,
    /// Number of samples, that is, of patches.
    count: usize,
    /// Unfolded inputs of the samples as `[sample][weight]`.
    patches: Vec<f32>,
    /// Wanted outputs as `[sample][filter]`, without the residual.
    targets: Vec<f32>,
}

impl Problem {
    /// Returns weights and biases of less error than the given ones; `None` if the inputs do not
    /// determine them.
    fn solve(mut self, mut weights: Vec<f32>, mut bias: Vec<f32>) -> Option<(Vec<f32>, Vec<f32>)> {
        let Self { depth, rows, count, .. } = self;
        if count == 0 || depth == 0 {
            return None;
        }
        let means = column_means(&self.patches, depth);
        self.patches.par_chunks_mut(depth).for_each(|patch| {
            patch.iter_mut().zip(&means).for_each(|(x, mean)| *x -= mean);
        });
        // In terms of centered inputs, the bias is the mean of the targets.
        let shift = |weights: &[f32]| -> Vec<f32> {
            weights.chunks(depth).map(|filter| filter.iter().zip(&means).map(|(w, x)| w * x).sum()).collect()
        };
        bias.iter_mut().zip(shift(&weights)).for_each(|(bias, shift)| *bias += shift);
        let power = self.patches.par_chunks(depth).map(squares).sum::<f64>() / depth as f64;
        if !(power > 0.0 && power.is_finite()) {
            return None;
        }
        // The unknowns are steps from the current weights, so that damping keeps weights of little
        // influence where they were.
        let mut errors = self.errors(&weights, &bias);
        let mean = column_means(&errors, rows);
        errors.par_chunks_mut(rows).for_each(|errors| {
            errors.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
        });
        let steps = ridge(&self.patches, &errors, [count, depth, rows], DAMPING * power)?;
        weights.iter_mut().zip(&steps).for_each(|(weight, step)| *weight += step);
        bias.iter_mut().zip(&mean).for_each(|(bias, mean)| *bias += mean);
        bias.iter_mut().zip(shift(&weights)).for_each(|(bias, shift)| *bias -= shift);
        Some((weights, bias))
    }

    /// Returns the remaining errors to the targets as `[sample][filter]`.
    fn errors(&self, weights: &[f32], bias: &[f32]) -> Vec<f32> {
        let Self { depth, rows, count, .. } = *self;
        let mut errors = vec![0.0; count * rows];
        let part = count.div_ceil(rayon::current_num_threads().max(1)).max(1);
        let chunks = errors.par_chunks_mut(part * rows).enumerate();
        chunks.for_each(|(chunk, errors)| {
            let first = chunk * part;
            let samples = errors.len() / rows;
            let patches = View::new(&self.patches[first * depth..], samples, depth);
            multiply(1.0, patches, View::new(weights, rows, depth).t(), 0.0, errors, rows);
            let targets = self.targets[first * rows..].chunks(rows);
            for (errors, targets) in errors.chunks_mut(rows).zip(targets) {
                let pairs = errors.iter_mut().zip(targets).zip(bias);
                pairs.for_each(|((error, target), bias)| *error = target - *error - bias);
            }
        });
        errors
    }
}

/// Solves the ridge regression for the `rows` x `depth` matrix `W` that minimizes `|E - X Wᵀ|² +
/// damping |W|²`, with `X` of `count` x `depth` and `E` of `count` x `rows`. Returns `None` if the
/// matrix is not numerically positive definite.
///
/// Of the two forms of the solution, `Wᵀ = (XᵀX + λ)⁻¹ XᵀE = Xᵀ (XXᵀ + λ)⁻¹ E`, it uses the one
/// with the smaller matrix: late layers have many more weights than positions.
fn ridge(x: &[f32], errors: &[f32], [count, depth, rows]: [usize; 3], damping: f64) -> Option<Vec<f32>> {
    let all = View::new(x, count, depth);
    let size = count.min(depth);
    let mut gram = gram(if count < depth { all } else { all.t() }, size);
    (0..size).for_each(|i| gram[i * size + i] += damping);
    let factors = Cholesky::new(gram, size)?;
    if count < depth {
        let mut steps: Vec<f64> = (0..rows * count)
            .into_par_iter()
            .map(|at| f64::from(errors[at % count * rows + at / count]))
            .collect();
        factors.solve_rows(&mut steps);
        let steps: Vec<f32> = steps.into_iter().map(|x| x as f32).collect();
        Some(product(View::new(&steps, rows, count), all))
    } else {
        let mut steps: Vec<f64> =
            product(View::new(errors, count, rows).t(), all).into_iter().map(f64::from).collect();
        factors.solve_rows(&mut steps);
        Some(steps.into_iter().map(|x| x as f32).collect())
    }
}

fn squares(numbers: &[f32]) -> f64 {
    numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

fn column_means(data: &[f32], columns: usize) -> Vec<f32> {
    let count = (data.len() / columns.max(1)).max(1);
    let sums = data
        .par_chunks(columns * 1024)
        .map(|part| {
            let mut sums = vec![0.0f64; columns];
            part.chunks(columns)
                .for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x)));
            sums
        })
        .reduce(
            || vec![0.0; columns],
            |mut left, right| {
                left.iter_mut().zip(&right).for_each(|(left, right)| *left += right);
                left
            },
        );
    sums.iter().map(|sum| (sum / count as f64) as f32).collect()
}

/// Computes the lower triangle of `A Aᵀ` for a matrix with `size` rows.
fn gram(matrix: View<'_, f32>, size: usize) -> Vec<f64> {
    let inner = matrix.columns();
    let mut single = vec![0.0f32; size * size];
    // Each part packs all that it is multiplied with.
    let part = (size / (4 * rayon::current_num_threads().max(1))).clamp(ROWS, 4 * ROWS);
    single.par_chunks_mut((part * size).max(1)).enumerate().for_each(|(chunk, rows)| {
        let range = chunk * part..(chunk * part + part).min(size);
        let right = matrix.part(0..range.end, 0..inner).t();
        multiply(1.0, matrix.part(range, 0..inner), right, 0.0, rows, size);
    });
    single.into_par_iter().map(f64::from).collect()
}

/// Computes the matrix product `A B`.
fn product(left: View<'_, f32>, right: View<'_, f32>) -> Vec<f32> {
    let [rows, inner, columns] = [left.rows(), left.columns(), right.columns()];
    let mut product = vec![0.0f32; rows * columns];
    let part = rows.div_ceil(rayon::current_num_threads().max(1)).clamp(1, 4 * ROWS);
    product.par_chunks_mut((part * columns).max(1)).enumerate().for_each(|(chunk, product)| {
        let range = chunk * part..(chunk * part + part).min(rows);
        multiply(1.0, left.part(range, 0..inner), right, 0.0, product, columns);
    });
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::remove;
    use crate::groups::groups;
    use crate::tests::{networks, reference};

    /// Both forms of the solution satisfy the normal equations.
    #[test]
    fn ridge_solves_its_equations() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        for [count, depth, rows] in [[40, 23, 5], [23, 40, 5], [300, 280, 3], [280, 300, 3], [1, 4, 1]] {
            let mut numbers =
                |len: usize| -> Vec<f32> { (0..len).map(|_| random.random_range(-1.0..1.0)).collect() };
            let (x, errors) = (numbers(count * depth), numbers(count * rows));
            let damping = 0.1 * count as f64;
            let found = ridge(&x, &errors, [count, depth, rows], damping).expect("positive definite");
            for row in 0..rows {
                let w = |column: usize| f64::from(found[row * depth + column]);
                let missing = |at: usize| {
                    let sum: f64 =
                        (0..depth).map(|column| f64::from(x[at * depth + column]) * w(column)).sum();
                    f64::from(errors[at * rows + row]) - sum
                };
                let missing: Vec<f64> = (0..count).map(missing).collect();
                for column in 0..depth {
                    let pull: f64 =
                        (0..count).map(|at| f64::from(x[at * depth + column]) * missing[at]).sum();
                    assert!(
                        (pull - damping * w(column)).abs() < 1e-3,
                        "{count} {depth}: {pull} {}",
                        w(column)
                    );
                }
            }
        }
    }

    /// A channel that repeats another one can be removed without loss, at padded borders and
    /// through a residual too.
    #[test]
    fn what_others_know_is_not_lost() {
        let mut plan = networks::residual();
        let repeated = |plan: &mut Plan, step: &str, filter: usize| {
            let found = plan.steps.iter().find(|found| found.name == step);
            let Some(Operator::Conv(conv)) = found.map(|found| &found.operator) else {
                panic!("no convolution")
            };
            let weights = &mut plan.weights[conv.weights];
            let WeightValues::F32(values) = &mut weights.values else { panic!("not in single precision") };
            let mut new = values.to_vec();
            new.copy_within(filter..2 * filter, 6 * filter);
            *values = new.into();
            let mut bias = weights.bias.as_ref().unwrap().to_vec();
            bias[6] = bias[1];
            weights.bias = Some(bias.into());
        };
        repeated(&mut plan, "one", 72);
        repeated(&mut plan, "stem", 27);
        repeated(&mut plan, "two", 108);
        let images = networks::images(&plan, 24).concat();
        let references = References::collect(&plan, &images, 1).unwrap();
        let mut keep = Keep::all(&plan);
        for group in
            groups(&plan).unwrap().iter().filter(|group| ["stem", "one"].contains(&&*group.info.name))
        {
            keep.drop(&group.channels[6]);
        }
        let mut small = remove(&plan, &keep, None).unwrap();
        let error = |small: &Plan| -> f64 {
            let pairs = networks::images(&plan, 3);
            let of = |plan: &Plan| {
                pairs.iter().flat_map(|image| reference::output(plan, image)).collect::<Vec<_>>()
            };
            let (wanted, found) = (of(&plan), of(small));
            let power: f64 = wanted.iter().map(|x| x * x).sum();
            wanted.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / power
        };
        let before = error(&small);
        refit(&mut small, &keep, &references, &images, 1).unwrap();
        let after = error(&small);
        assert!(after < 1e-3 && after < 0.05 * before, "{before} became {after}");
    }
}
