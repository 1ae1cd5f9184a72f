//! Measures the table of `docs/results/compression.md`: accuracy lost by compression without
//! retraining, with one-shot and with reconstructed weights.
//!
//! ```sh
//! cargo bench --bench compression -- MODEL.onnx... --data CIFAR10 [--only TEXT] [--keep FOLDER]
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use paretune_compress::{
    Calibration, Database, LayerInfo, LayerRecipe, Level, Method, Recipe, SPARSITIES,
    allocate_levels, apply_recalibrated, layers,
};
use paretune_evaluate::accuracy::{divergence, for_scoring, largest, outputs};
use paretune_kernels::hardware::Isa;
use paretune_kernels::operator::Operator;
use paretune_kernels::weights::{Grid, Numbers, Pattern};
use paretune_kernels::{Plan, WeightValues};
use paretune_model::Network;
use paretune_model::images::{self, Images, SplitSizes, normalize_into};
use paretune_record::request::Normalization;

#[derive(Parser)]
struct Arguments {
    /// Networks to compress, as ONNX files
    models: Vec<PathBuf>,
    /// Folder of labelled images with train/ and test/
    #[arg(long)]
    data: Option<PathBuf>,
    /// Mean of each channel's pixels
    #[arg(long, value_delimiter = ',', default_value = "125.3,123.0,113.9")]
    mean: Vec<f32>,
    /// Standard deviation of each channel's pixels
    #[arg(long, value_delimiter = ',', default_value = "63.0,62.1,66.7")]
    std: Vec<f32>,
    /// Number of calibration images per network
    #[arg(long, default_value_t = 1024)]
    calibration: usize,
    /// Number of images on which the accuracy is measured
    #[arg(long, default_value_t = 10_000)]
    report: usize,
    /// Number of calibration images on which losses are measured
    #[arg(long, default_value_t = 256)]
    judged: usize,
    /// Print only rows whose title contains this text
    #[arg(long, default_value = "")]
    only: String,
    /// Folder for compressed layers, which later runs reuse
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Compression of all layers in a row of the table.
enum Row {
    /// One number type for every layer.
    Numbers(Grid),
    /// One number type for all layers except the first and the last, which have 8 bits.
    Inner(Grid),
    /// One total of zeros for the whole network, with a pattern and a fraction.
    Zeros(Pattern, f64),
}

/// Number of images on which statistics are re-estimated.
const REPAIR: usize = 256;

const BLOCKS: Pattern = Pattern::Blocks { outputs: 16, inputs: 1 };

const ROWS: [(&str, Row); 12] = [
    ("8 bit", Row::Numbers(Grid::Bits8)),
    ("4 bit", Row::Numbers(Grid::Bits4)),
    ("3 bit", Row::Numbers(Grid::Bits3)),
    ("2 bit", Row::Numbers(Grid::Bits2)),
    ("ternary", Row::Numbers(Grid::Ternary)),
    ("2 bit, first and last layer 8 bit", Row::Inner(Grid::Bits2)),
    ("ternary, first and last layer 8 bit", Row::Inner(Grid::Ternary)),
    ("70 % unstructured", Row::Zeros(Pattern::Unstructured, 0.7)),
    ("80 % unstructured", Row::Zeros(Pattern::Unstructured, 0.8)),
    ("90 % unstructured", Row::Zeros(Pattern::Unstructured, 0.9)),
    ("50 % blocks of 16x1", Row::Zeros(BLOCKS, 0.5)),
    ("70 % blocks of 16x1", Row::Zeros(BLOCKS, 0.7)),
];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(data) = &arguments.data else {
        println!(
            "needs networks and images: cargo bench --bench compression -- MODEL.onnx... --data \
             CIFAR10"
        );
        return Ok(());
    };
    for model in &arguments.models {
        let subject = Subject::load(arguments, model, data)?;
        subject.table(&arguments.only)?;
    }
    Ok(())
}

