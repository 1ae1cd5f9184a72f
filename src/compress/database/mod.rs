//! Database of compressed layers: reconstructed weights and their errors, made on first use and
//! kept in files.
//!
//! One file holds the input statistics of a layer ([`Inputs`]), one file all sparsity levels of a
//! pattern, and one file each grid. File names identify the network, its calibration images, the
//! layer and the variant, so that an interrupted run continues from its last file. Combining
//! variants of layers is SPDY's idea (Frantar and Alistarh, ICML 2022). The study chooses the
//! variants.

mod stored;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use paretune_kernels::operator::Operator;
use paretune_kernels::weights::{Grid, Numbers, Pattern};
use paretune_kernels::{Plan, Step, Weights};

use crate::error::CompressError;
use crate::layers::{LayerInfo, layers};
use crate::layerwise::{Visitor, run_layerwise};
use crate::quantize::round_real;
use crate::recipe::LayerRecipe;
use crate::reconstruct::{Inputs, Layer, MAX_PATCHES};

use self::stored::Stored;
use paretune_record::artefact;

/// Sparsity levels that are made together, as each continues from the level before.
pub const SPARSITIES: [f64; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95];

/// Largest number of multiply-adds that one candidate may spend on reconstructing one layer. Above
/// it, weights are pruned and rounded one by one.
const MAX_UNCACHED_MULTIPLY_ADDS: f64 = 3e9;

/// Version of the algorithms that make variants. Files of other versions are ignored.
const VERSION: u32 = 2;

/// Database of the compressed variants of one network's layers.
pub struct Database {
    folder: PathBuf,
    /// Key that identifies the network and the images.
    key: String,
    plan: Plan,
    images: Arc<[f32]>,
    threads: usize,
    /// Index of the layer whose inputs were requested last, and those inputs.
    last_inputs: Mutex<Option<(usize, Arc<Inputs>)>>,
    /// Receives progress while variants are made.
    progress_fn: ProgressFn,
}

/// Receiver of progress: the task and its completed fraction.
pub type ProgressFn = fn(&str, f64);

/// Estimates the seconds that two cores need to collect the input statistics of the layers of
/// `plan`, before the first variant can be made.
///
/// The estimate is rough. Variants take about as long again for each kind.
///
/// # Errors
///
/// Fails if the plan is not valid.
pub fn seconds_to_prepare(plan: &Plan, images: usize) -> Result<f64, CompressError> {
    /// Multiply-adds that two cores compute per second.
    const RATE: f64 = 3e10;
    let work = |layer: &LayerInfo| {
        let columns = layer.dims[1..].iter().product::<usize>() as f64;
        let plane = layer.problem.output().map_or(0, |[height, width]| height * width);
        let patches = (plane * images).min(MAX_PATCHES) as f64;
        0.5 * patches * columns * columns * layer.problem.groups as f64
            + images as f64 * layer.multiply_adds as f64
    };
    Ok(layers(plan)?.iter().map(work).sum::<f64>() / RATE)
}

/// Compressed weights of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Weights, with a bias that compensates for the mean error.
    pub weights: Weights,
    /// Mean squared error of the layer's output, relative to the variance of the output.
    pub error: f64,
}

