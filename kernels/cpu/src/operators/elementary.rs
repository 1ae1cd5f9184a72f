//! Elementary functions without tables and branches, so that loops over them vectorize. Errors are
//! below 1e-6 of the result, or of 1 where the result is near a zero of the function.

use super::activation::exp;

/// Returns `e^x`, also where it overflows to infinity or sinks below the normal numbers.
#[inline(always)]
pub fn full_exp(x: f32) -> f32 {
    let half = exp(0.5 * x);
    half * half
}

/// Returns `e^x - 1`, accurate near zero: a polynomial below 0.35, as in Cephes' `expm1` with the
/// series' own coefficients.
#[inline(always)]
pub fn exp_less_one(x: f32) -> f32 {
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0] {
        p = p * x + coefficient;
    }
    if x.abs() < 0.35 { p * x } else { full_exp(x) - 1.0 }
}

/// Returns the natural logarithm, by Cephes' `logf` (Moshier, 1989). Negative numbers give NaN.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    // Below the normal numbers the exponent's bits say nothing.
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits();
    // The mantissa becomes a number from the root of 1/2 to the root of 2.
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted as i32 >> 23) as f32 - if small { 23.0 } else { 0.0 };
    let mantissa = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    let m = mantissa - 1.0;
    let square = m * m;
    let mut p = 7.037_683_6e-2;
    for coefficient in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * m + coefficient;
    }
    let mut y = p * m * square;
    y += -2.121_944_4e-4 * exponent;
    y -= 0.5 * square;
    let result = m + y + 0.693_359_4 * exponent;
    if x == 0.0 {
        f32::NEG_INFINITY
    } else if x > 0.0 {
        if x == f32::INFINITY { x } else { result }
    } else {
        f32::NAN
    }
}

/// Returns the hyperbolic tangent, by the rational approximation of Eigen (`generic_fast_tanh`).
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let clamped = if x > 7.905_311 { 7.905_311 } else { x };
    let clamped = if clamped < -7.905_311 { -7.905_311 } else { clamped };
    let square = clamped * clamped;
    let mut p = -2.760_768_5e-16;
    for coefficient in [
        2.000_188e-13,
        -8.604_672e-11,
        5.122_297e-8,
        1.485_722_4e-5,
        6.372_619_4e-4,
        4.893_524_6e-3,
    ] {
        p = p * square + coefficient;
    }
    let mut q = 1.198_258_4e-6;
    for coefficient in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3] {
        q = q * square + coefficient;
    }
    if x.abs() < 4e-4 { x } else { clamped * p / q }
}

/// Returns the error function, by the rational approximation of Eigen and XLA.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let clamped = if x > 4.0 { 4.0 } else { x };
    let clamped = if clamped < -4.0 { -4.0 } else { clamped };
    let square = clamped * clamped;
    let mut p = -2.726_142_3e-10;
    for coefficient in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * square + coefficient;
    }
    let mut q = -1.456_607_2e-5;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = q * square + coefficient;
    }
    clamped * p / q
}

/// Returns `log(1 + e^x)`.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let small = exp(-x.abs());
    // Near 1 the logarithm of `1 + small` would lose the digits of `small`.
    let near = small * (1.0 - small * (0.5 - small * (1.0 / 3.0)));
    let rest = if small < 1e-2 { near } else { log(1.0 + small) };
    (if x > 0.0 { x } else { 0.0 }) + rest
}

/// Returns `x` to the power of `y`, as the C library defines it for negative `x`.
#[inline(always)]
pub fn power(x: f32, y: f32) -> f32 {
    x.powf(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(name: &str, function: fn(f32) -> f32, exact: fn(f64) -> f64, range: [f32; 2]) {
        let steps: u16 = 20_000;
        for step in 0..=steps {
            let x = range[0] + (range[1] - range[0]) * f32::from(step) / f32::from(steps);
            let want = exact(f64::from(x));
            let error = (f64::from(function(x)) - want).abs();
            assert!(error <= 1e-6 * want.abs().max(0.1), "{name}({x}) is off by {error}");
        }
    }

    #[test]
    fn functions_match_double_precision() {
        near("exp", full_exp, f64::exp, [-100.0, 88.0]);
        near("exp_less_one", exp_less_one, f64::exp_m1, [-20.0, 20.0]);
        near("log", log, f64::ln, [1e-3, 500.0]);
        near("log", log, f64::ln, [1e-30, 1e-3]);
        near("tanh", tanh, f64::tanh, [-20.0, 20.0]);
        near("softplus", softplus, |x| x.exp().ln_1p(), [-30.0, 30.0]);
        // Values of Abramowitz and Stegun's table 7.1.
        for (x, want) in [
            (0.1, 0.112_462_916),
            (0.5, 0.520_499_878),
            (1.0, 0.842_700_793),
            (1.5, 0.966_105_146),
            (2.0, 0.995_322_265),
            (3.0, 0.999_977_91),
        ] {
            assert!((f64::from(erf(x)) - want).abs() < 3e-7, "erf({x}) is {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }

    #[test]
    fn ends_of_the_range_are_those_of_the_standard_library() {
        assert_eq!(full_exp(200.0), f32::INFINITY);
        assert_eq!(full_exp(-200.0), 0.0);
        assert!(full_exp(f32::NAN).is_nan());
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert!(log(-1.0).is_nan() && log(f32::NAN).is_nan());
        assert_eq!(erf(10.0), 1.0);
        assert_eq!(tanh(100.0), 1.0);
        assert!(tanh(f32::NAN).is_nan());
    }
}
