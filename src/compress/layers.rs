//! Which steps of a network can be compressed, and what is worth doing to them.

use paretune_kernels::operator::{Conv, ConvProblem, Operator};
use paretune_kernels::{Plan, Step};

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
}

/// The compressible layers, in execution order.
///
/// # Errors
/// Where a step's shapes do not fit together.
pub fn layers(plan: &Plan) -> Result<Vec<LayerInfo>, CompressError> {
    let mut layers = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let Operator::Conv(conv) = &step.operator else { continue };
        let problem = problem(plan, step, conv)?;
        let dims = plan.weights[conv.weights].dims;
        layers.push(LayerInfo {
            step: step.name.clone(),
            index,
            dims,
            problem,
            weights: dims.iter().product(),
            multiply_adds: problem.multiply_adds(),
            sparse: conv.groups == 1,
            int8: true,
        });
    }
    Ok(layers)
}

/// The problem of a convolution step for one image, with its shapes checked.
pub(super) fn problem(plan: &Plan, step: &Step, conv: &Conv) -> Result<ConvProblem, CompressError> {
    let wrong = |problem: &str| CompressError::plan(&step.name, problem);
    let weights = plan.weights.get(conv.weights).ok_or_else(|| wrong("has no weights"))?;
    let input = step.inputs.first().and_then(|&value| plan.values.get(value));
    let [channels, height, width] = match input.map(|value| value.dims.as_slice()) {
        Some(&[channels, height, width]) => [channels, height, width],
        Some(&[features]) => [features, 1, 1],
        _ => return Err(wrong("the input of a convolution has one or three dimensions")),
    };
    let problem = ConvProblem {
        batch: 1,
        in_channels: channels,
        out_channels: weights.dims[0],
        groups: conv.groups,
        input: [height, width],
        window: conv.window,
    };
    let divides = conv.groups > 0 && channels % conv.groups == 0 && weights.dims[0] % conv.groups == 0;
    if !divides || weights.dims[1] != channels / conv.groups {
        return Err(wrong("groups, weights and channels of the input do not fit together"));
    }
    if weights.dims[2..] != conv.window.kernel {
        return Err(wrong("weights and window differ in size"));
    }
    if weights.dims.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim)) != Some(weights.values.len()) {
        return Err(wrong("the weights are not as many as their shape says"));
    }
    if weights.bias.as_ref().is_some_and(|bias| bias.len() != weights.dims[0]) {
        return Err(wrong("there is not one bias per output channel"));
    }
    problem.output()?;
    Ok(problem)
}
