//! The command `paretune run` runs an exported bundle without its study.

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use paretune_evaluate::accuracy::answers_of;
use paretune_evaluate::decision::Decision;
use paretune_kernels::bundle::{Bundle, Preprocessing, Stored};
use paretune_kernels::file;
use paretune_kernels::hardware::Isa;
use paretune_kernels::{Executor, ExecutorOptions};
use paretune_model::images::{ImageOptions, TestSet, normalize_into};
use paretune_model::{ImportOptions, Network, Outputs};
use paretune_record::metric::Metric;
use paretune_record::request::Normalization;
use paretune_record::score::Score;
use paretune_report::units;
use paretune_study::baseline::Head;

use super::classify::classify;
use super::images::{progress_bar, say};
use super::{ExitStatus, report_load_changes, usage};

/// Arguments of the command `paretune run`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["images", "input", "data"])))]
pub struct RunArgs {
    /// Folder that holds the bundle, or an ONNX file, which runs at full precision
    bundle: PathBuf,
    /// Images to classify; the five best classes of each are printed
    #[arg(value_name = "IMAGE", conflicts_with_all = ["input", "data"])]
    pub(super) images: Vec<PathBuf>,
    /// Images as a NumPy array [batch, channels, height, width] (or one image without batch). Bytes
    /// are normalized as in the training; floats are used unchanged
    #[arg(long, value_name = "X.npy", requires = "output")]
    input: Option<PathBuf>,
    /// File for the outputs: a NumPy array of floats, one row per image. If an ONNX file has
    /// several outputs, this is the first, and a folder of this name without .npy gets one file
    /// for each
    #[arg(long, value_name = "Y.npy", requires = "input")]
    output: Option<PathBuf>,
    /// Labelled images to score (those under test/ if that folder exists)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Height and width of the input, where an ONNX file leaves them open
    #[arg(long, value_name = "HxW", value_parser = input_size)]
    input_size: Option<[usize; 2]>,
    /// File with the labels of a folder of images, one `NAME CLASS` per line
    #[arg(long, value_name = "FILE", requires = "data")]
    labels: Option<PathBuf>,
    /// Number of threads [default: those that the bundle was tuned for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Print the metrics or the classes as a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Number of images that are decoded before they are scored.
const PORTION: usize = 1024;

/// Runs the bundle on an array, scores it on images, or classifies single ones.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitStatus> {
    if args.bundle.is_file() {
        let (Some(input), Some(output)) = (&args.input, &args.output) else {
            return Err(usage(anyhow!("an ONNX file runs on an array: give --input and --output")));
        };
        return run_network(args, input, output);
    }
    let stored = Stored::open(&args.bundle).map_err(usage)?;
    if !args.images.is_empty() {
        return classify(args, &stored);
    }
    match (&args.data, &args.input, &args.output) {
        (Some(data), _, _) => score(args, &stored, data),
        (None, Some(input), Some(output)) => convert(args, &stored, input, output),
        _ => Err(usage(anyhow!("give images, --data DIR, or --input and --output"))),
    }
}

/// Returns `[channels, height, width]` of the bundle's input.
pub(super) fn input_dims(bundle: &Bundle) -> anyhow::Result<[usize; 3]> {
    let dims = bundle
        .plan
        .values
        .get(bundle.plan.input)
        .map(|value| value.dims.clone())
        .unwrap_or_default();
    dims.as_slice().try_into().map_err(|_| {
        usage(anyhow!("the bundle takes inputs of shape {dims:?}, which are not images"))
    })
}

/// Returns the normalization of a bundle; one without any takes pixels as they are.
pub(super) fn normalization(bundle: &Bundle, channels: usize) -> Normalization {
    let preprocessing = &bundle.preprocessing;
    if preprocessing.mean.is_empty() {
        return Normalization { mean: vec![0.0; channels], std: vec![1.0; channels] };
    }
    Normalization { mean: preprocessing.mean.clone(), std: preprocessing.std.clone() }
}

