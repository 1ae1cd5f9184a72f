//! Direct convolution with NCHWc tiles: a register tile is a run of adjacent output pixels by a few
//! vectors of output channels, and the offsets of all inputs of a window are equal for every pixel.
//!
//! The input is kept as [`Padded`] planes of vectors of channels (of single channels if it comes in
//! NCHW, as in the first layer). The inputs of a tile's pixels are then a constant distance apart:
//! one address serves them all, and registers remain for sums. The layouts of input and output are
//! tunables; an NCHWc input without padding is read in place. The idea is that of Georganas et al.,
//! "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures" (2018); that a
//! tile may continue into the next padded row is our addition.

use std::ops::Range;

use crate::conv::algorithm::{Algorithm, Call, Kernel, Request};
use crate::conv::support::buffer::Buffer;
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::layouts::{NCHW, NCHWC, NHWC, named_layout};
use crate::conv::support::request::sensible;
use crate::conv::support::split::{
    PartWork, Split, ahead, panel_tunable, prefetch_tunable, split_tunable,
};
use crate::conv::support::tiles::{Extent, TILE, balanced, pixel_tile, real_cycles};
use paretune_base::error::KernelError;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable};
use paretune_base::registry::AlgorithmInfo;
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, IsaToken, lanes};

mod kernel;
mod padded;

use kernel::{Entry, Select, Tile, most_rows};
use padded::{Order, Padded};

/// Direct convolution with NCHWc tiles.
pub(crate) struct DirectNchwc;

/// Numbers of vectors of output channels that tiles are offered with.
const VECTORS: [usize; 5] = [1, 2, 3, 4, 6];

/// Returns the tunable `layout_in`, the layout of the input.
fn input_tunable(problem: &ConvProblem, isa: Isa) -> Tunable {
    let (channels, block) = (problem.group_in(), lanes(isa));
    let mut values = vec![NCHW];
    if problem.groups == 1 || channels.is_multiple_of(block) {
        values.push(NHWC);
    }
    if channels.is_multiple_of(block) {
        values.push(NCHWC);
    }
    let default = if channels >= block && values.len() > 1 { NHWC } else { NCHW };
    Tunable::choice("layout_in", "layout in which the input is read", values, default)
}

/// Returns the tunable `layout_out`, the layout of the output.
fn output_tunable(problem: &ConvProblem, isa: Isa) -> Tunable {
    let blocked = problem.group_out().is_multiple_of(lanes(isa));
    let values = if blocked { vec![NHWC, NCHWC] } else { vec![NHWC] };
    Tunable::choice("layout_out", "layout in which the output is written", values, NHWC)
}

/// Returns the number of lines of output pixels and the pixels per line; with the tunable `across`,
/// tiles continue from one row into the next, so that an image is one line.
fn pixels_of(problem: &ConvProblem, across: bool) -> (usize, usize) {
    let [height, width] = problem.output().unwrap_or([1, 1]);
    if across { (1, (height - 1) * padded::row_pixels(problem) + width) } else { (height, width) }
}

/// Estimates the cycles per step in k that one image takes with tiles of `rows` pixels and
/// `vectors` vectors.
fn cycles(problem: &ConvProblem, isa: Isa, [rows, vectors]: [usize; 2], across: bool) -> f64 {
    let (lines, pixels) = pixels_of(problem, across);
    let (whole, rest) = {
        let columns = problem.group_out().div_ceil(lanes(isa));
        (columns / vectors, columns % vectors)
    };
    let tiles = |vectors: usize| -> f64 {
        let parts = balanced(pixels, rows).into_iter().filter(|&(_, count)| count > 0);
        parts.map(|(rows, count)| count as f64 * real_cycles(rows, vectors, isa)).sum()
    };
    lines as f64 * (whole as f64 * tiles(vectors) + if rest > 0 { tiles(rest) } else { 0.0 })
}

