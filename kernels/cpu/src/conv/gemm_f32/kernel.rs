//! Single-precision microkernels: a tile of output pixels by output channels is summed in registers
//! over the input runs that [`RowsView`] finds, then finished and stored. Pairs of bfloat16 are as
//! long as one `f32` and use the same code.

use std::marker::PhantomData;

use crate::conv::support::buffer::LINE;
use crate::conv::support::finish::{Finish, StoreTile};
use crate::conv::support::rows::RowsView;
#[cfg(target_arch = "x86_64")]
use crate::conv::support::tiles::entry_for_16;
use crate::conv::support::tiles::{Tile, entry_for_32, entry_for_any};
use paretune_simd::Isa;
use paretune_simd::{Job, Simd, Usable};

/// Microkernel arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive
/// channels.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    /// Indirection buffer of the pixels' runs.
    pub rows: RowsView,
    /// Input that `rows` refers to, with elements of type [`Multiply::Number`].
    pub input: *const f32,
    /// Address of `run` zeros, which stand for padding.
    pub zeros: *const f32,
    /// Steps in k per run, each of one element or a pair.
    pub run: usize,
    /// Packed weights of type [`Multiply::Weight`], `[block][step of every run][channel of the
    /// block]`, with channels padded to whole vectors.
    pub weights: *const f32,
    /// Biases, `[block][channel of the block]`.
    pub bias: *const f32,
    /// Address of the first block's first channel in pixel 0.
    pub output: *mut f32,
    /// Address of the matching residual element, or null.
    pub residual: *const f32,
    /// Distance in elements between pixels of output and residual.
    pub pixel: usize,
    /// Elements of output and residual that are skipped at the end of each row of pixels.
    pub gap: usize,
    /// Index of the first pixel.
    pub first: usize,
    /// Number of consecutive tiles, one below the other.
    pub tiles: usize,
    /// Number of blocks of channels.
    pub blocks: usize,
    /// Data to prefetch for later use; prefetching `weights` itself costs and gains nothing.
    pub fetch: Fetch,
    /// Number of channels of these blocks that exist.
    pub channels: usize,
    /// Activation that the epilogue applies.
    pub finish: Finish,
}

/// Prefetch of elements of 4 bytes, some at every step in k. The addresses need not be valid.
#[derive(Clone, Copy)]
pub(crate) struct Fetch {
    /// Address at which the prefetch begins.
    pub from: *const f32,
    /// Distance in elements between the starts of two consecutive tiles of pixels.
    pub tile: usize,
    /// Distance in elements between steps; every step prefetches a tile's width.
    pub step: usize,
}

/// Computes a [`Strip`].
///
/// # Safety
/// All pointers of the arguments must be valid for what they describe, and no other thread may
/// write the output.
pub(crate) type Entry = unsafe fn(&Strip);

/// A microkernel, which exists only if the processor executes its instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Microkernel {
    /// Entry point, which takes the microkernel arguments.
    pub run: Entry,
}

/// Returns the microkernel of single elements that `$entry` compiles for `$tile`, if there is one.
macro_rules! single_numbers {
    ($entry:ident, $usable:expr, $tile:expr) => {{
        let Tile { rows, vectors } = $tile;
        let run: Option<Entry> = match $usable.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => entry_for_16!($entry, paretune_simd::Avx2, rows, vectors),
            // VNNI does not matter in single precision.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => {
                entry_for_32!($entry, paretune_simd::Avx512, rows, vectors)
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => entry_for_32!($entry, paretune_simd::Neon, rows, vectors),
            _ => entry_for_any!($entry, paretune_simd::Portable, rows, vectors),
        };
        run.map(|run| Self { run })
    }};
}

impl Microkernel {
    /// Returns the compiled microkernel for `tile`, if there is one.
    pub(crate) fn new(usable: Usable, tile: Tile) -> Option<Self> {
        single_numbers!(entry, usable, tile)
    }

    /// Returns the microkernel for half-precision weights, if `tile` has one.
    pub(crate) fn of_halves(usable: Usable, tile: Tile) -> Option<Self> {
        single_numbers!(entry_of_halves, usable, tile)
    }

    /// Returns the microkernel for pairs of bfloat16, if `tile` has one and the processor
    /// multiplies bfloat16.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub(crate) fn of_pairs(usable: Usable, tile: Tile) -> Option<Self> {
        let run: Option<Entry> = match usable.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => entry_for_32!(entry_of_pairs, paretune_simd::Avx512, tile.rows, tile.vectors),
            _ => None,
        };
        run.map(|run| Self { run })
    }
}

