//! Lowering of operators that choose positions along axes.

use paretune_kernels::ValueId;
use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Picks, TensorOperator};

use super::axes::{inner_axis, slices};
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::{Node, resolve_axis};
use crate::onnx::tensor::Int;

/// Largest number of elements that one axis may get.
const MAX_EXTENT: usize = 1 << 24;

fn select(
    importer: &mut Importer,
    part: &str,
    input: ValueId,
    axis: usize,
    picks: Picks,
) -> Result<ValueId, String> {
    let all = importer.dims(input)[axis];
    if picks == (Picks::Range { start: 0, step: 1, count: all }) {
        return Ok(input);
    }
    importer.apply(part, TensorOperator::Select { axis, picks }, vec![input])
}

/// Lowers a `Slice`: one step for each axis that is cut.
pub fn slice(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let mut value = importer.activation(node, 0)?;
    let lead = importer.lead();
    let inner = importer.dims(value).to_vec();
    // Any extent will do for the batch if a full slice of it can be recognized.
    let full = [&vec![usize::MAX >> 2; lead][..], &inner[..]].concat();
    let cuts = slices(importer, node, &full)?;
    for cut in cuts {
        let Some(axis) = cut.axis.checked_sub(lead) else {
            // An end that was stated as the extent of the batch is not known here.
            if cut.start == 0 && cut.step == 1 && cut.count >= 1 << 31 {
                continue;
            }
            return Err("slices the batch, which is not supported".into());
        };
        if cut.count == 0 {
            return Err(format!("keeps nothing of axis {}", cut.axis));
        }
        let picks = Picks::Range { start: cut.start, step: cut.step as i64, count: cut.count };
        value = select(importer, "", value, axis, picks)?;
    }
    Ok(one(value))
}

/// Lowers `Split` to one selection for each output.
pub fn split(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let axis = inner_axis(importer.lead(), node.int("axis")?.unwrap_or(0), dims.len())?;
    let count = node.proto.output.len();
    let sizes = if node.opset < 13 {
        node.ints("split")?.map(<[i64]>::to_vec)
    } else {
        importer.optional_tensor(node, 1)?.map(|tensor| tensor.known()).transpose()?
    };
    let sizes = match sizes {
        Some(sizes) => sizes
            .iter()
            .map(|&size| usize::try_from(size).map_err(|_| format!("splits off {size} elements")))
            .collect::<Result<Vec<_>, _>>()?,
        None => equal_parts(dims[axis], count)?,
    };
    if sizes.len() != count || sizes.iter().sum::<usize>() != dims[axis] {
        return Err(format!("splits {} elements into {count} parts of {sizes:?}", dims[axis]));
    }
    let mut outputs = Vec::with_capacity(count);
    let mut start = 0;
    for (index, &size) in sizes.iter().enumerate() {
        outputs.push(if size == 0 {
            Item::Unusable(format!("part {index} of a split is empty"))
        } else if node.has_output(index) {
            let picks = Picks::Range { start, step: 1, count: size };
            let part = format!("part{index}");
            Item::Activation(select(importer, &part, input, axis, picks)?)
        } else {
            Item::Unusable("has no name".into())
        });
        start += size;
    }
    Ok(outputs)
}

/// Returns the sizes of `count` parts of `size` elements: equal ones, and a smaller last one.
pub fn equal_parts(size: usize, count: usize) -> Result<Vec<usize>, String> {
    let part = size.div_ceil(count.max(1));
    let parts: Vec<usize> =
        (0..count).map(|index| part.min(size.saturating_sub(index * part))).collect();
    if parts.contains(&0) {
        return Err(format!("splits {size} elements into {count} parts"));
    }
    Ok(parts)
}

/// Lowers `Gather` with constant positions.
pub fn gather(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let Some(Item::Activation(_)) = importer.operand(node, 0)? else {
        return Err("looks up constants at computed positions, which is not supported".into());
    };
    let input = importer.activation(node, 0)?;
    let dims = importer.dims(input).to_vec();
    let axis = inner_axis(importer.lead(), node.int("axis")?.unwrap_or(0), dims.len())?;
    let indices = importer.tensor(node, 1)?.clone();
    let list = indices
        .known()?
        .iter()
        .map(|&index| resolve_axis(index, dims[axis]).map(|index| index as u32))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| format!("reads beyond the {} elements of its axis", dims[axis]))?;
    if list.is_empty() {
        return Err("gathers nothing".into());
    }
    let part = if indices.dims.len() == 1 { "" } else { "picked" };
    let picked = select(importer, part, input, axis, ranged(list))?;
    let shape = [&dims[..axis], &indices.dims[..], &dims[axis + 1..]].concat();
    let shape = if shape.is_empty() { vec![1] } else { shape };
    importer.reshaped("", picked, shape).map(one)
}

