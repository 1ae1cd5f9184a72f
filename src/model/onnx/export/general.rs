//! Export of general operators, as single nodes where ONNX has them and as primitives elsewhere.

use paretune_kernels::Step;
use paretune_kernels::plan::tensor::{
    Binary, Border, Interpolation, Picks, Reduction, TensorOperator, Unary,
};

use super::attributes::{float, int, ints, signed, text};
use super::writer::Writer;
use crate::onnx::proto::AttributeProto;
use crate::onnx::proto::tensor_proto::DataType;

impl Writer<'_> {
    /// Adds a step of a general operator.
    pub(super) fn general(
        &mut self,
        step: &Step,
        operator: &TensorOperator,
        mut inputs: Vec<String>,
    ) -> Result<(), String> {
        let output = self.value(step.output);
        let rank = self.dims(step.output).len();
        let first = inputs.first().cloned().ok_or("has no input")?;
        match operator {
            TensorOperator::Unary(function) => self.unary(&step.name, *function, first, output),
            TensorOperator::Binary(function) => {
                self.align(step, &mut inputs);
                self.function_of_two(&step.name, *function, inputs, output);
            }
            TensorOperator::Choose => {
                self.align(step, &mut inputs);
                inputs[0] = self.cast(&step.name, "condition", &inputs[0], DataType::Bool);
                self.node("Where", step.name.clone(), inputs, output, vec![]);
            }
            TensorOperator::Reduce { kind, axes } => {
                let axes = self.integers(axes.iter().map(|&axis| axis as i64 + 1));
                let attributes = vec![int("keepdims", 1), int("noop_with_empty_axes", 1)];
                self.node(
                    reduction(*kind),
                    step.name.clone(),
                    vec![first, axes],
                    output,
                    attributes,
                );
            }
            TensorOperator::Select { axis, picks } => {
                self.select(step, *axis, picks, first, output);
            }
            TensorOperator::Resample { axis, taps, indices, weights } => {
                let size = self.dims(step.inputs[0])[*axis];
                let mut matrix = vec![0.0; size * (indices.len() / taps)];
                let columns = indices.len() / taps;
                for (entry, (&at, weight)) in indices.iter().zip(weights).enumerate() {
                    matrix[at as usize * columns + entry / taps] += weight;
                }
                let matrix =
                    self.floats(format!("{}:weights", step.name), &[size, columns], &matrix);
                let mut order: Vec<usize> = (0..=rank).collect();
                order.swap(axis + 1, rank);
                let last = axis + 1 == rank;
                let turned = if last {
                    first
                } else {
                    self.part(step, "Transpose", vec![first], vec![ints("perm", &order)])
                };
                if last {
                    let name = step.name.clone();
                    self.node("MatMul", name, vec![turned, matrix], output, vec![]);
                } else {
                    let product = self.part(step, "MatMul", vec![turned, matrix], vec![]);
                    let attributes = vec![ints("perm", &order)];
                    let name = format!("{}/Back", step.name);
                    self.node("Transpose", name, vec![product], output, attributes);
                }
            }
            TensorOperator::Normalize { axes: [start, end], center, epsilon } => {
                let axes = self.integers((*start..=*end).map(|axis| axis as i64 + 1));
                let keep = || vec![int("keepdims", 1)];
                let centered = if *center {
                    let mean =
                        self.part(step, "ReduceMean", vec![first.clone(), axes.clone()], keep());
                    self.part(step, "Sub", vec![first, mean], vec![])
                } else {
                    first
                };
                let squares =
                    self.part(step, "Mul", vec![centered.clone(), centered.clone()], vec![]);
                let variance = format!("{}:variance", step.name);
                let name = format!("{}/Variance", step.name);
                self.node("ReduceMean", name, vec![squares, axes], variance.clone(), keep());
                let epsilon = self.scalar(*epsilon);
                let sum = self.part(step, "Add", vec![variance, epsilon], vec![]);
                let root = self.part(step, "Sqrt", vec![sum], vec![]);
                self.node("Div", step.name.clone(), vec![centered, root], output, vec![]);
            }
            TensorOperator::MatMul => {
                self.align(step, &mut inputs);
                self.node("MatMul", step.name.clone(), inputs, output, vec![]);
            }
            TensorOperator::Rank { axis, count, largest, positions } => {
                let count = self.integers([*count as i64]);
                let attributes = vec![int("axis", axis + 1), int("largest", usize::from(*largest))];
                let name = format!("{}/TopK", step.name);
                let places = format!("{}:places", step.name);
                let values =
                    if *positions { format!("{}:values", step.name) } else { output.clone() };
                self.node("TopK", name, vec![first, count], values, attributes);
                if let Some(node) = self.graph.node.last_mut() {
                    node.output.push(places.clone());
                }
                if *positions {
                    let to = vec![int("to", DataType::Float as usize)];
                    self.node("Cast", step.name.clone(), vec![places], output, to);
                }
            }
            TensorOperator::GridSample { mode, border, align_corners } => {
                let mode = match mode {
                    Interpolation::Nearest => "nearest",
                    Interpolation::Linear => "bilinear",
                    Interpolation::Cubic => "bicubic",
                };
                let border = match border {
                    Border::Zeros => "zeros",
                    Border::Edge => "border",
                    Border::Mirror => "reflection",
                };
                let attributes = vec![
                    text("mode", mode),
                    text("padding_mode", border),
                    int("align_corners", usize::from(*align_corners)),
                ];
                self.node("GridSample", step.name.clone(), inputs, output, attributes);
            }
        }
        Ok(())
    }

    /// Adds a node of a step and returns the name of its output.
    fn part(
        &mut self,
        step: &Step,
        operator: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.piece(&step.name, operator, inputs, attributes)
    }

    fn piece(
        &mut self,
        step: &str,
        operator: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let count = self.graph.node.len();
        let output = format!("{step}:{}:{count}", operator.to_lowercase());
        self.node(
            operator,
            format!("{step}/{operator}_{count}"),
            inputs,
            output.clone(),
            attributes,
        );
        output
    }

    fn cast(&mut self, step: &str, part: &str, from: &str, to: DataType) -> String {
        let output = format!("{step}:{part}");
        let attributes = vec![int("to", to as usize)];
        let name = format!("{step}/Cast_{part}");
        self.node("Cast", name, vec![from.to_owned()], output.clone(), attributes);
        output
    }

    fn unary(&mut self, step: &str, function: Unary, input: String, output: String) {
        let name = step.to_owned();
        let plain = |operator: &'static str| (operator, vec![input.clone()], vec![]);
        let (operator, inputs, attributes) = match function {
            Unary::Abs => plain("Abs"),
            Unary::Negate => plain("Neg"),
            Unary::Exp => plain("Exp"),
            Unary::Log => plain("Log"),
            Unary::Sqrt => plain("Sqrt"),
            Unary::Reciprocal => plain("Reciprocal"),
            Unary::Erf => plain("Erf"),
            Unary::Tanh => plain("Tanh"),
            Unary::Sin => plain("Sin"),
            Unary::Cos => plain("Cos"),
            Unary::Floor => plain("Floor"),
            Unary::Ceil => plain("Ceil"),
            Unary::Round => plain("Round"),
            Unary::Sign => plain("Sign"),
            Unary::Softplus => plain("Softplus"),
            Unary::Softsign => plain("Softsign"),
            Unary::Mish => plain("Mish"),
            Unary::Truncate => {
                let size = self.piece(step, "Abs", vec![input.clone()], vec![]);
                let floor = self.piece(step, "Floor", vec![size], vec![]);
                let sign = self.piece(step, "Sign", vec![input], vec![]);
                ("Mul", vec![floor, sign], vec![])
            }
            Unary::Truth | Unary::Not | Unary::IsNan => {
                let mut truth = if function == Unary::IsNan {
                    self.piece(step, "IsNaN", vec![input], vec![])
                } else {
                    self.cast(step, "truth", &input, DataType::Bool)
                };
                if function == Unary::Not {
                    truth = self.piece(step, "Not", vec![truth], vec![]);
                }
                ("Cast", vec![truth], vec![int("to", DataType::Float as usize)])
            }
            Unary::Gelu => {
                let [root, one, half] =
                    [std::f32::consts::FRAC_1_SQRT_2, 1.0, 0.5].map(|value| self.scalar(value));
                let inner = self.piece(step, "Mul", vec![input.clone(), root], vec![]);
                let erf = self.piece(step, "Erf", vec![inner], vec![]);
                let sum = self.piece(step, "Add", vec![erf, one], vec![]);
                let product = self.piece(step, "Mul", vec![input, sum], vec![]);
                ("Mul", vec![product, half], vec![])
            }
            Unary::GeluTanh => {
                let [cubic, root, one, half, three] =
                    [0.044_715, 0.797_884_6, 1.0, 0.5, 3.0].map(|value| self.scalar(value));
                let cube = self.piece(step, "Pow", vec![input.clone(), three], vec![]);
                let scaled = self.piece(step, "Mul", vec![cube, cubic], vec![]);
                let inner = self.piece(step, "Add", vec![input.clone(), scaled], vec![]);
                let inner = self.piece(step, "Mul", vec![inner, root], vec![]);
                let tanh = self.piece(step, "Tanh", vec![inner], vec![]);
                let sum = self.piece(step, "Add", vec![tanh, one], vec![]);
                let product = self.piece(step, "Mul", vec![input, sum], vec![]);
                ("Mul", vec![product, half], vec![])
            }
            Unary::Swish { alpha } => {
                let factor = self.scalar(alpha);
                let inner = self.piece(step, "Mul", vec![input.clone(), factor], vec![]);
                let gate = self.piece(step, "Sigmoid", vec![inner], vec![]);
                ("Mul", vec![input, gate], vec![])
            }
            Unary::Elu { alpha, scale, width } => {
                // With u = x / width, the function is Selu of u.
                let factor = self.scalar(1.0 / width);
                let inner = self.piece(step, "Mul", vec![input, factor], vec![]);
                let attributes = vec![float("alpha", alpha / width), float("gamma", scale * width)];
                ("Selu", vec![inner], attributes)
            }
            Unary::Threshold { threshold } => {
                ("ThresholdedRelu", vec![input], vec![float("alpha", threshold)])
            }
            Unary::Shrink { bias, bound } => {
                ("Shrink", vec![input], vec![float("bias", bias), float("lambd", bound)])
            }
            Unary::Power { exponent } => {
                let exponent = self.scalar(exponent);
                ("Pow", vec![input, exponent], vec![])
            }
        };
        self.node(operator, name, inputs, output, attributes);
    }

    fn function_of_two(
        &mut self,
        step: &str,
        function: Binary,
        inputs: Vec<String>,
        output: String,
    ) {
        let name = step.to_owned();
        let plain = |operator: &'static str| (operator, vec![]);
        let (operator, attributes) = match function {
            Binary::Subtract => plain("Sub"),
            Binary::Divide => plain("Div"),
            Binary::Maximum => plain("Max"),
            Binary::Minimum => plain("Min"),
            Binary::Power => plain("Pow"),
            Binary::Remainder => ("Mod", vec![int("fmod", 1)]),
            Binary::PRelu => {
                let zero = self.scalar(0.0);
                let above = self.piece(step, "Relu", vec![inputs[0].clone()], vec![]);
                let below = self.piece(step, "Min", vec![inputs[0].clone(), zero], vec![]);
                let scaled = self.piece(step, "Mul", vec![below, inputs[1].clone()], vec![]);
                self.node("Add", name, vec![above, scaled], output, vec![]);
                return;
            }
            Binary::Less | Binary::LessOrEqual | Binary::Equal => {
                let operator = match function {
                    Binary::Less => "Less",
                    Binary::LessOrEqual => "LessOrEqual",
                    _ => "Equal",
                };
                let truth = self.piece(step, operator, inputs, vec![]);
                let to = vec![int("to", DataType::Float as usize)];
                self.node("Cast", name, vec![truth], output, to);
                return;
            }
            Binary::And | Binary::Or | Binary::Xor => {
                let operator = match function {
                    Binary::And => "And",
                    Binary::Or => "Or",
                    _ => "Xor",
                };
                let a = self.cast(step, "a", &inputs[0], DataType::Bool);
                let b = self.cast(step, "b", &inputs[1], DataType::Bool);
                let truth = self.piece(step, operator, vec![a, b], vec![]);
                let to = vec![int("to", DataType::Float as usize)];
                self.node("Cast", name, vec![truth], output, to);
                return;
            }
        };
        self.node(operator, name, inputs, output, attributes);
    }

    fn select(&mut self, step: &Step, axis: usize, picks: &Picks, input: String, output: String) {
        let name = step.name.clone();
        match picks {
            Picks::Range { start, step, count } => {
                let start = *start as i64;
                // An end before the first element is the smallest number.
                let end = start + step * *count as i64;
                let end = if end < 0 { i64::MIN } else { end };
                let bounds = [start, end, axis as i64 + 1, *step].map(|x| self.integers([x]));
                let inputs = std::iter::once(input).chain(bounds).collect();
                self.node("Slice", name, inputs, output, vec![]);
            }
            Picks::List(list) => {
                let size = self.dims(step.inputs[0])[axis];
                let mut from = input;
                if list.contains(&Picks::NONE) {
                    // Zeros come from one element behind the others.
                    let mut amounts = vec![0; 2 * (self.dims(step.inputs[0]).len() + 1)];
                    let place = amounts.len() / 2 + axis + 1;
                    amounts[place] = 1;
                    let amounts = self.integers(amounts);
                    from = self.part(step, "Pad", vec![from, amounts], vec![]);
                }
                let places = list
                    .iter()
                    .map(|&at| if at == Picks::NONE { size as i64 } else { i64::from(at) });
                let places = self.integers(places);
                let attributes = vec![signed("axis", axis as i64 + 1)];
                self.node("Gather", name, vec![from, places], output, attributes);
            }
        }
    }
}

fn reduction(kind: Reduction) -> &'static str {
    match kind {
        Reduction::Sum => "ReduceSum",
        Reduction::Mean => "ReduceMean",
        Reduction::Maximum => "ReduceMax",
        Reduction::Minimum => "ReduceMin",
        Reduction::Product => "ReduceProd",
        Reduction::L1 => "ReduceL1",
        Reduction::L2 => "ReduceL2",
        Reduction::SumOfSquares => "ReduceSumSquare",
        Reduction::LogSumExp => "ReduceLogSumExp",
    }
}
