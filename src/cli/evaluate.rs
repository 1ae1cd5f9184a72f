//! The command `paretune evaluate` scores configurations exactly as the search would, for external
//! optimizers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use paretune_db::Store;
use paretune_evaluate::host::{Host, HostOptions, own_worker};
use paretune_evaluate::stop::StopCriteria;
use paretune_kernels::{file, hardware};
use paretune_record::archive;
use paretune_spaces::{CompiledSpace, Configuration};
use paretune_study::prepare::space_of;
use paretune_study::trial::{TrialOutcome, TrialRunner};

use super::images::load_material;
use super::{ExitStatus, WorkloadArgs, paths, usage};

/// Arguments of the command `paretune evaluate`.
#[derive(Args, Debug)]
pub struct EvaluateArgs {
    /// Trained network (ONNX) [default: the built-in network and images]
    #[arg(value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    #[command(flatten)]
    subject: WorkloadArgs,
    /// File with configurations, as one JSON object or as JSON lines; - for standard input
    #[arg(long, value_name = "FILE|-")]
    config: PathBuf,
    /// Number of search images that every configuration is scored on
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2048,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    images: u64,
    /// Folder of the result store [default: in the user's data folder]
    #[arg(long, value_name = "DIR")]
    db: Option<PathBuf>,
    /// Print JSON lines (the only format, accepted for clarity)
    #[arg(long)]
    json: bool,
}

/// Scores the configurations in order and prints one line of metrics for each.
pub fn evaluate(args: &EvaluateArgs) -> anyhow::Result<ExitStatus> {
    let request = args.subject.request(args.model.as_ref(), "evaluate")?;
    let material = load_material(&request)?;
    let space =
        space_of(&material.network, &request.threads, &request.backends, request.space.as_ref())
            .map_err(usage)?;
    let space = space.compile().map_err(usage)?;
    let name = request.folder_name(
        &material.network.name,
        &material.network.sha256,
        &material.images_hash,
    );
    let folder = paths::home()?.join("evaluations").join(name);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    let store = paths::store(args.db.as_deref())?;
    let mut file = material.store(&folder, &request)?;
    file.share_layers(&folder, &store)?;
    let subject = file.workload(&folder);
    let store = Store::open(&store)?;
    let mut runner = TrialRunner::new(&store, subject.clone(), hardware::detect().id)?;
    runner.images = args.images.min(material.dataset.search.len() as u64);
    let options = HostOptions {
        command: own_worker()?,
        memory_limit: None,
        open_deadline: Duration::from_secs(1800),
    };
    let mut host = Host::new(options, subject);
    let mut out = std::io::stdout().lock();
    for configuration in configurations(&args.config)? {
        let line = match configuration.and_then(|configuration| checked(&space, configuration)) {
            Ok(configuration) => score(&mut runner, &mut host, &configuration)?,
            Err(error) => serde_json::json!({"failed": super::in_one_message(&error)}),
        };
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(ExitStatus::Done)
}

/// Reads the configurations in `path` one by one, so that an optimizer can wait for each result.
fn configurations(
    path: &Path,
) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Configuration>>>> {
    if path.as_os_str() == "-" {
        let lines = std::io::stdin().lines();
        return Ok(Box::new(lines.filter_map(|line| {
            match line {
                Ok(line) if line.trim().is_empty() => None,
                Ok(line) => Some(
                    serde_json::from_str(&line)
                        .and_then(configuration)
                        .map_err(|error| anyhow!("not a configuration: {error}")),
                ),
                Err(error) => Some(Err(error.into())),
            }
        })));
    }
    let text = file::read_text(path)
        .with_context(|| format!("cannot read `{}`", path.display()))
        .map_err(usage)?;
    // The file holds one object over several lines, or several objects in sequence. The JSON parser
    // finds the end of each.
    let parsed: Vec<anyhow::Result<Configuration>> = serde_json::Deserializer::from_str(&text)
        .into_iter::<serde_json::Value>()
        .map(|parsed| {
            parsed.and_then(configuration).map_err(|error| {
                usage(anyhow!("`{}`: not a configuration: {error}", path.display()))
            })
        })
        .collect();
    if let Some(first) = parsed.iter().position(Result::is_err) {
        // The text after a syntax error cannot be parsed.
        return Ok(Box::new(parsed.into_iter().take(first + 1)));
    }
    Ok(Box::new(parsed.into_iter()))
}

/// Reads a configuration. A whole point, as `show --json` and `export --to json` write it, is
/// accepted as well; its `config` is used.
fn configuration(mut value: serde_json::Value) -> serde_json::Result<Configuration> {
    match value.get_mut("config").filter(|config| config.is_object()) {
        Some(config) => serde_json::from_value(config.take()),
        None => serde_json::from_value(value),
    }
}

/// Returns `configuration` if the space contains it.
fn checked(space: &CompiledSpace, configuration: Configuration) -> anyhow::Result<Configuration> {
    let point = space.encode(&configuration)?;
    Ok(space.decode(&point))
}

fn score(
    runner: &mut TrialRunner<'_>,
    host: &mut Host,
    configuration: &Configuration,
) -> anyhow::Result<serde_json::Value> {
    let answered =
        runner.trial(host, configuration, &StopCriteria::default(), &mut |_| {}, &|| false)?;
    Ok(match answered.outcome {
        TrialOutcome::Measured(known) | TrialOutcome::Dropped(known) => {
            let point = archive::point(configuration, "evaluate", &known, &[]);
            serde_json::json!({
                "id": point.id,
                "metrics": point.metrics,
                "spread": point.spread,
                "cached": answered.cached,
            })
        }
        // A trial without stop criteria is never rejected.
        TrialOutcome::Rejected(seen) => {
            serde_json::json!({"id": configuration.id(), "rejected": seen})
        }
        TrialOutcome::Failed(failure) => {
            serde_json::json!({"id": configuration.id(), "failed": failure.message})
        }
    })
}
