//! Lowers operators over values of any shape, see [`TensorOperator`].

use super::lower::Lowering;
use paretune_base::error::KernelError;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::layout::Layout;
use paretune_base::plan::tensor::TensorOperator;
use paretune_base::plan::{Step, ValueId};
use paretune_cpu::operators::binary::Function;
use paretune_cpu::operators::{
    choose, grid_sample, matmul, normalize, rank, reduce, select, unary,
};

impl Lowering<'_, '_> {
    /// Adds a step of a general operator, whose first input is `input`.
    pub(super) fn tensor(
        &mut self,
        step: &Step,
        operator: &TensorOperator,
        input: ValueId,
    ) -> Result<(), KernelError> {
        let context = self.builder.context;
        let dims = self.dims(input);
        let layout = self.layout(step);
        let planar = Layout::Nchw;
        match operator {
            TensorOperator::Unary(function) => {
                let layout = self.any_layout(step);
                let kernel = unary::prepare(context, self.builder.len(input), *function);
                self.simple(step, operator.name(), layout, layout, true, kernel)
            }
            TensorOperator::Binary(function) => {
                self.binary(step, Function::Other(*function), Activation::Identity)
            }
            TensorOperator::Choose => {
                let operands = [0, 1, 2].map(|index| self.dims(step.inputs[index]));
                let kernel = choose::prepare(context, operands, self.dims(step.output));
                self.simple(step, operator.name(), planar, planar, false, kernel)
            }
            TensorOperator::Reduce { kind, axes } => {
                let kernel = reduce::prepare(context, dims, *kind, axes, layout);
                self.simple(step, operator.name(), layout, layout, false, kernel)
            }
            TensorOperator::Select { axis, picks } => {
                let kernel = select::prepare(context, dims, *axis, picks, layout);
                self.simple(step, operator.name(), layout, layout, false, kernel)
            }
            TensorOperator::Resample { axis, taps, indices, weights } => {
                let kernel =
                    select::resample(context, dims, *axis, *taps, indices, weights, layout);
                self.simple(step, operator.name(), layout, layout, false, kernel)
            }
            TensorOperator::Normalize { axes, center, epsilon } => {
                // Axes that are not adjacent in this layout are adjacent in row-major order.
                let (size, layout) = normalize::around(context.batch, dims, *axes, layout)
                    .map(|size| (size, layout))
                    .or_else(|| {
                        Some((normalize::around(context.batch, dims, *axes, planar)?, planar))
                    })
                    .ok_or_else(|| KernelError::plan(&step.name, "normalizes scattered axes"))?;
                let kernel = normalize::prepare(context, size, *center, *epsilon);
                self.simple(step, operator.name(), layout, layout, false, kernel)
            }
            TensorOperator::MatMul => {
                let b = self.dims(step.inputs[1]);
                let kernel = matmul::prepare(context, dims, b, self.dims(step.output));
                self.simple(step, operator.name(), planar, planar, false, kernel)
            }
            &TensorOperator::Rank { axis, count, largest, positions } => {
                let attributes = rank::Attributes { axis, count, largest, positions };
                let kernel = rank::prepare(context, dims, layout, attributes);
                self.simple(step, operator.name(), layout, layout, false, kernel)
            }
            &TensorOperator::GridSample { mode, border, align_corners } => {
                let attributes = grid_sample::Attributes { mode, border, align_corners };
                // Validation has checked both shapes.
                let out = self.dims(step.output);
                let image = [dims[0], dims[1], dims[2]];
                let kernel = grid_sample::prepare(context, image, [out[1], out[2]], attributes);
                self.simple(step, operator.name(), planar, planar, false, kernel)
            }
        }
    }
}
