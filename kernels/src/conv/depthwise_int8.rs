//! Depthwise convolution in 8 bits over channels-last activations, the integer twin of
//! [`super::depthwise`].
//!
//! Two taps are multiplied at a time: their bytes, interleaved and widened, meet pairs of 16-bit
//! weights. Padding is a row of zero points, whose share of the sum is subtracted beforehand.

use std::ops::Range;

use super::buffer::{Buffer, whole_lines};
use super::depthwise::{parts, tunables};
use super::finish_int8::{Finish8, StoreTile8, Target};
use super::gemm_int8::input_grid;
use super::implicit_gemm_int8::MOST_TERMS;
use super::request::sensible;
use super::rows::offsets;
use super::{Algorithm, Call, Kernel, Layout, Request};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::schedule::Tunable;
use crate::simd::{Build, Job, Simd, build, copy_few, lanes};
use crate::team::Worker;
use crate::weights::WeightFormat;

/// The algorithm.
pub(super) struct DepthwiseInt8;

impl Algorithm for DepthwiseInt8 {
    fn name(&self) -> &'static str {
        "depthwise_int8"
    }

    fn about(&self) -> &'static str {
        "8 bits, each channel by itself, vectors of channels"
    }

    fn integer(&self) -> bool {
        true
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers.is_integer()
    }

    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem)
            && problem.is_depthwise()
            && problem.window.kernel.iter().product::<usize>() <= MOST_TERMS
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        tunables(problem, isa)
    }

    fn layout(&self) -> Layout {
        Layout::ChannelsLast
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, usable) = request.check()?;
        let problem = request.problem;
        if !self.supports(&problem, request.isa) {
            return Err(KernelError::Data("`depthwise_int8` needs one channel per group".into()));
        }
        let dense = request.integer_weights()?;
        let grid = input_grid(request)?;
        let finish = Finish8::new(request);
        let pixels = request.count("pixels")?;
        if pixels > output[1] {
            return Err(request.bad_value("pixels"));
        }
        let entry = build(usable, Select { pixels }).ok_or_else(|| request.bad_value("pixels"))?;
        let taps: usize = problem.window.kernel.iter().product();
        let pairs = taps.div_ceil(2);
        let lanes = lanes(request.isa);
        let channels = problem.in_channels;
        let padded = channels.next_multiple_of(lanes);
        let mut weights = Buffer::<i16>::zeros(padded * pairs * 2);
        let mut start = Buffer::<i32>::zeros(padded);
        let mut scale = Buffer::<f32>::zeros(padded);
        let mut bias = Buffer::<f32>::zeros(padded);
        for channel in 0..channels {
            let stored = &dense.values[channel * taps..][..taps];
            for (tap, &value) in stored.iter().enumerate() {
                let vector = channel / lanes * pairs + tap / 2;
                weights.as_mut_slice()[(vector * lanes + channel % lanes) * 2 + tap % 2] = i16::from(value);
            }
            let sum: i32 = stored.iter().map(|&weight| i32::from(weight)).sum();
            start.as_mut_slice()[channel] = -i32::from(grid.zero_point) * sum;
            scale.as_mut_slice()[channel] = finish.scale(dense.scales[channel] * grid.scale);
            bias.as_mut_slice()[channel] = finish.bias(request.bias(channel));
        }
        let mut zeros = Buffer::zeros(padded);
        zeros.as_mut_slice().fill(grid.zero_point);
        Ok(Box::new(Prepared {
            entry,
            vertical: offsets(&problem, 0, output[0], problem.input[1] * channels),
            horizontal: offsets(&problem, 1, output[1], channels),
            by_channels: match request.tunable("split")? {
                0 => false,
                1 => true,
                _ => return Err(request.bad_value("split")),
            },
            scratch: whole_lines(pairs * 2 * pixels * size_of::<*const u8>()),
            threads: request.threads,
            finish,
            pairs,
            zeros,
            weights,
            start,
            scale,
            bias,
            output,
            problem,
        }))
    }
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    entry: Entry,
    vertical: Vec<isize>,
    horizontal: Vec<isize>,
    pairs: usize,
    /// `[vector of channels][pair of taps][lane][tap of the pair]`
    weights: Buffer<i16>,
    start: Buffer<i32>,
    scale: Buffer<f32>,
    bias: Buffer<f32>,
    /// A row of zero points.
    zeros: Buffer<u8>,
    by_channels: bool,
    /// Bytes of addresses per worker.
    scratch: usize,
    threads: usize,
    finish: Finish8,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.scratch * self.threads
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes() + self.start.bytes() + self.scale.bytes() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        for (rows, channels) in parts(worker, self.by_channels, &self.problem, self.output) {
            // SAFETY: the caller vouches for the addresses; each worker has its part of the scratch memory,
            // and its own rows or channels of the output.
            unsafe {
                let addresses = call.workspace.add(worker.index * self.scratch).cast::<*const u8>();
                (self.entry)(&Pass { kernel: self, call: *call, rows, channels, addresses });
            }
        }
    }
}