impl Database {
    /// Opens the database of `plan`, which is in single precision, with normalized calibration
    /// `images`, one after another.
    ///
    /// Files are kept in `folder`, which is created if it is missing. Their names begin with `key`,
    /// which identifies the network and the images.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be created.
    pub fn open(
        folder: &Path,
        key: &str,
        plan: Plan,
        images: Arc<[f32]>,
        threads: usize,
    ) -> Result<Self, CompressError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| CompressError::Database(format!("`{}`: {error}", folder.display())))?;
        let (folder, key) = (folder.to_owned(), format!("{key}-v{VERSION}"));
        Ok(Self {
            folder,
            key,
            plan,
            images,
            threads,
            last_inputs: Mutex::default(),
            progress_fn: |_, _| {},
        })
    }

    /// Sets the receiver of progress, called before every variant that takes a while to make.
    #[must_use]
    pub fn with_progress(self, progress_fn: ProgressFn) -> Self {
        Self { progress_fn, ..self }
    }

    /// Reports that a variant of the layer with this index is about to be made.
    fn report(&self, layers: &[LayerInfo], number: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let fraction = number as f64 / layers.len().max(1) as f64;
        (self.progress_fn)("compressing layers", fraction);
    }

    /// Returns the weights of `layer` after `recipe`, which asks for zeros or integers.
    ///
    /// # Errors
    ///
    /// Fails if the network has no such layer, if the layer does not support the recipe, or if
    /// files cannot be written.
    pub fn variant(&self, layer: &str, recipe: &LayerRecipe) -> Result<Variant, CompressError> {
        let layers = layers(&self.plan)?;
        let found = layers.iter().enumerate().find(|(_, known)| known.step == layer);
        let (number, info) = found
            .ok_or_else(|| CompressError::Recipe(format!("the network has no layer `{layer}`")))?;
        let Operator::Conv(conv) = &self.plan.steps[info.index].operator else {
            return Err(CompressError::plan(layer, "is no convolution"));
        };
        let weights = &self.plan.weights[conv.weights];
        let sparse = if recipe.sparsity > 0.0 {
            Some(self.pruned(&layers, number, weights, recipe.pattern, recipe.sparsity)?)
        } else {
            None
        };
        let stored = match (recipe.numbers, sparse) {
            (Numbers::F32 | Numbers::Bf16 | Numbers::Fp16, Some(sparse)) => sparse,
            (Numbers::F32 | Numbers::Bf16 | Numbers::Fp16, None) => {
                return Err(CompressError::Recipe(format!(
                    "layer `{layer}` is not to be compressed"
                )));
            }
            (Numbers::Integer(grid), sparse) => {
                let zeros =
                    sparse.map(|sparse| sparse.weights(info, recipe.pattern)).transpose()?;
                self.rounded(&layers, number, weights, grid, zeros.as_ref(), recipe)?
            }
        };
        let pattern = if recipe.sparsity > 0.0 { recipe.pattern } else { weights.pattern };
        let weights = round_real(&info.step, stored.weights(info, pattern)?, recipe.numbers)?;
        Ok(Variant { error: stored.error, weights })
    }

    /// Compresses `weights`, the remaining weights of `layer` after channel pruning, with `recipe`.
    /// The masks tell which channels it `reads` and `writes`.
    ///
    /// The result is not kept in a file, because there are too many combinations. Returns `None` if
    /// reconstruction would take long, or if the layer's channels form groups of several.
    pub(super) fn pruned_variant(
        &self,
        layer: &str,
        weights: &Weights,
        recipe: &LayerRecipe,
        [reads, writes]: [&[bool]; 2],
    ) -> Result<Option<Weights>, CompressError> {
        let layers = layers(&self.plan)?;
        let Some(number) = layers.iter().position(|known| known.step == layer) else {
            return Ok(None);
        };
        let all_inputs = self.inputs(&layers, number)?;
        let taps = weights.dims[2] * weights.dims[3];
        let channels = if all_inputs.groups.len() > 1 { writes } else { reads };
        let Some(inputs) = all_inputs.select(channels, taps) else { return Ok(None) };
        if inputs.groups.is_empty() || !weights.dims[0].is_multiple_of(inputs.groups.len()) {
            return Ok(None);
        }
        let layer = Layer::new(layer, weights, &inputs)?;
        if layer.work(recipe) > MAX_UNCACHED_MULTIPLY_ADDS {
            return Ok(None);
        }
        self.report(&layers, number);
        let sparse = match recipe.sparsity > 0.0 {
            true => layer.pruned(recipe.pattern, &[recipe.sparsity])?.pop(),
            false => None,
        };
        Ok(match (recipe.numbers, sparse) {
            (Numbers::F32 | Numbers::Bf16 | Numbers::Fp16, sparse) => {
                let sparse = sparse
                    .map(|sparse| round_real(&layers[number].step, sparse.weights, recipe.numbers));
                sparse.transpose()?
            }
            (Numbers::Integer(grid), sparse) => {
                Some(layer.rounded(grid, sparse.as_ref().map(|sparse| &sparse.weights))?.weights)
            }
        })
    }

    /// Makes every missing variant of every layer: all grids, and all levels of `patterns` for
    /// layers that may be sparse.
    ///
    /// `progress` receives the completed fraction and returns whether to go on.
    ///
    /// # Errors
    ///
    /// Fails like [`Self::variant`].
    pub fn build(
        &self,
        patterns: &[Pattern],
        progress: &mut dyn FnMut(f64) -> bool,
    ) -> Result<(), CompressError> {
        let layers = layers(&self.plan)?;
        // Work grows with the rows and the square of the columns.
        let work = |layer: &LayerInfo| {
            let columns = layer.dims[1..].iter().product::<usize>() as f64;
            layer.dims[0] as f64 * columns * columns + 1e6
        };
        let all: f64 = layers.iter().map(work).sum();
        let mut done = 0.0;
        for layer in &layers {
            let grids = Grid::ALL.into_iter().filter(|&grid| grid != Grid::Bits8).map(|grid| {
                LayerRecipe { numbers: Numbers::Integer(grid), ..LayerRecipe::default() }
            });
            let sparse = patterns.iter().filter(|_| layer.sparse).map(|&pattern| {
                let sparsity = match pattern {
                    Pattern::NofM { n, m } => 1.0 - f64::from(n) / f64::from(m.max(1)),
                    _ => SPARSITIES[0],
                };
                LayerRecipe { sparsity, pattern, ..LayerRecipe::default() }
            });
            let wanted: Vec<LayerRecipe> = grids.chain(sparse).collect();
            for recipe in &wanted {
                self.variant(&layer.step, recipe)?;
                done += work(layer) / wanted.len() as f64;
                if !progress(done / all) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn pruned(
        &self,
        layers: &[LayerInfo],
        number: usize,
        weights: &Weights,
        pattern: Pattern,
        sparsity: f64,
    ) -> Result<Stored, CompressError> {
        let shared_level = SPARSITIES.iter().position(|&level| level == sparsity);
        let (levels, position) = match (pattern, shared_level) {
            (Pattern::NofM { .. }, _) | (_, None) => (vec![sparsity], 0),
            (_, Some(position)) => (SPARSITIES.to_vec(), position),
        };
        let name =
            if levels.len() > 1 { pattern.to_string() } else { format!("{pattern}-{sparsity}") };
        let mut all: Vec<Stored> = artefact::read_or_make(&self.file(number, &name), || {
            self.report(layers, number);
            let inputs = self.inputs(layers, number)?;
            let layer = Layer::new(&layers[number].step, weights, &inputs)?;
            layer
                .pruned(pattern, &levels)?
                .into_iter()
                .map(Stored::new)
                .collect::<Result<Vec<_>, CompressError>>()
        })?;
        if position >= all.len() {
            return Err(CompressError::Database(format!("layer {number} has no variant {name}")));
        }
        Ok(all.swap_remove(position))
    }

    fn rounded(
        &self,
        layers: &[LayerInfo],
        number: usize,
        weights: &Weights,
        grid: Grid,
        zeros: Option<&Weights>,
        recipe: &LayerRecipe,
    ) -> Result<Stored, CompressError> {
        let name = match zeros {
            None => format!("bits-{}", grid.bits()),
            Some(_) => format!("bits-{}-{}-{}", grid.bits(), recipe.pattern, recipe.sparsity),
        };
        artefact::read_or_make(&self.file(number, &name), || {
            self.report(layers, number);
            let inputs = self.inputs(layers, number)?;
            Stored::new(Layer::new(&layers[number].step, weights, &inputs)?.rounded(grid, zeros)?)
        })
    }

    /// Returns the input statistics of a layer from its file. If the file is missing, the files of
    /// all layers are made, because the network has to run anyway.
    fn inputs(&self, layers: &[LayerInfo], number: usize) -> Result<Arc<Inputs>, CompressError> {
        let mut last_inputs = self.last_inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, inputs)) = last_inputs.as_ref().filter(|(known, _)| *known == number) {
            return Ok(Arc::clone(inputs));
        }
        let file = self.file(number, "inputs");
        let known = match artefact::read(&file) {
            Ok(inputs) => Some(inputs),
            Err(error) => {
                if file.exists() {
                    tracing::warn!("{error}; it is made again");
                    std::fs::remove_file(&file).map_err(|error| {
                        CompressError::Database(format!("`{}`: {error}", file.display()))
                    })?;
                }
                None
            }
        };
        let inputs: Inputs = match known {
            Some(inputs) => inputs,
            None => {
                run_layerwise(
                    &self.plan,
                    &self.images,
                    self.threads,
                    &mut Collector { database: self, layers },
                )?;
                artefact::read(&file)?
            }
        };
        let inputs = Arc::new(inputs);
        *last_inputs = Some((number, Arc::clone(&inputs)));
        Ok(inputs)
    }

    fn file(&self, layer: usize, variant: &str) -> PathBuf {
        self.folder.join(format!("{}-{layer:03}-{variant}.variant", self.key))
    }
}

/// Collects the missing input statistics of every layer.
struct Collector<'d> {
    database: &'d Database,
    layers: &'d [LayerInfo],
}

impl Visitor for Collector<'_> {
    fn before_conv(
        &mut self,
        step: &Step,
        input: &[f32],
        _: Option<&[f32]>,
    ) -> Result<Option<Weights>, CompressError> {
        if let Some(number) = self.layers.iter().position(|layer| layer.step == step.name) {
            let file = self.database.file(number, "inputs");
            if !file.exists() {
                let mut problem = self.layers[number].problem;
                problem.batch = input.len()
                    / (problem.in_channels * problem.input[0] * problem.input[1]).max(1);
                self.database.report(self.layers, number);
                artefact::write(&file, &Inputs::collect(&problem, input)?)?;
            }
        }
        Ok(None)
    }
}
