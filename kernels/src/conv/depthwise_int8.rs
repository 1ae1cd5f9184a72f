//! Depthwise convolution in 8 bits over channels-last activations, the integer twin of
//! [`super::depthwise`].
//!
//! Several taps are multiplied at a time ([`Simd::dot_taps`]): their bytes, interleaved, are groups for a dot product. That
//! leaves sums in another order of channels, which weights, scales and biases have as well, and which packing sums into
//! bytes undoes. Padding is a row of zero points, whose share of the sum is subtracted beforehand.

use std::ops::Range;

use super::buffer::{Buffer, whole_lines};
use super::depthwise::{parts, tunables};
use super::finish_int8::{BytesFinish, Finish8, StoreTile8, Target};
use super::gemm_int8::{input_grid, start_of};
use super::implicit_gemm_int8::MOST_TERMS;
use super::request::sensible;
use super::{Algorithm, Call, Kernel, Layout, Request};
use crate::error::KernelError;
use crate::hardware::Isa;
use crate::operator::ConvProblem;
use crate::schedule::{Schedule, Tunable};
use crate::simd::{Build, Job, Simd, build, lanes, quartered};
use crate::team::Worker;
use crate::weights::WeightFormat;

mod addresses;

use addresses::Addresses;

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
        tunables(problem, block(isa))
    }

    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::ChannelsLast; 2]
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
        let compiled = build(usable, Select { pixels }).ok_or_else(|| request.bad_value("pixels"))?;
        let taps: usize = problem.window.kernel.iter().product();
        let steps = taps.div_ceil(compiled.taps);
        let lanes = lanes(request.isa);
        let block = block(request.isa);
        let channels = problem.in_channels;
        let padded = channels.next_multiple_of(block);
        let plain = finish.plain_bytes(request);
        let packing = request.packing;
        let count = padded * steps * compiled.taps;
        let weights = packing.numbers(count * compiled.tap_bytes, |packed| {
            let mut weights = vec![0_i8; count];
            for (channel, stored) in dense.values.chunks_exact(taps).enumerate() {
                let [vector, lane] = quartered(channel % block);
                for (tap, &value) in stored.iter().enumerate() {
                    let step = channel / block * steps + tap / compiled.taps;
                    let at = ((step * 4 + vector) * lanes + lane) * compiled.taps + tap % compiled.taps;
                    weights[at] = value;
                }
            }
            (compiled.pack)(&weights, packed);
        })?;
        let in_order = |channel: usize| {
            let [vector, lane] = quartered(channel % block);
            channel / block * block + vector * lanes + lane
        };
        let finished = |channel: usize| if plain.is_some() { in_order(channel) } else { channel };
        let start = packing.numbers(padded, |start| {
            for (channel, stored) in dense.values.chunks_exact(taps).enumerate() {
                start[in_order(channel)] = start_of(stored, compiled.shift, grid.zero_point);
            }
        })?;
        let scale = packing.numbers(padded, |scale| {
            for channel in 0..channels {
                scale[finished(channel)] = finish.scale(dense.scales[channel] * grid.scale);
            }
        })?;
        let bias = packing.numbers(padded, |bias| {
            for channel in 0..channels {
                bias[finished(channel)] = finish.bias(request.bias(channel));
            }
        })?;
        let addresses = Addresses::new(&problem, output, pixels, compiled.taps);
        Ok(Box::new(Prepared {
            entry: compiled.entry,
            by_channels: match request.tunable("split")? {
                0 => false,
                1 => true,
                _ => return Err(request.bad_value("split")),
            },
            scratch: whole_lines(steps * compiled.taps * pixels * size_of::<*const u8>()),
            threads: request.threads,
            addresses,
            finish,
            plain,
            steps,
            block,
            zeros: Buffer::new(padded, |zeros| zeros.fill(grid.zero_point)),
            weights,
            start,
            scale,
            bias,
            output,
            problem,
        }))
    }
}

