//! Depthwise convolution over NHWC and NCHWc activations with vectors of channels.
//!
//! A pass computes a few adjacent output pixels for a vector of channels, so that the pixels share
//! loads of input and weights. The addresses of a pass are looked up once for all channels; padding
//! is a row of zeros. Windows of 3x3 and 5x5 at strides 1 and 2 are unrolled. A block of NCHWc is
//! treated as an NHWC image. It has only one vector of channels, so passes without padding at their
//! sides look up only the rows.

use std::ops::Range;

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::support::buffer::{Buffer, whole_lines};
use crate::conv::support::depthwise::{self as support, parts, shares_channels, tunables};
use crate::conv::support::epilogue::{Epilogue, StoreTile};
use crate::conv::support::indirection::offsets;
use crate::conv::support::layouts::{NCHWC, NHWC, named_layout};
use crate::conv::support::request::sensible;
use paretune_base::error::KernelError;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, Simd, SimdFn, SimdOp, lanes};

/// Depthwise convolution over NHWC and NCHWc activations.
pub(crate) struct Depthwise;

/// Largest number of input columns under one row of taps of a pass: four pixels, 5 taps, stride 2.
const MAX_COLUMNS: usize = 12;

/// Channels per unit when threads partition the channels: whole cache lines.
const BLOCK: usize = 16;

impl AlgorithmInfo for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn about(&self) -> &'static str {
        "each channel by itself, vectors of channels"
    }
}

impl Algorithm for Depthwise {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem) && problem.is_depthwise()
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let mut tunables = tunables(problem, lanes(isa));
        let blocked = problem.in_channels.is_multiple_of(lanes(isa));
        let layouts = if blocked { vec![NHWC, NCHWC] } else { vec![NHWC] };
        tunables.push(Tunable::choice("layout", "layout of input and output", layouts, NHWC));
        tunables
    }

    fn layouts(&self, schedule: &Schedule, isa: Isa) -> [Layout; 2] {
        [named_layout(schedule, "layout", isa); 2]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check()?;
        request.check_f32()?;
        let problem = request.problem;
        if !problem.is_depthwise() {
            return Err(KernelError::Data("`depthwise` needs one channel per group".into()));
        }
        let stored = request.f32_weights()?;
        let pixels = request.count("pixels")?;
        if pixels > output[1] {
            return Err(request.bad_value("pixels"));
        }
        let entry = token
            .f32()
            .dispatch(Select { window: problem.window, pixels })
            .ok_or_else(|| request.bad_value("pixels"))?;
        let taps = problem.taps();
        let lanes = lanes(request.isa);
        let padded = problem.in_channels.next_multiple_of(lanes);
        let channels = problem.in_channels;
        let blocks = match request.choice("layout")? {
            NHWC => 1,
            NCHWC if channels.is_multiple_of(lanes) => channels / lanes,
            _ => return Err(request.bad_value("layout")),
        };
        // The problem with every block of channels as an image of its own.
        let width = channels / blocks;
        let images = ConvProblem {
            batch: problem.batch * blocks,
            in_channels: width,
            out_channels: width,
            groups: width,
            ..problem
        };
        let weights = request.packing.numbers(padded * taps, |weights| {
            for channel in 0..channels {
                for tap in 0..taps {
                    let at = (channel / lanes * taps + tap) * lanes + channel % lanes;
                    weights[at] = stored[channel * taps + tap];
                }
            }
        })?;
        let bias = request
            .packing
            .numbers(padded, |bias| request.write_biases(0, &mut bias[..channels]))?;
        Ok(Box::new(Prepared {
            entry,
            vertical: offsets(&images, 0, output[0], images.input[1] * width),
            horizontal: offsets(&images, 1, output[1], width),
            regular: if width == lanes { regular(&images, output[1], pixels) } else { 0..0 },
            by_channels: shares_channels(request)?,
            scratch: whole_lines(taps * pixels * size_of::<*const f32>()),
            threads: request.threads,
            zeros: Buffer::zeros(padded.max(MAX_COLUMNS * lanes)),
            epilogue: Epilogue::new(request.activation),
            problem: images,
            weights,
            bias,
            blocks,
            output,
        }))
    }
}

