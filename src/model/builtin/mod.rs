//! Built-in network and images for studies without a model, so that the program can be tried,
//! tested and demonstrated without a download.
//!
//! The program draws the images, byte for byte equal on every machine: ten classes of shapes and
//! patterns, 32x32, in color. The network is a small residual one with depthwise layers (256,154
//! parameters, 94.2 % on drawn images that it has not seen). The script
//! `benches/networks/builtin.py` trained it.

use rayon::prelude::*;

use crate::images::{Dataset, Images, SplitSizes};

mod drawing;
mod random;
mod shape;

pub use shape::CLASSES;

/// Size of the images and of the network's input, `[channels, height, width]`.
pub const DIMS: [usize; 3] = [drawing::CHANNELS, drawing::SIDE, drawing::SIDE];
/// Mean by which the network's images are normalized, per channel, on the scale 0 to 255.
pub const MEAN: [f32; 3] = [128.0; 3];
/// Standard deviation by which the images are normalized, like [`MEAN`].
pub const STD: [f32; 3] = [64.0; 3];
/// Name of the network in [`crate::Network::name`].
pub const NAME: &str = "builtin";

static NETWORK: &[u8] = include_bytes!("builtin.onnx");

/// Returns the network as an ONNX file.
#[must_use]
pub fn network_bytes() -> &'static [u8] {
    NETWORK
}

/// Independent streams of images, which have none in common but by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Images that the network was trained on.
    Training,
    /// Images for the part [`Dataset::calibration`].
    Calibration,
    /// Images for the part [`Dataset::search`].
    Search,
    /// Images for the part [`Dataset::report`].
    Report,
}

impl Part {
    /// Returns the part with this name in lower case.
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

/// Draws the first `count` images of a part. The classes alternate, so that every prefix is
/// balanced, and a larger count only adds images.
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

/// Draws the three parts of a study, disjoint from the network's training images.
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
