//! The class that a network's outputs mean.

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::TensorOperator;
use paretune_kernels::{Activation, Plan};

use super::accuracy::largest;

/// Rule that turns the outputs for one image into a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// The class with the largest output, the first one among equals.
    Largest,
    /// The class whose index the only output is, out of this many.
    Place(usize),
    /// Class 1 if the only output is above the threshold, else class 0.
    Above(f32),
}

impl Decision {
    /// Returns the rule for the outputs of `plan`. A single output decides between two classes: at
    /// one half if it is a probability, at zero if it is a logit.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let outputs = plan.values.get(plan.output).map_or(0, paretune_kernels::ValueSpec::len);
        if outputs != 1 {
            return Self::Largest;
        }
        if let Some(classes) = place(plan) {
            return Self::Place(classes);
        }
        let last = plan.steps.iter().rev().find(|step| step.output == plan.output);
        let activation = last.and_then(|step| match &step.operator {
            Operator::Conv(conv) => Some(&conv.activation),
            Operator::Activation(activation) => Some(activation),
            _ => None,
        });
        let probability =
            matches!(activation, Some(Activation::Sigmoid | Activation::HardSigmoid { .. }));
        Self::Above(if probability { 0.5 } else { 0.0 })
    }

    /// Returns the class of one image.
    #[must_use]
    pub fn class(self, outputs: &[f32]) -> u32 {
        match self {
            Self::Largest => largest(outputs),
            Self::Place(classes) => {
                // The index is a whole number below the number of classes.
                let place = outputs.first().map_or(0.0, |output| output.round().max(0.0));
                (place as u32).min(u32::try_from(classes.saturating_sub(1)).unwrap_or(u32::MAX))
            }
            Self::Above(threshold) => {
                u32::from(outputs.first().is_some_and(|&output| output > threshold))
            }
        }
    }

    /// Returns the outputs as one number per class, whose differences of distribution can be
    /// measured.
    #[must_use]
    pub fn per_class(self, outputs: &[f32]) -> Vec<f32> {
        match (self, outputs) {
            (Self::Above(threshold), &[output]) if threshold > 0.0 => {
                let sure = output.clamp(1e-7, 1.0 - 1e-7);
                vec![(1.0 - sure).ln(), sure.ln()]
            }
            (Self::Above(_), &[output]) => vec![0.0, output],
            (Self::Place(classes), outputs) => {
                let chosen = self.class(outputs) as usize;
                (0..classes).map(|class| if class == chosen { SURE } else { 0.0 }).collect()
            }
            _ => outputs.to_vec(),
        }
    }
}

/// Logit of a class that a network names without saying how sure it is.
const SURE: f32 = 10.0;

/// Returns the number of classes if the only output is the place of the largest score.
fn place(plan: &Plan) -> Option<usize> {
    let mut value = plan.output;
    for step in plan.steps.iter().rev() {
        if step.output != value {
            continue;
        }
        if let Operator::Tensor(TensorOperator::Rank { axis, count: 1, positions: true, .. }) =
            step.operator
        {
            return plan.values.get(*step.inputs.first()?)?.dims.get(axis).copied();
        }
        // Shapes may change behind it, and the end from which places are counted.
        let &[input] = &step.inputs[..] else { return None };
        if plan.values.get(input)?.len() != 1 {
            return None;
        }
        value = input;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_output_decides_at_its_threshold() {
        assert_eq!([0.4, 0.6].map(|p| Decision::Above(0.5).class(&[p])), [0, 1]);
        assert_eq!([-0.1, 0.1, f32::NAN].map(|p| Decision::Above(0.0).class(&[p])), [0, 1, 0]);
        assert_eq!(Decision::Largest.class(&[1.0, 3.0, 2.0]), 1);
        assert_eq!([3.0, -1.0, 99.0].map(|place| Decision::Place(5).class(&[place])), [3, 0, 4]);
        assert_eq!(Decision::Place(3).per_class(&[2.0]), [0.0, 0.0, SURE]);
    }

    #[test]
    fn a_probability_becomes_logits_of_two_classes() {
        let logits = Decision::Above(0.5).per_class(&[0.8]);
        assert!((f64::from(logits[1] - logits[0]) - 4.0_f64.ln()).abs() < 1e-6);
        assert_eq!(Decision::Above(0.0).per_class(&[2.0]), [0.0, 2.0]);
    }
}