/// Returns the tunables of the tile, and `across`.
fn tile_tunables(problem: &ConvProblem, isa: Isa) -> [Tunable; 3] {
    let columns = problem.group_out().div_ceil(lanes(isa));
    let across = problem.output().map_or(1, |[height, _]| height) > 1;
    let (_, most) = pixels_of(problem, across);
    let mut tiles = Vec::new();
    for vectors in VECTORS.map(|vectors| vectors.min(columns)) {
        let limit = most_rows(isa, vectors);
        for rows in
            [limit, limit * 6 / 7, limit * 4 / 7, limit * 2 / 7].map(|rows| rows.clamp(1, most))
        {
            if limit > 0 && !tiles.contains(&[rows, vectors]) {
                tiles.push([rows, vectors]);
            }
        }
    }
    let cost = |tile: &[usize; 2], across: bool| cycles(problem, isa, *tile, across);
    let best = |across: bool| {
        let best = tiles.iter().min_by(|a, b| cost(a, across).total_cmp(&cost(b, across)));
        best.copied().unwrap_or([1, 1])
    };
    let runs_on = across && cost(&best(true), true) < cost(&best(false), false);
    let sides = |[rows, vectors]: [usize; 2]| [rows, vectors * lanes(isa)];
    let offered: Vec<[usize; 2]> = tiles.iter().copied().map(sides).collect();
    let [tile_m, tile_n] = pixel_tile(&offered, sides(best(runs_on)));
    let about = "whether tiles run on from row to row, through the padding between them";
    [tile_m, tile_n, Tunable::switch("across", about, across, runs_on)]
}

impl AlgorithmInfo for DirectNchwc {
    fn name(&self) -> &'static str {
        "direct_nchwc"
    }

    fn about(&self) -> &'static str {
        "sliding windows over blocks of channels, runs of pixels by vectors of output channels"
    }
}

impl Algorithm for DirectNchwc {
    fn supports(&self, problem: &ConvProblem, isa: Isa) -> bool {
        // A group narrower than a vector leaves most of the vector unused.
        sensible(problem) && (problem.groups == 1 || problem.group_out() >= lanes(isa))
    }

    fn preferred(&self, problem: &ConvProblem) -> bool {
        // On the network's own input it is 1.1 to 1.5 times as fast as a GEMM, and the input needs
        // no conversion.
        problem.groups == 1 && problem.in_channels < 4 && problem.window.kernel != [1, 1]
    }

    fn tunables(&self, problem: &ConvProblem, isa: Isa) -> Vec<Tunable> {
        let extent = Extent::of(problem);
        let depth = problem.depth();
        let weights = problem.out_channels * depth * size_of::<f32>();
        let [tile_m, tile_n, across] = tile_tunables(problem, isa);
        vec![
            input_tunable(problem, isa),
            output_tunable(problem, isa),
            tile_m,
            tile_n,
            across,
            panel_tunable(extent, depth * size_of::<f32>(), isa),
            split_tunable(problem, extent, isa),
            prefetch_tunable(weights),
        ]
    }

    fn layouts(&self, schedule: &Schedule, isa: Isa) -> [Layout; 2] {
        ["layout_in", "layout_out"].map(|name| named_layout(schedule, name, isa))
    }

