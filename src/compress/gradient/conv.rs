//! Convolutions of several images at once and their derivatives, as matrix products.
//!
//! Values have the layout `[channel][image][position]`. The output of a convolution is then one
//! matrix with a row per channel, whatever the number of images, so late layers with few positions
//! are as fast as early ones.

use crate::linalg::{View, multiply};
use paretune_kernels::operator::Window;

/// Largest number of unfolded inputs held at a time, about the size of a second-level cache.
const UNFOLDED: usize = 1 << 18;

/// Sizes of one convolution over `images` images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) images: usize,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) groups: usize,
    /// Size of the input, `[height, width]`.
    pub(super) input: [usize; 2],
    /// Size of the output, `[height, width]`.
    pub(super) output: [usize; 2],
    pub(super) window: Window,
}

impl Shape {
    fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    fn taps(&self) -> usize {
        self.window.kernel.iter().product()
    }

    /// Returns the number of weights of one output channel.
    pub(super) fn depth(&self) -> usize {
        self.group_in() * self.taps()
    }

    fn positions(&self) -> usize {
        self.output.iter().product()
    }

    fn plane(&self) -> usize {
        self.input.iter().product()
    }

    /// Returns whether unfolding would change nothing.
    fn is_pointwise(&self) -> bool {
        let Window { kernel, stride, padding, .. } = self.window;
        kernel == [1, 1] && stride == [1, 1] && padding == [0; 4]
    }

    fn is_depthwise(&self) -> bool {
        self.group_in() == 1 && self.group_out() == 1
    }

    /// Returns the number of images that are unfolded at a time.
    fn chunk(&self) -> usize {
        (UNFOLDED / (self.depth() * self.positions()).max(1)).clamp(1, self.images.max(1))
    }

    /// Returns the range of output positions along `axis` that read the input at tap `tap`: the
    /// first, one past the last, and the input position of the first.
    fn meets(&self, axis: usize, tap: usize) -> (usize, usize, usize) {
        let (stride, before) = (self.window.stride[axis], self.window.padding[axis]);
        let offset = tap * self.window.dilation[axis];
        let first = before.saturating_sub(offset).div_ceil(stride);
        // Smallest output position beyond the input.
        let end = (self.input[axis] + before).saturating_sub(offset).div_ceil(stride);
        let end = end.min(self.output[axis]);
        let first = first.min(end);
        (first, end, (first * stride + offset).saturating_sub(before))
    }

    /// Returns every run of positions of a row that one tap moves: `(tap, output start, input
    /// start, length)`.
    fn runs(&self) -> Vec<(usize, usize, usize, usize)> {
        let [kh, kw] = self.window.kernel;
        let mut runs = Vec::new();
        for ky in 0..kh {
            let (top, bottom, first_row) = self.meets(0, ky);
            for kx in 0..kw {
                let (left, right, first_column) = self.meets(1, kx);
                for row in top..bottom {
                    let from = (first_row + (row - top) * self.window.stride[0]) * self.input[1];
                    let start = row * self.output[1] + left;
                    runs.push((ky * kw + kx, start, from + first_column, right - left));
                }
            }
        }
        runs
    }

