//! Which steps of a network can be compressed, and what is worth doing to them.

use paretune_kernels::Plan;
use paretune_kernels::executor::{conv_problem, validate};
use paretune_kernels::operator::{ConvProblem, Operator};
use paretune_kernels::weights::FP16_MAX;

use super::error::CompressError;

/// One convolution or dense layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInfo {
    /// Name of the step.
    pub step: String,
    /// Index into [`Plan::steps`].
    pub index: usize,
    /// `[out_channels, in_channels / groups, kernel_height, kernel_width]`
    pub dims: [usize; 4],
    /// The problem it solves for one image.
    pub problem: ConvProblem,
    /// Number of weights.
    pub weights: usize,
    /// Multiply-adds for one image, before any sparsity.
    pub multiply_adds: u64,
    /// Whether single weights may be removed: not where every group is tiny (depthwise), as there is
    /// nothing to skip over.
    pub sparse: bool,
    /// Whether it may run on 8-bit integers.
    pub int8: bool,
    /// Whether half precision holds numbers as large as its weights.
    pub fp16: bool,
}

/// The compressible layers, in execution order.
///
/// # Errors
/// Where the plan is not valid.
pub fn layers(plan: &Plan) -> Result<Vec<LayerInfo>, CompressError> {
    validate(plan, 1)?;
    let convolutions = plan.steps.iter().enumerate().filter_map(|(index, step)| {
        let Operator::Conv(conv) = &step.operator else { return None };
        let problem = conv_problem(plan, step, 1)?;
        let weights = &plan.weights[conv.weights];
        let dims = weights.dims;
        Some(LayerInfo {
            step: step.name.clone(),
            index,
            dims,
            problem,
            weights: dims.iter().product(),
            multiply_adds: problem.multiply_adds(),
            sparse: conv.groups == 1,
            int8: true,
            fp16: weights.values.reals().is_none_or(|all| all.iter().all(|x| x.abs() <= FP16_MAX)),
        })
    });
    Ok(convolutions.collect())
}
