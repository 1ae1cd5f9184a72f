//! General operators in double precision.

use std::cmp::Ordering;

use super::{Tensor, each, flat_at, with};
use paretune_base::plan::tensor::{
    Binary, Border, Interpolation, Reduction, TensorOperator, Unary,
};

/// Computes one image of a valid step, whose result has the shape `out`.
pub(super) fn apply(operator: &TensorOperator, inputs: &[Tensor<'_>], out: &[usize]) -> Vec<f64> {
    let x = inputs[0];
    match operator {
        TensorOperator::Unary(function) => x.data.iter().map(|&x| unary(*function, x)).collect(),
        TensorOperator::Binary(function) => {
            each(out, |i| binary(*function, x.broadcast(i), inputs[1].broadcast(i)))
        }
        TensorOperator::Choose => each(out, |i| {
            if x.broadcast(i) == 0.0 { inputs[2].broadcast(i) } else { inputs[1].broadcast(i) }
        }),
        TensorOperator::Reduce { kind, axes } => each(out, |index| {
            let sizes: Vec<usize> = axes.iter().map(|&axis| x.dims[axis]).collect();
            let terms = each(&sizes, |inner| {
                let mut source = index.to_vec();
                for (&axis, &i) in axes.iter().zip(inner) {
                    source[axis] = i;
                }
                flat_at(x, &source)
            });
            reduce(*kind, &terms)
        }),
        TensorOperator::Select { axis, picks } => each(out, |index| {
            picks.at(index[*axis]).map_or(0.0, |at| flat_at(x, &with(index, *axis, at)))
        }),
        TensorOperator::Resample { axis, taps, indices, weights } => each(out, |index| {
            let taps = index[*axis] * taps..(index[*axis] + 1) * taps;
            taps.map(|tap| {
                f64::from(weights[tap]) * flat_at(x, &with(index, *axis, indices[tap] as usize))
            })
            .sum()
        }),
        TensorOperator::Normalize { axes: [first, last], center, epsilon } => each(out, |index| {
            let sizes = &x.dims[*first..=*last];
            let terms = each(sizes, |inner| {
                let mut source = index.to_vec();
                source[*first..=*last].copy_from_slice(inner);
                flat_at(x, &source)
            });
            let count = terms.len() as f64;
            let mean = if *center { terms.iter().sum::<f64>() / count } else { 0.0 };
            let variance = terms.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            (flat_at(x, index) - mean) / (variance + f64::from(*epsilon)).sqrt()
        }),
        TensorOperator::MatMul => {
            let depth = x.dims[x.dims.len() - 1];
            let rank = out.len();
            each(out, |index| {
                let at = |axis: usize, k: usize| with(index, axis, k);
                let part = |tensor: &Tensor<'_>, index: &[usize]| {
                    tensor.broadcast(&index[rank - tensor.dims.len()..])
                };
                (0..depth)
                    .map(|k| part(&x, &at(rank - 1, k)) * part(&inputs[1], &at(rank - 2, k)))
                    .sum()
            })
        }
        TensorOperator::Rank { axis, largest, positions, .. } => each(out, |index| {
            let line: Vec<f64> =
                (0..x.dims[*axis]).map(|i| flat_at(x, &with(index, *axis, i))).collect();
            let mut order: Vec<usize> = (0..line.len()).collect();
            order.sort_by(|&a, &b| {
                let order = line[a].partial_cmp(&line[b]).unwrap_or(Ordering::Equal);
                if *largest { order.reverse() } else { order }
            });
            let place = order[index[*axis]];
            if *positions { place as f64 } else { line[place] }
        }),
        TensorOperator::GridSample { mode, border, align_corners } => each(out, |index| {
            let place = |part: usize| flat_at(inputs[1], &[index[1], index[2], part]);
            let columns = taps(*mode, *border, *align_corners, place(0), x.dims[2]);
            let rows = taps(*mode, *border, *align_corners, place(1), x.dims[1]);
            let mut sum = 0.0;
            for (row, down) in &rows {
                for (column, along) in &columns {
                    sum += flat_at(x, &[index[0], *row, *column]) * down * along;
                }
            }
            sum
        }),
    }
}

/// Returns positions and weights on an axis of `size` elements for a place from -1 to 1.
fn taps(
    mode: Interpolation,
    border: Border,
    corners: bool,
    at: f64,
    size: usize,
) -> Vec<(usize, f64)> {
    let extent = size as f64;
    let (low, high) = if corners { (0.0, extent - 1.0) } else { (-0.5, extent - 0.5) };
    let mut x = low + (at + 1.0) / 2.0 * (high - low);
    let bring_in = |x: f64| match border {
        Border::Zeros => x,
        Border::Edge => x.clamp(0.0, extent - 1.0),
        Border::Mirror if high <= low => 0.0,
        Border::Mirror => {
            let mut x = x;
            while x < low || x > high {
                x = if x < low { 2.0 * low - x } else { 2.0 * high - x };
            }
            x.clamp(0.0, extent - 1.0)
        }
    };
    if mode != Interpolation::Cubic {
        x = bring_in(x);
    }
    let base = x.floor();
    let wanted: Vec<(f64, f64)> = match mode {
        Interpolation::Nearest => vec![(x.round_ties_even(), 1.0)],
        Interpolation::Linear => vec![(base, 1.0 - (x - base)), (base + 1.0, x - base)],
        Interpolation::Cubic => (-1..3)
            .map(|tap| {
                let place = base + f64::from(tap);
                (place, cubic((x - place).abs()))
            })
            .collect(),
    };
    wanted
        .into_iter()
        .map(|(place, weight)| (bring_in(place), weight))
        .filter(|(place, _)| *place >= 0.0 && *place < extent)
        .map(|(place, weight)| (place as usize, weight))
        .collect()
}

