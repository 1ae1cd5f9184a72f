//! Packed 8-bit GEMM tap by tap: every tap visits only the pixels that find it in the input, and
//! sums wait in memory from one tap to the next.

use super::tap_kernel::{TapArgs, TapMicrokernel};
use super::{EpilogueI8, PackedGemm, Target};
use crate::conv::algorithm::Request;
use crate::conv::support::buffer::LINE;
use crate::conv::support::epilogue_i8::StoreTileI8;
use crate::conv::support::indirection::IndirectionView;
use crate::conv::support::tiles::{Tile, balanced, with_smaller};
use paretune_base::error::KernelError;
use paretune_simd::{Dispatch, IsaToken};

/// Packed GEMM of one group, tap by tap.
pub(crate) struct PackedTapGemm {
    gemm: PackedGemm,
    /// Microkernels, `[rows - 1][vectors - 1]`.
    kernels: Vec<Vec<TapMicrokernel>>,
    epilogue: unsafe fn(StoreTileI8<'_>),
    taps: usize,
}

/// Addresses of the input and the sums of one tap.
#[derive(Clone, Copy)]
pub(crate) struct TapGemmArgs {
    pub(crate) rows: IndirectionView,
    pub(crate) input: *const u8,
    /// Sums of a block of channels, for the first pixel that finds the tap in the input.
    pub(crate) sums: *mut i32,
    /// Number of pixels per output row that do not find the tap in the input.
    pub(crate) skipped: usize,
    /// Prefetch distance of the weights in bytes, used if a tap has a single tile. If it is not
    /// zero, several tiles prefetch the weights of the next tap.
    pub(crate) ahead: usize,
}

impl PackedTapGemm {
    /// Packs the products of a convolution, one per group, with the weights of `taps` in this
    /// order.
    ///
    /// # Errors
    /// Fails in the cases of [`PackedGemm::of_groups`].
    pub(crate) fn of_groups(
        request: &Request<'_>,
        token: IsaToken,
        tile: Tile,
        taps: &[usize],
        widened: bool,
    ) -> Result<Vec<Self>, KernelError> {
        let shape = [taps.len(), request.problem.group_in()];
        let gemms = PackedGemm::of_groups(request, token, tile, shape, widened, Some(taps))?;
        let kernels = with_smaller(tile, |tile| TapMicrokernel::new(token, tile, widened))
            .ok_or_else(|| request.bad_value("tile"))?;
        let epilogue = token.pointer::<StoreTileI8<'_>>();
        let of_product = |gemm| Self { gemm, kernels: kernels.clone(), epilogue, taps: taps.len() };
        Ok(gemms.into_iter().map(of_product).collect())
    }

    /// Returns the number of column blocks, see [`PackedGemm::blocks`].
    pub(crate) fn blocks(&self) -> usize {
        self.gemm.blocks()
    }

    /// Returns the bytes of packed data, see [`PackedGemm::bytes`].
    pub(crate) fn bytes(&self) -> usize {
        self.gemm.bytes()
    }

    /// Returns the number of sums per pixel in a block: its channels, padded to whole vectors.
    pub(crate) fn width(&self, block: usize) -> usize {
        self.block(block)[2] * self.gemm.lanes
    }

    /// Returns a block's first channel, its number of channels, and its number of vectors.
    fn block(&self, block: usize) -> [usize; 3] {
        let PackedGemm { tile, lanes, columns, .. } = self.gemm;
        let first = block * tile.vectors * lanes;
        let channels = (columns - first).min(tile.vectors * lanes);
        [first, channels, channels.div_ceil(lanes)]
    }

    /// Adds the products of tap `number` of the order to the sums of `pixels` pixels, for one
    /// block.
    ///
    /// # Safety
    /// `args` must be valid for these pixels, with a sum for every lane of the block's vectors. No
    /// other thread may write the sums.
    pub(crate) unsafe fn add_tap(
        &self,
        args: &TapGemmArgs,
        pixels: usize,
        block: usize,
        number: usize,
    ) {
        let PackedGemm { tile, depth, bytes, group, .. } = self.gemm;
        let [column, _, vectors] = self.block(block);
        let width = self.width(block);
        let run = depth / self.taps;
        let padded = self.gemm.start.len() / self.taps;
        let groups = run / group;
        let parts = balanced(pixels, tile.rows);
        let all = parts[0].1 + parts[1].1;
        let own = run * width * bytes;
        // The first of several tiles finds its weights in the cache, because every tile of the
        // previous tap has prefetched a part of them. Memory is thus kept busy all the time.
        let (distance, lines) = match args.ahead {
            0 => (0, 0),
            near if all == 1 => (near, (own / groups).div_ceil(LINE)),
            _ => (own, (own / groups).div_ceil(LINE * all)),
        };
        let weights = (column * depth + number * run * width) * bytes;
        let weights = self.gemm.weights.as_ptr().wrapping_add(weights);
        let mut first = 0;
        let mut fetch = weights.wrapping_add(distance);
        for (height, tiles) in parts {
            if tiles == 0 {
                continue;
            }
            // SAFETY: the block and the tap are within the packed weights and starts. The caller
            // has input and sums for these pixels, the latter for every lane of the block.
            unsafe {
                (self.kernels[height - 1][vectors - 1].run)(&TapArgs {
                    rows: args.rows,
                    input: args.input,
                    run: groups,
                    weights,
                    start: self.gemm.start.as_ptr().add(number * padded + column),
                    sums: args.sums,
                    pixel: width,
                    gap: args.skipped * width,
                    first,
                    tiles,
                    fetch: (fetch, lines),
                });
            }
            fetch = fetch.wrapping_add(tiles * groups * lines * LINE);
            first += height * tiles;
        }
    }

    /// Applies the epilogue to the sums of `pixels` consecutive pixels of one block and stores the
    /// results. `at` is the offset of the group's first channel in the first pixel, and `stride`
    /// the distance between pixels.
    ///
    /// # Safety
    /// `sums` must hold the sums of the pixels. `target` must be valid there, and no other thread
    /// may write there.
    pub(crate) unsafe fn store(
        &self,
        sums: *const i32,
        pixels: usize,
        block: usize,
        target: Target,
        epilogue: &EpilogueI8,
        [at, stride]: [usize; 2],
    ) {
        let [column, channels, vectors] = self.block(block);
        // SAFETY: scales and biases are padded to whole vectors. The caller has the sums of the
        // pixels, and `target` is valid at them.
        unsafe {
            (self.epilogue)(StoreTileI8 {
                epilogue,
                target,
                scale: self.gemm.scale.as_ptr().add(column),
                bias: self.gemm.bias.as_ptr().add(column),
                pixel: stride,
                sums,
                rows: pixels,
                vectors,
                at: at + column,
                channels,
            });
        }
    }
}
