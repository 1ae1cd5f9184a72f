//! The compressed variants of every layer: reconstructed weights and the error that they cause alone, made when
//! somebody asks for the first time and kept in files.
//!
//! One file holds what a layer reads ([`Inputs`]), one all levels of a pattern of zeros, one each grid. Files are
//! named after the network, its calibration images, the layer and the variant, so that whoever was interrupted
//! goes on where it stopped. How variants of layers are put together is SPDY's idea (Frantar and Alistarh, ICML
//! 2022); which are worth it is the study's business.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use paretune_kernels::operator::Operator;
use paretune_kernels::weights::{Grid, Numbers, Pattern};
use paretune_kernels::{Plan, Step, WeightValues, Weights};
use serde::{Deserialize, Serialize};

use super::error::CompressError;
use super::layers::{LayerInfo, layers};
use super::recipe::LayerRecipe;
use super::reconstruct::{Inputs, Layer, PATCHES, Reconstruction};
use super::rounded;
use super::walk::{Visitor, walk};
use crate::artefact;

/// Shares of zeros that are made together, as one leads to the next.
pub const SPARSITIES: [f64; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95];

/// Multiply-adds for one layer that a single candidate may take, rather than looking at each weight by itself.
const ON_THE_SPOT: f64 = 3e9;

/// Version of how variants are made; what another version made is not used.
const VERSION: u32 = 2;

/// Compressed variants of one network's layers.
pub struct Database {
    folder: PathBuf,
    /// Names the network and the images.
    key: String,
    plan: Plan,
    images: Arc<[f32]>,
    threads: usize,
    /// The layer that was asked for last, and what it reads.
    latest: Mutex<Option<(usize, Arc<Inputs>)>>,
    /// Hears of what is being made.
    heard: Heard,
}

/// Somebody to tell which task is at which share of its work.
pub type Heard = fn(&str, f64);

/// Seconds that two cores are busy with what the layers of `plan` read, before the first variant can be made: a
/// rough guess, as are those of the variants, which take about as long again for each kind.
///
/// # Errors
/// Where the plan is not valid.
pub fn seconds_to_prepare(plan: &Plan, images: usize) -> Result<f64, CompressError> {
    /// Multiply-adds a second.
    const RATE: f64 = 3e10;
    let work = |layer: &LayerInfo| {
        let columns = layer.dims[1..].iter().product::<usize>() as f64;
        let plane = layer.problem.output().map_or(0, |[height, width]| height * width);
        let patches = (plane * images).min(PATCHES) as f64;
        0.5 * patches * columns * columns * layer.problem.groups as f64
            + images as f64 * layer.multiply_adds as f64
    };
    Ok(layers(plan)?.iter().map(work).sum::<f64>() / RATE)
}

/// Compressed weights of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// With a bias that makes up for the mean error.
    pub weights: Weights,
    /// Mean squared error of the layer's output, relative to the variance of that.
    pub error: f64,
}

