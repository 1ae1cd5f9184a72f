//! 8-bit microkernels for one tap of a window: they add its products to sums in memory.

use super::kernel::Find;
use crate::conv::support::buffer::LINE;
use crate::conv::support::indirection::IndirectionView;
use crate::conv::support::tiles::{Microkernels, Tile};
use paretune_simd::{Dispatch, IsaToken, Simd, SimdFn};

/// Microkernel arguments for one tap: `tiles` tiles of consecutive pixels among those that find the
/// tap in the input.
#[derive(Clone, Copy)]
pub(crate) struct TapArgs {
    /// Indirection buffer of the pixels' runs.
    pub rows: IndirectionView,
    /// Input that `rows` refers to, with elements of type [`Simd::Act`].
    pub input: *const u8,
    /// Dot-product groups of the run; the last may reach beyond it, where the weights are zero.
    pub run: usize,
    /// Packed weights, `[group][channel of the block][element of the group]`, as in
    /// [`super::MicrokernelArgs`].
    pub weights: *const u8,
    /// Addend of the tap for each channel of the block, besides its products.
    pub start: *const i32,
    /// Sums of the first pixel; each pixel has those of one block of channels.
    pub sums: *mut i32,
    /// Distance in elements between the sums of two pixels.
    pub pixel: usize,
    /// Elements skipped after each row of pixels.
    pub gap: usize,
    /// Index of the first pixel.
    pub first: usize,
    /// Number of consecutive tiles, one below the other.
    pub tiles: usize,
    /// Address where the prefetch of the following weights begins, and number of cache lines that
    /// each group of each tile prefetches.
    pub fetch: (*const u8, usize),
}

/// Adds the products of a [`TapArgs`] to its sums.
///
/// # Safety
/// All pointers of the arguments must be valid for what they describe, and no other thread may
/// write the sums.
pub(crate) type Entry = unsafe fn(&TapArgs);

/// A microkernel for one tap, which exists only if the processor executes its instruction set.
#[derive(Clone, Copy)]
pub(crate) struct TapMicrokernel {
    /// Entry point, which takes the microkernel arguments.
    pub run: Entry,
}

impl TapMicrokernel {
    /// Returns the compiled microkernel for `tile`, as [`super::Microkernel::new`] does.
    pub(crate) fn new(token: IsaToken, tile: Tile, widened: bool) -> Option<Self> {
        token.dispatch(Find::<All<false>, All<true>>::new(tile, widened))
    }
}

/// The microkernels of all tiles.
struct All<const WIDENED: bool>;

impl<const WIDENED: bool> Microkernels for All<WIDENED> {
    type Pointer = TapMicrokernel;

    fn pointer<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S) -> TapMicrokernel {
        TapMicrokernel { run: simd.pointer::<Tiles<ROWS, VECTORS, WIDENED>>() }
    }
}

/// Microkernel of `ROWS` pixels by `VECTORS` vectors of channels.
struct Tiles<const ROWS: usize, const VECTORS: usize, const WIDENED: bool>;

impl<const ROWS: usize, const VECTORS: usize, const WIDENED: bool> SimdFn
    for Tiles<ROWS, VECTORS, WIDENED>
{
    type Args<'a> = &'a TapArgs;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, args: &TapArgs) {
        let vector = S::LANES * S::GROUP * if WIDENED { size_of::<i16>() } else { 1 };
        let input = args.input.cast::<S::Act>();
        let mut pixel = args.rows.pixel(args.first);
        let mut fetch = args.fetch.0;
        // SAFETY: tiles and groups below are those that the arguments describe, for which their
        // addresses are valid. Weights, starts and sums are padded to whole vectors.
        unsafe {
            for _ in 0..args.tiles {
                let mut windows = [input; ROWS];
                let mut places = [args.sums; ROWS];
                for r in 0..ROWS {
                    windows[r] = args.rows.site(pixel).run(0, 0, input, input);
                    places[r] = args.sums.add(args.rows.place(pixel, args.pixel, args.gap));
                    pixel = args.rows.next(pixel);
                }
                let mut sums = [[simd.load_i32(args.start); VECTORS]; ROWS];
                for v in 0..VECTORS {
                    let start = simd.load_i32(args.start.add(v * S::LANES));
                    for r in 0..ROWS {
                        sums[r][v] =
                            simd.add_i32(start, simd.load_i32(places[r].add(v * S::LANES)));
                    }
                }
                let mut weights = args.weights;
                for group in 0..args.run {
                    let w: [S::Groups; VECTORS] = paretune_simd::array(|v| {
                        let from = weights.add(v * vector);
                        if WIDENED {
                            simd.load_i16(from.cast())
                        } else {
                            simd.load_weights(from.cast())
                        }
                    });
                    for r in 0..ROWS {
                        let x = simd.broadcast(windows[r].add(group * S::GROUP));
                        for v in 0..VECTORS {
                            sums[r][v] = simd.dot(sums[r][v], w[v], x);
                        }
                    }
                    for _ in 0..args.fetch.1 {
                        simd.prefetch(fetch);
                        fetch = fetch.wrapping_add(LINE);
                    }
                    weights = weights.add(VECTORS * vector);
                }
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        simd.store_i32(places[r].add(v * S::LANES), sums[r][v]);
                    }
                }
            }
        }
    }
}
