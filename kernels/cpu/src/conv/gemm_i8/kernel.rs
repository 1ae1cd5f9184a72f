//! 8-bit microkernels: a tile of output pixels by output channels is summed exactly in 32-bit
//! integers, then scaled, finished and stored.

use std::marker::PhantomData;

use crate::conv::support::buffer::LINE;
use crate::conv::support::epilogue_i8::{EpilogueI8, StoreTileI8, Target};
use crate::conv::support::indirection::IndirectionView;
use crate::conv::support::tiles::{Microkernels, Tile, microkernel};
use paretune_simd::{Dispatch, Isa, IsaToken, Simd, SimdFn, SimdOp};

/// Microkernel arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive
/// channels.
#[derive(Clone, Copy)]
pub(crate) struct MicrokernelArgs {
    /// Indirection buffer of the pixels' windows.
    pub rows: IndirectionView,
    /// Input that `rows` refers to, with elements of type [`Simd::Act`]; it carries its padding.
    pub input: *const u8,
    /// Offsets of a window's runs in the input, in elements of type [`Simd::Act`].
    pub runs: *const usize,
    /// Number of runs per window.
    pub run_count: usize,
    /// Dot-product groups per run; the last may reach beyond the run, where the weights are zero.
    pub run: usize,
    /// Packed weights of 8 bits, or 16 if widened, `[block][group of every run][channel of the
    /// block][element of the group]`, with channels padded to whole vectors.
    pub weights: *const u8,
    /// Initial values of the sums, `[block][channel]`.
    pub start: *const i32,
    /// Scales of the sums, `[block][channel]`, see [`EpilogueI8::scale`].
    pub scale: *const f32,
    /// Biases of the scaled sums, `[block][channel]`, see [`EpilogueI8::bias`].
    pub bias: *const f32,
    /// Addresses of output and residual.
    pub target: Target,
    /// Offset in elements of the first block's first channel in pixel 0.
    pub at: usize,
    /// Distance in elements between pixels of output and residual.
    pub pixel: usize,
    /// Index of the first pixel.
    pub first: usize,
    /// Number of consecutive tiles, one below the other.
    pub tiles: usize,
    /// Number of blocks of channels.
    pub blocks: usize,
    /// Prefetch distance of the weights in bytes; a distance of 0 costs and gains nothing.
    pub ahead: usize,
    /// Number of channels of these blocks that exist.
    pub channels: usize,
    /// Epilogue that the sums go through.
    pub epilogue: EpilogueI8,
}

/// Computes a [`MicrokernelArgs`].
///
/// # Safety
/// All pointers of the arguments must be valid for what they describe, and no other thread may
/// write the output.
pub(crate) type Entry = unsafe fn(&MicrokernelArgs);

/// A microkernel, which exists only if the processor executes its instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Microkernel {
    /// Entry point, which takes the microkernel arguments.
    pub run: Entry,
}

impl Microkernel {
    /// Returns the compiled microkernel for `tile`, if there is one; `widened` weights require
    /// [`widens`].
    pub(crate) fn new(token: IsaToken, tile: Tile, widened: bool) -> Option<Self> {
        token.dispatch(Find::<All<false>, All<true>>::new(tile, widened))
    }
}

/// Returns whether there are microkernels for weights of 16 bits: on instruction sets where
/// widening them costs as much as half a product.
pub(crate) const fn widens(isa: Isa) -> bool {
    matches!(isa, Isa::Avx2)
}

/// Finds the microkernel of a tile; `widened` weights require [`widens`].
pub(super) struct Find<K, W> {
    tile: Tile,
    widened: bool,
    kernels: PhantomData<(K, W)>,
}

impl<K, W> Find<K, W> {
    pub(super) fn new(tile: Tile, widened: bool) -> Self {
        Self { tile, widened, kernels: PhantomData }
    }
}

impl<K: Microkernels, W: Microkernels<Pointer = K::Pointer>> SimdOp for Find<K, W> {
    type Output = Option<K::Pointer>;

    fn eval<S: Simd>(self, simd: S) -> Option<K::Pointer> {
        if !self.widened {
            microkernel::<S, K>(simd, self.tile)
        } else if const { widens(S::ISA) } {
            microkernel::<S, W>(simd, self.tile)
        } else {
            None
        }
    }
}

/// The microkernels of all tiles.
struct All<const WIDENED: bool>;

impl<const WIDENED: bool> Microkernels for All<WIDENED> {
    type Pointer = Microkernel;

    fn pointer<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S) -> Microkernel {
        Microkernel { run: simd.pointer::<Tiles<ROWS, VECTORS, WIDENED>>() }
    }
}

/// Microkernel of `ROWS` pixels by `VECTORS` vectors of channels.
struct Tiles<const ROWS: usize, const VECTORS: usize, const WIDENED: bool>;

impl<const ROWS: usize, const VECTORS: usize, const WIDENED: bool> SimdFn
    for Tiles<ROWS, VECTORS, WIDENED>
{
    type Args<'a> = &'a MicrokernelArgs;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, args: &MicrokernelArgs) {
        let width = VECTORS * S::LANES;
        let vector = S::LANES * S::GROUP * if WIDENED { size_of::<i16>() } else { 1 };
        let input = args.input.cast::<S::Act>();
        let mut pixel = args.rows.pixel(args.first);
        // SAFETY: tiles, blocks, runs and groups below are those that the arguments describe, for
        // which their addresses are valid. Weights, starts, scales and biases are padded to whole
        // vectors.
        unsafe {
            for tile in 0..args.tiles {
                // The runs of every window have the same offsets from its start.
                let mut windows = [input; ROWS];
                for window in &mut windows {
                    *window = args.rows.site(pixel).run(0, 0, input, input);
                    pixel = args.rows.next(pixel);
                }
                let mut weights = args.weights;
                for block in 0..args.blocks {
                    let start = args.start.add(block * width);
                    let first: [S::I32; VECTORS] =
                        paretune_simd::array(|v| simd.load_i32(start.add(v * S::LANES)));
                    let mut sums = [first; ROWS];
                    for run in 0..args.run_count {
                        let mut place = *args.runs.add(run);
                        for _ in 0..args.run {
                            let w: [S::Groups; VECTORS] = paretune_simd::array(|v| {
                                let from = weights.add(v * vector);
                                if WIDENED {
                                    simd.load_i16(from.cast())
                                } else {
                                    simd.load_weights(from.cast())
                                }
                            });
                            for r in 0..ROWS {
                                let x = simd.broadcast(windows[r].add(place));
                                for v in 0..VECTORS {
                                    sums[r][v] = simd.dot(sums[r][v], w[v], x);
                                }
                            }
                            for v in (0..VECTORS).step_by(LINE / vector) {
                                simd.prefetch(weights.wrapping_add(args.ahead + v * vector));
                            }
                            weights = weights.add(VECTORS * vector);
                            place += S::GROUP;
                        }
                    }
                    let at = args.at + (args.first + tile * ROWS) * args.pixel + block * width;
                    let channels = (args.channels - block * width).min(width);
                    let sums = sums;
                    let (first, column) = (sums.as_ptr().cast(), block * width);
                    simd.call::<StoreTileI8<'_>>(StoreTileI8 {
                        epilogue: &args.epilogue,
                        target: args.target,
                        scale: args.scale.add(column),
                        bias: args.bias.add(column),
                        pixel: args.pixel,
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
