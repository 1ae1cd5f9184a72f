//! Products of two computed matrices, batched, with broadcasting of the outer axes.

use super::{Context, Io, Loops, OperatorKernel, on};
use paretune_base::threads::Worker;

/// Rows of the result that are computed together in registers.
const ROWS: usize = 4;
/// Columns of the result that are computed together in registers.
const COLUMNS: usize = 32;

/// Builds the product of values of shapes `a` and `b` (batch not counted), whose result has the
/// shape `out`. All are row-major.
pub fn prepare(
    context: Context,
    a: &[usize],
    b: &[usize],
    out: &[usize],
) -> Box<dyn OperatorKernel> {
    let (rank, batch) = (out.len(), context.batch);
    let (rows, columns) = (out[rank - 2], out[rank - 1]);
    let depth = a[a.len() - 1];
    let len = |dims: &[usize]| dims.iter().product::<usize>();
    // The matrix of each operand that belongs to each matrix of one image's result.
    let outer = &out[..rank - 2];
    let count = len(outer);
    let place = |dims: &[usize], index: usize| {
        let own = &dims[..dims.len() - 2];
        let (mut rest, mut at, mut stride) = (index, 0, 1);
        for axis in (0..outer.len()).rev() {
            let position = rest % outer[axis];
            rest /= outer[axis];
            if let Some(size) = (axis + own.len()).checked_sub(outer.len()).map(|axis| own[axis]) {
                at += if size == 1 { 0 } else { position * stride };
                stride *= size;
            }
        }
        at
    };
    let places = (0..count).map(|index| [place(a, index), place(b, index)]).collect();
    let sizes = [len(a), len(b)];
    on(context.isa, MatMul { batch, rows, depth, columns, places, sizes })
}

struct MatMul {
    batch: usize,
    rows: usize,
    depth: usize,
    columns: usize,
    /// For each matrix of one image's result the matrices of the operands.
    places: Box<[[usize; 2]]>,
    /// Numbers of one image in both operands.
    sizes: [usize; 2],
}

impl Loops for MatMul {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let Self { batch, rows, depth, columns, .. } = *self;
        // SAFETY: both inputs hold the numbers of `batch` images, and no thread writes an input
        // during the run.
        let (all_a, all_b) = unsafe {
            (io.input::<f32>(0, batch * self.sizes[0]), io.input::<f32>(1, batch * self.sizes[1]))
        };
        let count = self.places.len();
        let (strips, blocks) = (rows.div_ceil(ROWS), columns.div_ceil(COLUMNS));
        for unit in worker.share(batch * count * blocks * strips) {
            let (row, rest) = (unit % strips * ROWS, unit / strips);
            let (column, matrix) = (rest % blocks * COLUMNS, rest / blocks);
            let (image, [place_a, place_b]) = (matrix / count, self.places[matrix % count]);
            let a = &all_a[image * self.sizes[0] + place_a * rows * depth..][..rows * depth];
            let b = &all_b[image * self.sizes[1] + place_b * depth * columns..][..depth * columns];
            let (height, width) = (ROWS.min(rows - row), COLUMNS.min(columns - column));
            let mut sums = [[0.0_f32; COLUMNS]; ROWS];
            // Rows beyond the matrix repeat the last one and are not written.
            let lines: [&[f32]; ROWS] = std::array::from_fn(|i| {
                let row = row + i.min(height - 1);
                &a[row * depth..(row + 1) * depth]
            });
            if width == COLUMNS {
                for k in 0..depth {
                    let Some(b) = b[k * columns + column..].first_chunk::<COLUMNS>() else { break };
                    for (sums, line) in sums.iter_mut().zip(&lines) {
                        let factor = line[k];
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum += factor * b;
                        }
                    }
                }
            } else {
                for k in 0..depth {
                    let b = &b[k * columns + column..][..width];
                    for (sums, line) in sums.iter_mut().zip(&lines) {
                        let factor = line[k];
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum += factor * b;
                        }
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate().take(height) {
                let at = (matrix * rows + row + i) * columns + column;
                // SAFETY: tiles of the output are disjoint and within it.
                let output = unsafe { io.output::<f32>(at, width) };
                output.copy_from_slice(&sums[..width]);
            }
        }
    }

    fn constant_bytes(&self) -> usize {
        self.places.len() * size_of::<[usize; 2]>()
    }
}