fn score(args: &RunArgs, stored: &Stored, data: &Path) -> anyhow::Result<ExitStatus> {
    let bundle = stored.description();
    let dims = input_dims(bundle)?;
    let head = Head::of(&bundle.plan).map_err(|problem| usage(anyhow!(problem)))?;
    let options = ImageOptions {
        transform: bundle.preprocessing.transform,
        classes: bundle.preprocessing.classes.clone(),
        labels: args.labels.clone(),
        // A bundle that knows no names takes folders in their order.
        outputs: None,
        scratch: None,
        progress: progress_bar(),
    };
    let set = TestSet::open(data, dims, &options).map_err(usage)?;
    for note in set.notes() {
        say(note);
    }
    if bundle.preprocessing.classes.is_empty()
        && !set.classes().is_empty()
        && set.classes().len() < head.classes()
    {
        say(&format!(
            "warning: {} class folder(s) stand for the first of {} outputs, as the bundle knows no \
             names of classes",
            set.classes().len(),
            head.classes()
        ));
    }
    match set.highest_label() {
        None => {
            return Err(usage(anyhow!(
                "`{}` has no labels: accuracy needs a folder per class, labels in the file, or \
                 --labels",
                data.display()
            )));
        }
        Some(label) if label as usize >= head.classes() => {
            return Err(usage(anyhow!(
                "`{}` has the label {label}, but the bundle tells {} classes apart",
                data.display(),
                head.classes()
            )));
        }
        Some(_) => {}
    }
    let normalization = normalization(bundle, dims[0]);
    let told = Once::new();
    let load = |options: &ExecutorOptions| {
        let loaded = stored.load(options)?;
        told.call_once(|| report_load_changes(&loaded));
        Ok(loaded.executor)
    };
    let decision = Decision::of(&bundle.plan);
    let mut score = Score::default();
    for start in (0..set.len()).step_by(PORTION) {
        let images = set.read(start..start + PORTION).map_err(usage)?;
        let found = answers_of(&load, decision, &images, &normalization, Isa::detect())?;
        // There is no baseline to compare with, so only the correct predictions count.
        score = score.plus(Score::count(&found, &found, &images.labels));
    }
    let [low, high] = score.interval();
    let bytes = stored.bytes()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let metrics = serde_json::json!({
            "metrics": {"accuracy": score.accuracy(), "size": bytes},
            "spread": {"accuracy": [low, high]},
            "images": score.total,
            "correct": score.correct,
        });
        writeln!(out, "{metrics}")?;
    } else {
        writeln!(
            out,
            "accuracy {:.2} % ({} of {} images; 95 % interval {:.2} to {:.2} %), size {}",
            100.0 * score.accuracy(),
            score.correct,
            score.total,
            100.0 * low,
            100.0 * high,
            units::value(Metric::Size, real(bytes))
        )?;
    }
    Ok(ExitStatus::Done)
}

/// Parses a height and a width as in `224x224`.
fn input_size(text: &str) -> Result<[usize; 2], String> {
    let sizes = text.split_once('x').and_then(|(height, width)| {
        Some([height.trim().parse().ok()?, width.trim().parse().ok()?])
    });
    sizes
        .filter(|sizes| sizes.iter().all(|size| (1..=1 << 16).contains(size)))
        .ok_or_else(|| format!("`{text}` is no HEIGHTxWIDTH such as 224x224"))
}

/// Returns images with the channels of all pixels one behind the other.
fn channels_first(data: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let image = |image: &[f32]| -> Vec<f32> {
        let place = |at: usize| at % pixels * channels + at / pixels;
        (0..image.len()).map(|at| image[place(at)]).collect()
    };
    data.chunks_exact((channels * pixels).max(1)).flat_map(image).collect()
}

/// Runs an ONNX file on an array, at full precision with default schedules.
fn run_network(args: &RunArgs, input: &Path, output: &Path) -> anyhow::Result<ExitStatus> {
    let options =
        ImportOptions { outputs: Outputs::All, input_size: args.input_size, keep_rounding: true };
    let network = Network::load_with(&args.bundle, &options).map_err(usage)?;
    let plan = &network.plan;
    let dims = plan.values[plan.input].dims.clone();
    let (batch, data) = match dims[..] {
        [channels, height, width] if network.channels_last => {
            let size = [height, width, channels];
            let (batch, data) = read_array(None, input, &size).map_err(usage)?;
            (batch, channels_first(&data, channels, height * width))
        }
        _ => read_array(None, input, &dims).map_err(usage)?,
    };
    let threads = args.threads.map_or(1, usize::from);
    let options = ExecutorOptions { batch: 1, threads, isa: Isa::detect() };
    let mut executor = Executor::new(plan, &options)?;
    let (numbers, results) = executor.lengths();
    let mut all = vec![0.0; batch * results];
    for (image, result) in data.chunks_exact(numbers).zip(all.chunks_exact_mut(results)) {
        executor.run(image, result)?;
    }
    let named = |path: &Path| format!("cannot write `{}`", path.display());
    if let [only] = &network.outputs[..] {
        write_array(output, batch, &only.dims, &all).with_context(|| named(output))?;
        return Ok(ExitStatus::Done);
    }
    let folder = output.with_extension("");
    std::fs::create_dir_all(&folder).with_context(|| named(&folder))?;
    let mut start = 0;
    for part in &network.outputs {
        let len: usize = part.dims.iter().product();
        let rows = all.chunks_exact(results).flat_map(|row| &row[start..start + len]);
        let rows: Vec<f32> = rows.copied().collect();
        let safe = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name: String = part.name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
        let path = folder.join(format!("{name}.npy"));
        write_array(&path, batch, &part.dims, &rows).with_context(|| named(&path))?;
        if start == 0 && output != folder {
            write_array(output, batch, &part.dims, &rows).with_context(|| named(output))?;
        }
        start += len;
    }
    Ok(ExitStatus::Done)
}

