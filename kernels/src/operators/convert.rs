//! The same value in another form: layout, number format, or both in one pass.

use super::activation::CHUNK;
use super::{Context, Io, Loops, OperatorKernel, on};
use crate::conv::{Element, Layout};
use crate::plan::Quantization;
use crate::team::Worker;

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
    let size = [context.batch, channels, pixels];
    // The transposition is that of a matrix with `rows` x `columns`.
    let turn = match (from.layout, to.layout) {
        (Layout::Planar, Layout::ChannelsLast) => Some([channels, pixels]),
        (Layout::ChannelsLast, Layout::Planar) => Some([pixels, channels]),
        _ => None,
    };
    match (from.element, to.element) {
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

struct Convert<M> {
    size: [usize; 3],
    turn: Option<[usize; 2]>,
    map: M,
}

impl<M: Map> Loops for Convert<M> {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let len: usize = self.size.iter().product();
        // SAFETY: the caller's promise.
        let input = unsafe { io.input::<M::In>(0, len) };
        let Some([rows, columns]) = self.turn else {
            let chunks = worker.share(len.div_ceil(CHUNK));
            let part = chunks.start * CHUNK..(chunks.end * CHUNK).min(len);
            // SAFETY: parts of the output are disjoint and within it.
            let output = unsafe { io.output::<M::Out>(part.start, part.len()) };
            for (out, x) in output.iter_mut().zip(&input[part]) {
                *out = self.map.map(*x);
            }
            return;
        };
        // Tiles of a block of columns are written as whole rows of the output. Blocks are dealt out.
        let blocks = columns.div_ceil(TILE);
        for unit in worker.share(self.size[0] * blocks) {
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
