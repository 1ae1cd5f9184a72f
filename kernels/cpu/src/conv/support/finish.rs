//! Epilogue of a single-precision convolution: the activation, on vectors.

use paretune_base::plan::activation::Activation;
use paretune_simd::{Job, Simd};

/// A prepared activation. Kernels keep the bounds of a clamp in registers; other activations are
/// applied in a second pass over the tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    /// Lower bound of the clamp.
    pub(crate) low: f32,
    /// Upper bound of the clamp.
    pub(crate) high: f32,
    /// The activation, if it is not a clamp.
    pub(crate) other: Option<Activation>,
}

impl Finish {
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
    ///
    /// # Safety
    /// The processor must execute `S`, as for every function of [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn clamp<S: Simd>(&self, v: S::F) -> S::F {
        // SAFETY: passed on.
        unsafe { S::at_most(S::splat(self.high), S::at_least(S::splat(self.low), v)) }
    }

    /// Applies the activation, clamp or not.
    ///
    /// # Safety
    /// The processor must execute `S`, as for every function of [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(&self, v: S::F) -> S::F {
        // SAFETY: passed on.
        unsafe {
            match self.other {
                None => self.clamp::<S>(v),
                Some(Activation::LeakyRelu { slope }) => {
                    let zero = S::splat(0.0);
                    S::fma(S::splat(slope), S::at_most(zero, v), S::at_least(zero, v))
                }
                Some(Activation::HardSigmoid { alpha, beta }) => {
                    unit::<S>(S::fma(S::splat(alpha), v, S::splat(beta)))
                }
                Some(Activation::HardSwish) => {
                    S::mul(v, unit::<S>(S::fma(S::splat(1.0 / 6.0), v, S::splat(0.5))))
                }
                Some(other) => {
                    let mut lanes = [0.0_f32; 16];
                    S::store(lanes.as_mut_ptr(), v);
                    for lane in &mut lanes[..S::LANES] {
                        *lane = other.apply(*lane);
                    }
                    S::load(lanes.as_ptr())
                }
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
    pub(crate) finish: &'a Finish,
}

impl Job for StoreTile<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut sums = self.sums;
        for row in 0..self.rows {
            for vector in 0..self.vectors {
                let at = row * self.pixel + vector * S::LANES;
                let count = self.channels.saturating_sub(vector * S::LANES);
                // SAFETY: the first `count` channels from `at` on exist, and all sums do.
                unsafe {
                    let mut sum = S::load(sums);
                    sums = sums.add(S::LANES);
                    if count == 0 {
                        continue;
                    }
                    let part = count < S::LANES;
                    if !self.residual.is_null() {
                        let from = self.residual.add(at);
                        sum = S::add(sum, if part { S::load_first(from, count) } else { S::load(from) });
                    }
                    let sum = self.finish.apply::<S>(sum);
                    let to = self.output.add(at);
                    if part { S::store_first(to, count, sum) } else { S::store(to, sum) }
                }
            }
        }
    }
}

/// Clamps `v` to 0..=1.
///
/// # Safety
/// The processor must execute `S`, as for every function of [`Simd`].
#[inline(always)]
unsafe fn unit<S: Simd>(v: S::F) -> S::F {
    // SAFETY: passed on.
    unsafe { S::at_most(S::splat(1.0), S::at_least(S::splat(0.0), v)) }
}
