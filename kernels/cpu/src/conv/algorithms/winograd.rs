//! Winograd convolution over NHWC activations: F(2x2, 3x3), F(4x4, 3x3) and F(6x6, 3x3), and for
//! larger windows F(2x2, 5x5), F(4x4, 5x5) and F(2x2, 7x7).
//!
//! Tiles of the input and the weights are transformed, so that the convolution becomes 16, 36 or 64
//! small GEMMs with 2.25, 4 or 5.06 times fewer multiplications for 3x3, 2.78 or 6.25 for 5x5, 3.06
//! for 7x7. The products are transformed back (Lavin and Gray, "Fast Algorithms for Convolutional
//! Neural Networks", 2016). Transformed 3x3 weights are 1.8, 4 or 7.1 times as large, which is why
//! the algorithm loses if weights outweigh activations.
//!
//! The transform of the input depends only on the interpolation points. Along one side there is one
//! point fewer than output pixels plus taps: 0, 1, -1 and infinity, also 2 and -2 from six points
//! on, and 1/2 and -1/2 with eight. Results are accurate to about 1e-6, 1e-5 and 1e-4 of the
//! largest output with four, six and eight points.

use std::ops::Range;

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::gemm_f32::{GemmArgs, PackedGemm};
use crate::conv::support::buffer::{Buffer, LINE, whole_lines};
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::indirection::IndirectionBuffer;
use crate::conv::support::request::sensible;
use crate::conv::support::split::{Prefetch, grain};
use crate::conv::support::tiles::{Extent, real_tile_tunable};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_base::plan::tunable::OUTPUT_TILE;
use paretune_base::registry::{AlgorithmInfo, Numerics};
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, Simd, SimdOp};

mod transform;

use transform::{Entries, Tiles, weights};

/// Winograd convolution in single precision.
pub(crate) struct Winograd;

/// Approximate number of GEMM multiply-adds that take as long as transforming one element of a
/// tile.
const TRANSFORM_COST: usize = 16;

/// Elements of transformed input and products per chunk of tiles by default: together about the
/// size of a second-level cache.
const CHUNK_NUMBERS: usize = 128 << 10;

/// Division of the output into tiles of `size x size` pixels.
#[derive(Clone, Copy)]
struct Grid {
    size: usize,
    /// Interpolation points along a side.
    side: usize,
    /// Tiles per image, `[vertical, horizontal]`.
    tiles: [usize; 2],
}

impl Grid {
    fn new(size: usize, taps: usize, output: [usize; 2]) -> Self {
        Self { size, side: size + taps - 1, tiles: output.map(|pixels| pixels.div_ceil(size)) }
    }

    fn count(&self, batch: usize) -> usize {
        batch * self.tiles[0] * self.tiles[1]
    }

    /// Returns the number of GEMMs, one per point.
    fn points(&self) -> usize {
        self.side * self.side
    }
}

impl AlgorithmInfo for Winograd {
    fn name(&self) -> &'static str {
        "winograd"
    }

    fn about(&self) -> &'static str {
        "3x3, 5x5 and 7x7 with 2.25 to 6.25 times fewer multiplications and more memory"
    }

    fn numerics(&self) -> Numerics {
        Numerics::RoundsDifferently
    }
}

impl Algorithm for Winograd {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        let window = &problem.window;
        sensible(problem)
            && problem.groups == 1
            && [[3, 3], [5, 5], [7, 7]].contains(&window.kernel)
            && window.stride == [1, 1]
            && window.dilation == [1, 1]
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let output = problem.output().unwrap_or([1, 1]);
        // A tile of four pixels is mostly unused if the output has two, and one of six if it has
        // four.
        let taps = problem.window.kernel[0];
        let sizes = match (taps, output[0].max(output[1])) {
            (7.., _) | (_, 0..=2) => vec![2],
            (5, _) | (_, 3..=4) => vec![2, 4],
            _ => vec![2, 4, 6],
        };
        let size = if taps == 3 && sizes.contains(&4) { 4 } else { 2 };
        let grid = Grid::new(size, taps, output);
        let tiles = grid.count(problem.batch);
        let fitting =
            CHUNK_NUMBERS / (grid.points() * (problem.in_channels + problem.out_channels));
        let mut chunks = vec![16];
        while let Some(&last) = chunks.last()
            && last < tiles
        {
            chunks.push(last * 2);
        }
        let chunk =
            chunks.iter().copied().filter(|&chunk| chunk <= fitting).max().unwrap_or(chunks[0]);
        let [tile_m, tile_n] =
            real_tile_tunable(Extent { rows: tiles, columns: problem.out_channels }, isa);
        vec![
            Tunable::sizes(
                OUTPUT_TILE,
                "output pixels per side of a tile: larger ones save more multiplications, smaller \
                 ones are more exact",
                sizes,
                size,
            ),
            tile_m,
            tile_n,
            Prefetch::tunable(
                grid.points() * problem.in_channels * problem.out_channels * size_of::<f32>(),
                tiles,
            ),
            Tunable::sizes(
                "chunk",
                "tiles that are transformed, multiplied and transformed back at a time",
                chunks,
                chunk,
            ),
        ]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        struct Select(Grid);
        impl SimdOp for Select {
            type Output = Option<Entries>;
            fn eval<S: Simd>(self, simd: S) -> Option<Entries> {
                Some(match (self.0.side, self.0.size) {
                    (4, 2) => Entries::new::<S, 4, 2>(simd),
                    (6, 4) => Entries::new::<S, 6, 4>(simd),
                    (6, 2) => Entries::new::<S, 6, 2>(simd),
                    (8, 6) => Entries::new::<S, 8, 6>(simd),
                    (8, 4) => Entries::new::<S, 8, 4>(simd),
                    (8, 2) => Entries::new::<S, 8, 2>(simd),
                    _ => return None,
                })
            }
        }
        let (output, token) = request.check_for(self)?;
        request.check_f32()?;
        let problem = request.problem;
        let size = request.count(OUTPUT_TILE)?;
        let stored = request.f32_weights()?;
        let tile = request.tile()?;
        let taps = problem.window.kernel[0];
        let grid = Grid::new(size, taps, output);
        let entries =
            token.f32().dispatch(Select(grid)).ok_or_else(|| request.bad_value(OUTPUT_TILE))?;
        let (depth, columns) = (problem.in_channels, problem.out_channels);
        let transformed: Vec<f32> = stored
            .chunks_exact(taps * taps)
            .flat_map(|window| weights(grid.side, taps, window))
            .collect();
        let points = grid.points();
        let weight = |point, k, column| transformed[(column * depth + k) * points + point];
        let sizes = [points, depth, columns];
        let gemms = PackedGemm::several(request, token, tile, sizes, weight, |_, _| 0.0)?;
        Ok(Box::new(Prepared {
            ahead: Prefetch::from_request(request)?,
            chunk: request.count("chunk")?.min(grid.count(problem.batch)),
            entries,
            rows: IndirectionBuffer::matrix(depth),
            zeros: Buffer::zeros(depth),
            bias: request.packed_biases()?,
            epilogue: Epilogue::new(request.activation),
            problem,
            output,
            grid,
            gemms,
        }))
    }
}

