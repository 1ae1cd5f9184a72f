//! Constant folding at import: the integer arithmetic by which exporters compute shapes, and the
//! small tensor arithmetic by which they prepare weights.

use std::collections::HashMap;
use std::sync::Arc;

use paretune_kernels::hardware::Isa;
use paretune_kernels::{Executor, ExecutorOptions, Plan, ValueId, ValueSpec};
use sha2::{Digest, Sha256};

use super::importer::{Importer, Item, mapped};
use super::initializer::{self, Source};
use super::lower::axes::{axes_of, slices};
use super::lower::reshape::target;
use super::node::{Node, resolve_axis};
use super::operators::OPERATORS;
use super::proto::tensor_proto::DataType;
use super::quantized;
use super::tensor::{
    Data, Int, Tensor, broadcast, broadcast_offsets, strided_offsets, strides, volume,
};

/// Evaluates the node's outputs if they depend on constants and shapes alone. Returns `None` if the
/// node must be lowered to steps.
pub fn fold(importer: &mut Importer, node: &Node<'_>) -> Result<Option<Vec<Tensor>>, String> {
    let one = |tensor: Tensor| Some(vec![tensor]);
    match node.operator.as_str() {
        "Constant" => {
            if let (Some(proto), Some(name)) = (node.tensor("value")?, node.proto.output.first()) {
                importer.note_kind(name, proto);
            }
            return constant(node).map(one);
        }
        "Shape" => return shape(importer, node).map(one),
        "Size" => return size(importer, node).map(one),
        _ => {}
    }
    let mut inputs = Vec::with_capacity(node.proto.input.len());
    for index in 0..node.proto.input.len() {
        inputs.push(match importer.operand(node, index)? {
            None => None,
            // The clone shares the numbers.
            Some(Item::Constant(tensor)) => Some(tensor.clone()),
            Some(_) => return Ok(None),
        });
    }
    let input = |index: usize| {
        inputs
            .get(index)
            .and_then(Option::as_ref)
            .ok_or_else(|| format!("its input {index} is missing"))
    };
    if inputs.iter().all(Option::is_none) {
        return Ok(None);
    }
    let result = match node.operator.as_str() {
        "Identity" | "Dropout" => input(0)?.clone(),
        "Cast" => cast(target(node)?, input(0)?)?,
        "CastLike" if input(1)?.is_integer() => cast(DataType::Int64, input(0)?)?,
        "CastLike" => cast(DataType::Float, input(0)?)?,
        "Mod" if input(0)?.is_integer() => modulo(importer, node, input(0)?, input(1)?)?,
        "Range" => range(importer, input(0)?, input(1)?, input(2)?)?,
        "DequantizeLinear" => quantized::constant(importer, node, input(0)?)?,
        "Gather" => gather(importer, node, input(0)?, input(1)?)?,
        "Slice" => slice(importer, node, input(0)?)?,
        "Concat" => concat(importer, node, &inputs)?,
        "Unsqueeze" => unsqueeze(importer, node, input(0)?)?,
        "Squeeze" => squeeze(importer, node, input(0)?)?,
        "Reshape" => reshape(node, input(0)?, input(1)?)?,
        "Flatten" => {
            let tensor = input(0)?;
            let axis = node.int("axis")?.unwrap_or(1);
            let rank = tensor.dims.len();
            let axis = if axis == rank as i64 { rank } else { resolve_axis(axis, rank)? };
            let (outer, inner) = tensor.dims.split_at(axis);
            tensor.reshaped(vec![outer.iter().product(), inner.iter().product()])?
        }
        "Transpose" => transpose(importer, node, input(0)?)?,
        "ConstantOfShape" => constant_of_shape(importer, node, input(0)?)?,
        "Expand" => {
            let target = shape_of(&input(1)?.known()?)?;
            let tensor = input(0)?;
            let dims = broadcast(&tensor.dims, &target)
                .ok_or_else(|| format!("{:?} does not broadcast to {target:?}", tensor.dims))?;
            importer.spend(volume(&dims).ok_or("is too large")?)?;
            tensor.gathered(dims.clone(), &broadcast_offsets(&tensor.dims, &dims))
        }
        "Add" | "Sub" | "Mul" | "Div" if node.opset < 7 => {
            return evaluate(importer, node, &inputs).map(Some);
        }
        "Add" => arithmetic(importer, Arithmetic::Add, input(0)?, input(1)?)?,
        "Sub" => arithmetic(importer, Arithmetic::Sub, input(0)?, input(1)?)?,
        "Mul" => arithmetic(importer, Arithmetic::Mul, input(0)?, input(1)?)?,
        "Div" => arithmetic(importer, Arithmetic::Div, input(0)?, input(1)?)?,
        "Sqrt" => unary(importer, input(0)?, f64::sqrt)?,
        "Exp" => unary(importer, input(0)?, f64::exp)?,
        "Reciprocal" => unary(importer, input(0)?, f64::recip)?,
        "Floor" => unary(importer, input(0)?, f64::floor)?,
        "Ceil" => unary(importer, input(0)?, f64::ceil)?,
        "Neg" => match &input(0)?.data {
            Data::Float(_) => unary(importer, input(0)?, |x| -x)?,
            Data::Int(_) => {
                let zero = Tensor { dims: Vec::new(), data: Data::Int([Int::Known(0)].into()) };
                arithmetic(importer, Arithmetic::Sub, &zero, input(0)?)?
            }
        },
        operator if OPERATORS.contains(&operator) => {
            return evaluate(importer, node, &inputs).map(Some);
        }
        _ => return Ok(None),
    };
    Ok(Some(vec![result]))
}

