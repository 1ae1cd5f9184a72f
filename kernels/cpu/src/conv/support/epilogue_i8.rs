//! Epilogue of an 8-bit convolution: scale, bias, residual and activation in single precision, then
//! conversion to the output's element type.

use std::ops::Range;

use super::buffer::Buffer;
use super::epilogue::Epilogue;
use crate::conv::algorithm::Request;
use paretune_base::error::KernelError;
use paretune_base::plan::Quantization;
use paretune_base::plan::layout::Element;
use paretune_simd::{Simd, SimdFn};

/// Adding and subtracting this constant rounds to the nearest integer, ties to even, for magnitudes
/// below 2^22.
const ROUND: f32 = 12_582_912.0;

/// Epilogue prepared for the element types of residual and output.
///
/// Results are computed in *units*. If the output is quantized and the activation is a clamp, which
/// commutes with scaling, the unit is the output's scale, and only rounding remains to be done.
/// Otherwise the unit is 1. Scales and biases are converted to units in advance
/// ([`EpilogueI8::scale`], [`EpilogueI8::bias`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct EpilogueI8 {
    /// Activation in units; a clamp before rounding also has the bounds of the output type.
    activation: Epilogue,
    /// Number of units per 1.
    unit: f32,
    /// Whether the unit is the output's scale.
    in_steps: bool,
    /// Quantization of the residual, if it has 8 bits.
    residual: Option<Quantization>,
    /// Quantization of the output, if it has 8 bits.
    output: Option<Quantization>,
}

/// Addresses of output and residual, of either element type.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) output: *mut u8,
    /// Address of the residual, or null if there is none.
    pub(crate) residual: *const u8,
}

impl EpilogueI8 {
    pub(crate) fn new(request: &Request<'_>) -> Self {
        let grid = |element| match element {
            Element::F32 => None,
            Element::U8(grid) => Some(grid),
        };
        let (residual, output) = (request.residual.and_then(grid), grid(request.output));
        let activation = Epilogue::new(request.activation);
        match output {
            Some(grid) if activation.other.is_none() => {
                let (unit, zero) = (grid.scale.recip(), f32::from(grid.zero_point));
                let low = (activation.low * unit).max(-zero);
                let high = (activation.high * unit).min(255.0 - zero);
                let activation = Epilogue { low, high, other: None };
                Self { activation, unit, in_steps: true, residual, output }
            }
            _ => Self { activation, unit: 1.0, in_steps: false, residual, output },
        }
    }

    /// Returns the factor in units for integer sums, given the real value of one integer step.
    pub(crate) fn scale(&self, scale: f32) -> f32 {
        scale * self.unit
    }

    /// Returns the addend in units for scaled sums: the convolution's bias, corrected by the
    /// residual's zero point.
    pub(crate) fn bias(&self, bias: f32) -> f32 {
        let shift = self.residual.map_or(0.0, |grid| f32::from(grid.zero_point) * grid.scale);
        (bias - shift) * self.unit
    }

    /// Packs the scales and the biases of the output channels `channels`, in units and padded to
    /// `width` numbers, for weights of these `scales` and an input in steps of `step`.
    pub(crate) fn packed(
        &self,
        request: &Request<'_>,
        scales: &[f32],
        step: f32,
        channels: Range<usize>,
        width: usize,
    ) -> Result<[Buffer<f32>; 2], KernelError> {
        let packing = request.packing;
        let scale = packing.numbers(width, |to: &mut [f32]| {
            for (to, channel) in to.iter_mut().zip(channels.clone()) {
                *to = self.scale(scales[channel] * step);
            }
        })?;
        let bias = packing.numbers(width, |to: &mut [f32]| {
            for (to, channel) in to.iter_mut().zip(channels.clone()) {
                *to = self.bias(request.bias(channel));
            }
        })?;
        Ok([scale, bias])
    }

