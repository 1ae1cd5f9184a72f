//! Element types of compressed weights behind one trait, so that there is one microkernel.

use crate::conv::gemm_i8::DotForm;
use crate::conv::support::buffer::Number;
use crate::conv::support::epilogue::{Epilogue, StoreTile};
use crate::conv::support::epilogue_i8::{EpilogueI8, StoreTileI8, Target};
use paretune_simd::{Activate, Simd};

/// Sums of a tile in several accumulation chains, `[chain][pixel][vector of channels]`.
pub(crate) type Sums<A, const ROWS: usize, const VECTORS: usize, const CHAINS: usize> =
    [[[A; VECTORS]; ROWS]; CHAINS];

/// Weight format, accumulation and epilogue of compressed weights.
///
/// Its functions must be `#[inline(always)]`.
pub(crate) trait Kind: Copy + Send + Sync + 'static {
    /// Type of a weight before packing.
    type Source: Copy + Default + PartialEq;
    /// Element type of packed weights.
    type Weight: Number;
    /// Type of a sum in memory.
    type Sum: Number;
    /// Type of an activation in memory.
    type Act<S: Simd>: Copy;
    /// Vector register that holds sums.
    type Acc<S: Simd>: Copy;
    /// Output, residual and epilogue of one group.
    type Store: Copy;
    /// Whether the format is for few pixels only; other microkernels are then not compiled.
    const FEW_ROWS: bool;
    /// Whether the order of additions does not affect results.
    const EXACT: bool;

    /// Returns the format of the activations in the dot product.
    fn form<S: Simd>() -> DotForm;
    /// Returns the number of input channels per step.
    fn group<S: Simd>() -> usize;
    /// Returns the number of [`Kind::Weight`] elements per step and output channel.
    fn packed<S: Simd>() -> usize;
    /// Appends the packed weights of a step for one output channel.
    fn pack<S: Simd>(weights: &[Self::Source], to: &mut Vec<Self::Weight>);
    /// Returns a register of zero sums.
    fn zero<S: Simd>(simd: S) -> Self::Acc<S>;
    /// Loads a vector of sums.
    ///
    /// # Safety
    /// `from` must be valid for `LANES` sums.
    unsafe fn load_sums<S: Simd>(simd: S, from: *const Self::Sum) -> Self::Acc<S>;
    /// Returns the sum `a + b`.
    fn add<S: Simd>(simd: S, a: Self::Acc<S>, b: Self::Acc<S>) -> Self::Acc<S>;
    /// Adds one step to the sums, preferably to those of `chain`: its weights for a whole tile
    /// times the inputs from `k` on in each run.
    ///
    /// # Safety
    /// `weights` must be valid for the packed weights of `VECTORS` vectors of channels, and each
    /// run for [`Kind::group`] inputs from `k` on.
    unsafe fn step<S: Simd, const ROWS: usize, const VECTORS: usize, const CHAINS: usize>(
        simd: S,
        sums: &mut Sums<Self::Acc<S>, ROWS, VECTORS, CHAINS>,
        chain: usize,
        weights: *const Self::Weight,
        runs: &[*const Self::Act<S>; ROWS],
        k: usize,
    );
    /// Applies the epilogue to a tile and stores it: `at` is the offset of its first pixel, `pixel`
    /// the distance between pixels, `column` its first channel in the group, and `channels` the
    /// number of its channels that exist.
    ///
    /// # Safety
    /// The addresses in `store` must be valid for these pixels and channels, which no other thread
    /// may write.
    unsafe fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        simd: S,
        store: &Self::Store,
        at: usize,
        pixel: usize,
        column: usize,
        channels: usize,
        sums: &[[Self::Acc<S>; VECTORS]; ROWS],
    );
}

/// Single-precision weights and activations.
#[derive(Clone, Copy)]
pub(crate) struct F32;

/// Output, residual and epilogue for [`F32`].
#[derive(Clone, Copy)]
pub(crate) struct F32Store {
    /// Address of the group's first channel in pixel 0.
    pub output: *mut f32,
    /// Address of the matching residual element, or null.
    pub residual: *const f32,
    pub epilogue: Epilogue,
}

impl Kind for F32 {
    type Source = f32;
    type Weight = f32;
    type Sum = f32;
    type Act<S: Simd> = f32;
    type Acc<S: Simd> = S::F32;
    type Store = F32Store;
    const FEW_ROWS: bool = false;
    const EXACT: bool = false;

