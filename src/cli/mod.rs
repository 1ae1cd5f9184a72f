//! The command line. Every command parses its arguments to plain values, does its work through the
//! library, and ends with an exit status for scripts.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use paretune_kernels::bundle::{Loaded, WeightSource};
use paretune_kernels::opencl;
use paretune_record::again::Question;
use paretune_record::budget::Budget;
use paretune_record::limit;
use paretune_record::metric::Metric;
use paretune_record::preference::Preference;
use paretune_record::request::StudyRequest;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod bench;
mod characterize;
mod classify;
mod completions;
mod db;
mod devices;
mod evaluate;
mod export;
mod exporter;
mod images;
mod paths;
mod preprocess;
mod replay;
mod run;
mod search;
mod show;
mod signals;
mod space;
mod studies;
mod study_record;
mod tune;

/// Finds the best way to deploy a trained CNN on this machine under your limits, by measuring.
///
/// paretune compresses the network and selects and tunes kernels for each layer. It measures the
/// speed and the accuracy of every candidate on this hardware, keeps the best trade-offs (the
/// Pareto front), and exports the best configuration in a form that runs.
///
/// Try `paretune search` without arguments for a demonstration of one minute, then `paretune search
/// model.onnx --data images --limit "<20ms, <5MB"`.
#[derive(Parser)]
#[command(
    name = "paretune",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print more messages on standard error (-v: actions, -vv: their reasons)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Search the joint space of a network under limits and keep the Pareto archive
    Search(search::SearchArgs),
    /// Print or draw the archive of a study
    Show(show::ShowArgs),
    /// List the studies in the user's data folder
    Studies(studies::StudiesArgs),
    /// Write the best configuration of a study in a form that runs
    Export(export::ExportArgs),
    /// Run an exported bundle on images or arrays
    Run(run::RunArgs),
    /// Time a bundle or a network: whole and layer by layer
    Bench(bench::BenchArgs),
    /// Study each technique alone and jointly: tables, curves, sentences
    Characterize(characterize::CharacterizeArgs),
    /// Print a network and its joint space
    Space(space::SpaceArgs),
    /// Score configurations exactly as the search would
    Evaluate(evaluate::EvaluateArgs),
    /// Run strategies against a recorded table instead of hardware
    Replay(replay::ReplayArgs),
    /// Print the hardware, its features and its measured ceilings
    Devices(devices::DevicesArgs),
    /// Maintain the result store of all studies
    Db(db::DbArgs),
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages to a folder
    Man(completions::ManArgs),
    /// Serve trials on standard input (started by `search`)
    #[command(hide = true)]
    Worker,
}

/// Outcome of a command other than an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitStatus {
    /// The command did its work.
    Done,
    /// No point meets every limit.
    Infeasible,
    /// Interrupted from outside, without loss of data.
    Interrupted,
}

impl From<ExitStatus> for ExitCode {
    fn from(ending: ExitStatus) -> Self {
        match ending {
            ExitStatus::Done => Self::SUCCESS,
            ExitStatus::Infeasible => Self::from(3),
            ExitStatus::Interrupted => Self::from(130),
        }
    }
}

/// A mistake in the user's input, which exits with status 2, unlike a failure of this program.
#[derive(Debug)]
struct Usage(anyhow::Error);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&in_one_message(&self.0))
    }
}

impl std::error::Error for Usage {}

/// Joins an error and its causes, each of them once: many errors say their cause themselves.
fn in_one_message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints a note if a bundle was not loaded as it was stored, because it then loads or runs more
/// slowly than on the machine that made it.
fn report_load_changes(loaded: &Loaded) {
    let Loaded { weights, refitted, .. } = loaded;
    if let WeightSource::Repacked(_) = weights {
        eprintln!("note: {weights}");
    }
    if *refitted > 0 {
        eprintln!(
            "note: this machine's instruction set or the batch size does not allow the schedules \
             of {refitted} steps; the nearest valid ones are used"
        );
    }
}

