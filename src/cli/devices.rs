//! The command `paretune devices` describes this machine and its measured ceilings.

use std::io::Write;

use clap::Args;
use paretune_kernels::hardware::{self, ceilings};
use paretune_record::metric::Metric;
use paretune_report::units;

use super::ExitStatus;

/// Arguments of the command `paretune devices`.
#[derive(Args, Debug)]
pub struct DevicesArgs {
    /// Skip the measurement of the ceilings
    #[arg(long)]
    quick: bool,
    /// Print the hardware as a JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the hardware and its ceilings.
pub fn devices(args: &DevicesArgs) -> anyhow::Result<ExitStatus> {
    let hardware = hardware::detect();
    let mut counts = vec![1];
    if hardware.cores > 1 {
        counts.push(hardware.cores);
    }
    let measured = if args.quick { None } else { Some(ceilings(&counts)?) };
    let mut out = std::io::stdout().lock();
    if args.json {
        let all = serde_json::json!({"hardware": hardware, "ceilings": measured});
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(ExitStatus::Done);
    }
    writeln!(
        out,
        "{} ({} core(s), {}), hardware id {}",
        hardware.cpu,
        hardware.cores,
        hardware.isa.name(),
        hardware.id
    )?;
    if hardware.devices.is_empty() {
        writeln!(
            out,
            "OpenCL: no device; install a driver (on Debian for the CPU: `apt-get install \
             pocl-opencl-icd`) to have one"
        )?;
    }
    for device in &hardware.devices {
        writeln!(out, "OpenCL: {device}")?;
    }
    let Some(measured) = measured else { return Ok(ExitStatus::Done) };
    writeln!(out, "\nmeasured ceilings:")?;
    for ceilings in &measured.threads {
        let integer = ceilings
            .multiply_adds_i8
            .map_or_else(|| "no kernel".to_owned(), |rate| format!("{:.0} GOP/s", 2e-9 * rate));
        writeln!(
            out,
            "  {} thread(s): single precision {:.0} GFLOP/s, 8 bit {integer}",
            ceilings.threads,
            2e-9 * ceilings.multiply_adds_f32
        )?;
        for level in &ceilings.memory {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let bytes = level.bytes as f64;
            writeln!(
                out,
                "    {:<5} ({} per thread): read {:.0} GB/s, copy {:.0} GB/s",
                level.level,
                units::value(Metric::Size, bytes),
                1e-9 * level.read,
                1e-9 * level.copy
            )?;
        }
    }
    Ok(ExitStatus::Done)
}
