//! Exact Winograd convolution in integers: F(2x2, 3x3) over 8-bit NHWC activations.
//!
//! With the points 0, 1, -1 and infinity the transform of the input has no fractions, and that of
//! the weights only halves; scaled by two in either direction, everything is an integer.
//! Transformed bytes are below 2^10, and four times the transformed weights below 2^11; both fit in
//! 16 bits. Their products are summed in 32 bits, and the result is exactly four times the
//! convolution's sum. There are 2.25 times fewer multiplications than in
//! [`super::implicit_gemm_i8`], and the instructions are the same ones on processors without an
//! exact product of bytes (all but VNNI). Weights are 3.6 times as large as in 8 bits.
//!
//! Products are never stored: the 16 sums of a few tiles by a few channels are transformed back at
//! once. Threads share only the input, so none waits for another.

use std::ops::Range;

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::gemm_i8::input_grid;
use crate::conv::support::buffer::{Buffer, LINE, whole_lines};
use crate::conv::support::epilogue_i8::EpilogueI8;
use crate::conv::support::request::sensible;
use crate::conv::support::split::{Split, ahead, grain, prefetch_tunable, split_tunable};
use crate::conv::support::tiles::{Extent, TILE, Tile, balanced, with_smaller};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::registry::{AlgorithmInfo, Numerics};
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, Simd, SimdOp, lanes};

mod stages;

use stages::{Back, BackEntry, Input, InputEntry, Products, ProductsEntry};

/// Winograd convolution in 8 bits.
pub(crate) struct WinogradI8;

/// Output pixels per side of a tile.
const SIZE: usize = 2;
/// Input pixels per side of a tile.
const SIDE: usize = SIZE + 2;
/// Products per tile and pair of channels.
const POINTS: usize = SIDE * SIDE;

/// Largest number of input channels whose sums cannot overflow: four bytes by nine weights each.
const MAX_CHANNELS: usize = i32::MAX as usize / (4 * 255 * 9 * 128);

/// Smallest number of input channels for which the transforms pay.
const MIN_CHANNELS: usize = 8;

/// Bytes of transformed input per chunk by default: about half of a second-level cache.
const CHUNK_BYTES: usize = 256 << 10;

/// Rows of the register tiles offered, in Winograd tiles; `VECTORS` are their vectors of channels.
const ROWS: [usize; 5] = [2, 3, 4, 5, 6];
const VECTORS: [usize; 2] = [1, 2];

impl AlgorithmInfo for WinogradI8 {
    fn name(&self) -> &'static str {
        "winograd_i8"
    }

    fn about(&self) -> &'static str {
        "8-bit 3x3 with 2.25 times fewer multiplications, exactly, and more memory"
    }

    fn is_integer(&self) -> bool {
        true
    }

    fn numerics(&self) -> Numerics {
        Numerics::RoundsDifferently
    }
}

impl Algorithm for WinogradI8 {
    fn supports(&self, problem: &ConvProblem, isa: Isa) -> bool {
        let window = &problem.window;
        // Dot products of bytes have at least twice the rate of 16 bits, so nothing is gained.
        !matches!(isa, Isa::NeonDot | Isa::AvxVnni | Isa::Avx512Vnni | Isa::Avx512Bf16)
            && sensible(problem)
            && problem.groups == 1
            && window.kernel == [3, 3]
            && window.stride == [1, 1]
            && window.dilation == [1, 1]
            && (MIN_CHANNELS..=MAX_CHANNELS).contains(&problem.in_channels)
    }

