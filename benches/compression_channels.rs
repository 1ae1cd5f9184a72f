//! Measures the table of `docs/results/compression-channels.md`: accuracy lost by channel pruning.
//!
//! ```sh
//! cargo bench --bench compression_channels -- MODELS IMAGES [--network NAME,...]
//! ```
//!
//! `MODELS` holds `NAME.onnx`, `IMAGES` a `train/` and a `test/` part. Compression uses only 1,024
//! unlabelled images of the first. The accuracy is top-1 on all of the second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use paretune_compress as compress;
use paretune_compress::{
    BaselineOutputs, Calibration, ChannelCriterion, Distillation, Recipe, allocate_channels, apply,
    apply_recalibrated, channel_groups, channel_mask,
};
use paretune_evaluate::accuracy::{answers, for_scoring};
use paretune_kernels::Plan;
use paretune_kernels::hardware::Isa;
use paretune_model::Network;
use paretune_model::images::{self, Images, SplitSizes, normalize_into};
use paretune_record::request::Normalization;
use paretune_record::score::Score;
use tracing_subscriber::filter::LevelFilter;

#[derive(Parser)]
struct Arguments {
    /// Folder of the networks
    models: Option<PathBuf>,
    /// Folder of the labelled images
    data: Option<PathBuf>,
    /// Names of the networks to compress
    #[arg(long, value_delimiter = ',', default_value = "resnet20,resnet18,vgg16,mobilenet")]
    network: Vec<String>,
    /// Fractions of the multiply-adds to keep
    #[arg(long, value_delimiter = ',', default_value = "0.75,0.5")]
    work: Vec<f64>,
    /// Seconds of distillation after the last method; 0 for none
    #[arg(long, default_value_t = 0)]
    finetune: u64,
    /// Number of images per step of distillation
    #[arg(long, default_value_t = Distillation::default().batch)]
    batch: usize,
    /// Learning rate of distillation
    #[arg(long, default_value_t = Distillation::default().learning_rate)]
    rate: f64,
    /// Temperature that outputs are divided by before they are compared
    #[arg(long, default_value_t = Distillation::default().temperature)]
    temperature: f32,
    /// Fraction of images that are mixed with another image
    #[arg(long, default_value_t = Distillation::default().mixup)]
    mixed: f64,
    /// Fraction of images that receive a rectangle of another image
    #[arg(long, default_value_t = Distillation::default().cutmix)]
    pasted: f64,
    /// Weight of the differences of inner values in the loss
    #[arg(long, default_value_t = Distillation::default().feature_weight)]
    inner: f32,
    /// Number of images for the least-squares fit; a search uses 256
    #[arg(long, default_value_t = CALIBRATION - HELD_BACK)]
    fitted: usize,
    /// Measure only the last method and the distillation after it
    #[arg(long)]
    last: bool,
    /// Largest number of report images
    #[arg(long, default_value_t = usize::MAX)]
    report: usize,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn distillation(&self) -> Distillation {
        Distillation {
            duration: Duration::from_secs(self.finetune),
            batch: self.batch,
            learning_rate: self.rate,
            temperature: self.temperature,
            mixup: self.mixed,
            cutmix: self.pasted,
            feature_weight: self.inner,
            ..Distillation::default()
        }
    }
}

/// Number of images for compression.
const CALIBRATION: usize = 1024;
/// Number of the last of these images, which validate the distillation and are not used for the
/// fit.
const HELD_BACK: usize = 128;

/// A network with its images and statistics.
struct Subject<'a> {
    plan: &'a Plan,
    report: &'a Images,
    normalization: &'a Normalization,
    /// Predictions of the baseline for the report images.
    before: Vec<u32>,
    inputs: Vec<f32>,
    /// Number of input values for the least-squares fit.
    fitted: usize,
    calibration: Calibration,
    threads: usize,
}

