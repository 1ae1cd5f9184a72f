//! Conversion of a value between tensor formats: layout, element type, or both in one pass.

use super::activation::CHUNK;
use super::{Context, Io, Loops, OperatorKernel, on};
use paretune_base::plan::Quantization;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::threads::Worker;

mod turned;

/// Tensor format: layout and element type of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorFormat {
    /// Order of the elements in memory.
    pub layout: Layout,
    /// Type of the elements, with their quantization.
    pub element: Element,
}

impl TensorFormat {
    /// Tensor format of a network's inputs and outputs: single precision, row-major.
    pub const PLAIN: Self = Self { layout: Layout::Nchw, element: Element::F32 };

    /// Returns the size of one element in bytes.
    pub fn element_bytes(&self) -> usize {
        match self.element {
            Element::F32 => 4,
            Element::U8(_) => 1,
        }
    }
}

/// Edge of the tiles that are transposed: one cache line in single precision.
const TILE: usize = 16;

/// Builds the conversion of `channels` x `pixels` elements per image from one tensor format to
/// another.
pub fn prepare(
    context: Context,
    channels: usize,
    pixels: usize,
    from: TensorFormat,
    to: TensorFormat,
) -> Box<dyn OperatorKernel> {
    // Every change of layout is the transposition of `times` matrices of `rows` x `columns` pieces;
    // a piece is a run of adjacent elements.
    let size = [context.batch, channels, pixels];
    let blocks = |block: usize| channels / block.max(1);
    let turn = |times, rows, columns, piece| Some(Turn { times, rows, columns, piece });
    let turn = match (from.layout, to.layout) {
        (Layout::Nchw, Layout::Nhwc) => turn(context.batch, channels, pixels, 1),
        (Layout::Nhwc, Layout::Nchw) => turn(context.batch, pixels, channels, 1),
        // Every block of channels is an NHWC image of its own.
        (Layout::Nchw, Layout::Nchwc(block)) => {
            turn(context.batch * blocks(block), block, pixels, 1)
        }
        (Layout::Nchwc(block), Layout::Nchw) => {
            turn(context.batch * blocks(block), pixels, block, 1)
        }
        (Layout::Nhwc, Layout::Nchwc(block)) => turn(context.batch, pixels, blocks(block), block),
        (Layout::Nchwc(block), Layout::Nhwc) => turn(context.batch, blocks(block), pixels, block),
        // An instruction set has one block size, and an executor has one instruction set.
        (Layout::Nchwc(_), Layout::Nchwc(_))
        | (Layout::Nchw, Layout::Nchw)
        | (Layout::Nhwc, Layout::Nhwc) => None,
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
        (Element::U8(a), Element::U8(b)) if a == b => {
            on(context.isa, Convert { size, turn, map: Same8 })
        }
        (Element::U8(a), Element::U8(b)) => {
            let map = Requantize { from: Dequantize { grid: a }, to: Quantize::new(b) };
            on(context.isa, Convert { size, turn, map })
        }
    }
}

/// Conversion of a single element.
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

/// Rounds to the nearest quantized value, ties to even, with saturation; NaN becomes 0.
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
        /// Adding this constant rounds to an integer, which appears in the low mantissa bits.
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

/// Transposition of `times` matrices of `rows` x `columns` pieces.
#[derive(Clone, Copy)]
struct Turn {
    times: usize,
    rows: usize,
    columns: usize,
    /// Number of adjacent elements in a piece.
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
        // SAFETY: input 0 holds as many elements as the product of `size`, and no thread writes an
        // input during the run.
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
                let output =
                    unsafe { io.output::<M::Out>((image + column * rows) * piece, rows * piece) };
                for (row, out) in output.chunks_exact_mut(piece).enumerate() {
                    let from = (image + row * columns + column) * piece;
                    for (out, x) in out.iter_mut().zip(&input[from..from + piece]) {
                        *out = self.map.map(*x);
                    }
                }
            }
            return;
        }
        // A thread takes whole blocks of columns, tile by tile, and so writes whole rows of the
        // output.
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
                    let output =
                        unsafe { io.output::<M::Out>(image + (column + j) * rows + row, height) };
                    for (out, line) in output.iter_mut().zip(&tile) {
                        *out = line[j];
                    }
                }
            }
        }
    }
}
