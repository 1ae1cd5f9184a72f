//! What follows the sum of an 8-bit convolution: scale, bias, residual and activation in single
//! precision, then the output's number format.

use super::finish::Finish;
use super::{Element, Request};
use crate::plan::Quantization;
use crate::simd::{Job, Simd};

/// Added and subtracted again, it rounds to the nearest integer, ties to even, below 2^22.
const ROUND: f32 = 12_582_912.0;

/// How residual and output are held.
///
/// Results are computed in *units*: steps of the output's grid where it has one and the activation is a
/// clamp, which commutes with scaling, so that nothing is left to do but to round; 1 otherwise. Scales
/// and biases are brought to the unit ahead of time ([`Finish8::scale`], [`Finish8::bias`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish8 {
    /// In units; of clamps before a rounding, to what the output can hold.
    activation: Finish,
    /// Units per 1.
    unit: f32,
    /// Whether the unit is the output's step.
    in_steps: bool,
    /// The residual's grid, where it has 8 bits.
    residual: Option<Quantization>,
    /// The output's grid, where it has 8 bits.
    output: Option<Quantization>,
}

/// Addresses of numbers of either format.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) output: *mut u8,
    /// Or null.
    pub(super) residual: *const u8,
}

impl Finish8 {
    pub(super) fn new(request: &Request<'_>) -> Self {
        let grid = |element| match element {
            Element::F32 => None,
            Element::U8(grid) => Some(grid),
        };
        let (residual, output) = (request.residual.and_then(grid), grid(request.output));
        let activation = Finish::new(request.activation);
        match output {
            Some(grid) if activation.other.is_none() => {
                let (unit, zero) = (grid.scale.recip(), f32::from(grid.zero_point));
                let low = (activation.low * unit).max(-zero);
                let high = (activation.high * unit).min(255.0 - zero);
                let activation = Finish { low, high, other: None };
                Self { activation, unit, in_steps: true, residual, output }
            }
            _ => Self { activation, unit: 1.0, in_steps: false, residual, output },
        }
    }

    /// What integer sums are multiplied with, given the real number that one of them stands for.
    pub(super) fn scale(&self, scale: f32) -> f32 {
        scale * self.unit
    }

    /// What is added to scaled sums, given the convolution's bias: the residual's zero point is in it.
    pub(super) fn bias(&self, bias: f32) -> f32 {
        let shift = self.residual.map_or(0.0, |grid| f32::from(grid.zero_point) * grid.scale);
        (bias - shift) * self.unit
    }

    /// Finishes `sum`, in units and with the bias in it, and stores it as the numbers from `at` on: all
    /// lanes, or the first `count` if those are fewer.
    ///
    /// # Safety
    /// These numbers exist in output and residual, and the processor executes `S`.
    #[inline(always)]
    pub(super) unsafe fn store<S: Simd>(&self, target: Target, at: usize, count: usize, sum: S::F) {
        let part = count < S::LANES;
        let mut sum = sum;
        // SAFETY: the caller vouches for the numbers from `at` on.
        unsafe {
            if !target.residual.is_null() {
                let (residual, step) = match self.residual {
                    None => {
                        let from = target.residual.cast::<f32>().add(at);
                        (if part { S::load_first(from, count) } else { S::load(from) }, self.unit)
                    }
                    Some(grid) => {
                        let from = target.residual.add(at);
                        let bytes = if part { S::load_first_u8(from, count) } else { S::load_u8(from) };
                        (bytes, grid.scale * self.unit)
                    }
                };
                sum = S::fma(residual, S::splat(step), sum);
            }
            sum = self.activation.apply::<S>(sum);
            match self.output {
                None => {
                    let to = target.output.cast::<f32>().add(at);
                    if part { S::store_first(to, count, sum) } else { S::store(to, sum) }
                }
                Some(grid) => {
                    let zero = f32::from(grid.zero_point);
                    let mut steps = sum;
                    if !self.in_steps {
                        steps = S::mul(sum, S::splat(grid.scale.recip()));
                        steps = S::at_most(S::splat(255.0 - zero), S::at_least(S::splat(-zero), steps));
                    }
                    // Round before the zero point is added, or ties would follow its parity.
                    let byte = S::sub(S::add(steps, S::splat(ROUND)), S::splat(ROUND - zero));
                    let to = target.output.add(at);
                    if part { S::store_first_u8(to, count, byte) } else { S::store_u8(to, byte) }
                }
            }
        }
    }

