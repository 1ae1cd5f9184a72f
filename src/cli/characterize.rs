//! The command `paretune characterize` studies each technique alone and jointly, on every backend
//! and number of threads.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use paretune_db::Store;
use paretune_evaluate::host::{Host, HostError, HostOptions, own_worker};
use paretune_evaluate::stop::StopCriteria;
use paretune_kernels::hardware;
use paretune_model::Network;
use paretune_record::artefact::write_whole;
use paretune_record::budget::Budget;
use paretune_record::characterize::Row;
use paretune_record::metric::Metric;
use paretune_record::seal::{Condition, Sealed};
use paretune_record::survey::Survey;
use paretune_spaces::CompiledSpace;
use paretune_study::characterize::{configuration, experiments, settings};
use paretune_study::prepare::space_of;
use paretune_study::session::Control;
use paretune_study::survey::{Pace, Surveyor};
use paretune_study::trial::{TrialError, TrialOutcome, TrialRunner};

use super::images::load_material;
use super::{ExitStatus, WorkloadArgs, paths, usage};
use crate::report;

/// Arguments of the command `paretune characterize`.
#[derive(Args, Debug)]
#[command(
    after_help = "All measurements are kept in the result store: the same command continues where \
it was stopped, and a repeated command answers at once.

Example:
  paretune characterize vgg16.onnx resnet18.onnx mobilenet.onnx --data cifar10 --mean 125.3,123.0,113.9 \\
      --std 63.0,62.1,66.7 --naive --output characterize.md"
)]
pub struct CharacterizeArgs {
    /// Trained networks (ONNX) [default: the built-in network]
    #[arg(value_name = "MODEL.onnx")]
    models: Vec<PathBuf>,
    #[command(flatten)]
    subject: WorkloadArgs,
    /// Also measure plain dense and CSR loops, to show how far the conclusions depend on the
    /// kernels
    #[arg(long)]
    naive: bool,
    /// Number of search images that every configuration is scored on
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    images: u64,
    /// Time limit for each network: 90s, 10m, 2h. The next run of the same command measures what is
    /// missing
    #[arg(long, value_name = "TEXT", default_value = "15m")]
    budget: Budget,
    /// File for the report, with a plot of each network beside it [default: the report goes to
    /// standard output]
    #[arg(short, long, value_name = "FILE.md")]
    output: Option<PathBuf>,
    /// Print one JSON object per measurement instead of the report
    #[arg(long)]
    json: bool,
    /// Folder of the result store [default: in the user's data folder]
    #[arg(long, value_name = "DIR")]
    db: Option<PathBuf>,
    /// Time limit for one measurement in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    trial_timeout: u64,
}

/// Limit on the seconds for tuning schedules.
const TUNING: f64 = 30.0;

/// Runs the study and prints or writes its report.
pub fn characterize(args: &CharacterizeArgs) -> anyhow::Result<ExitStatus> {
    let store = Store::open(&paths::store(args.db.as_deref())?)?;
    let control = std::sync::Arc::new(Control::default());
    super::signals::stop_on_signals(&control)?;
    let begun = Instant::now();
    let mut rows = Vec::new();
    let models: Vec<Option<&PathBuf>> =
        if args.models.is_empty() { vec![None] } else { args.models.iter().map(Some).collect() };
    let mut missing = 0;
    let mut interrupted = false;
    for model in models {
        let mut study = Study {
            args,
            store: &store,
            control: &control,
            rows: &mut rows,
            missing: &mut missing,
        };
        match study.network(model) {
            Ok(()) => {}
            Err(_) if study.stopped() => {
                interrupted = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if !args.json {
        write_report(args, &rows, begun.elapsed(), missing)?;
    }
    Ok(if interrupted { ExitStatus::Interrupted } else { ExitStatus::Done })
}

struct Study<'a> {
    args: &'a CharacterizeArgs,
    store: &'a Store,
    control: &'a Control,
    rows: &'a mut Vec<Row>,
    missing: &'a mut usize,
}

impl Study<'_> {
    fn stopped(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed)
    }

    fn network(&mut self, model: Option<&PathBuf>) -> anyhow::Result<()> {
        let begun = Instant::now();
        let args = self.args;
        let request = args.subject.request(model, "characterize")?;
        let material = load_material(&request)?;
        let space = space_of(
            &material.network,
            &request.threads,
            &request.backends,
            request.space.as_ref(),
        )
        .map_err(usage)?;
        let space = space.compile().map_err(usage)?;
        let name = &material.network.name;
        let folder = request.folder_name(name, &material.network.sha256, &material.images_hash);
        let folder = paths::home()?.join("characterizations").join(folder);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        let mut file = material.store(&folder, &request)?;
        file.share_layers(&folder, &paths::store(self.args.db.as_deref())?)?;
        let subject = file.workload(&folder);
        let mut runner = TrialRunner::new(self.store, subject.clone(), hardware::detect().id)?;
        runner.images = args.images.min(material.dataset.search.len() as u64);
        runner.deadline = Duration::from_secs(args.trial_timeout);
        let options = HostOptions {
            command: own_worker()?,
            memory_limit: None,
            open_deadline: Duration::from_secs(1800),
        };
        let mut host = Host::new(options, subject);
        let survey = self.schedules(&folder, &material.network, &space, &mut runner, &mut host)?;
        // The settings of one experiment follow each other, so that its network is compressed only
        // once.
        let settings = settings(&space);
        let all = experiments(&space, args.naive);
        let steps = all
            .iter()
            .map(|experiment| settings.iter().filter(|at| at.takes(experiment)).count())
            .sum();
        let mut done = 0;
        let mut measured: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
        for experiment in all.iter().take_while(|_| !self.control.stop.load(Ordering::Relaxed)) {
            let here = settings.iter().enumerate().filter(|(_, setting)| setting.takes(experiment));
            for (place, setting) in here {
                done += 1;
                let late = args
                    .budget
                    .seconds
                    .is_some_and(|seconds| begun.elapsed().as_secs_f64() > seconds);
                if late || args.budget.trials.is_some_and(|trials| done as u64 > trials) {
                    *self.missing += 1;
                    continue;
                }
                let configuration = configuration(&space, &survey, experiment, setting);
                let control = self.control;
                let stopped = || control.stop.load(Ordering::Relaxed);
                let answered = runner.trial(
                    &mut host,
                    &configuration,
                    &StopCriteria::default(),
                    &mut |_| {},
                    &stopped,
                );
                if self.stopped() {
                    break;
                }
                let (known, failure) = match answered?.outcome {
                    TrialOutcome::Measured(known) | TrialOutcome::Dropped(known) => {
                        (Some(known), None)
                    }
                    TrialOutcome::Failed(failure) => (None, Some(failure.message)),
                    TrialOutcome::Rejected(_) => (None, Some("rejected".to_owned())),
                };
                let row = Row {
                    network: name.clone(),
                    experiment: experiment.clone(),
                    backend: setting.name(),
                    threads: setting.threads,
                    id: configuration.id(),
                    known,
                    failure,
                };
                say(&format!("{name}: {done} of {steps}, {}", row_text(&row)));
                if args.json {
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "{}", serde_json::to_string(&row)?)?;
                    out.flush()?;
                }
                measured.entry(place).or_default().push(row);
            }
        }
        *self.missing += usize::saturating_sub(steps, done);
        self.rows.extend(measured.into_values().flatten());
        if self.stopped() { Err(TrialError::Host(HostError::Interrupted).into()) } else { Ok(()) }
    }
}

