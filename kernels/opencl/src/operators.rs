//! Launches of all operators except convolution. Values are row-major with the batch outermost, so
//! that every operator is arithmetic on flat indices, which is written into the kernel as text.

use std::fmt::Write as _;

use super::launch::{Argument, Launch, Prepared, bytes_of};
use super::source::Macros;
use paretune_base::error::KernelError;
use paretune_base::plan::operator::{Operator, Window};
use paretune_base::plan::{Plan, Step};

const ELEMENTWISE: &str = include_str!("kernels/elementwise.cl");
const REDUCE: &str = include_str!("kernels/reduce.cl");
const POOL: &str = include_str!("kernels/pool.cl");

/// Work-items of a work-group in kernels without tunables.
const THREADS: usize = 64;

/// Prepares a step of a valid plan that is neither a convolution nor a reshape nor a constant.
///
/// # Errors
/// Fails for any other operator.
pub(super) fn prepare(plan: &Plan, step: &Step, batch: usize) -> Result<Prepared, KernelError> {
    let dims =
        |index: usize| step.inputs.get(index).map(|&id| with_batch(&plan.values[id].dims, batch));
    let output = with_batch(&plan.values[step.output].dims, batch);
    let count: usize = output.iter().product();
    let Some(input) = dims(0) else { return Err(KernelError::plan(&step.name, "has no input")) };
    let mut macros = Macros::default();
    let one = |launch: Launch| Ok(Prepared { launches: vec![launch], constants: Vec::new() });
    match &step.operator {
        Operator::Add(activation) | Operator::Mul(activation) => {
            let sign = if matches!(step.operator, Operator::Add(_)) { "+" } else { "*" };
            let second =
                dims(1).ok_or_else(|| KernelError::plan(&step.name, "has no second input"))?;
            macros.activation(*activation).define("BINARY", sign).define("COUNT", count);
            macros.define(
                "AT_A(i)",
                broadcast(&output, &plan.values[step.inputs[0]].dims, batch, &input),
            );
            macros.define(
                "AT_B(i)",
                broadcast(&output, &plan.values[step.inputs[1]].dims, batch, &second),
            );
            one(flat(ELEMENTWISE, "binary", macros, count, 2))
        }
        Operator::Activation(activation) => {
            macros.activation(*activation).define("UNARY", 1).define("COUNT", count);
            one(flat(ELEMENTWISE, "unary", macros, count, 1))
        }
        Operator::ScaleShift { scale, shift, activation } => {
            let channels = output.get(1).copied().unwrap_or(1);
            let plane = output[2.min(output.len())..].iter().product::<usize>();
            macros.activation(*activation).define("SCALE_SHIFT", 1).define("COUNT", count);
            macros.define("AT_A(i)", format_args!("((i) / {plane} % {channels})"));
            let mut launch = flat(ELEMENTWISE, "scale_shift", macros, count, 1);
            launch.arguments = vec![
                Argument::Input(0),
                Argument::Constant(0),
                Argument::Constant(1),
                Argument::Output,
            ];
            let constants = [*scale, *shift].map(|index| bytes_of(&plan.constants[index])).to_vec();
            Ok(Prepared { launches: vec![launch], constants })
        }
        Operator::MaxPool { window, .. } => one(pool(macros, window, true, false, &input, &output)),
        Operator::AveragePool { window, include_padding, .. } => {
            one(pool(macros, window, false, *include_padding, &input, &output))
        }
        Operator::GlobalAveragePool => one(mean(macros, &input, &[2, 3])),
        Operator::ReduceMean { axes } => {
            let axes: Vec<usize> = axes.iter().map(|axis| axis + 1).collect();
            one(mean(macros, &input, &axes))
        }
        Operator::Concat { axis } => {
            let mut launches = Vec::new();
            let mut before = 0;
            for index in 0..step.inputs.len() {
                let Some(part) = dims(index) else { continue };
                let mut macros = Macros::default();
                let count = part.iter().product();
                let inner: usize = part[axis + 1..].iter().product();
                let outer = inner * output[axis + 1] / part[axis + 1].max(1);
                macros.define("PLACE", 1).define("COUNT", count).define(
                    "TO(i)",
                    format_args!(
                        "((i) / {inner} * {outer} + {} + (i) % {inner})",
                        before * inner / part[axis + 1].max(1)
                    ),
                );
                before += part[axis + 1];
                let mut launch = flat(ELEMENTWISE, "place", macros, count, 1);
                launch.arguments = vec![Argument::Input(index), Argument::Output];
                if count > 0 {
                    launches.push(launch);
                }
            }
            Ok(Prepared { launches, constants: Vec::new() })
        }
        Operator::Pad { padding, value } => {
            let before: Vec<usize> =
                std::iter::once(0).chain(padding.iter().map(|[before, _]| *before)).collect();
            let places = strides(&input);
            let (mut at, mut inside) = (String::from("("), String::from("("));
            for (axis, coordinate) in coordinates(&output).into_iter().enumerate() {
                let _ = write!(at, "({coordinate} - {}) * {} + ", before[axis], places[axis]);
                let _ =
                    write!(inside, "(uint)({coordinate} - {}) < {} && ", before[axis], input[axis]);
            }
            macros.define("GATHER", 1).define("COUNT", count).define_float("VALUE", *value);
            macros
                .define("AT_A(i)", format_args!("{at}0)"))
                .define("INSIDE(i)", format_args!("{inside}1)"));
            one(flat(ELEMENTWISE, "gather", macros, count, 1))
        }
        Operator::Transpose { permutation } => {
            let places = strides(&input);
            let permuted = std::iter::once(0).chain(permutation.iter().map(|axis| axis + 1));
            let permuted: Vec<usize> = permuted.map(|axis| places[axis]).collect();
            macros.define("GATHER", 1).define("COUNT", count).define_float("VALUE", 0.0);
            macros.define("AT_A(i)", index(&output, &permuted)).define("INSIDE(i)", 1);
            one(flat(ELEMENTWISE, "gather", macros, count, 1))
        }
        Operator::Softmax { axis } => {
            let (outer, inner, length) = lines(&input, &[axis + 1]);
            let count = count.checked_div(length).unwrap_or(0);
            macros.define("SOFTMAX", 1).define("COUNT", count).define("LENGTH", length);
            macros.define("OUTER(i)", outer).define("INNER(i)", inner);
            one(flat(REDUCE, "softmax", macros, count, 1))
        }
        Operator::Lrn { size, alpha, beta, bias } => {
            let plane = output[2.min(output.len())..].iter().product::<usize>();
            macros.define("COUNT", count).define("PLANE", plane).define("SIZE", size);
            macros.define("CHANNELS", output.get(1).copied().unwrap_or(1));
            macros
                .define_float("LRN", *alpha)
                .define_float("EXPONENT", *beta)
                .define_float("BIAS", *bias);
            one(flat(REDUCE, "lrn", macros, count, 1))
        }
        Operator::Tensor(operator) => Err(KernelError::plan(
            &step.name,
            format!("is of the kind `{}`, which the processor alone computes", operator.name()),
        )),
        Operator::Conv(_) | Operator::Reshape | Operator::Constant { .. } => {
            Err(KernelError::plan(&step.name, "is not an operator of this kind"))
        }
    }
}

