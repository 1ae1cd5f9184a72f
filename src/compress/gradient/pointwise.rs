//! Pointwise operators and softmax, with their derivatives.

use paretune_kernels::Activation;

/// Applies an activation in place.
pub(super) fn activate(activation: Activation, data: &mut [f32]) {
    match activation.as_clamp() {
        Some((low, high)) if activation != Activation::Identity => {
            data.iter_mut().for_each(|x| *x = x.max(low).min(high));
        }
        Some(_) => {}
        None => data.iter_mut().for_each(|x| *x = activation.apply(*x)),
    }
}

/// Returns whether the derivative of an activation does not follow from its result.
pub(super) fn needs_before(activation: Activation) -> bool {
    matches!(activation, Activation::HardSwish)
}

/// Multiplies `gradient` by the derivative of an activation with the result `after`, and the
/// argument `before` if [`needs_before`] asks for it.
pub(super) fn activate_back(
    activation: Activation,
    after: &[f32],
    before: &[f32],
    gradient: &mut [f32],
) {
    let pairs = gradient.iter_mut().zip(after);
    match activation {
        Activation::Identity => {}
        Activation::Relu => pairs.for_each(|(g, &y)| *g = if y > 0.0 { *g } else { 0.0 }),
        Activation::Clip { low, high } => {
            pairs.for_each(|(g, &y)| *g = if y > low && y < high { *g } else { 0.0 });
        }
        // The sign is that of the result if the negative slope is positive, as in every trained
        // network.
        Activation::LeakyRelu { slope } => {
            pairs.for_each(|(g, &y)| *g *= if y > 0.0 { 1.0 } else { slope })
        }
        Activation::Sigmoid => pairs.for_each(|(g, &y)| *g *= y * (1.0 - y)),
        Activation::HardSigmoid { alpha, .. } => {
            pairs.for_each(|(g, &y)| *g *= if y > 0.0 && y < 1.0 { alpha } else { 0.0 });
        }
        Activation::HardSwish => {
            for (g, &x) in gradient.iter_mut().zip(before) {
                *g *= if x <= -3.0 {
                    0.0
                } else if x >= 3.0 {
                    1.0
                } else {
                    x / 3.0 + 0.5
                };
            }
        }
    }
}

/// Index of the input number for each output number, under broadcasting.
pub(super) struct Spread {
    /// Input places by output place; `None` if the shapes are equal.
    places: Option<Vec<u32>>,
}

impl Spread {
    pub(super) fn at(&self, output: usize) -> usize {
        self.places.as_ref().map_or(output, |places| places[output] as usize)
    }
}

/// Builds the broadcasting index by NumPy's rule: axes are aligned at the last one, and those of
/// size 1 are repeated. The batch axis follows the first axis on either side.
pub(super) fn spread(dims: &[usize], out: &[usize], images: usize) -> Spread {
    if dims == out {
        return Spread { places: None };
    }
    // Strides of the input's axes in its own layout, for the axes of the output.
    let own: Vec<usize> =
        (0..dims.len()).map(|axis| super::movement::stride(dims, images, axis)).collect();
    let strides: Vec<usize> = (0..out.len())
        .map(|axis| match (axis + dims.len()).checked_sub(out.len()) {
            Some(at) if dims[at] != 1 => own[at],
            _ => 0,
        })
        .collect();
    let image_stride = super::movement::image_stride(dims);
    let mut places = Vec::with_capacity(out.iter().product::<usize>() * images);
    super::movement::visit(out, images, |index, image| {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        places.push((at + image * image_stride) as u32);
    });
    Spread { places: Some(places) }
}

/// Returns start and stride of every line along `axis`.
fn lines(dims: &[usize], axis: usize, images: usize) -> Vec<(usize, usize)> {
    let stride = super::movement::stride(dims, images, axis);
    let mut starts = Vec::new();
    let mut at = 0;
    super::movement::visit(dims, images, |index, _| {
        if index[axis] == 0 {
            starts.push((at, stride));
        }
        at += 1;
    });
    starts
}

pub(super) fn softmax(dims: &[usize], axis: usize, images: usize, input: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; input.len()];
    for (start, stride) in lines(dims, axis, images) {
        let places = || (0..dims[axis]).map(|i| start + i * stride);
        let top = places().map(|at| input[at]).fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = places().map(|at| (input[at] - top).exp()).sum();
        places().for_each(|at| output[at] = (input[at] - top).exp() / sum);
    }
    output
}

pub(super) fn softmax_back(
    dims: &[usize],
    axis: usize,
    images: usize,
    output: &[f32],
    gradient: &[f32],
) -> Vec<f32> {
    let mut back = vec![0.0; output.len()];
    for (start, stride) in lines(dims, axis, images) {
        let places = || (0..dims[axis]).map(|i| start + i * stride);
        let mean: f32 = places().map(|at| output[at] * gradient[at]).sum();
        places().for_each(|at| back[at] = output[at] * (gradient[at] - mean));
    }
    back
}

/// Computes the softmax of the outputs divided by a temperature.
pub(super) fn softened(output: &[f32], temperature: f32) -> Vec<f32> {
    let top = output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = output.iter().map(|x| ((x - top) / temperature).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|x| x / sum).collect()
}