/// Selects `count` images, evenly spread, because they are sorted by class.
fn spread(images: &Images, count: usize) -> Images {
    let count = count.min(images.len());
    let chosen = || (0..count).map(|index| index * images.len() / count.max(1));
    Images {
        dims: images.dims,
        pixels: chosen().flat_map(|index| images.image(index).iter().copied()).collect(),
        labels: chosen().filter_map(|index| images.label(index)).collect(),
    }
}

struct Subject {
    plan: Plan,
    layers: Vec<LayerInfo>,
    normalization: Normalization,
    report: Images,
    judged: Images,
    calibration: Calibration,
    /// Statistics of the images for recalibration.
    repair: Calibration,
    inputs: Arc<[f32]>,
    database: Database,
    accuracy: f64,
    opinions: Vec<Vec<f32>>,
}

impl Subject {
    fn load(arguments: &Arguments, model: &Path, data: &Path) -> anyhow::Result<Self> {
        let network = Network::load(model).with_context(|| format!("{}", model.display()))?;
        let plan = network.plan;
        let Ok(dims) = <[usize; 3]>::try_from(plan.values[plan.input].dims.as_slice()) else {
            bail!("{} does not read images", model.display());
        };
        // The search and report parts are not used, because the accuracy is measured on all of
        // `test`.
        let sizes = SplitSizes { calibration: arguments.calibration, search: 1, report: 1 };
        let options = images::ImageOptions::default();
        let dataset = images::load(data, dims, sizes, &options)?.images;
        let test = images::TestSet::open(data, dims, &options)?;
        let report = test.read(0..test.len())?;
        let normalization =
            Normalization { mean: arguments.mean.clone(), std: arguments.std.clone() };
        let mut inputs = vec![0.0; dataset.calibration.len() * dims.iter().product::<usize>()];
        for (index, input) in inputs.chunks_exact_mut(dims.iter().product()).enumerate() {
            let image = dataset.calibration.image(index);
            normalize_into(image, &normalization.mean, &normalization.std, dims, input);
        }
        let inputs: Arc<[f32]> = inputs.into();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let calibration = Calibration::collect(&plan, &inputs, 8, threads, &mut |_| {})?;
        let numbers = dims.iter().product::<usize>();
        let repair = Calibration::collect(
            &plan,
            &inputs[..numbers * REPAIR.min(dataset.calibration.len())],
            8,
            threads,
            &mut |_| {},
        )?;
        let temporary = tempfile::tempdir()?;
        let folder = arguments.keep.clone().unwrap_or_else(|| temporary.keep());
        let key = format!("{}-{}", &network.sha256[..16], arguments.calibration);
        let database = Database::open(&folder, &key, plan.clone(), Arc::clone(&inputs), threads)?;
        let mut this = Self {
            layers: layers(&plan)?,
            plan,
            normalization,
            judged: dataset.calibration.slice(
                dataset.calibration.len() - arguments.judged.min(dataset.calibration.len())
                    ..dataset.calibration.len(),
            ),
            report: spread(&report, arguments.report),
            calibration,
            repair,
            inputs,
            database,
            accuracy: 0.0,
            opinions: Vec::new(),
        };
        this.accuracy = this.accuracy_of(&this.plan)?;
        this.opinions = this.outputs_of(&this.plan)?;
        println!(
            "\n{}: {:.2} % of {} images",
            network.name,
            100.0 * this.accuracy,
            this.report.len()
        );
        // A run with `--only` computes just what its rows need.
        if arguments.only.is_empty() {
            let begun = Instant::now();
            this.database.build(&[Pattern::Unstructured, BLOCKS], &mut |_| true)?;
            println!("database: {:.0} s", begun.elapsed().as_secs_f64());
        }
        Ok(this)
    }