/// Multiplication in one step in k.
trait Multiply<S: Simd> {
    /// Element type of the input.
    type Number: Copy;
    /// Number of input elements per step.
    const GROUP: usize;
    /// Element type of the packed weights.
    type Weight: Copy;
    /// Loads `LANES` weights.
    ///
    /// # Safety
    /// The processor must execute `S`, as for every function of [`Simd`].
    unsafe fn load(from: *const Self::Weight) -> S::F;
    /// Broadcasts the input of a step to every lane.
    ///
    /// # Safety
    /// The processor must execute `S`, as for every function of [`Simd`].
    unsafe fn broadcast(from: *const Self::Number) -> S::F;
    /// Returns `acc + x * w`, summed over the elements of the step.
    ///
    /// # Safety
    /// The processor must execute `S`, as for every function of [`Simd`].
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F;
}

/// Steps of single elements with weights in single precision (`f32`) or half precision (`u16`).
struct Singles<W>(PhantomData<W>);

/// Weight type for steps of single elements.
trait Weight: Copy {
    /// Loads `LANES` weights.
    ///
    /// # Safety
    /// The processor must execute `S`, as for every function of [`Simd`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::F;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load(from) }
    }
}

impl Weight for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u16) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load_halves(from) }
    }
}

impl<S: Simd, W: Weight> Multiply<S> for Singles<W> {
    type Number = f32;
    const GROUP: usize = 1;
    type Weight = W;

    #[inline(always)]
    unsafe fn load(from: *const W) -> S::F {
        // SAFETY: passed on.
        unsafe { W::load::<S>(from) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> S::F {
        // SAFETY: passed on.
        unsafe { S::splat(*from) }
    }
    #[inline(always)]
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F {
        // SAFETY: passed on.
        unsafe { S::fma(x, w, acc) }
    }
}

/// Steps of pairs of bfloat16.
#[cfg(target_arch = "x86_64")]
struct Pairs;

#[cfg(target_arch = "x86_64")]
impl<S: Simd<F = std::arch::x86_64::__m512>> Multiply<S> for Pairs {
    type Number = u16;
    const GROUP: usize = 2;
    type Weight = f32;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load(from) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const u16) -> S::F {
        // SAFETY: passed on.
        unsafe { S::splat(from.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F {
        // SAFETY: [`entry_of_pairs`] alone uses this type.
        unsafe { paretune_simd::bf16::dot(acc, x, w) }
    }
}

/// Computes a [`Strip`] of pairs of bfloat16.
///
/// # Safety
/// The requirements of [`Entry`] must be met, and the processor must have AVX-512 BF16, which
/// [`Microkernel::of_pairs`] ensures.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn entry_of_pairs<S: Simd<F = std::arch::x86_64::__m512>, const ROWS: usize, const VECTORS: usize>(
    strip: &Strip,
) {
    // SAFETY: passed on.
    unsafe { tiles::<S, Pairs, ROWS, VECTORS>(strip) }
}

/// Computes a [`Strip`] with single-precision weights.
///
/// # Safety
/// The requirements of [`Entry`] must be met, and the processor must execute `S`, which
/// [`Microkernel::new`] ensures.
unsafe fn entry<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<f32, ROWS, VECTORS>(strip, PhantomData)) }
}

/// Computes a [`Strip`] with half-precision weights.
///
/// # Safety
/// The requirements of [`Entry`] must be met, and the processor must execute `S`, which
/// [`Microkernel::of_halves`] ensures.
unsafe fn entry_of_halves<S: Simd, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    // SAFETY: passed on.
    unsafe { S::vectorize(Tiles::<u16, ROWS, VECTORS>(strip, PhantomData)) }
}

struct Tiles<'a, W, const ROWS: usize, const VECTORS: usize>(&'a Strip, PhantomData<W>);

impl<W: Weight, const ROWS: usize, const VECTORS: usize> Job for Tiles<'_, W, ROWS, VECTORS> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on.
        unsafe { tiles::<S, Singles<W>, ROWS, VECTORS>(self.0) }
    }
}

