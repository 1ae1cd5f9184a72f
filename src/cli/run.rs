//! The command `paretune run` runs an exported bundle without its study.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use paretune_evaluate::accuracy::answers_of;
use paretune_kernels::ExecutorOptions;
use paretune_kernels::bundle::{Bundle, Stored};
use paretune_kernels::hardware::Isa;
use paretune_model::images::{self, normalize_into};
use paretune_record::metric::Metric;
use paretune_record::request::Normalization;
use paretune_record::score::Score;
use paretune_report::units;

use super::{ExitStatus, report_load_changes, usage};

/// Arguments of the command `paretune run`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["input", "data"])))]
pub struct RunArgs {
    /// Folder that holds the bundle
    bundle: PathBuf,
    /// Images as a NumPy array [batch, channels, height, width] (or one image without batch). Bytes
    /// are normalized as in the training; floats are used unchanged
    #[arg(long, value_name = "X.npy", requires = "output")]
    input: Option<PathBuf>,
    /// File for the outputs: a NumPy array of floats, one row per image
    #[arg(long, value_name = "Y.npy", requires = "input")]
    output: Option<PathBuf>,
    /// Labelled images to score (those under test/ if that folder exists)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Number of threads [default: those that the bundle was tuned for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the metrics as a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the bundle on an array, or scores it on images.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitStatus> {
    let stored = Stored::open(&args.bundle).map_err(usage)?;
    match (&args.data, &args.input, &args.output) {
        (Some(data), _, _) => score(args, &stored, data),
        (None, Some(input), Some(output)) => convert(args, &stored, input, output),
        _ => Err(usage(anyhow!("give --data DIR, or --input and --output"))),
    }
}

/// Returns `[channels, height, width]` of the bundle's input.
fn input_dims(bundle: &Bundle) -> anyhow::Result<[usize; 3]> {
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

fn score(args: &RunArgs, stored: &Stored, data: &Path) -> anyhow::Result<ExitStatus> {
    let bundle = stored.description();
    let dims = input_dims(bundle)?;
    let (images, classes) = images::load_test(data, dims).map_err(usage)?;
    if images.labels.is_empty() {
        return Err(usage(anyhow!(
            "`{}` has no labels: accuracy needs a folder per class (or labels in the file)",
            data.display()
        )));
    }
    let trained = &bundle.preprocessing.classes;
    if !trained.is_empty() && !classes.is_empty() && *trained != classes {
        return Err(usage(anyhow!(
            "the classes in `{}` are not those of the bundle ({} against {})",
            data.display(),
            classes.join(", "),
            trained.join(", ")
        )));
    }
    let normalization = Normalization {
        mean: bundle.preprocessing.mean.clone(),
        std: bundle.preprocessing.std.clone(),
    };
    let told = Once::new();
    let load = |options: &ExecutorOptions| {
        let loaded = stored.load(options)?;
        told.call_once(|| report_load_changes(&loaded));
        Ok(loaded.executor)
    };
    let found = answers_of(&load, &images, &normalization, Isa::detect())?;
    // There is no baseline to compare with, so only the correct predictions count.
    let score = Score::count(&found, &found, &images.labels);
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

fn convert(
    args: &RunArgs,
    stored: &Stored,
    input: &Path,
    output: &Path,
) -> anyhow::Result<ExitStatus> {
    let bundle = stored.description();
    let dims = input_dims(bundle)?;
    let (batch, data) = read_array(bundle, input, dims).map_err(usage)?;
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
    write_array(output, batch, outputs, &results)
        .with_context(|| format!("cannot write `{}`", output.display()))?;
    Ok(ExitStatus::Done)
}

/// Reads an array. Returns the number of images and the input values of the network.
fn read_array(bundle: &Bundle, path: &Path, dims: [usize; 3]) -> anyhow::Result<(usize, Vec<f32>)> {
    let problem = || format!("`{}` is not an array that the bundle accepts", path.display());
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let length = file.metadata()?.len();
    let array = npyz::NpyFile::new(BufReader::new(file)).with_context(problem)?;
    let shape: Vec<usize> = array
        .shape()
        .iter()
        .map(|&size| usize::try_from(size))
        .collect::<Result<_, _>>()
        .with_context(problem)?;
    let batch = match shape[..] {
        [channels, height, width] if [channels, height, width] == dims => 1,
        [batch, channels, height, width] if [channels, height, width] == dims => batch,
        _ => bail!(
            "`{}` has shape {shape:?}; the bundle takes [batch, {}, {}, {}]",
            path.display(),
            dims[0],
            dims[1],
            dims[2]
        ),
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
        let mut data = vec![0.0; bytes.len()];
        let preprocessing = &bundle.preprocessing;
        for (image, out) in bytes.chunks_exact(numbers).zip(data.chunks_exact_mut(numbers)) {
            normalize_into(image, &preprocessing.mean, &preprocessing.std, dims, out);
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

fn write_array(path: &Path, rows: usize, columns: usize, data: &[f32]) -> anyhow::Result<()> {
    use npyz::WriterBuilder;
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[rows as u64, columns as u64])
        .writer(&mut bytes)
        .begin_nd()?;
    writer.extend(data.iter().copied())?;
    writer.finish()?;
    Ok(std::fs::write(path, bytes)?)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn real(count: u64) -> f64 {
    count as f64
}