    fn prepare(&self, request: &Request<'_>) -> Result<Box<dyn Kernel>, KernelError> {
        let (output, token) = request.check_for(self)?;
        request.check_f32()?;
        let problem = request.problem;
        let lanes = lanes(request.isa);
        let offered = |tunable: Tunable| -> Result<&'static str, KernelError> {
            let value = request.choice(tunable.name)?;
            let is_offered = tunable.values().contains(&value.into());
            is_offered.then_some(value).ok_or_else(|| request.bad_value(tunable.name))
        };
        let order = match offered(input_tunable(&problem, request.isa))? {
            NCHW => Order::Nchw,
            NHWC => Order::Nhwc,
            _ => Order::Nchwc,
        };
        let blocked_out = offered(output_tunable(&problem, request.isa))? == NCHWC;
        let [rows, columns] = request.tile_sides()?;
        let vectors = columns / lanes;
        let entries = entries(token, rows, vectors, order == Order::Nchw)
            .filter(|entries| !entries.is_empty() && vectors > 0 && columns.is_multiple_of(lanes))
            .ok_or_else(|| request.bad_value(TILE[0]))?;
        let across = request.switch("across")?;
        let padded = Padded::new(&problem, output, order, lanes, token);
        let pixels = output[0] * output[1];
        Ok(Box::new(Prepared {
            tiles: spans(&padded, output, rows, across),
            steps: padded.steps(),
            weights: pack(request, &padded, vectors * lanes, lanes)?,
            bias: request.packing.numbers(
                problem.groups * problem.group_out().next_multiple_of(lanes),
                |bias| {
                    let width = problem.group_out();
                    for (group, bias) in bias.chunks_mut(width.next_multiple_of(lanes)).enumerate()
                    {
                        request.write_biases(group * width, &mut bias[..width]);
                    }
                },
            )?,
            places: if blocked_out {
                Places { pixel: lanes, vector: pixels * lanes, channel: pixels }
            } else {
                Places { pixel: problem.out_channels, vector: lanes, channel: 1 }
            },
            panel: request.count("panel")?,
            split: Split::from_request(request)?,
            ahead: ahead::<f32>(request)?,
            epilogue: Epilogue::new(request.activation),
            image: pixels * problem.out_channels,
            rows,
            vectors,
            lanes,
            entries,
            padded,
            problem,
        }))
    }
}

/// Returns the microkernels of the tile and all smaller ones, `[rows - 1][vectors - 1]`.
fn entries(token: IsaToken, rows: usize, vectors: usize, planar: bool) -> Option<Vec<Vec<Entry>>> {
    let find =
        |rows, vectors| token.f32().dispatch(Select { isa: token.isa(), rows, vectors, planar });
    (1..=rows).map(|rows| (1..=vectors).map(|vectors| find(rows, vectors)).collect()).collect()
}

/// Packs the weights in the order of use, `[group][block of channels][step][channel]`. Blocks are
/// `width` channels wide; the last one is as narrow as whole vectors allow.
fn pack(
    request: &Request<'_>,
    padded: &Padded,
    width: usize,
    lanes: usize,
) -> Result<Buffer<f32>, KernelError> {
    let stored = request.f32_weights()?;
    let problem = &request.problem;
    let (group_in, columns) = (problem.group_in(), problem.group_out());
    let taps = problem.taps();
    let depth = group_in * taps;
    let whole = columns.next_multiple_of(lanes);
    request.packing.numbers(problem.groups * whole * depth, |packed| {
        for (group, numbers) in packed.chunks_mut((whole * depth).max(1)).enumerate() {
            for start in (0..columns).step_by(width) {
                let block = width.min(whole - start);
                let rows = numbers[start * depth..][..block * depth].chunks_exact_mut(block);
                for (row, [channel, tap]) in rows.zip(padded.order_of_steps()) {
                    for (column, number) in row.iter_mut().enumerate().take(columns - start) {
                        let output = group * columns + start + column;
                        *number = stored[(output * group_in + channel) * taps + tap];
                    }
                }
            }
        }
    })
}

/// Run of output pixels that one tile computes.
struct TileRun {
    /// Index of the first pixel, counted through padded rows.
    flat: usize,
    /// Number of pixels, padding between rows included.
    rows: usize,
    /// Pieces that are output pixels, `[offset in the tile, output pixel, count]`; one piece if
    /// there is no padding in between.
    pieces: Vec<[usize; 3]>,
}

/// Returns the tile runs that cover one image.
fn spans(padded: &Padded, [height, width]: [usize; 2], rows: usize, across: bool) -> Vec<TileRun> {
    let row = padded.row();
    let lines: Vec<Range<usize>> = if across {
        std::iter::once(0..(height - 1) * row + width).collect()
    } else {
        (0..height).map(|y| y * row..y * row + width).collect()
    };
    let mut spans = Vec::new();
    for line in lines {
        let mut flat = line.start;
        for (rows, count) in balanced(line.len(), rows) {
            for _ in 0..count {
                let mut pieces: Vec<[usize; 3]> = Vec::new();
                for y in flat / row..=(flat + rows - 1) / row {
                    let (start, end) = (flat.max(y * row), (flat + rows).min(y * row + width));
                    let pixel = y * width + start.saturating_sub(y * row);
                    match pieces.last_mut() {
                        // Rows without padding between them continue the previous piece.
                        Some([_, first, count]) if row == width && *first + *count == pixel => {
                            *count += end - start;
                        }
                        _ if start < end => pieces.push([start - flat, pixel, end - start]),
                        _ => {}
                    }
                }
                spans.push(TileRun { flat, rows, pieces });
                flat += rows;
            }
        }
    }
    spans
}

