//! The same value in another form: layout, number format, or both in one pass.

use super::activation::CHUNK;
use super::{Context, Io, Loops, OperatorKernel, on};
use crate::conv::{Element, Layout};
use crate::plan::Quantization;
use crate::team::Worker;

mod turned;

/// How a value is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Form {
    /// Order of its numbers.
    pub layout: Layout,
    /// Format of its numbers.
    pub element: Element,
}

impl Form {
    /// What the caller of a network speaks: single precision, row-major.
    pub const PLAIN: Self = Self { layout: Layout::Planar, element: Element::F32 };

    /// Bytes of one number.
    pub fn element_bytes(&self) -> usize {
        match self.element {
            Element::F32 => 4,
            Element::U8(_) => 1,
        }
    }
}

/// Edge of the tiles that are transposed: a cache line of single precision.
const TILE: usize = 16;

/// Rewrites `channels` x `pixels` numbers per image from one form into another.
pub(crate) fn prepare(
    context: Context,
    channels: usize,
    pixels: usize,
    from: Form,
    to: Form,
) -> Box<dyn OperatorKernel> {
    // The transposition is that of `times` matrices with `rows` x `columns` pieces of some numbers that stay together.
    let size = [context.batch, channels, pixels];
    let blocks = |block: usize| channels / block.max(1);
    let turn = |times, rows, columns, piece| Some(Turn { times, rows, columns, piece });
    let turn = match (from.layout, to.layout) {
        (Layout::Planar, Layout::ChannelsLast) => turn(context.batch, channels, pixels, 1),
        (Layout::ChannelsLast, Layout::Planar) => turn(context.batch, pixels, channels, 1),
        // A block is an image with its channels last.
        (Layout::Planar, Layout::ChannelBlocked(block)) => {
            turn(context.batch * blocks(block), block, pixels, 1)
        }
        (Layout::ChannelBlocked(block), Layout::Planar) => {
            turn(context.batch * blocks(block), pixels, block, 1)
        }
        (Layout::ChannelsLast, Layout::ChannelBlocked(block)) => {
            turn(context.batch, pixels, blocks(block), block)
        }
        (Layout::ChannelBlocked(block), Layout::ChannelsLast) => {
            turn(context.batch, blocks(block), pixels, block)
        }
        // Instruction sets have one length of blocks each, and an executor one instruction set.
        (Layout::ChannelBlocked(_), Layout::ChannelBlocked(_))
        | (Layout::Planar, Layout::Planar)
        | (Layout::ChannelsLast, Layout::ChannelsLast) => None,
    };
    match (from.element, to.element) {
        (Element::F32, Element::F32) if let Some(turn @ Turn { piece: 1, .. }) = turn => {
            turned::prepare(context.isa, turn)
        }
        (Element::F32, Element::F32) => on(context.isa, Convert { size, turn, map: Same }),
        (Element::F32, Element::U8(grid)) => {
            on(context.isa, Convert { size, turn, map: Quantize::new(grid) })
        }
        (Element::U8(grid), Element::F32) => {
            on(context.isa, Convert { size, turn, map: Dequantize { grid } })
        }
        (Element::U8(a), Element::U8(b)) if a == b => on(context.isa, Convert { size, turn, map: Same8 }),
        (Element::U8(a), Element::U8(b)) => {
            let map = Requantize { from: Dequantize { grid: a }, to: Quantize::new(b) };
            on(context.isa, Convert { size, turn, map })
        }
    }
}

/// What happens to each number.
pub(super) trait Map: Copy + Send + Sync {
    type In: Copy + Default;
    type Out: Copy + Default;
    fn map(&self, x: Self::In) -> Self::Out;
}

#[derive(Clone, Copy)]
pub(super) struct Same;

impl Map for Same {
    type In = f32;
    type Out = f32;
    #[inline(always)]
    fn map(&self, x: f32) -> f32 {
        x
    }
}

#[derive(Clone, Copy)]
pub(super) struct Same8;

impl Map for Same8 {
    type In = u8;
    type Out = u8;
    #[inline(always)]
    fn map(&self, x: u8) -> u8 {
        x
    }
}