    /// The common case of [`Finish8::store`], prepared: bytes come, if a residual does, and bytes go.
    pub(super) fn bytes(&self, target: Target) -> Option<BytesFinish> {
        let zero = f32::from(self.output?.zero_point);
        let residual = match (target.residual.is_null(), self.residual) {
            (true, _) => None,
            (false, Some(grid)) => Some(grid.scale * self.unit),
            (false, None) => return None,
        };
        let Finish { low, high, .. } = self.activation;
        self.in_steps.then_some(BytesFinish { low, high, back: ROUND - zero, residual })
    }

    /// The most common case, known ahead: no residual comes, and bytes go.
    pub(super) fn plain_bytes(&self, request: &Request<'_>) -> Option<BytesFinish> {
        let nothing = Target { output: std::ptr::null_mut(), residual: std::ptr::null() };
        if request.residual.is_some() { None } else { self.bytes(nothing) }
    }
}

/// See [`Finish8::bytes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct BytesFinish {
    low: f32,
    high: f32,
    /// What is left of [`ROUND`] when the zero point has been added.
    back: f32,
    /// Units per step of the residual.
    pub(super) residual: Option<f32>,
}

impl BytesFinish {
    /// Finishes `sum` as [`Finish8::store`] does, up to the store; `residual` is where its residual lies, if
    /// `RESIDUAL`.
    ///
    /// # Safety
    /// All lanes exist in the residual, and the processor executes `S`.
    #[inline(always)]
    pub(super) unsafe fn byte<S: Simd, const RESIDUAL: bool>(&self, sum: S::F, residual: *const u8) -> S::F {
        // SAFETY: passed on.
        unsafe {
            let mut sum = sum;
            if RESIDUAL {
                sum = S::fma(S::load_u8(residual), S::splat(self.residual.unwrap_or(0.0)), sum);
            }
            let steps = S::at_most(S::splat(self.high), S::at_least(S::splat(self.low), sum));
            S::sub(S::add(steps, S::splat(ROUND)), S::splat(self.back))
        }
    }
}

/// Finishes and stores a tile. There are many ways to finish: they are compiled once, not into every
/// microkernel.
#[derive(Clone, Copy)]
pub(super) struct StoreTile8<'a> {
    pub(super) finish: &'a Finish8,
    pub(super) target: Target,
    /// Of the tile's channels, padded to whole vectors: see [`Finish8::scale`].
    pub(super) scale: *const f32,
    /// The same: see [`Finish8::bias`].
    pub(super) bias: *const f32,
    /// Numbers from one pixel to the next, of output and residual.
    pub(super) pixel: usize,
    /// `[row][vector][lane]`
    pub(super) sums: *const i32,
    pub(super) rows: usize,
    pub(super) vectors: usize,
    /// The tile's place in the output.
    pub(super) at: usize,
    /// Channels that exist.
    pub(super) channels: usize,
}

impl Job for StoreTile8<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut v = 0;
        // SAFETY: the tile lies in the output; scales and biases are padded to whole vectors.
        unsafe {
            if let Some(finish) = self.finish.bytes(self.target) {
                v = if finish.residual.is_some() {
                    self.bytes::<S, true>(&finish)
                } else {
                    self.bytes::<S, false>(&finish)
                };
            }
            while v * S::LANES < self.channels {
                let scale = S::load(self.scale.add(v * S::LANES));
                let bias = S::load(self.bias.add(v * S::LANES));
                for r in 0..self.rows {
                    let sum = S::load_i32(self.sums.add((r * self.vectors + v) * S::LANES));
                    let sum = S::fma(S::to_f32(sum), scale, bias);
                    let at = self.at + r * self.pixel + v * S::LANES;
                    self.finish.store::<S>(self.target, at, self.channels - v * S::LANES, sum);
                }
                v += 1;
            }
        }
    }
}

