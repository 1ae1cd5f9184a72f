//! Weights of the student: shadows in single precision, and the numbers rounded from them.

use paretune_kernels::weights::Pattern;
use paretune_kernels::{Plan, WeightValues};
use rayon::prelude::*;

use super::parameters::Parameters;
use crate::error::CompressError;

/// Student of a distillation: learned parameters and the state of the optimizer.
#[derive(Clone)]
pub(super) struct Student {
    /// Student parameters in single precision.
    shadow: Parameters,
    /// Parameters that the network computes with: rounded, zeros kept.
    pub(super) effective: Parameters,
    /// By weights: mask of those that may be other than zero; `None` for all.
    masks: Vec<Option<Vec<bool>>>,
    /// By weights: scales, lowest and highest value of a grid.
    grids: Vec<Option<(Vec<f32>, f32, f32)>>,
    /// First and second moments of the gradients.
    moments: [Parameters; 2],
    steps: i32,
}

impl Student {
    pub(super) fn new(plan: &Plan) -> Self {
        let effective = Parameters::of(plan);
        let masks = plan.weights.iter().zip(&effective.weights).map(|(weights, values)| {
            (weights.pattern != Pattern::Dense).then(|| values.iter().map(|&x| x != 0.0).collect())
        });
        let grids = plan.weights.iter().map(|weights| match &weights.values {
            WeightValues::F32(_) | WeightValues::Bf16(_) | WeightValues::Fp16(_) => None,
            WeightValues::Integer(integer) => {
                let (low, high) = integer.grid.levels();
                Some((integer.scales.to_vec(), f32::from(low), f32::from(high)))
            }
        });
        let (masks, grids) = (masks.collect(), grids.collect());
        let moments = [effective.zeros(), effective.zeros()];
        Self { shadow: effective.clone(), effective, masks, grids, moments, steps: 0 }
    }

    /// Takes one step of Adam (Kingma and Ba, 2015).
    pub(super) fn learn(&mut self, gradients: &Parameters, scale: f32, rate: f32) {
        self.steps += 1;
        let corrections = [1.0 - 0.9f32.powi(self.steps), 1.0 - 0.99f32.powi(self.steps)];
        let [first, second] = &mut self.moments;
        let weights = self.shadow.weights.iter_mut().zip(&gradients.weights);
        let weights = weights.zip(first.weights.iter_mut().zip(&mut second.weights));
        let biases = self.shadow.biases.iter_mut().zip(&gradients.biases);
        let biases = biases.zip(first.biases.iter_mut().zip(&mut second.biases));
        let all: Vec<_> = weights.chain(biases).collect();
        all.into_par_iter().for_each(|((shadow, gradients), (first, second))| {
            let size =
                (shadow.iter().map(|x| x * x).sum::<f32>() / shadow.len().max(1) as f32).sqrt();
            let rate = rate * size.max(1e-4);
            let moments = first.iter_mut().zip(second.iter_mut());
            for ((x, gradient), (first, second)) in shadow.iter_mut().zip(gradients).zip(moments) {
                let gradient = gradient * scale;
                *first = 0.9 * *first + 0.1 * gradient;
                *second = 0.99 * *second + 0.01 * gradient * gradient;
                *x -= rate * (*first / corrections[0]) / ((*second / corrections[1]).sqrt() + 1e-8);
            }
        });
        self.round();
    }

    /// Interpolates weights and biases at the fraction `fraction` from `begin` to `self`, rounded
    /// to the grids.
    pub(super) fn interpolated(&self, begin: &Self, fraction: f32) -> Self {
        let mut between = self.clone();
        let parts = [
            (&mut between.shadow.weights, &begin.shadow.weights),
            (&mut between.shadow.biases, &begin.shadow.biases),
        ];
        for (after, before) in parts {
            for (after, before) in after.iter_mut().flatten().zip(before.iter().flatten()) {
                *after = before + fraction * (*after - before);
            }
        }
        between.round();
        between
    }

    /// Updates the effective parameters from the shadow.
    fn round(&mut self) {
        let choices = self.masks.par_iter().zip(&self.grids);
        let weights = self.effective.weights.par_iter_mut().zip(&self.shadow.weights);
        weights.zip(choices).for_each(|((effective, shadow), (mask, grid))| {
            match grid {
                None => effective.copy_from_slice(shadow),
                Some((scales, low, high)) => {
                    let row = (shadow.len() / scales.len().max(1)).max(1);
                    let rows = effective.chunks_mut(row).zip(shadow.chunks(row)).zip(scales);
                    for ((effective, shadow), scale) in rows {
                        let pairs = effective.iter_mut().zip(shadow);
                        pairs.for_each(|(to, x)| {
                            *to = (x / scale).round().clamp(*low, *high) * scale
                        });
                    }
                }
            }
            if let Some(mask) = mask {
                effective
                    .iter_mut()
                    .zip(mask)
                    .filter(|(_, keep)| !**keep)
                    .for_each(|(x, _)| *x = 0.0);
            }
        });
        self.effective.biases.clone_from(&self.shadow.biases);
    }

    /// Writes the learned numbers into `plan`, in the formats that it has.
    pub(super) fn written_to(&self, plan: &Plan) -> Result<Plan, CompressError> {
        let mut plan = plan.clone();
        for (index, weights) in plan.weights.iter_mut().enumerate() {
            let (effective, numbers) = (&self.effective.weights[index], weights.format().numbers);
            match &mut weights.values {
                values @ (WeightValues::F32(_) | WeightValues::Bf16(_) | WeightValues::Fp16(_)) => {
                    let learned = WeightValues::F32(effective.as_slice().into()).rounded(numbers);
                    *values = learned.map_err(|overflow| {
                        CompressError::Recipe(format!("fine-tuning has led to {overflow}"))
                    })?;
                }
                WeightValues::Integer(integer) => {
                    let row = (effective.len() / integer.scales.len().max(1)).max(1);
                    let scaled = effective.iter().enumerate();
                    integer.values = scaled
                        .map(|(at, x)| (x / integer.scales[at / row]).round() as i8)
                        .collect();
                }
            }
            let bias = &self.effective.biases[index];
            if weights.bias.is_some() || bias.iter().any(|&x| x != 0.0) {
                weights.bias = Some(bias.as_slice().into());
            }
        }
        Ok(plan)
    }
}
