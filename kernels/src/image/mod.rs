//! Turns a decoded photo into the pixels of a network's input: colors, size, crop.
//!
//! The arithmetic is that of Pillow to the last bit, because networks are trained on what Pillow
//! made of their images: triangle, cubic and Lanczos filters whose support grows with the
//! reduction, in fixed point, the rows first. (Pillow 13 begins with the columns where that is less
//! work, which differs by one level of 255 at most.)

use serde::{Deserialize, Serialize};

mod crop;
mod resample;
mod transform;

pub use transform::{Photo, TransformError, transform};

/// Size to which an image is brought before its middle is cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resize {
    /// Length of the shorter side in pixels; the other one keeps the proportions.
    Shorter(u32),
    /// Height and width in pixels, whatever the proportions.
    Exact(u32, u32),
}

/// Filter that computes the pixels of a resized image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interpolation {
    /// Nearest pixel, without antialiasing.
    Nearest,
    /// Triangle filter.
    #[default]
    Bilinear,
    /// Cubic filter with a = -0.5.
    Bicubic,
    /// Lanczos filter with three lobes.
    Lanczos,
}

/// Channels in the order in which the network was trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// Channels of the file: gray for networks with one channel, otherwise red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red, as OpenCV reads images.
    Bgr,
    /// Luma of colored images, repeated where the network has three channels.
    Gray,
}

/// Operations between the decoding of an image and its normalization.
///
/// The default refuses images of another size than the network's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    /// Size of the image before the crop; `None` keeps the size of the file.
    pub resize: Option<Resize>,
    /// Whether the middle of the network's size is cut out. Otherwise the image must have that
    /// size.
    pub crop: bool,
    /// Filter of the change of size.
    pub interpolation: Interpolation,
    /// Order of the channels.
    pub channels: Channels,
}

impl std::str::FromStr for Resize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is neither a length such as 256 nor a size HxW such as 224x224, of 1 to \
                 {MAX_SIDE} pixels"
            )
        };
        let side = |text: &str| {
            let side = text.trim().parse::<u32>().ok();
            side.filter(|side| (1..=MAX_SIDE).contains(side)).ok_or_else(wrong)
        };
        match text.split_once(['x', 'X']) {
            Some((height, width)) => Ok(Self::Exact(side(height)?, side(width)?)),
            None => Ok(Self::Shorter(side(text)?)),
        }
    }
}

/// Largest side of an image in pixels.
pub const MAX_SIDE: u32 = 1 << 14;

impl std::str::FromStr for Interpolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "nearest" => Ok(Self::Nearest),
            "bilinear" => Ok(Self::Bilinear),
            "bicubic" => Ok(Self::Bicubic),
            "lanczos" => Ok(Self::Lanczos),
            _ => Err(format!(
                "interpolation `{text}` is unknown; bilinear, bicubic, nearest and lanczos are \
                 possible"
            )),
        }
    }
}

impl std::str::FromStr for Channels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "rgb" => Ok(Self::Rgb),
            "bgr" => Ok(Self::Bgr),
            "gray" | "grey" => Ok(Self::Gray),
            _ => Err(format!("channels `{text}` are unknown; rgb, bgr and gray are possible")),
        }
    }
}
