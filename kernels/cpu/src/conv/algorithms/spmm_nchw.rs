//! Unstructured sparsity over NCHW activations (SpMM): for every few output channels a list of the
//! inputs with a non-zero weight, each applied to a register tile of many output pixels.
//!
//! A step is the offset of its input and one weight per output channel, so the inner loop is
//! independent of the window. Input channels are divided into panels that stay in the nearest cache
//! while every output channel accumulates their contribution. With enough pixels in registers a
//! step runs at the rate of a dense one. (Elsen et al., "Fast Sparse ConvNets", 2020, do so for 1x1
//! windows.) Blocks of a few output channels, too small for vectors of channels, share each load of
//! an input.

use super::csr_naive::ends;
use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::support::buffer::{Buffer, whole_lines};
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::packing::corrupt_index;
use crate::conv::support::planar::Phases;
use crate::conv::support::request::sensible;
use crate::conv::support::split::grain;
use crate::conv::support::tiles::TILE;
use paretune_base::error::KernelError;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::plan::weights::{Pattern, WeightFormat};
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, lanes};

mod kernel;

use kernel::{Entry, Select, Tile};

/// SpMM convolution over NCHW activations.
pub(crate) struct SpmmNchw;

/// Compiled register tiles, `(output channels, vectors of pixels)`.
const TILES: [(usize, usize); 13] = [
    (1, 1),
    (1, 2),
    (1, 4),
    (1, 6),
    (1, 8),
    (1, 12),
    (2, 1),
    (2, 2),
    (2, 4),
    (2, 6),
    (4, 1),
    (4, 2),
    (4, 3),
];

impl AlgorithmInfo for SpmmNchw {
    fn name(&self) -> &'static str {
        "spmm_nchw"
    }

    fn about(&self) -> &'static str {
        "non-zero weights alone, each over a register tile of pixels"
    }

    fn executes(&self, format: WeightFormat) -> bool {
        format.numbers.is_real() && format.pattern != Pattern::Dense
    }
}

impl Algorithm for SpmmNchw {
    fn supports(&self, problem: &ConvProblem, _isa: Isa) -> bool {
        // Offsets are 32 bits wide and count elements; the bound includes all copies of a strided
        // or unfolded input.
        let [height, width] = crate::conv::support::request::padded(problem);
        let window = &problem.window;
        sensible(problem)
            && (height + window.stride[0])
                .checked_mul(width + window.stride[1])
                .and_then(|plane| plane.checked_mul(window.kernel[0] * window.kernel[1]))
                .and_then(|planes| planes.checked_mul(problem.in_channels))
                .is_some_and(|numbers| u32::try_from(numbers).is_ok())
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let pixels = problem.output().map_or(1, |[height, width]| height * width);
        let useful = |&&(channels, vectors): &&(usize, usize)| {
            channels <= problem.group_out() && (vectors == 1 || (vectors - 1) * lanes(isa) < pixels)
        };
        let sides = |&(channels, vectors): &(usize, usize)| [channels, vectors * lanes(isa)];
        let sides: Vec<[usize; 2]> = TILES.iter().filter(useful).map(sides).collect();
        let most = [1, 8 * lanes(isa)];
        let default = sides.iter().copied().filter(|tile| *tile <= most).max().unwrap_or(sides[0]);
        let unfold = match problem.window.kernel {
            [_, 1] => vec!["none"],
            [1, _] => vec!["none", "columns"],
            _ => vec!["none", "columns", "taps"],
        };
        let mut panels = vec![problem.group_in()];
        while let Some(&last) = panels.last()
            && last > MIN_PANEL
        {
            panels.push(last.div_ceil(2));
        }
        let plane = pixels * size_of::<f32>() * problem.window.kernel[0] * problem.window.kernel[1];
        let near = panels.iter().copied().find(|&panel| panel * plane <= L1_PANEL_BYTES);
        let default_panel = near.or(panels.last().copied()).unwrap_or(1);
        let abouts = ["output channels of a register tile", "output pixels of a register tile"];
        let [tile_m, tile_n] = Tunable::tile(TILE, abouts, &sides, default);
        let last = unfold.last().copied().unwrap_or("none");
        let copies = "copies of the input, so that rows lie without gaps: none, one per tap \
             column, or one per tap";
        let about =
            "input channels of a group that meet all output channels before the next ones do";
        vec![
            tile_m,
            tile_n,
            Tunable::choice("unfold", copies, unfold, last),
            Tunable::sizes("panel", about, panels, default_panel),
        ]
    }

