//! A prepared matrix product: packed weights, the microkernels of one tile, and how a rectangle of
//! pixels and channels is cut into tiles. Implicit, explicit and Winograd convolutions end here.

use std::ops::Range;
use std::sync::Arc;

use super::Request;
use super::buffer::{Buffer, LINE};
use super::finish::Finish;
use super::rows::RowsView;
use super::tiles::{Tile, cover, with_smaller};
use crate::error::KernelError;
use crate::simd::{Usable, lanes};

mod kernel;

pub(super) use kernel::{Microkernel, Strip};

/// Weights of one group as a matrix `depth x columns`, packed for a tile.
pub(super) struct Product {
    /// `[rows - 1][vectors - 1]`: the tile's and all smaller ones, for edges.
    kernels: Vec<Vec<Microkernel>>,
    tile: Tile,
    lanes: usize,
    columns: usize,
    depth: usize,
    /// Of all products that were packed together, one after another: large enough for huge pages.
    numbers: Arc<Buffer<f32>>,
    /// Where in `numbers` these weights begin; the bias follows them.
    at: usize,
}

/// Where a [`Product`] reads and writes in one run.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) rows: RowsView,
    pub(super) input: *const f32,
    pub(super) zeros: *const f32,
    /// Numbers per run.
    pub(super) run: usize,
    /// Column 0 of row 0.
    pub(super) output: *mut f32,
    /// The same of the residual, or null.
    pub(super) residual: *const f32,
    /// Numbers from one row of the output to the next.
    pub(super) stride: usize,
    /// How many numbers ahead weights are fetched.
    pub(super) ahead: usize,
    pub(super) finish: Finish,
}

impl Product {
    /// Packs `count` products `depth x columns` of weights `weight(product, k, column)` and biases `bias(product,
    /// column)`; `None` where the tile has no microkernel.
    pub(super) fn several(
        usable: Usable,
        tile: Tile,
        [count, depth, columns]: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Option<Vec<Self>> {
        let lanes = lanes(usable.isa());
        let kernels = with_smaller(tile, |tile| Microkernel::new(usable, tile))?;
        let padded = columns.next_multiple_of(lanes);
        let each = (padded * (depth + 1)).next_multiple_of(LINE / size_of::<f32>());
        let mut packed = Buffer::zeros(each * count);
        let width = tile.vectors * lanes;
        for (product, numbers) in packed.as_mut_slice().chunks_mut(each.max(1)).enumerate() {
            for start in (0..columns).step_by(width) {
                // The last block is as narrow as whole vectors allow.
                let block = width.min(padded - start);
                for k in 0..depth {
                    let row = &mut numbers[start * depth + k * block..][..block.min(columns - start)];
                    for (column, number) in row.iter_mut().enumerate() {
                        *number = weight(product, k, start + column);
                    }
                }
            }
            for (column, number) in numbers[padded * depth..][..columns].iter_mut().enumerate() {
                *number = bias(product, column);
            }
        }
        let numbers = Arc::new(packed);
        let products = (0..count).map(|product| Self {
            kernels: kernels.clone(),
            tile,
            lanes,
            columns,
            depth,
            numbers: Arc::clone(&numbers),
            at: product * each,
        });
        Some(products.collect())
    }

    /// The products of a convolution, one per group, of depth `[tap][input channel]`.
    ///
    /// # Errors
    /// Where the weights are of another format or the tile has no microkernel.
    pub(super) fn of_groups(
        request: &Request<'_>,
        usable: Usable,
        tile: Tile,
    ) -> Result<Vec<Self>, KernelError> {
        let weights = request.f32_weights()?;
        let problem = &request.problem;
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let taps: usize = problem.window.kernel.iter().product();
        let depth = taps * group_in;
        // Depth runs over taps, then channels; stored weights have it the other way round.
        let weight = |group: usize, k: usize, column: usize| {
            weights[(group * group_out + column) * depth + k % group_in * taps + k / group_in]
        };
        let bias = |group: usize, column: usize| request.bias(group * group_out + column);
        Self::several(usable, tile, [problem.groups, depth, group_out], weight, bias)
            .ok_or_else(|| request.bad_value("tile"))
    }

    /// Blocks of columns that the tile cuts the product into.
    pub(super) fn blocks(&self) -> usize {
        self.columns.div_ceil(self.tile.vectors * self.lanes)
    }

    /// Bytes of packed weights and bias.
    pub(super) fn bytes(&self) -> usize {
        self.columns.next_multiple_of(self.lanes) * (self.depth + 1) * size_of::<f32>()
    }

    /// Computes `rows` times the columns of `blocks`, `panel` blocks at a time: within a panel each
    /// tile of rows meets every block before the next tile is touched.
    ///
    /// # Safety
    /// `place` is valid for these rows and columns, and nobody else writes there.
    pub(super) unsafe fn run(&self, place: &Place, rows: Range<usize>, blocks: Range<usize>, panel: usize) {
        // SAFETY: the products that were packed together have all their weights and biases there.
        let weights = unsafe { self.numbers.as_ptr().add(self.at) };
        // SAFETY: as above.
        let bias = unsafe { weights.add(self.columns.next_multiple_of(self.lanes) * self.depth) };
        cover(self.tile, self.lanes, self.columns, rows, blocks, panel, |span| {
            // SAFETY: all are within the packed weights and the caller's rectangle.
            unsafe {
                let residual = place.residual;
                let strip = Strip {
                    rows: place.rows,
                    input: place.input,
                    zeros: place.zeros,
                    run: place.run,
                    weights: weights.add(span.column * self.depth),
                    bias: bias.add(span.column),
                    ahead: place.ahead,
                    output: place.output.add(span.column),
                    residual: if residual.is_null() { residual } else { residual.add(span.column) },
                    pixel: place.stride,
                    first: span.first,
                    tiles: span.tiles,
                    blocks: span.blocks,
                    channels: span.channels,
                    finish: place.finish,
                };
                (self.kernels[span.tile.rows - 1][span.tile.vectors - 1].run)(&strip);
            }
        });
    }
}