/// The cubic convolution kernel with coefficient -0.75.
fn cubic(distance: f64) -> f64 {
    let (a, d) = (-0.75, distance);
    if d <= 1.0 {
        (a + 2.0) * d.powi(3) - (a + 3.0) * d.powi(2) + 1.0
    } else if d < 2.0 {
        a * d.powi(3) - 5.0 * a * d.powi(2) + 8.0 * a * d - 4.0 * a
    } else {
        0.0
    }
}

fn reduce(kind: Reduction, terms: &[f64]) -> f64 {
    let sum = |map: fn(f64) -> f64| terms.iter().map(|&x| map(x)).sum::<f64>();
    match kind {
        Reduction::Sum => sum(|x| x),
        Reduction::Mean => sum(|x| x) / terms.len() as f64,
        Reduction::Maximum => terms.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Reduction::Minimum => terms.iter().copied().fold(f64::INFINITY, f64::min),
        Reduction::Product => terms.iter().product(),
        Reduction::L1 => sum(f64::abs),
        Reduction::L2 => sum(|x| x * x).sqrt(),
        Reduction::SumOfSquares => sum(|x| x * x),
        Reduction::LogSumExp => sum(f64::exp).ln(),
    }
}

/// Applies a function in double precision.
pub(super) fn unary(function: Unary, x: f64) -> f64 {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    match function {
        Unary::Abs => x.abs(),
        Unary::Negate => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Erf => erf(x),
        Unary::Tanh => x.tanh(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Truncate => x.trunc(),
        Unary::Sign => {
            if x == 0.0 {
                x
            } else {
                x.signum()
            }
        }
        Unary::Not => truth(x == 0.0),
        Unary::Truth => truth(x != 0.0),
        Unary::IsNan => truth(x.is_nan()),
        Unary::Gelu => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
        Unary::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Unary::Swish { alpha } => x / (1.0 + (-f64::from(alpha) * x).exp()),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Mish => x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh(),
        Unary::Elu { alpha, scale, width } => {
            let (alpha, scale, width) = (f64::from(alpha), f64::from(scale), f64::from(width));
            if x > 0.0 { scale * x } else { scale * alpha * (x / width).exp_m1() }
        }
        Unary::Threshold { threshold } => {
            if x > f64::from(threshold) {
                x
            } else {
                0.0
            }
        }
        Unary::Shrink { bias, bound } => {
            if x < -f64::from(bound) {
                x + f64::from(bias)
            } else if x > f64::from(bound) {
                x - f64::from(bias)
            } else {
                0.0
            }
        }
        Unary::Power { exponent } => x.powf(f64::from(exponent)),
    }
}

fn binary(function: Binary, a: f64, b: f64) -> f64 {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    match function {
        Binary::Subtract => a - b,
        Binary::Divide => a / b,
        Binary::Maximum => a.max(b),
        Binary::Minimum => a.min(b),
        Binary::Power => a.powf(b),
        Binary::PRelu => {
            if a > 0.0 {
                a
            } else {
                a * b
            }
        }
        Binary::Remainder => a % b,
        Binary::Less => truth(a < b),
        Binary::LessOrEqual => truth(a <= b),
        Binary::Equal => truth(a == b),
        Binary::And => truth(a != 0.0 && b != 0.0),
        Binary::Or => truth(a != 0.0 || b != 0.0),
        Binary::Xor => truth((a != 0.0) != (b != 0.0)),
    }
}

/// Returns the error function: its series near zero, else one minus a continued fraction
/// (Abramowitz and Stegun, 7.1.5 and 7.1.14).
fn erf(x: f64) -> f64 {
    let size = x.abs();
    if size < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while f64::abs(term) > 1e-17 * f64::abs(sum).max(1e-300) {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = size;
    for k in (1..60).rev() {
        fraction = size + f64::from(k) / 2.0 / fraction;
    }
    let rest = (-size * size).exp() / (fraction * std::f64::consts::PI.sqrt());
    (1.0 - rest).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_is_that_of_the_tables() {
        for (x, want) in [
            (0.5, 0.520_499_877_8),
            (2.4, 0.999_311_486_1),
            (2.6, 0.999_763_965_6),
            (3.5, 0.999_999_256_9),
        ] {
            assert!((erf(x) - want).abs() < 1e-9, "erf({x}) is {}", erf(x));
            assert!((erf(-x) + want).abs() < 1e-9);
        }
    }
}