    /// Finishes `sum`, which is in units and includes the bias, and stores its lanes (the first
    /// `count`, if fewer) from element `at` on.
    ///
    /// # Safety
    /// The stored elements must exist in output and residual.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(
        &self,
        simd: S,
        target: Target,
        at: usize,
        count: usize,
        sum: S::F32,
    ) {
        let part = count < S::LANES;
        let mut sum = sum;
        // SAFETY: the caller has `count` elements, or at least a vector, from `at` on in output and
        // residual. Partial loads and stores touch no more than `count`.
        unsafe {
            if !target.residual.is_null() {
                let (residual, step) = match self.residual {
                    None => {
                        let from = target.residual.cast::<f32>().add(at);
                        (
                            if part { simd.load_partial(from, count) } else { simd.load(from) },
                            self.unit,
                        )
                    }
                    Some(grid) => {
                        let from = target.residual.add(at);
                        let bytes = if part {
                            simd.load_u8_partial(from, count)
                        } else {
                            simd.load_u8(from)
                        };
                        (bytes, grid.scale * self.unit)
                    }
                };
                sum = simd.fma(residual, simd.splat(step), sum);
            }
            sum = self.activation.apply(simd, sum);
            match self.output {
                None => {
                    let to = target.output.cast::<f32>().add(at);
                    if part { simd.store_partial(to, count, sum) } else { simd.store(to, sum) }
                }
                Some(grid) => {
                    let zero = f32::from(grid.zero_point);
                    let mut steps = sum;
                    if !self.in_steps {
                        steps = simd.mul(sum, simd.splat(grid.scale.recip()));
                        steps = simd.at_most(
                            simd.splat(255.0 - zero),
                            simd.at_least(simd.splat(-zero), steps),
                        );
                    }
                    // Rounding precedes the addition of the zero point, else ties would follow its
                    // parity.
                    let byte =
                        simd.sub(simd.add(steps, simd.splat(ROUND)), simd.splat(ROUND - zero));
                    let to = target.output.add(at);
                    if part {
                        simd.store_u8_partial(to, count, byte)
                    } else {
                        simd.store_u8(to, byte)
                    }
                }
            }
        }
    }

    /// Returns the epilogue of the common case, bytes to bytes; `None` if the residual or the
    /// output is not quantized.
    pub(crate) fn bytes(&self, target: Target) -> Option<ByteEpilogue> {
        let zero = f32::from(self.output?.zero_point);
        let residual = match (target.residual.is_null(), self.residual) {
            (true, _) => None,
            (false, Some(grid)) => Some(grid.scale * self.unit),
            (false, None) => return None,
        };
        let Epilogue { low, high, .. } = self.activation;
        self.in_steps.then_some(ByteEpilogue { low, high, back: ROUND - zero, residual })
    }

    /// Returns the epilogue of the most common case, byte output without residual; `None`
    /// otherwise.
    pub(crate) fn plain_bytes(&self, request: &Request<'_>) -> Option<ByteEpilogue> {
        let nothing = Target { output: std::ptr::null_mut(), residual: std::ptr::null() };
        if request.residual.is_some() { None } else { self.bytes(nothing) }
    }
}

/// Epilogue for byte outputs, see [`EpilogueI8::bytes`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteEpilogue {
    low: f32,
    high: f32,
    /// [`ROUND`] minus the output's zero point.
    back: f32,
    /// Units per quantization step of the residual.
    pub(crate) residual: Option<f32>,
}

impl ByteEpilogue {
    /// Finishes `sum` like [`EpilogueI8::store`], without storing it; adds the residual at
    /// `residual` if `RESIDUAL`.
    ///
    /// # Safety
    /// If `RESIDUAL`, all lanes must exist in the residual.
    #[inline(always)]
    pub(crate) unsafe fn byte<S: Simd, const RESIDUAL: bool>(
        &self,
        simd: S,
        sum: S::F32,
        residual: *const u8,
    ) -> S::F32 {
        let mut sum = sum;
        if RESIDUAL {
            // SAFETY: all lanes exist in the residual.
            let residual = unsafe { simd.load_u8(residual) };
            sum = simd.fma(residual, simd.splat(self.residual.unwrap_or(0.0)), sum);
        }
        let steps = simd.at_most(simd.splat(self.high), simd.at_least(simd.splat(self.low), sum));
        simd.sub(simd.add(steps, simd.splat(ROUND)), simd.splat(self.back))
    }
}

/// Epilogue and store of a tile. The many kinds of epilogue are compiled once and not into every
/// microkernel.
#[derive(Clone, Copy)]
pub(crate) struct StoreTileI8<'a> {
    pub(crate) epilogue: &'a EpilogueI8,
    pub(crate) target: Target,
    /// Scales of the tile's channels, padded to whole vectors: see [`EpilogueI8::scale`].
    pub(crate) scale: *const f32,
    /// Biases of the tile's channels, padded to whole vectors: see [`EpilogueI8::bias`].
    pub(crate) bias: *const f32,
    /// Distance in elements from one pixel of output and residual to the next.
    pub(crate) pixel: usize,
    /// Sums of the tile, `[row][vector][lane]`.
    pub(crate) sums: *const i32,
    pub(crate) rows: usize,
    pub(crate) vectors: usize,
    /// Offset of the tile's first element in the output.
    pub(crate) at: usize,
    /// Number of channels of the tile that exist in the output.
    pub(crate) channels: usize,
}

