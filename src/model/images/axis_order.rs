//! Order of the axes of an image.

/// Order of the axes within one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AxisOrder {
    /// Channels first, with the axes `[channels, height, width]`.
    ChannelsFirst,
    /// Channels last, with the axes `[height, width, channels]`.
    ChannelsLast,
}