struct Prepared {
    problem: ConvProblem,
    output: [usize; 2],
    grid: Grid,
    /// Packed GEMM of every point.
    gemms: Vec<PackedGemm>,
    rows: IndirectionBuffer,
    zeros: Buffer<f32>,
    bias: Buffer<f32>,
    entries: Entries,
    /// Number of Winograd tiles per chunk.
    chunk: usize,
    /// Weights to prefetch during the multiplication.
    ahead: Prefetch,
    epilogue: Epilogue,
}

impl Prepared {
    /// Returns the distance in elements between the matrices of two points, of `channels` per tile.
    /// A cache line is inserted, because otherwise all points of a tile would often share a set of
    /// the first-level cache, which holds 8 or 12 of them.
    fn stride(&self, channels: usize) -> usize {
        (self.chunk * channels * size_of::<f32>()).next_multiple_of(LINE) / size_of::<f32>()
            + LINE / size_of::<f32>()
    }

    /// Returns the bytes of the transformed input of a chunk.
    fn input_bytes(&self) -> usize {
        whole_lines(self.grid.points() * self.stride(self.problem.in_channels) * size_of::<f32>())
    }
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        let products =
            self.grid.points() * self.stride(self.problem.out_channels) * size_of::<f32>();
        self.input_bytes() + products + LINE
    }

    fn weight_bytes(&self) -> usize {
        self.gemms.iter().map(PackedGemm::bytes).sum::<usize>() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let (depth, columns) = (self.problem.in_channels, self.problem.out_channels);
        let total = self.grid.count(self.problem.batch);
        let transformed = call.workspace.cast::<f32>();
        let blocks = self.gemms[0].blocks();
        let multiply_adds = self.gemms[0].part().multiply_adds;
        // Cost of transforming a tile, for one channel.
        let transform = self.grid.points() * TRANSFORM_COST;
        let mut start = 0;
        while start < total {
            let count = self.chunk.min(total - start);
            // SAFETY: the workspace holds both matrices of a chunk; between barriers every number
            // has one writer, and nobody reads what is being written.
            unsafe {
                let products = call.workspace.add(self.input_bytes()).cast::<f32>();
                for part in worker.parts(count, grain(transform * depth, 1)) {
                    (self.entries.input)(Tiles {
                        kernel: self,
                        call,
                        share: part.units,
                        start,
                        matrix: transformed,
                    });
                }
                worker.wait();
                // Points are separate matrices: a part may end one and begin the next.
                let parts =
                    worker.parts(self.gemms.len() * blocks, grain(count * multiply_adds, 1));
                for (point, block, end) in parts.flat_map(|part| by_point(part.units, blocks)) {
                    let args = GemmArgs {
                        rows: self.rows.view(),
                        input: transformed.add(point * self.stride(depth)),
                        zeros: self.zeros.as_ptr(),
                        run: depth,
                        output: products.add(point * self.stride(columns)),
                        residual: std::ptr::null(),
                        stride: columns,
                        gap: 0,
                        ahead: self.ahead,
                        epilogue: Epilogue::identity(),
                    };
                    self.gemms[point].run(&args, 0..count, block..end, blocks);
                }
                worker.wait();
                for part in worker.parts(count, grain(transform * columns, 1)) {
                    (self.entries.output)(Tiles {
                        kernel: self,
                        call,
                        share: part.units,
                        start,
                        matrix: products,
                    });
                }
                // The next chunk's input may be transformed at once, because it is another matrix.
                // Its products must not be written before all threads have read the current ones.
            }
            start += count;
        }
    }
}

/// Splits `tasks`, each a block of a point, at the boundaries of points: point, first block, end.
fn by_point(tasks: Range<usize>, blocks: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut next = tasks.start;
    std::iter::from_fn(move || {
        if next >= tasks.end {
            return None;
        }
        let (point, block) = (next / blocks, next % blocks);
        let end = blocks.min(block + tasks.end - next);
        next += end - block;
        Some((point, block, end))
    })
}

/// Transform of a range of a chunk's tiles.
type Phase = unsafe fn(Tiles<'_>);