    fn preferred(&self, problem: &ConvProblem) -> bool {
        // With fewer tiles, reading the larger weights dominates the time.
        count(problem) >= 4
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let tiles = count(problem);
        let lanes = lanes(isa);
        let width = |vectors: usize| vectors.min(problem.out_channels.div_ceil(lanes)) * lanes;
        let mut sides: Vec<[usize; 2]> = ROWS
            .into_iter()
            .filter(|&rows| rows <= most_rows(isa))
            .flat_map(|rows| VECTORS.map(|vectors| [rows.min(tiles), width(vectors)]))
            .collect();
        sides.sort_unstable();
        let mut chunks = vec![tiles.min(8)];
        while let Some(&last) = chunks.last()
            && last < tiles
        {
            chunks.push((last * 2).min(tiles));
        }
        let fitting = CHUNK_BYTES / (POINTS * problem.in_channels * size_of::<i16>());
        let chunk =
            chunks.iter().copied().filter(|&chunk| chunk <= fitting).max().unwrap_or(chunks[0]);
        let abouts = ["Winograd tiles of a register tile", "output channels of a register tile"];
        let [tile_m, tile_n] =
            Tunable::tile(TILE, abouts, &sides, sides.last().copied().unwrap_or([1, lanes]));
        let extent = Extent { rows: tiles, columns: problem.out_channels };
        vec![
            tile_m,
            tile_n,
            Tunable::sizes("chunk", "tiles that are transformed at a time", chunks, chunk),
            split_tunable(problem, extent, isa),
            prefetch_tunable(
                POINTS * problem.in_channels * problem.out_channels * size_of::<i16>(),
            ),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check_for(self)?;
        let problem = request.problem;
        let tile = request.tile()?;
        let grid = input_grid(request)?;
        let dense = request.integer_weights()?;
        let epilogue = EpilogueI8::new(request);
        let compiled = token.dispatch(Select(tile)).ok_or_else(|| request.bad_value("tile"))?;
        let (depth, columns) = (problem.in_channels, problem.out_channels);
        let lanes = lanes(request.isa);
        let padded = columns.next_multiple_of(lanes);
        let packing = request.packing;
        let start = packing.numbers(padded, |start| {
            for (column, stored) in dense.values.chunks_exact(depth * 9).enumerate() {
                let sum: i32 = stored.iter().map(|&weight| i32::from(weight)).sum();
                // The transforms of the zero point leave only this term, scaled by four like
                // everything else.
                start[column] = -4 * i32::from(grid.zero_point) * sum;
            }
        })?;
        let scale = packing.numbers(padded, |scale| {
            for column in 0..columns {
                scale[column] = epilogue.scale(dense.scales[column] * grid.scale) * 0.25;
            }
        })?;
        let bias = packing.numbers(padded, |bias| {
            for column in 0..columns {
                bias[column] = epilogue.bias(request.bias(column));
            }
        })?;
        let pairs = depth.div_ceil(2);
        let weights = packing.numbers(POINTS * padded * pairs * 2, |numbers| {
            pack(&dense.values, depth, tile.vectors * lanes, padded, numbers);
        })?;
        let tiles = tiles(output);
        Ok(Box::new(Prepared {
            weights,
            chunk: request.count("chunk")?.min(problem.batch * tiles[0] * tiles[1]),
            split: Split::from_request(request)?,
            ahead: ahead::<i16>(request)?,
            threads: request.threads,
            // Whole vectors are written, and the products read whole pairs of them.
            stride: depth.next_multiple_of(2 * lanes),
            pairs,
            compiled,
            tile,
            lanes,
            start,
            scale,
            bias,
            zeros: Buffer::new(depth, |zeros| zeros.fill(grid.zero_point)),
            epilogue,
            tiles,
            output,
            problem,
        }))
    }
}

/// Returns the number of tiles of an output, `[vertical, horizontal]`.
fn tiles(output: [usize; 2]) -> [usize; 2] {
    output.map(|pixels| pixels.div_ceil(SIZE))
}

/// Returns the number of tiles of all images.
fn count(problem: &ConvProblem) -> usize {
    let [rows, columns] = tiles(problem.output().unwrap_or([1, 1]));
    problem.batch * rows * columns
}

/// Returns the largest number of rows of a register tile.
fn most_rows(isa: Isa) -> usize {
    if isa == Isa::Portable { 4 } else { 6 }
}

/// Returns the transformed weights `2G g 2G'` of one window.
fn transform(window: &[i8]) -> [i16; POINTS] {
    const MATRIX: [[i16; 3]; SIDE] = [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]];
    std::array::from_fn(|point| {
        let (left, right) = (MATRIX[point / SIDE], MATRIX[point % SIDE]);
        (0..9).map(|tap| left[tap / 3] * i16::from(window[tap]) * right[tap % 3]).sum()
    })
}

/// Packs the transformed weights as `[block][point][pair of channels][column of the block][channel
/// of the pair]`, with `padded` columns.
fn pack(stored: &[i8], depth: usize, width: usize, padded: usize, numbers: &mut [i16]) {
    let pairs = depth.div_ceil(2);
    for (index, window) in stored.chunks_exact(9).enumerate() {
        let (column, k) = (index / depth, index % depth);
        let first = column / width * width;
        // The last block is as narrow as whole vectors allow.
        let block = width.min(padded - first);
        for (point, number) in transform(window).into_iter().enumerate() {
            let row = first * POINTS * pairs + (point * pairs + k / 2) * block;
            numbers[(row + column - first) * 2 + k % 2] = number;
        }
    }
}

/// Functions compiled for one instruction set.
struct Compiled {
    input: InputEntry,
    /// Microkernels, `[rows - 1][vectors - 1]`.
    products: Vec<Vec<ProductsEntry>>,
    back: BackEntry,
}

struct Select(Tile);

impl SimdOp for Select {
    type Output = Option<Compiled>;

    fn eval<S: Simd>(self, simd: S) -> Option<Compiled> {
        Some(Compiled {
            input: simd.pointer::<stages::Input<'_>>(),
            products: with_smaller(self.0, |tile| stages::products(simd, tile))?,
            back: simd.pointer::<stages::Output<'_>>(),
        })
    }
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    /// Tiles per image, `[vertical, horizontal]`.
    tiles: [usize; 2],
    compiled: Compiled,
    tile: Tile,
    lanes: usize,
    /// Packed transformed weights, see [`pack`].
    weights: Buffer<i16>,
    /// Initial values, added to four times the sums.
    start: Buffer<i32>,
    scale: Buffer<f32>,
    bias: Buffer<f32>,
    /// One pixel of zero points, which stands for padding.
    zeros: Buffer<u8>,
    /// Number of pairs of input channels.
    pairs: usize,
    /// Distance in elements between tiles of the transformed input.
    stride: usize,
    /// Number of Winograd tiles per chunk.
    chunk: usize,
    split: Split,
    /// Prefetch distance, as a number of weights.
    ahead: usize,
    threads: usize,
    epilogue: EpilogueI8,
}

