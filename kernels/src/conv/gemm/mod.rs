//! A prepared matrix product: packed weights, the microkernels of one tile, and how a rectangle of
//! pixels and channels is cut into tiles. Implicit, explicit and Winograd convolutions end here.

use std::ops::Range;
use std::sync::Arc;

use super::Request;
use super::buffer::{Buffer, LINE};
use super::finish::Finish;
use super::rows::RowsView;
use super::split::{Ahead, PartWork};
use super::tiles::{Tile, cover, with_smaller};
use crate::error::KernelError;
use crate::halves::{fp16_bits, round_to_bf16};
use crate::simd::{Usable, lanes};

mod kernel;

pub(super) use kernel::{Fetch, Microkernel, Strip};

/// How the weights of a [`Product`] are held among its numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Each is a number, or a pair that is as long as one.
    Whole,
    /// In half precision, two in the place of a number.
    Halves,
}

impl Held {
    /// Bytes of a weight.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Whole => size_of::<f32>(),
            Self::Halves => size_of::<u16>(),
        }
    }

    /// The numbers that so many weights take, which fill them.
    fn numbers(self, weights: usize) -> usize {
        weights * self.bytes() / size_of::<f32>()
    }

    /// Puts a weight into its place, which `numbers` have.
    fn put(self, numbers: &mut [f32], place: usize, weight: f32) {
        match self {
            Self::Whole => numbers[place] = weight,
            Self::Halves => {
                // The bits are never those of something that is not a number, as weights are finite.
                let mut bytes = numbers[place / 2].to_ne_bytes();
                bytes[place % 2 * 2..][..2].copy_from_slice(&fp16_bits(weight).to_ne_bytes());
                numbers[place / 2] = f32::from_ne_bytes(bytes);
            }
        }
    }
}

/// Weights of one group as a matrix `depth x columns`, packed for a tile.
pub(super) struct Product {
    /// `[rows - 1][vectors - 1]`: the tile's and all smaller ones, for edges.
    kernels: Vec<Vec<Microkernel>>,
    tile: Tile,
    lanes: usize,
    columns: usize,
    depth: usize,
    held: Held,
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
    /// Numbers left out at the end of each row of pixels.
    pub(super) gap: usize,
    /// Which weights are fetched meanwhile.
    pub(super) ahead: Ahead,
    pub(super) finish: Finish,
}

