//! Sampled output positions of layers.

use paretune_kernels::{Plan, Step};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

/// Sampled output positions of a layer. They are equal for a network and all its prunings.
pub(super) struct Samples {
    /// Positions of each image, ascending.
    pub(super) positions: Vec<Vec<usize>>,
    /// Number of positions of the output.
    plane: usize,
    pub(super) channels: usize,
}

impl Samples {
    /// Samples `wanted` positions of each image, or all if there are fewer. `plan` may be pruned,
    /// because positions do not depend on the number of channels.
    pub(super) fn of(plan: &Plan, step: &Step, images: usize, wanted: usize) -> Self {
        let dims = &plan.values[step.output].dims;
        let plane: usize = dims.get(1..).map_or(1, |rest| rest.iter().product());
        let wanted = wanted.min(plane);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(step.output as u64);
        let positions = (0..images)
            .map(|_| {
                if wanted == plane {
                    return (0..plane).collect();
                }
                // Selection sampling: ascending, without repetition.
                let mut chosen = Vec::with_capacity(wanted);
                for position in 0..plane {
                    if random.random_range(0..plane - position) < wanted - chosen.len() {
                        chosen.push(position);
                    }
                }
                chosen
            })
            .collect();
        Self { positions, plane, channels: dims[0] }
    }

    pub(super) fn len(&self) -> usize {
        self.positions.iter().map(Vec::len).sum()
    }

    /// Gathers a value with the output's shape, images one after another, into `[sample][channel]`.
    pub(super) fn gather(&self, data: &[f32], channels: usize) -> Vec<f32> {
        let parts: Vec<Vec<f32>> = self
            .positions
            .par_iter()
            .enumerate()
            .map(|(image, positions)| {
                let data = &data[image * channels * self.plane..][..channels * self.plane];
                let of = |position: usize| {
                    (0..channels).map(move |channel| data[channel * self.plane + position])
                };
                positions.iter().flat_map(|&position| of(position)).collect()
            })
            .collect();
        parts.concat()
    }
}
