//! Epilogue of a single-precision convolution: the activation, on vectors.

use paretune_base::plan::activation::Activation;
use paretune_simd::{Simd, SimdFn};

/// A prepared activation. Kernels keep the bounds of a clamp in registers; other activations are
/// applied in a second pass over the tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue {
    /// Lower bound of the clamp.
    pub(crate) low: f32,
    /// Upper bound of the clamp.
    pub(crate) high: f32,
    /// The activation, if it is not a clamp.
    pub(crate) other: Option<Activation>,
}

impl Epilogue {
    pub(crate) fn new(activation: Activation) -> Self {
        match activation.as_clamp() {
            Some((low, high)) => Self { low, high, other: None },
            None => Self { low: f32::NEG_INFINITY, high: f32::INFINITY, other: Some(activation) },
        }
    }

    /// Returns the epilogue that changes nothing.
    pub(crate) fn identity() -> Self {
        Self::new(Activation::Identity)
    }

    /// Clamps `v` to the bounds.
    #[inline(always)]
    pub(crate) fn clamp<S: Simd>(&self, simd: S, v: S::F32) -> S::F32 {
        simd.at_most(simd.splat(self.high), simd.at_least(simd.splat(self.low), v))
    }

    /// Applies the activation, clamp or not.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(&self, simd: S, v: S::F32) -> S::F32 {
        match self.other {
            None => self.clamp(simd, v),
            Some(Activation::LeakyRelu { slope }) => {
                let zero = simd.splat(0.0);
                simd.fma(simd.splat(slope), simd.at_most(zero, v), simd.at_least(zero, v))
            }
            Some(Activation::HardSigmoid { alpha, beta }) => {
                unit(simd, simd.fma(simd.splat(alpha), v, simd.splat(beta)))
            }
            Some(Activation::HardSwish) => {
                simd.mul(v, unit(simd, simd.fma(simd.splat(1.0 / 6.0), v, simd.splat(0.5))))
            }
            Some(other) => {
                let mut lanes = simd.to_lanes(v);
                for lane in &mut lanes[..S::LANES] {
                    *lane = other.apply(*lane);
                }
                // SAFETY: there are 16 numbers, and no vector has more lanes.
                unsafe { simd.load(lanes.as_ptr()) }
            }
        }
    }
}

/// General store of a tile of sums, for edges and rare activations: any number of channels, any
/// activation. Kernels store whole tiles with clamps themselves.
pub(crate) struct StoreTile<'a> {
    /// Sums of the tile, `[row][vector][lane]`.
    pub(crate) sums: *const f32,
    /// Number of pixels of the tile.
    pub(crate) rows: usize,
    /// Vectors of channels per pixel.
    pub(crate) vectors: usize,
    /// Number of channels of the tile that exist in the output.
    pub(crate) channels: usize,
    /// Address of the first channel of the first pixel.
    pub(crate) output: *mut f32,
    /// Address of the matching residual element, or null.
    pub(crate) residual: *const f32,
    /// Distance in elements from one pixel to the next.
    pub(crate) pixel: usize,
    pub(crate) epilogue: &'a Epilogue,
}

impl SimdFn for StoreTile<'_> {
    type Args<'a> = StoreTile<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, tile: StoreTile<'_>) {
        let mut sums = tile.sums;
        for row in 0..tile.rows {
            for vector in 0..tile.vectors {
                let at = row * tile.pixel + vector * S::LANES;
                let count = tile.channels.saturating_sub(vector * S::LANES);
                // SAFETY: the first `count` channels from `at` on exist, and all sums do.
                unsafe {
                    let mut sum = simd.load(sums);
                    sums = sums.add(S::LANES);
                    if count == 0 {
                        continue;
                    }
                    let part = count < S::LANES;
                    if !tile.residual.is_null() {
                        let from = tile.residual.add(at);
                        sum = simd.add(
                            sum,
                            if part { simd.load_partial(from, count) } else { simd.load(from) },
                        );
                    }
                    let sum = tile.epilogue.apply(simd, sum);
                    let to = tile.output.add(at);
                    if part { simd.store_partial(to, count, sum) } else { simd.store(to, sum) }
                }
            }
        }
    }
}

/// Clamps every lane of `v` to 0..=1.
#[inline(always)]
fn unit<S: Simd>(simd: S, v: S::F32) -> S::F32 {
    simd.at_most(simd.splat(1.0), simd.at_least(simd.splat(0.0), v))
}
