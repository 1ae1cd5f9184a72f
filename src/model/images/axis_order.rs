//! Order of the axes of an image.

/// Order of the axes within one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AxisOrder {
    /// Channels first, with the axes `[channels, height, width]`.
    ChannelsFirst,
    /// Channels last, with the axes `[height, width, channels]` and the number of channels.
    ChannelsLast(usize),
}

/// Converts `[height, width, channels]` to `[channels, height, width]`.
pub(super) fn to_channels_first(interleaved: &[u8], channels: usize, out: &mut [u8]) {
    let plane = out.len() / channels;
    for (channel, plane) in out.chunks_exact_mut(plane).enumerate() {
        for (to, from) in plane.iter_mut().zip(interleaved.iter().skip(channel).step_by(channels)) {
            *to = *from;
        }
    }
}