fn convert(
    args: &RunArgs,
    stored: &Stored,
    input: &Path,
    output: &Path,
) -> anyhow::Result<ExitStatus> {
    let bundle = stored.description();
    let dims = input_dims(bundle)?;
    let (batch, data) = read_array(Some(&bundle.preprocessing), input, &dims).map_err(usage)?;
    let numbers: usize = dims.iter().product();
    let outputs =
        bundle.plan.values.get(bundle.plan.output).map_or(0, paretune_kernels::ValueSpec::len);
    let threads = args.threads.map_or(bundle.plan.threads, usize::from).max(1);
    let loaded = stored.load(&ExecutorOptions { batch: 1, threads, isa: Isa::detect() })?;
    report_load_changes(&loaded);
    let mut executor = loaded.executor;
    let mut results = vec![0.0; batch * outputs];
    for (image, result) in data.chunks_exact(numbers).zip(results.chunks_exact_mut(outputs.max(1)))
    {
        executor.run(image, result)?;
    }
    write_array(output, batch, &[outputs], &results)
        .with_context(|| format!("cannot write `{}`", output.display()))?;
    Ok(ExitStatus::Done)
}

/// Reads an array. Returns the number of images and the input values of the network. Bytes are
/// normalized by `preprocessing`, or stay as they are without it.
fn read_array(
    preprocessing: Option<&Preprocessing>,
    path: &Path,
    dims: &[usize],
) -> anyhow::Result<(usize, Vec<f32>)> {
    let problem = || format!("`{}` is not an array that the network accepts", path.display());
    let (file, length) =
        file::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let array = npyz::NpyFile::new(BufReader::new(file)).with_context(problem)?;
    let shape: Vec<usize> = array
        .shape()
        .iter()
        .map(|&size| usize::try_from(size))
        .collect::<Result<_, _>>()
        .with_context(problem)?;
    let batch = match &shape[..] {
        one if one == dims => 1,
        [batch, one @ ..] if one == dims => *batch,
        _ => {
            let sizes: Vec<String> = dims.iter().map(ToString::to_string).collect();
            bail!(
                "`{}` has shape {shape:?}; the network takes [batch, {}]",
                path.display(),
                sizes.join(", ")
            )
        }
    };
    let numbers: usize = dims.iter().product();
    // The header may claim any size, but the length of the file is an upper bound.
    if (batch as u64).saturating_mul(numbers as u64) > length {
        bail!("`{}` is cut off", path.display());
    }
    if array.order() != npyz::Order::C {
        bail!("`{}` is in Fortran order; save it with numpy.ascontiguousarray", path.display());
    }
    let kind = array.dtype().descr();
    if kind.contains("u1") {
        let bytes: Vec<u8> = array.into_vec().with_context(problem)?;
        let mut data: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
        if let (Some(preprocessing), &[channels, height, width]) =
            (preprocessing.filter(|preprocessing| !preprocessing.mean.is_empty()), dims)
        {
            let size = [channels, height, width];
            for (image, out) in bytes.chunks_exact(numbers).zip(data.chunks_exact_mut(numbers)) {
                normalize_into(image, &preprocessing.mean, &preprocessing.std, size, out);
            }
        }
        Ok((batch, data))
    } else if kind.contains("f4") {
        Ok((batch, array.into_vec().with_context(problem)?))
    } else {
        bail!(
            "`{}` holds {kind}; bytes (uint8) or single precision (float32) are possible",
            path.display()
        )
    }
}

/// Writes an array of shape `[rows, dims..]`.
fn write_array(path: &Path, rows: usize, dims: &[usize], data: &[f32]) -> anyhow::Result<()> {
    use npyz::WriterBuilder;
    let mut bytes = Vec::new();
    let shape: Vec<u64> = [rows].iter().chain(dims).map(|&size| size as u64).collect();
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd()?;
    writer.extend(data.iter().copied())?;
    writer.finish()?;
    Ok(std::fs::write(path, bytes)?)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn real(count: u64) -> f64 {
    count as f64
}