fn constant(node: &Node<'_>) -> Result<Tensor, String> {
    if let Some(proto) = node.tensor("value")? {
        // Attributes cannot refer to external files in a meaningful way, and none do.
        return initializer::read(proto, &mut Source { folder: None, hasher: Sha256::new() })
            .map_err(|problem| format!("its value {problem}"));
    }
    let float = |values: &[f32], dims| Tensor { dims, data: Data::Float(values.into()) };
    let int = |values: &[i64], dims| Tensor {
        dims,
        data: Data::Int(values.iter().map(|&v| Int::Known(v)).collect()),
    };
    if node.has_attribute("value_float") {
        Ok(float(&[node.float("value_float", 0.0)?], vec![]))
    } else if let Some(values) = node.floats("value_floats")? {
        Ok(float(values, vec![values.len()]))
    } else if let Some(value) = node.int("value_int")? {
        Ok(int(&[value], vec![]))
    } else if let Some(values) = node.ints("value_ints")? {
        Ok(int(values, vec![values.len()]))
    } else {
        Err("holds neither a tensor nor numbers".into())
    }
}

fn shape(importer: &Importer, node: &Node<'_>) -> Result<Tensor, String> {
    let item = importer.operand(node, 0)?.ok_or("its input is missing")?;
    let extents = importer.extents(item)?;
    let rank = extents.len() as i64;
    let clamp = |bound: i64| {
        (if bound < 0 { bound.saturating_add(rank) } else { bound }).clamp(0, rank) as usize
    };
    let start = clamp(node.int("start")?.unwrap_or(0));
    let end = clamp(node.int("end")?.unwrap_or(rank)).max(start);
    Ok(Tensor::ints(extents[start..end].to_vec()))
}

fn size(importer: &Importer, node: &Node<'_>) -> Result<Tensor, String> {
    match importer.operand(node, 0)? {
        Some(Item::Constant(tensor)) => {
            Ok(Tensor { dims: vec![], data: Data::Int([Int::Known(tensor.len() as i64)].into()) })
        }
        _ => Err("counts numbers across the batch, which is not supported".into()),
    }
}

fn cast(target: DataType, tensor: &Tensor) -> Result<Tensor, String> {
    let to_float = matches!(
        target,
        DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16
    );
    let to_int = matches!(
        target,
        DataType::Int64
            | DataType::Int32
            | DataType::Int16
            | DataType::Int8
            | DataType::Uint8
            | DataType::Uint16
            | DataType::Uint32
            | DataType::Uint64
    );
    let truth = |holds: bool| Int::Known(i64::from(holds));
    let data = match &tensor.data {
        Data::Float(values) if target == DataType::Bool => {
            Data::Int(values.iter().map(|&v| truth(v != 0.0)).collect())
        }
        Data::Int(_) if target == DataType::Bool => {
            Data::Int(tensor.known()?.iter().map(|&v| truth(v != 0)).collect())
        }
        data @ Data::Float(_) if to_float => data.clone(),
        data @ Data::Int(_) if to_int => data.clone(),
        Data::Float(values) if to_int => {
            Data::Int(values.iter().map(|&v| Int::Known(v as i64)).collect())
        }
        Data::Int(_) if to_float => {
            Data::Float(tensor.known()?.iter().map(|&v| v as f32).collect())
        }
        _ => return Err(format!("casting constants to {} is not supported", target.as_str_name())),
    };
    Ok(Tensor { dims: tensor.dims.clone(), data })
}