/// Channels computed at a time.
fn block(isa: Isa) -> usize {
    4 * lanes(isa)
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    entry: Entry,
    addresses: Addresses,
    /// How often [`Simd::TAPS`] taps are multiplied.
    steps: usize,
    /// Channels computed at a time.
    block: usize,
    /// `[block][step][vector][lane][tap of the step]`, in [`Simd::Tap`], channels [`quartered`].
    weights: Buffer<u8>,
    /// `[block][vector][lane]`
    start: Buffer<i32>,
    /// In the same order where results are `plain`, by channel elsewhere; so are biases.
    scale: Buffer<f32>,
    bias: Buffer<f32>,
    /// A row of zero points.
    zeros: Buffer<u8>,
    by_channels: bool,
    /// Bytes of addresses per worker.
    scratch: usize,
    threads: usize,
    finish: Finish8,
    /// Where nothing is added and bytes go: see [`Finish8::plain_bytes`].
    plain: Option<BytesFinish>,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.scratch * self.threads
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes() + self.start.bytes() + self.scale.bytes() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        for (rows, channels) in parts(worker, self.by_channels, &self.problem, self.output, self.block) {
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
    /// Whole blocks, as long as they last.
    channels: Range<usize>,
    addresses: *mut *const u8,
}

/// Computes a [`Pass`].
///
/// # Safety
/// Its addresses are valid, and nobody else writes its part of the output.
type Entry = unsafe fn(&Pass<'_>);

/// What is compiled for one instruction set.
struct Compiled {
    entry: Entry,
    /// [`Simd::TAPS`]
    taps: usize,
    /// [`Simd::SHIFT`]
    shift: i32,
    /// Bytes of a [`Simd::Tap`].
    tap_bytes: usize,
    /// Writes weights as [`Simd::Tap`], for which there must be room.
    pack: fn(&[i8], &mut [u8]),
}

/// Chooses the compiled function.
struct Select {
    pixels: usize,
}

impl Build for Select {
    type Output = Option<Compiled>;

    fn build<S: Simd>(self) -> Option<Compiled> {
        let entry = match self.pixels {
            1 => entry::<S, 1>,
            2 => entry::<S, 2>,
            4 => entry::<S, 4>,
            _ => return None,
        };
        Some(Compiled {
            entry,
            taps: S::TAPS,
            shift: S::SHIFT,
            tap_bytes: size_of::<S::Tap>(),
            pack: pack::<S>,
        })
    }
}

fn pack<S: Simd>(weights: &[i8], packed: &mut [u8]) {
    assert!(packed.len() >= size_of::<S::Tap>() * weights.len(), "more weights than there is room for");
    let to = packed.as_mut_ptr().cast::<S::Tap>();
    for (i, &weight) in weights.iter().enumerate() {
        // SAFETY: there is room for as many weights.
        unsafe { to.add(i).write_unaligned(S::Tap::from(weight)) };
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
                // SAFETY: the pixels are in the row; channels are those of the pass, whole blocks as long
                // as they last.
                unsafe {
                    let zeros = kernel.zeros.as_ptr();
                    kernel.addresses.look_up([image, y, first], pass.call.input, zeros, pass.addresses);
                    let at = (row * width + first) * channels;
                    let mut channel = pass.channels.start;
                    while channel + 4 * S::LANES <= pass.channels.end {
                        self.block::<S, false>(at, channel, 4 * S::LANES);
                        channel += 4 * S::LANES;
                    }
                    if channel < pass.channels.end {
                        self.block::<S, true>(at, channel, pass.channels.end - channel);
                    }
                }
            }
        }
    }
}

