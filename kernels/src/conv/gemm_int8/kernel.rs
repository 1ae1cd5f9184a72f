//! 8-bit microkernels: a tile of output pixels by output channels, summed exactly in 32-bit integers,
//! then scaled, finished and stored.

use crate::conv::buffer::LINE;
use crate::conv::finish_int8::{Finish8, StoreTile8, Target};
use crate::conv::rows::RowsView;
#[cfg(target_arch = "x86_64")]
use crate::conv::tiles::entry_for_16;
use crate::conv::tiles::{Tile, entry_for_32, entry_for_any};
use crate::hardware::Isa;
use crate::simd::{Job, Simd, Usable};

/// Arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive channels.
#[derive(Clone, Copy)]
pub(in crate::conv) struct Strip {
    /// Where pixels find their windows.
    pub rows: RowsView,
    /// What `rows` is about, in [`Simd::Act`]; it carries its padding.
    pub input: *const u8,
    /// Where the runs of a window lie in it, in [`Simd::Act`].
    pub runs: *const usize,
    /// How many runs there are.
    pub run_count: usize,
    /// Dot-product groups per run; the last may reach beyond the run, into weights of zero.
    pub run: usize,
    /// `[block][group of every run][channel of the block][element of the group]`, channels padded to
    /// whole vectors; of 8 or, where they have been widened, 16 bits.
    pub weights: *const u8,
    /// `[block][channel]`: where sums start.
    pub start: *const i32,
    /// `[block][channel]`: what a sum is multiplied with, see [`Finish8::scale`].
    pub scale: *const f32,
    /// `[block][channel]`: see [`Finish8::bias`].
    pub bias: *const f32,
    /// Output and residual.
    pub target: Target,
    /// Number of the first block's first channel in pixel 0.
    pub at: usize,
    /// Numbers from one pixel to the next, of output and residual.
    pub pixel: usize,
    /// First pixel.
    pub first: usize,
    /// How many tiles follow it.
    pub tiles: usize,
    /// How many blocks of channels.
    pub blocks: usize,
    /// How many bytes of weights are fetched ahead into the cache; where that is 0, nothing is gained or lost.
    pub ahead: usize,
    /// How many channels there really are in these blocks.
    pub channels: usize,
    /// What follows the sum.
    pub finish: Finish8,
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

/// The function `$entry::<set, rows, vectors>` for the instruction set and the tile, if it is compiled, or
/// `$entry_widened` for weights of 16 bits, which exist where [`widens`] says so.
macro_rules! compiled {
    ($entry:ident, $entry_widened:ident, $usable:expr, $tile:expr, $widened:expr) => {{
        let (rows, vectors): (usize, usize) = ($tile.rows, $tile.vectors);
        match $usable.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if $widened => entry_for_16!($entry_widened, crate::simd::Avx2, rows, vectors),
            _ if $widened => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => entry_for_16!($entry, crate::simd::Avx2, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => entry_for_16!($entry, crate::simd::AvxVnni, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => entry_for_32!($entry, crate::simd::Avx512, rows, vectors),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Avx512Bf16 => {
                entry_for_32!($entry, crate::simd::Avx512Vnni, rows, vectors)
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => entry_for_32!($entry, crate::simd::Neon, rows, vectors),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => entry_for_32!($entry, crate::simd::NeonDot, rows, vectors),
            _ => entry_for_any!($entry, crate::simd::Portable, rows, vectors),
        }
    }};
}

pub(super) use compiled;

impl Microkernel {
    /// The compiled microkernel for `tile`, if there is one; `widened` weights exist where [`widens`] says so.
    pub(in crate::conv) fn new(usable: Usable, tile: Tile, widened: bool) -> Option<Self> {
        compiled!(entry, entry_widened, usable, tile, widened).map(|run| Self { run })
    }
}

/// Whether there are microkernels for weights of 16 bits: where widening them costs as much as half a product.
pub(in crate::conv) fn widens(isa: Isa) -> bool {
    isa == Isa::Avx2
}

/// One compiled microkernel.
///
/// # Safety
/// As for [`Entry`], and the processor executes `S`; [`Microkernel::new`] sees to that.
unsafe fn entry<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<ROWS, VECTORS, false>(strip)) }
}

/// [`entry`] for weights of 16 bits.
///
/// # Safety
/// As for [`entry`], and the dot product is one of pairs of 16 bits.
#[cfg(target_arch = "x86_64")]
unsafe fn entry_widened<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<ROWS, VECTORS, true>(strip)) }
}

struct Tiles<'a, const ROWS: usize, const VECTORS: usize, const WIDENED: bool>(&'a Strip);

impl<const ROWS: usize, const VECTORS: usize, const WIDENED: bool> Job for Tiles<'_, ROWS, VECTORS, WIDENED> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let strip = self.0;
        let width = VECTORS * S::LANES;
        let vector = S::LANES * S::GROUP * if WIDENED { size_of::<i16>() } else { 1 };
        let input = strip.input.cast::<S::Act>();
        let mut pixel = strip.rows.pixel(strip.first);
        // SAFETY: the strip's pointers are valid for what it describes; every offset below stays within.
        unsafe {
            for tile in 0..strip.tiles {
                // All windows are alike: a run is as far from the start of each.
                let mut windows = [input; ROWS];
                for window in &mut windows {
                    *window = strip.rows.site(pixel).run(0, 0, input, input);
                    pixel = strip.rows.next(pixel);
                }
                let mut weights = strip.weights;
                for block in 0..strip.blocks {
                    let start = strip.start.add(block * width);
                    let first: [S::I; VECTORS] =
                        std::array::from_fn(|v| S::load_i32(start.add(v * S::LANES)));
                    let mut sums = [first; ROWS];
                    for run in 0..strip.run_count {
                        let mut place = *strip.runs.add(run);
                        for _ in 0..strip.run {
                            let w: [S::D; VECTORS] = std::array::from_fn(|v| {
                                let from = weights.add(v * vector);
                                if WIDENED { S::load_wide(from.cast()) } else { S::load_weights(from.cast()) }
                            });
                            for r in 0..ROWS {
                                let x = S::broadcast(windows[r].add(place));
                                for v in 0..VECTORS {
                                    sums[r][v] = S::dot(sums[r][v], w[v], x);
                                }
                            }
                            for v in (0..VECTORS).step_by(LINE / vector) {
                                S::prefetch(weights.wrapping_add(strip.ahead + v * vector));
                            }
                            weights = weights.add(VECTORS * vector);
                            place += S::GROUP;
                        }
                    }
                    let at = strip.at + (strip.first + tile * ROWS) * strip.pixel + block * width;
                    let channels = (strip.channels - block * width).min(width);
                    let sums = sums;
                    let (first, column) = (sums.as_ptr().cast(), block * width);
                    S::vectorize(StoreTile8 {
                        finish: &strip.finish,
                        target: strip.target,
                        scale: strip.scale.add(column),
                        bias: strip.bias.add(column),
                        pixel: strip.pixel,
                        sums: first,
                        rows: ROWS,
                        vectors: VECTORS,
                        at,
                        channels,
                    });
                }
            }
        }
    }
}
