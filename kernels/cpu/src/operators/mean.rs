//! Means over height and width: global average pooling, also of 8-bit values.

use std::ops::Add;

use super::{Context, Io, Loops, OperatorKernel, as_images, on};
use paretune_base::plan::Quantization;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::threads::Worker;

/// Channels whose sums are computed together.
const BLOCK: usize = 16;

/// Largest number of pixels of an 8-bit mean: the 32-bit sum of more could overflow. [`global`]
/// must not be called with more.
pub const MOST_PIXELS_U8: usize = 1 << 23;

/// Builds the mean of every channel over its `pixels`. The input has elements of type `element`;
/// the result is single precision.
pub fn global(
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

/// Sums every channel over all pixels and writes what `mean` makes of each sum.
///
/// # Safety
/// The requirements of [`Loops::run`], with inputs of type `T` and an `f32` output.
#[inline(always)]
unsafe fn sum_channels<T: Copy, S: Copy + Default + Add<Output = S>>(
    [batch, channels, pixels]: [usize; 3],
    layout: Layout,
    io: &Io<'_>,
    worker: &Worker<'_>,
    widen: impl Fn(T) -> S + Copy,
    mean: impl Fn(S) -> f32,
) {
    // SAFETY: input 0 holds `batch * channels * pixels` elements of type `T`, and no thread writes
    // an input during the run.
    let input = unsafe { io.input::<T>(0, batch * channels * pixels) };
    let blocks = channels.div_ceil(BLOCK);
    for unit in worker.share(batch * blocks) {
        let (image, channel) = (unit / blocks, unit % blocks * BLOCK);
        let count = BLOCK.min(channels - channel);
        // SAFETY: blocks of the output are disjoint and within it.
        let output = unsafe { io.output::<f32>(image * channels + channel, count) };
        let image = &input[image * channels * pixels..(image + 1) * channels * pixels];
        match layout {
            // A vector holds several pixels.
            Layout::Nhwc | Layout::Nchwc(_) if matches!(channels, 1 | 2 | 4 | 8) => {
                let sums = folded(lanes(image, widen), channels);
                for (out, sum) in output.iter_mut().zip(sums) {
                    *out = mean(sum);
                }
            }
            Layout::Nhwc | Layout::Nchwc(_) => {
                let mut done = 0;
                while done < count {
                    let from = channel + done;
                    let output = &mut output[done..];
                    // Takes the widest group that remains, so that sums fill vectors.
                    done += match count - done {
                        16.. => columns::<16, _, _>(image, channels, from, output, widen, &mean),
                        8.. => columns::<8, _, _>(image, channels, from, output, widen, &mean),
                        4.. => columns::<4, _, _>(image, channels, from, output, widen, &mean),
                        _ => columns::<1, _, _>(image, channels, from, output, widen, &mean),
                    };
                }
            }
            Layout::Nchw => {
                for (index, out) in output.iter_mut().enumerate() {
                    let sums = lanes(&image[(channel + index) * pixels..][..pixels], widen);
                    *out = mean(folded(sums, 1)[0]);
                }
            }
        }
    }
}

/// Terms that are added up before they are added to a sum. The dependency chain through the sum is
/// then four times shorter.
const TERMS: usize = 4;

/// Writes the means of `N` adjacent channels, from channel `from` on; returns `N`.
#[inline(always)]
fn columns<const N: usize, T: Copy, S: Copy + Default + Add<Output = S>>(
    image: &[T],
    channels: usize,
    from: usize,
    output: &mut [f32],
    widen: impl Fn(T) -> S,
    mean: impl Fn(S) -> f32,
) -> usize {
    let mut sums = [S::default(); N];
    let mut groups = image.chunks_exact(TERMS * channels);
    for group in &mut groups {
        let pixel = |number: usize| group[number * channels + from..].first_chunk::<N>();
        if let (Some(a), Some(b), Some(c), Some(d)) = (pixel(0), pixel(1), pixel(2), pixel(3)) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = *sum + ((widen(a[i]) + widen(b[i])) + (widen(c[i]) + widen(d[i])));
            }
        }
    }
    for pixel in groups.remainder().chunks_exact(channels) {
        for (sum, x) in sums.iter_mut().zip(&pixel[from..]) {
            *sum = *sum + widen(*x);
        }
    }
    for (out, sum) in output.iter_mut().zip(sums) {
        *out = mean(sum);
    }
    N
}

/// Returns [`BLOCK`] partial sums; sum `i` adds up every [`BLOCK`]th element, from element `i` on.
#[inline(always)]
fn lanes<T: Copy, S: Copy + Default + Add<Output = S>>(
    numbers: &[T],
    widen: impl Fn(T) -> S,
) -> [S; BLOCK] {
    let mut sums = [S::default(); BLOCK];
    let (groups, rest) = numbers.as_chunks::<{ TERMS * BLOCK }>();
    for group in groups {
        let (terms, _) = group.as_chunks::<BLOCK>();
        for (i, sum) in sums.iter_mut().enumerate() {
            let term = |number: usize| widen(terms[number][i]);
            *sum = *sum + ((term(0) + term(1)) + (term(2) + term(3)));
        }
    }
    let (chunks, rest) = rest.as_chunks::<BLOCK>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum = *sum + widen(*x);
        }
    }
    // A separate array keeps the sums in registers.
    let mut last = [S::default(); BLOCK];
    for (last, x) in last.iter_mut().zip(rest) {
        *last = widen(*x);
    }
    for (sum, x) in sums.iter_mut().zip(last) {
        *sum = *sum + x;
    }
    sums
}

/// Adds the upper half of the sums to the lower half, until only the first `left` (a power of two)
/// count.
#[inline(always)]
fn folded<S: Copy + Add<Output = S>>(mut sums: [S; BLOCK], left: usize) -> [S; BLOCK] {
    let mut width = BLOCK;
    while width > left {
        width /= 2;
        for i in 0..width {
            sums[i] = sums[i] + sums[i + width];
        }
    }
    sums
}

struct GlobalF32 {
    size: [usize; 3],
    layout: Layout,
}

impl Loops for GlobalF32 {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let factor = 1.0 / self.size[2] as f32;
        // SAFETY: input and output hold single-precision numbers, as many as `size` says.
        unsafe {
            sum_channels(self.size, self.layout, io, worker, |x: f32| x, |sum| sum * factor);
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
        // The zero point is subtracted from each element, so the sums are those of real values.
        // They fit in 32 bits for up to `MOST_PIXELS_U8` pixels.
        let widen = |x: u8| i32::from(x) - zero;
        // SAFETY: the input holds bytes and the output single-precision numbers, as many as `size`
        // says.
        unsafe {
            sum_channels(self.size, self.layout, io, worker, widen, |sum: i32| sum as f32 * factor);
        }
    }
}
