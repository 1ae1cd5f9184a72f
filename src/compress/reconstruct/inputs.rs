//! Input statistics of a layer: mean and covariance of the patches that its filters are applied to.
//!
//! Second-order reconstruction needs no more from the calibration images: if the bias is free to
//! follow, changing a filter by `d` changes the layer's output by `dᵀ C d` in mean square.

use crate::linalg::{View, multiply};
use paretune_kernels::operator::ConvProblem;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::CompressError;

/// Largest number of patches that are sampled: enough to distinguish thousands of columns, few
/// enough for layers with large images.
pub(crate) const MAX_PATCHES: usize = 1 << 17;
/// Patches that are multiplied at a time, so that few of them are held in memory.
const BLOCK: usize = 1024;
/// Rows of the covariance in one parallel task.
const TASK_ROWS: usize = 96;

/// Statistics of a layer's patches, group by group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    /// Number of patches that were sampled.
    pub(crate) patches: u64,
    /// Statistics of each group of the convolution.
    pub(crate) groups: Vec<GroupInputs>,
}

/// Statistics of one group. Columns are those of a filter: input channels, then taps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupInputs {
    /// Mean of each column over the patches.
    pub(crate) mean: Vec<f64>,
    /// Lower triangle of the covariance, row by row.
    pub(crate) covariance: Vec<f32>,
}

impl Inputs {
    /// Collects the statistics of the inputs of `problem`. `input` holds the images of its batch,
    /// one after another.
    pub(crate) fn collect(problem: &ConvProblem, input: &[f32]) -> Result<Self, CompressError> {
        let [height, width] = problem.output()?;
        let total = problem.batch * height * width;
        if total == 0
            || input.len()
                != problem.batch * problem.in_channels * problem.input[0] * problem.input[1]
        {
            return Err(CompressError::Calibration("images do not fit a layer's input".into()));
        }
        let positions = spread(total, MAX_PATCHES);
        let patches = Patches { problem, input, output: [height, width] };
        let groups = match problem.groups {
            1 => vec![patches.moments(0, &positions)],
            groups => (0..groups)
                .into_par_iter()
                .map(|group| patches.moments(group, &positions))
                .collect(),
        };
        Ok(Self { patches: positions.len() as u64, groups })
    }
}

impl Inputs {
    /// Returns the statistics of a layer that keeps only some input `channels`, with `taps` taps
    /// per channel; `None` if channels are spread over several groups of more than one.
    pub(crate) fn select(&self, channels: &[bool], taps: usize) -> Option<Self> {
        let columns = |group: &GroupInputs| group.mean.len();
        let groups = match &self.groups[..] {
            [only] if columns(only) == channels.len() * taps => {
                let kept: Vec<usize> =
                    (0..columns(only)).filter(|column| channels[column / taps.max(1)]).collect();
                let mut covariance = Vec::with_capacity(kept.len() * (kept.len() + 1) / 2);
                for (place, &row) in kept.iter().enumerate() {
                    let row = &only.covariance[row * (row + 1) / 2..];
                    covariance.extend(kept[..=place].iter().map(|&column| row[column]));
                }
                vec![GroupInputs {
                    mean: kept.iter().map(|&column| only.mean[column]).collect(),
                    covariance,
                }]
            }
            many if many.len() == channels.len()
                && many.iter().all(|group| columns(group) == taps) =>
            {
                many.iter()
                    .zip(channels)
                    .filter(|&(_, &keep)| keep)
                    .map(|(group, _)| group.clone())
                    .collect()
            }
            _ => return None,
        };
        Some(Self { patches: self.patches, groups })
    }
}

/// Returns at most `most` of `total` positions, spread over all of them with an irregular stride
/// that cannot coincide with the width of an image.
fn spread(total: usize, most: usize) -> Vec<usize> {
    if total <= most {
        return (0..total).collect();
    }
    (0..most)
        .map(|index| {
            let (from, to) = (index * total / most, (index + 1) * total / most);
            from + (index.wrapping_mul(0x9E37_79B9) >> 7) % (to - from).max(1)
        })
        .collect()
}

struct Patches<'a> {
    problem: &'a ConvProblem,
    input: &'a [f32],
    output: [usize; 2],
}

