//! Writes built-in images as CIFAR-10's binary records, for training the built-in network: `cargo
//! run --release --example builtin_images -- training 168000 train.bin`

use std::io::{BufWriter, Write};

use anyhow::{Context, bail};
use paretune_model::builtin::{Part, images};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, count, path] = arguments.as_slice() else {
        bail!("usage: builtin_images training|calibration|search|report COUNT FILE");
    };
    let part = Part::from_name(part).with_context(|| format!("no part is called {part}"))?;
    let images = images(part, count.parse().context("COUNT must be a whole number")?);
    let mut file = BufWriter::new(
        std::fs::File::create(path).with_context(|| format!("cannot write {path}"))?,
    );
    for index in 0..images.len() {
        file.write_all(&[images.label(index).unwrap_or_default() as u8])?;
        file.write_all(images.image(index))?;
    }
    file.flush()?;
    Ok(())
}
