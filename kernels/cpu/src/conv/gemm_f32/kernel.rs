//! Single-precision microkernels: a tile of output pixels by output channels is summed in registers
//! over the input runs that [`IndirectionView`] finds, then finished and stored. Pairs of bfloat16
//! are as long as one `f32` and use the same code.

use std::marker::PhantomData;

use crate::conv::support::buffer::LINE;
use crate::conv::support::epilogue::{Epilogue, StoreTile};
use crate::conv::support::indirection::IndirectionView;
use crate::conv::support::tiles::{Find, Microkernels, Tile};
use paretune_simd::{Dispatch, IsaToken, Simd, SimdFn};

/// Microkernel arguments: `tiles` tiles of consecutive pixels times `blocks` blocks of consecutive
/// channels.
#[derive(Clone, Copy)]
pub(crate) struct MicrokernelArgs {
    /// Indirection buffer of the pixels' runs.
    pub rows: IndirectionView,
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
    pub fetch: PrefetchArgs,
    /// Number of channels of these blocks that exist.
    pub channels: usize,
    /// Activation that the epilogue applies.
    pub epilogue: Epilogue,
}

/// Prefetch of elements of 4 bytes, some at every step in k. The addresses need not be valid.
#[derive(Clone, Copy)]
pub(crate) struct PrefetchArgs {
    /// Address at which the prefetch begins.
    pub from: *const f32,
    /// Distance in elements between the starts of two consecutive tiles of pixels.
    pub tile: usize,
    /// Distance in elements between steps; every step prefetches a tile's width.
    pub step: usize,
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
    /// Returns the compiled microkernel for `tile`, if there is one.
    pub(crate) fn new(token: IsaToken, tile: Tile) -> Option<Self> {
        token.f32().dispatch(Find::<Single<f32>>::new(tile))
    }

    /// Returns the microkernel for half-precision weights, if `tile` has one.
    pub(crate) fn of_halves(token: IsaToken, tile: Tile) -> Option<Self> {
        token.f32().dispatch(Find::<Single<u16>>::new(tile))
    }

    /// Returns the microkernel for pairs of bfloat16, if `tile` has one and the processor has an
    /// instruction for dot products of bfloat16.
    pub(crate) fn of_pairs(token: IsaToken, tile: Tile) -> Option<Self> {
        token.bf16()?.dispatch(Find::<Pairs>::new(tile))
    }
}

impl<M: Multiply> Microkernels for M {
    type Pointer = Microkernel;

    fn pointer<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S) -> Microkernel {
        Microkernel { run: simd.pointer::<Tiles<M, ROWS, VECTORS>>() }
    }
}

/// Multiplication in one step in k.
trait Multiply: 'static {
    /// Element type of the input.
    type Number: Copy;
    /// Number of input elements per step.
    const GROUP: usize;
    /// Element type of the packed weights.
    type Weight: Copy;

    /// Loads `LANES` weights.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` weights.
    unsafe fn load<S: Simd>(simd: S, from: *const Self::Weight) -> S::F32;

    /// Broadcasts the input of a step to every lane.
    ///
    /// # Safety
    /// `from` must be valid for `GROUP` elements.
    unsafe fn broadcast<S: Simd>(simd: S, from: *const Self::Number) -> S::F32;

    /// Returns `acc + x * w`, summed over the elements of the step.
    fn add<S: Simd>(simd: S, acc: S::F32, x: S::F32, w: S::F32) -> S::F32;
}

/// Steps of single elements with weights in single precision (`f32`) or half precision (`u16`).
struct Single<W>(PhantomData<W>);

/// Weight type for steps of single elements.
trait Weight: Copy + 'static {
    /// Loads `LANES` weights.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` weights.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F32;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::F32 {
        // SAFETY: `from` is valid for `LANES` numbers of this type.
        unsafe { simd.load(from) }
    }
}

impl Weight for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u16) -> S::F32 {
        // SAFETY: `from` is valid for `LANES` numbers of this type.
        unsafe { simd.load_f16(from) }
    }
}

impl<W: Weight> Multiply for Single<W> {
    type Number = f32;
    const GROUP: usize = 1;
    type Weight = W;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const W) -> S::F32 {
        // SAFETY: `from` is valid for `LANES` weights.
        unsafe { W::load(simd, from) }
    }

    #[inline(always)]
    unsafe fn broadcast<S: Simd>(simd: S, from: *const f32) -> S::F32 {
        // SAFETY: `from` is valid for one number, the `GROUP` of this type.
        simd.splat(unsafe { *from })
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, acc: S::F32, x: S::F32, w: S::F32) -> S::F32 {
        simd.fma(x, w, acc)
    }
}

/// Steps of pairs of bfloat16.
struct Pairs;

impl Multiply for Pairs {
    type Number = u16;
    const GROUP: usize = 2;
    type Weight = f32;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::F32 {
        // SAFETY: `from` is valid for `LANES` pairs, each as large as an `f32`.
        unsafe { simd.load(from) }
    }

    #[inline(always)]
    unsafe fn broadcast<S: Simd>(simd: S, from: *const u16) -> S::F32 {
        // SAFETY: `from` is valid for two elements, which are as large as an `f32`.
        simd.splat(unsafe { from.cast::<f32>().read_unaligned() })
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, acc: S::F32, x: S::F32, w: S::F32) -> S::F32 {
        simd.dot_bf16(acc, x, w)
    }
}