impl StoreTile8<'_> {
    /// Finishes and stores all vectors, the last one as far as it exists; returns how many.
    ///
    /// # Safety
    /// The tile lies in output and residual, which is there if `RESIDUAL`; the processor executes `S`.
    #[inline(always)]
    unsafe fn bytes<S: Simd, const RESIDUAL: bool>(&self, finish: &BytesFinish) -> usize {
        let whole = self.channels / S::LANES;
        let mut v = 0;
        // SAFETY: passed on.
        unsafe {
            while v + 2 <= whole {
                self.columns::<S, RESIDUAL, 2>(finish, v);
                v += 2;
            }
            if v < whole {
                self.columns::<S, RESIDUAL, 1>(finish, v);
                v += 1;
            }
            if v * S::LANES < self.channels {
                self.tail::<S, RESIDUAL>(finish, v);
                v += 1;
            }
        }
        v
    }

    /// Finishes and stores what exists of vector `v` of every row.
    ///
    /// # Safety
    /// As for [`StoreTile8::bytes`]; part of this vector exists.
    #[inline(always)]
    unsafe fn tail<S: Simd, const RESIDUAL: bool>(&self, finish: &BytesFinish, v: usize) {
        let count = self.channels - v * S::LANES;
        // SAFETY: the tile lies in output and residual; scales and biases are padded to whole vectors.
        unsafe {
            let scale = S::load(self.scale.add(v * S::LANES));
            let bias = S::load(self.bias.add(v * S::LANES));
            let step = S::splat(finish.residual.unwrap_or(0.0));
            for r in 0..self.rows {
                let sums = S::load_i32(self.sums.add((r * self.vectors + v) * S::LANES));
                let at = self.at + r * self.pixel + v * S::LANES;
                let mut sum = S::fma(S::to_f32(sums), scale, bias);
                if RESIDUAL {
                    sum = S::fma(S::load_first_u8(self.target.residual.add(at), count), step, sum);
                }
                let byte = finish.byte::<S, false>(sum, std::ptr::null());
                S::store_first_u8(self.target.output.add(at), count, byte);
            }
        }
    }

    /// Finishes and stores `N` vectors of every row, from vector `v` on.
    ///
    /// # Safety
    /// As for [`StoreTile8::bytes`]; these vectors are whole.
    #[inline(always)]
    unsafe fn columns<S: Simd, const RESIDUAL: bool, const N: usize>(&self, finish: &BytesFinish, v: usize) {
        // SAFETY: the tile lies in output and residual; scales and biases are padded to whole vectors.
        unsafe {
            // Plain loops: closures lose the instruction set unless they are inlined, which `from_fn` here is not.
            let mut scale = [S::splat(0.0); N];
            let mut bias = [S::splat(0.0); N];
            for n in 0..N {
                scale[n] = S::load(self.scale.add((v + n) * S::LANES));
                bias[n] = S::load(self.bias.add((v + n) * S::LANES));
            }
            let mut bytes = scale;
            for r in 0..self.rows {
                let sums = self.sums.add((r * self.vectors + v) * S::LANES);
                let at = self.at + r * self.pixel + v * S::LANES;
                for n in 0..N {
                    let sum = S::fma(S::to_f32(S::load_i32(sums.add(n * S::LANES))), scale[n], bias[n]);
                    let residual = self.target.residual.wrapping_add(at + n * S::LANES);
                    bytes[n] = finish.byte::<S, RESIDUAL>(sum, residual);
                }
                let to = self.target.output.add(at);
                if N == 2 {
                    S::store_u8_twice(to, bytes[0], bytes[1]);
                } else {
                    S::store_u8(to, bytes[0]);
                }
            }
        }
    }
}