/// Creates the launch of a kernel with one work-item per element.
fn flat(
    source: &'static str,
    kernel: &'static str,
    macros: Macros,
    count: usize,
    inputs: usize,
) -> Launch {
    let arguments = (0..inputs).map(Argument::Input).chain([Argument::Output]).collect();
    let groups = [count.div_ceil(THREADS).max(1), 1, 1];
    Launch { source, kernel, macros, groups, threads: THREADS, arguments }
}

fn pool(
    mut macros: Macros,
    window: &Window,
    maximum: bool,
    include_padding: bool,
    input: &[usize],
    output: &[usize],
) -> Launch {
    let size = |dims: &[usize], axis: usize| dims.get(axis).copied().unwrap_or(1);
    let planes = size(output, 0) * size(output, 1);
    macros
        .window(window)
        .define("MAXIMUM", u8::from(maximum))
        .define("INCLUDE_PADDING", u8::from(include_padding))
        .define("PLANES", planes)
        .define("IN_H", size(input, 2))
        .define("IN_W", size(input, 3))
        .define("OUT_H", size(output, 2))
        .define("OUT_W", size(output, 3))
        .define("END_H", size(input, 2) + window.padding[0] + window.padding[2])
        .define("END_W", size(input, 3) + window.padding[1] + window.padding[3]);
    flat(POOL, "pool", macros, output.iter().product(), 1)
}

