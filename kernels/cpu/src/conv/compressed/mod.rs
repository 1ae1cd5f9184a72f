//! Compressed weights (BSR): for each block of output channels only the steps in k at which some
//! weight of the block is not zero, one after another, each with the offset of its input.
//!
//! The microkernel is the dense one with one more load per step, so that time is proportional to
//! the fraction of non-zero steps. It does not depend on the shape of the zero blocks; they pay if
//! they are as wide as the tile. (Gray, Radford and Kingma, "GPU Kernels for Block-Sparse Weights",
//! 2017; XNNPACK and others do so with one-column blocks on CPUs.)

use std::ops::Range;

use crate::conv::algorithm::Request;
use crate::conv::gemm_i8::DotForm;
use crate::conv::support::buffer::Buffer;
use crate::conv::support::indirection::IndirectionView;
use crate::conv::support::packing::corrupt_index;
use crate::conv::support::split::{PartWork, ahead};
use crate::conv::support::tiles::{Extent, Tile, cover, pixel_tile, with_smaller};
use paretune_base::error::KernelError;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::Tunable;
use paretune_simd::Isa;
use paretune_simd::{Dispatch, IsaToken, Simd, SimdOp, lanes};

mod kernel;
mod kinds;

use kernel::{Entry, MicrokernelArgs};
pub(crate) use kinds::{F32, F32Store, I8, I8Store, Kind, LowBit};

/// Possible step in k of a block: the input channels of a tap that one step sums.
pub(crate) struct Position {
    /// Offset of the input in the segment's run, in activations.
    pub(crate) index: usize,
    /// Index of the tap, row-major in the window.
    pub(crate) tap: usize,
    /// First input channel within the group.
    pub(crate) channel: usize,
}

/// Returns every position of a layer, by segments.
///
/// With `whole`, the whole window is one segment, in an input that carries its padding and has
/// `[row, channels]` elements per row and per pixel. Otherwise every tap is a segment.
pub(crate) fn positions(
    problem: &ConvProblem,
    whole: Option<[usize; 2]>,
    group: usize,
) -> Vec<Vec<Position>> {
    let [tap_rows, tap_columns] = problem.window.kernel;
    let [dilation_y, dilation_x] = problem.window.dilation;
    let mut segments: Vec<Vec<Position>> = Vec::new();
    for ky in 0..tap_rows {
        for kx in 0..tap_columns {
            let start = whole
                .map_or(0, |[row, channels]| ky * dilation_y * row + kx * dilation_x * channels);
            let channels = (0..problem.group_in()).step_by(group);
            let tap = ky * tap_columns + kx;
            let positions =
                channels.map(|channel| Position { index: start + channel, tap, channel });
            match segments.last_mut() {
                Some(segment) if whole.is_some() => segment.extend(positions),
                _ => segments.push(positions.collect()),
            }
        }
    }
    segments
}

/// Returns whether the input offsets of a whole window fit in 16 bits, for the sizes passed to
/// [`positions`].
pub(crate) fn reaches(problem: &ConvProblem, [row, channels]: [usize; 2]) -> bool {
    let [ky, kx] =
        [0, 1].map(|axis| (problem.window.kernel[axis] - 1) * problem.window.dilation[axis]);
    ky.checked_mul(row)
        .and_then(|y| y.checked_add(kx.checked_mul(channels)?)?.checked_add(problem.group_in()))
        .is_some_and(|reach| u16::try_from(reach).is_ok())
}

/// Tiles offered to the tuner, `(pixels, vectors of channels)`.
const TILES: [(usize, usize); 11] =
    [(1, 1), (1, 2), (2, 2), (3, 2), (4, 1), (4, 2), (5, 2), (6, 1), (6, 2), (8, 1), (12, 1)];
