//! Lists the layers of a network that can be compressed.

use paretune_kernels::Plan;
use paretune_kernels::executor::{conv_problem, validate};
use paretune_kernels::operator::{ConvProblem, Operator};
use paretune_kernels::weights::WeightValues;

use super::error::CompressError;

/// Compressible layer: a convolution or a dense layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInfo {
    /// Name of the layer's step.
    pub step: String,
    /// Index of the layer's step in [`Plan::steps`].
    pub index: usize,
    /// Weight dimensions: `[out_channels, in_channels / groups, kernel_height, kernel_width]`.
    pub dims: [usize; 4],
    /// Convolution problem of the layer for one image.
    pub problem: ConvProblem,
    /// Number of weights of the layer.
    pub weights: usize,
    /// Largest absolute value of the weights.
    pub largest_weight: f32,
    /// Multiply-adds for one image, before any sparsity.
    pub multiply_adds: u64,
    /// Whether single weights may be removed. Depthwise and grouped layers have nothing to skip.
    pub sparse: bool,
    /// Whether the layer may run on 8-bit integers.
    pub int8: bool,
}

/// Returns the compressible layers in execution order.
///
/// # Errors
///
/// Fails if the plan is not valid.
pub fn layers(plan: &Plan) -> Result<Vec<LayerInfo>, CompressError> {
    validate(plan, 1)?;
    let convolutions = plan.steps.iter().enumerate().filter_map(|(index, step)| {
        let Operator::Conv(conv) = &step.operator else { return None };
        let problem = conv_problem(plan, step, 1)?;
        let weights = &plan.weights[conv.weights];
        let dims = weights.dims;
        let largest = |numbers: &[f32]| numbers.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let largest_weight = match &weights.values {
            WeightValues::Integer(integers) => 127.0 * largest(&integers.scales),
            real => real.reals().map_or(0.0, |values| largest(values)),
        };
        Some(LayerInfo {
            step: step.name.clone(),
            index,
            dims,
            problem,
            weights: dims.iter().product(),
            largest_weight,
            multiply_adds: problem.multiply_adds(),
            sparse: conv.groups == 1,
            int8: true,
        })
    });
    Ok(convolutions.collect())
}