/// Returns the first pixels of the passes whose input columns all lie inside the input.
fn regular(problem: &ConvProblem, width: usize, pixels: usize) -> Range<usize> {
    let (stride, left) = (problem.window.stride[1], problem.window.padding[1]);
    let columns = (pixels - 1) * stride + problem.window.kernel[1];
    let first = left.div_ceil(stride);
    let end = (problem.input[1] + left).checked_sub(columns).map_or(0, |last| last / stride + 1);
    first..end.min(width.saturating_sub(pixels) + 1)
}

struct Prepared {
    /// In NCHWc, the equivalent problem in which every block of channels is an image.
    problem: ConvProblem,
    /// Blocks of channels per image of the request.
    blocks: usize,
    output: [usize; 2],
    entry: Entry,
    vertical: Vec<isize>,
    horizontal: Vec<isize>,
    /// First pixels of the passes whose input columns are adjacent vectors without padding.
    regular: Range<usize>,
    /// Packed weights, `[vector of channels][tap][lane]`.
    weights: Buffer<f32>,
    bias: Buffer<f32>,
    zeros: Buffer<f32>,
    by_channels: bool,
    /// Bytes of the address table of each thread.
    scratch: usize,
    threads: usize,
    epilogue: Epilogue,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.scratch * self.threads
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        for (rows, channels) in parts(worker, self.by_channels, &self.problem, self.output, BLOCK) {
            // SAFETY: the caller vouches for the addresses; each worker has its part of the scratch
            // memory, and its own rows or channels of the output.
            unsafe {
                let addresses =
                    call.workspace.add(worker.index * self.scratch).cast::<*const f32>();
                (self.entry)(&Pass { kernel: self, call: *call, rows, channels, addresses });
            }
        }
    }
}

/// Pass of a single-precision kernel; its channels begin at a multiple of [`BLOCK`].
type Pass<'a> = support::Pass<'a, Prepared, f32>;

/// Function that computes a [`Pass`] with one instruction set.
type Entry = support::Entry<Prepared, f32>;

/// Selects the instantiation for a window and a number of pixels.
struct Select {
    window: paretune_base::plan::operator::Window,
    pixels: usize,
}

impl SimdOp for Select {
    type Output = Option<Entry>;

    fn eval<S: Simd>(self, simd: S) -> Option<Entry> {
        let window = &self.window;
        let unrolled = if window.dilation == [1, 1] { window.kernel } else { [0, 0] };
        let entry: Entry = match (unrolled, window.stride[1], self.pixels) {
            ([3, 3], 1, 1) => simd.pointer::<Run<'_, 3, 1, 1>>() as Entry,
            ([3, 3], 1, 2) => simd.pointer::<Run<'_, 3, 1, 2>>() as Entry,
            ([3, 3], 1, 4) => simd.pointer::<Run<'_, 3, 1, 4>>() as Entry,
            ([3, 3], 2, 1) => simd.pointer::<Run<'_, 3, 2, 1>>() as Entry,
            ([3, 3], 2, 2) => simd.pointer::<Run<'_, 3, 2, 2>>() as Entry,
            ([3, 3], 2, 4) => simd.pointer::<Run<'_, 3, 2, 4>>() as Entry,
            ([5, 5], 1, 1) => simd.pointer::<Run<'_, 5, 1, 1>>() as Entry,
            ([5, 5], 1, 2) => simd.pointer::<Run<'_, 5, 1, 2>>() as Entry,
            ([5, 5], 1, 4) => simd.pointer::<Run<'_, 5, 1, 4>>() as Entry,
            ([5, 5], 2, 1) => simd.pointer::<Run<'_, 5, 2, 1>>() as Entry,
            ([5, 5], 2, 2) => simd.pointer::<Run<'_, 5, 2, 2>>() as Entry,
            ([5, 5], 2, 4) => simd.pointer::<Run<'_, 5, 2, 4>>() as Entry,
            (_, _, 1) => simd.pointer::<Run<'_, 0, 0, 1>>() as Entry,
            (_, _, 2) => simd.pointer::<Run<'_, 0, 0, 2>>() as Entry,
            (_, _, 4) => simd.pointer::<Run<'_, 0, 0, 4>>() as Entry,
            _ => return None,
        };
        Some(entry)
    }
}

