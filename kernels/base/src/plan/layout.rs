//! How the numbers of an activation lie in memory, and in which format they are held.

use super::Quantization;

/// Order of an activation's elements in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// NCHW: batch, channels, height, width.
    Nchw,
    /// NHWC: batch, height, width, channels.
    Nhwc,
    /// NCHWc: batch, blocks of channels, height, width, channels of the block. Holds the block
    /// size, which must divide the number of channels. Every block is an NHWC image.
    Nchwc(usize),
}

impl Layout {
    /// Returns the position of an element in an image of `[channels, pixels]`.
    #[must_use]
    pub fn place(self, [channels, pixels]: [usize; 2], channel: usize, pixel: usize) -> usize {
        match self {
            Self::Nchw => channel * pixels + pixel,
            Self::Nhwc => pixel * channels + channel,
            Self::Nchwc(block) => (channel / block * pixels + pixel) * block + channel % block,
        }
    }
}

/// Element type of an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// Single precision (fp32), 4 bytes per element.
    F32,
    /// Unsigned 8 bits with this quantization.
    U8(Quantization),
}