/// Tiles offered for formats for few pixels, `(pixels, vectors of channels)`.
const LOW_TILES: [(usize, usize); 7] = [(1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (3, 2), (4, 2)];

/// Returns the tunables of the tile for compressed weights of kind `K`. Its columns should divide
/// those of a block.
pub(crate) fn tile_tunable<K: Kind>(extent: Extent, isa: Isa) -> [Tunable; 2] {
    let lanes = lanes(isa);
    let columns = extent.columns.div_ceil(lanes);
    let tiles: &[(usize, usize)] = match isa {
        Isa::Portable => &[(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2)],
        _ if K::FEW_ROWS => &LOW_TILES,
        _ => &TILES,
    };
    let sides =
        |&(rows, vectors): &(usize, usize)| [rows.min(extent.rows), vectors.min(columns) * lanes];
    let sides: Vec<[usize; 2]> = tiles.iter().map(sides).collect();
    // The default is one vector wide, like narrow blocks, with as many pixels as there are
    // registers; for formats without blocks it is the largest tile.
    let narrow = |tile: &&[usize; 2]| K::FEW_ROWS || tile[1] == lanes;
    let size = |tile: &&[usize; 2]| (tile[0] * tile[1], tile[0]);
    let default = sides.iter().filter(narrow).max_by_key(size).copied().unwrap_or(sides[0]);
    pixel_tile(&sides, default)
}

/// Compressed weights of one group of a convolution.
pub(crate) struct CompressedGemm<K: Kind> {
    /// Microkernels of the tile and of all smaller ones for edges, `[vectors - 1][rows - 1]`.
    kernels: Vec<Vec<Entry<K>>>,
    tile: Tile,
    lanes: usize,
    /// Elements per step and output channel.
    packed: usize,
    columns: usize,
    segments: usize,
    weights: Buffer<K::Weight>,
    indices: Vec<u16>,
    /// Number of steps, `[block][segment]`.
    counts: Vec<u32>,
    /// First step of every block.
    steps: Vec<usize>,
    start: Buffer<K::Sum>,
    /// Prefetch distance, as a number of weights.
    ahead: usize,
}

/// GEMM arguments: addresses and strides of one run of [`CompressedGemm`].
#[derive(Clone, Copy)]
pub(crate) struct GemmArgs<K: Kind> {
    pub(crate) rows: IndirectionView,
    pub(crate) input: *const u8,
    pub(crate) zeros: *const u8,
    pub(crate) store: K::Store,
    /// Distance in elements between pixels of the output.
    pub(crate) stride: usize,
}

/// Functions and constants of one instruction set.
struct Compiled<K: Kind> {
    kernels: Vec<Vec<Entry<K>>>,
    group: usize,
    packed: usize,
    pack: fn(&[K::Source], &mut Vec<K::Weight>),
}

struct Compile<K> {
    tile: Tile,
    kind: std::marker::PhantomData<K>,
}

impl<K: Kind> SimdOp for Compile<K> {
    type Output = Option<Compiled<K>>;

    fn eval<S: Simd>(self, simd: S) -> Self::Output {
        let most = self.tile.rows;
        let kernels = with_smaller(self.tile, |tile| {
            kernel::choose::<K, S>(simd, tile.rows, tile.vectors, most)
        })?;
        Some(Compiled {
            kernels,
            group: K::group::<S>(),
            packed: K::packed::<S>(),
            pack: K::pack::<S>,
        })
    }
}

/// Returns the activation format of kind `K`, and the number of input channels per step.
pub(crate) fn form<K: Kind>(token: IsaToken) -> (DotForm, usize) {
    struct TensorFormat<K>(std::marker::PhantomData<K>);
    impl<K: Kind> SimdOp for TensorFormat<K> {
        type Output = (DotForm, usize);
        fn eval<S: Simd>(self, _: S) -> Self::Output {
            (K::form::<S>(), K::group::<S>())
        }
    }
    token.dispatch(TensorFormat::<K>(std::marker::PhantomData))
}

/// Returns the first step of every block, or `None` if counts and indices are corrupt: they must
/// describe blocks over `segments` with enough `weights`, and no step may lead beyond its segment.
fn first_steps(
    counts: &[u32],
    indices: &[u16],
    weights: usize,
    segments: &[Vec<Position>],
    widths: &[usize],
) -> Option<Vec<usize>> {
    if counts.len() != segments.len().checked_mul(widths.len())? {
        return None;
    }
    let (mut steps, mut step, mut used) = (Vec::with_capacity(widths.len()), 0_usize, 0_usize);
    let farthest = |segment: &Vec<Position>| segment.iter().map(|position| position.index).max();
    let farthest: Vec<Option<usize>> = segments.iter().map(farthest).collect();
    for (counts, width) in counts.chunks_exact(segments.len().max(1)).zip(widths) {
        steps.push(step);
        for (&count, farthest) in counts.iter().zip(&farthest) {
            let end = step.checked_add(count as usize)?;
            if indices.get(step..end)?.iter().any(|&index| Some(usize::from(index)) > *farthest) {
                return None;
            }
            used = used.checked_add(width.checked_mul(end - step)?)?;
            step = end;
        }
    }
    (step == indices.len() && used == weights).then_some(steps)
}

impl<K: Kind> CompressedGemm<K> {
    /// Packs the weights `weight(column, tap, channel)`, and the initial sum `start(column)` of
    /// each column.
    ///
    /// # Errors
    /// Fails if the tile has no microkernel, if an input offset does not fit, or if packed data
    /// does not match.
    pub(crate) fn new(
        request: &Request<'_>,
        token: IsaToken,
        tile: Tile,
        [columns, channels]: [usize; 2],
        segments: &[Vec<Position>],
        weight: impl Fn(usize, usize, usize) -> K::Source,
        start: impl Fn(usize) -> K::Sum,
    ) -> Result<Self, KernelError> {
        let lanes = lanes(token.isa());
        let compile = Compile { tile, kind: std::marker::PhantomData };
        // Dot products of bytes do not matter in single precision.
        let compiled = if size_of::<K::Source>() == size_of::<f32>() {
            token.f32().dispatch(compile)
        } else {
            token.dispatch(compile)
        };
        let Compiled { kernels, group, packed, pack } = compiled
            .ok_or_else(|| KernelError::Data(format!("no microkernel computes {tile:?}")))?;
        let too_far = |_| KernelError::Data("an input is too far away for a stream".into());
        let packing = request.packing;
        let padded = columns.next_multiple_of(lanes);
        let starts = packing.numbers(padded, |starts| {
            for (column, number) in starts[..columns].iter_mut().enumerate() {
                *number = start(column);
            }
        })?;
        let width = tile.vectors * lanes;
        // The last block is as narrow as whole vectors allow.
        let blocks = (0..columns).step_by(width).map(|first| first..(first + width).min(padded));
        let (weights, indices, counts) = packing.make(|| {
            let (mut step, mut packed_weights) = (Vec::new(), Vec::new());
            let (mut indices, mut counts) = (Vec::new(), Vec::new());
            for (block, segment) in
                blocks.clone().flat_map(|block| segments.iter().map(move |s| (block.clone(), s)))
            {
                let before = indices.len();
                for position in segment {
                    step.clear();
                    for column in block.clone() {
                        step.extend((position.channel..position.channel + group).map(|channel| {
                            if column < columns && channel < channels {
                                weight(column, position.tap, channel)
                            } else {
                                K::Source::default()
                            }
                        }));
                    }
                    if step.iter().any(|weight| *weight != K::Source::default()) {
                        step.chunks(group).for_each(|weights| pack(weights, &mut packed_weights));
                        indices.push(u16::try_from(position.index).map_err(too_far)?);
                    }
                }
                counts.push(u32::try_from(indices.len() - before).map_err(too_far)?);
            }
            indices.shrink_to_fit();
            Ok((packed_weights, indices, counts))
        })?;
        let (weights, indices) = (packing.list(weights)?, packing.table(indices)?);
        let counts = packing.table(counts)?;
        let widths: Vec<usize> = blocks.map(|block| block.len() * packed).collect();
        let steps = first_steps(&counts, &indices, weights.len(), segments, &widths)
            .ok_or_else(corrupt_index)?;
        let segments = segments.len();
        Ok(Self {
            kernels,
            tile,
            lanes,
            packed,
            columns,
            segments,
            weights,
            indices,
            counts,
            steps,
            start: starts,
            ahead: ahead::<K::Weight>(request)?,
        })
    }

    /// Returns the number of column blocks of the tile's width.
    pub(crate) fn blocks(&self) -> usize {
        self.steps.len()
    }

    /// Returns the cost that determines the size of parts: the mean over all blocks, which differ.
    pub(crate) fn part(&self) -> PartWork {
        let steps = self.indices.len() / self.blocks().max(1);
        PartWork {
            multiply_adds: steps * self.packed * self.tile.vectors * self.lanes,
            rows: self.tile.rows,
            blocks: self.blocks(),
        }
    }

    /// Returns the bytes of packed weights and indices.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes()
            + self.start.bytes()
            + size_of_val(&self.indices[..])
            + size_of_val(&self.counts[..])
            + size_of_val(&self.steps[..])
    }

    /// Computes the pixels `rows` of the columns of `blocks`, `panel` blocks at a time. Within a
    /// panel each tile of rows visits every block before the next tile is touched.
    ///
    /// # Safety
    /// `args` must be valid for these pixels and columns, and no other thread may write there.
    pub(crate) unsafe fn run(
        &self,
        args: &GemmArgs<K>,
        rows: Range<usize>,
        blocks: Range<usize>,
        panel: usize,
    ) {
        let width = self.tile.vectors * self.lanes;
        cover(self.tile, self.lanes, self.columns, rows, blocks, panel, |run| {
            let step = self.steps[run.block];
            // SAFETY: `cover` names blocks of `blocks` and rows of `rows`. Counts, indices, weights
            // and starts have all blocks, and the caller's addresses are valid for these rows and
            // columns.
            unsafe {
                let kernel_args = MicrokernelArgs {
                    rows: args.rows,
                    input: args.input,
                    zeros: args.zeros,
                    counts: self.counts.as_ptr().add(run.block * self.segments),
                    indices: self.indices.as_ptr().add(step),
                    weights: self.weights.as_ptr().add(step * width * self.packed),
                    start: self.start.as_ptr().add(run.column),
                    store: args.store,
                    column: run.column,
                    pixel: args.stride,
                    first: run.first,
                    tiles: run.tiles,
                    blocks: run.blocks,
                    channels: run.channels,
                    ahead: self.ahead,
                };
                (self.kernels[run.tile.rows - 1][run.tile.vectors - 1])(&kernel_args);
            }
        });
    }
}