/// Body of an entry for a `SIZE x SIZE` window at horizontal stride `STRIDE`; 0 stands for any.
struct Run<'a, const SIZE: usize, const STRIDE: usize, const PIXELS: usize>(&'a Pass<'a>);

impl<const SIZE: usize, const STRIDE: usize, const PIXELS: usize> SimdFn
    for Run<'_, SIZE, STRIDE, PIXELS>
{
    type Args<'a> = &'a Pass<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, pass: &Pass<'_>) {
        let this = Run::<SIZE, STRIDE, PIXELS>(pass);
        let kernel = pass.kernel;
        let channels = kernel.problem.in_channels;
        let [height, width] = kernel.output;
        for row in pass.rows.clone() {
            let (image, y) = (row / height, row % height);
            // First channel of the image's block in the weights.
            let block = image % kernel.blocks * channels;
            let mut x = 0;
            while x < width {
                // The last pass of a row overlaps the one before it: pixels computed twice cost
                // less than a shorter pass.
                let first = x.min(width - PIXELS);
                x = first + PIXELS;
                let at = (row * width + first) * channels;
                // SAFETY: the pixels are in the row; channels are those of the pass, whole vectors
                // as long as they last.
                unsafe {
                    if SIZE > 0 && kernel.regular.contains(&first) {
                        if !pass.channels.is_empty() {
                            this.rows(image, y, first);
                            this.vector::<S, false, true>(simd, at, 0, block, S::LANES);
                        }
                        continue;
                    }
                    this.addresses(image, y, first);
                    let mut channel = pass.channels.start;
                    while channel + S::LANES <= pass.channels.end {
                        this.vector::<S, false, false>(simd, at, channel, block, S::LANES);
                        channel += S::LANES;
                    }
                    if channel < pass.channels.end {
                        this.vector::<S, true, false>(
                            simd,
                            at,
                            channel,
                            block,
                            pass.channels.end - channel,
                        );
                    }
                }
            }
        }
    }
}