/// Returns a list of positions as a range where it is one.
pub fn ranged(list: Vec<u32>) -> Picks {
    let step = match list[..] {
        [first, second, ..] => i64::from(second) - i64::from(first),
        _ => 1,
    };
    let even = list.windows(2).all(|pair| i64::from(pair[1]) - i64::from(pair[0]) == step);
    if even && step != 0 && !list.contains(&Picks::NONE) {
        Picks::Range { start: list[0] as usize, step, count: list.len() }
    } else {
        Picks::List(list)
    }
}

/// Lowers `Tile`: every axis is repeated as a whole.
pub fn tile(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let mut value = importer.activation(node, 0)?;
    let lead = importer.lead();
    let repeats = importer.tensor(node, 1)?.known()?;
    let dims = importer.dims(value).to_vec();
    if repeats.len() != dims.len() + lead {
        return Err(format!("repeats {} axes of {}", repeats.len(), dims.len() + lead));
    }
    for (index, &repeat) in repeats.iter().enumerate() {
        if repeat == 1 {
            continue;
        }
        let axis = index.checked_sub(lead).ok_or("repeats the batch, which is not supported")?;
        let size = dims[axis];
        let count = usize::try_from(repeat)
            .ok()
            .and_then(|repeat| repeat.checked_mul(size))
            .filter(|&count| (1..=MAX_EXTENT).contains(&count))
            .ok_or_else(|| format!("repeats an axis {repeat} times"))?;
        importer.spend(count)?;
        let list = (0..count).map(|place| (place % size) as u32).collect();
        value = select(importer, "", value, axis, Picks::List(list))?;
    }
    Ok(one(value))
}

/// Lowers `Expand` with a constant shape.
pub fn expand(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let target = importer.tensor(node, 1)?.symbols()?.to_vec();
    expanded(importer, input, &target).map(one)
}

fn expanded(importer: &mut Importer, input: ValueId, target: &[Int]) -> Result<ValueId, String> {
    let lead = importer.lead();
    let dims = importer.dims(input).to_vec();
    let rank = (dims.len() + lead).max(target.len());
    if lead == 1 && target.len() > dims.len() + 1 {
        return Err("puts further axes before the batch, which is not supported".into());
    }
    // Missing axes before the others have size 1.
    let wide = [&vec![1; rank - lead - dims.len()][..], &dims[..]].concat();
    let mut value = importer.reshaped("wide", input, wide.clone())?;
    let missing = rank - target.len();
    for (index, extent) in target.iter().enumerate() {
        let Some(axis) = (index + missing).checked_sub(lead) else {
            match extent {
                Int::Batch | Int::Known(1) => continue,
                Int::Known(_) => return Err("repeats the batch, which is not supported".into()),
            }
        };
        let Int::Known(extent) = *extent else {
            return Err("repeats an axis as often as there are images".into());
        };
        let extent = usize::try_from(extent).ok().filter(|&x| (1..=MAX_EXTENT).contains(&x));
        let extent = extent.ok_or("has an impossible shape")?;
        match wide[axis] {
            size if size == extent || extent == 1 => {}
            1 => {
                importer.spend(extent)?;
                value = select(importer, "", value, axis, Picks::List(vec![0; extent]))?;
            }
            size => return Err(format!("cannot expand an axis of {size} elements to {extent}")),
        }
    }
    Ok(value)
}

