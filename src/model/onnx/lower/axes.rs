//! Axes and slices as stated by ONNX nodes: including the batch, as attributes or as inputs.

use crate::onnx::importer::Importer;
use crate::onnx::node::{Node, resolve_axis};

/// Returns the axes that a node states in its attribute, or in its second input in newer operator
/// sets.
pub fn axes_of(importer: &Importer, node: &Node<'_>) -> Result<Option<Vec<i64>>, String> {
    if let Some(axes) = node.ints("axes")? {
        return Ok(Some(axes.to_vec()));
    }
    importer.optional_tensor(node, 1)?.map(|tensor| tensor.known()).transpose()
}

/// Converts an axis of the tensor in ONNX to an axis of the plan's shape of `rank` axes, which
/// omits the first `lead` axes.
pub fn inner_axis(lead: usize, axis: i64, rank: usize) -> Result<usize, String> {
    resolve_axis(axis, rank + lead)?.checked_sub(lead).ok_or_else(|| {
        "works across the batch axis, which is not supported: images are independent".into()
    })
}

/// Converts several axes like [`inner_axis`]. Returns them ascending and refuses repetitions.
pub fn inner_axes(lead: usize, axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut inner =
        axes.iter().map(|&axis| inner_axis(lead, axis, rank)).collect::<Result<Vec<_>, _>>()?;
    inner.sort_unstable();
    inner.dedup();
    if inner.len() == axes.len() { Ok(inner) } else { Err("lists an axis twice".into()) }
}

/// Part of one axis that a slice keeps.
pub struct Cut {
    /// Axis, with the batch as axis 0.
    pub axis: usize,
    /// First index that is kept.
    pub start: usize,
    /// Number of indices that are kept.
    pub count: usize,
    /// Distance from one kept index to the next; not zero.
    pub step: isize,
}

/// Returns the parts of a tensor of shape `dims` that a `Slice` node keeps.
pub fn slices(importer: &Importer, node: &Node<'_>, dims: &[usize]) -> Result<Vec<Cut>, String> {
    let list = |index: usize, name: &str| -> Result<Option<Vec<i64>>, String> {
        if node.opset < 10 {
            return Ok(node.ints(name)?.map(<[i64]>::to_vec));
        }
        importer.optional_tensor(node, index)?.map(|tensor| tensor.known()).transpose()
    };
    let starts = list(1, "starts")?.ok_or("has no starts")?;
    let ends = list(2, "ends")?.ok_or("has no ends")?;
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if starts.len() > dims.len()
        || [ends.len(), axes.len(), steps.len()].iter().any(|&len| len != starts.len())
    {
        return Err("its starts, ends, axes and steps do not fit together".into());
    }
    let mut cuts: Vec<Cut> = Vec::new();
    for index in 0..starts.len() {
        let axis = resolve_axis(axes[index], dims.len())?;
        if cuts.iter().any(|cut| cut.axis == axis) {
            return Err("lists an axis twice".into());
        }
        let extent = i64::try_from(dims[axis]).map_err(|_| "is too large")?;
        let step = steps[index];
        let from = |bound: i64| if bound < 0 { bound.saturating_add(extent) } else { bound };
        let (start, count) = if step > 0 {
            let (start, end) =
                (from(starts[index]).clamp(0, extent), from(ends[index]).clamp(0, extent));
            (start, (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
        } else if step < 0 {
            let last = (extent - 1).max(0);
            let (start, end) =
                (from(starts[index]).clamp(0, last), from(ends[index]).clamp(-1, last));
            (start, (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
        } else {
            return Err("has a step of 0".into());
        };
        let count = if extent == 0 { 0 } else { count as usize };
        // A step beyond the axis is never taken; clamping it keeps later arithmetic in range.
        let step = step.clamp(-extent.max(1), extent.max(1)) as isize;
        cuts.push(Cut { axis, start: start as usize, count, step });
    }
    Ok(cuts)
}