impl Database {
    /// The variants of `plan`, which is in single precision, made from normalized calibration `images` one after
    /// another, in files of `folder` (made where it is missing) that begin with `key`, which names both.
    ///
    /// # Errors
    /// Where the folder cannot be made.
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
        Ok(Self { folder, key, plan, images, threads, latest: Mutex::default(), heard: |_, _| {} })
    }

    /// Tells `heard` before every variant that takes a while to make.
    #[must_use]
    pub fn telling(self, heard: Heard) -> Self {
        Self { heard, ..self }
    }

    /// That a variant of a layer is going to be made.
    fn tell(&self, layers: &[LayerInfo], number: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let share = number as f64 / layers.len().max(1) as f64;
        (self.heard)("compressing layers", share);
    }

    /// The weights of `layer` after `recipe`, which asks for zeros or integers.
    ///
    /// # Errors
    /// Where the network has no such layer, the layer cannot be compressed so, or files cannot be written.
    pub fn variant(&self, layer: &str, recipe: &LayerRecipe) -> Result<Variant, CompressError> {
        let layers = layers(&self.plan)?;
        let found = layers.iter().enumerate().find(|(_, known)| known.step == layer);
        let (number, info) =
            found.ok_or_else(|| CompressError::Recipe(format!("the network has no layer `{layer}`")))?;
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
                return Err(CompressError::Recipe(format!("layer `{layer}` is not to be compressed")));
            }
            (Numbers::Integer(grid), sparse) => {
                let zeros = sparse.map(|sparse| sparse.weights(info, recipe.pattern)).transpose()?;
                self.rounded(&layers, number, weights, grid, zeros.as_ref(), recipe)?
            }
        };
        let pattern = if recipe.sparsity > 0.0 { recipe.pattern } else { weights.pattern };
        let weights = rounded(&info.step, stored.weights(info, pattern)?, recipe.numbers)?;
        Ok(Variant { error: stored.error, weights })
    }

    /// `weights` after `recipe`, where they are what is left of `layer` when only some channels that it `reads` and
    /// `writes` stay: made on the spot and not kept, as there are too many such. `None` where that would take long, or
    /// where channels go in groups.
    pub(super) fn remnant(
        &self,
        layer: &str,
        weights: &Weights,
        recipe: &LayerRecipe,
        [reads, writes]: [&[bool]; 2],
    ) -> Result<Option<Weights>, CompressError> {
        let layers = layers(&self.plan)?;
        let Some(number) = layers.iter().position(|known| known.step == layer) else { return Ok(None) };
        let whole = self.inputs(&layers, number)?;
        let taps = weights.dims[2] * weights.dims[3];
        let channels = if whole.groups.len() > 1 { writes } else { reads };
        let Some(inputs) = whole.select(channels, taps) else { return Ok(None) };
        if inputs.groups.is_empty() || !weights.dims[0].is_multiple_of(inputs.groups.len()) {
            return Ok(None);
        }
        let layer = Layer::new(layer, weights, &inputs)?;
        if layer.work(recipe) > ON_THE_SPOT {
            return Ok(None);
        }
        self.tell(&layers, number);
        let sparse = match recipe.sparsity > 0.0 {
            true => layer.pruned(recipe.pattern, &[recipe.sparsity])?.pop(),
            false => None,
        };
        Ok(match (recipe.numbers, sparse) {
            (Numbers::F32 | Numbers::Bf16 | Numbers::Fp16, sparse) => {
                let sparse =
                    sparse.map(|sparse| rounded(&layers[number].step, sparse.weights, recipe.numbers));
                sparse.transpose()?
            }
            (Numbers::Integer(grid), sparse) => {
                Some(layer.rounded(grid, sparse.as_ref().map(|sparse| &sparse.weights))?.weights)
            }
        })
    }

    /// Makes every variant of every layer that is missing: all grids, and all levels of `patterns` where a layer may
    /// have zeros. `progress` hears of the share done, and says whether to go on.
    ///
    /// # Errors
    /// As [`Self::variant`].
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
            let grids = Grid::ALL
                .into_iter()
                .filter(|&grid| grid != Grid::Bits8)
                .map(|grid| LayerRecipe { numbers: Numbers::Integer(grid), ..LayerRecipe::default() });
            let sparse = patterns.iter().filter(|_| layer.sparse).map(|&pattern| {
                let sparsity = match pattern {
                    Pattern::Grouped { kept, of } => 1.0 - f64::from(kept) / f64::from(of.max(1)),
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
        let usual = SPARSITIES.iter().position(|&level| level == sparsity);
        let (levels, place) = match (pattern, usual) {
            (Pattern::Grouped { .. }, _) | (_, None) => (vec![sparsity], 0),
            (_, Some(place)) => (SPARSITIES.to_vec(), place),
        };
        let name = if levels.len() > 1 { pattern.to_string() } else { format!("{pattern}-{sparsity}") };
        let mut all: Vec<Stored> = artefact::read_or_make(&self.file(number, &name), || {
            self.tell(layers, number);
            let inputs = self.inputs(layers, number)?;
            let layer = Layer::new(&layers[number].step, weights, &inputs)?;
            layer
                .pruned(pattern, &levels)?
                .into_iter()
                .map(Stored::new)
                .collect::<Result<Vec<_>, CompressError>>()
        })?;
        if place >= all.len() {
            return Err(CompressError::Database(format!("layer {number} has no variant {name}")));
        }
        Ok(all.swap_remove(place))
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
            self.tell(layers, number);
            let inputs = self.inputs(layers, number)?;
            Stored::new(Layer::new(&layers[number].step, weights, &inputs)?.rounded(grid, zeros)?)
        })
    }

    /// What a layer reads, from its file; where that is missing, every layer's is made, as the network has to run
    /// anyway.
    fn inputs(&self, layers: &[LayerInfo], number: usize) -> Result<Arc<Inputs>, CompressError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, inputs)) = latest.as_ref().filter(|(known, _)| *known == number) {
            return Ok(Arc::clone(inputs));
        }
        let file = self.file(number, "inputs");
        let known = match artefact::read(&file) {
            Ok(inputs) => Some(inputs),
            Err(error) => {
                if file.exists() {
                    tracing::warn!("{error}; it is made again");
                    std::fs::remove_file(&file)
                        .map_err(|error| CompressError::Database(format!("`{}`: {error}", file.display())))?;
                }
                None
            }
        };
        let inputs: Inputs = match known {
            Some(inputs) => inputs,
            None => {
                walk(&self.plan, &self.images, self.threads, &mut Collector { database: self, layers })?;
                artefact::read(&file)?
            }
        };
        let inputs = Arc::new(inputs);
        *latest = Some((number, Arc::clone(&inputs)));
        Ok(inputs)
    }

    fn file(&self, layer: usize, variant: &str) -> PathBuf {
        self.folder.join(format!("{}-{layer:03}-{variant}.variant", self.key))
    }
}