impl Study<'_> {
    /// Returns the fastest schedules of each layer. An earlier run's are reused, so that a resumed
    /// study measures the same configurations.
    fn schedules(
        &self,
        folder: &Path,
        network: &Network,
        space: &CompiledSpace,
        runner: &mut TrialRunner<'_>,
        host: &mut Host,
    ) -> anyhow::Result<Survey> {
        let path =
            folder.join(format!("schedules-{}-{}.json", runner.hardware, space.parameters().len()));
        let bytes = std::fs::read(&path).ok();
        let whole = bytes.filter(|bytes| Sealed::Line.verify(bytes) == Condition::Whole);
        let known = whole.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(known) = known {
            return Ok(known);
        }
        say(&format!("{}: tuning schedules", network.name));
        let control = self.control;
        let stopped = || control.stop.load(Ordering::Relaxed);
        let budget = self.args.budget.seconds.unwrap_or(f64::INFINITY);
        let mut surveyor = Surveyor {
            runner,
            host,
            space,
            network,
            seconds: TUNING.min(0.2 * budget),
            pace: Pace::default(),
            interrupted: &stopped,
        };
        let survey = surveyor.fastest_schedules(&mut |_| {})?;
        write_whole(&path, &Sealed::Line.seal(serde_json::to_vec(&survey)?))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(survey)
    }
}

fn row_text(row: &Row) -> String {
    let experiment = &row.experiment;
    let figures = match (&row.known, &row.failure) {
        (Some(known), _) => format!(
            "{:.1} %, {}",
            100.0 * known.score.accuracy(),
            report::units::value(Metric::Latency, known.latency[0])
        ),
        (None, reason) => reason.clone().unwrap_or_default(),
    };
    let level =
        if experiment.level.is_empty() { String::new() } else { format!(" {}", experiment.level) };
    format!("{}{level}, {} threads: {figures}", experiment.technique, row.threads)
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn write_report(
    args: &CharacterizeArgs,
    rows: &[Row],
    took: Duration,
    missing: usize,
) -> anyhow::Result<()> {
    let hardware = hardware::detect();
    let mut about = format!(
        "Made by `{}` in {} on {} ({} measurements).",
        command(),
        report::units::duration(took.as_secs_f64()),
        hardware.cpu,
        rows.len()
    );
    if missing > 0 {
        about += &format!(
            "\n\n**{missing} measurements are missing: the study was stopped, or its budget was \
             used up. The same command continues there.**"
        );
    }
    let mut networks: Vec<&str> = rows.iter().map(|row| row.network.as_str()).collect();
    networks.dedup();
    let mut pictures = Vec::new();
    if let Some(output) = &args.output {
        let stem = output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for network in networks {
            let file = format!("{stem}-{network}.svg");
            let path = output.parent().unwrap_or(Path::new("")).join(&file);
            std::fs::write(&path, report::curves(rows, network))
                .with_context(|| format!("cannot write `{}`", path.display()))?;
            pictures.push((network.to_owned(), file));
        }
    }
    let text = report::characterization(rows, &about, &pictures);
    match &args.output {
        Some(path) => {
            std::fs::write(path, text)
                .with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
    }
    Ok(())
}

/// Returns the command line of this program, with absolute paths shortened to their last part.
fn command() -> String {
    let short = |argument: String| {
        let path = Path::new(&argument);
        match path.file_name() {
            Some(name) if path.is_absolute() => name.to_string_lossy().into_owned(),
            _ => argument,
        }
    };
    let arguments: Vec<String> = std::env::args().skip(1).map(short).collect();
    format!("paretune {}", arguments.join(" "))
}
