//! Patches of the input that tensor-core kernels copy to local memory.

use paretune_base::plan::operator::ConvProblem;

/// Patch of the input that all taps of a tile of pixels read, in the layout of
/// `kernels/tensor_core_patch.cl`.
pub(super) struct Patch {
    /// Number of rows of the patch.
    pub(super) height: usize,
    /// Elements per row of the patch.
    pub(super) width: usize,
    /// Elements from one channel to the next.
    pub(super) channel: usize,
    /// Rows from one image to the next.
    pub(super) image: usize,
}

impl Patch {
    /// Computes the patch size for any tile of `tile` consecutive pixels.
    pub(super) fn of(problem: &ConvProblem, output: [usize; 2], tile: usize) -> Self {
        let window = &problem.window;
        let [reach_h, reach_w] =
            [0, 1].map(|axis| (window.kernel[axis] - 1) * window.dilation[axis] + 1);
        let [stride_h, stride_w] = window.stride;
        let [height, width] = output.map(|size| size.max(1));
        let (in_row, whole_rows) = (width.is_multiple_of(tile), tile.is_multiple_of(width));
        let rows = match () {
            () if in_row => 1,
            () if whole_rows => tile / width,
            () => (tile - 1).div_ceil(width) + 1,
        };
        // Number of images that end within the rows.
        let ends = match () {
            () if rows == 1 || whole_rows && height.is_multiple_of(rows) => 0,
            () if whole_rows && rows.is_multiple_of(height) => rows / height - 1,
            () => (rows - 1).div_ceil(height),
        };
        let patch_height =
            (rows - 1) * stride_h + ends * reach_h.saturating_sub(stride_h) + reach_h;
        let patch_width = (if in_row { tile } else { width } - 1) * stride_w + reach_w;
        Self {
            height: patch_height,
            width: patch_width,
            // Channels are 8 of 32 banks apart.
            channel: (patch_height * patch_width).saturating_sub(8).next_multiple_of(32) + 8,
            image: (height - 1) * stride_h + reach_h,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paretune_base::plan::operator::Window;

    /// Every pixel that a tile reads is in its patch, wherever the tile begins.
    #[test]
    fn patches_are_large_enough() {
        for (height, width) in [(8, 8), (4, 4), (7, 7), (3, 16), (1, 1), (5, 32), (2, 3)] {
            for (kernel, stride) in [(3, 1), (1, 1), (3, 2), (1, 2), (5, 3)] {
                for tile in [8, 16, 32, 64, 128] {
                    let input = [(height - 1) * stride + kernel, (width - 1) * stride + kernel];
                    let window =
                        Window { kernel: [kernel; 2], stride: [stride; 2], ..Window::POINT };
                    let problem = ConvProblem {
                        batch: 9,
                        in_channels: 8,
                        out_channels: 8,
                        groups: 1,
                        input,
                        window,
                    };
                    let patch = Patch::of(&problem, [height, width], tile);
                    let row_of = |n: usize| {
                        n / (height * width) * patch.image + n % (height * width) / width * stride
                    };
                    for first in (0..9 * height * width).step_by(tile) {
                        let last = (first + tile).min(9 * height * width) - 1;
                        assert!(row_of(last) - row_of(first) + kernel <= patch.height);
                        let begin = if width % tile == 0 { first % width } else { 0 };
                        for n in first..=last {
                            assert!((n % width - begin) * stride + kernel <= patch.width);
                        }
                    }
                    assert!(patch.channel % 32 == 8 && patch.channel >= patch.height * patch.width);
                }
            }
        }
    }
}
