//! Export of steps as nodes.

use paretune_kernels::operator::{Conv, Operator, Window};
use paretune_kernels::plan::tensor::TensorOperator;
use paretune_kernels::{Activation, Step};

use super::attributes::{float, int, ints, window};
use super::writer::Writer;

impl Writer<'_> {
    /// Adds a step. `rounded` tells which of its inputs it reads rounded to 8 bits.
    pub(super) fn step(&mut self, step: &Step, rounded: &[bool]) -> Result<(), String> {
        let output = self.value(step.output);
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for (&id, &rounded) in step.inputs.iter().zip(rounded) {
            inputs.push(if rounded { self.dequantized(id)? } else { self.value(id) });
        }
        let name = step.name.clone();
        let simple =
            |operator: &str, attributes| (operator.to_string(), inputs.clone(), attributes);
        let (operator, inputs, attributes) = match &step.operator {
            Operator::Conv(conv) => return self.conv(step, conv, inputs),
            Operator::Constant { constant } => {
                let dims = self.dims(step.output).to_vec();
                let values = self.plan.constants[*constant].clone();
                let broadcasts = self.plan.steps.iter().all(|reader| {
                    !reader.inputs.contains(&step.output) || broadcasts(&reader.operator)
                });
                if broadcasts && step.output != self.plan.output {
                    self.floats(output, &dims, &values);
                } else {
                    self.repeated(name, &dims, &values, output);
                }
                return Ok(());
            }
            Operator::Add(activation) => return self.binary(step, "Add", *activation, inputs),
            Operator::Mul(activation) => return self.binary(step, "Mul", *activation, inputs),
            Operator::ScaleShift { scale, shift, activation } => {
                let mut dims = vec![1; self.dims(step.output).len()];
                dims[0] = self.dims(step.output)[0];
                let (scale, shift) =
                    (self.plan.constants[*scale].clone(), self.plan.constants[*shift].clone());
                let scale = self.floats(format!("{name}:scale"), &dims, &scale);
                let shift = self.floats(format!("{name}:shift"), &dims, &shift);
                let scaled = format!("{name}:scaled");
                self.node(
                    "Mul",
                    format!("{name}/Mul"),
                    vec![inputs[0].clone(), scale],
                    scaled.clone(),
                    vec![],
                );
                let sum = self.before(step, *activation, "sum");
                self.node("Add", format!("{name}/Add"), vec![scaled, shift], sum.clone(), vec![]);
                self.activate(step, *activation, sum);
                return Ok(());
            }
            Operator::Activation(Activation::Identity) => simple("Identity", vec![]),
            Operator::Activation(activation) => {
                self.activate(step, *activation, inputs[0].clone());
                return Ok(());
            }
            Operator::MaxPool { window: w, ceil } => {
                let mut attributes = window(w);
                attributes.push(int("ceil_mode", usize::from(*ceil)));
                simple("MaxPool", attributes)
            }
            Operator::AveragePool { window: w, ceil, include_padding } => {
                let mut attributes = window(w);
                attributes.push(int("ceil_mode", usize::from(*ceil)));
                attributes.push(int("count_include_pad", usize::from(*include_padding)));
                simple("AveragePool", attributes)
            }
            Operator::GlobalAveragePool => simple("GlobalAveragePool", vec![]),
            Operator::ReduceMean { axes } => {
                let axes = self.integers(axes.iter().map(|&axis| axis as i64 + 1));
                ("ReduceMean".into(), vec![inputs[0].clone(), axes], vec![int("keepdims", 1)])
            }
            Operator::Concat { axis } => simple("Concat", vec![int("axis", axis + 1)]),
            Operator::Softmax { axis } => simple("Softmax", vec![int("axis", axis + 1)]),
            Operator::Transpose { permutation } => {
                let order: Vec<usize> =
                    std::iter::once(0).chain(permutation.iter().map(|axis| axis + 1)).collect();
                simple("Transpose", vec![ints("perm", &order)])
            }
            Operator::Pad { padding, value } => {
                let side = |side: usize| {
                    std::iter::once(0).chain(padding.iter().map(move |pair| pair[side] as i64))
                };
                let amounts = self.integers(side(0).chain(side(1)));
                let value = self.scalar(*value);
                ("Pad".into(), vec![inputs[0].clone(), amounts, value], vec![])
            }
            Operator::Reshape => {
                let dims = self.dims(step.output).to_vec();
                self.reshape(name, inputs[0].clone(), &dims, output);
                return Ok(());
            }
            Operator::Lrn { size, alpha, beta, bias } => simple(
                "LRN",
                vec![
                    int("size", *size),
                    float("alpha", *alpha),
                    float("beta", *beta),
                    float("bias", *bias),
                ],
            ),
            Operator::Tensor(operator) => return self.general(step, operator, inputs),
        };
        self.node(&operator, name, inputs, output, attributes);
        Ok(())
    }

    /// Adds a constant as a value of every image.
    fn repeated(&mut self, name: String, dims: &[usize], values: &[f32], output: String) {
        let constant = self.floats(format!("{name}:constant"), dims, values);
        let batch = format!("{name}:batch");
        let ends = vec![int("start", 0), int("end", 1)];
        self.node("Shape", format!("{name}/Shape"), vec!["input".into()], batch.clone(), ends);
        let rest = self.integers(dims.iter().map(|&dim| dim as i64));
        let shape = format!("{name}:shape");
        let axis = vec![int("axis", 0)];
        self.node("Concat", format!("{name}/Concat"), vec![batch, rest], shape.clone(), axis);
        self.node("Expand", name, vec![constant, shape], output, vec![]);
    }

    /// Returns the name of the value before `activation`, which is the step's output for the
    /// identity.
    fn before(&self, step: &Step, activation: Activation, part: &str) -> String {
        if activation == Activation::Identity {
            self.value(step.output)
        } else {
            format!("{}:{part}", step.name)
        }
    }

    /// Adds the activation that ends a step, unless it is the identity.
    fn activate(&mut self, step: &Step, activation: Activation, from: String) {
        let (operator, inputs, attributes) = match activation {
            Activation::Identity => return,
            Activation::Relu => ("Relu", vec![from], vec![]),
            Activation::Clip { low, high } => {
                let bounds = [self.scalar(low), self.scalar(high)];
                ("Clip", std::iter::once(from).chain(bounds).collect(), vec![])
            }
            Activation::LeakyRelu { slope } => {
                ("LeakyRelu", vec![from], vec![float("alpha", slope)])
            }
            Activation::Sigmoid => ("Sigmoid", vec![from], vec![]),
            Activation::HardSigmoid { alpha, beta } => {
                ("HardSigmoid", vec![from], vec![float("alpha", alpha), float("beta", beta)])
            }
            Activation::HardSwish => ("HardSwish", vec![from], vec![]),
        };
        let output = self.value(step.output);
        self.node(operator, format!("{}/{operator}", step.name), inputs, output, attributes);
    }

    fn binary(
        &mut self,
        step: &Step,
        operator: &str,
        activation: Activation,
        mut inputs: Vec<String>,
    ) -> Result<(), String> {
        self.align(step, &mut inputs);
        let result = self.before(step, activation, "result");
        self.node(operator, format!("{}/{operator}", step.name), inputs, result.clone(), vec![]);
        self.activate(step, activation, result);
        Ok(())
    }

    /// Gives all inputs of a broadcasting step the rank of its output.
    pub(super) fn align(&mut self, step: &Step, inputs: &mut [String]) {
        let rank = self.dims(step.output).len();
        for (index, (&id, name)) in step.inputs.iter().zip(inputs).enumerate() {
            let dims = self.dims(id).to_vec();
            let constant = self.plan.steps.iter().any(|other| {
                other.output == id && matches!(other.operator, Operator::Constant { .. })
            });
            // Broadcasting aligns the last axes; a lower rank would align the batch with another
            // axis.
            if dims.len() < rank && !constant {
                let wide: Vec<usize> =
                    std::iter::repeat_n(1, rank - dims.len()).chain(dims).collect();
                *name = self.reshape(
                    format!("{}/Reshape{index}", step.name),
                    name.clone(),
                    &wide,
                    format!("{}:wide{index}", step.name),
                );
            }
        }
    }

    fn conv(&mut self, step: &Step, conv: &Conv, mut inputs: Vec<String>) -> Result<(), String> {
        let plan = self.plan;
        let name = &step.name;
        let weights = &plan.weights[conv.weights];
        let residual = (inputs.len() > 1).then(|| inputs.swap_remove(1));
        let dense = conv.groups == 1
            && conv.window == Window::POINT
            && (self.dims(step.inputs[0]).len() == 1 || self.dims(step.output).len() == 1);
        let dims = if dense { &weights.dims[..2] } else { &weights.dims[..] };
        // A matrix product works on [batch, features], a convolution on [batch, channels, height,
        // width].
        let (input_dims, output_dims) =
            (self.dims(step.inputs[0]).to_vec(), self.dims(step.output).to_vec());
        let input_rank = if dense { 1 } else { 3 };
        if input_dims.len() != input_rank {
            let mut wanted = vec![input_dims.iter().product()];
            wanted.resize(input_rank, 1);
            inputs[0] = self.reshape(
                format!("{name}/Reshape"),
                inputs[0].clone(),
                &wanted,
                format!("{name}:shaped"),
            );
        }
        inputs.push(self.weights(name, dims, weights));
        inputs.extend(self.bias(name, weights, plan.values[step.inputs[0]].quantization));
        let reshaped = output_dims.len() != input_rank;
        let last = residual.is_none() && conv.activation == Activation::Identity && !reshaped;
        let mut result = if last { self.value(step.output) } else { format!("{name}:product") };
        if dense {
            self.node(
                "Gemm",
                format!("{name}/Gemm"),
                inputs,
                result.clone(),
                vec![int("transB", 1)],
            );
        } else {
            let mut attributes = window(&conv.window);
            attributes.push(int("group", conv.groups));
            self.node("Conv", format!("{name}/Conv"), inputs, result.clone(), attributes);
        }
        if reshaped {
            let last = residual.is_none() && conv.activation == Activation::Identity;
            let output = if last { self.value(step.output) } else { format!("{name}:unshaped") };
            result = self.reshape(format!("{name}/Unshape"), result, &output_dims, output);
        }
        if let Some(residual) = residual {
            let sum = self.before(step, conv.activation, "sum");
            self.node("Add", format!("{name}/Add"), vec![result, residual], sum.clone(), vec![]);
            result = sum;
        }
        self.activate(step, conv.activation, result);
        Ok(())
    }
}

/// Whether ONNX broadcasts the inputs of an operator, so that a constant needs no batch.
fn broadcasts(operator: &Operator) -> bool {
    match operator {
        Operator::Add(_) | Operator::Mul(_) => true,
        Operator::Tensor(operator) => matches!(
            operator,
            TensorOperator::Binary(_) | TensorOperator::Choose | TensorOperator::MatMul
        ),
        _ => false,
    }
}
