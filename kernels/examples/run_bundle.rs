//! Loads a bundle, runs it on one input, and prints the five largest outputs.
//!
//! `cargo run --release -p paretune-kernels --example run_bundle -- BUNDLE [IMAGE]`
//!
//! BUNDLE is a folder that `paretune export` wrote. IMAGE is a file with one byte for each pixel,
//! channel by channel, as in CIFAR-10 without the label byte. Without it the image is gray.

use std::path::Path;

use paretune_kernels::ExecutorOptions;
use paretune_kernels::bundle::{Preprocessing, Stored};
use paretune_kernels::hardware::Isa;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (bundle, image) = match arguments.as_slice() {
        [bundle] => (bundle, None),
        [bundle, image] => (bundle, Some(image)),
        _ => {
            eprintln!("usage: run_bundle BUNDLE [IMAGE]");
            std::process::exit(2);
        }
    };
    match run(Path::new(bundle), image.map(Path::new)) {
        Ok(outputs) => {
            for (name, value) in outputs {
                println!("{value:10.4}  {name}");
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// Returns the names and values of the five largest outputs, the largest first.
pub fn run(
    bundle: &Path,
    image: Option<&Path>,
) -> Result<Vec<(String, f32)>, Box<dyn std::error::Error>> {
    // `Stored` maps packed weights, if the bundle has some for this processor, and decodes the
    // coded weights otherwise.
    let stored = Stored::open(bundle)?;
    let description = stored.description();
    let threads = description.plan.threads.max(1);
    let mut executor =
        stored.load(&ExecutorOptions { batch: 1, threads, isa: Isa::detect() })?.executor;

    let (input_len, output_len) = executor.lengths();
    let pixels = match image {
        Some(path) => std::fs::read(path)?,
        None => vec![128; input_len],
    };
    let input = normalized(&pixels, &description.preprocessing);
    let mut output = vec![0.0; output_len];
    executor.run(&input, &mut output)?;

    let classes = &description.preprocessing.classes;
    let name =
        |index: usize| classes.get(index).cloned().unwrap_or_else(|| format!("output {index}"));
    let mut ranked: Vec<(String, f32)> = (0..output_len).map(name).zip(output).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(5);
    Ok(ranked)
}

/// Returns `(pixel - mean) / std` of every pixel, with the mean and the deviation of its channel.
fn normalized(pixels: &[u8], preprocessing: &Preprocessing) -> Vec<f32> {
    let Preprocessing { mean, std, .. } = preprocessing;
    if mean.is_empty() {
        return pixels.iter().map(|&pixel| f32::from(pixel)).collect();
    }
    let channel_len = pixels.len().div_ceil(mean.len()).max(1);
    let channels = pixels.chunks(channel_len).zip(mean.iter().zip(std));
    channels
        .flat_map(|(channel, (mean, std))| {
            channel.iter().map(move |&x| (f32::from(x) - mean) / std)
        })
        .collect()
}
