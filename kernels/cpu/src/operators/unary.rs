//! Functions of single elements, in place on any layout.

use super::activation::{CHUNK, exp};
use super::elementary::{erf, exp_less_one, full_exp, log, power, softplus, tanh};
use super::{Context, Io, Loops, OperatorKernel, on};
use paretune_base::plan::tensor::Unary;
use paretune_base::threads::Worker;

/// Builds `function` over `len` elements in any order. The output may be the input.
pub fn prepare(context: Context, len: usize, function: Unary) -> Box<dyn OperatorKernel> {
    on(context.isa, Pointwise { len, function })
}

struct Pointwise {
    len: usize,
    function: Unary,
}

impl Loops for Pointwise {
    #[inline(always)]
    unsafe fn run(&self, io: &Io<'_>, worker: &Worker<'_>) {
        let (input, output) = (io.inputs[0].cast::<f32>(), io.output.cast::<f32>());
        for chunk in worker.share(self.len.div_ceil(CHUNK)) {
            let start = chunk * CHUNK;
            let len = CHUNK.min(self.len - start);
            let mut numbers = [0.0_f32; CHUNK];
            // SAFETY: `start + len <= self.len`, which both buffers hold; `numbers` is our own, so
            // exact overlap of the two does no harm; workers have different chunks.
            unsafe {
                std::ptr::copy_nonoverlapping(input.add(start), numbers.as_mut_ptr(), len);
                in_place(self.function, &mut numbers);
                std::ptr::copy_nonoverlapping(numbers.as_ptr(), output.add(start), len);
            }
        }
    }
}

/// Applies `function` to every element in place.
#[inline(always)]
fn in_place(function: Unary, numbers: &mut [f32; CHUNK]) {
    match function {
        Unary::Abs => each(numbers, f32::abs),
        Unary::Negate => each(numbers, |x| -x),
        Unary::Exp => each(numbers, full_exp),
        Unary::Log => each(numbers, log),
        Unary::Sqrt => each(numbers, f32::sqrt),
        Unary::Reciprocal => each(numbers, |x| 1.0 / x),
        Unary::Erf => each(numbers, erf),
        Unary::Tanh => each(numbers, tanh),
        Unary::Sin => each(numbers, f32::sin),
        Unary::Cos => each(numbers, f32::cos),
        Unary::Floor => each(numbers, f32::floor),
        Unary::Ceil => each(numbers, f32::ceil),
        Unary::Round => each(numbers, f32::round_ties_even),
        Unary::Truncate => each(numbers, f32::trunc),
        Unary::Sign => each(numbers, |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }),
        Unary::Not => each(numbers, |x| if x == 0.0 { 1.0 } else { 0.0 }),
        Unary::Truth => each(numbers, |x| if x == 0.0 { 0.0 } else { 1.0 }),
        Unary::IsNan => each(numbers, |x| if x.is_nan() { 1.0 } else { 0.0 }),
        Unary::Gelu => {
            each(numbers, |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)));
        }
        Unary::GeluTanh => each(numbers, |x| {
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + tanh(inner))
        }),
        Unary::Swish { alpha } => each(numbers, |x| x / (1.0 + exp(-alpha * x))),
        Unary::Softplus => each(numbers, softplus),
        Unary::Softsign => each(numbers, |x| x / (1.0 + x.abs())),
        Unary::Mish => each(numbers, |x| {
            // tanh(log(1 + e)) is n / (n + 2) with n = e * (e + 2); above 20 it rounds to 1.
            let e = exp(if x < 20.0 { x } else { 20.0 });
            let n = e * (e + 2.0);
            x * (n / (n + 2.0))
        }),
        Unary::Elu { alpha, scale, width } => {
            let (height, inverse) = (scale * alpha, 1.0 / width);
            each(numbers, |x| if x > 0.0 { scale * x } else { height * exp_less_one(x * inverse) });
        }
        Unary::Threshold { threshold } => each(numbers, |x| if x > threshold { x } else { 0.0 }),
        Unary::Shrink { bias, bound } => each(numbers, |x| {
            if x < -bound {
                x + bias
            } else if x > bound {
                x - bias
            } else {
                0.0
            }
        }),
        Unary::Power { exponent } => raise(numbers, exponent),
    }
}

/// Raises every number to a constant power, by multiplications where they suffice.
#[inline(always)]
fn raise(numbers: &mut [f32; CHUNK], exponent: f32) {
    if exponent == 2.0 {
        each(numbers, |x| x * x);
    } else if exponent == 3.0 {
        each(numbers, |x| x * x * x);
    } else if exponent == 0.5 {
        each(numbers, f32::sqrt);
    } else if exponent == -0.5 {
        each(numbers, |x| 1.0 / x.sqrt());
    } else if exponent == -1.0 {
        each(numbers, |x| 1.0 / x);
    } else {
        each(numbers, |x| power(x, exponent));
    }
}

#[inline(always)]
fn each(numbers: &mut [f32; CHUNK], f: impl Fn(f32) -> f32) {
    for x in numbers {
        *x = f(*x);
    }
}