    fn form<S: Simd>() -> DotForm {
        DotForm { group: 1, bytes: size_of::<f32>(), centered: true, shift: 0 }
    }
    #[inline(always)]
    fn group<S: Simd>() -> usize {
        1
    }
    #[inline(always)]
    fn packed<S: Simd>() -> usize {
        1
    }
    fn pack<S: Simd>(weights: &[f32], to: &mut Vec<f32>) {
        to.extend_from_slice(weights);
    }
    #[inline(always)]
    fn zero<S: Simd>(simd: S) -> S::F32 {
        simd.splat(0.0)
    }
    #[inline(always)]
    unsafe fn load_sums<S: Simd>(simd: S, from: *const f32) -> S::F32 {
        // SAFETY: the caller has `LANES` sums at `from`.
        unsafe { simd.load(from) }
    }
    #[inline(always)]
    unsafe fn step<S: Simd, const ROWS: usize, const VECTORS: usize, const CHAINS: usize>(
        simd: S,
        sums: &mut Sums<S::F32, ROWS, VECTORS, CHAINS>,
        chain: usize,
        weights: *const f32,
        runs: &[*const f32; ROWS],
        k: usize,
    ) {
        // SAFETY: the caller has the weights of `VECTORS` vectors, and an input at `k` in each run.
        unsafe {
            let w: [S::F32; VECTORS] =
                paretune_simd::array(|v| simd.load(weights.add(v * S::LANES)));
            for r in 0..ROWS {
                let x = simd.splat(*runs[r].add(k));
                for v in 0..VECTORS {
                    sums[chain][r][v] = simd.fma(x, w[v], sums[chain][r][v]);
                }
            }
        }
    }
    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::F32, b: S::F32) -> S::F32 {
        simd.add(a, b)
    }

    #[inline(always)]
    unsafe fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        simd: S,
        store: &F32Store,
        at: usize,
        pixel: usize,
        column: usize,
        channels: usize,
        sums: &[[S::F32; VECTORS]; ROWS],
    ) {
        let at = at + column;
        // SAFETY: the caller's `store` is valid for the pixels and channels of the tile, whole
        // vectors of which are stored here only if all of them exist.
        unsafe {
            if channels < VECTORS * S::LANES || store.epilogue.other.is_some() {
                // A copy, so that the sums themselves need not live in memory.
                let sums = *sums;
                return simd.call::<StoreTile<'_>>(StoreTile {
                    sums: sums.as_ptr().cast(),
                    rows: ROWS,
                    vectors: VECTORS,
                    channels,
                    output: store.output.add(at),
                    residual: if store.residual.is_null() {
                        store.residual
                    } else {
                        store.residual.add(at)
                    },
                    pixel,
                    epilogue: &store.epilogue,
                });
            }
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    let at = at + r * pixel + v * S::LANES;
                    let mut sum = sums[r][v];
                    if !store.residual.is_null() {
                        sum = simd.add(sum, simd.load(store.residual.add(at)));
                    }
                    simd.store(store.output.add(at), store.epilogue.clamp(simd, sum));
                }
            }
        }
    }
}

/// 8-bit weights and 8-bit activations.
#[derive(Clone, Copy)]
pub(crate) struct I8;

/// Low-bit weights of `BITS` bits, several to a byte, and 8-bit activations.
#[derive(Clone, Copy)]
pub(crate) struct LowBit<const BITS: u32>;

impl<const BITS: u32> LowBit<BITS> {
    /// Returns the number of weights that share an element of a group, which is even.
    const fn fields<S: Simd>() -> usize {
        32 / S::LOW_BIT_GROUP / BITS as usize
    }
}

/// Output, residual and epilogue for [`I8`] and [`LowBit`].
#[derive(Clone, Copy)]
pub(crate) struct I8Store {
    /// Addresses of output and residual, for all groups.
    pub target: Target,
    /// Index of the group's first channel.
    pub first: usize,
    /// Scale of every channel of the group, see [`EpilogueI8::scale`].
    pub scale: *const f32,
    /// Bias of every channel of the group, see [`EpilogueI8::bias`].
    pub bias: *const f32,
    pub epilogue: EpilogueI8,
}

/// Shared part of the integer implementations.
macro_rules! integers {
    () => {
        type Source = i8;
        type Sum = i32;
        type Acc<S: Simd> = S::I32;
        type Store = I8Store;
        const EXACT: bool = true;

        #[inline(always)]
        fn zero<S: Simd>(simd: S) -> S::I32 {
            simd.zero_i32()
        }
        #[inline(always)]
        unsafe fn load_sums<S: Simd>(simd: S, from: *const i32) -> S::I32 {
            // SAFETY: the caller has `LANES` sums at `from`.
            unsafe { simd.load_i32(from) }
        }
        #[inline(always)]
        fn add<S: Simd>(simd: S, a: S::I32, b: S::I32) -> S::I32 {
            simd.add_i32(a, b)
        }
        #[inline(always)]
        unsafe fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
            simd: S,
            store: &I8Store,
            at: usize,
            pixel: usize,
            column: usize,
            channels: usize,
            sums: &[[S::I32; VECTORS]; ROWS],
        ) {
            let sums = *sums;
            // SAFETY: the caller's `store` is valid for the pixels and channels of the tile, from
            // `column` on in the group and from `first + column` on in the output.
            unsafe {
                simd.call::<StoreTileI8<'_>>(StoreTileI8 {
                    epilogue: &store.epilogue,
                    target: store.target,
                    scale: store.scale.add(column),
                    bias: store.bias.add(column),
                    pixel,
                    sums: sums.as_ptr().cast(),
                    rows: ROWS,
                    vectors: VECTORS,
                    at: at + store.first + column,
                    channels,
                });
            }
        }
    };
}

