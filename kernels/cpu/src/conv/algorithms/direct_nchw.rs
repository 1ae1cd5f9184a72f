//! DirectNchw convolution over NCHW activations: vectors of output pixels by a few output channels
//! in registers. It supports every window and any number of groups, so it is the general fallback.

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::planar::{Phases, StorePixels};
use crate::conv::support::request::sensible;
use crate::conv::support::split::grain;
use crate::conv::support::tiles::{TILE, instance};
use paretune_base::error::KernelError;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, Simd, SimdFn, SimdOp, lanes};

/// DirectNchw convolution over NCHW activations.
pub(crate) struct DirectNchw;

/// Register tiles as `[output channels, vectors of pixels]`.
const TILES: [[usize; 2]; 13] = [
    [1, 1],
    [1, 4],
    [1, 8],
    [2, 1],
    [2, 2],
    [2, 4],
    [3, 4],
    [4, 1],
    [4, 2],
    [4, 3],
    [6, 1],
    [6, 2],
    [8, 1],
];

impl AlgorithmInfo for DirectNchw {
    fn name(&self) -> &'static str {
        "direct_nchw"
    }

    fn about(&self) -> &'static str {
        "sliding windows over planes, vectors of output pixels"
    }
}

impl Algorithm for DirectNchw {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        sensible(problem)
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let pixels = problem.output().map_or(1, |[height, width]| height * width);
        let useful = |&[channels, vectors]: &[usize; 2]| {
            channels <= problem.group_out() && (vectors == 1 || (vectors - 1) * lanes(isa) < pixels)
        };
        let sides = |[channels, vectors]: &[usize; 2]| [*channels, vectors * lanes(isa)];
        let sides: Vec<[usize; 2]> = TILES.iter().filter(|tile| useful(tile)).map(sides).collect();
        // The largest number of sums in registers is the default, wide tiles only if there is one
        // channel.
        let sums = |tile: &&[usize; 2]| (tile[0] * tile[1].min(3 * lanes(isa)), **tile);
        let default = sides.iter().max_by_key(sums).copied().unwrap_or([1, lanes(isa)]);
        let abouts = ["output channels of a register tile", "output pixels of a register tile"];
        Tunable::tile(TILE, abouts, &sides, default).into()
    }

    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::Nchw; 2]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check()?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        let lanes = lanes(request.isa);
        let [channels, columns] = request.tile_sides()?;
        let vectors = columns / lanes;
        let entries = (1..=channels)
            .map(|channels| token.f32().dispatch(Select { channels, vectors }))
            .collect::<Option<Vec<_>>>()
            .filter(|entries| !entries.is_empty() && columns.is_multiple_of(lanes))
            .ok_or_else(|| request.bad_value(TILE[0]))?;
        let width = vectors * lanes;
        let phases = Phases::new(&problem, output, width, [false, false], token);
        let [tap_rows, tap_columns] = problem.window.kernel;
        let mut offsets = Vec::new();
        for channel in 0..problem.group_in() {
            for ky in 0..tap_rows {
                offsets.extend(
                    (0..tap_columns).map(|kx| channel * phases.channel() + phases.tap(ky, kx)),
                );
            }
        }
        // Packed weights, `[block of channels][input channel and tap][channel]`.
        let depth = offsets.len();
        let mut blocks = Vec::new();
        for group in 0..problem.groups {
            let mut first = group * problem.group_out();
            let end = first + problem.group_out();
            while first < end {
                let count = channels.min(end - first);
                blocks.push(Block { first, count, group });
                first += count;
            }
        }
        let weights = request.packing.numbers(problem.out_channels * depth, |weights| {
            for &Block { first, count, .. } in &blocks {
                let block = &mut weights[first * depth..][..count * depth];
                for (k, step) in block.chunks_exact_mut(count).enumerate() {
                    for (channel, number) in step.iter_mut().enumerate() {
                        *number = stored[(first + channel) * depth + k];
                    }
                }
            }
        })?;
        Ok(Box::new(Prepared {
            bias: request.packed_biases()?,
            epilogue: Epilogue::new(request.activation),
            pixels: output[0] * output[1],
            problem,
            phases,
            offsets,
            weights,
            blocks,
            entries,
            width,
        }))
    }
}

/// Output channels that are computed together.
struct Block {
    first: usize,
    count: usize,
    group: usize,
}

