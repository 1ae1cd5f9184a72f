//! The loaded workload of a study: the network, the images, and data derived from both
//! (calibration, the baseline's predictions). Derived data is stored as artefacts named by content,
//! so that a restarted worker is ready quickly.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use paretune_compress as compress;
use paretune_compress::{
    BaselineOutputs, Calibration, ChannelCriterion, CompressError, Database, Distillation,
    ProgressFn, Recipe,
};
use paretune_kernels::Plan;
use paretune_kernels::bundle::{Bundle, Preprocessing};
use paretune_kernels::hardware::Isa;
use paretune_model::Network;
use paretune_model::images::{Dataset, Images, normalize_into};
use paretune_record::artefact::{self, ArtefactError};
use paretune_record::request::{Normalization, WorkloadSpec};
use paretune_record::score::Score;

use super::accuracy::{answers, divergence, for_scoring, outputs};

/// Reason why a workload could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The images cannot be read.
    #[error(transparent)]
    Images(#[from] paretune_model::images::ImageError),
    /// The calibration or compression failed.
    #[error("calibration: {0}")]
    Compress(#[from] CompressError),
    /// The baseline does not run.
    #[error("the untouched network does not run: {0}")]
    Kernel(#[from] paretune_kernels::KernelError),
    /// An artefact cannot be read or written.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
}

/// The loaded workload: network, images and derived data.
pub struct Workload {
    /// The unmodified network (the baseline).
    pub network: Network,
    /// Calibration, search and report images with labels; without labels, the baseline's
    /// predictions are used.
    pub dataset: Dataset,
    /// Content hashes and normalization of the workload.
    pub spec: WorkloadSpec,
    /// Widest instruction set to use.
    pub isa: Isa,
    search_answers: Answers,
    report_answers: Answers,
    calibration: Calibration,
    calibration_inputs: Arc<[f32]>,
    /// Database of reconstructed weights of layers.
    database: Database,
    /// Statistics over the first calibration images, by their number. Recalibration compares with
    /// them.
    first: Mutex<BTreeMap<usize, Arc<Calibration>>>,
    /// The latest compressed networks. Successive candidates often differ only in their schedules.
    compressed: Mutex<VecDeque<(Recipe, Plan)>>,
    /// Layer outputs of the baseline that pruned networks are fitted to, by number of images.
    references: Mutex<BTreeMap<usize, Arc<BaselineOutputs>>>,
    /// Outputs of the baseline for the first search images, on which losses are measured.
    opinions: Mutex<Vec<Vec<f32>>>,
}

/// Number of compressed networks that are cached.
const KEPT_PLANS: usize = 4;

/// Largest number of input values for calibration, so that large images do not exhaust the memory.
const CALIBRATION_NUMBERS: usize = 24 << 20;

/// Number of calibration images, enough for layers whose weights read thousands of inputs.
pub const CALIBRATION_IMAGES: usize = 1024;

/// Number of images for ranges and statistics of every value.
const STATISTICS_IMAGES: usize = 192;

/// Number of images for recalibrating the means and variances of channels, few enough to do it for
/// every candidate.
const REPAIR_IMAGES: usize = 256;

/// Number of images for ranking channels, and the smallest useful number.
const INFORMATION_IMAGES: usize = 256;
const LEAST_INFORMATION_IMAGES: usize = 32;

/// Limit on the multiply-adds of the forward passes for ranking channels: a few seconds on two
/// cores.
const INFORMATION_WORK: u64 = 4_000_000_000;

/// Number of search images that validate the training.
const HELD_BACK: usize = 512;

/// Returns the number of threads for preparations. The results do not depend on it.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Receives the name of a preparation's task and its progress from 0 to 1.
pub type Progress<'p> = &'p mut dyn FnMut(&str, f64);

impl Workload {
    /// Loads the workload that `spec` describes and derives missing data.
    ///
    /// # Errors
    /// Fails if an artefact is missing or damaged, or if the network does not run on the images.
    pub fn open(
        spec: &WorkloadSpec,
        isa: Isa,
        progress: Progress<'_>,
    ) -> Result<Self, WorkloadError> {
        let network: Network =
            artefact::read(&spec.artefacts.join(format!("{}.network", spec.model)))?;
        let dataset =
            Dataset::load_cached(&spec.artefacts.join(format!("{}.images", spec.images)))?;
        Self::with(network, dataset, spec.clone(), isa, progress)
    }

    fn with(
        network: Network,
        dataset: Dataset,
        spec: WorkloadSpec,
        isa: Isa,
        progress: Progress<'_>,
    ) -> Result<Self, WorkloadError> {
        let numbers: usize = dataset.calibration.dims.iter().product();
        let count = (CALIBRATION_NUMBERS / numbers.max(1))
            .clamp(1, CALIBRATION_IMAGES)
            .min(dataset.calibration.len());
        let calibration_inputs = inputs(&dataset.calibration, count, &spec.normalization);
        let key = subject_hash(&spec);
        let calibration: Calibration =
            artefact::read_or_make(&spec.artefacts.join(format!("{key}.calibration")), || {
                progress("calibration", 0.0);
                let seen = &calibration_inputs[..count.min(STATISTICS_IMAGES) * numbers];
                let mut calibration =
                    Calibration::collect(&network.plan, seen, 8, cores(), &mut |share| {
                        progress("calibration", 0.5 * share);
                    })?;
                if compress::trainable(&network.plan).is_ok() {
                    let work: u64 = compress::layers(&network.plan)?
                        .iter()
                        .map(|layer| layer.multiply_adds)
                        .sum();
                    let affordable =
                        usize::try_from(INFORMATION_WORK / work.max(1)).unwrap_or(usize::MAX);
                    let count =
                        affordable.clamp(LEAST_INFORMATION_IMAGES, INFORMATION_IMAGES).min(count);
                    calibration.measure_information(
                        &network.plan,
                        &calibration_inputs[..count * numbers],
                    )?;
                }
                Ok::<_, WorkloadError>(calibration)
            })?;
        progress("calibration", 1.0);
        progress("ready", 1.0);
        let calibration_inputs: Arc<[f32]> = calibration_inputs.into();
        let database = Database::open(
            &spec.layers,
            &key,
            network.plan.clone(),
            Arc::clone(&calibration_inputs),
            cores(),
        )?;
        let answers =
            |part: &str| Answers::open(spec.artefacts.join(format!("{key}.{part}-answers")));
        Ok(Self {
            search_answers: answers("search"),
            report_answers: answers("report"),
            network,
            dataset,
            spec,
            isa,
            calibration,
            calibration_inputs,
            database,
            first: Mutex::default(),
            compressed: Mutex::default(),
            references: Mutex::default(),
            opinions: Mutex::default(),
        })
    }

    /// Calls `heard` whenever compressed weights of a layer are computed, which may take long.
    #[must_use]
    pub fn telling(self, heard: ProgressFn) -> Self {
        Self { database: self.database.with_progress(heard), ..self }
    }

    /// Returns the network compressed by `recipe`, from memory if it was built lately.
    ///
    /// # Errors
    /// Fails if the recipe does not fit the network.
    pub fn compressed(&self, recipe: &Recipe) -> Result<Plan, CompressError> {
        let mut kept = match self.compressed.lock() {
            Ok(kept) => kept,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some((_, plan)) = kept.iter().find(|(known, _)| known == recipe) {
            return Ok(plan.clone());
        }
        let plan = if recipe.recalibrate {
            self.repaired(recipe, REPAIR_IMAGES)?
        } else {
            compress::apply(&self.network.plan, &self.calibration, recipe)?
        };
        kept.push_front((recipe.clone(), plan.clone()));
        kept.truncate(KEPT_PLANS);
        Ok(plan)
    }

    /// Returns the network compressed by `recipe` and recalibrated on the first `count` calibration
    /// images.
    fn repaired(&self, recipe: &Recipe, count: usize) -> Result<Plan, CompressError> {
        let images = self.repair_inputs(count);
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
        let known = self.first.lock().unwrap_or_else(PoisonError::into_inner).get(&count).cloned();
        let calibration = match known {
            Some(known) => known,
            None => {
                // Both statistics must be over exactly the same images.
                let numbers = plan.values[plan.input].len().max(1);
                let batch = if (images.len() / numbers).is_multiple_of(8) { 8 } else { 1 };
                let mut seen = Calibration::collect(plan, images, batch, cores(), &mut |_| {})?;
                seen.information.clone_from(&self.calibration.information);
                let seen = Arc::new(seen);
                self.first
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
    pub fn thinned(&self, work: f64) -> Result<BTreeMap<String, f64>, CompressError> {
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
        let mut known = match self.references.lock() {
            Ok(known) => known,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(references) = known.get(&images.len()) {
            return Ok(Arc::clone(references));
        }
        let made = Arc::new(BaselineOutputs::collect(&self.network.plan, images, cores())?);
        known.insert(images.len(), Arc::clone(&made));
        Ok(made)
    }

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
        hasher.update(subject_hash(&self.spec).as_bytes());
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

    /// Returns the first `count` calibration images, on which statistics are re-estimated.
    fn repair_inputs(&self, count: usize) -> &[f32] {
        let numbers: usize = self.dataset.calibration.dims.iter().product();
        &self.calibration_inputs[..self.calibration_inputs.len().min(count * numbers)]
    }

    /// Scores `plan` on images `from..to` of the search part.
    ///
    /// # Errors
    /// Fails if the plan does not load.
    pub fn score_search(
        &self,
        plan: &Plan,
        from: usize,
        to: usize,
    ) -> Result<Score, WorkloadError> {
        self.score(plan, &self.dataset.search, &self.search_answers, from, to)
    }

    /// Scores `plan` on images `from..to` of the report part.
    ///
    /// # Errors
    /// Fails if the plan does not load.
    pub fn score_report(
        &self,
        plan: &Plan,
        from: usize,
        to: usize,
    ) -> Result<Score, WorkloadError> {
        self.score(plan, &self.dataset.report, &self.report_answers, from, to)
    }

    fn score(
        &self,
        plan: &Plan,
        images: &Images,
        baseline: &Answers,
        from: usize,
        to: usize,
    ) -> Result<Score, WorkloadError> {
        let to = to.min(images.len());
        let from = from.min(to);
        let baseline = baseline.up_to(to, |known| {
            let missing = images.slice(known..to);
            Ok(answers(&self.network.plan, &missing, &self.spec.normalization, self.isa)?)
        })?;
        let chunk = images.slice(from..to);
        let (scored, untouched) = (for_scoring(plan), for_scoring(&self.network.plan));
        let found = if (&scored.steps, &scored.weights) == (&untouched.steps, &untouched.weights) {
            baseline[from..to].to_vec()
        } else {
            answers(&scored, &chunk, &self.spec.normalization, self.isa)?
        };
        // Without labels, the accuracy is the agreement with the baseline.
        let labels = if images.labels.is_empty() { &baseline[..] } else { &images.labels[..] };
        Ok(Score::count(&found, &baseline[from..to], &labels[from..to]))
    }

    /// Returns how much `recipe` changes the output distribution of the baseline on the first
    /// `count` search images, recalibrated on as many calibration images; see [`divergence`].
    ///
    /// # Errors
    /// Fails if the recipe does not fit the network.
    pub fn loss(&self, recipe: &Recipe, count: usize) -> Result<f64, WorkloadError> {
        let (network, normalization) = (&self.network.plan, &self.spec.normalization);
        let plan = self.repaired(recipe, count)?;
        let images = self.dataset.search.slice(0..count.min(self.dataset.search.len()));
        let opinions =
            |plan: &Plan| outputs(plan, &images, normalization, self.isa, <[f32]>::to_vec);
        let found = opinions(&for_scoring(&plan))?;
        let mut original = match self.opinions.lock() {
            Ok(original) => original,
            Err(poisoned) => poisoned.into_inner(),
        };
        if original.len() != images.len() {
            *original = opinions(network)?;
        }
        Ok(divergence(&original, &found))
    }

    /// Returns `plan` as a bundle that can be written.
    #[must_use]
    pub fn bundle(&self, plan: Plan, id: &str) -> Bundle {
        Bundle { plan, preprocessing: self.preprocessing(), configuration: id.to_owned() }
    }

    /// Returns the normalization of inputs and the names of the classes.
    #[must_use]
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            mean: self.spec.normalization.mean.clone(),
            std: self.spec.normalization.std.clone(),
            classes: self.dataset.classes.clone(),
        }
    }
}

/// Converts the first `count` images to inputs.
fn inputs(images: &Images, count: usize, normalization: &Normalization) -> Vec<f32> {
    let images = images.take(count);
    let mut inputs = vec![0.0; images.pixels.len()];
    normalize_into(
        &images.pixels,
        &normalization.mean,
        &normalization.std,
        images.dims,
        &mut inputs,
    );
    inputs
}

/// Predictions of the baseline for the first images of a part, as many as were requested.
struct Answers {
    path: PathBuf,
    known: Mutex<Vec<u32>>,
}

impl Answers {
    /// Opens the artefact at `path`, or starts without predictions.
    fn open(path: PathBuf) -> Self {
        let known = artefact::read(&path).unwrap_or_default();
        Self { path, known: Mutex::new(known) }
    }

    /// Returns the first `count` predictions. `more` computes those from the given index to
    /// `count`.
    fn up_to(
        &self,
        count: usize,
        more: impl FnOnce(usize) -> Result<Vec<u32>, WorkloadError>,
    ) -> Result<Vec<u32>, WorkloadError> {
        let mut known = match self.known.lock() {
            Ok(known) => known,
            Err(poisoned) => poisoned.into_inner(),
        };
        if known.len() < count {
            let missing = more(known.len())?;
            known.extend(missing);
            artefact::write(&self.path, &*known)?;
        }
        Ok(known[..count.min(known.len())].to_vec())
    }
}

/// Returns the hash of everything that derived artefacts depend on.
fn subject_hash(spec: &WorkloadSpec) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&super::PROTOCOL_VERSION.to_le_bytes());
    hasher.update(spec.model.as_bytes());
    hasher.update(spec.images.as_bytes());
    for number in spec.normalization.mean.iter().chain(&spec.normalization.std) {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
