//! The command `paretune export` writes the best configuration of a study in a form that runs.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use paretune_evaluate::rebuild::rebuild;
use paretune_export::History;
use paretune_kernels::KernelError;
use paretune_kernels::hardware::Isa;
use paretune_model::onnx;
use paretune_record::artefact::write_whole;
use paretune_record::front::FrontPoint;
use paretune_study::prepare;

use super::study_record::read_study;
use super::{ExitStatus, QuestionArgs, paths, usage};
use crate::export;

/// Arguments of the command `paretune export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The study: its folder, or its name in the user's data folder [default: the latest]
    study: Option<PathBuf>,
    #[command(flatten)]
    question: QuestionArgs,
    /// Format in which the point or the study is exported
    #[arg(long = "to", value_enum, default_value_t = Format::Bundle)]
    format: Format,
    /// Storage of the weights in a bundle [default: coded]
    #[arg(long, value_enum)]
    weights: Option<WeightForm>,
    /// Export the point whose id begins with ID instead of the best one
    #[arg(long, value_name = "ID")]
    pick: Option<String>,
    /// Path to write to [default: bundle for a bundle, model.onnx for onnx, - (standard output) for
    /// the others]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Storage of the weights in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WeightForm {
    /// Smallest size on disk; the weights are decoded and packed whenever the bundle is loaded
    Coded,
    /// Packed for this machine's kernels and mapped into memory when loaded. The bundle is larger,
    /// because it also holds the coded weights for other machines
    Packed,
}

/// Export formats of the command `paretune export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A folder with a plan and its weights, for `paretune run`
    Bundle,
    /// The configuration and its metrics (docs/schema/point.schema.json)
    Json,
    /// An ONNX file with pruned shapes and with 8-bit layers between QuantizeLinear and
    /// DequantizeLinear
    Onnx,
    /// All trials of the study in T4, the result format of the autotuning community
    T4,
    /// All trials of the study as a journal for Optuna and its dashboard
    Optuna,
}

/// Exports the chosen point or the whole study.
pub fn export(args: &ExportArgs) -> anyhow::Result<ExitStatus> {
    if args.weights.is_some() && args.format != Format::Bundle {
        return Err(usage(anyhow!("--weights applies to bundles only")));
    }
    let folder = paths::study(args.study.as_deref()).map_err(usage)?;
    if matches!(args.format, Format::T4 | Format::Optuna) {
        if args.pick.is_some() {
            return Err(usage(anyhow!(
                "--pick does not apply to this format, which exports all trials"
            )));
        }
        let history = History::read(&folder).map_err(usage)?;
        let text = match args.format {
            Format::T4 => serde_json::to_string_pretty(&export::t4(&history))? + "\n",
            _ => export::optuna(&history),
        };
        return write_text(args.output.as_deref(), &text);
    }
    let front = read_study(&folder)?.front(&args.question.question()?);
    let point = export::chosen(&front, args.pick.as_deref()).map_err(usage)?;
    let (default, write): (&str, Writer) = match args.format {
        Format::Bundle => ("bundle", bundle),
        Format::Onnx => ("model.onnx", onnx_file),
        Format::Json | Format::T4 | Format::Optuna => {
            return write_text(
                args.output.as_deref(),
                &(serde_json::to_string_pretty(point)? + "\n"),
            );
        }
    };
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(default));
    let (bytes, parts) = if args.weights == Some(WeightForm::Packed) {
        let isa = Isa::detect();
        prepare::mend(&folder).map_err(usage)?;
        let bytes =
            rebuild(&folder, point)?.write_packed(&path, isa).map_err(|error| match error {
                KernelError::Data(problem) => usage(anyhow!("--weights packed: {problem}")),
                error => anyhow!(error),
            })?;
        let isa = isa.name();
        (bytes.total(), format!(" ({} packed for {isa}, {} coded)", bytes.packed, bytes.coded))
    } else {
        (write(&folder, point, &path)?, String::new())
    };
    let miss = if point.feasible { "" } else { " (it does not meet every limit)" };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} is in {}: {bytes} bytes{parts}{miss}", point.id, path.display())?;
    Ok(ExitStatus::Done)
}

/// Function that builds a point of the study in a folder again, writes it to a path and returns its
/// bytes.
type Writer = fn(&Path, &FrontPoint, &Path) -> anyhow::Result<u64>;

/// Builds `point` of the study in `folder` again and writes it as a bundle to `path`; returns its
/// bytes.
pub(super) fn bundle(folder: &Path, point: &FrontPoint, path: &Path) -> anyhow::Result<u64> {
    prepare::mend(folder).map_err(usage)?;
    let bundle = rebuild(folder, point)?;
    bundle.write(path)?;
    Ok(bundle.bytes())
}

/// Builds `point` of the study in `folder` again and writes it as an ONNX file to `path`; returns
/// its bytes.
pub(super) fn onnx_file(folder: &Path, point: &FrontPoint, path: &Path) -> anyhow::Result<u64> {
    prepare::mend(folder).map_err(usage)?;
    let bytes = onnx::export_bundle(&rebuild(folder, point)?)?;
    write_whole(path, &bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(bytes.len() as u64)
}

/// Writes a text to a file, or to standard output without a path.
fn write_text(path: Option<&Path>, text: &str) -> anyhow::Result<ExitStatus> {
    match path.filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            std::fs::write(path, text)
                .with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
    }
    Ok(ExitStatus::Done)
}