/// Microkernel of `ROWS` pixels by `VECTORS` vectors of channels.
struct Tiles<M, const ROWS: usize, const VECTORS: usize>(PhantomData<M>);

impl<M: Multiply, const ROWS: usize, const VECTORS: usize> SimdFn for Tiles<M, ROWS, VECTORS> {
    type Args<'a> = &'a MicrokernelArgs;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, args: &MicrokernelArgs) {
        let width = VECTORS * S::LANES;
        let [tap_rows, tap_columns] = args.rows.taps;
        let (input, zeros) = (args.input.cast::<M::Number>(), args.zeros.cast::<M::Number>());
        let mut pixel = args.rows.pixel(args.first);
        // SAFETY: pixels, taps, steps and blocks below are those that the arguments describe, for
        // which their addresses are valid. Whole vectors of bias and weights exist, as both are
        // padded to them.
        unsafe {
            for tile in 0..args.tiles {
                let mut places = [0; ROWS];
                let sites: [_; ROWS] = paretune_simd::array(|r| {
                    let site = args.rows.site(pixel);
                    places[r] = args.rows.place(pixel, args.pixel, args.gap);
                    pixel = args.rows.next(pixel);
                    site
                });
                let mut weights = args.weights.cast::<M::Weight>();
                let mut fetch = args.fetch.from.wrapping_add(tile * args.fetch.tile);
                for block in 0..args.blocks {
                    let bias = args.bias.add(block * width);
                    let first: [S::F32; VECTORS] =
                        paretune_simd::array(|v| simd.load(bias.add(v * S::LANES)));
                    let mut sums = [first; ROWS];
                    for ky in 0..tap_rows {
                        for kx in 0..tap_columns {
                            let runs: [_; ROWS] =
                                paretune_simd::array(|r| sites[r].run(ky, kx, input, zeros));
                            for k in 0..args.run {
                                // Prefetches precede the loads of the weights: behind the sums,
                                // compilers found no registers for tiles of 4 x 3 vectors.
                                for byte in (0..width * size_of::<M::Weight>()).step_by(LINE) {
                                    simd.prefetch(fetch.cast::<u8>().wrapping_add(byte));
                                }
                                fetch = fetch.wrapping_add(args.fetch.step);
                                let w: [S::F32; VECTORS] = paretune_simd::array(|v| {
                                    M::load(simd, weights.add(v * S::LANES))
                                });
                                for r in 0..ROWS {
                                    let x = M::broadcast(simd, runs[r].add(k * M::GROUP));
                                    for v in 0..VECTORS {
                                        sums[r][v] = M::add(simd, sums[r][v], x, w[v]);
                                    }
                                }
                                weights = weights.add(width);
                            }
                        }
                    }
                    let column = block * width;
                    let channels = args.channels - column;
                    if channels >= width && args.epilogue.other.is_none() {
                        store_whole::<S, ROWS, VECTORS>(simd, args, &places, column, &sums);
                    } else {
                        let sums = sums;
                        simd.call::<StorePart<'_>>(StorePart {
                            args,
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
}

/// Stores a tile of whole vectors, with the activation as a clamp.
///
/// # Safety
/// The tile's pixels must lie at `places` of the output, and `column` must be its first channel.
#[inline(always)]
unsafe fn store_whole<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    args: &MicrokernelArgs,
    places: &[usize; ROWS],
    column: usize,
    sums: &[[S::F32; VECTORS]; ROWS],
) {
    // SAFETY: `places` are those of the tile's pixels in output and residual, and the caller has
    // `VECTORS` whole vectors of channels from `column` on in each.
    unsafe {
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let at = places[r] + column + v * S::LANES;
                let mut sum = sums[r][v];
                if !args.residual.is_null() {
                    sum = simd.add(sum, simd.load(args.residual.add(at)));
                }
                simd.store(args.output.add(at), args.epilogue.clamp(simd, sum));
            }
        }
    }
}

/// General store of a tile: partial vectors, any activation.
struct StorePart<'a> {
    args: &'a MicrokernelArgs,
    places: &'a [usize],
    /// Sums of the tile, `[pixel][vector][lane]`.
    sums: *const f32,
    vectors: usize,
    /// First channel of the tile.
    column: usize,
    /// Number of channels of the tile that exist.
    channels: usize,
}

impl SimdFn for StorePart<'_> {
    type Args<'a> = StorePart<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, part: StorePart<'_>) {
        let StorePart { args, vectors, channels, .. } = part;
        for (row, place) in part.places.iter().enumerate() {
            let at = place + part.column;
            // SAFETY: the tile's pixels lie at `places` of output and residual, with `channels`
            // channels from `column` on, and there are `vectors` vectors of sums for each.
            unsafe {
                let residual = args.residual;
                StoreTile::call(
                    simd,
                    StoreTile {
                        sums: part.sums.add(row * vectors * S::LANES),
                        rows: 1,
                        vectors,
                        channels,
                        output: args.output.add(at),
                        residual: if residual.is_null() { residual } else { residual.add(at) },
                        pixel: args.pixel,
                        epilogue: &args.epilogue,
                    },
                );
            }
        }
    }
}
