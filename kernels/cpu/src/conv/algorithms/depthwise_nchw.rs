//! Depthwise convolution over NCHW activations with vectors of adjacent output pixels.
//!
//! Output rows are computed a strip at a time. The input rows under a strip are copied once, with
//! their padding, to lines that stay in the first-level cache. At stride 2 the even columns of the
//! padded row come first and the odd columns follow, so that the elements under a tap are adjacent.
//! Tiles of a few rows by a few vectors then share their loads. Windows of 3x3 and 5x5 at strides 1
//! and 2; other windows, and images narrower than a vector, are left to [`super::direct_nchw`].

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue::{Epilogue, StoreTile};
use crate::conv::support::request::sensible;
use crate::conv::support::split::grain;
use crate::conv::support::tiles::TILE;
use paretune_base::error::KernelError;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, Simd, SimdFn, SimdOp, lanes};

mod lines;

use lines::Lines;

/// Depthwise convolution over NCHW activations.
pub(crate) struct DepthwiseNchw;

/// Register tiles as `[output rows, vectors of pixels]`.
const TILES: [[usize; 2]; 5] = [[1, 1], [1, 2], [2, 1], [2, 2], [4, 1]];

/// Strip heights offered to the tuner, besides the full height of the output.
const STRIPS: [usize; 3] = [4, 8, 16];

/// Bytes of copied lines that leave room for the output in a first-level cache.
const CACHED: usize = 24 << 10;

impl AlgorithmInfo for DepthwiseNchw {
    fn name(&self) -> &'static str {
        "depthwise_nchw"
    }

    fn about(&self) -> &'static str {
        "each channel by itself, vectors of output pixels"
    }
}

impl Algorithm for DepthwiseNchw {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        let window = &problem.window;
        sensible(problem)
            && problem.is_depthwise()
            && matches!(window.kernel, [3, 3] | [5, 5])
            && matches!(window.stride, [1, 1] | [2, 2])
            && window.dilation == [1, 1]
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let [height, width] = problem.output().unwrap_or([1, 1]);
        let lanes = lanes(isa);
        let useful =
            |&[rows, vectors]: &[usize; 2]| rows <= height && (vectors - 1) * lanes < width;
        let tiles: Vec<[usize; 2]> = TILES
            .into_iter()
            .filter(useful)
            .map(|[rows, vectors]| [rows, vectors * lanes])
            .collect();
        let lines = Lines::new(problem, [height, width], lanes);
        let mut strips: Vec<usize> = STRIPS.into_iter().filter(|&rows| rows < height).collect();
        strips.push(height);
        let cached = strips.iter().rev().find(|&&rows| lines.bytes(rows) <= CACHED);
        let abouts =
            ["output rows of a register tile", "output pixels of a row of a register tile"];
        let largest = tiles.iter().max().copied().unwrap_or([1, lanes]);
        let tiles = if tiles.is_empty() { vec![largest] } else { tiles };
        let [tile_m, tile_n] = Tunable::tile(TILE, abouts, &tiles, largest);
        let strip = *cached.unwrap_or(&strips[0]);
        let about = "output rows for which input is copied at a time";
        vec![tile_m, tile_n, Tunable::sizes("strip", about, strips, strip)]
    }

    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::Nchw; 2]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check_for(self)?;
        request.check_f32()?;
        let problem = request.problem;
        let stored = request.f32_weights()?;
        let lanes = lanes(request.isa);
        let [rows, columns] = request.tile_sides()?;
        let window = &problem.window;
        let shape = [window.kernel[0], window.stride[0], rows, columns / lanes];
        let entry = token
            .f32()
            .dispatch(Select { shape })
            .filter(|_| columns.is_multiple_of(lanes))
            .ok_or_else(|| request.bad_value(TILE[0]))?;
        let strip = request.count("strip")?;
        if strip > output[0] {
            return Err(request.bad_value("strip"));
        }
        let lines = Lines::new(&problem, output, lanes);
        // `stored` is empty if the weights were packed before.
        let numbers = problem.in_channels * window.kernel.iter().product::<usize>();
        Ok(Box::new(Prepared {
            weights: request.packing.numbers(numbers, |weights| weights.copy_from_slice(stored))?,
            bias: request.packed_biases()?,
            epilogue: Epilogue::new(request.activation),
            scratch: lines.bytes(strip),
            threads: request.threads,
            entry,
            strip,
            lines,
            output,
            problem,
        }))
    }
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    /// Packed weights, `[channel][tap]`.
    weights: Buffer<f32>,
    bias: Buffer<f32>,
    entry: Entry,
    lines: Lines,
    /// Number of output rows that are computed together.
    strip: usize,
    /// Bytes of the lines of each thread.
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
        let [height, width] = self.output;
        let strips = height.div_ceil(self.strip);
        let planes = self.problem.batch * self.problem.in_channels;
        let multiply_adds = self.strip * width * self.weights.len() / self.problem.in_channels;
        for number in
            worker.parts(planes * strips, grain(multiply_adds, 1)).flat_map(|part| part.units)
        {
            let first = number % strips * self.strip;
            // SAFETY: the caller vouches for the addresses; each worker has its part of the scratch
            // memory, and each strip its own part of the output.
            unsafe {
                (self.entry)(&Strip {
                    kernel: self,
                    call: *call,
                    plane: number / strips,
                    first,
                    rows: self.strip.min(height - first),
                    lines: call.workspace.add(worker.index * self.scratch).cast(),
                });
            }
        }
    }
}

