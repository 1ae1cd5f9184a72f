//! General operators over values of any shape. The processor computes them in single precision.

use serde::{Deserialize, Serialize};

use crate::plan::shape::{LARGEST, broadcast, checked_len};

/// An operator that works on values of any shape. Axes do not count the batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TensorOperator {
    /// A function of every element of one input.
    Unary(Unary),
    /// A function of the elements of two inputs with NumPy broadcasting.
    Binary(Binary),
    /// Elements of `inputs[1]` where `inputs[0]` is not zero, else of `inputs[2]`, with NumPy
    /// broadcasting.
    Choose,
    /// A reduction over axes, which remain with size 1.
    Reduce {
        /// Quantity that is computed of the elements along the axes.
        kind: Reduction,
        /// Indices of the axes, in ascending order.
        axes: Vec<usize>,
    },
    /// Elements at chosen positions along one axis.
    Select {
        /// Axis along which positions are chosen.
        axis: usize,
        /// Positions along the axis, in the order of the output.
        picks: Picks,
    },
    /// Weighted sums of elements along one axis: interpolation with fixed weights.
    Resample {
        /// Axis along which elements are interpolated.
        axis: usize,
        /// Number of elements in each sum.
        taps: usize,
        /// Positions along the axis, `taps` for each element of the output.
        indices: Vec<u32>,
        /// Factor that each position is multiplied by.
        weights: Vec<f32>,
    },
    /// Division by the root of the variance over adjacent axes: `(x - mean) / sqrt(variance +
    /// epsilon)`, or of the mean square without `center`.
    Normalize {
        /// First and last of the axes that are normalized together.
        axes: [usize; 2],
        /// Whether the mean is subtracted first.
        center: bool,
        /// Number that is added to the variance.
        epsilon: f32,
    },
    /// Products of matrices, `[.., m, k]` times `[.., k, n]`; the other axes broadcast.
    MatMul,
    /// The largest or smallest elements along one axis, in descending or ascending order. Of equal
    /// elements the first comes first.
    Rank {
        /// Axis along which elements are compared.
        axis: usize,
        /// Number of elements that are kept.
        count: usize,
        /// Whether the largest elements are wanted, or else the smallest.
        largest: bool,
        /// Whether the result is the positions of the elements, or else the elements themselves.
        positions: bool,
    },
    /// Elements of an image `inputs[0]` of `[c, h, w]` at the places that `inputs[1]` of
    /// `[oh, ow, 2]` names as x and y from -1 to 1 (ONNX `GridSample`).
    GridSample {
        /// Interpolation between the elements of the input.
        mode: Interpolation,
        /// Value of places outside of the image.
        border: Border,
        /// Whether -1 and 1 are the centers of the outermost elements, or else their outer edges.
        align_corners: bool,
    },
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Unary {
    /// The absolute value of each element.
    Abs,
    /// The number with the opposite sign.
    Negate,
    /// The exponential function with base e.
    Exp,
    /// The natural logarithm of each element.
    Log,
    /// The square root of each element.
    Sqrt,
    /// One divided by the number.
    Reciprocal,
    /// The error function of each element.
    Erf,
    /// The hyperbolic tangent of each element.
    Tanh,
    /// The sine of an angle in radians.
    Sin,
    /// The cosine of an angle in radians.
    Cos,
    /// The largest integer that is not larger.
    Floor,
    /// The smallest integer that is not smaller.
    Ceil,
    /// The nearest integer, ties to even.
    Round,
    /// The integer part, rounded toward zero.
    Truncate,
    /// -1, 0 or 1.
    Sign,
    /// 1 for zero, else 0.
    Not,
    /// 1 for numbers other than zero, else 0.
    Truth,
    /// 1 for what is no number, else 0.
    IsNan,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`
    GeluTanh,
    /// `x / (1 + exp(-alpha * x))`
    Swish {
        /// Factor of `x` in the exponent.
        alpha: f32,
    },
    /// `log(1 + exp(x))`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `x * tanh(log(1 + exp(x)))`
    Mish,
    /// `scale * x` for positive `x`, else `scale * alpha * (exp(x / width) - 1)`
    Elu {
        /// Height of the negative branch.
        alpha: f32,
        /// Factor of both branches.
        scale: f32,
        /// Width of the negative branch.
        width: f32,
    },
    /// `x` above `threshold`, else 0.
    Threshold {
        /// Largest number that becomes 0.
        threshold: f32,
    },
    /// `x + bias` below `-bound`, `x - bias` above `bound`, else 0.
    Shrink {
        /// Amount by which numbers move towards zero.
        bias: f32,
        /// Largest magnitude that becomes 0.
        bound: f32,
    },
    /// `x` to the power of a constant.
    Power {
        /// The constant exponent.
        exponent: f32,
    },
}

/// A function of two numbers. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binary {
    /// `a - b`
    Subtract,
    /// `a / b`
    Divide,
    /// The larger one of two numbers.
    Maximum,
    /// The smaller one of two numbers.
    Minimum,
    /// `a` to the power of `b`
    Power,
    /// `a` for positive `a`, else `a * b`
    PRelu,
    /// The remainder of `a / b` with the sign of `a`.
    Remainder,
    /// Whether `a < b`.
    Less,
    /// Whether `a <= b`.
    LessOrEqual,
    /// Whether `a == b`.
    Equal,
    /// Whether both are other than zero.
    And,
    /// Whether one or both are other than zero.
    Or,
    /// Whether exactly one is other than zero.
    Xor,
}

/// A quantity of several numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduction {
    /// Sum of the reduced elements.
    Sum,
    /// Mean of the reduced elements.
    Mean,
    /// Largest of the reduced elements.
    Maximum,
    /// Smallest of the reduced elements.
    Minimum,
    /// Product of the reduced elements.
    Product,
    /// The sum of their magnitudes.
    L1,
    /// The root of the sum of their squares.
    L2,
    /// The sum of their squares.
    SumOfSquares,
    /// The logarithm of the sum of their exponentials.
    LogSumExp,
}

/// Positions along an axis that are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Picks {
    /// Positions at equal distances from each other.
    Range {
        /// Index of the first position.
        start: usize,
        /// Distance from one position to the next; negative for a reversed order.
        step: i64,
        /// Number of positions that are taken.
        count: usize,
    },
    /// Positions in any order; [`Picks::NONE`] for a zero.
    List(Vec<u32>),
}

impl Picks {
    /// Entry of [`Picks::List`] that stands for a zero instead of an element.
    pub const NONE: u32 = u32::MAX;

    /// Returns the number of positions.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Range { count, .. } => *count,
            Self::List(list) => list.len(),
        }
    }

    /// Whether no position is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the position that element `index` of the output has in the input, or `None` for a
    /// zero. `index` must be less than [`Picks::len`].
    #[must_use]
    pub fn at(&self, index: usize) -> Option<usize> {
        match self {
            Self::Range { start, step, .. } => {
                usize::try_from(*start as i64 + step * index as i64).ok()
            }
            Self::List(list) => {
                Some(list[index]).filter(|&at| at != Self::NONE).map(|at| at as usize)
            }
        }
    }
}

/// Interpolation between the elements of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interpolation {
    /// The nearest element; halves go to the even one.
    Nearest,
    /// Linear interpolation along both axes.
    Linear,
    /// Cubic along both axes, with coefficient -0.75.
    Cubic,
}

/// Value of places outside of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Border {
    /// Zero, for every element outside.
    Zeros,
    /// The nearest element of the image.
    Edge,
    /// The image mirrored at its edges.
    Mirror,
}

impl TensorOperator {
    /// Returns the `snake_case` name for profiles and messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unary(_) => "unary",
            Self::Binary(_) => "binary",
            Self::Choose => "choose",
            Self::Reduce { .. } => "reduce",
            Self::Select { .. } => "select",
            Self::Resample { .. } => "resample",
            Self::Normalize { .. } => "normalize",
            Self::MatMul => "matmul",
            Self::Rank { .. } => "rank",
            Self::GridSample { .. } => "grid_sample",
        }
    }

    /// Returns the number of inputs.
    #[must_use]
    pub fn arity(&self) -> usize {
        match self {
            Self::Unary(_)
            | Self::Reduce { .. }
            | Self::Select { .. }
            | Self::Resample { .. }
            | Self::Normalize { .. }
            | Self::Rank { .. } => 1,
            Self::Binary(_) | Self::MatMul | Self::GridSample { .. } => 2,
            Self::Choose => 3,
        }
    }

    /// Returns the shape of the result for inputs of shapes `inputs`.
    ///
    /// # Errors
    /// Describes the fault in the operator or its inputs.
    pub fn output(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if inputs.len() != self.arity() {
            return Err(format!("has {} inputs, expected {}", inputs.len(), self.arity()));
        }
        let first = inputs[0];
        let size = |axis: usize| {
            first.get(axis).copied().ok_or_else(|| format!("{first:?} has no axis {axis}"))
        };
        let with = |axis: usize, size: usize| {
            let mut out = first.to_vec();
            out[axis] = size;
            out
        };
        match self {
            Self::Unary(function) => {
                check_unary(*function)?;
                Ok(first.to_vec())
            }
            Self::Binary(_) => broadcast(first, inputs[1]),
            Self::Choose => broadcast(&broadcast(first, inputs[1])?, inputs[2]),
            Self::Reduce { axes, .. } => {
                let mut out = first.to_vec();
                if !axes.is_sorted_by(|a, b| a < b) {
                    return Err(format!("axes {axes:?} are not ascending"));
                }
                for &axis in axes {
                    size(axis)?;
                    out[axis] = 1;
                }
                Ok(out)
            }
            Self::Select { axis, picks } => {
                check_picks(picks, size(*axis)?)?;
                Ok(with(*axis, picks.len()))
            }
            Self::Resample { axis, taps, indices, weights } => {
                let size = size(*axis)?;
                if *taps == 0 || indices.len() != weights.len() || indices.len() % taps != 0 {
                    return Err(format!(
                        "has {} positions and {} weights for {taps} taps",
                        indices.len(),
                        weights.len()
                    ));
                }
                if indices.iter().any(|&at| at as usize >= size) {
                    return Err(format!("interpolates beyond the {size} elements of its axis"));
                }
                if weights.iter().any(|weight| !weight.is_finite()) {
                    return Err("has a weight that is not finite".into());
                }
                Ok(with(*axis, indices.len() / taps))
            }
            Self::Normalize { axes: [first_axis, last], epsilon, .. } => {
                size(*last)?;
                if first_axis > last || !epsilon.is_finite() || *epsilon < 0.0 {
                    return Err(format!(
                        "normalizes axes {first_axis} to {last} with epsilon {epsilon}"
                    ));
                }
                Ok(first.to_vec())
            }
            Self::MatMul => matmul(first, inputs[1]),
            Self::Rank { axis, count, .. } => {
                let size = size(*axis)?;
                if *count == 0 || *count > size {
                    return Err(format!("wants {count} of {size} elements"));
                }
                // Positions are stored as single-precision numbers.
                if size > 1 << 24 {
                    return Err(format!("compares {size} elements, at most 2^24 are possible"));
                }
                Ok(with(*axis, *count))
            }
            Self::GridSample { .. } => {
                let (&[channels, _, _], &[height, width, 2]) = (first, inputs[1]) else {
                    return Err(format!("samples {first:?} at the places {:?}", inputs[1]));
                };
                Ok(vec![channels, height, width])
            }
        }
    }
}

fn check_unary(function: Unary) -> Result<(), String> {
    let sound = match function {
        Unary::Swish { alpha } => alpha.is_finite(),
        Unary::Elu { alpha, scale, width } => {
            alpha.is_finite() && scale.is_finite() && width.is_finite() && width != 0.0
        }
        Unary::Threshold { threshold } => threshold.is_finite(),
        Unary::Shrink { bias, bound } => bias.is_finite() && bound.is_finite(),
        Unary::Power { exponent } => exponent.is_finite(),
        _ => true,
    };
    if sound { Ok(()) } else { Err(format!("has an impossible function {function:?}")) }
}

fn check_picks(picks: &Picks, size: usize) -> Result<(), String> {
    let fits = match picks {
        Picks::Range { start, step, count } => {
            let last = i64::try_from(*count).ok().and_then(|count| {
                step.checked_mul(count.checked_sub(1)?)?.checked_add(i64::try_from(*start).ok()?)
            });
            *count > 0
                && *count <= LARGEST
                && *start < size
                && last.is_some_and(|last| usize::try_from(last).is_ok_and(|last| last < size))
        }
        Picks::List(list) => {
            !list.is_empty() && list.iter().all(|&at| at == Picks::NONE || (at as usize) < size)
        }
    };
    if fits { Ok(()) } else { Err(format!("selects beyond the {size} elements of its axis")) }
}

fn matmul(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let (Some((outer, &[m, k])), Some((other, &[l, n]))) =
        (a.split_last_chunk::<2>(), b.split_last_chunk::<2>())
    else {
        return Err(format!("multiplies {a:?} by {b:?}, which are no matrices"));
    };
    if k != l {
        return Err(format!("multiplies {a:?} by {b:?}, whose inner sizes differ"));
    }
    let mut out = broadcast(outer, other)?;
    out.extend([m, n]);
    checked_len(&out, 1)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_inside_of_the_axis() {
        let select = |start, step, count| TensorOperator::Select {
            axis: 0,
            picks: Picks::Range { start, step, count },
        };
        assert_eq!(select(1, 2, 2).output(&[&[4, 5]]).unwrap(), [2, 5]);
        assert_eq!(select(3, -1, 4).output(&[&[4]]).unwrap(), [4]);
        assert!(select(3, -1, 5).output(&[&[4]]).is_err());
        assert!(select(1, 2, 3).output(&[&[4]]).is_err());
        assert!(select(0, i64::MAX, 3).output(&[&[4]]).is_err());
        assert!(select(0, 1, 0).output(&[&[4]]).is_err());
    }

    #[test]
    fn matrices_broadcast_over_outer_axes() {
        let product = |a: &[usize], b: &[usize]| TensorOperator::MatMul.output(&[a, b]);
        assert_eq!(product(&[3, 2, 4], &[4, 5]).unwrap(), [3, 2, 5]);
        assert_eq!(product(&[1, 2, 4], &[3, 4, 5]).unwrap(), [3, 2, 5]);
        assert!(product(&[2, 4], &[3, 5]).is_err());
        assert!(product(&[4], &[4, 5]).is_err());
    }
}
