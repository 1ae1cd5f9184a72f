//! Max and average pooling in every layout; max pooling also on 8-bit values. In NHWC and NCHWc the
//! inner loops run over channels, in NCHW over the width of the output.
//!
//! Results are unspecified if the input holds NaN.

use std::ops::Range;

use super::{Context, Io, Loops, OperatorKernel, as_images, on};
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::Window;
use paretune_base::threads::Worker;

/// Shapes (`[channels, height, width]`), window and layout of a pooling operator.
#[derive(Clone, Copy)]
pub struct Pooling {
    /// `[channels, height, width]` of the input.
    pub input: [usize; 3],
    /// `[channels, height, width]` of the output; every window must touch the input.
    pub output: [usize; 3],
    /// Kernel size, strides, dilations and padding.
    pub window: Window,
    /// Layout of input and output.
    pub layout: Layout,
}

/// Builds max pooling of single-precision values.
pub fn max_f32(context: Context, pooling: Pooling) -> Box<dyn OperatorKernel> {
    let (context, pooling) = pooling.of_images(context);
    on(context.isa, Max::<f32> { batch: context.batch, pooling, lowest: f32::NEG_INFINITY })
}

/// Builds max pooling of 8-bit values; input and output must share their quantization.
pub fn max_u8(context: Context, pooling: Pooling) -> Box<dyn OperatorKernel> {
    let (context, pooling) = pooling.of_images(context);
    on(context.isa, Max::<u8> { batch: context.batch, pooling, lowest: 0 })
}

/// Builds average pooling of single-precision values; padding counts as zeros if `include_padding`.
pub fn average(
    context: Context,
    pooling: Pooling,
    include_padding: bool,
) -> Box<dyn OperatorKernel> {
    let (context, pooling) = pooling.of_images(context);
    on(context.isa, Average { batch: context.batch, pooling, include_padding })
}

impl Pooling {
    /// Returns the equivalent NHWC operator in which every block of channels of NCHWc is an image;
    /// other layouts stay.
    fn of_images(mut self, context: Context) -> (Context, Self) {
        let (context, channels, layout) = as_images(context, self.input[0], self.layout);
        (self.input[0], self.output[0], self.layout) = (channels, channels, layout);
        (context, self)
    }

    /// Returns the window's taps along `axis` (0 is vertical) that fall into the input for output
    /// position `at`, and the input position of the first of them.
    #[inline(always)]
    fn taps(&self, axis: usize, at: usize) -> (Range<usize>, usize) {
        let Window { kernel, stride, dilation, padding } = self.window;
        let (size, step) = (self.input[axis + 1], dilation[axis]);
        let start = at * stride[axis];
        let skip = padding[axis].saturating_sub(start).div_ceil(step);
        let first = start + skip * step - padding[axis];
        let fit = if first < size { (size - first).div_ceil(step) } else { 0 };
        (skip..kernel[axis].min(skip + fit), first)
    }

    /// Returns the number of elements along `axis` that the mean at output position `at` divides
    /// by.
    #[inline(always)]
    fn count(&self, axis: usize, at: usize, include_padding: bool) -> usize {
        if !include_padding {
            return self.taps(axis, at).0.len();
        }
        // A partial last window (`ceil`) reaches beyond the padding. That part does not count.
        let Window { kernel, stride, dilation, padding } = self.window;
        let room = self.input[axis + 1] + padding[axis] + padding[axis + 2] - at * stride[axis];
        kernel[axis].min(room.div_ceil(dilation[axis]))
    }

    fn input_len(&self, batch: usize) -> usize {
        batch * self.input.iter().product::<usize>()
    }

    /// Pools this thread's share of the output pixels in NHWC: copies the first tap of each window,
    /// combines the others with `fold`, and passes the pixel's channels with its row and column to
    /// `finish`.
    ///
    /// # Safety
    /// The requirements of [`Loops::run`], with elements of type `T`.
    #[inline(always)]
    unsafe fn pixels<T: Copy>(
        &self,
        batch: usize,
        io: &Io<'_>,
        worker: &Worker<'_>,
        fold: impl Fn(T, T) -> T,
        finish: impl Fn(&mut [T], usize, usize),
    ) {
        let [channels, height, width] = self.input;
        let [_, out_height, out_width] = self.output;
        // SAFETY: input 0 holds `input_len` elements of type `T`, and no thread writes an input
        // during the run.
        let input = unsafe { io.input::<T>(0, self.input_len(batch)) };
        for pixel in worker.share(batch * out_height * out_width) {
            let (x, y) = (pixel % out_width, pixel / out_width % out_height);
            let image = pixel / (out_width * out_height);
            // SAFETY: pixels of the output are disjoint and within it.
            let output = unsafe { io.output::<T>(pixel * channels, channels) };
            let ((rows, top), (columns, left)) = (self.taps(0, y), self.taps(1, x));
            let mut first = true;
            for row in 0..rows.len() {
                let iy = top + row * self.window.dilation[0];
                for column in 0..columns.len() {
                    let ix = left + column * self.window.dilation[1];
                    let from = ((image * height + iy) * width + ix) * channels;
                    let tap = &input[from..from + channels];
                    if first {
                        output.copy_from_slice(tap);
                        first = false;
                    } else {
                        for (out, x) in output.iter_mut().zip(tap) {
                            *out = fold(*out, *x);
                        }
                    }
                }
            }
            finish(output, y, x);
        }
    }

