//! The loaded workload of a study: the network, the images, and data derived from both
//! (calibration, the baseline's predictions). Derived data is stored as artefacts named by content,
//! so that a restarted worker is ready quickly.

use std::sync::{Arc, Mutex};

use paretune_compress as compress;
use paretune_compress::{Calibration, CompressError, Database, ProgressFn, Recipe};
use paretune_kernels::Plan;
use paretune_kernels::bundle::{Bundle, Preprocessing};
use paretune_kernels::hardware::Isa;
use paretune_model::Network;
use paretune_model::images::{Dataset, Images, normalize_into};
use paretune_record::artefact::{self, ArtefactError};
use paretune_record::request::{Normalization, WorkloadSpec};
use paretune_record::score::Score;

mod compression;
mod finetune;
mod predictions;

use compression::Caches;
use predictions::Predictions;

use super::accuracy::{answers, divergence, for_scoring, outputs};
use super::decision::Decision;

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
    #[error("the baseline does not run: {0}")]
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
    search_predictions: Predictions,
    report_predictions: Predictions,
    calibration: Calibration,
    calibration_inputs: Arc<[f32]>,
    /// Database of reconstructed weights of layers.
    database: Database,
    caches: Caches,
    /// Outputs of the baseline for the first search images, on which losses are measured.
    opinions: Mutex<Vec<Vec<f32>>>,
}

/// Largest number of input values for calibration, so that large images do not exhaust the memory.
const CALIBRATION_NUMBERS: usize = 24 << 20;

/// Number of calibration images, enough for layers whose weights read thousands of inputs.
pub const CALIBRATION_IMAGES: usize = 1024;

/// Number of images for ranges and statistics of every value.
const STATISTICS_IMAGES: usize = 192;

/// Number of images for ranking channels, and the smallest useful number.
const INFORMATION_IMAGES: usize = 256;
const LEAST_INFORMATION_IMAGES: usize = 32;

/// Limit on the multiply-adds of the forward passes for ranking channels: a few seconds on two
/// cores.
const INFORMATION_WORK: u64 = 4_000_000_000;

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
        let key = workload_hash(&spec);
        let calibration: Calibration =
            artefact::read_or_make(&spec.artefacts.join(format!("{key}.calibration")), || {
                progress("calibration", 0.0);
                let seen = &calibration_inputs[..count.min(STATISTICS_IMAGES) * numbers];
                let batch = count.clamp(1, 8);
                let mut calibration =
                    Calibration::collect(&network.plan, seen, batch, cores(), &mut |share| {
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
        let predictions =
            |part: &str| Predictions::open(spec.artefacts.join(format!("{key}.{part}-answers")));
        Ok(Self {
            search_predictions: predictions("search"),
            report_predictions: predictions("report"),
            network,
            dataset,
            spec,
            isa,
            calibration,
            calibration_inputs,
            database,
            caches: Caches::default(),
            opinions: Mutex::default(),
        })
    }

    /// Calls `progress` whenever compressed weights of a layer are computed, which may take long.
    #[must_use]
    pub fn with_progress(self, progress: ProgressFn) -> Self {
        Self { database: self.database.with_progress(progress), ..self }
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
        self.score(plan, &self.dataset.search, &self.search_predictions, from, to)
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
        self.score(plan, &self.dataset.report, &self.report_predictions, from, to)
    }

    fn score(
        &self,
        plan: &Plan,
        images: &Images,
        baseline: &Predictions,
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
        let plan = self.recalibrated(recipe, count)?;
        let decision = Decision::of(network);
        let images = self.dataset.search.slice(0..count.min(self.dataset.search.len()));
        let opinions = |plan: &Plan| {
            outputs(plan, &images, normalization, self.isa, |outputs| decision.per_class(outputs))
        };
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
            transform: self.spec.transform,
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

/// Returns the hash of everything that derived artefacts depend on.
fn workload_hash(spec: &WorkloadSpec) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&super::PROTOCOL_VERSION.to_le_bytes());
    hasher.update(spec.model.as_bytes());
    hasher.update(spec.images.as_bytes());
    for number in spec.normalization.mean.iter().chain(&spec.normalization.std) {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
