//! Input addresses of a pass of the depthwise convolution in [`super`].

use crate::conv::support::indirection::offsets;
use paretune_base::plan::operator::{ConvProblem, Window};

/// Address tables for passes of adjacent output pixels, `[step][pixel][tap of the step]`. The last
/// step is filled up with the first tap, whose extra weights are zero.
pub(super) struct Addresses {
    /// Vertical offsets, `[output row][tap row]`, negative for padding; see [`offsets`].
    vertical: Vec<isize>,
    /// Horizontal offsets, `[output column][tap column]`, negative for padding.
    horizontal: Vec<isize>,
    /// Offset of every slot from the first pixel's first tap, valid if no tap is padding.
    inside: Vec<isize>,
    /// Tap row, and tap column counted through the pixels, of every slot.
    slots: Vec<[usize; 2]>,
    kernel: [usize; 2],
    pixels: usize,
    /// Bytes per image of the input.
    image: usize,
}

impl Addresses {
    pub(super) fn new(
        problem: &ConvProblem,
        output: [usize; 2],
        pixels: usize,
        taps: usize,
    ) -> Self {
        let channels = problem.in_channels;
        let row = problem.input[1] * channels;
        let Window { kernel, dilation, stride, .. } = problem.window;
        let (mut inside, mut slots) = (Vec::new(), Vec::new());
        for step in 0..(kernel[0] * kernel[1]).div_ceil(taps) {
            for pixel in 0..pixels {
                for tap in step * taps..(step + 1) * taps {
                    let tap = if tap < kernel[0] * kernel[1] { tap } else { 0 };
                    let (ky, kx) = (tap / kernel[1], tap % kernel[1]);
                    let place =
                        ky * dilation[0] * row + (pixel * stride[1] + kx * dilation[1]) * channels;
                    inside.push(place as isize);
                    slots.push([ky, pixel * kernel[1] + kx]);
                }
            }
        }
        Self {
            vertical: offsets(problem, 0, output[0], row),
            horizontal: offsets(problem, 1, output[1], channels),
            image: problem.input[0] * row,
            inside,
            slots,
            kernel,
            pixels,
        }
    }

    /// Writes the addresses for the pixels from `[y, first]` on of an image of `input`.
    ///
    /// # Safety
    /// The pixels must exist, `input` must be an input of the problem, and `to` must have room for
    /// all addresses.
    #[inline(always)]
    pub(super) unsafe fn look_up(
        &self,
        [image, y, first]: [usize; 3],
        input: *const u8,
        zeros: *const u8,
        to: *mut *const u8,
    ) {
        let [tap_rows, tap_columns] = self.kernel;
        let vertical = &self.vertical[y * tap_rows..][..tap_rows];
        let horizontal = &self.horizontal[first * tap_columns..][..self.pixels * tap_columns];
        let within = |ends: &[isize]| ends[0] >= 0 && ends[ends.len() - 1] >= 0;
        // SAFETY: offsets that are not negative lie in the image, and the caller has room for an
        // address per tap and pixel.
        unsafe {
            let input = input.add(image * self.image);
            if within(vertical) && within(horizontal) {
                let place = input.offset(vertical[0] + horizontal[0]);
                for (slot, &inside) in self.inside.iter().enumerate() {
                    *to.add(slot) = place.offset(inside);
                }
                return;
            }
            let (vertical, horizontal) = (vertical.as_ptr(), horizontal.as_ptr());
            for (slot, &[row, column]) in self.slots.iter().enumerate() {
                // The slots were made for windows of this size.
                let offset = *vertical.add(row) + *horizontal.add(column);
                // Computed without a branch, and discarded for padding.
                let address = input.wrapping_offset(offset);
                *to.add(slot) = if offset < 0 { zeros } else { address };
            }
        }
    }
}
