//! Forward and backward pass of a batch of images through a plan.

use paretune_kernels::operator::{Conv, Operator};
use paretune_kernels::{Activation, Plan, Step, ValueId, ValueSpec};

use super::parameters::Parameters;
use super::{conv, movement, pointwise};

/// Gradient that flows back through one reading convolution.
pub(super) struct ConvGradient<'a> {
    /// Convolution that reads the value.
    pub(super) step: &'a Step,
    /// Value that it reads, `[channel][image][position]`.
    pub(super) value: &'a [f32],
    /// Gradient of the error with respect to the value, through this convolution alone.
    pub(super) gradient: &'a [f32],
}

/// Forward pass of a batch of images, recorded for the backward pass.
pub(super) struct Tape<'p> {
    plan: &'p Plan,
    images: usize,
    /// Computed data of each value of the plan.
    values: Vec<Vec<f32>>,
    /// By step: the argument of an activation whose derivative does not follow from its result.
    before: Vec<Vec<f32>>,
    /// Whether values are rounded to their 8-bit grids.
    grids: bool,
}

impl<'p> Tape<'p> {
    /// Runs a batch of normalized images, one after another in `input`.
    ///
    /// With `grids`, values are rounded and clipped to the 8-bit grids of the plan. The backward
    /// pass treats rounding as the identity (the straight-through estimator, Bengio et al. 2013).
    pub(super) fn forward(
        plan: &'p Plan,
        parameters: &Parameters,
        input: &[f32],
        grids: bool,
    ) -> Self {
        let len = plan.values[plan.input].len().max(1);
        let images = input.len() / len;
        let mut this = Self {
            plan,
            images,
            values: vec![Vec::new(); plan.values.len()],
            before: vec![Vec::new(); plan.steps.len()],
            grids,
        };
        this.put(plan.input, movement::interleave(&plan.values[plan.input].dims, images, input));
        for (index, step) in plan.steps.iter().enumerate() {
            let (output, before) = this.step(step, parameters);
            this.before[index] = before;
            this.put(step.output, output);
        }
        this
    }

    /// Returns the network's output, images one after another.
    pub(super) fn output(&self) -> Vec<f32> {
        let spec = &self.plan.values[self.plan.output];
        movement::separate(&spec.dims, self.images, &self.values[self.plan.output])
    }

    /// Returns the data of a value, `[channel][image][position]`.
    pub(super) fn value(&self, value: ValueId) -> &[f32] {
        &self.values[value]
    }

    fn put(&mut self, value: ValueId, mut data: Vec<f32>) {
        if self.grids
            && let Some(grid) = self.plan.values[value].quantization
        {
            let zero = f32::from(grid.zero_point);
            data.iter_mut().for_each(|x| {
                *x = ((*x / grid.scale).round() + zero).clamp(0.0, 255.0).mul_add(1.0, -zero)
                    * grid.scale
            });
        }
        self.values[value] = data;
    }