fn mean(mut macros: Macros, input: &[usize], axes: &[usize]) -> Launch {
    let (outer, inner, length) = lines(input, axes);
    let count = input.iter().product::<usize>().checked_div(length).unwrap_or(0);
    let first = input.len().saturating_sub(axes.len());
    if length <= 16 && axes.iter().all(|axis| *axis >= first) {
        // Short lines of consecutive elements are pooling windows; a driver's compiler has crashed
        // on the kernel for lines.
        let window =
            Window { kernel: [1, length], stride: [1, 1], dilation: [1, 1], padding: [0; 4] };
        return pool(macros, &window, false, false, &[1, count, 1, length], &[1, count, 1, 1]);
    }
    // Short lines are not worth sharing among work-items.
    let lanes = if length <= 16 { 1 } else { length.next_power_of_two().min(64) / 2 };
    let share = THREADS / lanes;
    macros.define("MEAN", 1).define("COUNT", count).define("LENGTH", length);
    macros.define("OUTER(i)", outer).define("INNER(i)", inner);
    macros.define("LANES", lanes).define("LINES", share);
    let mut launch = flat(REDUCE, "mean", macros, count, 1);
    launch.groups = [count.div_ceil(share).max(1), 1, 1];
    launch
}

fn with_batch(dims: &[usize], batch: usize) -> Vec<usize> {
    std::iter::once(batch).chain(dims.iter().copied()).collect()
}

/// Returns the distance of neighboring elements along each axis.
fn strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|axis| dims[axis + 1..].iter().product()).collect()
}

/// Returns expressions for the coordinates of flat index `i`.
fn coordinates(dims: &[usize]) -> Vec<String> {
    strides(dims)
        .iter()
        .zip(dims)
        .map(|(stride, size)| format!("((int)(i) / {stride} % {size})"))
        .collect()
}

/// Returns an expression for the offset of flat index `i` of `dims` in a tensor with strides
/// `places`.
fn index(dims: &[usize], places: &[usize]) -> String {
    if places == strides(dims) {
        return "(i)".to_owned();
    }
    let terms: Vec<String> = coordinates(dims)
        .into_iter()
        .zip(places)
        .filter(|(_, place)| **place > 0)
        .map(|(coordinate, place)| format!("{coordinate} * {place}"))
        .collect();
    if terms.is_empty() { "0".to_owned() } else { format!("({})", terms.join(" + ")) }
}

/// Returns an expression for the offset of element `i` of `output` in an input of shape `dims` per
/// image, with NumPy broadcasting of all axes except the batch.
fn broadcast(output: &[usize], dims: &[usize], batch: usize, with_batch: &[usize]) -> String {
    let places = strides(with_batch);
    let missing = output.len() - 1 - dims.len();
    let mut aligned = vec![if batch > 1 { places[0] } else { 0 }];
    aligned.extend(std::iter::repeat_n(0, missing));
    aligned.extend(
        dims.iter().zip(&places[1..]).map(|(&size, &place)| if size == 1 { 0 } else { place }),
    );
    // Axes of size one do not contribute to the offset.
    let same = output
        .iter()
        .zip(&aligned)
        .zip(strides(output))
        .all(|((&size, &place), own)| size == 1 || place == own);
    if same { "(i)".to_owned() } else { index(output, &aligned) }
}

/// Describes lines along `axes`: expressions for the beginning of line `i` and for the distance of
/// its element `i` from there, and the length of a line.
fn lines(dims: &[usize], axes: &[usize]) -> (String, String, usize) {
    let places = strides(dims);
    let part = |inside: bool| -> (Vec<usize>, Vec<usize>) {
        (0..dims.len())
            .filter(|axis| axes.contains(axis) == inside)
            .map(|axis| (dims[axis], places[axis]))
            .unzip()
    };
    let ((outer, outer_places), (inner, inner_places)) = (part(false), part(true));
    (index(&outer, &outer_places), index(&inner, &inner_places), inner.iter().product())
}
