//! Pointwise activations as operators of their own. They work in place.

use super::{Context, Io, Loops, OperatorKernel, on};
use paretune_base::plan::activation::Activation;
use paretune_base::threads::Worker;

/// Elements handled between loading and storing; they stay in registers or in the first-level
/// cache.
pub const CHUNK: usize = 64;

/// Builds `activation` over `len` elements in any order. The output may be the input.
pub fn prepare(context: Context, len: usize, activation: Activation) -> Box<dyn OperatorKernel> {
    on(context.isa, Pointwise { len, activation })
}

struct Pointwise {
    len: usize,
    activation: Activation,
}

impl Loops for Pointwise {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let input = io.inputs[0].cast::<f32>();
        let output = io.output.cast::<f32>();
        let chunks = worker.share(self.len.div_ceil(CHUNK));
        for chunk in chunks {
            let start = chunk * CHUNK;
            let len = CHUNK.min(self.len - start);
            let mut numbers = [0.0_f32; CHUNK];
            // SAFETY: `start + len <= self.len`, which both buffers hold; `numbers` is our own, so
            // exact overlap of the two does no harm; workers have different chunks.
            unsafe {
                std::ptr::copy_nonoverlapping(input.add(start), numbers.as_mut_ptr(), len);
                in_place(self.activation, &mut numbers);
                std::ptr::copy_nonoverlapping(numbers.as_ptr(), output.add(start), len);
            }
        }
    }
}

/// Applies `activation` to every element in place.
#[inline(always)]
pub fn in_place(activation: Activation, numbers: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => each(numbers, |x| if x > 0.0 { x } else { 0.0 }),
        Activation::Clip { low, high } => each(numbers, |x| clamp(x, low, high)),
        Activation::LeakyRelu { slope } => each(numbers, |x| if x > 0.0 { x } else { slope * x }),
        Activation::Sigmoid => each(numbers, |x| 1.0 / (1.0 + exp(-x))),
        Activation::HardSigmoid { alpha, beta } => {
            each(numbers, |x| clamp(alpha * x + beta, 0.0, 1.0))
        }
        Activation::HardSwish => each(numbers, |x| x * clamp(x * (1.0 / 6.0) + 0.5, 0.0, 1.0)),
    }
}

#[inline(always)]
fn each(numbers: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in numbers {
        *x = f(*x);
    }
}

/// Clamps with two selections, which compile to two vector instructions.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// Returns `e^x` to within 2 units in the last place. It has no table and no branch, so that it
/// vectorizes: a range reduction to `[-ln 2 / 2, ln 2 / 2]` and a polynomial, as in Cephes' `expf`
/// (Moshier, 1989). Below -87.3 the result stays at the smallest normal number, above 88.3 at the
/// largest power of two.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding and subtracting this constant rounds to an integer, which appears in the low mantissa
    /// bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // 355 / 512 has few bits, so `n * LN2_HIGH` is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    p * power
}
