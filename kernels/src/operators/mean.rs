//! Means over whole axes: over height and width (also of 8-bit numbers), and over any axes.

use super::{Context, Io, Loops, OperatorKernel, Physical, as_images, on};
use crate::conv::{Element, Layout};
use crate::plan::Quantization;
use crate::team::Worker;

/// Channels summed side by side.
const BLOCK: usize = 16;

/// 8-bit sums of more pixels than this could overflow; [`global`] is not asked for them.
pub(crate) const MOST_PIXELS_U8: usize = 1 << 23;

/// Mean of every channel over its `pixels`; the input is held as `element`, the result is `f32`.
pub(crate) fn global(
    context: Context,
    channels: usize,
    pixels: usize,
    layout: Layout,
    element: Element,
) -> Box<dyn OperatorKernel> {
    let (context, channels, layout) = as_images(context, channels, layout);
    let size = [context.batch, channels, pixels];
    match element {
        Element::F32 => on(context.isa, GlobalF32 { size, layout }),
        Element::U8(grid) => on(context.isa, GlobalU8 { size, layout, grid }),
    }
}

/// Mean over `axes` (without batch, ascending), which stay with size 1; the result is in the input's
/// layout.
pub(crate) fn reduce(
    context: Context,
    dims: &[usize],
    axes: &[usize],
    layout: Layout,
) -> Box<dyn OperatorKernel> {
    let input = Physical::new(context.batch, dims, layout);
    let strides = input.strides();
    let reduced: Vec<usize> = axes.iter().map(|&axis| input.position[axis]).collect();
    let (mut kept, mut folded) = (Vec::new(), Vec::new());
    for (at, &size) in input.dims.iter().enumerate() {
        if reduced.contains(&at) { &mut folded } else { &mut kept }.push((size, strides[at]));
    }
    on(context.isa, Reduce { kept, folded, len: input.len() })
}

/// Sums blocks of channels over all pixels and hands each block's sums to `store`.
///
/// # Safety
/// As [`Loops::run`], with input numbers of type `T` and output `f32`.
#[inline(always)]
unsafe fn sum_channels<T: Copy, S: Copy + Default>(
    [batch, channels, pixels]: [usize; 3],
    layout: Layout,
    io: &Io<'_>,
    worker: &Worker<'_>,
    add: impl Fn(S, T) -> S,
    mean: impl Fn(S) -> f32,
) {
    // SAFETY: the caller's promise.
    let input = unsafe { io.input::<T>(0, batch * channels * pixels) };
    let blocks = channels.div_ceil(BLOCK);
    for unit in worker.share(batch * blocks) {
        let (image, channel) = (unit / blocks, unit % blocks * BLOCK);
        let count = BLOCK.min(channels - channel);
        // SAFETY: blocks of the output are disjoint and within it.
        let output = unsafe { io.output::<f32>(image * channels + channel, count) };
        let mut sums = [S::default(); BLOCK];
        match layout {
            Layout::ChannelsLast | Layout::ChannelBlocked(_) => {
                let image = &input[image * channels * pixels..(image + 1) * channels * pixels];
                for pixel in image.chunks_exact(channels) {
                    for (sum, x) in sums.iter_mut().zip(&pixel[channel..channel + count]) {
                        *sum = add(*sum, *x);
                    }
                }
                for (out, sum) in output.iter_mut().zip(sums) {
                    *out = mean(sum);
                }
            }
            Layout::Planar => {
                for (index, out) in output.iter_mut().enumerate() {
                    let from = (image * channels + channel + index) * pixels;
                    // Side by side, to have as many additions under way as a vector holds.
                    let (whole, rest) = input[from..from + pixels].as_chunks::<BLOCK>();
                    let mut sums = [S::default(); BLOCK];
                    for chunk in whole {
                        for (sum, x) in sums.iter_mut().zip(chunk) {
                            *sum = add(*sum, *x);
                        }
                    }
                    for (sum, x) in sums.iter_mut().zip(rest) {
                        *sum = add(*sum, *x);
                    }
                    *out = sums.iter().map(|&sum| mean(sum)).sum();
                }
            }
        }
    }
}

struct GlobalF32 {
    size: [usize; 3],
    layout: Layout,
}

impl Loops for GlobalF32 {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let factor = 1.0 / self.size[2] as f32;
        // SAFETY: the caller's promise.
        unsafe {
            sum_channels(self.size, self.layout, io, worker, |sum: f32, x: f32| sum + x, |sum| sum * factor);
        }
    }
}

struct GlobalU8 {
    size: [usize; 3],
    layout: Layout,
    grid: Quantization,
}

impl Loops for GlobalU8 {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let factor = self.grid.scale / self.size[2] as f32;
        let zero = i32::from(self.grid.zero_point);
        // The offset is taken off each number, so that partial sums are means of real numbers. They
        // fit for `MOST_PIXELS_U8`.
        let add = |sum: i32, x: u8| sum.wrapping_add(i32::from(x) - zero);
        // SAFETY: the caller's promise.
        unsafe {
            sum_channels(self.size, self.layout, io, worker, add, |sum: i32| sum as f32 * factor);
        }
    }
}

struct Reduce {
    /// Size and input stride of the axes that remain, outermost first.
    kept: Vec<(usize, usize)>,
    /// The same of those that are averaged over.
    folded: Vec<(usize, usize)>,
    len: usize,
}

impl Loops for Reduce {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let at = |axes: &[(usize, usize)], mut index: usize| {
            let mut offset = 0;
            for &(size, stride) in axes.iter().rev() {
                offset += index % size * stride;
                index /= size;
            }
            offset
        };
        let results: usize = self.kept.iter().map(|axis| axis.0).product();
        let terms: usize = self.folded.iter().map(|axis| axis.0).product();
        // SAFETY: the caller's promise.
        let input = unsafe { io.input::<f32>(0, self.len) };
        for index in worker.share(results) {
            let base = at(&self.kept, index);
            let sum: f32 = (0..terms).map(|term| input[base + at(&self.folded, term)]).sum();
            // SAFETY: every result is one worker's.
            let output = unsafe { io.output::<f32>(index, 1) };
            output[0] = sum / terms as f32;
        }
    }
}