impl Product {
    /// Packs `count` products `depth x columns` of weights `weight(product, k, column)` and biases `bias(product,
    /// column)`.
    ///
    /// # Errors
    /// Where the tile has no microkernel.
    pub(super) fn several(
        request: &Request<'_>,
        usable: Usable,
        tile: Tile,
        sizes: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<Self>, KernelError> {
        Self::held(request, usable, Held::Whole, tile, sizes, weight, bias)
    }

    /// The same, of weights that may be held in half precision.
    fn held(
        request: &Request<'_>,
        usable: Usable,
        held: Held,
        tile: Tile,
        sizes: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<Self>, KernelError> {
        let kernels = with_smaller(tile, |tile| match held {
            Held::Whole => Microkernel::new(usable, tile),
            Held::Halves => Microkernel::of_halves(usable, tile),
        });
        let kernels = kernels.ok_or_else(|| request.bad_value("tile"))?;
        Self::packed(request, lanes(usable.isa()), held, tile, kernels, sizes, weight, bias)
    }

    /// [`Product::several`] of pairs of bfloat16 `[weight(product, 2 * k, column), weight(product, 2 * k + 1, column)]`.
    ///
    /// # Errors
    /// Where the processor does not multiply such pairs.
    pub(super) fn of_pairs(
        request: &Request<'_>,
        usable: Usable,
        tile: Tile,
        sizes: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<Self>, KernelError> {
        let kernels = with_smaller(tile, |tile| Microkernel::of_pairs(usable, tile))
            .ok_or_else(|| KernelError::Data("this processor does not multiply bfloat16".into()))?;
        // The upper halves of two numbers, the first one below.
        let pair = |product: usize, k: usize, column: usize| {
            let [first, second] = [0, 1].map(|i| round_to_bf16(weight(product, 2 * k + i, column)).to_bits());
            f32::from_bits(second | first >> 16)
        };
        Self::packed(request, lanes(usable.isa()), Held::Whole, tile, kernels, sizes, pair, bias)
    }

    /// Weights and biases packed for `tile` and all that are smaller.
    #[expect(clippy::too_many_arguments, reason = "one call each from two constructors")]
    fn packed(
        request: &Request<'_>,
        lanes: usize,
        held: Held,
        tile: Tile,
        kernels: Vec<Vec<Microkernel>>,
        [count, depth, columns]: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<Self>, KernelError> {
        let padded = columns.next_multiple_of(lanes);
        let matrix = held.numbers(padded * depth);
        let each = (matrix + padded).next_multiple_of(LINE / size_of::<f32>());
        let width = tile.vectors * lanes;
        let packed = request.packing.numbers(each * count, |packed| {
            for (product, numbers) in packed.chunks_mut(each.max(1)).enumerate() {
                for start in (0..columns).step_by(width) {
                    // The last block is as narrow as whole vectors allow.
                    let block = width.min(padded - start);
                    for k in 0..depth {
                        let row =
                            &mut numbers[held.numbers(start * depth + k * block)..][..held.numbers(block)];
                        for column in 0..block.min(columns - start) {
                            held.put(row, column, weight(product, k, start + column));
                        }
                    }
                }
                for (column, number) in numbers[matrix..][..columns].iter_mut().enumerate() {
                    *number = bias(product, column);
                }
            }
        })?;
        let numbers = Arc::new(packed);
        let products = (0..count).map(|product| Self {
            kernels: kernels.clone(),
            tile,
            lanes,
            columns,
            depth,
            held,
            numbers: Arc::clone(&numbers),
            at: product * each,
        });
        Ok(products.collect())
    }

    /// The products of a convolution, one per group, of depth `[tap][input channel]`, the taps being those of `order`.
    ///
    /// # Errors
    /// Where the weights are of another format or the tile has no microkernel.
    pub(super) fn of_groups(
        request: &Request<'_>,
        usable: Usable,
        tile: Tile,
        held: Held,
        order: impl Fn(usize) -> usize,
    ) -> Result<Vec<Self>, KernelError> {
        let weights = request.f32_weights()?;
        let problem = &request.problem;
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let taps: usize = problem.window.kernel.iter().product();
        let depth = taps * group_in;
        // Depth runs over taps, then channels; stored weights have it the other way round.
        let weight = |group: usize, k: usize, column: usize| {
            weights[(group * group_out + column) * depth + k % group_in * taps + order(k / group_in)]
        };
        let bias = |group: usize, column: usize| request.bias(group * group_out + column);
        Self::held(request, usable, held, tile, [problem.groups, depth, group_out], weight, bias)
    }

    /// Blocks of columns that the tile cuts the product into.
    pub(super) fn blocks(&self) -> usize {
        self.columns.div_ceil(self.tile.vectors * self.lanes)
    }

    /// What sizes of parts of the product depend on.
    pub(super) fn part(&self) -> PartWork {
        PartWork {
            multiply_adds: self.depth * self.tile.vectors * self.lanes,
            rows: self.tile.rows,
            blocks: self.blocks(),
        }
    }

    /// Bytes of packed weights and bias.
    pub(super) fn bytes(&self) -> usize {
        self.columns.next_multiple_of(self.lanes) * (self.depth * self.held.bytes() + size_of::<f32>())
    }

    /// Computes `rows` times the columns of `blocks`, `panel` blocks at a time: within a panel each
    /// tile of rows meets every block before the next tile is touched.
    ///
    /// # Safety
    /// `place` is valid for these rows and columns, and nobody else writes there.
    pub(super) unsafe fn run(&self, place: &Place, rows: Range<usize>, blocks: Range<usize>, panel: usize) {
        // SAFETY: passed on.
        unsafe { self.steps(place, rows, blocks, panel, 0..self.depth, true) };
    }

    /// Adds what the steps of one tap in depth give, the run of which begins at step `from`, to the columns of `block`;
    /// `last` also adds the bias and applies the activation. If weights are fetched ahead, it is those of the next tap.
    ///
    /// # Safety
    /// `place` is valid for these rows and columns, it has a run's zeros and those of a tile's width, and nobody
    /// else writes there.
    pub(super) unsafe fn add_tap(
        &self,
        place: &Place,
        rows: Range<usize>,
        block: usize,
        from: usize,
        last: bool,
    ) {
        let finish = if last { place.finish } else { Finish::identity() };
        let place = Place { residual: place.output, finish, ..*place };
        // SAFETY: passed on.
        unsafe { self.steps(&place, rows, block..block + 1, 1, from..from + place.run, last) };
    }

    /// [`Product::run`] with the weights of some `steps` in depth only (of one block at a time, if not of all), with the bias
    /// or with zeros in its place.
    ///
    /// # Safety
    /// As there; without bias `place` has zeros for a tile's width.
    unsafe fn steps(
        &self,
        place: &Place,
        rows: Range<usize>,
        blocks: Range<usize>,
        panel: usize,
        steps: Range<usize>,
        biased: bool,
    ) {
        // SAFETY: the products that were packed together have all their weights and biases there.
        let weights = unsafe { self.numbers.as_ptr().add(self.at) };
        // SAFETY: as above.
        let bias =
            unsafe { weights.add(self.held.numbers(self.columns.next_multiple_of(self.lanes) * self.depth)) };
        let tiles = rows.len().div_ceil(self.tile.rows);
        let first = rows.start;
        cover(self.tile, self.lanes, self.columns, rows, blocks, panel, |span| {
            let width = span.tile.vectors * self.lanes;
            let next = self.held.numbers(steps.len() * width * span.blocks);
            let done = (span.first - first).div_ceil(self.tile.rows);
            // SAFETY: all are within the packed weights and the caller's rectangle.
            unsafe {
                let weights = weights.add(self.held.numbers(span.column * self.depth + steps.start * width));
                let residual = place.residual;
                let strip = Strip {
                    rows: place.rows,
                    input: place.input,
                    zeros: place.zeros,
                    run: place.run,
                    weights,
                    bias: if biased { bias.add(span.column) } else { place.zeros },
                    fetch: fetch(place.ahead, weights, next, self.held.numbers(width), [done, tiles]),
                    output: place.output.add(span.column),
                    residual: if residual.is_null() { residual } else { residual.add(span.column) },
                    pixel: place.stride,
                    gap: place.gap,
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

    /// The columns of a block.
    pub(super) fn block(&self, block: usize) -> Range<usize> {
        let width = self.tile.vectors * self.lanes;
        block * width..self.columns.min((block + 1) * width)
    }
}

/// What tiles fetch that work on columns of `weights` that take `width` numbers, `next` numbers before what comes after
/// these, when `done` of all `tiles` have met them.
fn fetch(ahead: Ahead, weights: *const f32, next: usize, width: usize, [done, tiles]: [usize; 2]) -> Fetch {
    match ahead {
        Ahead::Nothing => Fetch { from: weights, tile: 0, step: width },
        Ahead::Numbers(count) => Fetch { from: weights.wrapping_add(count), tile: 0, step: width },
        Ahead::Next => {
            let tile = next.div_ceil(tiles);
            Fetch { from: weights.wrapping_add(next + done * tile), tile, step: width.div_ceil(tiles) }
        }
    }
}
