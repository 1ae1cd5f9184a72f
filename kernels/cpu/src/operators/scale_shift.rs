//! One factor and one offset per channel: a batch normalization that could not be folded into a
//! convolution. Works in place.

use super::activation::CHUNK;
use super::{Context, Io, Loops, OperatorKernel, Physical, activate, on};
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Builds `activation(x * scale[channel] + shift[channel])`, where axis 0 of `dims` is the
/// channels. The output may be the input. Both slices must hold one value per channel.
pub fn prepare(
    context: Context,
    dims: &[usize],
    layout: Layout,
    scale: &[f32],
    shift: &[f32],
    activation: Activation,
) -> Box<dyn OperatorKernel> {
    let [outer, channels, inner] = Physical::new(context.batch, dims, layout).around(0);
    on(
        context.isa,
        ScaleShift { outer, channels, inner, scale: scale.into(), shift: shift.into(), activation },
    )
}

struct ScaleShift {
    outer: usize,
    channels: usize,
    inner: usize,
    scale: Box<[f32]>,
    shift: Box<[f32]>,
    activation: Activation,
}

impl Loops for ScaleShift {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let (input, output) = (io.inputs[0].cast::<f32>(), io.output.cast::<f32>());
        // A row is contiguous with uniform treatment: all channels of a pixel, or all pixels of a
        // channel.
        let per_pixel = self.inner == 1;
        let (rows, width) = if per_pixel {
            (self.outer, self.channels)
        } else {
            (self.outer * self.channels, self.inner)
        };
        for row in worker.share(rows) {
            for column in (0..width).step_by(CHUNK) {
                let len = CHUNK.min(width - column);
                let at = row * width + column;
                let mut numbers = [0.0_f32; CHUNK];
                let part = &mut numbers[..len];
                // SAFETY: `at + len` is within `outer * channels * inner` numbers, which both hold;
                // the copy in `numbers` makes exact overlap harmless; workers have different rows.
                unsafe { std::ptr::copy_nonoverlapping(input.add(at), part.as_mut_ptr(), len) };
                if per_pixel {
                    let scale = &self.scale[column..column + len];
                    let shift = &self.shift[column..column + len];
                    for ((x, s), t) in part.iter_mut().zip(scale).zip(shift) {
                        *x = *x * s + t;
                    }
                } else {
                    let channel = row % self.channels;
                    let (s, t) = (self.scale[channel], self.shift[channel]);
                    for x in part.iter_mut() {
                        *x = *x * s + t;
                    }
                }
                activate(self.activation, part);
                // SAFETY: `at + len` is within the `outer * channels * inner` numbers of the
                // output, of which each worker has its own rows; `part` is not a part of the
                // output.
                unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), output.add(at), len) };
            }
        }
    }

    fn constant_bytes(&self) -> usize {
        (self.scale.len() + self.shift.len()) * size_of::<f32>()
    }
}
