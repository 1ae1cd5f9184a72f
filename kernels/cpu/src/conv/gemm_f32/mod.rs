//! Packed GEMM: packed weights, the microkernels of one tile, and the division of a rectangle of
//! pixels and channels into tiles. Implicit, explicit and Winograd convolutions use it.

use std::ops::Range;
use std::sync::Arc;

use crate::conv::algorithm::Request;
use crate::conv::support::buffer::{Buffer, LINE};
use crate::conv::support::epilogue::Epilogue;
use crate::conv::support::indirection::IndirectionView;
use crate::conv::support::split::{PartWork, Prefetch};
use crate::conv::support::tiles::{Tile, cover, with_smaller};
use paretune_base::error::KernelError;
use paretune_simd::half::{fp16_bits, round_to_bf16};
use paretune_simd::{IsaToken, lanes};

mod kernel;

pub(crate) use kernel::{Microkernel, MicrokernelArgs, PrefetchArgs};

/// Storage format of packed weights within a buffer of `f32` elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightStorage {
    /// Each weight fills an element: single precision, or a pair of bfloat16.
    F32,
    /// Half precision, two weights per element.
    F16,
}

impl WeightStorage {
    /// Returns the bytes per weight.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<u16>(),
        }
    }

    /// Returns the number of elements that `weights` weights fill.
    fn numbers(self, weights: usize) -> usize {
        weights * self.bytes() / size_of::<f32>()
    }

    /// Writes a weight at index `index` of `numbers`.
    fn put(self, numbers: &mut [f32], index: usize, weight: f32) {
        match self {
            Self::F32 => numbers[index] = weight,
            Self::F16 => {
                // The bits never form a NaN, because weights are finite.
                let mut bytes = numbers[index / 2].to_ne_bytes();
                bytes[index % 2 * 2..][..2].copy_from_slice(&fp16_bits(weight).to_ne_bytes());
                numbers[index / 2] = f32::from_ne_bytes(bytes);
            }
        }
    }
}

/// Packed GEMM: the weights of one group as a `k x n` matrix, packed for a tile.
pub(crate) struct PackedGemm {
    /// Microkernels of the tile and of all smaller ones for edges, `[rows - 1][vectors - 1]`.
    kernels: Vec<Vec<Microkernel>>,
    tile: Tile,
    lanes: usize,
    columns: usize,
    depth: usize,
    held: WeightStorage,
    /// Weights of all products that were packed together, one after another: large enough for huge
    /// pages.
    numbers: Arc<Buffer<f32>>,
    /// Offset of these weights in `numbers`; the bias follows them.
    at: usize,
}

/// GEMM arguments: addresses and strides of one run of a [`PackedGemm`].
#[derive(Clone, Copy)]
pub(crate) struct GemmArgs {
    pub(crate) rows: IndirectionView,
    pub(crate) input: *const f32,
    pub(crate) zeros: *const f32,
    /// Number of elements per run.
    pub(crate) run: usize,
    /// Address of column 0 of row 0.
    pub(crate) output: *mut f32,
    /// Address of the matching residual element, or null.
    pub(crate) residual: *const f32,
    /// Distance in elements between rows of the output.
    pub(crate) stride: usize,
    /// Elements skipped at the end of each row of pixels.
    pub(crate) gap: usize,
    /// Weights to prefetch during the multiplication.
    pub(crate) ahead: Prefetch,
    pub(crate) epilogue: Epilogue,
}