impl SimdFn for StoreTileI8<'_> {
    type Args<'a> = StoreTileI8<'a>;

    #[inline(always)]
    unsafe fn call<S: Simd>(simd: S, tile: StoreTileI8<'_>) {
        let mut v = 0;
        // SAFETY: the caller's tile lies in output and residual, with `channels` channels in each
        // row. Sums, scales and biases are padded to whole vectors.
        unsafe {
            if let Some(epilogue) = tile.epilogue.bytes(tile.target) {
                v = if epilogue.residual.is_some() {
                    tile.bytes::<S, true>(simd, &epilogue)
                } else {
                    tile.bytes::<S, false>(simd, &epilogue)
                };
            }
            while v * S::LANES < tile.channels {
                let scale = simd.load(tile.scale.add(v * S::LANES));
                let bias = simd.load(tile.bias.add(v * S::LANES));
                for r in 0..tile.rows {
                    let sum = simd.load_i32(tile.sums.add((r * tile.vectors + v) * S::LANES));
                    let sum = simd.fma(simd.to_f32(sum), scale, bias);
                    let at = tile.at + r * tile.pixel + v * S::LANES;
                    tile.epilogue.store(simd, tile.target, at, tile.channels - v * S::LANES, sum);
                }
                v += 1;
            }
        }
    }
}

impl StoreTileI8<'_> {
    /// Finishes and stores all vectors, the last one up to its last channel; returns the number of
    /// vectors.
    ///
    /// # Safety
    /// The tile must lie in the output, and in the residual if `RESIDUAL`.
    #[inline(always)]
    unsafe fn bytes<S: Simd, const RESIDUAL: bool>(
        &self,
        simd: S,
        epilogue: &ByteEpilogue,
    ) -> usize {
        let whole = self.channels / S::LANES;
        let mut v = 0;
        // SAFETY: the caller's tile lies in output and residual. The first `whole` vectors are
        // whole, and only the last one is partial.
        unsafe {
            while v + 2 <= whole {
                self.columns::<S, RESIDUAL, 2>(simd, epilogue, v);
                v += 2;
            }
            if v < whole {
                self.columns::<S, RESIDUAL, 1>(simd, epilogue, v);
                v += 1;
            }
            if v * S::LANES < self.channels {
                self.tail::<S, RESIDUAL>(simd, epilogue, v);
                v += 1;
            }
        }
        v
    }

    /// Finishes and stores the first channels of the partial vector `v` of every row.
    ///
    /// # Safety
    /// The requirements of [`StoreTileI8::bytes`] must be met, and at least one channel of the
    /// vector must exist.
    #[inline(always)]
    unsafe fn tail<S: Simd, const RESIDUAL: bool>(
        &self,
        simd: S,
        epilogue: &ByteEpilogue,
        v: usize,
    ) {
        let count = self.channels - v * S::LANES;
        // SAFETY: the tile lies in output and residual; scales and biases are padded to whole
        // vectors.
        unsafe {
            let scale = simd.load(self.scale.add(v * S::LANES));
            let bias = simd.load(self.bias.add(v * S::LANES));
            let step = simd.splat(epilogue.residual.unwrap_or(0.0));
            for r in 0..self.rows {
                let sums = simd.load_i32(self.sums.add((r * self.vectors + v) * S::LANES));
                let at = self.at + r * self.pixel + v * S::LANES;
                let mut sum = simd.fma(simd.to_f32(sums), scale, bias);
                if RESIDUAL {
                    sum = simd.fma(
                        simd.load_u8_partial(self.target.residual.add(at), count),
                        step,
                        sum,
                    );
                }
                let byte = epilogue.byte::<S, false>(simd, sum, std::ptr::null());
                simd.store_u8_partial(self.target.output.add(at), count, byte);
            }
        }
    }

    /// Finishes and stores `N` vectors of every row, from vector `v` on.
    ///
    /// # Safety
    /// The requirements of [`StoreTileI8::bytes`] must be met, and the vectors must be whole.
    #[inline(always)]
    unsafe fn columns<S: Simd, const RESIDUAL: bool, const N: usize>(
        &self,
        simd: S,
        epilogue: &ByteEpilogue,
        v: usize,
    ) {
        // SAFETY: the tile lies in output and residual; scales and biases are padded to whole
        // vectors.
        unsafe {
            // Plain loops: a closure that is not inlined is not compiled for the instruction set,
            // and `from_fn` here is not inlined.
            let mut scale = [simd.splat(0.0); N];
            let mut bias = [simd.splat(0.0); N];
            for n in 0..N {
                scale[n] = simd.load(self.scale.add((v + n) * S::LANES));
                bias[n] = simd.load(self.bias.add((v + n) * S::LANES));
            }
            let mut bytes = scale;
            for r in 0..self.rows {
                let sums = self.sums.add((r * self.vectors + v) * S::LANES);
                let at = self.at + r * self.pixel + v * S::LANES;
                for n in 0..N {
                    let sum = simd.fma(
                        simd.to_f32(simd.load_i32(sums.add(n * S::LANES))),
                        scale[n],
                        bias[n],
                    );
                    let residual = self.target.residual.wrapping_add(at + n * S::LANES);
                    bytes[n] = epilogue.byte::<S, RESIDUAL>(simd, sum, residual);
                }
                let to = self.target.output.add(at);
                if N == 2 {
                    simd.store_u8_twice(to, bytes[0], bytes[1]);
                } else {
                    simd.store_u8(to, bytes[0]);
                }
            }
        }
    }
}