/// Rows times channels of one run.
struct Pass<'a> {
    kernel: &'a Prepared,
    call: Call,
    rows: Range<usize>,
    /// Starts at a multiple of 16.
    channels: Range<usize>,
    addresses: *mut *const u8,
}

/// Computes a [`Pass`].
///
/// # Safety
/// Its addresses are valid, and nobody else writes its part of the output.
type Entry = unsafe fn(&Pass<'_>);

/// Chooses the compiled function.
struct Select {
    pixels: usize,
}

impl Build for Select {
    type Output = Option<Entry>;

    fn build<S: Simd>(self) -> Option<Entry> {
        Some(match self.pixels {
            1 => entry::<S, 1>,
            2 => entry::<S, 2>,
            4 => entry::<S, 4>,
            _ => return None,
        })
    }
}

/// # Safety
/// As for [`Entry`], and the processor executes `S`.
unsafe fn entry<S: Simd, const PIXELS: usize>(pass: &Pass<'_>) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Run::<PIXELS>(pass)) }
}

struct Run<'a, const PIXELS: usize>(&'a Pass<'a>);

impl<const PIXELS: usize> Job for Run<'_, PIXELS> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let pass = self.0;
        let kernel = pass.kernel;
        let channels = kernel.problem.in_channels;
        let [height, width] = kernel.output;
        for row in pass.rows.clone() {
            let (image, y) = (row / height, row % height);
            let mut x = 0;
            while x < width {
                // The last pass of a row computes some pixels once more rather than fewer of them.
                let first = x.min(width - PIXELS);
                x = first + PIXELS;
                // SAFETY: the pixels are in the row; channels are those of the pass, whole vectors as long
                // as they last.
                unsafe {
                    self.addresses(image, y, first);
                    let at = (row * width + first) * channels;
                    let mut channel = pass.channels.start;
                    while channel + 2 * S::LANES <= pass.channels.end {
                        self.two_vectors::<S>(at, channel);
                        channel += 2 * S::LANES;
                    }
                    while channel + S::LANES <= pass.channels.end {
                        self.vector::<S, false>(at, channel, S::LANES);
                        channel += S::LANES;
                    }
                    if channel < pass.channels.end {
                        self.vector::<S, true>(at, channel, pass.channels.end - channel);
                    }
                }
            }
        }
    }
}