    fn spec(&self, value: ValueId) -> &'p ValueSpec {
        &self.plan.values[value]
    }

    fn shape(&self, step: &Step, conv: &Conv) -> conv::Shape {
        let [input, output] = [step.inputs[0], step.output].map(|value| {
            let dims = &self.spec(value).dims;
            let at = |axis: usize| dims.get(axis).copied().unwrap_or(1);
            [at(0), at(1), at(2)]
        });
        conv::Shape {
            images: self.images,
            in_channels: input[0],
            out_channels: output[0],
            groups: conv.groups,
            input: [input[1], input[2]],
            output: [output[1], output[2]],
            window: conv.window,
        }
    }

    /// Computes the result of a step, with the argument of its activation if that must be recorded.
    fn step(&self, step: &Step, parameters: &Parameters) -> (Vec<f32>, Vec<f32>) {
        let input = |index: usize| self.values[step.inputs[index]].as_slice();
        let dims = |index: usize| self.spec(step.inputs[index]).dims.as_slice();
        let out = self.spec(step.output);
        let finish = |mut data: Vec<f32>, activation: Activation| {
            let before =
                if pointwise::needs_before(activation) { data.clone() } else { Vec::new() };
            pointwise::activate(activation, &mut data);
            (data, before)
        };
        let plain = |data: Vec<f32>| (data, Vec::new());
        match &step.operator {
            Operator::Conv(conv) => {
                let shape = self.shape(step, conv);
                let (weights, bias) =
                    (&parameters.weights[conv.weights], &parameters.biases[conv.weights]);
                let mut result = conv::forward(&shape, input(0), weights, bias);
                if step.inputs.len() > 1 {
                    result.iter_mut().zip(input(1)).for_each(|(x, residual)| *x += residual);
                }
                finish(result, conv.activation)
            }
            Operator::Add(activation) | Operator::Mul(activation) => {
                let product = matches!(step.operator, Operator::Mul(_));
                let [left, right] =
                    [0, 1].map(|index| pointwise::spread(dims(index), &out.dims, self.images));
                let (a, b) = (input(0), input(1));
                let pairs =
                    (0..out.len() * self.images).map(|at| (a[left.at(at)], b[right.at(at)]));
                let result = if product {
                    pairs.map(|(a, b)| a * b).collect()
                } else {
                    pairs.map(|(a, b)| a + b).collect()
                };
                finish(result, *activation)
            }
            Operator::Activation(activation) => finish(input(0).to_vec(), *activation),
            Operator::ScaleShift { scale, shift, activation } => {
                let (scale, shift) = (&self.plan.constants[*scale], &self.plan.constants[*shift]);
                let mut result = input(0).to_vec();
                let row = (result.len() / scale.len().max(1)).max(1);
                for (row, (scale, shift)) in
                    result.chunks_mut(row).zip(scale.iter().zip(shift.iter()))
                {
                    row.iter_mut().for_each(|x| *x = *x * scale + shift);
                }
                finish(result, *activation)
            }
            Operator::Constant { constant } => {
                let all = self.plan.constants[*constant].repeat(self.images);
                plain(movement::interleave(&out.dims, self.images, &all))
            }
            Operator::Concat { axis: 0 } => {
                plain(step.inputs.iter().flat_map(|&value| &self.values[value]).copied().collect())
            }
            Operator::GlobalAveragePool
            | Operator::ReduceMean { .. }
            | Operator::AveragePool { .. } => {
                let terms = movement::means(&step.operator, dims(0), &out.dims);
                plain(terms.forward(input(0), self.images, dims(0), &out.dims))
            }
            Operator::Softmax { axis } => {
                plain(pointwise::softmax(&out.dims, *axis, self.images, input(0)))
            }
            Operator::MaxPool { window, ceil: _ } => {
                let chosen = movement::largest(window, dims(0), &out.dims, self.images, input(0));
                plain(chosen.iter().map(|&at| input(0)[at as usize]).collect())
            }
            operator => {
                let inputs: Vec<&[usize]> = (0..step.inputs.len()).map(dims).collect();
                let sources = movement::sources(operator, &inputs, &out.dims);
                let data: Vec<&[f32]> = (0..step.inputs.len()).map(input).collect();
                plain(sources.forward(&data, &inputs, &out.dims, self.images))
            }
        }
    }

    /// Propagates the gradient of the error with respect to the network's output (images one after
    /// another) back to all weights.
    ///
    /// Gradients of the parameters are added to `gradients`, if given. Gradients with respect to
    /// other values, `inner`, are added on the way. `visit` is called for every value that a
    /// convolution reads.
    pub(super) fn backward(
        &self,
        parameters: &Parameters,
        output_gradient: &[f32],
        inner: impl IntoIterator<Item = (ValueId, Vec<f32>)>,
        mut gradients: Option<&mut Parameters>,
        visit: &mut dyn FnMut(&ConvGradient<'_>),
    ) {
        let plan = self.plan;
        let mut value_gradients: Vec<Option<Vec<f32>>> = vec![None; plan.values.len()];
        value_gradients[plan.output] =
            Some(movement::interleave(&self.spec(plan.output).dims, self.images, output_gradient));
        inner.into_iter().for_each(|(value, gradient)| value_gradients[value] = Some(gradient));
        for (index, step) in plan.steps.iter().enumerate().rev() {
            let Some(mut gradient) = value_gradients[step.output].take() else { continue };
            self.through_grid(step.output, &mut gradient);
            for (input, part) in
                self.step_back(index, step, parameters, gradient, &mut gradients, visit)
            {
                match &mut value_gradients[input] {
                    Some(sum) => sum.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part),
                    none => *none = Some(part),
                }
            }
        }
    }

    /// Clears the gradient of clipped numbers, because they do not depend on their arguments.
    /// Numbers at the ends of the grid count as clipped.
    fn through_grid(&self, value: ValueId, gradient: &mut [f32]) {
        let Some(grid) = self.spec(value).quantization.filter(|_| self.grids) else { return };
        let low = -f32::from(grid.zero_point) * grid.scale;
        let high = (255.0 - f32::from(grid.zero_point)) * grid.scale;
        let margin = 0.25 * grid.scale;
        for (gradient, &x) in gradient.iter_mut().zip(&self.values[value]) {
            // At zero the activation before has clipped already, if anything has.
            if x > high - margin || (grid.zero_point > 0 && x < low + margin) {
                *gradient = 0.0;
            }
        }
    }

    fn step_back(
        &self,
        index: usize,
        step: &Step,
        parameters: &Parameters,
        mut gradient: Vec<f32>,
        gradients: &mut Option<&mut Parameters>,
        visit: &mut dyn FnMut(&ConvGradient<'_>),
    ) -> Vec<(ValueId, Vec<f32>)> {
        let input = |index: usize| self.values[step.inputs[index]].as_slice();
        let dims = |index: usize| self.spec(step.inputs[index]).dims.as_slice();
        let out = self.spec(step.output);
        let undo = |gradient: &mut [f32], activation: Activation| {
            pointwise::activate_back(
                activation,
                &self.values[step.output],
                &self.before[index],
                gradient,
            );
        };
        match &step.operator {
            Operator::Conv(conv) => {
                undo(&mut gradient, conv.activation);
                let shape = self.shape(step, conv);
                let parameter_gradients = gradients.as_mut().map(|gradients| {
                    let Parameters { weights, biases } = &mut **gradients;
                    (weights[conv.weights].as_mut_slice(), biases[conv.weights].as_mut_slice())
                });
                let weights = &parameters.weights[conv.weights];
                let back = conv::backward(
                    &shape,
                    input(0),
                    weights,
                    &gradient,
                    parameter_gradients,
                    step.inputs[0] != self.plan.input,
                );
                let mut parts = Vec::with_capacity(2);
                if step.inputs[0] != self.plan.input {
                    visit(&ConvGradient { step, value: input(0), gradient: &back });
                    parts.push((step.inputs[0], back));
                }
                if let Some(&residual) = step.inputs.get(1) {
                    parts.push((residual, gradient));
                }
                parts
            }
            Operator::Add(activation) | Operator::Mul(activation) => {
                undo(&mut gradient, *activation);
                let product = matches!(step.operator, Operator::Mul(_));
                let spreads =
                    [0, 1].map(|index| pointwise::spread(dims(index), &out.dims, self.images));
                let part = |own: usize| {
                    let mut part = vec![0.0; input(own).len()];
                    let (spread, other) = (&spreads[own], &spreads[1 - own]);
                    for (at, gradient) in gradient.iter().enumerate() {
                        let factor = if product { input(1 - own)[other.at(at)] } else { 1.0 };
                        part[spread.at(at)] += factor * gradient;
                    }
                    (step.inputs[own], part)
                };
                vec![part(0), part(1)]
            }
            Operator::Activation(activation) => {
                undo(&mut gradient, *activation);
                vec![(step.inputs[0], gradient)]
            }
            Operator::ScaleShift { scale, activation, .. } => {
                undo(&mut gradient, *activation);
                let scale = &self.plan.constants[*scale];
                let row = (gradient.len() / scale.len().max(1)).max(1);
                for (row, scale) in gradient.chunks_mut(row).zip(scale.iter()) {
                    row.iter_mut().for_each(|x| *x *= scale);
                }
                vec![(step.inputs[0], gradient)]
            }
            Operator::Constant { .. } => Vec::new(),
            Operator::Concat { axis: 0 } => {
                let mut rest = gradient.as_slice();
                let mut parts = Vec::with_capacity(step.inputs.len());
                for (index, &value) in step.inputs.iter().enumerate() {
                    let (part, after) = rest.split_at(input(index).len());
                    parts.push((value, part.to_vec()));
                    rest = after;
                }
                parts
            }
            Operator::GlobalAveragePool
            | Operator::ReduceMean { .. }
            | Operator::AveragePool { .. } => {
                let terms = movement::means(&step.operator, dims(0), &out.dims);
                vec![(step.inputs[0], terms.backward(&gradient, self.images, dims(0), &out.dims))]
            }
            Operator::Softmax { axis } => {
                let output = &self.values[step.output];
                vec![(
                    step.inputs[0],
                    pointwise::softmax_back(&out.dims, *axis, self.images, output, &gradient),
                )]
            }
            Operator::MaxPool { window, ceil: _ } => {
                let chosen = movement::largest(window, dims(0), &out.dims, self.images, input(0));
                let mut part = vec![0.0; input(0).len()];
                chosen
                    .iter()
                    .zip(&gradient)
                    .for_each(|(&at, gradient)| part[at as usize] += gradient);
                vec![(step.inputs[0], part)]
            }
            operator => {
                let inputs: Vec<&[usize]> = (0..step.inputs.len()).map(dims).collect();
                let sources = movement::sources(operator, &inputs, &out.dims);
                let parts = sources.backward(&gradient, &inputs, &out.dims, self.images);
                step.inputs.iter().copied().zip(parts).collect()
            }
        }
    }
}