impl Kind for I8 {
    integers!();
    type Weight = i8;
    type Act<S: Simd> = S::Act;
    const FEW_ROWS: bool = false;

    fn form<S: Simd>() -> DotForm {
        DotForm {
            group: S::GROUP,
            bytes: size_of::<Self::Act<S>>(),
            centered: <S::Act as Activate>::CENTERED,
            shift: S::SHIFT,
        }
    }
    #[inline(always)]
    fn group<S: Simd>() -> usize {
        S::GROUP
    }
    #[inline(always)]
    fn packed<S: Simd>() -> usize {
        S::GROUP
    }
    fn pack<S: Simd>(weights: &[i8], to: &mut Vec<i8>) {
        to.extend_from_slice(weights);
    }
    #[inline(always)]
    unsafe fn step<S: Simd, const ROWS: usize, const VECTORS: usize, const CHAINS: usize>(
        simd: S,
        sums: &mut Sums<S::I32, ROWS, VECTORS, CHAINS>,
        chain: usize,
        weights: *const i8,
        runs: &[*const S::Act; ROWS],
        k: usize,
    ) {
        // SAFETY: the caller has `GROUP` weights for each lane of `VECTORS` vectors, and `GROUP`
        // inputs from `k` on in each run.
        unsafe {
            let w: [S::Groups; VECTORS] =
                paretune_simd::array(|v| simd.load_weights(weights.add(v * S::LANES * S::GROUP)));
            for r in 0..ROWS {
                let x = simd.broadcast(runs[r].add(k));
                for v in 0..VECTORS {
                    sums[chain][r][v] = simd.dot(sums[chain][r][v], w[v], x);
                }
            }
        }
    }
}

impl<const BITS: u32> Kind for LowBit<BITS> {
    integers!();
    type Weight = u8;
    type Act<S: Simd> = S::LowBitAct;
    const FEW_ROWS: bool = true;

    fn form<S: Simd>() -> DotForm {
        DotForm {
            group: S::LOW_BIT_GROUP,
            bytes: size_of::<Self::Act<S>>(),
            centered: <S::LowBitAct as Activate>::CENTERED,
            shift: S::SHIFT,
        }
    }
    #[inline(always)]
    fn group<S: Simd>() -> usize {
        Self::fields::<S>() * S::LOW_BIT_GROUP
    }
    #[inline(always)]
    fn packed<S: Simd>() -> usize {
        4
    }
    fn pack<S: Simd>(weights: &[i8], to: &mut Vec<u8>) {
        // Bits per element of a group of 32 bits.
        let element = 32 / S::LOW_BIT_GROUP as u32;
        let group = weights.iter().enumerate().fold(0_u32, |group, (i, &weight)| {
            let (field, place) = ((i / S::LOW_BIT_GROUP) as u32, (i % S::LOW_BIT_GROUP) as u32);
            group | S::low_bit_code::<BITS>(weight) << (place * element + field * BITS)
        });
        to.extend_from_slice(&group.to_le_bytes());
    }
    #[inline(always)]
    unsafe fn step<S: Simd, const ROWS: usize, const VECTORS: usize, const CHAINS: usize>(
        simd: S,
        sums: &mut Sums<S::I32, ROWS, VECTORS, CHAINS>,
        chain: usize,
        weights: *const u8,
        runs: &[*const S::LowBitAct; ROWS],
        k: usize,
    ) {
        let fields = Self::fields::<S>();
        // SAFETY: the caller has 4 bytes of weights for each lane of `VECTORS` vectors, and inputs
        // for all `fields` groups from `k` on in each run.
        unsafe {
            let packed: [S::Groups; VECTORS] =
                paretune_simd::array(|v| simd.load_packed(weights.add(v * S::LANES * 4)));
            for pair in 0..fields / 2 {
                let chain = (chain * fields / 2 + pair) % CHAINS;
                let field = 2 * pair;
                let mut w = [[packed[0]; 2]; VECTORS];
                for v in 0..VECTORS {
                    w[v] = [
                        simd.unpack::<BITS>(packed[v], field as u32),
                        simd.unpack::<BITS>(packed[v], field as u32 + 1),
                    ];
                }
                for r in 0..ROWS {
                    let from = runs[r].add(k + field * S::LOW_BIT_GROUP);
                    let x = [
                        simd.broadcast_low_bit(from),
                        simd.broadcast_low_bit(from.add(S::LOW_BIT_GROUP)),
                    ];
                    for v in 0..VECTORS {
                        sums[chain][r][v] = simd.dot_low_bit(sums[chain][r][v], w[v], x);
                    }
                }
            }
        }
    }
}
