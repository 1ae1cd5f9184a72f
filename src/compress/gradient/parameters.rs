//! Learnable parameters of a plan.

use paretune_kernels::operator::Operator;
use paretune_kernels::reference::real_weights;
use paretune_kernels::{Plan, Step};

use crate::error::CompressError;

/// Weights and biases of a plan as learnable numbers, in the order of [`Plan::weights`].
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    /// Weights, in the order of their dimensions.
    pub(super) weights: Vec<Vec<f32>>,
    /// Biases of each output channel; zeros for layers without a bias.
    pub(super) biases: Vec<Vec<f32>>,
}

impl Parameters {
    /// Returns the real values of a plan's weights, whatever their format.
    pub(super) fn of(plan: &Plan) -> Self {
        let weights = plan
            .weights
            .iter()
            .map(|weights| real_weights(weights).into_iter().map(|x| x as f32).collect())
            .collect();
        let biases = plan
            .weights
            .iter()
            .map(|weights| {
                weights
                    .bias
                    .as_ref()
                    .map_or_else(|| vec![0.0; weights.dims[0]], |bias| bias.to_vec())
            })
            .collect();
        Self { weights, biases }
    }

    /// Creates parameters of equal sizes that are all zero.
    pub(super) fn zeros(&self) -> Self {
        let zeros = |all: &[Vec<f32>]| all.iter().map(|numbers| vec![0.0; numbers.len()]).collect();
        Self { weights: zeros(&self.weights), biases: zeros(&self.biases) }
    }

    /// Adds the numbers of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = self.weights.iter_mut().zip(&other.weights);
        for (sum, more) in pairs.chain(self.biases.iter_mut().zip(&other.biases)) {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
}

/// Checks that every step has a derivative, so that channels can be ranked by Fisher information
/// and the network can be trained.
///
/// # Errors
///
/// Fails with the name of the first step without a derivative.
pub fn trainable(plan: &Plan) -> Result<(), CompressError> {
    let fixed = |step: &&Step| matches!(step.operator, Operator::Lrn { .. } | Operator::Tensor(_));
    match plan.steps.iter().find(fixed) {
        Some(step) => Err(CompressError::plan(
            &step.name,
            "cannot be trained: its operator has no derivative",
        )),
        None => Ok(()),
    }
}
