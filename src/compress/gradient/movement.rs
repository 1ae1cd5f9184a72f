//! Operators that move, select or average numbers, and the layout `[channel][image][position]`.

use paretune_kernels::operator::{Operator, Window};

/// Returns the numbers per image for one coordinate of the first axis.
pub(super) fn image_stride(dims: &[usize]) -> usize {
    dims.get(1..).map_or(1, |rest| rest.iter().product())
}

/// Returns the distance from one coordinate of `axis` to the next.
pub(super) fn stride(dims: &[usize], images: usize, axis: usize) -> usize {
    if axis == 0 { images * image_stride(dims) } else { dims[axis + 1..].iter().product() }
}

/// Calls `see(index, image)` for every number in the order of the layout.
pub(super) fn visit(dims: &[usize], images: usize, mut see: impl FnMut(&[usize], usize)) {
    let rank = dims.len();
    let mut index = vec![0; rank];
    let per_image = image_stride(dims);
    for first in 0..dims.first().copied().unwrap_or(1) {
        for image in 0..images {
            index.fill(0);
            if rank > 0 {
                index[0] = first;
            }
            for _ in 0..per_image {
                see(&index, image);
                for axis in (1..rank).rev() {
                    index[axis] += 1;
                    if index[axis] < dims[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
        }
    }
}

/// Converts images one after another to `[channel][image][position]`.
pub(super) fn interleave(dims: &[usize], images: usize, data: &[f32]) -> Vec<f32> {
    let (channels, plane) = (dims.first().copied().unwrap_or(1), image_stride(dims));
    let mut out = Vec::with_capacity(data.len());
    for channel in 0..channels {
        for image in 0..images {
            out.extend_from_slice(&data[(image * channels + channel) * plane..][..plane]);
        }
    }
    out
}

/// Converts `[channel][image][position]` back to images one after another.
pub(super) fn separate(dims: &[usize], images: usize, data: &[f32]) -> Vec<f32> {
    let (channels, plane) = (dims.first().copied().unwrap_or(1), image_stride(dims));
    let mut out = Vec::with_capacity(data.len());
    for image in 0..images {
        for channel in 0..channels {
            out.extend_from_slice(&data[(channel * images + image) * plane..][..plane]);
        }
    }
    out
}

/// Returns the layout position in image 0 of the row-major position `flat`.
fn place(dims: &[usize], images: usize, flat: usize) -> usize {
    let plane = image_stride(dims);
    flat / plane * plane * images + flat % plane
}

/// Calls `see(place, image, flat)` for every number of an output, in order; `flat` is row-major
/// within an image.
fn each(dims: &[usize], images: usize, mut see: impl FnMut(usize, usize, usize)) {
    let plane = image_stride(dims);
    let mut at = 0;
    for first in 0..dims.first().copied().unwrap_or(1) {
        for image in 0..images {
            for position in 0..plane {
                see(at, image, first * plane + position);
                at += 1;
            }
        }
    }
}

/// Iterates over the input positions under a window at the output position `[row, column]`.
fn seen(window: &Window, input: [usize; 2], at: [usize; 2]) -> impl Iterator<Item = usize> {
    let tap = move |axis: usize, tap: usize| {
        (at[axis] * window.stride[axis] + tap * window.dilation[axis])
            .checked_sub(window.padding[axis])
            .filter(|&position| position < input[axis])
    };
    let [kh, kw] = window.kernel;
    let (tap_row, tap_column) = (tap, tap);
    let window_columns =
        move |row: usize| (0..kw).filter_map(move |kx| Some(row * input[1] + tap_column(1, kx)?));
    (0..kh).filter_map(move |ky| tap_row(0, ky)).flat_map(window_columns)
}

fn image_size(dims: &[usize]) -> [usize; 2] {
    [1, 2].map(|axis| dims.get(axis).copied().unwrap_or(1))
}

/// Returns the position of the largest input under the window, for every number of the output.
pub(super) fn largest(
    window: &Window,
    dims: &[usize],
    out: &[usize],
    images: usize,
    input: &[f32],
) -> Vec<u32> {
    let (size, width) = (image_size(dims), image_size(out)[1]);
    let plane = image_stride(dims);
    let positions = image_stride(out);
    let windows: Vec<Vec<usize>> =
        (0..positions).map(|at| seen(window, size, [at / width, at % width]).collect()).collect();
    let mut chosen = Vec::with_capacity(positions * images * out[0]);
    for start in (0..out[0] * images).map(|row| row * plane) {
        for window in &windows {
            // The first of equals wins. A window in the padding alone does not exist in valid
            // plans.
            let best = window
                .iter()
                .copied()
                .reduce(|best, at| if input[start + at] > input[start + best] { at } else { best });
            chosen.push((start + best.unwrap_or(0)) as u32);
        }
    }
    chosen
}

/// Input positions that each output number of one image averages, with their weight.
pub(super) struct Means {
    terms: Vec<(Vec<usize>, f32)>,
}

/// Builds the averages of a pooling operator or a mean over axes.
pub(super) fn means(operator: &Operator, dims: &[usize], out: &[usize]) -> Means {
    let total: usize = out.iter().product();
    let mut terms: Vec<(Vec<usize>, f32)> = vec![(Vec::new(), 0.0); total];
    match operator {
        Operator::AveragePool { window, include_padding, .. } => {
            let (size, width, positions) =
                (image_size(dims), image_size(out)[1], image_stride(out));
            let plane = image_stride(dims);
            for (flat, (sources, weight)) in terms.iter_mut().enumerate() {
                let at = [flat % positions / width, flat % positions % width];
                sources
                    .extend(seen(window, size, at).map(|source| flat / positions * plane + source));
                let within = |axis: usize| {
                    let end = size[axis] + window.padding[axis] + window.padding[axis + 2];
                    (0..window.kernel[axis])
                        .filter(|tap| {
                            at[axis] * window.stride[axis] + tap * window.dilation[axis] < end
                        })
                        .count()
                };
                let count = if *include_padding { within(0) * within(1) } else { sources.len() };
                *weight = 1.0 / count.max(1) as f32;
            }
        }
        operator => {
            let every: Vec<usize> = (1..dims.len()).collect();
            let axes = match operator {
                Operator::ReduceMean { axes } => axes,
                _ => &every,
            };
            let strides: Vec<usize> =
                (0..out.len()).map(|axis| out[axis + 1..].iter().product()).collect();
            let mut flat = 0;
            visit(dims, 1, |index, _| {
                let kept = index.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                let target: usize = kept.map(|(axis, i)| i * strides[axis]).sum();
                terms[target].0.push(flat);
                flat += 1;
            });
            terms
                .iter_mut()
                .for_each(|(sources, weight)| *weight = 1.0 / sources.len().max(1) as f32);
        }
    }
    Means { terms }
}

impl Means {
    pub(super) fn forward(
        &self,
        input: &[f32],
        images: usize,
        dims: &[usize],
        out: &[usize],
    ) -> Vec<f32> {
        let mut output = vec![0.0; self.terms.len() * images];
        let step = image_stride(dims);
        each(out, images, |at, image, flat| {
            let (sources, weight) = &self.terms[flat];
            let sum: f32 = sources
                .iter()
                .map(|&source| input[place(dims, images, source) + image * step])
                .sum();
            output[at] = weight * sum;
        });
        output
    }

    pub(super) fn backward(
        &self,
        gradient: &[f32],
        images: usize,
        dims: &[usize],
        out: &[usize],
    ) -> Vec<f32> {
        let mut back = vec![0.0; dims.iter().product::<usize>() * images];
        let step = image_stride(dims);
        each(out, images, |at, image, flat| {
            let (sources, weight) = &self.terms[flat];
            for &source in sources {
                back[place(dims, images, source) + image * step] += weight * gradient[at];
            }
        });
        back
    }
}

/// Origin of each output number of one image: input and row-major position, or a constant.
pub(super) struct Sources {
    from: Vec<Result<(usize, usize), f32>>,
}

/// Builds the origins for reshapes, transpositions, paddings and concatenations.
pub(super) fn sources(operator: &Operator, inputs: &[&[usize]], out: &[usize]) -> Sources {
    let flat = |dims: &[usize], index: &[usize]| {
        dims.iter().zip(index).fold(0, |flat, (size, i)| flat * size + i)
    };
    let mut from = Vec::with_capacity(out.iter().product());
    visit(out, 1, |index, _| {
        from.push(match operator {
            Operator::Concat { axis } => {
                let mut index = index.to_vec();
                let mut input = 0;
                while input + 1 < inputs.len() && index[*axis] >= inputs[input][*axis] {
                    index[*axis] -= inputs[input][*axis];
                    input += 1;
                }
                Ok((input, flat(inputs[input], &index)))
            }
            Operator::Pad { padding, value } => {
                let source: Option<Vec<usize>> = index
                    .iter()
                    .zip(padding)
                    .zip(inputs[0])
                    .map(|((&i, [before, _]), &size)| i.checked_sub(*before).filter(|&i| i < size))
                    .collect();
                source.map_or(Err(*value), |source| Ok((0, flat(inputs[0], &source))))
            }
            Operator::Transpose { permutation } => {
                let mut source = vec![0; index.len()];
                permutation.iter().zip(index).for_each(|(&axis, &i)| source[axis] = i);
                Ok((0, flat(inputs[0], &source)))
            }
            // A reshape keeps the row-major order.
            _ => Ok((0, flat(out, index))),
        });
    });
    Sources { from }
}

impl Sources {
    pub(super) fn forward(
        &self,
        data: &[&[f32]],
        inputs: &[&[usize]],
        out: &[usize],
        images: usize,
    ) -> Vec<f32> {
        let mut output = vec![0.0; self.from.len() * images];
        each(out, images, |at, image, flat| {
            output[at] = match self.from[flat] {
                Ok((input, source)) => {
                    let dims = inputs[input];
                    data[input][place(dims, images, source) + image * image_stride(dims)]
                }
                Err(constant) => constant,
            };
        });
        output
    }

    pub(super) fn backward(
        &self,
        gradient: &[f32],
        inputs: &[&[usize]],
        out: &[usize],
        images: usize,
    ) -> Vec<Vec<f32>> {
        let mut back: Vec<Vec<f32>> =
            inputs.iter().map(|dims| vec![0.0; dims.iter().product::<usize>() * images]).collect();
        each(out, images, |at, image, flat| {
            if let Ok((input, source)) = self.from[flat] {
                let dims = inputs[input];
                back[input][place(dims, images, source) + image * image_stride(dims)] +=
                    gradient[at];
            }
        });
        back
    }
}
