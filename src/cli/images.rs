//! Options of the command line about images, and the loading of what they select.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use paretune_kernels::image::{Channels, Interpolation, Resize, Transform};
use paretune_model::images::{ReadProgress, read_classes};
use paretune_record::request::{ImageRequest, Normalization, StudyRequest};
use paretune_study::error::SessionError;
use paretune_study::prepare::Material;

use super::paths;
use super::preprocess::Preset;
use super::search::classified;

/// Options that select images and turn them into inputs.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ImageArgs {
    /// Labelled images: a folder per class of PNG, JPEG, WebP, BMP or TIFF files (optionally under
    /// train/ and test/), CIFAR-10 binary batches, IDX files, or an .npz file with x and y. Without
    /// labels, the accuracy is the agreement with the unmodified network
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Mean of each channel as in the training of the network, in the order of its channels and on
    /// the scale of --scale
    #[arg(
        long,
        value_name = "R,G,B",
        value_delimiter = ',',
        allow_negative_numbers = true,
        requires = "std"
    )]
    mean: Vec<f32>,
    /// Standard deviation of each channel, like --mean
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
    /// Scale of --mean and --std: 255, or 1 for pixels from 0 to 1 [default: 255]
    #[arg(long, value_name = "255|1", value_parser = scale)]
    scale: Option<f32>,
    /// Resize images: the shorter side to N pixels, or exactly to HxW
    #[arg(long, value_name = "N|HxW")]
    resize: Option<Resize>,
    /// Part of a resized image: the middle of the network's size, or all of it [default: center]
    #[arg(long, value_name = "center|none", value_parser = crop)]
    crop: Option<bool>,
    /// Filter of --resize: bilinear, bicubic, nearest or lanczos, antialiased as Pillow does it
    /// [default: bilinear]
    #[arg(long, value_name = "NAME")]
    interpolation: Option<Interpolation>,
    /// Channels in the order of the network: rgb, bgr or gray [default: rgb]
    #[arg(long, value_name = "NAME")]
    channels: Option<Channels>,
    /// File with these options: preprocessor_config.json of Hugging Face, config.json of timm, or
    /// TOML with resize, crop, interpolation, mean, std, scale, channels. Single options win
    #[arg(long, value_name = "FILE")]
    preprocess: Option<PathBuf>,
    /// File with the class names in the order of the network's outputs, one per line
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// File with the labels of a folder of images, one `NAME CLASS` per line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
}

fn scale(text: &str) -> Result<f32, String> {
    match text {
        "1" | "1.0" => Ok(1.0),
        "255" => Ok(255.0),
        _ => Err("255 and 1 are possible".to_owned()),
    }
}

fn crop(text: &str) -> Result<bool, String> {
    match text {
        "center" | "centre" => Ok(true),
        "none" => Ok(false),
        _ => Err("center and none are possible".to_owned()),
    }
}

impl ImageArgs {
    /// Returns the normalization, if any is asked for, and everything else about images.
    ///
    /// # Errors
    /// Fails if a file cannot be read, or if numbers are not on the scale that is said.
    pub fn resolve(&self) -> anyhow::Result<(Option<Normalization>, ImageRequest)> {
        let preset = match &self.preprocess {
            Some(path) => Preset::read(path)?,
            None => Preset::default(),
        };
        let resize = self.resize.or(preset.resize);
        let transform = Transform {
            resize,
            crop: self.crop.or(preset.crop).unwrap_or(resize.is_some()),
            interpolation: self.interpolation.or(preset.interpolation).unwrap_or_default(),
            channels: self.channels.or(preset.channels).unwrap_or_default(),
        };
        let normalization = if self.mean.is_empty() {
            match (self.scale, preset.normalization) {
                (_, Some(normalization)) => Some(normalization),
                (Some(1.0), None) => Some(Normalization { mean: vec![0.0], std: vec![255.0] }),
                _ => None,
            }
        } else {
            Some(normalization(&self.mean, &self.std, self.scale.unwrap_or(255.0))?)
        };
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let classes = match &self.classes {
            Some(path) => read_classes(path)?,
            None => preset.classes,
        };
        let labels = self.labels.as_ref().map(absolute);
        Ok((normalization, ImageRequest { classes, labels, transform }))
    }
}

/// Returns a normalization on the scale of 255 from numbers on the given scale.
pub(super) fn normalization(
    mean: &[f32],
    std: &[f32],
    scale: f32,
) -> anyhow::Result<Normalization> {
    let unit = scale == 1.0;
    if !unit && std.iter().any(|&std| std < 1.0) {
        return Err(anyhow!(
            "--std {std:?} has numbers below 1 on the scale of 0 to 255; add `--scale 1` if --mean \
             and --std are on the scale of 0 to 1"
        ));
    }
    if unit && mean.iter().chain(std).any(|number| number.abs() > 5.0) {
        return Err(anyhow!(
            "--mean {mean:?} and --std {std:?} are beyond the scale of 0 to 1; leave out \
             `--scale 1` if they are on the scale of 0 to 255"
        ));
    }
    let scaled = |numbers: &[f32]| -> Vec<f32> {
        numbers.iter().map(|number| if unit { number * 255.0 } else { *number }).collect()
    };
    Ok(Normalization { mean: scaled(mean), std: scaled(std) })
}

/// Loads the network and the images of a request, with a progress bar on a terminal, and says what
/// there is to say about them on standard error.
pub(super) fn load_material(request: &StudyRequest) -> anyhow::Result<Material> {
    let scratch = paths::home().ok().filter(|home| std::fs::create_dir_all(home).is_ok());
    let material = Material::load(request, scratch, progress_bar())
        .map_err(|error| classified(SessionError::Prepare(error)))?;
    for note in &material.notes {
        say(note);
    }
    Ok(material)
}

/// Prints a sentence on standard error, which may be gone with its terminal.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Number of images from which reading them takes long enough for a progress bar.
const MANY: usize = 500;

/// Returns a progress bar of reading images, if standard error is a terminal.
pub(super) fn progress_bar() -> Option<ReadProgress> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("reading images {bar:40} {pos} of {len} ({eta})");
    let bar = ProgressBar::hidden().with_style(style.ok()?);
    Some(Arc::new(move |done, all| {
        if all < MANY {
            return;
        }
        if done == 1 {
            bar.set_length(all as u64);
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        bar.set_position(done as u64);
        if done == all {
            bar.finish_and_clear();
        }
    }))
}
