//! Microkernels of [`super`]: the non-zero weights of blocks of output channels, over one register
//! tile of pixels.

use super::Prepared;
use crate::conv::algorithm::Call;
use crate::conv::support::planar::StorePixels;
use crate::conv::support::tiles::instance;
use paretune_simd::{Simd, SimdFn, SimdOp};

/// Blocks of output channels of one tile of flat pixels.
pub(super) struct Tile<'a> {
    pub(super) kernel: &'a Prepared,
    pub(super) call: &'a Call,
    /// Start of the image in the phase-split input.
    pub(super) input: *const f32,
    pub(super) image: usize,
    /// First flat pixel of the tile.
    pub(super) start: usize,
    pub(super) blocks: std::ops::Range<usize>,
    /// The thread's sums, `[block][channel][pixel of the tile]`.
    pub(super) sums: *mut f32,
}

/// Computes a [`Tile`].
///
/// # Safety
/// The addresses in the tile must be valid, and no other thread may write its part of the output.
pub(super) type Entry = unsafe fn(&Tile<'_>);

/// Selects the instantiation for a tile. Few sums are split into several accumulation chains,
/// because each addition waits for the previous one of its chain.
pub(super) struct Select {
    pub(super) channels: usize,
    pub(super) vectors: usize,
}

impl SimdOp for Select {
    type Output = Option<Entry>;

    fn eval<S: Simd>(self, simd: S) -> Option<Entry> {
        instance!(
            simd, Run, Entry, (self.channels, self.vectors),
            1: 1/4 2/4 4/2 6/2 8/1 12/1; 2: 1/4 2/2 4/1 6/1; 4: 1/2 2/1 3/1;
        )
    }
}

struct Run<const CHANNELS: usize, const VECTORS: usize, const CHAINS: usize>;

impl<const CHANNELS: usize, const VECTORS: usize, const CHAINS: usize> SimdFn
    for Run<CHANNELS, VECTORS, CHAINS>
{
    type Args<'a> = &'a Tile<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, tile: &Tile<'_>) {
        let kernel = tile.kernel;
        let (pixels, from) = kernel.phases.window(tile.start, kernel.width);
        let whole = kernel.phases.gapless()
            && pixels.len() == kernel.width
            && kernel.epilogue.other.is_none();
        let residual = tile.call.residual.cast::<f32>();
        for (panel, block) in (0..kernel.panels)
            .flat_map(|panel| tile.blocks.clone().map(move |block| (panel, block)))
        {
            let number = panel * kernel.blocks.len() + block;
            let step = if number == 0 { 0 } else { kernel.ends[number - 1] };
            let mut left = kernel.ends[number] - step;
            let between = tile.sums.wrapping_add(block * CHANNELS * VECTORS * S::LANES);
            let block = &kernel.blocks[block];
            // SAFETY: `width` numbers from `from` on may be read at every distance; outputs are
            // stored by the pixels that exist; there are sums of every block between panels.
            unsafe {
                let input = tile.input.add(from);
                let mut sums = [[[simd.splat(0.0); VECTORS]; CHANNELS]; CHAINS];
                for c in 0..CHANNELS {
                    for v in 0..VECTORS {
                        sums[0][c][v] = if panel == 0 {
                            simd.splat(*kernel.bias.as_ptr().add(block.first + c))
                        } else {
                            simd.load(between.add((c * VECTORS + v) * S::LANES))
                        };
                    }
                }
                let mut distances = kernel.distances.as_ptr().add(step);
                let mut weights = kernel.weights.as_ptr().add(step * CHANNELS);
                macro_rules! step {
                    ($chain:expr, $at:expr) => {
                        let input = input.add(*distances.add($at) as usize);
                        let weights = weights.add($at * CHANNELS);
                        if CHANNELS == 1 {
                            // Inputs are memory operands, which need no register.
                            let weight = simd.splat(*weights);
                            for v in 0..VECTORS {
                                let x = simd.load(input.add(v * S::LANES));
                                sums[$chain][0][v] = simd.fma(weight, x, sums[$chain][0][v]);
                            }
                        } else {
                            let x: [S::F32; VECTORS] =
                                paretune_simd::array(|v| simd.load(input.add(v * S::LANES)));
                            for c in 0..CHANNELS {
                                let weight = simd.splat(*weights.add(c));
                                for v in 0..VECTORS {
                                    sums[$chain][c][v] = simd.fma(weight, x[v], sums[$chain][c][v]);
                                }
                            }
                        }
                    };
                }
                while left >= CHAINS {
                    for c in 0..CHAINS {
                        step!(c, c);
                    }
                    (distances, weights) = (distances.add(CHAINS), weights.add(CHAINS * CHANNELS));
                    left -= CHAINS;
                }
                for c in 0..CHAINS - 1 {
                    if c >= left {
                        break;
                    }
                    step!(c, c);
                }
                for chain in 1..CHAINS {
                    for c in 0..CHANNELS {
                        for v in 0..VECTORS {
                            sums[0][c][v] = simd.add(sums[0][c][v], sums[chain][c][v]);
                        }
                    }
                }
                if panel + 1 < kernel.panels {
                    for c in 0..CHANNELS {
                        for v in 0..VECTORS {
                            simd.store(between.add((c * VECTORS + v) * S::LANES), sums[0][c][v]);
                        }
                    }
                    continue;
                }
                let at = (tile.image * kernel.problem.out_channels + block.first) * kernel.pixels;
                if whole && block.count == CHANNELS {
                    for c in 0..CHANNELS {
                        for v in 0..VECTORS {
                            let at = at + c * kernel.pixels + pixels.start + v * S::LANES;
                            let mut sum = sums[0][c][v];
                            if !residual.is_null() {
                                sum = simd.add(sum, simd.load(residual.add(at)));
                            }
                            simd.store(
                                tile.call.output.cast::<f32>().add(at),
                                kernel.epilogue.clamp(simd, sum),
                            );
                        }
                    }
                    continue;
                }
                let sums = sums[0];
                for c in 0..block.count {
                    let at = at + c * kernel.pixels;
                    simd.call::<StorePixels<'_>>(StorePixels {
                        phases: &kernel.phases,
                        pixels: pixels.clone(),
                        sums: sums
                            .as_ptr()
                            .cast::<f32>()
                            .add(c * VECTORS * S::LANES + pixels.start - from),
                        output: tile.call.output.cast::<f32>().add(at),
                        residual: if residual.is_null() { residual } else { residual.add(at) },
                        epilogue: &kernel.epilogue,
                    });
                }
            }
        }
    }
}