fn gather(
    importer: &mut Importer,
    node: &Node<'_>,
    tensor: &Tensor,
    indices: &Tensor,
) -> Result<Tensor, String> {
    let axis = resolve_axis(node.int("axis")?.unwrap_or(0), tensor.dims.len())?;
    let positions = indices
        .known()?
        .iter()
        .map(|&i| resolve_axis(i, tensor.dims[axis]))
        .collect::<Result<Vec<_>, _>>()?;
    let dims = [&tensor.dims[..axis], &indices.dims, &tensor.dims[axis + 1..]].concat();
    let total = volume(&dims).ok_or("is too large")?;
    importer.spend(total)?;
    let inner: usize = tensor.dims[axis + 1..].iter().product();
    let outer: usize = tensor.dims[..axis].iter().product();
    let mut source = Vec::with_capacity(total);
    for block in 0..outer {
        for &position in &positions {
            let start = (block * tensor.dims[axis] + position) * inner;
            source.extend(start..start + inner);
        }
    }
    Ok(tensor.gathered(dims, &source))
}

fn slice(importer: &mut Importer, node: &Node<'_>, tensor: &Tensor) -> Result<Tensor, String> {
    let mut dims = tensor.dims.clone();
    let own = strides(&tensor.dims);
    let mut step: Vec<isize> = own.iter().map(|&stride| stride as isize).collect();
    let mut start = 0;
    for cut in slices(importer, node, &tensor.dims)? {
        dims[cut.axis] = cut.count;
        start += cut.start * own[cut.axis];
        step[cut.axis] = own[cut.axis] as isize * cut.step;
    }
    importer.spend(volume(&dims).ok_or("is too large")?)?;
    let source = strided_offsets(&dims, &step, start);
    Ok(tensor.gathered(dims, &source))
}

fn concat(
    importer: &mut Importer,
    node: &Node<'_>,
    inputs: &[Option<Tensor>],
) -> Result<Tensor, String> {
    let tensors: Vec<&Tensor> = inputs.iter().flatten().collect();
    let first = tensors.first().ok_or("has no inputs")?;
    let axis = resolve_axis(node.int("axis")?.ok_or("has no axis")?, first.dims.len())?;
    let mut dims = first.dims.clone();
    dims[axis] = 0;
    for tensor in &tensors {
        let fits = tensor.dims.len() == dims.len()
            && (0..dims.len()).all(|other| other == axis || tensor.dims[other] == dims[other]);
        if !fits {
            return Err(format!(
                "shapes {:?} and {:?} do not fit together",
                first.dims, tensor.dims
            ));
        }
        dims[axis] = dims[axis].checked_add(tensor.dims[axis]).ok_or("is too large")?;
    }
    importer.spend(volume(&dims).ok_or("is too large")?)?;
    let outer: usize = dims[..axis].iter().product();
    fn join<T: Copy>(parts: &[&[T]], outer: usize) -> Arc<[T]> {
        let mut all = Vec::new();
        for block in 0..outer {
            for part in parts {
                let size = part.len() / outer;
                all.extend_from_slice(&part[block * size..(block + 1) * size]);
            }
        }
        all.into()
    }
    let data = if let Data::Float(_) = first.data {
        let parts =
            tensors.iter().map(|t| Ok(t.floats()?.as_ref())).collect::<Result<Vec<_>, String>>()?;
        Data::Float(join(&parts, outer))
    } else {
        let parts = tensors.iter().map(|t| t.symbols()).collect::<Result<Vec<_>, String>>()?;
        Data::Int(join(&parts, outer))
    };
    Ok(Tensor { dims, data })
}