    fn table(&self, only: &str) -> anyhow::Result<()> {
        let mut losses: Vec<(Pattern, Vec<Vec<Level>>)> = Vec::new();
        println!(
            "{:38} {:>9} {:>14} {:>8} {:>8}",
            "points lost", "one-shot", "reconstructed", "nats", "compose"
        );
        for (title, row) in ROWS.iter().filter(|(title, _)| title.contains(only)) {
            let uniform = |recipe: &dyn Fn(usize) -> LayerRecipe| Recipe {
                layers: self
                    .layers
                    .iter()
                    .enumerate()
                    .map(|(at, layer)| (layer.step.clone(), recipe(at)))
                    .collect(),
                ..Recipe::default()
            };
            let of = |grid: Grid| LayerRecipe {
                numbers: Numbers::Integer(grid),
                ..LayerRecipe::default()
            };
            let last = self.layers.len() - 1;
            let (plain, chosen) = match *row {
                Row::Numbers(grid) => (uniform(&|_| of(grid)), uniform(&|_| of(grid))),
                Row::Inner(grid) => {
                    let recipe = |at| of(if at == 0 || at == last { Grid::Bits8 } else { grid });
                    (uniform(&recipe), uniform(&recipe))
                }
                Row::Zeros(pattern, share) => {
                    if !losses.iter().any(|(known, _)| *known == pattern) {
                        losses.push((pattern, self.losses(pattern)?));
                    }
                    let (_, losses) =
                        losses.iter().find(|(known, _)| *known == pattern).context("known")?;
                    (self.one_threshold(pattern, share)?, self.allocated(pattern, share, losses)?)
                }
            };
            let mut plain = self.points_lost(&Recipe { method: Method::OneShot, ..plain })?;
            if let Row::Zeros(pattern, share) = *row {
                // Batch normalization is folded into the filters, which does not suit one
                // threshold, so the better result of the two counts.
                let uniform = Recipe { method: Method::OneShot, ..self.zeros(pattern, |_| share) };
                let uniform = self.points_lost(&uniform)?;
                plain = if uniform.0 < plain.0 { uniform } else { plain };
            }
            let chosen = self.points_lost(&Recipe { method: Method::Reconstructed, ..chosen })?;
            println!(
                "{title:38} {:>9.2} {:>14.2} {:>8.4} {:>6.2} s",
                plain.0, chosen.0, chosen.1, chosen.2
            );
        }
        Ok(())
    }

    /// Returns the points of accuracy lost, the loss in nats per image on calibration images, and
    /// the seconds to build the network.
    fn points_lost(&self, recipe: &Recipe) -> anyhow::Result<(f64, f64, f64)> {
        let begun = Instant::now();
        let plan = self.compressed(recipe)?;
        let seconds = begun.elapsed().as_secs_f64();
        let loss = divergence(&self.opinions, &self.outputs_of(&plan)?);
        Ok((100.0 * (self.accuracy - self.accuracy_of(&plan)?), loss, seconds))
    }

    fn compressed(&self, recipe: &Recipe) -> anyhow::Result<Plan> {
        let numbers = self.plan.values[self.plan.input].len();
        let images = &self.inputs[..(REPAIR * numbers).min(self.inputs.len())];
        let calibration =
            if recipe.needs_recalibration() { &self.repair } else { &self.calibration };
        Ok(apply_recalibrated(
            &self.plan,
            calibration,
            Some(&self.database),
            recipe,
            images,
            None,
            2,
        )?)
    }

    fn accuracy_of(&self, plan: &Plan) -> anyhow::Result<f64> {
        let answers =
            outputs(&for_scoring(plan), &self.report, &self.normalization, Isa::detect(), largest)?;
        let right = answers
            .iter()
            .zip(&*self.report.labels)
            .filter(|(answer, label)| answer == label)
            .count();
        Ok(right as f64 / answers.len().max(1) as f64)
    }

    fn outputs_of(&self, plan: &Plan) -> anyhow::Result<Vec<Vec<f32>>> {
        let look = <[f32]>::to_vec;
        Ok(outputs(&for_scoring(plan), &self.judged, &self.normalization, Isa::detect(), look)?)
    }

