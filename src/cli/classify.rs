//! Classes of single image files, as `paretune run BUNDLE cat.jpg dog.png` prints them.

use std::io::Write;
use std::path::Path;

use paretune_evaluate::decision::Decision;
use paretune_kernels::bundle::Stored;
use paretune_kernels::hardware::Isa;
use paretune_kernels::{Executor, ExecutorOptions};
use paretune_model::images::{fit, normalize_into, photo};
use paretune_study::baseline::Head;

use super::run::{RunArgs, input_dims, normalization};
use super::{ExitStatus, report_load_changes, usage};

/// Number of classes that are printed for an image.
const SHOWN: usize = 5;

/// Prints the best classes of each image.
pub(super) fn classify(args: &RunArgs, stored: &Stored) -> anyhow::Result<ExitStatus> {
    let bundle = stored.description();
    let dims = input_dims(bundle)?;
    Head::of(&bundle.plan).map_err(|problem| usage(anyhow::anyhow!(problem)))?;
    let threads = args.threads.map_or(bundle.plan.threads, usize::from).max(1);
    let loaded = stored.load(&ExecutorOptions { batch: 1, threads, isa: Isa::detect() })?;
    report_load_changes(&loaded);
    let mut executor = loaded.executor;
    let mut all = Vec::new();
    for path in &args.images {
        let inputs = inputs(stored, path, dims)?;
        let best = best(&mut executor, Decision::of(&bundle.plan), &inputs)?;
        all.push((path, best));
    }
    let name = |class: usize| bundle.preprocessing.classes.get(class).map(String::as_str);
    let mut out = std::io::stdout().lock();
    if args.json {
        let images: Vec<serde_json::Value> = all
            .iter()
            .map(|(path, best)| {
                let classes: Vec<serde_json::Value> = best
                    .iter()
                    .map(|&(class, share)| {
                        serde_json::json!({
                            "class": class,
                            "name": name(class),
                            "probability": share,
                        })
                    })
                    .collect();
                serde_json::json!({"file": path, "classes": classes})
            })
            .collect();
        writeln!(out, "{}", serde_json::json!({"images": images}))?;
        return Ok(ExitStatus::Done);
    }
    for (path, best) in &all {
        writeln!(out, "{}", path.display())?;
        for &(class, share) in best {
            let unnamed = format!("class {class}");
            writeln!(out, "  {:5.1} %  {}", 100.0 * share, name(class).unwrap_or(&unnamed))?;
        }
    }
    Ok(ExitStatus::Done)
}

/// Reads an image and prepares it as the images of the search were.
fn inputs(stored: &Stored, path: &Path, dims: [usize; 3]) -> anyhow::Result<Vec<f32>> {
    let bundle = stored.description();
    let name = path.display().to_string();
    let photo = photo(path, &name, dims[0]).map_err(usage)?;
    let mut pixels = vec![0; dims.iter().product()];
    fit(&photo, &name, &bundle.preprocessing.transform, dims, &mut pixels).map_err(usage)?;
    let mut inputs = vec![0.0; pixels.len()];
    let normalization = normalization(bundle, dims[0]);
    normalize_into(&pixels, &normalization.mean, &normalization.std, dims, &mut inputs);
    Ok(inputs)
}

/// Returns the classes with the largest probabilities, the best one first.
fn best(
    executor: &mut Executor,
    decision: Decision,
    inputs: &[f32],
) -> anyhow::Result<Vec<(usize, f64)>> {
    let mut outputs = vec![0.0; executor.lengths().1];
    executor.run(inputs, &mut outputs)?;
    let shares = probabilities(&decision.per_class(&outputs));
    let mut order: Vec<(usize, f64)> = shares.into_iter().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(SHOWN);
    Ok(order)
}

/// Returns outputs as probabilities: as they are if they look like that, else their softmax.
fn probabilities(outputs: &[f32]) -> Vec<f64> {
    let numbers = || outputs.iter().map(|&x| f64::from(x));
    let sum: f64 = numbers().sum();
    if outputs.iter().all(|x| (0.0..=1.0).contains(x)) && (sum - 1.0).abs() < 1e-3 {
        return numbers().collect();
    }
    let top = numbers().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = numbers().map(|x| (x - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_probabilities_and_probabilities_stay() {
        let shares = probabilities(&[0.0, 3.0_f32.ln()]);
        assert!((shares[0] - 0.25).abs() < 1e-6 && (shares[1] - 0.75).abs() < 1e-6);
        assert!((probabilities(&[0.2, 0.8])[1] - 0.8).abs() < 1e-6);
    }
}