impl<const PIXELS: usize> Run<'_, PIXELS> {
    /// Looks up where the pixels from `[y, first]` on find their taps: `[pair][pixel][tap of the pair]`.
    ///
    /// # Safety
    /// The pixels exist.
    #[inline(always)]
    unsafe fn addresses(&self, image: usize, y: usize, first: usize) {
        let pass = self.0;
        let kernel = pass.kernel;
        let problem = &kernel.problem;
        let [tap_rows, tap_columns] = problem.window.kernel;
        let size = problem.input[0] * problem.input[1] * problem.in_channels;
        let zeros = kernel.zeros.as_ptr();
        // SAFETY: offsets that are not negative lie in the image; the scratch memory holds two addresses
        // per pair of taps and pixel.
        unsafe {
            let input = pass.call.input.add(image * size);
            for pixel in 0..PIXELS {
                let mut tap = 0;
                for ky in 0..tap_rows {
                    let vertical = kernel.vertical[y * tap_rows + ky];
                    for kx in 0..tap_columns {
                        let offset = vertical + kernel.horizontal[(first + pixel) * tap_columns + kx];
                        let address = if offset < 0 { zeros } else { input.offset(offset) };
                        *pass.addresses.add((tap / 2 * PIXELS + pixel) * 2 + tap % 2) = address;
                        tap += 1;
                    }
                }
                if tap % 2 == 1 {
                    // A tap that is not there; its weights are zero.
                    *pass.addresses.add((tap / 2 * PIXELS + pixel) * 2 + 1) = zeros;
                }
            }
        }
    }

    /// Two vectors of channels of all pixels of a pass, the first of which starts at `at` in the output.
    ///
    /// # Safety
    /// The addresses are looked up, and pixels and channels exist.
    #[inline(always)]
    unsafe fn two_vectors<S: Simd>(&self, at: usize, channel: usize) {
        let pass = self.0;
        let kernel = pass.kernel;
        // SAFETY: weights, scales and biases exist for all channels; the rest is the caller's promise.
        unsafe {
            let mut weights = kernel.weights.as_ptr().add(channel * kernel.pairs * 2);
            let second = S::LANES * kernel.pairs * 2;
            let mut addresses = pass.addresses.cast_const();
            let start = kernel.start.as_ptr().add(channel);
            let mut sums = [[S::load_i32(start), S::load_i32(start.add(S::LANES))]; PIXELS];
            for _ in 0..kernel.pairs {
                for sum in &mut sums {
                    let (a, b) = ((*addresses).add(channel), (*addresses.add(1)).add(channel));
                    *sum = S::dot_pairs_twice(*sum, a, b, [weights, weights.add(second)]);
                    addresses = addresses.add(2);
                }
                weights = weights.add(S::LANES * 2);
            }
            let target = Target { output: pass.call.output, residual: pass.call.residual };
            let sums = sums;
            S::vectorize(StoreTile8 {
                finish: &kernel.finish,
                target,
                scale: kernel.scale.as_ptr().add(channel),
                bias: kernel.bias.as_ptr().add(channel),
                pixel: kernel.problem.in_channels,
                sums: sums.as_ptr().cast(),
                rows: PIXELS,
                vectors: 2,
                at: at + channel,
                channels: 2 * S::LANES,
            });
        }
    }

    /// One vector of channels (the first `count` of it, if `PART`) of all pixels of a pass, the first of
    /// which starts at `at` in the output.
    ///
    /// # Safety
    /// The addresses are looked up, and pixels and channels exist.
    #[inline(always)]
    unsafe fn vector<S: Simd, const PART: bool>(&self, at: usize, channel: usize, count: usize) {
        let pass = self.0;
        let kernel = pass.kernel;
        // SAFETY: weights, scales and biases are padded to whole vectors; the rest is the caller's promise.
        unsafe {
            let mut weights = kernel.weights.as_ptr().add(channel * kernel.pairs * 2);
            let mut addresses = pass.addresses.cast_const();
            let mut sums = [S::load_i32(kernel.start.as_ptr().add(channel)); PIXELS];
            for _ in 0..kernel.pairs {
                for sum in &mut sums {
                    let (a, b) = ((*addresses).add(channel), (*addresses.add(1)).add(channel));
                    if PART {
                        let mut few = [[0_u8; 16]; 2];
                        copy_few(a, few[0].as_mut_ptr(), count);
                        copy_few(b, few[1].as_mut_ptr(), count);
                        *sum = S::dot_pairs(*sum, few[0].as_ptr(), few[1].as_ptr(), weights);
                    } else {
                        *sum = S::dot_pairs(*sum, a, b, weights);
                    }
                    addresses = addresses.add(2);
                }
                weights = weights.add(S::LANES * 2);
            }
            let scale = S::load(kernel.scale.as_ptr().add(channel));
            let bias = S::load(kernel.bias.as_ptr().add(channel));
            let target = Target { output: pass.call.output, residual: pass.call.residual };
            let bytes = if PART { None } else { kernel.finish.bytes(target) };
            for (pixel, &sum) in sums.iter().enumerate() {
                let at = at + pixel * kernel.problem.in_channels + channel;
                let sum = S::fma(S::to_f32(sum), scale, bias);
                match &bytes {
                    Some(finish) => {
                        let residual = target.residual.wrapping_add(at);
                        let byte = if finish.residual.is_some() {
                            finish.byte::<S, true>(sum, residual)
                        } else {
                            finish.byte::<S, false>(sum, residual)
                        };
                        S::store_u8(target.output.add(at), byte);
                    }
                    None => kernel.finish.store::<S>(target, at, count, sum),
                }
            }
        }
    }
}
