//! Options and progress of the training by distillation.

use std::time::Duration;

/// Options of the training by distillation.
#[derive(Clone, Debug, PartialEq)]
pub struct Distillation {
    /// Duration of the training, validation included.
    pub duration: Duration,
    /// Number of images per step.
    pub batch: usize,
    /// Learning rate after warming up; it falls to zero along half a cosine.
    pub learning_rate: f64,
    /// Temperature that divides outputs before they are compared.
    pub temperature: f32,
    /// Fraction of the images that are mixed with another one.
    pub mixup: f64,
    /// Fraction of the images that get a rectangle of another one.
    pub cutmix: f64,
    /// Weight of feature differences at the cut points: nats for each unit of mean squared
    /// difference, in units of the teacher's mean square.
    pub feature_weight: f32,
    /// Largest shift of an image in pixels.
    pub shift: usize,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Distillation {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(120),
            batch: 32,
            learning_rate: 6e-3,
            temperature: 4.0,
            mixup: 0.5,
            cutmix: 0.5,
            feature_weight: 100.0,
            shift: 4,
            seed: 0,
        }
    }
}

/// Progress of the training by distillation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillationProgress {
    /// Completed fraction, from 0 to 1.
    pub fraction: f64,
    /// Number of steps done so far.
    pub steps: u64,
    /// Mean divergence of softened predictions over the last steps, in nats per image.
    pub loss: f64,
}
