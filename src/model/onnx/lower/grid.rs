//! Lowering of `GridSample` to a step of a plan.

use paretune_kernels::plan::tensor::{Border, Interpolation, TensorOperator};

use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::Node;

/// Lowers `GridSample` over two spatial axes.
pub fn sample(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let image = importer.value_of(node, 0)?;
    let grid = importer.value_of(node, 1)?;
    importer.image(image)?;
    let mode = match node.text("mode")?.as_deref() {
        None | Some("bilinear" | "linear") => Interpolation::Linear,
        Some("nearest") => Interpolation::Nearest,
        Some("bicubic" | "cubic") => Interpolation::Cubic,
        Some(other) => return Err(format!("its mode `{other}` does not exist")),
    };
    let border = match node.text("padding_mode")?.as_deref() {
        None | Some("zeros") => Border::Zeros,
        Some("border") => Border::Edge,
        Some("reflection") => Border::Mirror,
        Some(other) => return Err(format!("its padding_mode `{other}` does not exist")),
    };
    let align_corners = node.flag("align_corners", false)?;
    let operator = TensorOperator::GridSample { mode, border, align_corners };
    importer.apply("", operator, vec![image, grid]).map(one)
}
