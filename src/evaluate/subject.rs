//! What a study is about, loaded: the network, the images, and what is derived from both once
//! (calibration, the untouched network's answers). Derived data is kept as artefacts named by content,
//! so that a worker that was killed is back in a moment.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use paretune_kernels::Plan;
use paretune_kernels::bundle::{Bundle, Preprocessing};
use paretune_kernels::hardware::Isa;

use super::accuracy::{Score, answers, divergence, for_scoring, outputs};
use super::artefact::{self, ArtefactError};
use super::protocol::SubjectSpec;
use crate::compress::{self, Calibration, CompressError, Database, Recipe};
use crate::model::Network;
use crate::model::images::{Dataset, Images, normalize_into};

/// Why a subject could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// The images.
    #[error(transparent)]
    Images(#[from] crate::model::images::ImageError),
    /// Calibration.
    #[error("calibration: {0}")]
    Compress(#[from] CompressError),
    /// Running the untouched network.
    #[error("the untouched network does not run: {0}")]
    Kernel(#[from] paretune_kernels::KernelError),
    /// An artefact.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
}

/// See the module.
pub struct Subject {
    /// The untouched network.
    pub network: Network,
    /// Calibration, search and report images; labelled (by the untouched network, if by nobody else).
    pub dataset: Dataset,
    /// How images become inputs.
    pub spec: SubjectSpec,
    /// Widest instruction set.
    pub isa: Isa,
    search_answers: Answers,
    report_answers: Answers,
    calibration: Calibration,
    calibration_inputs: Arc<[f32]>,
    /// Reconstructed weights of layers.
    database: Database,
    /// Statistics of the first calibration images, by their number: what repairs are compared to.
    first: Mutex<BTreeMap<usize, Arc<Calibration>>>,
    /// The latest compressed networks: candidates that differ in their schedules only come in a row.
    compressed: Mutex<VecDeque<(Recipe, Plan)>>,
    /// The untouched network's outputs for the first search images, as many as losses are judged on.
    opinions: Mutex<Vec<Vec<f32>>>,
}

/// Compressed networks that are kept.
const KEPT_PLANS: usize = 4;

/// Calibration takes at most this many numbers of input, so that big images do not fill the memory.
const CALIBRATION_NUMBERS: usize = 24 << 20;

/// Enough images for what thousands of weights together read.
pub const CALIBRATION_IMAGES: usize = 1024;

/// Enough images for ranges and statistics of every value.
const STATISTICS_IMAGES: usize = 512;

/// Enough images for means and variances of channels, few enough for every candidate.
const REPAIR_IMAGES: usize = 256;

/// Threads for preparation; it does not change the results.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What a preparation reports: task and share done.
pub type Progress<'p> = &'p mut dyn FnMut(&str, f64);

impl Subject {
    /// Loads what `spec` names and derives what is missing.
    ///
    /// # Errors
    /// Where an artefact is missing or damaged, or the network does not run on the images.
    pub fn open(spec: &SubjectSpec, isa: Isa, progress: Progress<'_>) -> Result<Self, SubjectError> {
        let network: Network = artefact::read(&spec.artefacts.join(format!("{}.network", spec.model)))?;
        let dataset = Dataset::load_cached(&spec.artefacts.join(format!("{}.images", spec.images)))?;
        Self::with(network, dataset, spec.clone(), isa, progress)
    }

    fn with(
        network: Network,
        dataset: Dataset,
        spec: SubjectSpec,
        isa: Isa,
        progress: Progress<'_>,
    ) -> Result<Self, SubjectError> {
        let numbers: usize = dataset.calibration.dims.iter().product();
        let count = (CALIBRATION_NUMBERS / numbers.max(1))
            .clamp(1, CALIBRATION_IMAGES)
            .min(dataset.calibration.len());
        let mut calibration_inputs = vec![0.0; count * numbers];
        for (index, input) in calibration_inputs.chunks_exact_mut(numbers.max(1)).enumerate() {
            let normalization = &spec.normalization;
            normalize_into(
                dataset.calibration.image(index),
                &normalization.mean,
                &normalization.std,
                dataset.calibration.dims,
                input,
            );
        }
        let key = subject_hash(&spec);
        let calibration: Calibration =
            artefact::read_or_make(&spec.artefacts.join(format!("{key}.calibration")), || {
                progress("calibration", 0.0);
                let seen = &calibration_inputs[..count.min(STATISTICS_IMAGES) * numbers];
                Calibration::collect(&network.plan, seen, 8, cores(), &mut |share| {
                    progress("calibration", share);
                })
                .map_err(SubjectError::from)
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
        let answers = |part: &str| Answers::open(spec.artefacts.join(format!("{key}.{part}-answers")));
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
            opinions: Mutex::default(),
        })
    }

    /// The network after `recipe`, from memory where it was made lately.
    ///
    /// # Errors
    /// Where the recipe does not fit the network.
    pub fn compressed(&self, recipe: &Recipe) -> Result<Plan, CompressError> {
        let mut kept = match self.compressed.lock() {
            Ok(kept) => kept,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some((_, plan)) = kept.iter().find(|(known, _)| known == recipe) {
            return Ok(plan.clone());
        }
        let plan = self.repaired(recipe, REPAIR_IMAGES)?;
        kept.push_front((recipe.clone(), plan.clone()));
        kept.truncate(KEPT_PLANS);
        Ok(plan)
    }

    /// The network after `recipe`, repaired on the first `count` calibration images.
    fn repaired(&self, recipe: &Recipe, count: usize) -> Result<Plan, CompressError> {
        let images = self.repair_inputs(count);
        let (plan, database) = (&self.network.plan, Some(&self.database));
        if !recipe.disturbs() {
            return compress::apply_with_repair(plan, &self.calibration, database, recipe, images, cores());
        }
        let known = self.first.lock().unwrap_or_else(PoisonError::into_inner).get(&count).cloned();
        let calibration = match known {
            Some(known) => known,
            None => {
                // No image may be left out of one and seen by the other.
                let numbers = plan.values[plan.input].len().max(1);
                let batch = if (images.len() / numbers).is_multiple_of(8) { 8 } else { 1 };
                let seen = Calibration::collect(plan, images, batch, cores(), &mut |_| {})?;
                let seen = Arc::new(seen);
                self.first.lock().unwrap_or_else(PoisonError::into_inner).insert(count, Arc::clone(&seen));
                seen
            }
        };
        compress::apply_with_repair(plan, &calibration, database, recipe, images, cores())
    }

    /// The first `count` calibration images, on which statistics are re-estimated.
    fn repair_inputs(&self, count: usize) -> &[f32] {
        let numbers: usize = self.dataset.calibration.dims.iter().product();
        &self.calibration_inputs[..self.calibration_inputs.len().min(count * numbers)]
    }

    /// Scores `plan` on images `from..to` of the search part.
    ///
    /// # Errors
    /// Where the plan does not load.
    pub fn score_search(&self, plan: &Plan, from: usize, to: usize) -> Result<Score, SubjectError> {
        self.score(plan, &self.dataset.search, &self.search_answers, from, to)
    }

    /// Scores `plan` on the first `count` images of the report part.
    ///
    /// # Errors
    /// Where the plan does not load.
    pub fn score_report(&self, plan: &Plan, count: usize) -> Result<Score, SubjectError> {
        self.score(plan, &self.dataset.report, &self.report_answers, 0, count)
    }

    fn score(
        &self,
        plan: &Plan,
        images: &Images,
        baseline: &Answers,
        from: usize,
        to: usize,
    ) -> Result<Score, SubjectError> {
        let to = to.min(images.len());
        let from = from.min(to);
        let baseline = baseline.up_to(to, |known| {
            let missing = images.slice(known..to);
            Ok(answers(&self.network.plan, &missing, &self.spec.normalization, self.isa)?)
        })?;
        let chunk = images.slice(from..to);
        let found = answers(&for_scoring(plan), &chunk, &self.spec.normalization, self.isa)?;
        // Without labels, agreement with the untouched network is the accuracy.
        let labels = if images.labels.is_empty() { &baseline[..] } else { &images.labels[..] };
        Ok(Score::count(&found, &baseline[from..to], &labels[from..to]))
    }

    /// How much of the untouched network's opinion `recipe` loses on the first `count` search images, repaired on
    /// as many calibration images; see [`divergence`].
    ///
    /// # Errors
    /// Where the recipe does not fit the network.
    pub fn loss(&self, recipe: &Recipe, count: usize) -> Result<f64, SubjectError> {
        let (network, normalization) = (&self.network.plan, &self.spec.normalization);
        let plan = self.repaired(recipe, count)?;
        let images = self.dataset.search.slice(0..count.min(self.dataset.search.len()));
        let opinions = |plan: &Plan| outputs(plan, &images, normalization, self.isa, <[f32]>::to_vec);
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

    /// `plan` ready to be written.
    #[must_use]
    pub fn bundle(&self, plan: Plan, id: &str) -> Bundle {
        Bundle { plan, preprocessing: self.preprocessing(), configuration: id.to_owned() }
    }

    /// How images become inputs, and what the outputs mean.
    #[must_use]
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            mean: self.spec.normalization.mean.clone(),
            std: self.spec.normalization.std.clone(),
            classes: self.dataset.classes.clone(),
        }
    }
}

/// What the untouched network says to the first images of a part: as many as anybody has asked for.
struct Answers {
    path: PathBuf,
    known: Mutex<Vec<u32>>,
}

impl Answers {
    /// Begins with what the artefact at `path` knows, if anything.
    fn open(path: PathBuf) -> Self {
        let known = artefact::read(&path).unwrap_or_default();
        Self { path, known: Mutex::new(known) }
    }

    /// The first `count` answers; `more` answers the images from the given index to `count`.
    fn up_to(
        &self,
        count: usize,
        more: impl FnOnce(usize) -> Result<Vec<u32>, SubjectError>,
    ) -> Result<Vec<u32>, SubjectError> {
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

/// Hash of what derived artefacts depend on.
fn subject_hash(spec: &SubjectSpec) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&super::PROTOCOL_VERSION.to_le_bytes());
    hasher.update(spec.model.as_bytes());
    hasher.update(spec.images.as_bytes());
    for number in spec.normalization.mean.iter().chain(&spec.normalization.std) {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