    /// Unfolds the channels of `group` of images `first..first + count`: a row per channel and tap.
    fn unfold(
        &self,
        input: &[f32],
        group: usize,
        first: usize,
        count: usize,
        columns: &mut Vec<f32>,
    ) {
        let (plane, positions, taps) = (self.plane(), self.positions(), self.taps());
        let width = count * positions;
        columns.clear();
        columns.resize(self.depth() * width, 0.0);
        let (runs, stride) = (self.runs(), self.window.stride[1]);
        for channel in 0..self.group_in() {
            let source = &input[(group * self.group_in() + channel) * self.images * plane..];
            let rows = &mut columns[channel * taps * width..][..taps * width];
            for image in 0..count {
                let source = &source[(first + image) * plane..][..plane];
                for &(tap, start, from, length) in &runs {
                    let to = &mut rows[tap * width + image * positions + start..][..length];
                    if stride == 1 {
                        to.copy_from_slice(&source[from..from + length]);
                    } else {
                        let source = source[from..].iter().step_by(stride);
                        to.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        }
    }

    /// Adds unfolded columns back to the input positions that [`Shape::unfold`] read them from.
    fn fold(&self, columns: &[f32], group: usize, first: usize, count: usize, input: &mut [f32]) {
        let (plane, positions, taps) = (self.plane(), self.positions(), self.taps());
        let width = count * positions;
        let (runs, stride) = (self.runs(), self.window.stride[1]);
        for channel in 0..self.group_in() {
            let target = &mut input[(group * self.group_in() + channel) * self.images * plane..];
            let rows = &columns[channel * taps * width..][..taps * width];
            for image in 0..count {
                let target = &mut target[(first + image) * plane..][..plane];
                for &(tap, start, from, length) in &runs {
                    let rows = &rows[tap * width + image * positions + start..][..length];
                    if stride == 1 {
                        target[from..from + length]
                            .iter_mut()
                            .zip(rows)
                            .for_each(|(to, from)| *to += from);
                    } else {
                        let target = target[from..].iter_mut().step_by(stride);
                        target.zip(rows).for_each(|(to, from)| *to += from);
                    }
                }
            }
        }
    }
}

/// Computes the convolution with its bias.
pub(super) fn forward(shape: &Shape, input: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let (positions, depth) = (shape.positions(), shape.depth());
    let row = shape.images * positions;
    let mut output = vec![0.0; shape.out_channels * row];
    for (row, bias) in output.chunks_mut(row.max(1)).zip(bias) {
        row.fill(*bias);
    }
    if shape.is_depthwise() {
        depthwise(shape, |channel, tap, image, start, from, length| {
            let weight = weights[channel * depth + tap];
            let source = &input[(channel * shape.images + image) * shape.plane() + from..];
            let target = &mut output[channel * row + image * positions + start..][..length];
            if shape.window.stride[1] == 1 {
                target.iter_mut().zip(source).for_each(|(y, x)| *y += weight * x);
            } else {
                let source = source.iter().step_by(shape.window.stride[1]);
                target.iter_mut().zip(source).for_each(|(y, x)| *y += weight * x);
            }
        });
        return output;
    }
    let mut columns = Vec::new();
    let rows = shape.group_out();
    for group in 0..shape.groups {
        let weights = View::new(&weights[group * rows * depth..], rows, depth);
        if shape.is_pointwise() {
            let input = View::new(&input[group * depth * row..], depth, row);
            multiply(1.0, weights, input, 1.0, &mut output[group * rows * row..], row);
            continue;
        }
        for first in (0..shape.images).step_by(shape.chunk()) {
            let count = shape.chunk().min(shape.images - first);
            shape.unfold(input, group, first, count, &mut columns);
            let columns = View::new(&columns, depth, count * positions);
            let place = &mut output[group * rows * row + first * positions..];
            multiply(1.0, weights, columns, 1.0, place, row);
        }
    }
    output
}

/// Computes the gradients with respect to the input, and adds those of weights and bias to
/// `parameter_gradients` if given.
pub(super) fn backward(
    shape: &Shape,
    input: &[f32],
    weights: &[f32],
    output_gradient: &[f32],
    mut parameter_gradients: Option<(&mut [f32], &mut [f32])>,
    input_wanted: bool,
) -> Vec<f32> {
    let (positions, depth) = (shape.positions(), shape.depth());
    let row = shape.images * positions;
    let mut input_gradient = vec![0.0; if input_wanted { input.len() } else { 0 }];
    if let Some((_, bias_gradients)) = &mut parameter_gradients {
        for (sum, row) in bias_gradients.iter_mut().zip(output_gradient.chunks(row.max(1))) {
            *sum += row.iter().sum::<f32>();
        }
    }
    if shape.is_depthwise() {
        let stride = shape.window.stride[1];
        depthwise(shape, |channel, tap, image, start, from, length| {
            let at = (channel * shape.images + image) * shape.plane() + from;
            let output_rows =
                &output_gradient[channel * row + image * positions + start..][..length];
            if let Some((weight_gradients, _)) = &mut parameter_gradients {
                let source = &input[at..];
                weight_gradients[channel * depth + tap] += if stride == 1 {
                    output_rows.iter().zip(source).map(|(g, x)| g * x).sum::<f32>()
                } else {
                    output_rows
                        .iter()
                        .zip(source.iter().step_by(stride))
                        .map(|(g, x)| g * x)
                        .sum::<f32>()
                };
            }
            if input_wanted {
                let weight = weights[channel * depth + tap];
                let target = &mut input_gradient[at..];
                if stride == 1 {
                    target.iter_mut().zip(output_rows).for_each(|(to, g)| *to += weight * g);
                } else {
                    target
                        .iter_mut()
                        .step_by(stride)
                        .zip(output_rows)
                        .for_each(|(to, g)| *to += weight * g);
                }
            }
        });
        return input_gradient;
    }
    let (mut columns, mut column_gradients) = (Vec::new(), Vec::new());
    let rows = shape.group_out();
    for group in 0..shape.groups {
        let filters = group * rows * depth..(group + 1) * rows * depth;
        let kernel = View::new(&weights[filters.clone()], rows, depth);
        let output_rows = View::new(&output_gradient[group * rows * row..], rows, row);
        if shape.is_pointwise() {
            let channels = group * depth * row..(group + 1) * depth * row;
            if let Some((weight_gradients, _)) = &mut parameter_gradients {
                let input = View::new(&input[channels.clone()], depth, row);
                multiply(1.0, output_rows, input.t(), 1.0, &mut weight_gradients[filters], depth);
            }
            if input_wanted {
                multiply(1.0, kernel.t(), output_rows, 0.0, &mut input_gradient[channels], row);
            }
            continue;
        }
        for first in (0..shape.images).step_by(shape.chunk()) {
            let count = shape.chunk().min(shape.images - first);
            let width = count * positions;
            let output_rows =
                output_rows.part(0..rows, first * positions..first * positions + width);
            if let Some((weight_gradients, _)) = &mut parameter_gradients {
                shape.unfold(input, group, first, count, &mut columns);
                let columns = View::new(&columns, depth, width);
                multiply(
                    1.0,
                    output_rows,
                    columns.t(),
                    1.0,
                    &mut weight_gradients[filters.clone()],
                    depth,
                );
            }
            if input_wanted {
                column_gradients.resize(depth * width, 0.0);
                multiply(1.0, kernel.t(), output_rows, 0.0, &mut column_gradients, width);
                shape.fold(&column_gradients, group, first, count, &mut input_gradient);
            }
        }
    }
    input_gradient
}

/// Calls `run(channel, tap, image, output start, input start, length)` for every run of a depthwise
/// convolution.
fn depthwise(shape: &Shape, mut run: impl FnMut(usize, usize, usize, usize, usize, usize)) {
    let runs = shape.runs();
    for channel in 0..shape.out_channels {
        for image in 0..shape.images {
            for &(tap, start, from, length) in &runs {
                run(channel, tap, image, start, from, length);
            }
        }
    }
}