struct Prepared {
    problem: ConvProblem,
    phases: Phases,
    /// Output pixels of one plane.
    pixels: usize,
    /// Offset of the input under every input channel and tap of a group.
    offsets: Vec<usize>,
    weights: Buffer<f32>,
    bias: Buffer<f32>,
    blocks: Vec<Block>,
    /// Entries for 1, 2, ... output channels, up to those of the tile.
    entries: Vec<Entry>,
    /// Flat pixels of one tile.
    width: usize,
    epilogue: Epilogue,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.phases.bytes(self.width)
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let mut input = call.input.cast::<f32>();
        if !self.phases.reads_input() {
            // SAFETY: the workspace has room for the copy, and each channel has one writer.
            unsafe {
                self.phases.copy(worker.share(self.phases.planes()), input, call.workspace.cast())
            };
            worker.wait();
            input = call.workspace.cast_const().cast();
        }
        let columns = self.phases.pixels().div_ceil(self.width);
        let group = self.problem.group_in() * self.phases.channel();
        let tasks = self.problem.batch * self.blocks.len() * columns;
        let multiply_adds = self.offsets.len() * self.width * self.entries.len();
        for task in worker.parts(tasks, grain(multiply_adds, 1)).flat_map(|part| part.units) {
            let block = &self.blocks[task / columns % self.blocks.len()];
            let image = task / columns / self.blocks.len();
            let start = task % columns * self.width;
            // SAFETY: offsets were computed for this input or its copy, and each task has its own
            // channels and pixels of the output.
            unsafe {
                let input = input.add(image * self.phases.image() + block.group * group);
                (self.entries[block.count - 1])(&Tile {
                    kernel: self,
                    call,
                    input,
                    image,
                    start,
                    first: block.first,
                });
            }
        }
    }
}

/// One block of output channels of one tile of flat pixels.
struct Tile<'a> {
    kernel: &'a Prepared,
    call: &'a Call,
    /// First channel of the group in the phase-split input.
    input: *const f32,
    image: usize,
    /// First flat pixel of the tile.
    start: usize,
    /// First output channel of the block.
    first: usize,
}

/// Computes a [`Tile`].
///
/// # Safety
/// The addresses in the tile must be valid, and no other thread may write its part of the output.
type Entry = unsafe fn(&Tile<'_>);

/// Selects the instantiation for a tile size.
struct Select {
    channels: usize,
    vectors: usize,
}

impl SimdOp for Select {
    type Output = Option<Entry>;

    fn eval<S: Simd>(self, simd: S) -> Option<Entry> {
        instance!(
            simd, Run, Entry, (self.channels, self.vectors),
            1: 1 2 3 4 8; 2: 1 2 3 4; 3: 1 2 3 4; 4: 1 2 3; 5: 1 2; 6: 1 2; 7: 1; 8: 1;
        )
    }
}

struct Run<const CHANNELS: usize, const VECTORS: usize>;

impl<const CHANNELS: usize, const VECTORS: usize> SimdFn for Run<CHANNELS, VECTORS> {
    type Args<'a> = &'a Tile<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, tile: &Tile<'_>) {
        let kernel = tile.kernel;
        let depth = kernel.offsets.len();
        let (pixels, from) = kernel.phases.window(tile.start, kernel.width);
        // SAFETY: `width` numbers from `from` on may be read at every offset; weights are those of
        // the block; outputs are stored by the pixels that exist.
        unsafe {
            let input = tile.input.add(from);
            let mut weights = kernel.weights.as_ptr().add(tile.first * depth);
            let mut sums: [[S::F32; VECTORS]; CHANNELS] =
                paretune_simd::array(|c| [simd.splat(kernel.bias[tile.first + c]); VECTORS]);
            for &offset in &kernel.offsets {
                let input = input.add(offset);
                let x: [S::F32; VECTORS] =
                    paretune_simd::array(|v| simd.load(input.add(v * S::LANES)));
                for c in 0..CHANNELS {
                    let weight = simd.splat(*weights.add(c));
                    for v in 0..VECTORS {
                        sums[c][v] = simd.fma(x[v], weight, sums[c][v]);
                    }
                }
                weights = weights.add(CHANNELS);
            }
            let sums = sums;
            let first = sums.as_ptr().cast::<f32>();
            let plane = tile.image * kernel.problem.out_channels + tile.first;
            for c in 0..CHANNELS {
                let at = (plane + c) * kernel.pixels;
                let residual = tile.call.residual.cast::<f32>();
                simd.call::<StorePixels<'_>>(StorePixels {
                    phases: &kernel.phases,
                    pixels: pixels.clone(),
                    sums: first.add(c * VECTORS * S::LANES + pixels.start - from),
                    output: tile.call.output.cast::<f32>().add(at),
                    residual: if residual.is_null() { residual } else { residual.add(at) },
                    epilogue: &kernel.epilogue,
                });
            }
        }
    }
}