impl<'a> Subject<'a> {
    fn new(
        plan: &'a Plan,
        calibration: &Images,
        report: &'a Images,
        normalization: &'a Normalization,
    ) -> anyhow::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut inputs = vec![0.0; calibration.pixels.len()];
        let Normalization { mean, std } = normalization;
        normalize_into(&calibration.pixels, mean, std, calibration.dims, &mut inputs);
        let numbers = calibration.image_bytes();
        let fitted = inputs.len().saturating_sub(HELD_BACK * numbers);
        let mut known = Calibration::collect(plan, &inputs[..fitted], 8, threads, &mut |_| {})?;
        known.measure_information(plan, &inputs[..fitted])?;
        let before = answers(&for_scoring(plan), report, normalization, Isa::detect())?;
        Ok(Self {
            plan,
            report,
            normalization,
            before,
            inputs,
            fitted,
            calibration: known,
            threads,
        })
    }

    fn score(&self, plan: &Plan) -> anyhow::Result<Score> {
        let found = answers(&for_scoring(plan), self.report, self.normalization, Isa::detect())?;
        Ok(Score::count(&found, &self.before, &self.report.labels))
    }

    /// Returns the kept fraction, equal for all groups, that leaves about `work` of the
    /// multiply-adds.
    fn uniform(&self, work: f64) -> anyhow::Result<BTreeMap<String, f64>> {
        let all = multiply_adds(self.plan)?;
        let groups = channel_groups(self.plan)?;
        let mut best = (f64::INFINITY, BTreeMap::new());
        for percent in 1..100 {
            let share = f64::from(percent) / 100.0;
            let prunable = groups.iter().filter(|group| group.prunable());
            let shares: BTreeMap<String, f64> =
                prunable.map(|group| (group.name.clone(), share)).collect();
            let recipe =
                Recipe { channels: shares.clone(), recalibrate: false, ..Recipe::default() };
            let left = multiply_adds(&apply(self.plan, &self.calibration, &recipe)?)? / all;
            if (left - work).abs() < best.0 {
                best = ((left - work).abs(), shares);
            }
        }
        Ok(best.1)
    }

    fn row(&self, network: &str, method: &str, plan: &Plan, seconds: f64) -> anyhow::Result<()> {
        let (drop, [low, high]) = self.score(plan)?.drop();
        println!(
            "| {network} | {method} | {:.1} % | {:.2} ({:.2} to {:.2}) | {seconds:.1} |",
            100.0 * multiply_adds(plan)? / multiply_adds(self.plan)?,
            100.0 * drop,
            100.0 * low,
            100.0 * high
        );
        Ok(())
    }

    fn rows(&self, network: &str, work: f64, arguments: &Arguments) -> anyhow::Result<()> {
        let (seen, held) = self.inputs.split_at(self.fitted);
        let seen =
            &seen[..seen.len().min(arguments.fitted * self.plan.values[self.plan.input].len())];
        let references = BaselineOutputs::collect(self.plan, seen, self.threads)?;
        let (plan, calibration) = (self.plan, &self.calibration);
        let compressed = |channels, criterion, references| {
            let recipe = Recipe { channels, criterion, ..Recipe::default() };
            let begun = Instant::now();
            let small = apply_recalibrated(
                plan,
                calibration,
                None,
                &recipe,
                seen,
                references,
                self.threads,
            )?;
            let keep = channel_mask(plan, calibration, &recipe)?;
            Ok::<_, anyhow::Error>((small, begun.elapsed().as_secs_f64(), keep))
        };
        let (magnitude, fisher) = (ChannelCriterion::Magnitude, ChannelCriterion::Fisher);
        let global = allocate_channels(plan, calibration, fisher, work)?;
        if !arguments.last {
            let (small, seconds, _) = compressed(self.uniform(work)?, magnitude, None)?;
            self.row(network, "uniform, magnitude, statistics re-estimated", &small, seconds)?;
            let global_magnitude = allocate_channels(plan, calibration, magnitude, work)?;
            let (small, seconds, _) = compressed(global_magnitude, magnitude, None)?;
            self.row(
                network,
                "one threshold, magnitude, statistics re-estimated",
                &small,
                seconds,
            )?;
            let (small, seconds, _) = compressed(global.clone(), fisher, None)?;
            self.row(network, "one threshold, Fisher, statistics re-estimated", &small, seconds)?;
        }
        let (small, seconds, keep) = compressed(global, fisher, Some(&references))?;
        self.row(network, "one threshold, Fisher, least squares", &small, seconds)?;
        if arguments.finetune > 0 {
            let finetune = &arguments.distillation();
            let begun = Instant::now();
            let mut steps = 0;
            let tuned =
                compress::distill(plan, &small, &keep, seen, held, finetune, &mut |progress| {
                    steps = progress.steps;
                    true
                })?;
            let method =
                format!("the same, then {} s of distillation ({steps} steps)", arguments.finetune);
            self.row(network, &method, &tuned, begun.elapsed().as_secs_f64())?;
        }
        Ok(())
    }
}

fn multiply_adds(plan: &Plan) -> anyhow::Result<f64> {
    Ok(compress::layers(plan)?.iter().map(|layer| layer.multiply_adds as f64).sum())
}

fn run(arguments: &Arguments, models: &Path, data: &Path) -> anyhow::Result<()> {
    let dims = [3, 32, 32];
    let sizes = SplitSizes { calibration: CALIBRATION, search: 1, report: 1 };
    let options = images::ImageOptions::default();
    let calibration = images::load(data, dims, sizes, &options)?.images.calibration;
    let test = images::TestSet::open(data, dims, &options)?;
    let report = test.read(0..test.len())?.take(arguments.report);
    // Means and deviations of CIFAR-10, which the networks were trained with.
    let normalization =
        Normalization { mean: vec![125.3, 123.0, 113.9], std: vec![63.0, 62.1, 66.7] };
    println!("{} report images, {} for compression\n", report.len(), calibration.len());
    println!("| network | method | multiply-adds left | points lost (95 % interval) | seconds |");
    println!("| --- | --- | --- | --- | --- |");
    for name in &arguments.network {
        let network = Network::load(&models.join(format!("{name}.onnx")))?;
        let subject = Subject::new(&network.plan, &calibration, &report, &normalization)?;
        for &work in &arguments.work {
            subject.rows(name, work, arguments)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    // `PARETUNE_LOG=debug` prints the progress of the distillation.
    let level =
        std::env::var("PARETUNE_LOG").ok().and_then(|level| level.parse::<LevelFilter>().ok());
    let log = tracing_subscriber::fmt().with_max_level(level.unwrap_or(LevelFilter::ERROR));
    log.with_writer(std::io::stderr).without_time().init();
    let arguments = Arguments::parse();
    let (Some(models), Some(data)) = (&arguments.models, &arguments.data) else {
        println!("compression_channels: name the folders of networks and images");
        return ExitCode::SUCCESS;
    };
    match run(&arguments, models, data) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
