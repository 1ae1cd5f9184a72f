//! What follows the sum of an 8-bit convolution: scale, bias, residual and activation in single
//! precision, then the output's number format.

use super::finish::Finish;
use super::{Element, Request};
use crate::plan::Quantization;
use crate::simd::Simd;

/// Added and subtracted again, it rounds to the nearest integer, ties to even, below 2^22.
const ROUND: f32 = 12_582_912.0;

/// How residual and output are held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish8 {
    activation: Finish,
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
        Self {
            activation: Finish::new(request.activation),
            residual: request.residual.and_then(grid),
            output: grid(request.output),
        }
    }

    /// Finishes `sum` and stores it as the numbers from `at` on: all lanes, or the first `count` if
    /// those are fewer.
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
                let residual = match self.residual {
                    None => {
                        let from = target.residual.cast::<f32>().add(at);
                        if part { S::load_first(from, count) } else { S::load(from) }
                    }
                    Some(grid) => {
                        let from = target.residual.add(at);
                        let bytes = if part { S::load_first_u8(from, count) } else { S::load_u8(from) };
                        let zero = S::splat(f32::from(grid.zero_point));
                        S::mul(S::sub(bytes, zero), S::splat(grid.scale))
                    }
                };
                sum = S::add(sum, residual);
            }
            sum = self.activation.apply::<S>(sum);
            match self.output {
                None => {
                    let to = target.output.cast::<f32>().add(at);
                    if part { S::store_first(to, count, sum) } else { S::store(to, sum) }
                }
                Some(grid) => {
                    let zero = f32::from(grid.zero_point);
                    // Round before the zero point is added, or ties would follow its parity.
                    let steps = S::mul(sum, S::splat(grid.scale.recip()));
                    let steps = S::at_most(S::splat(255.0 - zero), S::at_least(S::splat(-zero), steps));
                    let byte = S::sub(S::add(steps, S::splat(ROUND)), S::splat(ROUND - zero));
                    let to = target.output.add(at);
                    if part { S::store_first_u8(to, count, byte) } else { S::store_u8(to, byte) }
                }
            }
        }
    }
}
