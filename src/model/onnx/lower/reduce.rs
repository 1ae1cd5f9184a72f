//! Lowering of reductions, of softmax and its relatives, and of rankings.

use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Binary, Picks, Reduction, TensorOperator, Unary};
use paretune_kernels::{Activation, ValueId};

use super::axes::{axes_of, inner_axes, inner_axis};
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;
use crate::onnx::tensor::Tensor;

/// Lowers `ReduceMean`, `ReduceSum` and the others, with axes as attribute or as input.
pub fn reduce(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let rank = importer.dims(input).len();
    let axes = match axes_of(importer, node)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => inner_axes(importer.lead(), &axes, rank)?,
        None if node.flag("noop_with_empty_axes", false)? => return Ok(one(input)),
        None if importer.whole_mode => (0..rank).collect(),
        None => {
            return Err("reduces all axes, the batch included, which is not supported".to_string());
        }
    };
    importer.refuse_batch(input, &axes)?;
    let kept = reduced(importer, node.operator.as_str(), input, &axes)?;
    if node.flag("keepdims", true)? {
        return Ok(one(kept));
    }
    without(importer, kept, &axes).map(one)
}

/// Adds a reshape that removes `axes`, all of extent 1.
pub fn without(importer: &mut Importer, value: ValueId, axes: &[usize]) -> Result<ValueId, String> {
    let dims = importer.dims(value).iter().enumerate();
    let dims: Vec<usize> =
        dims.filter(|(axis, _)| !axes.contains(axis)).map(|(_, &dim)| dim).collect();
    // A number without axes is a vector of one.
    let dims = if dims.is_empty() { vec![1] } else { dims };
    importer.emit("flat", Operator::Reshape, vec![value], dims)
}

fn reduced(
    importer: &mut Importer,
    operator: &str,
    input: ValueId,
    axes: &[usize],
) -> Result<ValueId, String> {
    let mut dims = importer.dims(input).to_vec();
    for &axis in axes {
        dims[axis] = 1;
    }
    let kind = match operator {
        "ReduceMean" => {
            let operator = if dims.len() == 3 && axes == [1, 2] {
                Operator::GlobalAveragePool
            } else {
                Operator::ReduceMean { axes: axes.to_vec() }
            };
            return importer.emit("", operator, vec![input], dims);
        }
        "ReduceSum" | "ReduceLogSum" => Reduction::Sum,
        "ReduceMax" => Reduction::Maximum,
        "ReduceMin" => Reduction::Minimum,
        "ReduceProd" => Reduction::Product,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceSumSquare" => Reduction::SumOfSquares,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        other => return Err(format!("{other} is no reduction")),
    };
    let logarithm = operator == "ReduceLogSum";
    let name = if logarithm { "sum" } else { "" };
    let value =
        importer.apply(name, TensorOperator::Reduce { kind, axes: axes.to_vec() }, vec![input])?;
    if logarithm { importer.unary("", Unary::Log, value) } else { Ok(value) }
}

/// Lowers `Softmax`, `LogSoftmax` and `Hardmax`. Before operator set 13 they work over all axes
/// from their own on.
pub fn softmax(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let given = node.int("axis")?;
    let default = if node.opset >= 13 { -1 } else { 1 };
    let axis = inner_axis(importer.lead(), given.unwrap_or(default), dims.len())?;
    importer.refuse_batch(input, &[axis])?;
    if node.opset >= 13 || axis + 1 == dims.len() {
        return along(importer, "", node, input, axis).map(one);
    }
    let mut flat = dims[..axis].to_vec();
    flat.push(dims[axis..].iter().product());
    let input = importer.emit("flat", Operator::Reshape, vec![input], flat)?;
    let output = along(importer, "", node, input, axis)?;
    importer.emit("shape", Operator::Reshape, vec![output], dims).map(one)
}