/// Sums up what every layer reads that is not known yet.
struct Collector<'d> {
    database: &'d Database,
    layers: &'d [LayerInfo],
}

impl Visitor for Collector<'_> {
    fn reads(
        &mut self,
        step: &Step,
        input: &[f32],
        _: Option<&[f32]>,
    ) -> Result<Option<Weights>, CompressError> {
        if let Some(number) = self.layers.iter().position(|layer| layer.step == step.name) {
            let file = self.database.file(number, "inputs");
            if !file.exists() {
                let mut problem = self.layers[number].problem;
                problem.batch =
                    input.len() / (problem.in_channels * problem.input[0] * problem.input[1]).max(1);
                self.database.tell(self.layers, number);
                artefact::write(&file, &Inputs::collect(&problem, input)?)?;
            }
        }
        Ok(None)
    }
}

/// A variant as it is kept: zeros as bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    error: f64,
    bias: Option<Arc<[f32]>>,
    numbers: StoredNumbers,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum StoredNumbers {
    /// Which weights are not zero, eight to a byte, and those.
    Sparse { kept: Vec<u8>, values: Vec<f32> },
    /// On a grid.
    Integer(paretune_kernels::weights::IntegerWeights),
}

impl Stored {
    fn new(made: Reconstruction) -> Result<Self, CompressError> {
        let numbers = match &made.weights.values {
            WeightValues::Integer(integer) => StoredNumbers::Integer(integer.clone()),
            WeightValues::F32(values) | WeightValues::Bf16(values) | WeightValues::Fp16(values) => {
                StoredNumbers::Sparse {
                    kept: values
                        .chunks(8)
                        .map(|chunk| {
                            chunk.iter().enumerate().map(|(bit, &x)| u8::from(x != 0.0) << bit).sum::<u8>()
                        })
                        .collect(),
                    values: values.iter().copied().filter(|&x| x != 0.0).collect(),
                }
            }
        };
        Ok(Self { error: made.error, bias: made.weights.bias, numbers })
    }

    /// The weights of `layer`, if they fit it.
    fn weights(&self, layer: &LayerInfo, pattern: Pattern) -> Result<Weights, CompressError> {
        let unfit =
            || CompressError::Database(format!("a variant does not fit layer `{}`; remove it", layer.step));
        let values = match &self.numbers {
            StoredNumbers::Integer(integer) => WeightValues::Integer(integer.clone()),
            StoredNumbers::Sparse { kept, values } => {
                if kept.len() != layer.weights.div_ceil(8) {
                    return Err(unfit());
                }
                let mut next = values.iter().copied();
                let all = (0..layer.weights).map(|index| {
                    let zero = kept[index / 8] >> (index % 8) & 1 == 0;
                    if zero { Some(0.0) } else { next.next() }
                });
                WeightValues::F32(all.collect::<Option<Arc<[f32]>>>().ok_or_else(unfit)?)
            }
        };
        if values.len() != layer.weights {
            return Err(unfit());
        }
        Ok(Weights { dims: layer.dims, values, pattern, bias: self.bias.clone() })
    }
}
