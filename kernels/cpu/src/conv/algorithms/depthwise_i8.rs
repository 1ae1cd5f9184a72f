//! Depthwise convolution in 8 bits over NHWC activations, the integer counterpart of
//! [`super::depthwise`].
//!
//! Several taps are multiplied at once ([`Simd::dot_taps`]): interleaving their bytes makes the
//! groups of a dot product. The sums then have their channels in another order; weights, scales and
//! biases are stored in that order, and packing the sums into bytes restores the original one.
//! Padding is a row of zero points. The contribution of the zero point is subtracted in advance.

use super::implicit_gemm_i8::MAX_TERMS;
use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::gemm_i8::{input_grid, start_of};
use crate::conv::support::buffer::{Buffer, whole_lines};
use crate::conv::support::depthwise::{self as support, parts, shares_channels, tunables};
use crate::conv::support::epilogue_i8::{ByteEpilogue, EpilogueI8, StoreTileI8, Target};
use crate::conv::support::request::sensible;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, Simd, SimdFn, SimdOp, lanes, quartered};

mod addresses;

use addresses::Addresses;

/// Depthwise convolution in 8 bits over NHWC activations.
pub(crate) struct DepthwiseI8;

impl AlgorithmInfo for DepthwiseI8 {
    fn name(&self) -> &'static str {
        "depthwise_i8"
    }

    fn about(&self) -> &'static str {
        "8 bits, each channel by itself, vectors of channels"
    }

    fn is_integer(&self) -> bool {
        true
    }
}