fn along(
    importer: &mut Importer,
    part: &str,
    node: &Node<'_>,
    input: ValueId,
    axis: usize,
) -> Result<ValueId, String> {
    let dims = importer.dims(input).to_vec();
    match node.operator.as_str() {
        "LogSoftmax" => {
            let operator = TensorOperator::Reduce { kind: Reduction::LogSumExp, axes: vec![axis] };
            let sum = importer.apply("sum", operator, vec![input])?;
            importer.pair(part, Binary::Subtract, input, sum)
        }
        "Hardmax" => {
            let best = rank(importer, "best", input, [axis, 1], true, true)?;
            let size = dims[axis];
            let places: Vec<f32> = (0..size).map(|place| place as f32).collect();
            let mut shape = vec![1; dims.len()];
            shape[axis] = size;
            let constant = importer.constant(places.into())?;
            let operator = Operator::Constant { constant };
            let places = importer.emit("places", operator, vec![], shape)?;
            importer.pair(part, Binary::Equal, places, best)
        }
        _ => importer.emit(part, Operator::Softmax { axis }, vec![input], dims),
    }
}

fn rank(
    importer: &mut Importer,
    part: &str,
    input: ValueId,
    [axis, count]: [usize; 2],
    largest: bool,
    positions: bool,
) -> Result<ValueId, String> {
    let operator = TensorOperator::Rank { axis, count, largest, positions };
    importer.apply(part, operator, vec![input])
}

/// Lowers `ArgMax` and `ArgMin`.
pub fn position(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let mut input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let axis = inner_axis(importer.lead(), node.int("axis")?.unwrap_or(0), dims.len())?;
    importer.refuse_batch(input, &[axis])?;
    let last = node.flag("select_last_index", false)?;
    let size = dims[axis];
    if last {
        let picks = Picks::Range { start: size - 1, step: -1, count: size };
        input = importer.apply("turned", TensorOperator::Select { axis, picks }, vec![input])?;
    }
    let keep = node.flag("keepdims", true)?;
    let part = if keep && !last { "" } else { "place" };
    let largest = node.operator == "ArgMax";
    let mut best = rank(importer, part, input, [axis, 1], largest, true)?;
    if last {
        let part = if keep { "" } else { "back" };
        best = importer.affine(part, best, -1.0, (size - 1) as f32)?;
    }
    if keep { Ok(one(best)) } else { without(importer, best, &[axis]).map(one) }
}

/// Lowers `TopK` with a constant number of elements to one step for each output.
pub fn top(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let axis = inner_axis(importer.lead(), node.int("axis")?.unwrap_or(-1), dims.len())?;
    importer.refuse_batch(input, &[axis])?;
    let count = if node.opset < 10 {
        node.int("k")?.ok_or("has no k")?
    } else {
        match importer.tensor(node, 1)?.known()?[..] {
            [count] => count,
            _ => return Err("needs a single k".into()),
        }
    };
    let count = usize::try_from(count).map_err(|_| format!("keeps {count} elements"))?;
    let largest = node.flag("largest", true)?;
    let values = rank(importer, "", input, [axis, count], largest, false)?;
    let places = rank(importer, "places", input, [axis, count], largest, true)?;
    Ok(vec![Item::Activation(values), Item::Activation(places)])
}

/// Lowers `LpNormalization`: division by a norm along one axis; a norm of zero leaves zeros.
pub fn norm(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let rank = importer.dims(input).len();
    let axis = inner_axis(importer.lead(), node.int("axis")?.unwrap_or(-1), rank)?;
    importer.refuse_batch(input, &[axis])?;
    let kind = match node.int("p")?.unwrap_or(2) {
        1 => Reduction::L1,
        2 => Reduction::L2,
        other => return Err(format!("has the norm p = {other}, only 1 and 2 exist")),
    };
    let operator = TensorOperator::Reduce { kind, axes: vec![axis] };
    let norm = importer.apply("norm", operator, vec![input])?;
    let least = Activation::Clip { low: f32::MIN_POSITIVE, high: f32::MAX };
    let dims = importer.dims(norm).to_vec();
    let norm = importer.emit("positive", Operator::Activation(least), vec![norm], dims)?;
    importer.pair("", Binary::Divide, input, norm).map(one)
}