/// Marks an error as a mistake in the input or the arguments.
fn usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    anyhow::Error::new(Usage(error.into()))
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_tracing(cli.verbose);
    let ending = match cli.command {
        Command::Search(args) => search::search(&args),
        Command::Show(args) => show::show(&args),
        Command::Studies(args) => studies::studies(&args),
        Command::Export(args) => export::export(&args),
        Command::Run(args) => run::run(&args),
        Command::Bench(args) if args.tune => tune::tune(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Characterize(args) => characterize::characterize(&args),
        Command::Space(args) => space::space(&args),
        Command::Evaluate(args) => evaluate::evaluate(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Devices(args) => devices::devices(&args),
        Command::Db(args) => db::db(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
        Command::Worker => paretune_evaluate::worker::serve()
            .map(|()| ExitStatus::Done)
            .map_err(anyhow::Error::from),
    };
    match ending {
        Ok(ending) => ending.into(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone with its terminal.
            let _ = writeln!(std::io::stderr(), "error: {}", in_one_message(&error));
            let mistake = error.downcast_ref::<Usage>().is_some() || is_unusable_path(&error);
            ExitCode::from(if mistake { 2 } else { 1 })
        }
    }
}

/// Returns whether the system refused a path: what does not exist, is of another kind or may not be
/// used is for the user to change.
fn is_unusable_path(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{
        AlreadyExists, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
    };
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|error| {
        matches!(
            error.kind(),
            AlreadyExists
                | IsADirectory
                | NotADirectory
                | NotFound
                | PermissionDenied
                | ReadOnlyFilesystem
        )
    })
}

/// Returns whether the reader of the output (`head`, a pager) has closed it, which is not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Returns the parser of an option that names an objective.
fn objective_parser() -> impl TypedValueParser<Value = Metric> {
    PossibleValuesParser::new(Metric::objectives().map(Metric::name))
        .try_map(|name| name.parse::<Metric>())
}

/// Returns the parser of an option that names a criterion of the best point.
fn preference_parser() -> impl TypedValueParser<Value = Preference> {
    PossibleValuesParser::new(Preference::all().map(Preference::name))
        .try_map(|name| name.parse::<Preference>())
}

/// Starts the log on standard error. `PARETUNE_LOG` (such as `debug` or `paretune_db=trace,warn`)
/// takes precedence over the number of `-v`.
fn start_tracing(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let asked = std::env::var("PARETUNE_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = asked.unwrap_or_else(|| Targets::new().with_target("paretune", level));
    let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colors)
        .without_time();
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
}

/// Options that ask a study again.
#[derive(Args, Clone, Debug)]
struct QuestionArgs {
    /// Limit to judge the points by instead of the study's own: "latency<20ms", "<20ms, <5MB". May
    /// be given several times
    #[arg(long = "limit", value_name = "TEXT")]
    limits: Vec<String>,
    /// Criterion of the best feasible point instead of the study's own: an objective, or `knee`
    #[arg(long, value_name = "TEXT", value_parser = preference_parser())]
    prefer: Option<Preference>,
}

impl QuestionArgs {
    /// Parses the limits.
    fn question(&self) -> anyhow::Result<Question> {
        let mut limits = Vec::new();
        for text in &self.limits {
            limits.extend(limit::parse(text).map_err(usage)?);
        }
        let limits = (!self.limits.is_empty()).then_some(limits);
        Ok(Question { limits, prefer: self.prefer })
    }
}

/// Options that select the images and the choices of the space.
#[derive(Args, Clone, Debug)]
struct WorkloadArgs {
    #[command(flatten)]
    images: images::ImageArgs,
    /// Thread counts to consider [default: the powers of two up to the number of cores, and that
    /// number]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Backends to consider: cpu, opencl (the first graphics processor, or else the first device),
    /// opencl:PLATFORM/DEVICE [default: cpu, and opencl if it has a device besides the processor]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    backend: Vec<String>,
    /// TOML file that narrows, fixes or extends the space
    #[arg(long, value_name = "FILE")]
    space: Option<PathBuf>,
}

impl WorkloadArgs {
    /// Builds a request without limits. `strategy` names the command that asks.
    fn request(&self, model: Option<&PathBuf>, strategy: &str) -> anyhow::Result<StudyRequest> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let (normalization, images) = self.images.resolve().map_err(usage)?;
        Ok(StudyRequest {
            model: model.map(absolute),
            data: self.images.data.as_ref().map(absolute),
            normalization,
            images,
            limits: Vec::new(),
            objectives: Metric::objectives().collect(),
            prefer: Preference::default(),
            budget: Budget::default(),
            strategy: strategy.to_owned(),
            backends: self.backends(),
            threads: self.thread_counts()?,
            space: self.space.as_ref().map(absolute),
            seed: 0,
            finetune: 0,
        })
    }

    /// Returns the requested backends, or the useful ones of this machine. An OpenCL driver that
    /// runs kernels on the processor itself costs time and was never faster than the CPU backend.
    fn backends(&self) -> Vec<String> {
        let mut backends = self.backend.clone();
        if backends.is_empty() {
            backends.push("cpu".to_owned());
            if opencl::has_accelerator() {
                backends.push("opencl".to_owned());
            }
        }
        backends
    }

    /// Returns the requested thread counts in ascending order, or the useful ones of this machine.
    fn thread_counts(&self) -> anyhow::Result<Vec<usize>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut counts = self.threads.clone();
        if counts.is_empty() {
            counts = std::iter::successors(Some(1), |count| Some(count * 2))
                .take_while(|count| *count < cores)
                .collect();
            counts.push(cores);
        }
        counts.sort_unstable();
        counts.dedup();
        if counts.first() == Some(&0) || counts.last() > Some(&1024) {
            return Err(usage(anyhow::anyhow!("--threads: counts from 1 to 1024 are possible")));
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn causes_are_in_one_message() {
        let missing = || std::io::Error::from_raw_os_error(2);
        let model =
            paretune_model::ModelError::Io { path: PathBuf::from("m.onnx"), source: missing() };
        let error = usage(anyhow::Error::from(model).context("while loading"));
        let text = in_one_message(&error);
        assert_eq!(text.matches("os error 2").count(), 1, "{text}");
        assert!(text.starts_with("while loading: cannot read `m.onnx`: "), "{text}");
        let error = Err::<(), _>(missing()).context("cannot write `x`").unwrap_err();
        assert!(is_unusable_path(&error));
        assert!(in_one_message(&error).starts_with("cannot write `x`: "));
        assert!(!is_unusable_path(&anyhow::anyhow!("a bug")));
    }
}