fn unsqueeze(importer: &Importer, node: &Node<'_>, tensor: &Tensor) -> Result<Tensor, String> {
    let axes = axes_of(importer, node)?.ok_or("has no axes")?;
    let rank = tensor.dims.len() + axes.len();
    let axes = axes.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    if rank > 16 {
        return Err(format!("would make a tensor of {rank} axes"));
    }
    let mut rest = tensor.dims.iter();
    let dims = (0..rank)
        .map(|axis| if axes.contains(&axis) { Some(1) } else { rest.next().copied() })
        .collect::<Option<Vec<_>>>()
        .ok_or("lists an axis twice")?;
    tensor.reshaped(dims)
}

fn squeeze(importer: &Importer, node: &Node<'_>, tensor: &Tensor) -> Result<Tensor, String> {
    let rank = tensor.dims.len();
    let axes = match axes_of(importer, node)? {
        Some(axes) => {
            axes.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..rank).filter(|&axis| tensor.dims[axis] == 1).collect(),
    };
    tensor.reshaped(
        (0..rank).filter(|axis| !axes.contains(axis)).map(|axis| tensor.dims[axis]).collect(),
    )
}

fn reshape(node: &Node<'_>, tensor: &Tensor, target: &Tensor) -> Result<Tensor, String> {
    let keep_zero = node.flag("allowzero", false)?;
    let mut dims = target.known()?;
    for (axis, dim) in dims.iter_mut().enumerate() {
        if *dim == 0 && !keep_zero {
            *dim = *tensor.dims.get(axis).ok_or("copies an axis that does not exist")? as i64;
        }
    }
    let known: i64 = dims
        .iter()
        .filter(|&&dim| dim != -1)
        .try_fold(1i64, |product, &dim| product.checked_mul(dim))
        .ok_or("is too large")?;
    for dim in &mut dims {
        if *dim == -1 && known > 0 {
            *dim = tensor.len() as i64 / known;
        }
    }
    tensor.reshaped(shape_of(&dims)?)
}