/// Adjacent output rows of one plane.
struct Strip<'a> {
    kernel: &'a Prepared,
    call: Call,
    /// Index of the plane, counted through images.
    plane: usize,
    /// First output row; `rows` is the number of rows.
    first: usize,
    rows: usize,
    /// Memory that [`Lines`] copies the input rows to.
    lines: *mut f32,
}

/// Computes a [`Strip`].
///
/// # Safety
/// The addresses in the strip must be valid, and no other thread may write its part of the output.
type Entry = unsafe fn(&Strip<'_>);

/// Selects the instantiation for a window and a tile.
struct Select {
    /// Window size, stride, and rows and vectors of a tile.
    shape: [usize; 4],
}

impl SimdOp for Select {
    type Output = Option<Entry>;

    fn eval<S: Simd>(self, simd: S) -> Option<Entry> {
        macro_rules! choose {
            ($($size:literal $stride:literal,)+) => {
                match self.shape {
                    $([$size, $stride, 1, 1] => Some(simd.pointer::<Run<$size, $stride, 1, 1>>() as Entry),
                    [$size, $stride, 1, 2] => Some(simd.pointer::<Run<$size, $stride, 1, 2>>() as Entry),
                    [$size, $stride, 2, 1] => Some(simd.pointer::<Run<$size, $stride, 2, 1>>() as Entry),
                    [$size, $stride, 2, 2] => Some(simd.pointer::<Run<$size, $stride, 2, 2>>() as Entry),
                    [$size, $stride, 4, 1] => Some(simd.pointer::<Run<$size, $stride, 4, 1>>() as Entry),)+
                    _ => None,
                }
            };
        }
        choose!(3 1, 3 2, 5 1, 5 2,)
    }
}

/// Body of an entry for a `SIZE x SIZE` window at stride `STRIDE`, in tiles of `ROWS` by `VECTORS`.
struct Run<const SIZE: usize, const STRIDE: usize, const ROWS: usize, const VECTORS: usize>;

impl<const SIZE: usize, const STRIDE: usize, const ROWS: usize, const VECTORS: usize> SimdFn
    for Run<SIZE, STRIDE, ROWS, VECTORS>
{
    type Args<'a> = &'a Strip<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, strip: &Strip<'_>) {
        let kernel = strip.kernel;
        let channel = strip.plane % kernel.problem.in_channels;
        let width = kernel.output[1];
        // SAFETY: the lines have room for the rows of a strip, and there is a weight for every
        // channel and tap.
        let tiles = unsafe {
            kernel.lines.copy::<S, STRIDE>(
                simd,
                strip.call.input.cast::<f32>().add(strip.plane * kernel.lines.plane()),
                strip.first,
                (strip.rows - 1) * STRIDE + SIZE,
                strip.lines,
            );
            let weights = kernel.weights.as_ptr().add(channel * SIZE * SIZE);
            Tiles::<S, SIZE, STRIDE> {
                simd,
                strip,
                bias: simd.splat(*kernel.bias.as_ptr().add(channel)),
                weights: paretune_simd::array(|ky| {
                    paretune_simd::array(|kx| simd.splat(*weights.add(ky * SIZE + kx)))
                }),
            }
        };
        let mut y = 0;
        while y < strip.rows {
            let whole = y + ROWS <= strip.rows;
            let mut x = 0;
            // SAFETY: tiles are within the rows of the strip, and only the last vector of a row is
            // not whole.
            unsafe {
                while VECTORS > 1 && whole && x + VECTORS * S::LANES <= width {
                    tiles.tile::<ROWS, VECTORS>(y, x);
                    x += VECTORS * S::LANES;
                }
                while x < width {
                    if whole {
                        tiles.tile::<ROWS, 1>(y, x)
                    } else {
                        tiles.tile::<1, 1>(y, x)
                    }
                    x += S::LANES;
                }
            }
            y += if whole { ROWS } else { 1 };
        }
    }
}

