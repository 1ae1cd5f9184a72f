//! The network and the images that a study uses when it is given none, so that the program can be
//! tried, tested and demonstrated without a download.
//!
//! The images are drawn by the program, byte for byte the same on every machine: ten classes of shapes
//! and patterns, 32x32, in color. The network is a small residual one with depthwise layers (256,154
//! parameters, 94.2 % on drawn images that it has not seen). `train.py` beside this file trained it.

use rayon::prelude::*;

use crate::model::images::{Dataset, Images, SplitSizes};

mod drawing;
mod random;
mod shape;

pub use shape::CLASSES;

/// `[channels, height, width]` of the images and of the network's input.
pub const DIMS: [usize; 3] = [drawing::CHANNELS, drawing::SIDE, drawing::SIDE];
/// What the network's images are normalized with, per channel, on the scale 0 to 255.
pub const MEAN: [f32; 3] = [128.0; 3];
/// See [`MEAN`].
pub const STD: [f32; 3] = [64.0; 3];
/// The network's name, as [`crate::model::Network::name`] has it.
pub const NAME: &str = "builtin";

static NETWORK: &[u8] = include_bytes!("builtin.onnx");

/// The network as an ONNX file.
#[must_use]
pub fn network_bytes() -> &'static [u8] {
    NETWORK
}

/// Streams of images that have none in common but by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the network was trained on.
    Training,
    /// See [`Dataset::calibration`].
    Calibration,
    /// See [`Dataset::search`].
    Search,
    /// See [`Dataset::report`].
    Report,
}

impl Part {
    /// The part of a name in lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "training" => Some(Self::Training),
            "calibration" => Some(Self::Calibration),
            "search" => Some(Self::Search),
            "report" => Some(Self::Report),
            _ => None,
        }
    }

    fn seed(self) -> u64 {
        match self {
            Self::Training => 0,
            Self::Calibration => 1,
            Self::Search => 2,
            Self::Report => 3,
        }
    }
}

/// Draws the first `count` images of a part. The classes follow each other in turn, so that every
/// prefix is balanced; a larger count only adds images.
#[must_use]
pub fn images(part: Part, count: usize) -> Images {
    let class = |index: usize| index % CLASSES.len();
    let mut pixels = vec![0; count * drawing::BYTES];
    pixels.par_chunks_exact_mut(drawing::BYTES).enumerate().for_each(|(index, out)| {
        if let Ok(out) = out.try_into() {
            drawing::draw(
                shape::Class::ALL[class(index)],
                &mut random::Random::new(part.seed(), index as u64),
                out,
            );
        }
    });
    let labels = (0..count).map(|index| class(index) as u32).collect();
    Images { dims: DIMS, pixels: pixels.into(), labels }
}

/// The three parts of a study, none of which the network was trained on.
#[must_use]
pub fn dataset(sizes: SplitSizes) -> Dataset {
    Dataset {
        classes: CLASSES.map(str::to_owned).to_vec(),
        calibration: images(Part::Calibration, sizes.calibration),
        search: images(Part::Search, sizes.search),
        report: images(Part::Report, sizes.report),
    }
}

#[cfg(test)]
mod tests;