/// Computes the tiles of the arguments.
///
/// # Safety
/// The requirements of [`Entry`] must be met, and the processor must execute `S` and `M`.
#[inline(always)]
unsafe fn tiles<S: Simd, M: Multiply<S>, const ROWS: usize, const VECTORS: usize>(strip: &Strip) {
    let width = VECTORS * S::LANES;
    let [tap_rows, tap_columns] = strip.rows.taps;
    let (input, zeros) = (strip.input.cast::<M::Number>(), strip.zeros.cast::<M::Number>());
    let mut pixel = strip.rows.pixel(strip.first);
    // SAFETY: the strip's pointers are valid for what it describes; every offset below stays within.
    unsafe {
        for tile in 0..strip.tiles {
            let mut places = [0; ROWS];
            let sites: [_; ROWS] = std::array::from_fn(|r| {
                let site = strip.rows.site(pixel);
                places[r] = strip.rows.place(pixel, strip.pixel, strip.gap);
                pixel = strip.rows.next(pixel);
                site
            });
            let mut weights = strip.weights.cast::<M::Weight>();
            let mut fetch = strip.fetch.from.wrapping_add(tile * strip.fetch.tile);
            for block in 0..strip.blocks {
                let bias = strip.bias.add(block * width);
                let first: [S::F; VECTORS] = std::array::from_fn(|v| S::load(bias.add(v * S::LANES)));
                let mut sums = [first; ROWS];
                for ky in 0..tap_rows {
                    for kx in 0..tap_columns {
                        let runs: [_; ROWS] = std::array::from_fn(|r| sites[r].run(ky, kx, input, zeros));
                        for k in 0..strip.run {
                            // Prefetches precede the loads of the weights: behind the sums,
                            // compilers found no registers for tiles of 4 x 3 vectors.
                            for byte in (0..width * size_of::<M::Weight>()).step_by(LINE) {
                                S::prefetch(fetch.cast::<u8>().wrapping_add(byte));
                            }
                            fetch = fetch.wrapping_add(strip.fetch.step);
                            let w: [S::F; VECTORS] =
                                std::array::from_fn(|v| M::load(weights.add(v * S::LANES)));
                            for r in 0..ROWS {
                                let x = M::broadcast(runs[r].add(k * M::GROUP));
                                for v in 0..VECTORS {
                                    sums[r][v] = M::add(sums[r][v], x, w[v]);
                                }
                            }
                            weights = weights.add(width);
                        }
                    }
                }
                let column = block * width;
                let channels = strip.channels - column;
                if channels >= width && strip.finish.other.is_none() {
                    store_whole::<S, ROWS, VECTORS>(strip, &places, column, &sums);
                } else {
                    let sums = sums;
                    S::vectorize(StorePart {
                        strip,
                        places: &places,
                        sums: sums.as_ptr().cast(),
                        vectors: VECTORS,
                        column,
                        channels: channels.min(width),
                    });
                }
            }
        }
    }
}

/// Stores a tile of whole vectors, with the activation as a clamp.
///
/// # Safety
/// The tile's pixels must lie at `places` of the output, and `column` must be its first channel.
#[inline(always)]
unsafe fn store_whole<S: Simd, const ROWS: usize, const VECTORS: usize>(
    strip: &Strip,
    places: &[usize; ROWS],
    column: usize,
    sums: &[[S::F; VECTORS]; ROWS],
) {
    // SAFETY: the caller vouches for the tile's places.
    unsafe {
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let at = places[r] + column + v * S::LANES;
                let mut sum = sums[r][v];
                if !strip.residual.is_null() {
                    sum = S::add(sum, S::load(strip.residual.add(at)));
                }
                S::store(strip.output.add(at), strip.finish.clamp::<S>(sum));
            }
        }
    }
}

/// General store of a tile: partial vectors, any activation.
struct StorePart<'a> {
    strip: &'a Strip,
    places: &'a [usize],
    /// Sums of the tile, `[pixel][vector][lane]`.
    sums: *const f32,
    vectors: usize,
    /// First channel of the tile.
    column: usize,
    /// Number of channels of the tile that exist.
    channels: usize,
}

impl Job for StorePart<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { strip, vectors, channels, .. } = self;
        for (row, place) in self.places.iter().enumerate() {
            let at = place + self.column;
            // SAFETY: the tile's pixels lie at these places of output and residual; all sums exist.
            unsafe {
                let residual = strip.residual;
                StoreTile {
                    sums: self.sums.add(row * vectors * S::LANES),
                    rows: 1,
                    vectors,
                    channels,
                    output: strip.output.add(at),
                    residual: if residual.is_null() { residual } else { residual.add(at) },
                    pixel: strip.pixel,
                    finish: &strip.finish,
                }
                .run::<S>();
            }
        }
    }
}