impl Prepared {
    /// Returns the distance in elements between points of a chunk's transformed input. It is a
    /// cache line more than the tiles take, else all points of a tile would fall into one set of
    /// the cache.
    fn point(&self) -> usize {
        self.chunk * self.stride + LINE / size_of::<i16>()
    }

    /// Returns the bytes of a chunk's transformed input.
    fn input_bytes(&self) -> usize {
        whole_lines(POINTS * self.point() * size_of::<i16>())
    }

    /// Returns the bytes of the sums of a register tile, and of the pixels that they are
    /// transformed back to.
    fn sums_bytes(&self) -> [usize; 2] {
        let vector = self.tile.rows * self.tile.vectors * self.lanes * size_of::<i32>();
        [POINTS * vector, SIZE * SIZE * vector].map(whole_lines)
    }

    /// Returns the bytes of each thread's own part of the workspace.
    fn region(&self) -> usize {
        self.input_bytes() + self.sums_bytes().iter().sum::<usize>()
    }

    /// Returns `[image, vertical, horizontal]` of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [rows, columns] = self.tiles;
        [tile / (rows * columns), tile / columns % rows, tile % columns]
    }

    /// Returns the position after the given one.
    fn next(&self, [image, y, x]: [usize; 3]) -> [usize; 3] {
        let [rows, columns] = self.tiles;
        match (x + 1 < columns, y + 1 < rows) {
            (true, _) => [image, y, x + 1],
            (false, true) => [image, y + 1, 0],
            (false, false) => [image + 1, 0, 0],
        }
    }

    /// Computes the channels of `blocks` for the tiles `tiles`, at most one chunk.
    ///
    /// # Safety
    /// The call must be valid, no other thread may write these elements, and `region` must belong
    /// to this thread.
    unsafe fn chunk(
        &self,
        call: &Call,
        tiles: Range<usize>,
        blocks: Range<usize>,
        region: *mut u8,
    ) {
        let width = self.tile.vectors * self.lanes;
        let columns = self.problem.out_channels;
        // SAFETY: the region of this worker has room for transformed input, sums and pixels, and
        // `blocks` are blocks of the packed weights.
        unsafe {
            let input = region.cast::<i16>();
            let sums = region.add(self.input_bytes()).cast::<i32>();
            let pixels = region.add(self.input_bytes() + self.sums_bytes()[0]).cast::<i32>();
            (self.compiled.input)(Input { kernel: self, call, tiles: tiles.clone(), to: input });
            for block in blocks {
                let column = block * width;
                let vectors = (columns - column).min(width).div_ceil(self.lanes);
                let weights = self.weights.as_ptr().add(column * POINTS * self.pairs * 2);
                let mut first = 0;
                for (rows, count) in balanced(tiles.len(), self.tile.rows) {
                    for _ in 0..count {
                        (self.compiled.products[rows - 1][vectors - 1])(&Products {
                            input: input.add(first * self.stride),
                            point: self.point(),
                            stride: self.stride,
                            pairs: self.pairs,
                            ahead: self.ahead,
                            weights,
                            sums,
                        });
                        let first_tile = tiles.start + first;
                        (self.compiled.back)(&Back {
                            kernel: self,
                            call,
                            first: first_tile,
                            rows,
                            vectors,
                            column,
                            sums,
                            pixels,
                        });
                        first += rows;
                    }
                }
            }
        }
    }
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.threads * self.region()
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes() + self.start.bytes() + self.scale.bytes() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let blocks = self.problem.out_channels.div_ceil(self.tile.vectors * self.lanes);
        let tiles = count(&self.problem);
        // SAFETY: the workspace has a region for each worker, and `worker.index` is less than their
        // number.
        let region = unsafe { call.workspace.add(worker.index * self.region()) };
        let run = |tiles: Range<usize>, blocks: &Range<usize>| {
            for first in tiles.clone().step_by(self.chunk) {
                let chunk = first..tiles.end.min(first + self.chunk);
                // SAFETY: the caller vouches for the call; workers have disjoint tiles or channels,
                // and regions.
                unsafe { self.chunk(call, chunk, blocks.clone(), region) };
            }
        };
        match self.split {
            Split::Pixels => {
                let multiply_adds = POINTS * 2 * self.pairs * self.problem.out_channels;
                for part in worker.parts(tiles, grain(multiply_adds, self.tile.rows)) {
                    run(part.units, &(0..blocks));
                }
            }
            // No stealing here: every further part would transform the input again.
            Split::Channels => {
                let blocks = worker.share(blocks);
                if !blocks.is_empty() {
                    run(0..tiles, &blocks);
                }
            }
        }
    }
}