/// Weights and bias, in registers, that all tiles of a strip share.
struct Tiles<'a, S: Simd, const SIZE: usize, const STRIDE: usize> {
    simd: S,
    strip: &'a Strip<'a>,
    weights: [[S::F32; SIZE]; SIZE],
    bias: S::F32,
}

impl<S: Simd, const SIZE: usize, const STRIDE: usize> Tiles<'_, S, SIZE, STRIDE> {
    /// Computes the output pixels from row `y` of the strip and column `x` on.
    ///
    /// # Safety
    /// The lines must have been copied. The rows must be in the strip, and the vectors must start
    /// in the row.
    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize>(&self, y: usize, x: usize) {
        let kernel = self.strip.kernel;
        let lines = &kernel.lines;
        let mut sums = [[self.bias; VECTORS]; ROWS];
        // SAFETY: every line has slack for whole vectors under all taps. Rows of the tile are rows
        // of the strip, and `count` ends with the row of the output.
        unsafe {
            let mut from = self.strip.lines.cast_const().add(lines.at(y * STRIDE) + x);
            macro_rules! each {
                ($($line:literal)+) => {
                    $(if $line < (ROWS - 1) * STRIDE + SIZE {
                        self.line::<$line, ROWS, VECTORS>(from, &mut sums);
                        from = from.wrapping_add(lines.line());
                    })+
                };
            }
            // The lines that the largest window and tile need.
            each!(0 1 2 3 4 5 6 7 8 9 10);
            let [height, width] = kernel.output;
            let first = (self.strip.plane * height + self.strip.first + y) * width + x;
            let residuals = self.strip.call.residual.cast::<f32>();
            for (row, sums) in sums.iter().enumerate() {
                for (vector, &sum) in sums.iter().enumerate() {
                    let at = first + row * width + vector * S::LANES;
                    let count = width - x - vector * S::LANES;
                    let output = self.strip.call.output.cast::<f32>().add(at);
                    let residual = if residuals.is_null() { residuals } else { residuals.add(at) };
                    self.store(sum, count, output, residual);
                }
            }
        }
    }

    /// Adds the contribution of line `LINE` under the tile to the sums; the rows of the tile share
    /// its loads.
    ///
    /// # Safety
    /// `from` must be the first element of the line under the tile.
    #[inline(always)]
    unsafe fn line<const LINE: usize, const ROWS: usize, const VECTORS: usize>(
        &self,
        from: *const f32,
        sums: &mut [[S::F32; VECTORS]; ROWS],
    ) {
        let simd = self.simd;
        let phase = self.strip.kernel.lines.phase();
        for kx in 0..SIZE {
            for vector in 0..VECTORS {
                // SAFETY: lines have slack for whole vectors under all taps of the tile, and `from`
                // is one's first element under the tile.
                let numbers = unsafe {
                    simd.load(from.add(kx % STRIDE * phase + kx / STRIDE + vector * S::LANES))
                };
                for (row, sums) in sums.iter_mut().enumerate() {
                    if LINE >= row * STRIDE && LINE - row * STRIDE < SIZE {
                        let weight = self.weights[LINE - row * STRIDE][kx];
                        sums[vector] = simd.fma(numbers, weight, sums[vector]);
                    }
                }
            }
        }
    }

    /// Applies the epilogue to a vector of sums and stores at most `count` lanes of it.
    ///
    /// # Safety
    /// `count` elements, up to a whole vector, must be readable in the residual and writable in the
    /// output.
    #[inline(always)]
    unsafe fn store(&self, mut sum: S::F32, count: usize, output: *mut f32, residual: *const f32) {
        let simd = self.simd;
        let epilogue = &self.strip.kernel.epilogue;
        // SAFETY: the caller has `count` elements in residual and output, or at least a vector, of
        // which partial loads and stores touch no more than `count`.
        unsafe {
            if epilogue.other.is_some() {
                let sums = [sum];
                simd.call::<StoreTile<'_>>(StoreTile {
                    sums: sums.as_ptr().cast(),
                    rows: 1,
                    vectors: 1,
                    channels: count,
                    output,
                    residual,
                    pixel: 0,
                    epilogue,
                });
            } else if count < S::LANES {
                if !residual.is_null() {
                    sum = simd.add(sum, simd.load_partial(residual, count));
                }
                simd.store_partial(output, count, epilogue.clamp(simd, sum));
            } else {
                if !residual.is_null() {
                    sum = simd.add(sum, simd.load(residual));
                }
                simd.store(output, epilogue.clamp(simd, sum));
            }
        }
    }
}