/// Lowers `Pad` in all modes, with amounts as attribute or as input; negative amounts crop.
pub fn pad(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let mut value = importer.activation(node, 0)?;
    let lead = importer.lead();
    let dims = importer.dims(value).to_vec();
    let mode = node.text("mode")?.map_or("constant".to_owned(), std::borrow::Cow::into_owned);
    if !matches!(mode.as_str(), "constant" | "reflect" | "edge" | "wrap") {
        return Err(format!("padding mode `{mode}` does not exist"));
    }
    let old = node.opset < 11;
    let amounts = if old {
        let name = if node.has_attribute("paddings") { "paddings" } else { "pads" };
        node.ints(name)?.ok_or("has no pads")?.to_vec()
    } else {
        importer.tensor(node, 1)?.known()?
    };
    let fill = if old {
        node.float("value", 0.0)?
    } else {
        match importer.optional_tensor(node, 2)? {
            Some(tensor) if tensor.len() == 1 => tensor.numbers()?[0],
            Some(tensor) => return Err(format!("pads with {} numbers", tensor.len())),
            None => 0.0,
        }
    };
    let axes: Vec<i64> = match importer.optional_tensor(node, 3)? {
        Some(axes) => axes.known()?,
        None => (0..(dims.len() + lead) as i64).collect(),
    };
    if amounts.len() != 2 * axes.len() {
        return Err(format!("has {} amounts for {} axes", amounts.len(), axes.len()));
    }
    let mut padding = vec![[0; 2]; dims.len()];
    for (index, &axis) in axes.iter().enumerate() {
        let pair = [amounts[index], amounts[index + axes.len()]];
        if pair == [0, 0] {
            continue;
        }
        let axis = inner_axis(lead, axis, dims.len())?;
        if pair.iter().any(|amount| amount.abs() > 1 << 16) {
            return Err(format!("amounts {pair:?} are too large"));
        }
        let size = importer.dims(value)[axis] as i64;
        if mode != "constant" {
            let list = (-pair[0]..size + pair[1]).map(|at| reflected(&mode, at, size) as u32);
            let list: Vec<u32> = list.collect();
            if list.is_empty() {
                return Err(format!("amounts {pair:?} leave nothing of {size} elements"));
            }
            value = select(importer, "", value, axis, ranged(list))?;
            continue;
        }
        let crop = pair.map(|amount| (-amount).max(0));
        if crop != [0, 0] {
            let count = usize::try_from(size - crop[0] - crop[1]).unwrap_or(0);
            if count == 0 {
                return Err(format!("amounts {pair:?} leave nothing of {size} elements"));
            }
            let picks = Picks::Range { start: crop[0] as usize, step: 1, count };
            value = select(importer, "crop", value, axis, picks)?;
        }
        padding[axis] = pair.map(|amount| amount.max(0) as usize);
    }
    if padding.iter().all(|pair| *pair == [0, 0]) {
        return Ok(one(value));
    }
    let new = importer.dims(value).iter().zip(&padding).map(|(size, [a, b])| size + a + b);
    let new = new.collect();
    importer.emit("", Operator::Pad { padding, value: fill }, vec![value], new).map(one)
}

/// Returns the position that stands for `at` outside of `size` elements.
fn reflected(mode: &str, at: i64, size: i64) -> i64 {
    match mode {
        "edge" => at.clamp(0, size - 1),
        "wrap" => at.rem_euclid(size),
        _ if size == 1 => 0,
        _ => {
            let at = at.rem_euclid(2 * (size - 1));
            at.min(2 * (size - 1) - at)
        }
    }
}

/// Lowers `DepthToSpace` and `SpaceToDepth` to a permutation of a finer shape.
pub fn shuffle(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let [channels, height, width] = importer.image(input)?;
    let size = node.int("blocksize")?.and_then(|size| usize::try_from(size).ok());
    let b = size.filter(|size| (1..=1 << 10).contains(size)).ok_or("has no sound blocksize")?;
    let misfit = || format!("blocks of {b} do not fit {:?}", [channels, height, width]);
    let (fine, order, dims) = if node.operator == "SpaceToDepth" {
        if !height.is_multiple_of(b) || !width.is_multiple_of(b) {
            return Err(misfit());
        }
        let (h, w) = (height / b, width / b);
        let order = match node.text("mode")?.as_deref() {
            None | Some("DCR") => vec![2, 4, 0, 1, 3],
            Some("CRD") => vec![0, 2, 4, 1, 3],
            Some(other) => return Err(format!("its mode `{other}` does not exist")),
        };
        (vec![channels, h, b, w, b], order, vec![channels * b * b, h, w])
    } else {
        if !channels.is_multiple_of(b * b) {
            return Err(misfit());
        }
        let c = channels / (b * b);
        let dims = vec![c, height * b, width * b];
        match node.text("mode")?.as_deref() {
            None | Some("DCR") => (vec![b, b, c, height, width], vec![2, 3, 0, 4, 1], dims),
            Some("CRD") => (vec![c, b, b, height, width], vec![0, 3, 1, 4, 2], dims),
            Some(other) => return Err(format!("its mode `{other}` does not exist")),
        }
    };
    let fine = importer.reshaped("fine", input, fine)?;
    let moved = importer.permuted("moved", fine, order)?;
    importer.reshaped("", moved, dims).map(one)
}
