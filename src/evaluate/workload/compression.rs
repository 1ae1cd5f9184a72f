//! Compressed networks of a workload, and what is kept in memory to build them quickly.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use paretune_compress as compress;
use paretune_compress::{BaselineOutputs, Calibration, ChannelCriterion, CompressError, Recipe};
use paretune_kernels::Plan;

use super::{Workload, cores};

/// Number of compressed networks that are cached.
const KEPT_PLANS: usize = 4;

/// Number of images for recalibrating the means and variances of channels, few enough to do it for
/// every candidate.
const RECALIBRATION_IMAGES: usize = 256;

/// Data that successive candidates share.
#[derive(Default)]
pub(super) struct Caches {
    /// Statistics over the first calibration images, by their number. Recalibration compares with
    /// them.
    calibrations: Mutex<BTreeMap<usize, Arc<Calibration>>>,
    /// The latest compressed networks. Successive candidates often differ only in their schedules.
    plans: Mutex<VecDeque<(Recipe, Plan)>>,
    /// Layer outputs of the baseline that pruned networks are fitted to, by number of images.
    references: Mutex<BTreeMap<usize, Arc<BaselineOutputs>>>,
}

impl Workload {
    /// Returns the network compressed by `recipe`, from memory if it was built lately.
    ///
    /// # Errors
    /// Fails if the recipe does not fit the network.
    pub fn compressed(&self, recipe: &Recipe) -> Result<Plan, CompressError> {
        let mut kept = self.caches.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = kept.iter().find(|(known, _)| known == recipe) {
            return Ok(plan.clone());
        }
        let plan = if recipe.recalibrate {
            self.recalibrated(recipe, RECALIBRATION_IMAGES)?
        } else {
            compress::apply(&self.network.plan, &self.calibration, recipe)?
        };
        kept.push_front((recipe.clone(), plan.clone()));
        kept.truncate(KEPT_PLANS);
        Ok(plan)
    }

    /// Returns the network compressed by `recipe` and recalibrated on the first `count` calibration
    /// images.
    pub(super) fn recalibrated(
        &self,
        recipe: &Recipe,
        count: usize,
    ) -> Result<Plan, CompressError> {
        let images = self.recalibration_inputs(count);
        let (plan, database) = (&self.network.plan, Some(&self.database));
        if !recipe.needs_recalibration() {
            return compress::apply_recalibrated(
                plan,
                &self.calibration,
                database,
                recipe,
                images,
                None,
                cores(),
            );
        }
        let references =
            if recipe.removes_channels() { Some(self.references(images)?) } else { None };
        let recipe = &Recipe { criterion: self.criterion(), ..recipe.clone() };
        let known = self
            .caches
            .calibrations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&count)
            .cloned();
        let calibration = match known {
            Some(known) => known,
            None => {
                // Both statistics must be over exactly the same images.
                let numbers = plan.values[plan.input].len().max(1);
                let batch = if (images.len() / numbers).is_multiple_of(8) { 8 } else { 1 };
                let mut seen = Calibration::collect(plan, images, batch, cores(), &mut |_| {})?;
                seen.information.clone_from(&self.calibration.information);
                let seen = Arc::new(seen);
                self.caches
                    .calibrations
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(count, Arc::clone(&seen));
                seen
            }
        };
        let references = references.as_deref();
        compress::apply_recalibrated(
            plan,
            &calibration,
            database,
            recipe,
            images,
            references,
            cores(),
        )
    }

    /// Returns the criterion that ranks channels. Networks that cannot be differentiated have no
    /// Fisher information.
    fn criterion(&self) -> ChannelCriterion {
        let informed = !self.calibration.information.is_empty();
        if informed { ChannelCriterion::Fisher } else { ChannelCriterion::Variance }
    }

    /// Returns the kept fraction of each group's channels if one threshold leaves `work` (a
    /// fraction) of the multiply-adds.
    ///
    /// # Errors
    /// Fails if the channels have no statistics.
    pub fn channel_budget(&self, work: f64) -> Result<BTreeMap<String, f64>, CompressError> {
        compress::allocate_channels(&self.network.plan, &self.calibration, self.criterion(), work)
    }

    /// Returns the importance of channels; see [`compress::channel_costs`].
    ///
    /// # Errors
    /// Fails if the channels have no statistics.
    pub fn channel_costs(&self) -> Result<BTreeMap<String, Vec<(f64, f64)>>, CompressError> {
        compress::channel_costs(&self.network.plan, &self.calibration, self.criterion())
    }

    /// Returns the baseline's layer outputs for `images`, which are always the first ones.
    fn references(&self, images: &[f32]) -> Result<Arc<BaselineOutputs>, CompressError> {
        let mut known = self.caches.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(references) = known.get(&images.len()) {
            return Ok(Arc::clone(references));
        }
        let made = Arc::new(BaselineOutputs::collect(&self.network.plan, images, cores())?);
        known.insert(images.len(), Arc::clone(&made));
        Ok(made)
    }

    /// Returns the first `count` calibration images, on which statistics are re-estimated.
    fn recalibration_inputs(&self, count: usize) -> &[f32] {
        let numbers: usize = self.dataset.calibration.dims.iter().product();
        &self.calibration_inputs[..self.calibration_inputs.len().min(count * numbers)]
    }
}