impl<const PIXELS: usize> Run<'_, PIXELS> {
    /// One block of channels (the first `count` of it, if `PART`) of all pixels of a pass, the first of
    /// which starts at `at` in the output.
    ///
    /// # Safety
    /// The addresses are looked up, and pixels and channels exist.
    #[inline(always)]
    unsafe fn block<S: Simd, const PART: bool>(&self, at: usize, channel: usize, count: usize) {
        let pass = self.0;
        let kernel = pass.kernel;
        // SAFETY: weights and starts are padded to whole blocks; the rest is the caller's promise.
        unsafe {
            let weights = kernel.weights.as_ptr().cast::<S::Tap>().add(channel * kernel.steps * S::TAPS);
            // Plain loops: closures lose the instruction set unless they are inlined.
            let mut start = [S::load_i32(kernel.start.as_ptr().add(channel)); 4];
            for v in 1..4 {
                start[v] = S::load_i32(kernel.start.as_ptr().add(channel + v * S::LANES));
            }
            for pixel in 0..PIXELS {
                let mut sums = start;
                let mut weights = weights;
                let mut addresses = pass.addresses.cast_const().add(pixel * S::TAPS);
                for _ in 0..kernel.steps {
                    let mut taps = [S::load_first_bytes(kernel.zeros.as_ptr(), 0); 4];
                    for tap in 0..S::TAPS {
                        let from = (*addresses.add(tap)).add(channel);
                        taps[tap] = if PART { S::load_first_bytes(from, count) } else { S::load_bytes(from) };
                    }
                    sums = S::dot_taps(sums, taps, weights);
                    addresses = addresses.add(PIXELS * S::TAPS);
                    weights = weights.add(4 * S::LANES * S::TAPS);
                }
                let at = at + pixel * kernel.problem.in_channels + channel;
                match &kernel.plain {
                    Some(finish) => self.store_plain::<S, PART>(finish, sums, at, channel, count),
                    None => self.store_any::<S>(sums, at, channel, count),
                }
            }
        }
    }

    /// Finishes and stores the sums of channels from `channel` on at `at` in the output.
    ///
    /// # Safety
    /// As for [`Run::block`], and scales and biases are quartered.
    #[inline(always)]
    unsafe fn store_plain<S: Simd, const PART: bool>(
        &self,
        finish: &BytesFinish,
        sums: [S::I; 4],
        at: usize,
        channel: usize,
        count: usize,
    ) {
        let kernel = self.0.kernel;
        // SAFETY: scales and biases are padded to whole blocks; the rest is the caller's promise.
        unsafe {
            let mut finished = [S::splat(0.0); 4];
            for v in 0..4 {
                let scale = S::load(kernel.scale.as_ptr().add(channel + v * S::LANES));
                let bias = S::load(kernel.bias.as_ptr().add(channel + v * S::LANES));
                let sum = S::fma(S::to_f32(sums[v]), scale, bias);
                finished[v] = finish.byte::<S, false>(sum, std::ptr::null());
            }
            let bytes = S::to_bytes(finished);
            let to = self.0.call.output.add(at);
            if PART { S::store_first_bytes(to, count, bytes) } else { S::store_bytes(to, bytes) }
        }
    }

    /// The same for everything else that may follow a sum.
    ///
    /// # Safety
    /// As for [`Run::block`], and scales and biases go by channels.
    #[inline(always)]
    unsafe fn store_any<S: Simd>(&self, sums: [S::I; 4], at: usize, channel: usize, count: usize) {
        let kernel = self.0.kernel;
        // Blocks have 64 channels at most.
        let mut in_order = [0_i32; 64];
        let from = sums.as_ptr().cast::<i32>();
        let to = in_order.as_mut_ptr();
        // SAFETY: a vector is as many integers as it has lanes; scales and biases are padded to whole blocks; the rest is
        // the caller's promise.
        unsafe {
            for four in 0..S::LANES {
                let [vector, lane] = quartered(4 * four);
                let numbers = from.add(vector * S::LANES + lane).cast::<[i32; 4]>().read_unaligned();
                to.add(4 * four).cast::<[i32; 4]>().write_unaligned(numbers);
            }
            S::vectorize(StoreTile8 {
                finish: &kernel.finish,
                target: Target { output: self.0.call.output, residual: self.0.call.residual },
                scale: kernel.scale.as_ptr().add(channel),
                bias: kernel.bias.as_ptr().add(channel),
                pixel: kernel.problem.in_channels,
                sums: to,
                rows: 1,
                vectors: 4,
                at,
                channels: count,
            });
        }
    }
}
