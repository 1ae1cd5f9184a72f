//! The command `paretune space` prints a network and its joint space.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use paretune_spaces::Kind;
use paretune_study::prepare::{load_network, space_of};

use super::{ExitStatus, WorkloadArgs, usage};
use crate::model;

/// Arguments of the command `paretune space`.
#[derive(Args, Debug)]
pub struct SpaceArgs {
    /// Trained network (ONNX) [default: the built-in network and images]
    #[arg(value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    #[command(flatten)]
    subject: WorkloadArgs,
    /// Print the space as a JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the network and its space.
pub fn space(args: &SpaceArgs) -> anyhow::Result<ExitStatus> {
    let network = load_network(args.model.as_deref()).map_err(usage)?;
    let threads = args.subject.thread_counts()?;
    let space = space_of(&network, &threads, &args.subject.backends(), args.subject.space.as_ref())
        .map_err(usage)?;
    let compiled = space.compile().map_err(usage)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let parameters: Vec<_> = space
            .parameters
            .iter()
            .map(|parameter| {
                let values = parameter.domain.values();
                serde_json::json!({
                    "name": parameter.name,
                    "values": values,
                    "kind": parameter.domain.kind(),
                    "ordered": parameter.domain.kind() == Kind::Sizes,
                    "default": values.get(parameter.default),
                    "condition": parameter.condition.as_ref().map(ToString::to_string),
                    "about": parameter.about,
                })
            })
            .collect();
        let constraints: Vec<String> = space.constraints.iter().map(ToString::to_string).collect();
        let all = serde_json::json!({
            "model": {"name": network.name, "sha256": network.sha256},
            "parameters": parameters,
            "constraints": constraints,
            "log10_configurations": compiled.log10_len(),
            "configurations": compiled.len().map(|count| count.to_string()),
            "default": compiled.decode(&compiled.default_point()),
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(ExitStatus::Done);
    }
    writeln!(out, "{}\n", model::describe(&network.plan))?;
    writeln!(out, "{} parameters:", space.parameters.len())?;
    let width = space.parameters.iter().map(|parameter| parameter.name.len()).max().unwrap_or(0);
    for parameter in &space.parameters {
        let values: Vec<String> =
            parameter.domain.values().iter().map(ToString::to_string).collect();
        let condition = parameter
            .condition
            .as_ref()
            .map(|condition| format!("  when {condition}"))
            .unwrap_or_default();
        writeln!(out, "  {:width$}  {{{}}}{condition}", parameter.name, values.join(", "))?;
    }
    writeln!(out, "\n{} constraints:", space.constraints.len())?;
    for constraint in &space.constraints {
        writeln!(out, "  {constraint}")?;
    }
    match compiled.len() {
        Some(count) if count < 1_000_000_000 => writeln!(out, "\n{count} configurations")?,
        _ => writeln!(out, "\n10^{:.1} configurations", compiled.log10_len())?,
    }
    Ok(ExitStatus::Done)
}
