//! Transposition of single-precision matrices in vector registers: blocks of 4 x 4 elements, as
//! many side by side as one vector holds.

use super::Turn;
use crate::operators::{Io, OperatorKernel, entry_for};
use paretune_base::threads::Worker;
use paretune_simd::Isa;
use paretune_simd::{Simd, SimdFn};

/// Columns per unit of work: they share one cache line of the input, and become rows of the output
/// that one thread writes.
const BLOCK: usize = 16;

/// Edge of the blocks that are transposed in registers.
const QUAD: usize = 4;

/// Builds the transposition of single elements with the vectors of `isa`, or with portable code if
/// the machine lacks `isa`.
pub(super) fn prepare(isa: Isa, turn: Turn) -> Box<dyn OperatorKernel> {
    Box::new(Turned { turn, entry: entry_for::<Part>(isa) })
}

struct Turned {
    turn: Turn,
    entry: unsafe fn(&Part),
}

impl OperatorKernel for Turned {
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Turn { times, rows, columns, .. } = self.turn;
        let blocks = columns.div_ceil(BLOCK);
        for unit in worker.share(times * blocks) {
            let (image, column) = (unit / blocks * rows * columns, unit % blocks * BLOCK);
            // SAFETY: input and output hold `times` matrices of `rows * columns` numbers, and only
            // this worker writes the rows of the output that the block's columns become.
            unsafe {
                (self.entry)(&Part {
                    rows,
                    columns,
                    width: BLOCK.min(columns - column),
                    input: io.inputs[0].cast::<f32>().add(image + column),
                    output: io.output.cast::<f32>().add(image + column * rows),
                });
            }
        }
    }
}

/// One block of columns to transpose.
struct Part {
    rows: usize,
    /// Columns of the whole matrix, which is the row stride of the input.
    columns: usize,
    width: usize,
    /// Address of the block's first element.
    input: *const f32,
    /// Address of the output row that the block's first column becomes.
    output: *mut f32,
}

impl SimdFn for Part {
    type Args<'a> = &'a Part;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, part: &Part) {
        let &Part { rows, columns, width, input, output } = part;
        // SAFETY: rows and columns are less than those of the block, for which the caller has
        // numbers at both addresses.
        unsafe {
            if rows < S::LANES || width < QUAD {
                for row in 0..rows {
                    for column in 0..width {
                        *output.add(column * rows + row) = *input.add(row * columns + column);
                    }
                }
                return;
            }
            let mut next = 0;
            while next < rows {
                // The last vector and the last block overlap the ones before them: elements
                // transposed twice cost less than a scalar loop.
                let row = next.min(rows - S::LANES);
                next = row + S::LANES;
                let mut after = 0;
                while after < width {
                    let column = after.min(width - QUAD);
                    after = column + QUAD;
                    let from = input.add(row * columns + column);
                    let quads = std::array::from_fn(|line| {
                        simd.load_quads(from.add(line * columns), QUAD * columns)
                    });
                    for (number, turned) in simd.transpose_quads(quads).into_iter().enumerate() {
                        simd.store(output.add((column + number) * rows + row), turned);
                    }
                }
            }
        }
    }
}