    /// Returns the loss of each layer alone at each sparsity.
    fn losses(&self, pattern: Pattern) -> anyhow::Result<Vec<Vec<Level>>> {
        let mut all = Vec::new();
        for layer in &self.layers {
            let mut levels = vec![Level { saved: 0.0, loss: 0.0 }];
            for sparsity in SPARSITIES.into_iter().filter(|_| layer.sparse) {
                let recipe = LayerRecipe { sparsity, pattern, numbers: Numbers::F32 };
                let recipe = Recipe {
                    layers: [(layer.step.clone(), recipe)].into(),
                    recalibrate: false,
                    ..Recipe::default()
                };
                let loss =
                    divergence(&self.opinions, &self.outputs_of(&self.compressed(&recipe)?)?);
                levels.push(Level { saved: sparsity * layer.weights as f64, loss });
            }
            all.push(levels);
        }
        Ok(all)
    }

    /// Returns the sparsities of the layers that have the smallest sum of losses.
    fn allocated(
        &self,
        pattern: Pattern,
        share: f64,
        losses: &[Vec<Level>],
    ) -> anyhow::Result<Recipe> {
        let total: usize = self.layers.iter().map(|layer| layer.weights).sum();
        let Some(choice) = allocate_levels(losses, share * total as f64) else {
            bail!("{share} zeros cannot be reached");
        };
        Ok(self.zeros(pattern, |at| if choice[at] == 0 { 0.0 } else { SPARSITIES[choice[at] - 1] }))
    }

    fn zeros(&self, pattern: Pattern, sparsity: impl Fn(usize) -> f64) -> Recipe {
        let recipe = |at: usize| {
            let sparsity = if self.layers[at].sparse { sparsity(at) } else { 0.0 };
            LayerRecipe { sparsity, pattern, numbers: Numbers::F32 }
        };
        Recipe {
            layers: (0..self.layers.len())
                .map(|at| (self.layers[at].step.clone(), recipe(at)))
                .collect(),
            ..Recipe::default()
        }
    }

    /// Returns the sparsities of the layers under one threshold for the magnitude of all weights
    /// (for blocks: for the mean square).
    fn one_threshold(&self, pattern: Pattern, share: f64) -> anyhow::Result<Recipe> {
        let outputs = match pattern {
            Pattern::Blocks { outputs, .. } => usize::from(outputs),
            _ => 1,
        };
        let mut scores: Vec<Vec<f32>> = Vec::new();
        for layer in &self.layers {
            let Operator::Conv(conv) = &self.plan.steps[layer.index].operator else {
                bail!("no convolution")
            };
            let WeightValues::F32(values) = &self.plan.weights[conv.weights].values else {
                bail!("no numbers")
            };
            let columns: usize = layer.dims[1..].iter().product();
            let mut layer_scores = Vec::new();
            for band in values.chunks(columns * outputs).filter(|_| layer.sparse) {
                layer_scores.extend((0..columns).map(|column| {
                    band.chunks(columns).map(|row| row[column] * row[column]).sum::<f32>()
                        / (band.len() / columns) as f32
                }));
            }
            scores.push(layer_scores);
        }
        let mut all: Vec<f32> = scores.iter().flatten().copied().collect();
        all.sort_by(f32::total_cmp);
        let weights: usize = self.layers.iter().map(|layer| layer.weights).sum();
        let prunable: usize =
            self.layers.iter().filter(|layer| layer.sparse).map(|layer| layer.weights).sum();
        let wanted = share * weights as f64 / prunable.max(1) as f64 * all.len() as f64;
        let threshold = all.get(wanted.round() as usize).copied().unwrap_or(f32::INFINITY);
        Ok(self.zeros(pattern, |at| {
            let below = scores[at].iter().filter(|&&score| score < threshold).count();
            (below as f64 / scores[at].len().max(1) as f64).min(0.999)
        }))
    }
}
