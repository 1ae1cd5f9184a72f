//! Fine-tuned networks of a workload, which are stored as artefacts.

use std::time::Duration;

use paretune_compress as compress;
use paretune_compress::{Distillation, Recipe};
use paretune_kernels::Plan;
use paretune_model::images::Images;
use paretune_record::artefact;

use super::{CALIBRATION_NUMBERS, Progress, Workload, WorkloadError, inputs, workload_hash};

/// Number of search images that validate the training.
const HELD_BACK: usize = 512;

impl Workload {
    /// Returns the network compressed by `recipe` after distillation on the calibration images for
    /// the given seconds. If training did not bring it closer to the baseline on search images, it
    /// is returned untrained. The result is stored as an artefact, because training depends on the
    /// machine's speed and is not reproducible.
    ///
    /// # Errors
    /// Fails if the recipe does not fit the network or if a step cannot be trained.
    pub fn finetuned(
        &self,
        recipe: &Recipe,
        seconds: u64,
        progress: Progress<'_>,
    ) -> Result<Plan, WorkloadError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(workload_hash(&self.spec).as_bytes());
        // A recipe is plain data, so its serialization cannot fail.
        hasher.update(serde_json::to_string(recipe).unwrap_or_default().as_bytes());
        hasher.update(&seconds.to_le_bytes());
        let name = format!("{}.tuned", &hasher.finalize().to_hex()[..32]);
        artefact::read_or_make(&self.spec.artefacts.join(name), || {
            let student = self.compressed(recipe)?;
            let normalization = &self.spec.normalization;
            let all = |images: &Images, most: usize| {
                let numbers = images.image_bytes().max(1);
                inputs(
                    images,
                    most.min(CALIBRATION_NUMBERS / numbers).max(1).min(images.len()),
                    normalization,
                )
            };
            let images = all(&self.dataset.calibration, usize::MAX);
            let held_back = all(&self.dataset.search, HELD_BACK);
            let options =
                Distillation { duration: Duration::from_secs(seconds), ..Distillation::default() };
            let teacher = &self.network.plan;
            let keep = compress::channel_mask(teacher, &self.calibration, recipe)?;
            let tuned = compress::distill(
                teacher,
                &student,
                &keep,
                &images,
                &held_back,
                &options,
                &mut |seen| {
                    progress("fine-tuning", seen.fraction);
                    true
                },
            )?;
            Ok(tuned)
        })
    }
}