impl Algorithm for DepthwiseI8 {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem) && problem.is_depthwise() && problem.taps() <= MAX_TERMS
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        tunables(problem, block(isa))
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check_for(self)?;
        let problem = request.problem;
        let dense = request.integer_weights()?;
        let grid = input_grid(request)?;
        let epilogue = EpilogueI8::new(request);
        let pixels = request.count("pixels")?;
        if pixels > output[1] {
            return Err(request.bad_value("pixels"));
        }
        let compiled =
            token.dispatch(Select { pixels }).ok_or_else(|| request.bad_value("pixels"))?;
        let taps = problem.taps();
        let steps = taps.div_ceil(compiled.taps);
        let lanes = lanes(request.isa);
        let block = block(request.isa);
        let channels = problem.in_channels;
        let padded = channels.next_multiple_of(block);
        let plain = epilogue.plain_bytes(request);
        let packing = request.packing;
        let count = padded * steps * compiled.taps;
        let weights = packing.numbers(count * compiled.tap_bytes, |packed| {
            let mut weights = vec![0_i8; count];
            for (channel, stored) in dense.values.chunks_exact(taps).enumerate() {
                let [vector, lane] = quartered(channel % block);
                for (tap, &value) in stored.iter().enumerate() {
                    let step = channel / block * steps + tap / compiled.taps;
                    let at =
                        ((step * 4 + vector) * lanes + lane) * compiled.taps + tap % compiled.taps;
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
                scale[finished(channel)] = epilogue.scale(dense.scales[channel] * grid.scale);
            }
        })?;
        let bias = packing.numbers(padded, |bias| {
            for channel in 0..channels {
                bias[finished(channel)] = epilogue.bias(request.bias(channel));
            }
        })?;
        let addresses = Addresses::new(&problem, output, pixels, compiled.taps);
        Ok(Box::new(Prepared {
            entry: compiled.entry,
            by_channels: shares_channels(request)?,
            scratch: whole_lines(steps * compiled.taps * pixels * size_of::<*const u8>()),
            threads: request.threads,
            addresses,
            epilogue,
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

/// Returns the number of channels that are computed together.
fn block(isa: Isa) -> usize {
    4 * lanes(isa)
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    entry: Entry,
    addresses: Addresses,
    /// Steps per window, each of which multiplies [`Simd::TAPS`] taps.
    steps: usize,
    /// Channels that are computed together.
    block: usize,
    /// Packed weights as [`Simd::Tap`], `[block][step][vector][lane][tap of the step]`, with
    /// channels in [`quartered`] order.
    weights: Buffer<u8>,
    /// Initial values of the sums, `[block][vector][lane]`.
    start: Buffer<i32>,
    /// Scale per channel, in the order of `start` if `plain` is set, else by channel. The same
    /// holds for `bias`.
    scale: Buffer<f32>,
    bias: Buffer<f32>,
    /// A row of zero points, which stands for padding.
    zeros: Buffer<u8>,
    by_channels: bool,
    /// Bytes of the address table of each thread.
    scratch: usize,
    threads: usize,
    epilogue: EpilogueI8,
    /// Epilogue for byte outputs without residual: see [`EpilogueI8::plain_bytes`].
    plain: Option<ByteEpilogue>,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.scratch * self.threads
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes() + self.start.bytes() + self.scale.bytes() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        for (rows, channels) in
            parts(worker, self.by_channels, &self.problem, self.output, self.block)
        {
            // SAFETY: the caller vouches for the addresses; each worker has its part of the scratch
            // memory, and its own rows or channels of the output.
            unsafe {
                let addresses = call.workspace.add(worker.index * self.scratch).cast::<*const u8>();
                (self.entry)(&Pass { kernel: self, call: *call, rows, channels, addresses });
            }
        }
    }
}

/// Pass of an 8-bit kernel; its channels are whole blocks, except at the end.
type Pass<'a> = support::Pass<'a, Prepared, u8>;

/// Function that computes a [`Pass`] with one instruction set.
type Entry = support::Entry<Prepared, u8>;

/// Functions and constants of one instruction set.
struct Compiled {
    entry: Entry,
    /// Taps multiplied at once, [`Simd::TAPS`].
    taps: usize,
    /// Amount by which dot products reduce activations, [`Simd::SHIFT`].
    shift: i32,
    /// Size of a [`Simd::Tap`] in bytes.
    tap_bytes: usize,
    /// Writes weights as [`Simd::Tap`]; the destination must have room for them.
    pack: fn(&[i8], &mut [u8]),
}

/// Selects the instantiation for a number of pixels.
struct Select {
    pixels: usize,
}

impl SimdOp for Select {
    type Output = Option<Compiled>;

    fn eval<S: Simd>(self, simd: S) -> Option<Compiled> {
        let entry = match self.pixels {
            1 => simd.pointer::<Run<'_, 1>>(),
            2 => simd.pointer::<Run<'_, 2>>(),
            4 => simd.pointer::<Run<'_, 4>>(),
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
    assert!(
        packed.len() >= size_of::<S::Tap>() * weights.len(),
        "more weights than there is room for"
    );
    let to = packed.as_mut_ptr().cast::<S::Tap>();
    for (i, &weight) in weights.iter().enumerate() {
        // SAFETY: `i` is less than the number of weights, for which `packed` has room, as asserted.
        unsafe { to.add(i).write_unaligned(S::Tap::from(weight)) };
    }
}

struct Run<'a, const PIXELS: usize>(&'a Pass<'a>);

impl<const PIXELS: usize> SimdFn for Run<'_, PIXELS> {
    type Args<'a> = &'a Pass<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, pass: &Pass<'_>) {
        let this = Run::<PIXELS>(pass);
        let kernel = pass.kernel;
        let channels = kernel.problem.in_channels;
        let [height, width] = kernel.output;
        for row in pass.rows.clone() {
            let (image, y) = (row / height, row % height);
            let mut x = 0;
            while x < width {
                // The last pass of a row overlaps the one before it: pixels computed twice cost
                // less than a shorter pass.
                let first = x.min(width - PIXELS);
                x = first + PIXELS;
                // SAFETY: the pixels are in the row; channels are those of the pass, whole blocks
                // as long as they last.
                unsafe {
                    let zeros = kernel.zeros.as_ptr();
                    kernel.addresses.look_up(
                        [image, y, first],
                        pass.call.input,
                        zeros,
                        pass.addresses,
                    );
                    let at = (row * width + first) * channels;
                    let mut channel = pass.channels.start;
                    while channel + 4 * S::LANES <= pass.channels.end {
                        this.block::<S, false>(simd, at, channel, 4 * S::LANES);
                        channel += 4 * S::LANES;
                    }
                    if channel < pass.channels.end {
                        this.block::<S, true>(simd, at, channel, pass.channels.end - channel);
                    }
                }
            }
        }
    }
}

impl<const PIXELS: usize> Run<'_, PIXELS> {
    /// Computes one block of channels (its first `count` channels if `PART`) of all pixels of a
    /// pass, which starts at `at` in the output.
    ///
    /// # Safety
    /// The addresses must have been looked up, and the pixels and channels must exist.
    #[inline(always)]
    unsafe fn block<S: Simd, const PART: bool>(
        &self,
        simd: S,
        at: usize,
        channel: usize,
        count: usize,
    ) {
        let pass = self.0;
        let kernel = pass.kernel;
        // SAFETY: weights and starts are padded to whole blocks. The addresses looked up are valid
        // for all channels, of which partial blocks read `count`, and pixels and channels exist in
        // the output.
        unsafe {
            let weights =
                kernel.weights.as_ptr().cast::<S::Tap>().add(channel * kernel.steps * S::TAPS);
            // Plain loops: a closure that is not inlined is not compiled for the instruction set.
            let mut start = [simd.load_i32(kernel.start.as_ptr().add(channel)); 4];
            for v in 1..4 {
                start[v] = simd.load_i32(kernel.start.as_ptr().add(channel + v * S::LANES));
            }
            for pixel in 0..PIXELS {
                let mut sums = start;
                let mut weights = weights;
                let mut addresses = pass.addresses.cast_const().add(pixel * S::TAPS);
                for _ in 0..kernel.steps {
                    let mut taps = [simd.load_bytes_partial(kernel.zeros.as_ptr(), 0); 4];
                    for tap in 0..S::TAPS {
                        let from = (*addresses.add(tap)).add(channel);
                        taps[tap] = if PART {
                            simd.load_bytes_partial(from, count)
                        } else {
                            simd.load_bytes(from)
                        };
                    }
                    sums = simd.dot_taps(sums, taps, weights);
                    addresses = addresses.add(PIXELS * S::TAPS);
                    weights = weights.add(4 * S::LANES * S::TAPS);
                }
                let at = at + pixel * kernel.problem.in_channels + channel;
                match &kernel.plain {
                    Some(epilogue) => {
                        self.store_plain::<S, PART>(simd, epilogue, sums, at, channel, count)
                    }
                    None => self.store_any(simd, sums, at, channel, count),
                }
            }
        }
    }

    /// Applies the byte epilogue to the sums of the channels from `channel` on and stores them at
    /// `at`.
    ///
    /// # Safety
    /// The requirements of [`Run::block`] must be met, and scales and biases must be in quartered
    /// order.
    #[inline(always)]
    unsafe fn store_plain<S: Simd, const PART: bool>(
        &self,
        simd: S,
        epilogue: &ByteEpilogue,
        sums: [S::I32; 4],
        at: usize,
        channel: usize,
        count: usize,
    ) {
        let kernel = self.0.kernel;
        // SAFETY: scales and biases are padded to whole blocks. The output has `count` channels at
        // `at`, a whole block unless `PART`.
        unsafe {
            let mut finished = [simd.splat(0.0); 4];
            for v in 0..4 {
                let scale = simd.load(kernel.scale.as_ptr().add(channel + v * S::LANES));
                let bias = simd.load(kernel.bias.as_ptr().add(channel + v * S::LANES));
                let sum = simd.fma(simd.to_f32(sums[v]), scale, bias);
                finished[v] = epilogue.byte::<S, false>(simd, sum, std::ptr::null());
            }
            let bytes = simd.to_bytes(finished);
            let to = self.0.call.output.add(at);
            if PART {
                simd.store_bytes_partial(to, count, bytes)
            } else {
                simd.store_bytes(to, bytes)
            }
        }
    }

    /// Stores the sums with the general epilogue.
    ///
    /// # Safety
    /// The requirements of [`Run::block`] must be met, and scales and biases must be ordered by
    /// channel.
    #[inline(always)]
    unsafe fn store_any<S: Simd>(
        &self,
        simd: S,
        sums: [S::I32; 4],
        at: usize,
        channel: usize,
        count: usize,
    ) {
        let kernel = self.0.kernel;
        // A block has at most 64 channels.
        let mut in_order = [0_i32; 64];
        let from = sums.as_ptr().cast::<i32>();
        let to = in_order.as_mut_ptr();
        // SAFETY: `sums` are four vectors of `LANES` integers, of which four adjacent ones are
        // read, and `in_order` has as many. Scales and biases are padded to whole blocks, and the
        // output has `count` channels at `at`.
        unsafe {
            for four in 0..S::LANES {
                let [vector, lane] = quartered(4 * four);
                let numbers =
                    from.add(vector * S::LANES + lane).cast::<[i32; 4]>().read_unaligned();
                to.add(4 * four).cast::<[i32; 4]>().write_unaligned(numbers);
            }
            simd.call::<StoreTileI8<'_>>(StoreTileI8 {
                epilogue: &kernel.epilogue,
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