impl<const SIZE: usize, const STRIDE: usize, const PIXELS: usize> Run<'_, SIZE, STRIDE, PIXELS> {
    /// Input columns under one row of taps of a pass.
    const COLUMNS: usize = if SIZE == 0 { 0 } else { (PIXELS - 1) * STRIDE + SIZE };

    /// Looks up the input row of every tap row for the pixels from `[y, first]` on, whose columns
    /// are adjacent.
    ///
    /// # Safety
    /// The pixels must exist, and none of their input columns may be padding.
    #[inline(always)]
    unsafe fn rows(&self, image: usize, y: usize, first: usize) {
        let pass = self.0;
        let kernel = pass.kernel;
        let problem = &kernel.problem;
        let channels = problem.in_channels;
        let size = problem.input[0] * problem.input[1] * channels;
        let column = (first * STRIDE - problem.window.padding[1]) * channels;
        for ky in 0..SIZE {
            // SAFETY: offsets that are not negative lie in the image; the scratch memory holds an
            // address per tap, and there are zeros for as many columns as a pass has.
            unsafe {
                let vertical = kernel.vertical[y * SIZE + ky];
                let inside = pass
                    .call
                    .input
                    .cast::<f32>()
                    .add(image * size + column)
                    .wrapping_offset(vertical);
                *pass.addresses.add(ky) = if vertical < 0 { kernel.zeros.as_ptr() } else { inside };
            }
        }
    }

    /// Looks up the input addresses of the pixels from `[y, first]` on: `[tap row][column]` if the
    /// window is unrolled, else `[tap][pixel]`.
    ///
    /// # Safety
    /// The pixels must exist in the output.
    #[inline(always)]
    unsafe fn addresses(&self, image: usize, y: usize, first: usize) {
        let pass = self.0;
        let kernel = pass.kernel;
        let problem = &kernel.problem;
        let [tap_rows, tap_columns] = problem.window.kernel;
        let size = problem.input[0] * problem.input[1] * problem.in_channels;
        let mut to = pass.addresses;
        // SAFETY: offsets that are not negative lie in the image; the scratch memory holds an
        // address per tap and pixel, and columns are never more.
        unsafe {
            let input = pass.call.input.cast::<f32>().add(image * size);
            let mut put = |offset: isize| {
                *to = if offset < 0 { kernel.zeros.as_ptr() } else { input.offset(offset) };
                to = to.add(1);
            };
            for ky in 0..tap_rows {
                let vertical = kernel.vertical[y * tap_rows + ky];
                if SIZE > 0 {
                    for column in 0..Self::COLUMNS {
                        // Every column lies under some tap of some pixel.
                        let pixel = (column / STRIDE).min(PIXELS - 1);
                        let tap = column - pixel * STRIDE;
                        put(vertical + kernel.horizontal[(first + pixel) * tap_columns + tap]);
                    }
                } else {
                    for kx in 0..tap_columns {
                        for pixel in 0..PIXELS {
                            put(vertical + kernel.horizontal[(first + pixel) * tap_columns + kx]);
                        }
                    }
                }
            }
        }
    }

    /// Computes one vector of channels (its first `count` lanes if `PART`) of all pixels of a pass,
    /// which starts at `at` in the output. Weights and biases are those of `block`. `REGULAR`
    /// passes read the addresses of rows, others those of every column.
    ///
    /// # Safety
    /// The addresses must have been looked up, and the pixels and channels must exist.
    #[inline(always)]
    unsafe fn vector<S: Simd, const PART: bool, const REGULAR: bool>(
        &self,
        simd: S,
        at: usize,
        channel: usize,
        block: usize,
        count: usize,
    ) {
        let pass = self.0;
        let kernel = pass.kernel;
        let taps = kernel.problem.window.kernel[0] * kernel.problem.window.kernel[1];
        // SAFETY: weights and biases are padded to whole vectors. The addresses looked up are valid
        // for all channels, of which partial vectors read `count`, and pixels and channels exist in
        // the output.
        unsafe {
            let load = |from: *const f32| {
                if PART { simd.load_partial(from, count) } else { simd.load(from) }
            };
            let mut weights = kernel.weights.as_ptr().add((block + channel) * taps);
            let mut addresses = pass.addresses.cast_const();
            let mut sums = [simd.load(kernel.bias.as_ptr().add(block + channel)); PIXELS];
            if SIZE > 0 {
                for _ in 0..SIZE {
                    let mut columns = [sums[0]; MAX_COLUMNS];
                    for (column, number) in columns.iter_mut().enumerate().take(Self::COLUMNS) {
                        *number = if REGULAR {
                            load((*addresses).add(column * S::LANES))
                        } else {
                            load((*addresses.add(column)).add(channel))
                        };
                    }
                    for kx in 0..SIZE {
                        let weight = simd.load(weights);
                        weights = weights.add(S::LANES);
                        for (pixel, sum) in sums.iter_mut().enumerate() {
                            *sum = simd.fma(columns[pixel * STRIDE + kx], weight, *sum);
                        }
                    }
                    addresses = addresses.add(if REGULAR { 1 } else { Self::COLUMNS });
                }
            } else {
                for _ in 0..taps {
                    let weight = simd.load(weights);
                    weights = weights.add(S::LANES);
                    for (pixel, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.fma(load((*addresses.add(pixel)).add(channel)), weight, *sum);
                    }
                    addresses = addresses.add(PIXELS);
                }
            }
            let at = at + channel;
            let output = pass.call.output.cast::<f32>().add(at);
            let residual = pass.call.residual.cast::<f32>();
            let residual = if residual.is_null() { residual } else { residual.add(at) };
            let pixel = kernel.problem.in_channels;
            if PART || kernel.epilogue.other.is_some() {
                let sums = sums;
                simd.call::<StoreTile<'_>>(StoreTile {
                    sums: sums.as_ptr().cast(),
                    rows: PIXELS,
                    vectors: 1,
                    channels: count,
                    output,
                    residual,
                    pixel,
                    epilogue: &kernel.epilogue,
                });
                return;
            }
            for (number, &sum) in sums.iter().enumerate() {
                let mut sum = sum;
                if !residual.is_null() {
                    sum = simd.add(sum, simd.load(residual.add(number * pixel)));
                }
                simd.store(output.add(number * pixel), kernel.epilogue.clamp(simd, sum));
            }
        }
    }
}