/// Strides of the output in elements.
#[derive(Clone, Copy)]
struct Places {
    /// Distance in elements between adjacent pixels.
    pixel: usize,
    /// Distance in elements between adjacent vectors of channels.
    vector: usize,
    /// Offset of a group's first channel in the image, per channel before it.
    channel: usize,
}

struct Prepared {
    problem: ConvProblem,
    padded: Padded,
    /// Tile runs of one image.
    tiles: Vec<TileRun>,
    /// Offset and length of every run of input elements under a pixel.
    steps: Vec<[usize; 2]>,
    weights: Buffer<f32>,
    bias: Buffer<f32>,
    places: Places,
    entries: Vec<Vec<Entry>>,
    /// Pixels per tile; `vectors` is its number of vectors of output channels.
    rows: usize,
    vectors: usize,
    lanes: usize,
    panel: usize,
    split: Split,
    /// Prefetch distance of the weights in elements.
    ahead: usize,
    epilogue: Epilogue,
    /// Elements per image of the output.
    image: usize,
}

impl Kernel for Prepared {
    fn workspace_bytes(&self) -> usize {
        self.padded.bytes()
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes()
    }

    unsafe fn run(&self, call: &Call, worker: &Worker<'_>) {
        let mut input = call.input.cast::<f32>();
        if !self.padded.reads_input() {
            // SAFETY: the workspace has room for the copy, and each plane has one writer.
            unsafe {
                self.padded.copy(worker.share(self.padded.planes()), input, call.workspace.cast())
            };
            worker.wait();
            input = call.workspace.cast_const().cast();
        }
        let columns = self.problem.group_out();
        let width = self.vectors * self.lanes;
        let tiles = self.tiles.len();
        let depth = self.weights.len() / self.bias.len();
        let work = PartWork {
            multiply_adds: depth * width * self.rows,
            rows: 1,
            blocks: columns.div_ceil(width),
        };
        for group in 0..self.problem.groups {
            // SAFETY: weights and biases of `group` begin at these offsets of the buffers, which
            // hold all groups.
            let (weights, bias) = unsafe {
                let first = group * columns.next_multiple_of(self.lanes);
                (self.weights.as_ptr().add(first * depth), self.bias.as_ptr().add(first))
            };
            for (parts, blocks) in self.split.parts(worker, self.problem.batch * tiles, &work) {
                for start in blocks.clone().step_by(self.panel) {
                    for number in parts.clone() {
                        let (image, span) = (number / tiles, &self.tiles[number % tiles]);
                        for block in start..blocks.end.min(start + self.panel) {
                            let first = block * width;
                            let channels = width.min(columns - first);
                            // SAFETY: offsets were made for this input; weights and bias are those
                            // of the block; each tile has its own pixels and channels of the
                            // output.
                            unsafe {
                                let at = image * self.image
                                    + group * columns * self.places.channel
                                    + block * self.vectors * self.places.vector;
                                let residual = call.residual.cast::<f32>();
                                let entry =
                                    self.entries[span.rows - 1][channels.div_ceil(self.lanes) - 1];
                                entry(&Tile {
                                    input: input.add(self.padded.at(image, group, span.flat)),
                                    steps: &self.steps,
                                    weights: weights.add(first * depth),
                                    ahead: self.ahead,
                                    bias: bias.add(first),
                                    channels,
                                    pieces: &span.pieces,
                                    pixel: self.places.pixel,
                                    vector: self.places.vector,
                                    output: call.output.cast::<f32>().add(at),
                                    residual: if residual.is_null() {
                                        residual
                                    } else {
                                        residual.add(at)
                                    },
                                    epilogue: &self.epilogue,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
}