fn transpose(importer: &mut Importer, node: &Node<'_>, tensor: &Tensor) -> Result<Tensor, String> {
    let rank = tensor.dims.len();
    let order = match node.ints("perm")? {
        Some(order) => {
            order.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank || (0..rank).any(|axis| !order.contains(&axis)) {
        return Err(format!("{order:?} does not permute {rank} axes"));
    }
    importer.spend(tensor.len())?;
    let own = strides(&tensor.dims);
    let dims: Vec<usize> = order.iter().map(|&axis| tensor.dims[axis]).collect();
    let step: Vec<isize> = order.iter().map(|&axis| own[axis] as isize).collect();
    let source = strided_offsets(&dims, &step, 0);
    Ok(tensor.gathered(dims, &source))
}

/// Number of equal numbers that cost as much of the limit of folding as one computed number.
const FILL_SHARE: usize = 16;

fn constant_of_shape(
    importer: &mut Importer,
    node: &Node<'_>,
    target: &Tensor,
) -> Result<Tensor, String> {
    let dims = shape_of(&target.known()?)?;
    let count = volume(&dims).ok_or("is too large")?;
    let value = match node.tensor("value")? {
        Some(_) => constant(node)?,
        None => Tensor { dims: vec![1], data: Data::Float([0.0].into()) },
    };
    match &value.data {
        // Published networks without their weights have a few hundred megabytes of equal numbers.
        Data::Float(number) if number.len() == 1 => {
            importer.spend(count.div_ceil(FILL_SHARE))?;
            let data = Data::Float(std::iter::repeat_n(number[0], count).collect());
            Ok(Tensor { dims, data })
        }
        Data::Int(number) if number.len() == 1 => {
            importer.spend(count)?;
            Ok(value.gathered(dims, &vec![0; count]))
        }
        _ => Err("its value is not a single number".into()),
    }
}

/// Returns remainders of integers, with the sign of the divisor unless `fmod` is set.
fn modulo(
    importer: &mut Importer,
    node: &Node<'_>,
    a: &Tensor,
    b: &Tensor,
) -> Result<Tensor, String> {
    let dims = broadcast(&a.dims, &b.dims)
        .ok_or_else(|| format!("shapes {:?} and {:?} do not broadcast", a.dims, b.dims))?;
    importer.spend(volume(&dims).ok_or("is too large")?)?;
    let truncated = node.flag("fmod", false)?;
    let (x, y) = (a.known()?, b.known()?);
    let pairs =
        broadcast_offsets(&a.dims, &dims).into_iter().zip(broadcast_offsets(&b.dims, &dims));
    let remainder = |(i, j): (usize, usize)| {
        let rest = x[i].checked_rem(y[j])?;
        let other_sign = rest != 0 && (rest < 0) != (y[j] < 0);
        Some(Int::Known(if other_sign && !truncated { rest + y[j] } else { rest }))
    };
    let values = pairs.map(remainder).collect::<Option<Vec<_>>>().ok_or("divides by zero")?;
    Ok(Tensor { dims, data: Data::Int(values.into()) })
}

fn range(
    importer: &mut Importer,
    start: &Tensor,
    limit: &Tensor,
    delta: &Tensor,
) -> Result<Tensor, String> {
    let count = |count: f64| {
        // The limit itself is not part of the range.
        let count = count.ceil().max(0.0);
        if count <= 1e9 { Ok(count as usize) } else { Err(format!("has {count} numbers")) }
    };
    if let (Ok(a), Ok(b), Ok(c)) = (start.known(), limit.known(), delta.known())
        && let (&[start], &[limit], &[delta]) = (&a[..], &b[..], &c[..])
        && delta != 0
    {
        let count = count((limit as f64 - start as f64) / delta as f64)?;
        importer.spend(count)?;
        let values = (0..count as i64)
            .map(|index| delta.checked_mul(index)?.checked_add(start).map(Int::Known))
            .collect::<Option<Vec<_>>>();
        return Ok(Tensor::ints(values.ok_or("is too large")?));
    }
    let [start, limit, delta] =
        [start.float_scalar()?, limit.float_scalar()?, delta.float_scalar()?].map(f64::from);
    if delta == 0.0 || !delta.is_finite() {
        return Err(format!("counts in steps of {delta}"));
    }
    let count = count((limit - start) / delta)?;
    importer.spend(count)?;
    let values = (0..count).map(|index| (start + delta * index as f64) as f32).collect();
    Ok(Tensor { dims: vec![count], data: Data::Float(values) })
}

/// Operators whose results are integers or truth values whatever their inputs are.
const TO_INTEGERS: &[&str] = &[
    "And",
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "Not",
    "Or",
    "Xor",
];

/// Evaluates a node on constants by lowering it to the steps of a small plan and running them.
fn evaluate(
    importer: &mut Importer,
    node: &Node<'_>,
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, String> {
    let first = inputs.iter().position(Option::is_some).ok_or("has no inputs")?;
    let (name, tensor) = match (node.input(first), &inputs[first]) {
        (Some(name), Some(tensor)) if tensor.len() > 0 => (name, tensor),
        _ => return Err("calculates with an empty tensor".into()),
    };
    let typed = if node.operator == "Where" { inputs.get(1) } else { inputs.get(first) };
    let integer = TO_INTEGERS.contains(&node.operator.as_str())
        || typed.and_then(Option::as_ref).is_some_and(Tensor::is_integer);
    let scalars = inputs.iter().flatten().all(|tensor| tensor.dims.is_empty());
    let mut small = importer.scratch();
    let numbers = tensor.numbers()?;
    small.whole_mode = true;
    let dims = if tensor.dims.is_empty() { vec![1] } else { tensor.dims.clone() };
    let input = small.value(dims)?;
    small.plan.input = input;
    for (index, tensor) in inputs.iter().enumerate() {
        if let (Some(tensor), Some(name)) = (tensor, node.input(index)) {
            small.items.insert(name.to_string(), Item::Constant(tensor.clone()));
        }
    }
    small.items.insert(name.to_string(), Item::Activation(input));
    small.base = "constant".into();
    let items = small.lowered(node)?;
    importer.spend(small.plan.values.iter().map(ValueSpec::len).sum())?;
    let mut tensors = Vec::with_capacity(items.len());
    let computed = run(&mut small.plan, &numbers, &items)?;
    for (index, item) in items.iter().enumerate() {
        let (id, numbers) = match (item, computed.get(&index)) {
            (Item::Activation(id), Some(numbers)) => (*id, numbers),
            _ => break,
        };
        let mut dims = small.plan.values[id].dims.clone();
        if !small.whole[id] {
            dims.insert(0, 1);
        }
        if scalars && dims == [1] {
            dims.clear();
        }
        let whole = integer || (node.operator == "TopK" && index == 1);
        let data = if whole {
            if let Some(large) = numbers.iter().find(|x| x.abs() > 16_777_216.0) {
                return Err(format!("calculates the large integer {large}"));
            }
            Data::Int(numbers.iter().map(|&x| Int::Known(x.round() as i64)).collect())
        } else {
            Data::Float(numbers.as_slice().into())
        };
        tensors.push(Tensor { dims, data });
    }
    if tensors.is_empty() { Err("has no result".into()) } else { Ok(tensors) }
}

/// Runs a plan and returns the numbers of `items` by their index.
fn run(plan: &mut Plan, input: &[f32], items: &[Item]) -> Result<HashMap<usize, Vec<f32>>, String> {
    let mut found = HashMap::new();
    let wanted = |value: ValueId| {
        items.iter().enumerate().filter_map(move |(index, item)| {
            matches!(item, Item::Activation(id) if *id == value).then_some(index)
        })
    };
    plan.output = plan.steps.last().map_or(plan.input, |step| step.output);
    let options = ExecutorOptions { batch: 1, threads: 1, isa: Isa::detect() };
    let mut executor = Executor::new(plan, &options).map_err(|error| error.to_string())?;
    executor
        .observe(input, &mut |value, numbers| {
            for index in wanted(value) {
                found.insert(index, numbers.to_vec());
            }
        })
        .map_err(|error| error.to_string())?;
    Ok(found)
}

/// Converts integers to a shape.
fn shape_of(values: &[i64]) -> Result<Vec<usize>, String> {
    values
        .iter()
        .map(|&value| usize::try_from(value).map_err(|_| format!("{values:?} is no shape")))
        .collect()
}

fn unary(
    importer: &mut Importer,
    tensor: &Tensor,
    apply: fn(f64) -> f64,
) -> Result<Tensor, String> {
    importer.spend(tensor.len())?;
    Ok(Tensor { dims: tensor.dims.clone(), data: mapped(tensor.floats()?, apply) })
}

/// Arithmetic operation on two tensors.
#[derive(Clone, Copy, Debug)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
}

fn arithmetic(
    importer: &mut Importer,
    operation: Arithmetic,
    a: &Tensor,
    b: &Tensor,
) -> Result<Tensor, String> {
    let dims = broadcast(&a.dims, &b.dims)
        .ok_or_else(|| format!("shapes {:?} and {:?} do not broadcast", a.dims, b.dims))?;
    importer.spend(volume(&dims).ok_or("is too large")?)?;
    let pairs =
        broadcast_offsets(&a.dims, &dims).into_iter().zip(broadcast_offsets(&b.dims, &dims));
    let data = match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) => Data::Float(
            pairs
                .map(|(i, j)| {
                    let (x, y) = (f64::from(x[i]), f64::from(y[j]));
                    (match operation {
                        Arithmetic::Add => x + y,
                        Arithmetic::Sub => x - y,
                        Arithmetic::Mul => x * y,
                        Arithmetic::Div => x / y,
                    }) as f32
                })
                .collect(),
        ),
        (Data::Int(x), Data::Int(y)) => Data::Int(
            pairs
                .map(|(i, j)| integer(operation, x[i], y[j]))
                .collect::<Result<Arc<[Int]>, _>>()?,
        ),
        _ => return Err("mixes integers and floating-point numbers".into()),
    };
    Ok(Tensor { dims, data })
}

fn integer(operation: Arithmetic, a: Int, b: Int) -> Result<Int, String> {
    let (x, y) = match (operation, a, b) {
        (_, Int::Known(x), Int::Known(y)) => (x, y),
        (Arithmetic::Mul | Arithmetic::Div, Int::Batch, Int::Known(1))
        | (Arithmetic::Mul, Int::Known(1), Int::Batch)
        | (Arithmetic::Add | Arithmetic::Sub, Int::Batch, Int::Known(0))
        | (Arithmetic::Add, Int::Known(0), Int::Batch) => return Ok(Int::Batch),
        _ => {
            return Err(
                "computes with the number of images; the batch axis must be left alone".into()
            );
        }
    };
    match operation {
        Arithmetic::Add => x.checked_add(y),
        Arithmetic::Sub => x.checked_sub(y),
        Arithmetic::Mul => x.checked_mul(y),
        Arithmetic::Div => x.checked_div(y),
    }
    .map(Int::Known)
    .ok_or_else(|| format!("{operation:?} of {x} and {y} has no result"))
}