impl Patches<'_> {
    fn moments(&self, group: usize, positions: &[usize]) -> GroupInputs {
        let taps: usize = self.problem.window.kernel.iter().product();
        let size = self.problem.group_in() * taps;
        let mut sums = vec![0.0f64; size];
        let mut products = vec![0.0f64; size * size];
        let mut block = vec![0.0f32; BLOCK.min(positions.len()) * size];
        for positions in positions.chunks(BLOCK) {
            let rows = positions.len();
            let block = &mut block[..rows * size];
            block.par_chunks_mut(size).with_min_len(16).zip(positions).for_each(
                |(patch, &position)| {
                    self.patch(group, position, patch);
                },
            );
            for patch in block.chunks(size) {
                sums.iter_mut().zip(patch).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            let view = View::new(block, rows, size);
            products.par_chunks_mut(TASK_ROWS * size).enumerate().for_each(|(strip, products)| {
                let first = strip * TASK_ROWS;
                let last = (first + TASK_ROWS).min(size);
                let mut part = vec![0.0f32; (last - first) * last];
                multiply(
                    1.0,
                    view.part(0..rows, first..last).t(),
                    view.part(0..rows, 0..last),
                    0.0,
                    &mut part,
                    last,
                );
                for (sums, part) in products.chunks_mut(size).zip(part.chunks(last)) {
                    sums.iter_mut().zip(part).for_each(|(sum, &x)| *sum += f64::from(x));
                }
            });
        }
        let count = positions.len() as f64;
        let mean: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        let mut covariance = Vec::with_capacity(size * (size + 1) / 2);
        for row in 0..size {
            let products = &products[row * size..][..=row];
            covariance.extend(
                products
                    .iter()
                    .zip(&mean)
                    .map(|(product, other)| (product / count - mean[row] * other) as f32),
            );
        }
        GroupInputs { mean, covariance }
    }

    /// Copies the patch under one output position.
    fn patch(&self, group: usize, position: usize, patch: &mut [f32]) {
        let ConvProblem { in_channels, input: [height, width], window, .. } = *self.problem;
        let plane = self.output[0] * self.output[1];
        let (image, y, x) =
            (position / plane, position % plane / self.output[1], position % self.output[1]);
        let channels = self.problem.group_in();
        let first = (image * in_channels + group * channels) * height * width;
        let mut column = 0;
        for channel in 0..channels {
            let source = &self.input[first + channel * height * width..][..height * width];
            for tap_y in 0..window.kernel[0] {
                let row = (y * window.stride[0] + tap_y * window.dilation[0])
                    .checked_sub(window.padding[0])
                    .filter(|&row| row < height);
                for tap_x in 0..window.kernel[1] {
                    let at = (x * window.stride[1] + tap_x * window.dilation[1])
                        .checked_sub(window.padding[1])
                        .filter(|&at| at < width);
                    patch[column] = match (row, at) {
                        (Some(row), Some(at)) => source[row * width + at],
                        _ => 0.0,
                    };
                    column += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use paretune_kernels::operator::Window;

    use super::*;

    #[test]
    fn moments_are_those_of_the_patches() {
        // Two groups of one channel, a kernel of two columns, one column of padding on the left.
        let window =
            Window { kernel: [1, 2], stride: [1, 1], dilation: [1, 1], padding: [0, 1, 0, 0] };
        let problem = ConvProblem {
            batch: 2,
            in_channels: 2,
            out_channels: 2,
            groups: 2,
            input: [1, 2],
            window,
        };
        let inputs =
            Inputs::collect(&problem, &[1.0, 2.0, 10.0, 20.0, 3.0, 5.0, 30.0, 50.0]).unwrap();
        assert_eq!((inputs.patches, inputs.groups.len()), (4, 2));
        // Patches of the first group: (0, 1), (1, 2), (0, 3), (3, 5).
        let first = &inputs.groups[0];
        assert_eq!(first.mean, [1.0, 2.75]);
        assert_eq!(first.covariance, [1.5, 1.5, 9.75 - 2.75 * 2.75]);
        assert_eq!(inputs.groups[1].mean, [10.0, 27.5]);
        assert!(Inputs::collect(&problem, &[1.0]).is_err());
    }

    #[test]
    fn channels_are_selected_with_their_taps() {
        let moments = |size: usize| GroupInputs {
            mean: (0..size).map(|x| x as f64).collect(),
            covariance: (0..size * (size + 1) / 2).map(|x| x as f32).collect(),
        };
        let inputs = Inputs { patches: 9, groups: vec![moments(4)] };
        let half = inputs.select(&[false, true], 2).unwrap();
        assert_eq!(half.groups[0].mean, [2.0, 3.0]);
        assert_eq!(half.groups[0].covariance, [5.0, 8.0, 9.0]);
        assert!(inputs.select(&[true; 3], 2).is_none());
        let depthwise = Inputs { patches: 9, groups: vec![moments(1), moments(1), moments(1)] };
        assert_eq!(depthwise.select(&[true, false, true], 1).unwrap().groups.len(), 2);
    }

    #[test]
    fn positions_are_spread_over_all() {
        let spread = spread(1000, 64);
        assert_eq!(spread.len(), 64);
        assert!(spread.is_sorted() && spread[0] < 16 && spread[63] >= 984 && spread[63] < 1000);
    }
}