/// Lowers pools of powers, `LpPool` and `GlobalLpPool`, from the mean of `|x|^p`.
pub fn global_lp_pool(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    if importer.whole_mode {
        return Err("works on [batch, channels, ..]".into());
    }
    let axes: Vec<usize> = (1..importer.dims(input).len()).collect();
    let p = exponent(node)?;
    let powers = power(importer, "powers", input, p)?;
    let operator = TensorOperator::Reduce { kind: Reduction::Sum, axes };
    let sum = importer.apply("sum", operator, vec![powers])?;
    root(importer, sum, p).map(one)
}

/// Returns the attribute `p`, an integer or, in old files, a floating-point number.
pub fn exponent(node: &Node<'_>) -> Result<f32, String> {
    let p = match node.int("p") {
        Ok(p) => p.unwrap_or(2) as f32,
        Err(_) => node.float("p", 2.0)?,
    };
    if p >= 1.0 { Ok(p) } else { Err(format!("has the norm p = {p}")) }
}

/// Adds `|x|^p`.
pub fn power(
    importer: &mut Importer,
    part: &str,
    input: ValueId,
    p: f32,
) -> Result<ValueId, String> {
    if p == 2.0 {
        return importer.unary(part, Unary::Power { exponent: 2.0 }, input);
    }
    let size = importer.unary("size", Unary::Abs, input)?;
    if p == 1.0 { Ok(size) } else { importer.unary(part, Unary::Power { exponent: p }, size) }
}

/// Adds the `p`th root as the main step of the node.
pub fn root(importer: &mut Importer, input: ValueId, p: f32) -> Result<ValueId, String> {
    let function =
        if p == 2.0 { Unary::Sqrt } else { Unary::Power { exponent: (1.0 / f64::from(p)) as f32 } };
    importer.unary("", function, input)
}

/// Lowers `CumSum` to a product with a triangular matrix.
pub fn cumulative(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let axis = match importer.tensor(node, 1)?.known()?[..] {
        [axis] => inner_axis(importer.lead(), axis, dims.len())?,
        _ => return Err("needs a single axis".into()),
    };
    importer.refuse_batch(input, &[axis])?;
    let (exclusive, reverse) = (node.flag("exclusive", false)?, node.flag("reverse", false)?);
    let size = dims[axis];
    if size > 1 << 12 {
        return Err(format!("adds up {size} elements, at most 4096 are supported"));
    }
    importer.spend(size * size)?;
    // Element (i, j) says whether input i is part of sum j.
    let part = |i: usize, j: usize| {
        let (i, j) = if reverse { (j, i) } else { (i, j) };
        if i < j || (i == j && !exclusive) { 1.0 } else { 0.0 }
    };
    let matrix = (0..size * size).map(|at| part(at / size, at % size)).collect();
    let tensor = Tensor { dims: vec![size, size], data: crate::onnx::tensor::Data::Float(matrix) };
    let matrix = importer.constant_of(&tensor, vec![size, size])?;
    let mut order: Vec<usize> = (0..dims.len()).collect();
    let last = dims.len() - 1;
    order.swap(axis, last);
    let mut turned = importer.permuted("in", input, order.clone())?;
    let vector = dims.len() == 1;
    if vector {
        turned = importer.reshaped("row", turned, vec![1, size])?;
    }
    let sums = importer.apply("", TensorOperator::MatMul, vec![turned, matrix])?;
    let sums = if vector { importer.reshaped("flat", sums, vec![size])? } else { sums };
    importer.permuted("out", sums, order).map(one)
}
