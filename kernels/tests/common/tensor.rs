//! Draws general operators over values of any shape.

use paretune_kernels::ValueId;
use paretune_kernels::plan::tensor::{
    Binary, Border, Interpolation, Picks, Reduction, TensorOperator, Unary,
};
use rand::RngExt;

use super::Generator;

impl Generator {
    /// Returns an operator for a first input of shape `dims`, and adds its other inputs.
    pub(super) fn tensor(
        &mut self,
        dims: &[usize],
        inputs: &mut Vec<ValueId>,
    ) -> Option<TensorOperator> {
        if dims.is_empty() {
            return None;
        }
        let axis = self.rng.random_range(0..dims.len());
        let size = dims[axis];
        Some(match self.rng.random_range(0..12) {
            0..=2 => TensorOperator::Unary(self.unary()),
            3 => {
                inputs.push(self.partner(dims));
                let functions = [Binary::Subtract, Binary::Maximum, Binary::Minimum, Binary::PRelu];
                TensorOperator::Binary(functions[self.rng.random_range(0..functions.len())])
            }
            4 => {
                inputs.push(self.partner(dims));
                inputs.push(self.partner(dims));
                TensorOperator::Choose
            }
            5 => {
                let kinds = [
                    Reduction::Sum,
                    Reduction::Mean,
                    Reduction::Maximum,
                    Reduction::Minimum,
                    Reduction::L1,
                    Reduction::L2,
                    Reduction::SumOfSquares,
                    Reduction::LogSumExp,
                ];
                let kind = kinds[self.rng.random_range(0..kinds.len())];
                let axes = (0..dims.len()).filter(|_| self.rng.random_bool(0.5)).collect();
                TensorOperator::Reduce { kind, axes }
            }
            6 => TensorOperator::Select { axis, picks: self.picks(size) },
            7 => {
                let (taps, count) = (self.rng.random_range(1..4), self.rng.random_range(1..8));
                let mut indices = Vec::new();
                let mut weights = Vec::new();
                for _ in 0..taps * count {
                    indices.push(self.rng.random_range(0..size) as u32);
                    weights.push(self.rng.random_range(-0.6..0.6));
                }
                TensorOperator::Resample { axis, taps, indices, weights }
            }
            8 => {
                let last = self.rng.random_range(axis..dims.len());
                let center = self.rng.random();
                TensorOperator::Normalize { axes: [axis, last], center, epsilon: 0.1 }
            }
            9 => {
                let [.., m, k] = dims else { return None };
                let other = self.pick();
                match self.plan.values[other].dims[..] {
                    [.., l, _] if l == *k => inputs.push(other),
                    // Every matrix can be multiplied by its own transpose's shape.
                    _ => {
                        let constant = self.constant(k * m);
                        let output = self.value(vec![*k, *m]);
                        self.plan.steps.push(paretune_kernels::Step {
                            name: format!("matrix{output}"),
                            operator: paretune_kernels::operator::Operator::Constant { constant },
                            inputs: vec![],
                            output,
                        });
                        inputs.push(output);
                    }
                }
                TensorOperator::MatMul
            }
            10 => TensorOperator::Rank {
                axis,
                count: self.rng.random_range(1..=size),
                largest: self.rng.random(),
                positions: false,
            },
            _ => {
                let &[_, _, _] = dims else { return None };
                let (height, width) = (self.rng.random_range(1..6), self.rng.random_range(1..6));
                let constant = self.constant(height * width * 2);
                let output = self.value(vec![height, width, 2]);
                self.plan.steps.push(paretune_kernels::Step {
                    name: format!("places{output}"),
                    operator: paretune_kernels::operator::Operator::Constant { constant },
                    inputs: vec![],
                    output,
                });
                inputs.push(output);
                let modes = [Interpolation::Linear, Interpolation::Cubic];
                let borders = [Border::Zeros, Border::Edge, Border::Mirror];
                TensorOperator::GridSample {
                    mode: modes[self.rng.random_range(0..2)],
                    border: borders[self.rng.random_range(0..3)],
                    align_corners: self.rng.random(),
                }
            }
        })
    }

    /// Returns a continuous function that is defined for all numbers: near a jump, a difference of
    /// rounding would look like an error.
    fn unary(&mut self) -> Unary {
        let functions = [
            Unary::Abs,
            Unary::Negate,
            Unary::Erf,
            Unary::Tanh,
            Unary::Sin,
            Unary::Cos,
            Unary::Gelu,
            Unary::GeluTanh,
            Unary::Swish { alpha: 1.0 },
            Unary::Swish { alpha: 0.7 },
            Unary::Softplus,
            Unary::Softsign,
            Unary::Mish,
            Unary::Elu { alpha: 0.7, scale: 1.1, width: 1.3 },
            Unary::Elu { alpha: 1.0, scale: 1.0, width: 1.0 },
            Unary::Shrink { bias: 0.3, bound: 0.3 },
        ];
        functions[self.rng.random_range(0..functions.len())]
    }

    fn picks(&mut self, size: usize) -> Picks {
        if self.rng.random() {
            let start = self.rng.random_range(0..size);
            let step = self.rng.random_range(1..4);
            let back = self.rng.random();
            let room = if back { start } else { size - 1 - start };
            let count = self.rng.random_range(1..=room / step + 1);
            let step = i64::try_from(step).unwrap();
            return Picks::Range { start, step: if back { -step } else { step }, count };
        }
        let count = self.rng.random_range(1..8);
        let list = (0..count).map(|_| {
            if self.rng.random_bool(0.2) {
                Picks::NONE
            } else {
                self.rng.random_range(0..size) as u32
            }
        });
        Picks::List(list.collect())
    }
}