impl PackedGemm {
    /// Packs `count` products of size `k x n` from the weights `weight(product, k, column)` and the
    /// biases `bias(product, column)`.
    ///
    /// # Errors
    /// Fails if the tile has no microkernel.
    pub(crate) fn several(
        request: &Request<'_>,
        token: IsaToken,
        tile: Tile,
        sizes: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<Self>, KernelError> {
        Self::held(request, token, WeightStorage::F32, tile, sizes, weight, bias)
    }

    /// Packs products like [`PackedGemm::several`], with weights in storage format `held`.
    fn held(
        request: &Request<'_>,
        token: IsaToken,
        held: WeightStorage,
        tile: Tile,
        sizes: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<Self>, KernelError> {
        let kernels = with_smaller(tile, |tile| match held {
            WeightStorage::F32 => Microkernel::new(token, tile),
            WeightStorage::F16 => Microkernel::of_halves(token, tile),
        });
        let kernels = kernels.ok_or_else(|| request.bad_value("tile"))?;
        Self::packed(request, lanes(token.isa()), held, tile, kernels, sizes, weight, bias)
    }

    /// Packs products like [`PackedGemm::several`] from pairs of bfloat16, `[weight(product, 2 * k,
    /// column), weight(product, 2 * k + 1, column)]`.
    ///
    /// # Errors
    /// Fails if the processor does not multiply bfloat16.
    pub(crate) fn of_pairs(
        request: &Request<'_>,
        token: IsaToken,
        tile: Tile,
        sizes: [usize; 3],
        weight: impl Fn(usize, usize, usize) -> f32,
        bias: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<Self>, KernelError> {
        let kernels = with_smaller(tile, |tile| Microkernel::of_pairs(token, tile))
            .ok_or_else(|| KernelError::Data("this processor does not multiply bfloat16".into()))?;
        // The upper halves of two single-precision numbers, the first one in the low bits.
        let pair = |product: usize, k: usize, column: usize| {
            let [first, second] =
                [0, 1].map(|i| round_to_bf16(weight(product, 2 * k + i, column)).to_bits());
            f32::from_bits(second | first >> 16)
        };
        Self::packed(
            request,
            lanes(token.isa()),
            WeightStorage::F32,
            tile,
            kernels,
            sizes,
            pair,
            bias,
        )
    }

    /// Packs weights and biases for `tile` and all smaller tiles.
    #[expect(clippy::too_many_arguments, reason = "one call each from two constructors")]
    fn packed(
        request: &Request<'_>,
        lanes: usize,
        held: WeightStorage,
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
                        let row = &mut numbers[held.numbers(start * depth + k * block)..]
                            [..held.numbers(block)];
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

    /// Packs the products of a convolution, one per group. Their k dimension is `[tap][input
    /// channel]`, with taps in the order that `order` gives.
    ///
    /// # Errors
    /// Fails if the weights have another format or the tile has no microkernel.
    pub(crate) fn of_groups(
        request: &Request<'_>,
        token: IsaToken,
        tile: Tile,
        held: WeightStorage,
        order: impl Fn(usize) -> usize,
    ) -> Result<Vec<Self>, KernelError> {
        let weights = request.f32_weights()?;
        let problem = &request.problem;
        let (group_in, group_out) = (problem.group_in(), problem.group_out());
        let taps = problem.taps();
        let depth = taps * group_in;
        // k runs over taps, then channels; stored weights have the opposite order.
        let weight = |group: usize, k: usize, column: usize| {
            weights
                [(group * group_out + column) * depth + k % group_in * taps + order(k / group_in)]
        };
        let bias = |group: usize, column: usize| request.bias(group * group_out + column);
        Self::held(request, token, held, tile, [problem.groups, depth, group_out], weight, bias)
    }

    /// Returns the number of column blocks of the tile's width.
    pub(crate) fn blocks(&self) -> usize {
        self.columns.div_ceil(self.tile.vectors * self.lanes)
    }

    /// Returns the cost that determines the size of parts.
    pub(crate) fn part(&self) -> PartWork {
        PartWork {
            multiply_adds: self.depth * self.tile.vectors * self.lanes,
            rows: self.tile.rows,
            blocks: self.blocks(),
        }
    }

    /// Returns the bytes of packed weights and biases.
    pub(crate) fn bytes(&self) -> usize {
        self.columns.next_multiple_of(self.lanes)
            * (self.depth * self.held.bytes() + size_of::<f32>())
    }

    /// Computes `rows` times the columns of `blocks`, `panel` blocks at a time. Within a panel each
    /// tile of rows visits every block before the next tile is touched.
    ///
    /// # Safety
    /// `args` must be valid for these rows and columns, and no other thread may write there.
    pub(crate) unsafe fn run(
        &self,
        args: &GemmArgs,
        rows: Range<usize>,
        blocks: Range<usize>,
        panel: usize,
    ) {
        // SAFETY: the caller's `args` is valid for these rows and columns, and all of k is one
        // call.
        unsafe { self.steps(args, rows, blocks, panel, 0..self.depth, true) };
    }

    /// Adds the products of one tap, whose run begins at step `from` in k, to the columns of
    /// `block`. `last` also adds the bias and applies the activation. Prefetching, if asked for,
    /// loads the weights of the next tap.
    ///
    /// # Safety
    /// `args` must be valid for these rows and columns, and its zeros must cover a run and a
    /// tile's width. No other thread may write there.
    pub(crate) unsafe fn add_tap(
        &self,
        args: &GemmArgs,
        rows: Range<usize>,
        block: usize,
        from: usize,
        last: bool,
    ) {
        let epilogue = if last { args.epilogue } else { Epilogue::identity() };
        let args = GemmArgs { residual: args.output, epilogue, ..*args };
        // SAFETY: the caller's `args` is valid for these rows and columns, its zeros cover a
        // tile's width, and there is one block.
        unsafe { self.steps(&args, rows, block..block + 1, 1, from..from + args.run, last) };
    }

    /// Computes like [`PackedGemm::run`] over a range of `steps` in k only; if that is not all of
    /// k, there may be only one block at a time. The bias is added if `biased`, else zeros.
    ///
    /// # Safety
    /// The requirements of [`PackedGemm::run`] must be met; without bias, the zeros of `args` must
    /// cover a tile's width.
    unsafe fn steps(
        &self,
        args: &GemmArgs,
        rows: Range<usize>,
        blocks: Range<usize>,
        panel: usize,
        steps: Range<usize>,
        biased: bool,
    ) {
        // SAFETY: the products that were packed together have all their weights and biases there.
        let weights = unsafe { self.numbers.as_ptr().add(self.at) };
        // SAFETY: the biases of a product follow its weights, the columns of which are padded to
        // vectors.
        let bias = unsafe {
            weights.add(self.held.numbers(self.columns.next_multiple_of(self.lanes) * self.depth))
        };
        let tiles = rows.len().div_ceil(self.tile.rows);
        let first = rows.start;
        cover(self.tile, self.lanes, self.columns, rows, blocks, panel, |span| {
            let width = span.tile.vectors * self.lanes;
            let next = self.held.numbers(steps.len() * width * span.blocks);
            let done = (span.first - first).div_ceil(self.tile.rows);
            // SAFETY: `cover` names blocks of `blocks` and rows of `rows`. Weights and biases have
            // all blocks and steps, and the caller's addresses are valid for these rows and
            // columns.
            unsafe {
                let weights =
                    weights.add(self.held.numbers(span.column * self.depth + steps.start * width));
                let residual = args.residual;
                let kernel_args = MicrokernelArgs {
                    rows: args.rows,
                    input: args.input,
                    zeros: args.zeros,
                    run: args.run,
                    weights,
                    bias: if biased { bias.add(span.column) } else { args.zeros },
                    fetch: fetch(
                        args.ahead,
                        weights,
                        next,
                        self.held.numbers(width),
                        [done, tiles],
                    ),
                    output: args.output.add(span.column),
                    residual: if residual.is_null() { residual } else { residual.add(span.column) },
                    pixel: args.stride,
                    gap: args.gap,
                    first: span.first,
                    tiles: span.tiles,
                    blocks: span.blocks,
                    channels: span.channels,
                    epilogue: args.epilogue,
                };
                (self.kernels[span.tile.rows - 1][span.tile.vectors - 1].run)(&kernel_args);
            }
        });
    }

    /// Returns the columns of a block.
    pub(crate) fn block(&self, block: usize) -> Range<usize> {
        let width = self.tile.vectors * self.lanes;
        block * width..self.columns.min((block + 1) * width)
    }
}

/// Returns the prefetch of tiles that multiply by `weights`, whose columns take `width` elements
/// per step. The following weights begin `next` elements later, and `done` of all `tiles` have been
/// computed.
fn fetch(
    ahead: Prefetch,
    weights: *const f32,
    next: usize,
    width: usize,
    [done, tiles]: [usize; 2],
) -> PrefetchArgs {
    match ahead {
        Prefetch::Nothing => PrefetchArgs { from: weights, tile: 0, step: width },
        Prefetch::Numbers(count) => {
            PrefetchArgs { from: weights.wrapping_add(count), tile: 0, step: width }
        }
        Prefetch::Next => {
            let tile = next.div_ceil(tiles);
            PrefetchArgs {
                from: weights.wrapping_add(next + done * tile),
                tile,
                step: width.div_ceil(tiles),
            }
        }
    }
}