    fn layouts(&self, _schedule: &Schedule, _isa: Isa) -> [Layout; 2] {
        [Layout::Nchw; 2]
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check_for(self)?;
        request.check_f32()?;
        let stored = request.f32_weights()?;
        let problem = request.problem;
        let lanes = lanes(request.isa);
        let [height, width] = request.tile_sides()?;
        let entry = token
            .f32()
            .dispatch(Select { channels: height, vectors: width / lanes })
            .filter(|_| width % lanes == 0)
            .ok_or_else(|| request.bad_value(TILE[0]))?;
        let unfold = match request.choice("unfold")? {
            "none" => [false, false],
            "columns" => [false, true],
            "taps" => [true, true],
            _ => return Err(request.bad_value("unfold")),
        };
        let panel = request.count("panel")?;
        let phases = Phases::new(&problem, output, width, unfold, token);
        let [tap_rows, tap_columns] = problem.window.kernel;
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let taps = tap_rows * tap_columns;
        let depth = group_in * taps;
        let mut blocks = Vec::new();
        for group in 0..problem.groups {
            let end = (group + 1) * group_out;
            for first in (group * group_out..end).step_by(height) {
                blocks.push(Block { first, count: height.min(end - first), work: 0 });
            }
        }
        let panels = group_in.div_ceil(panel);
        let too_large = |_| KernelError::Data(format!("{problem:?} is too large"));
        let distance = |channel: usize, tap: usize| {
            let tap = phases.tap(tap / tap_columns, tap % tap_columns);
            u32::try_from(channel * phases.channel() + tap).map_err(too_large)
        };
        let packing = request.packing;
        let (weights, distances, counts) = packing.make(|| {
            let (mut weights, mut distances, mut counts) = (Vec::new(), Vec::new(), Vec::new());
            for panel_of in
                (0..panels).map(|number| number * panel..group_in.min((number + 1) * panel))
            {
                for block in &blocks {
                    let (group, before) = (block.first / group_out, distances.len());
                    for k in panel_of.start * taps..panel_of.end * taps {
                        let column = |c: usize| {
                            if c < block.count {
                                stored[(block.first + c) * depth + k]
                            } else {
                                0.0
                            }
                        };
                        if (0..block.count).any(|c| column(c) != 0.0) {
                            distances.push(distance(group * group_in + k / taps, k % taps)?);
                            weights.extend((0..height).map(column));
                        }
                    }
                    counts.push(u32::try_from(distances.len() - before).map_err(too_large)?);
                }
            }
            Ok((weights, distances, counts))
        })?;
        let (weights, distances) = (packing.list(weights)?, packing.table(distances)?);
        let counts = packing.table::<u32>(counts)?;
        let ends = ends(&counts).ok_or_else(corrupt_index)?;
        let mut farthest = 0;
        for tap in 0..taps {
            farthest = farthest.max(distance(problem.in_channels - 1, tap)?);
        }
        let sound = counts.len() == panels * blocks.len()
            && ends.last() == Some(&distances.len())
            && distances.len().checked_mul(height) == Some(weights.len())
            && distances.iter().all(|&distance| distance <= farthest);
        if !sound {
            return Err(corrupt_index());
        }
        let number = blocks.len();
        for (place, &count) in counts.iter().enumerate() {
            blocks[place % number].work += count as usize;
        }
        // Every block has a small cost without any step.
        let mut work = 0;
        for block in &mut blocks {
            work += block.work + 8;
            block.work = work;
        }
        Ok(Box::new(Prepared {
            bias: packing.numbers(problem.out_channels + height, |bias| {
                request.write_biases(0, &mut bias[..problem.out_channels]);
            })?,
            weights,
            epilogue: Epilogue::new(request.activation),
            pixels: output[0] * output[1],
            sums: if panels > 1 {
                whole_lines(blocks.len() * height * width * size_of::<f32>())
            } else {
                0
            },
            threads: request.threads,
            problem,
            phases,
            distances,
            blocks,
            panels,
            ends,
            entry,
            width,
        }))
    }
}

