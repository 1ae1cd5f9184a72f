//! Local response normalization across channels, as ONNX defines it (from AlexNet, Krizhevsky et
//! al. 2012): `x / (bias + alpha / size * sum of squares of size channels around)^beta`.

use super::activation::CHUNK;
use super::{Context, Io, Loops, OperatorKernel, Physical, on};
use paretune_base::plan::layout::Layout;
use paretune_base::threads::Worker;

/// Attributes of the operator [`paretune_base::plan::operator::Operator::Lrn`].
#[derive(Clone, Copy)]
pub struct Attributes {
    /// Number of neighboring channels in each sum of squares.
    pub size: usize,
    /// Factor of the mean square, ONNX `alpha`.
    pub alpha: f32,
    /// Exponent of the normalizing factor, ONNX `beta`.
    pub beta: f32,
    /// Constant added to the scaled mean square, ONNX `bias`.
    pub bias: f32,
}

/// Builds the normalization across the channels, axis 0 of `dims`, of values in `layout`.
pub fn prepare(
    context: Context,
    dims: &[usize],
    layout: Layout,
    attributes: Attributes,
) -> Box<dyn OperatorKernel> {
    let [outer, channels, inner] = Physical::new(context.batch, dims, layout).around(0);
    on(context.isa, Lrn { outer, channels, inner, attributes })
}

struct Lrn {
    outer: usize,
    channels: usize,
    inner: usize,
    attributes: Attributes,
}

impl Lrn {
    /// Returns the channels whose squares count for channel `channel`.
    #[inline(always)]
    fn around(&self, channel: usize) -> std::ops::Range<usize> {
        let before = (self.attributes.size - 1) / 2;
        let after = self.attributes.size - 1 - before;
        channel.saturating_sub(before)
            ..channel.saturating_add(after).saturating_add(1).min(self.channels)
    }

    /// Replaces each sum of squares by the factor that its element is multiplied by.
    #[inline(always)]
    fn factors(&self, sums: &mut [f32]) {
        let Attributes { size, alpha, beta, bias } = self.attributes;
        let scale = alpha / size as f32;
        if beta == 0.75 {
            // The usual exponent takes two square roots instead of a power.
            for sum in sums {
                let root = (bias + scale * *sum).sqrt();
                *sum = 1.0 / (root * root.sqrt());
            }
        } else {
            for sum in sums {
                *sum = (bias + scale * *sum).powf(-beta);
            }
        }
    }
}

impl Loops for Lrn {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Self { outer, channels, inner, .. } = *self;
        // SAFETY: input 0 holds `outer * channels * inner` numbers, and no thread writes an input
        // during the run.
        let input = unsafe { io.input::<f32>(0, outer * channels * inner) };
        let per_pixel = inner == 1;
        // A row is contiguous: the channels of a pixel, or the pixels of a channel.
        let (rows, width) = if per_pixel { (outer, channels) } else { (outer * channels, inner) };
        for row in worker.share(rows) {
            for column in (0..width).step_by(CHUNK) {
                let len = CHUNK.min(width - column);
                let at = row * width + column;
                let mut sums = [0.0_f32; CHUNK];
                if per_pixel {
                    let pixel = &input[row * channels..(row + 1) * channels];
                    for (channel, sum) in (column..column + len).zip(sums.iter_mut()) {
                        *sum = pixel[self.around(channel)].iter().map(|x| x * x).sum();
                    }
                } else {
                    let image = row / channels * channels;
                    for channel in self.around(row % channels) {
                        let from = (image + channel) * inner + column;
                        for (sum, x) in sums.iter_mut().zip(&input[from..from + len]) {
                            *sum += x * x;
                        }
                    }
                }
                self.factors(&mut sums[..len]);
                // SAFETY: rows of the output are disjoint and within it.
                let output = unsafe { io.output::<f32>(at, len) };
                for ((out, x), factor) in output.iter_mut().zip(&input[at..at + len]).zip(&sums) {
                    *out = x * factor;
                }
            }
        }
    }
}
