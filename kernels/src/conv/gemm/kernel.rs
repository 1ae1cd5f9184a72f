//! Single-precision microkernels: a tile of output pixels by output channels, summed in registers over
//! the runs of input that [`RowsView`] finds, finished, and stored.

use crate::conv::buffer::LINE;
use crate::conv::finish::{Finish, StoreTile};
use crate::conv::rows::RowsView;
use crate::conv::tiles::{Tile, entry_for_16, entry_for_32, entry_for_any};
use crate::hardware::Isa;
use crate::simd::{Job, Simd, Usable};

/// Arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive channels.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Strip {
    /// Where pixels find their runs.
    pub rows: RowsView,
    /// What `rows` is about.
    pub input: *const f32,
    /// `run` zeros, for padding.
    pub zeros: *const f32,
    /// Numbers per run.
    pub run: usize,
    /// `[block][run of every tap][channel of the block]`, channels padded to whole vectors.
    pub weights: *const f32,
    /// `[block][channel of the block]`
    pub bias: *const f32,
    /// Of the first block's first channel in pixel 0.
    pub output: *mut f32,
    /// The same of the residual, or null.
    pub residual: *const f32,
    /// Numbers from one pixel to the next, of output and residual.
    pub pixel: usize,
    /// First pixel.
    pub first: usize,
    /// How many tiles follow it.
    pub tiles: usize,
    /// How many blocks of channels.
    pub blocks: usize,
    /// How many numbers ahead weights are fetched into the cache; where that is 0, nothing is gained or lost.
    pub ahead: usize,
    /// How many channels there really are in these blocks.
    pub channels: usize,
    /// The activation.
    pub finish: Finish,
}

/// Computes a [`Strip`].
///
/// # Safety
/// All pointers in the strip are valid for what it describes, and nobody else writes its output.
pub(in crate::conv) type Entry = unsafe fn(&Strip);

/// A microkernel. It exists only where the processor executes its instruction set.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Microkernel {
    /// What to call.
    pub run: Entry,
}

impl Microkernel {
    /// The compiled microkernel for `tile`, if there is one.
    pub(in crate::conv) fn new(usable: Usable, tile: Tile) -> Option<Self> {
        let (rows, vectors) = (tile.rows, tile.vectors);
        let run = match usable.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => entry_for_16!(entry, crate::simd::Avx2, rows, vectors),
            // Single precision is the same with and without VNNI.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni => entry_for_32!(entry, crate::simd::Avx512, rows, vectors),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => entry_for_32!(entry, crate::simd::Neon, rows, vectors),
            _ => entry_for_any!(entry, crate::simd::Portable, rows, vectors),
        };
        run.map(|run| Self { run })
    }
}

/// One compiled microkernel.
///
/// # Safety
/// As for [`Entry`], and the processor executes `S`; [`Microkernel::new`] sees to that.
unsafe fn entry<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<ROWS, VECTORS>(strip)) }
}

struct Tiles<'a, const ROWS: usize, const VECTORS: usize>(&'a Strip);

impl<const ROWS: usize, const VECTORS: usize> Job for Tiles<'_, ROWS, VECTORS> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let strip = self.0;
        let width = VECTORS * S::LANES;
        let [tap_rows, tap_columns] = strip.rows.taps;
        let mut pixel = strip.rows.pixel(strip.first);
        // SAFETY: the strip's pointers are valid for what it describes; every offset below stays within.
        unsafe {
            for tile in 0..strip.tiles {
                let sites: [_; ROWS] = std::array::from_fn(|_| {
                    let site = strip.rows.site(pixel);
                    pixel = strip.rows.next(pixel);
                    site
                });
                let start = (strip.first + tile * ROWS) * strip.pixel;
                let mut weights = strip.weights;
                for block in 0..strip.blocks {
                    let bias = strip.bias.add(block * width);
                    let first: [S::F; VECTORS] = std::array::from_fn(|v| S::load(bias.add(v * S::LANES)));
                    let mut sums = [first; ROWS];
                    for ky in 0..tap_rows {
                        for kx in 0..tap_columns {
                            let runs: [_; ROWS] =
                                std::array::from_fn(|r| sites[r].run(ky, kx, strip.input, strip.zeros));
                            for k in 0..strip.run {
                                let w: [S::F; VECTORS] =
                                    std::array::from_fn(|v| S::load(weights.add(v * S::LANES)));
                                for r in 0..ROWS {
                                    let x = S::splat(*runs[r].add(k));
                                    for v in 0..VECTORS {
                                        sums[r][v] = S::fma(x, w[v], sums[r][v]);
                                    }
                                }
                                for v in (0..VECTORS).step_by(LINE / (4 * S::LANES)) {
                                    S::prefetch(weights.wrapping_add(strip.ahead + v * S::LANES));
                                }
                                weights = weights.add(width);
                            }
                        }
                    }
                    let at = start + block * width;
                    let channels = strip.channels - block * width;
                    if channels >= width && strip.finish.other.is_none() {
                        store_whole::<S, ROWS, VECTORS>(strip, at, &sums);
                    } else {
                        let sums = sums;
                        let residual = strip.residual;
                        S::vectorize(StoreTile {
                            sums: sums.as_ptr().cast(),
                            rows: ROWS,
                            vectors: VECTORS,
                            channels: channels.min(width),
                            output: strip.output.add(at),
                            residual: if residual.is_null() { residual } else { residual.add(at) },
                            pixel: strip.pixel,
                            finish: &strip.finish,
                        });
                    }
                }
            }
        }
    }
}

/// Stores a tile all of whose channels exist, clamped.
///
/// # Safety
/// `at` is the tile's place in the strip's output.
#[inline(always)]
unsafe fn store_whole<S: Simd, const ROWS: usize, const VECTORS: usize>(
    strip: &Strip,
    at: usize,
    sums: &[[S::F; VECTORS]; ROWS],
) {
    // SAFETY: the caller vouches for the tile's place.
    unsafe {
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let at = at + r * strip.pixel + v * S::LANES;
                let mut sum = sums[r][v];
                if !strip.residual.is_null() {
                    sum = S::add(sum, S::load(strip.residual.add(at)));
                }
                S::store(strip.output.add(at), strip.finish.clamp::<S>(sum));
            }
        }
    }
}