    /// Pools this thread's share of the output rows in NCHW: fills each row with `start`, combines
    /// every tap with `fold`, and passes the row with its vertical position to `finish`.
    ///
    /// # Safety
    /// The requirements of [`Loops::run`], with elements of type `T`.
    #[inline(always)]
    unsafe fn rows<T: Copy>(
        &self,
        batch: usize,
        io: &Io<'_>,
        worker: &Worker<'_>,
        start: T,
        fold: impl Fn(T, T) -> T,
        finish: impl Fn(&mut [T], usize),
    ) {
        let [channels, height, width] = self.input;
        let [_, out_height, out_width] = self.output;
        let (step, dilation, padding) =
            (self.window.stride[1], self.window.dilation[1], self.window.padding[1]);
        // SAFETY: input 0 holds `input_len` elements of type `T`, and no thread writes an input
        // during the run.
        let input = unsafe { io.input::<T>(0, self.input_len(batch)) };
        for row in worker.share(batch * channels * out_height) {
            // SAFETY: rows of the output are disjoint and within it.
            let output = unsafe { io.output::<T>(row * out_width, out_width) };
            output.fill(start);
            let (taps, top) = self.taps(0, row % out_height);
            for tap in 0..taps.len() {
                let line =
                    (row / out_height * height + top + tap * self.window.dilation[0]) * width;
                let line = &input[line..line + width];
                for column in 0..self.window.kernel[1] {
                    // Output columns `low..high` have this tap inside the line.
                    let offset = column * dilation;
                    let low = padding.saturating_sub(offset).div_ceil(step);
                    let high = match (width + padding).checked_sub(offset + 1) {
                        Some(reach) => (reach / step + 1).min(out_width),
                        None => 0,
                    };
                    if low >= high {
                        continue;
                    }
                    let from = &line[low * step + offset - padding..];
                    let output = &mut output[low..high];
                    if step == 1 {
                        for (out, x) in output.iter_mut().zip(from) {
                            *out = fold(*out, *x);
                        }
                    } else {
                        for (out, x) in output.iter_mut().zip(from.iter().step_by(step)) {
                            *out = fold(*out, *x);
                        }
                    }
                }
            }
            finish(output, row % out_height);
        }
    }
}

struct Max<T> {
    batch: usize,
    pooling: Pooling,
    lowest: T,
}

impl<T: Copy + PartialOrd + Send + Sync> Loops for Max<T> {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        // This comparison compiles to one vector instruction, unlike `f32::max`.
        let larger = |a: T, b: T| if b > a { b } else { a };
        // SAFETY: the buffers of a maximum have elements of type `T`, and the caller keeps to the
        // contract of `run`.
        unsafe {
            match self.pooling.layout {
                Layout::Nhwc | Layout::Nchwc(_) => {
                    self.pooling.pixels(self.batch, io, worker, larger, |_, _, _| {})
                }
                Layout::Nchw => {
                    self.pooling.rows(self.batch, io, worker, self.lowest, larger, |_, _| {})
                }
            }
        }
    }
}

struct Average {
    batch: usize,
    pooling: Pooling,
    include_padding: bool,
}

impl Loops for Average {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let pooling = &self.pooling;
        let count = |axis, at| pooling.count(axis, at, self.include_padding);
        let sum = |a: f32, b: f32| a + b;
        // SAFETY: the buffers of a mean have elements of type `f32`, and the caller keeps to the
        // contract of `run`.
        unsafe {
            match pooling.layout {
                Layout::Nhwc | Layout::Nchwc(_) => {
                    pooling.pixels(self.batch, io, worker, sum, |numbers, y, x| {
                        let factor = 1.0 / (count(0, y) * count(1, x)) as f32;
                        for number in numbers {
                            *number *= factor;
                        }
                    })
                }
                Layout::Nchw => pooling.rows(self.batch, io, worker, 0.0, sum, |numbers, y| {
                    let rows = count(0, y);
                    for (x, number) in numbers.iter_mut().enumerate() {
                        *number /= (rows * count(1, x)) as f32;
                    }
                }),
            }
        }
    }
}