/// Number of input channels below which panels are not halved further.
const MIN_PANEL: usize = 16;

/// Bytes of an input panel that stay in a first-level cache beside weights and sums.
const L1_PANEL_BYTES: usize = 24 << 10;

/// Output channels that are computed together.
struct Block {
    first: usize,
    count: usize,
    /// Cumulative steps up to this block, plus a constant per block.
    work: usize,
}

struct Prepared {
    problem: ConvProblem,
    phases: Phases,
    /// Output pixels of one plane.
    pixels: usize,
    /// Offset from the output's flat pixel number to the input of every step.
    distances: Vec<u32>,
    /// Packed weights, `[step][channel of the block]`.
    weights: Buffer<f32>,
    blocks: Vec<Block>,
    /// Number of panels of input channels.
    panels: usize,
    /// End of the steps of each `[panel][block]`; the next one's steps begin there.
    ends: Vec<usize>,
    /// Bytes of each thread's sums between panels.
    sums: usize,
    threads: usize,
    /// Bias of every output channel, padded by the height of a block.
    bias: Buffer<f32>,
    entry: Entry,
    /// Flat pixels of one tile.
    width: usize,
    epilogue: Epilogue,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        whole_lines(self.phases.bytes(self.width)) + self.threads * self.sums
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes()
            + size_of_val(&self.distances[..])
            + size_of_val(&self.blocks[..])
            + size_of_val(&self.ends[..])
            + self.bias.bytes()
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
        // A tile of pixels visits all channels before the next tile is loaded. Channels differ in
        // their steps, tiles do not: threads partition the tiles, and the channels only if there
        // are too few tiles.
        let columns = self.phases.pixels().div_ceil(self.width);
        let tiles = self.problem.batch * columns;
        let parts = if tiles.is_multiple_of(worker.count) || tiles >= 4 * worker.count {
            1
        } else {
            worker.count
        };
        let multiply_adds = self.distances.len() * self.width / parts;
        for task in worker.parts(tiles * parts, grain(multiply_adds, 1)).flat_map(|part| part.units)
        {
            let (tile, part) = (task / parts, task % parts);
            let image = tile / columns;
            let blocks = self.part(part, parts);
            // SAFETY: distances were computed for this input or its copy, and each task has its own
            // channels and pixels of the output.
            unsafe {
                let input = input.add(image * self.phases.image());
                let start = tile % columns * self.width;
                let before = whole_lines(self.phases.bytes(self.width)) + worker.index * self.sums;
                let sums = call.workspace.add(before).cast();
                (self.entry)(&Tile { kernel: self, call, input, image, start, blocks, sums });
            }
        }
    }
}

impl Prepared {
    /// Returns the blocks of part `part` of `parts`, which have about equally many steps.
    fn part(&self, part: usize, parts: usize) -> std::ops::Range<usize> {
        let total = self.blocks[self.blocks.len() - 1].work + 1;
        let block_at =
            |share: usize| self.blocks.partition_point(|block| block.work < total * share / parts);
        let end = if part + 1 == parts { self.blocks.len() } else { block_at(part + 1) };
        if part == 0 { 0..end } else { block_at(part)..end }
    }
}