/// To the nearest point of the grid, ties to even, saturating; NaN becomes the lowest point.
#[derive(Clone, Copy)]
pub(super) struct Quantize {
    inverse: f32,
    zero: f32,
}

impl Quantize {
    pub fn new(grid: Quantization) -> Self {
        Self { inverse: 1.0 / grid.scale, zero: f32::from(grid.zero_point) }
    }
}

impl Map for Quantize {
    type In = f32;
    type Out = u8;
    #[inline(always)]
    fn map(&self, x: f32) -> u8 {
        /// Adding it rounds to an integer, which the low mantissa bits then show.
        const ROUND: f32 = 12_582_912.0;
        let x = x * self.inverse + self.zero;
        let x = if x > 0.0 { x } else { 0.0 };
        let x = if x < 255.0 { x } else { 255.0 };
        (x + ROUND).to_bits() as u8
    }
}

#[derive(Clone, Copy)]
pub(super) struct Dequantize {
    pub grid: Quantization,
}

impl Map for Dequantize {
    type In = u8;
    type Out = f32;
    #[inline(always)]
    fn map(&self, x: u8) -> f32 {
        (i32::from(x) - i32::from(self.grid.zero_point)) as f32 * self.grid.scale
    }
}

#[derive(Clone, Copy)]
struct Requantize {
    from: Dequantize,
    to: Quantize,
}

impl Map for Requantize {
    type In = u8;
    type Out = u8;
    #[inline(always)]
    fn map(&self, x: u8) -> u8 {
        self.to.map(self.from.map(x))
    }
}

/// `times` matrices of `rows` x `columns` pieces to be transposed.
#[derive(Clone, Copy)]
struct Turn {
    times: usize,
    rows: usize,
    columns: usize,
    /// Numbers of a piece.
    piece: usize,
}

struct Convert<M> {
    size: [usize; 3],
    turn: Option<Turn>,
    map: M,
}

impl<M: Map> Loops for Convert<M> {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let len: usize = self.size.iter().product();
        // SAFETY: the caller's promise.
        let input = unsafe { io.input::<M::In>(0, len) };
        let Some(Turn { times, rows, columns, piece }) = self.turn else {
            let chunks = worker.share(len.div_ceil(CHUNK));
            let part = chunks.start * CHUNK..(chunks.end * CHUNK).min(len);
            // SAFETY: parts of the output are disjoint and within it.
            let output = unsafe { io.output::<M::Out>(part.start, part.len()) };
            for (out, x) in output.iter_mut().zip(&input[part]) {
                *out = self.map.map(*x);
            }
            return;
        };
        if piece > 1 {
            for unit in worker.share(times * columns) {
                let (image, column) = (unit / columns * rows * columns, unit % columns);
                // SAFETY: this column's pieces are a row of the output, which is this worker's.
                let output = unsafe { io.output::<M::Out>((image + column * rows) * piece, rows * piece) };
                for (row, out) in output.chunks_exact_mut(piece).enumerate() {
                    let from = (image + row * columns + column) * piece;
                    for (out, x) in out.iter_mut().zip(&input[from..from + piece]) {
                        *out = self.map.map(*x);
                    }
                }
            }
            return;
        }
        // Tiles of a block of columns are written as whole rows of the output. Blocks are dealt out.
        let blocks = columns.div_ceil(TILE);
        for unit in worker.share(times * blocks) {
            let (image, column) = (unit / blocks * rows * columns, unit % blocks * TILE);
            let width = TILE.min(columns - column);
            for row in (0..rows).step_by(TILE) {
                let height = TILE.min(rows - row);
                let mut tile = [[M::Out::default(); TILE]; TILE];
                for (i, line) in tile.iter_mut().enumerate().take(height) {
                    let from = image + (row + i) * columns + column;
                    for (out, x) in line.iter_mut().zip(&input[from..from + width]) {
                        *out = self.map.map(*x);
                    }
                }
                for j in 0..width {
                    // SAFETY: this block's rows of the output are this worker's.
                    let output = unsafe { io.output::<M::Out>(image + (column + j) * rows + row, height) };
                    for (out, line) in output.iter_mut().zip(&tile) {
                        *out = line[j];
                    }
                }
            }
        }
    }
}
