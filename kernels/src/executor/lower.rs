//! Lowers a valid plan to a program builder: chooses the tensor format of each value and prepares
//! each kernel.
//!
//! Layouts follow the producer. A convolution's algorithm states its own layouts, and all other
//! steps work in the layout of their input. Conversions are inserted only between convolutions that
//! disagree, and at the caller's row-major inputs and outputs.

use super::ExecutorOptions;
use super::builder::{Buffer, BufferId, PendingStep, ProgramBuilder, Storage};
use super::formats::{Preference, grid_of, preferences, same_grid};
use super::resolve::{Resolved, resolve};
use super::work::Work;
use paretune_base::error::KernelError;
use paretune_base::execution::{Part, StepInfo};
use paretune_base::memory::block::Block;
use paretune_base::plan::layout::{Element, Layout};
use paretune_base::plan::operator::{Conv, Operator};
use paretune_base::plan::shape::conv_problem;
use paretune_base::plan::tensor::Reduction;
use paretune_base::plan::{Plan, Step, ValueId};
use paretune_cpu::conv::algorithm::Request;
use paretune_cpu::conv::support::packing::Packing;
use paretune_cpu::operators::binary;
use paretune_cpu::operators::binary::{Arithmetic, Function};
use paretune_cpu::operators::convert;
use paretune_cpu::operators::convert::TensorFormat;
use paretune_cpu::operators::pool;
use paretune_cpu::operators::pool::Pooling;
use paretune_cpu::operators::{
    Context, OperatorKernel, activation, concat, is_layout_neutral, lrn, mean, pad, pointwise_pair,
    reduce, scale_shift, softmax, transpose,
};

/// Lowers a plan that [`super::validate()`] has accepted for this batch size.
///
/// # Errors
/// Fails if a schedule cannot be resolved, if an algorithm refuses its step, or if memory is short.
pub(super) fn lower<'a>(
    part: &Part<'a>,
    options: &ExecutorOptions,
    packing: &Packing,
) -> Result<ProgramBuilder<'a>, KernelError> {
    let plan = part.plan;
    let resolved = resolve_all(plan, options)?;
    let preferences = preferences(plan, &resolved, options.isa);
    let context = Context { batch: options.batch, isa: options.isa };
    let builder = ProgramBuilder {
        plan,
        context,
        formats: vec![Vec::new(); plan.values.len()],
        buffers: Vec::new(),
        constants: Vec::new(),
        weight_bytes: 0,
        steps: Vec::new(),
    };
    let mut lowering = Lowering { builder, preferences, threads: options.threads, packing };
    part.inputs.iter().enumerate().for_each(|(index, &input)| lowering.input(index, input));
    for (step, resolved) in plan.steps.iter().zip(&resolved) {
        lowering.step(step, resolved.as_ref())?;
    }
    for (index, &output) in part.outputs.iter().enumerate() {
        lowering.output(index, output)?;
    }
    packing.end()?;
    Ok(lowering.builder)
}

fn resolve_all(
    plan: &Plan,
    options: &ExecutorOptions,
) -> Result<Vec<Option<Resolved>>, KernelError> {
    plan.steps
        .iter()
        .map(|step| {
            let Operator::Conv(conv) = &step.operator else { return Ok(None) };
            let Some(problem) = conv_problem(plan, step, options.batch) else { return Ok(None) };
            let format = plan.weights[conv.weights].format();
            resolve(&step.name, conv, problem, format, options.isa).map(Some)
        })
        .collect()
}

pub(super) struct Lowering<'a, 'p> {
    pub(super) builder: ProgramBuilder<'a>,
    preferences: Vec<Preference>,
    threads: usize,
    packing: &'p Packing,
}

const F32: Element = Element::F32;

impl<'a> Lowering<'a, '_> {
    pub(super) fn dims(&self, value: ValueId) -> &'a [usize] {
        &self.builder.plan.values[value].dims
    }

    fn input(&mut self, index: usize, input: ValueId) {
        let bytes = self.builder.len(input) * 4;
        let buffer = self.builder.add(Buffer { bytes, storage: Storage::Input(index), ready: 0 });
        self.builder.formats[input].push((TensorFormat::PLAIN, buffer));
    }

    /// Ensures that an output of the part is written to the caller's memory.
    fn output(&mut self, index: usize, output: ValueId) -> Result<(), KernelError> {
        let name = if output == self.builder.plan.output { "(output)" } else { "(border)" };
        let buffer = self.builder.get(name, output, TensorFormat::PLAIN)?;
        if self.builder.buffers[buffer].storage == Storage::Arena {
            self.builder.buffers[buffer].storage = Storage::Output(index);
            return Ok(());
        }
        // The value is the caller's input, a constant, or an alias of another output: copy it.
        let len = self.builder.plan.values[output].len();
        let kernel = convert::prepare(
            self.builder.context,
            1,
            len,
            TensorFormat::PLAIN,
            TensorFormat::PLAIN,
        );
        let bytes = self.builder.buffers[buffer].bytes;
        let ready = self.builder.steps.len() + 1;
        let target = self.builder.add(Buffer { bytes, storage: Storage::Output(index), ready });
        self.builder.steps.push(PendingStep {
            info: StepInfo {
                name: format!("{name}:copy"),
                algorithm: "convert".into(),
                multiply_adds: 0,
                bytes: 2 * bytes as u64,
            },
            work: Work::Operator(kernel),
            inputs: vec![buffer],
            output: target,
            workspace: 0,
            in_place: false,
        });
        Ok(())
    }

    fn step(&mut self, step: &Step, resolved: Option<&Resolved>) -> Result<(), KernelError> {
        let context = self.builder.context;
        let first = step.inputs.first().copied();
        match (&step.operator, first) {
            (Operator::Conv(conv), Some(input)) => match resolved {
                Some(resolved) => self.conv(step, conv, input, resolved),
                None => Err(KernelError::plan(&step.name, "has no algorithm")),
            },
            (Operator::Constant { constant }, _) => self.constant(step, *constant),
            (Operator::Reshape, Some(input)) => self.reshape(step, input),
            (Operator::MaxPool { window, .. }, Some(input)) => {
                self.max_pool(step, input, |pooling| Pooling { window: *window, ..pooling })
            }
            (Operator::AveragePool { window, include_padding, .. }, Some(input)) => {
                let layout = self.any_layout(step);
                let pooling =
                    Pooling { window: *window, ..self.pooling(input, step.output, layout) };
                let kernel = pool::average(context, pooling, *include_padding);
                self.simple(step, "average_pool", layout, layout, false, kernel)
            }
            (Operator::GlobalAveragePool, Some(input)) => self.global_mean(step, input),
            (Operator::ReduceMean { axes }, Some(input)) => {
                if axes[..] == [1, 2] && self.dims(input).len() == 3 {
                    return self.global_mean(step, input);
                }
                let layout = self.layout(step);
                let kernel =
                    reduce::prepare(context, self.dims(input), Reduction::Mean, axes, layout);
                self.simple(step, "reduce_mean", layout, layout, false, kernel)
            }
            (Operator::Add(activation), Some(_)) => {
                self.binary(step, Function::Arithmetic(Arithmetic::Add), *activation)
            }
            (Operator::Mul(activation), Some(_)) => {
                self.binary(step, Function::Arithmetic(Arithmetic::Mul), *activation)
            }
            (Operator::Activation(kind), Some(input)) => {
                let layout = self.any_layout(step);
                let kernel = activation::prepare(context, self.builder.len(input), *kind);
                self.simple(step, "activation", layout, layout, true, kernel)
            }
            (Operator::ScaleShift { scale, shift, activation }, Some(input)) => {
                let layout = self.layout(step);
                let constants = &self.builder.plan.constants;
                let (scale, shift) = (&constants[*scale], &constants[*shift]);
                let kernel = scale_shift::prepare(
                    context,
                    self.dims(input),
                    layout,
                    scale,
                    shift,
                    *activation,
                );
                self.simple(step, "scale_shift", layout, layout, true, kernel)
            }
            (Operator::Concat { axis }, Some(_)) => self.concat(step, *axis),
            (Operator::Pad { padding, value }, Some(input)) => {
                let layout = self.layout(step);
                let kernel = pad::prepare(context, self.dims(input), padding, *value, layout);
                self.simple(step, "pad", layout, layout, false, kernel)
            }
            (Operator::Transpose { permutation }, Some(input)) => {
                let layout = self.layout(step);
                let kernel = transpose::prepare(context, self.dims(input), permutation, layout);
                self.simple(step, "transpose", layout, Layout::Nchw, false, kernel)
            }
            (Operator::Softmax { axis }, Some(input)) => {
                let layout = self.layout(step);
                let kernel = softmax::prepare(context, self.dims(input), *axis, layout);
                self.simple(step, "softmax", layout, layout, false, kernel)
            }
            (&Operator::Lrn { size, alpha, beta, bias }, Some(input)) => {
                let layout = self.layout(step);
                let attributes = lrn::Attributes { size, alpha, beta, bias };
                let kernel = lrn::prepare(context, self.dims(input), layout, attributes);
                self.simple(step, "lrn", layout, layout, false, kernel)
            }
            (Operator::Tensor(operator), Some(input)) => self.tensor(step, operator, input),
            (_, None) => Err(KernelError::plan(&step.name, "has no input")),
        }
    }

    /// Returns the layout of a step that supports only NCHW and NHWC; see [`Lowering::any_layout`].
    pub(super) fn layout(&self, step: &Step) -> Layout {
        match self.any_layout(step) {
            Layout::Nchwc(_) => Layout::Nhwc,
            layout => layout,
        }
    }

    /// Returns the layout of a step that supports all layouts: the layout of its inputs if they
    /// agree, else the one preferred by the output's readers, else the one of the largest input.
    pub(super) fn any_layout(&self, step: &Step) -> Layout {
        let made: Vec<(Layout, usize)> = step
            .inputs
            .iter()
            .filter_map(|&input| Some((self.builder.made_in(input)?, self.builder.len(input))))
            .collect();
        let preferred = self.preferences[step.output].layout;
        match made[..] {
            [] => preferred.unwrap_or(Layout::Nchw),
            [(first, _), ref rest @ ..] if rest.iter().all(|&(layout, _)| layout == first) => first,
            _ => preferred.unwrap_or_else(|| {
                made.iter().max_by_key(|&&(_, len)| len).map_or(Layout::Nchw, |&(layout, _)| layout)
            }),
        }
    }

    fn pooling(&self, input: ValueId, output: ValueId, layout: Layout) -> Pooling {
        // Validation has checked that both have three axes.
        let three = |dims: &[usize]| [dims[0], dims[1], dims[2]];
        let (input, output) = (three(self.dims(input)), three(self.dims(output)));
        Pooling { input, output, window: paretune_base::plan::operator::Window::POINT, layout }
    }

    /// Adds a single-precision step that reads all its inputs in one layout and writes its output
    /// in another.
    pub(super) fn simple(
        &mut self,
        step: &Step,
        name: &str,
        input: Layout,
        output: Layout,
        in_place: bool,
        kernel: Box<dyn OperatorKernel>,
    ) -> Result<(), KernelError> {
        let from = TensorFormat { layout: input, element: F32 };
        let inputs = step.inputs.iter().map(|&value| self.builder.get(&step.name, value, from));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let output =
            self.builder.create(step.output, TensorFormat { layout: output, element: F32 });
        self.push(step, name, inputs, output, in_place, kernel);
        Ok(())
    }

    fn push(
        &mut self,
        step: &Step,
        name: &str,
        inputs: Vec<BufferId>,
        output: BufferId,
        in_place: bool,
        kernel: Box<dyn OperatorKernel>,
    ) {
        let constants = kernel.constant_bytes();
        self.builder.weight_bytes += constants;
        let bytes = self.touched(&inputs, output) + constants as u64;
        self.builder.steps.push(PendingStep {
            info: StepInfo {
                name: step.name.clone(),
                algorithm: name.into(),
                multiply_adds: 0,
                bytes,
            },
            work: Work::Operator(kernel),
            inputs,
            output,
            workspace: 0,
            in_place,
        });
    }

    fn touched(&self, inputs: &[BufferId], output: BufferId) -> u64 {
        inputs
            .iter()
            .chain([&output])
            .map(|&buffer| self.builder.buffers[buffer].bytes as u64)
            .sum()
    }

    fn conv(
        &mut self,
        step: &Step,
        conv: &Conv,
        input: ValueId,
        resolved: &Resolved,
    ) -> Result<(), KernelError> {
        let plan = self.builder.plan;
        let [layout, layout_out] =
            resolved.algorithm.layouts(&resolved.schedule, self.builder.context.isa);
        let integer = resolved.algorithm.is_integer();
        let grid = |value| grid_of(plan, value).filter(|_| integer);
        let from = grid(input).unwrap_or(F32);
        let to = grid(step.output).filter(|_| self.preferences[step.output].u8).unwrap_or(F32);
        let mut inputs =
            vec![self.builder.get(&step.name, input, TensorFormat { layout, element: from })?];
        let mut residual = None;
        if let Some(&value) = step.inputs.get(1) {
            // An integer kernel can add the residual in 8 bits: use them if that format exists.
            let element =
                grid(value).filter(|&grid| self.builder.present_u8(value, grid).is_some());
            let element = element.unwrap_or(F32);
            inputs.push(self.builder.get(
                &step.name,
                value,
                TensorFormat { layout: layout_out, element },
            )?);
            residual = Some(element);
        }
        let weights = &plan.weights[conv.weights];
        let request = Request {
            problem: resolved.problem,
            weights,
            activation: conv.activation,
            input: from,
            output: to,
            residual,
            schedule: &resolved.schedule,
            threads: self.threads,
            isa: self.builder.context.isa,
            packing: self.packing,
        };
        let kernel =
            self.packing.begin(request.key()).and_then(|()| resolved.algorithm.prepare(&request));
        let kernel = kernel.map_err(|error| match error {
            KernelError::Plan { problem, .. } => KernelError::plan(&step.name, problem),
            KernelError::Packed(problem) => {
                KernelError::Packed(format!("step `{}` {problem}", step.name))
            }
            error => KernelError::plan(&step.name, error.to_string()),
        })?;
        let output =
            self.builder.create(step.output, TensorFormat { layout: layout_out, element: to });
        let weight_bytes = kernel.weight_bytes();
        self.builder.weight_bytes += weight_bytes;
        let bytes = self.touched(&inputs, output) + weight_bytes as u64;
        self.builder.steps.push(PendingStep {
            info: StepInfo {
                name: step.name.clone(),
                algorithm: resolved.algorithm.name().into(),
                multiply_adds: resolved.problem.multiply_adds(),
                bytes,
            },
            workspace: kernel.workspace_bytes(),
            work: Work::Conv(kernel),
            inputs,
            output,
            in_place: false,
        });
        Ok(())
    }

    /// Fills the memory of a constant at load time, with one copy per image.
    fn constant(&mut self, step: &Step, constant: usize) -> Result<(), KernelError> {
        let numbers = &self.builder.plan.constants[constant];
        let bytes = self.builder.len(step.output) * 4;
        let block = Block::new(bytes)?;
        for image in 0..self.builder.context.batch {
            // SAFETY: the block holds `batch` times as many numbers as the constant (validated).
            unsafe {
                let to = block.start().cast::<f32>().add(image * numbers.len());
                std::ptr::copy_nonoverlapping(numbers.as_ptr(), to, numbers.len());
            }
        }
        let buffer = self.builder.add_constant(block, bytes);
        self.builder.formats[step.output].push((TensorFormat::PLAIN, buffer));
        Ok(())
    }

    /// Makes the output an alias of the input's memory, after a conversion to row-major order if
    /// necessary.
    fn reshape(&mut self, step: &Step, input: ValueId) -> Result<(), KernelError> {
        let same_shape = self.dims(input) == self.dims(step.output);
        let same_grid = same_grid(self.builder.plan, step);
        let fits = |form: &TensorFormat| {
            (same_shape || form.layout == Layout::Nchw) && (form.element == F32 || same_grid)
        };
        let aliases = |formats: &[(TensorFormat, BufferId)]| -> Vec<(TensorFormat, BufferId)> {
            formats.iter().filter(|(form, _)| fits(form)).copied().collect()
        };
        let mut names = aliases(&self.builder.formats[input]);
        if names.is_empty() {
            let (made, _) = self.builder.formats[input][0];
            let element = if same_grid { made.element } else { F32 };
            self.builder.get(&step.name, input, TensorFormat { layout: Layout::Nchw, element })?;
            names = aliases(&self.builder.formats[input]);
        }
        self.builder.formats[step.output] = names;
        Ok(())
    }

    fn max_pool(
        &mut self,
        step: &Step,
        input: ValueId,
        with_window: impl Fn(Pooling) -> Pooling,
    ) -> Result<(), KernelError> {
        let context = self.builder.context;
        let layout = self.any_layout(step);
        let pooling = with_window(self.pooling(input, step.output, layout));
        let grid =
            self.shared_grid(step).filter(|&grid| self.builder.present_u8(input, grid).is_some());
        let Some(element) = grid else {
            let kernel = pool::max_f32(context, pooling);
            return self.simple(step, "max_pool", layout, layout, false, kernel);
        };
        let form = TensorFormat { layout, element };
        let from = self.builder.get(&step.name, input, form)?;
        let output = self.builder.create(step.output, form);
        self.push(step, "max_pool_u8", vec![from], output, false, pool::max_u8(context, pooling));
        Ok(())
    }

    /// Returns the 8-bit grid that inputs and output share, if the output's readers prefer 8 bits.
    fn shared_grid(&self, step: &Step) -> Option<Element> {
        let wanted = self.preferences[step.output].u8 && same_grid(self.builder.plan, step);
        grid_of(self.builder.plan, step.output).filter(|_| wanted)
    }

    fn global_mean(&mut self, step: &Step, input: ValueId) -> Result<(), KernelError> {
        let [channels, pixels] = [self.dims(input)[0], self.dims(input)[1..].iter().product()];
        let grid = grid_of(self.builder.plan, input).filter(|_| pixels <= mean::MOST_PIXELS_U8);
        // 8-bit elements are read directly if the input was computed as such.
        let made = self.builder.formats[input][0].0;
        let element = grid.filter(|&grid| made.element == grid).unwrap_or(F32);
        let layout = made.layout;
        let kernel = mean::global(self.builder.context, channels, pixels, layout, element);
        let from = self.builder.get(&step.name, input, TensorFormat { layout, element })?;
        let output = self.builder.create(step.output, TensorFormat::PLAIN);
        let name = if element == F32 { "global_average_pool" } else { "global_average_pool_u8" };
        self.push(step, name, vec![from], output, false, kernel);
        Ok(())
    }

    pub(super) fn binary(
        &mut self,
        step: &Step,
        function: Function,
        activation: paretune_base::plan::activation::Activation,
    ) -> Result<(), KernelError> {
        let layout = self.any_layout(step);
        // An operand without all axes of an image exists in row-major order only. This is right for
        // NCHW; for NHWC the operand must be stored identically in both layouts.
        let simple = |&value: &ValueId| {
            let dims = self.dims(value);
            dims.len() == 3 || aligned_neutral(dims)
        };
        let layout = if self.dims(step.output).len() != 3 || !step.inputs.iter().all(simple) {
            Layout::Nchw
        } else {
            layout
        };
        let name = match function {
            Function::Arithmetic(Arithmetic::Add) => "add",
            Function::Arithmetic(Arithmetic::Mul) => "mul",
            Function::Other(_) => "binary",
        };
        if let Function::Arithmetic(arithmetic) = function
            && let Some(pair) = self.pair(step)
        {
            return self.pointwise_pair(step, name, arithmetic, activation, layout, pair);
        }
        let operands = [self.dims(step.inputs[0]), self.dims(step.inputs[1])];
        let context = self.builder.context;
        let same = operands.iter().all(|dims| *dims == self.dims(step.output));
        // For operands of equal shape the order of elements is irrelevant, so they are treated as
        // NCHW.
        let (layout, order) = match layout {
            Layout::Nchwc(_) if same => (layout, Layout::Nchw),
            Layout::Nchwc(_) => (Layout::Nhwc, Layout::Nhwc),
            layout => (layout, layout),
        };
        let output = self.dims(step.output);
        let kernel = binary::prepare(context, function, operands, output, order, activation);
        self.simple(step, name, layout, layout, true, kernel)
    }

    /// Returns the operands in the order that [`pointwise_pair`] expects, if it supports the step
    /// and is faster than the general kernel.
    fn pair(&self, step: &Step) -> Option<Pair> {
        let output = self.dims(step.output);
        let &[channels, height, width] = output else { return None };
        let (a, b) = (step.inputs[0], step.inputs[1]);
        let full = |value: ValueId| self.dims(value) == output;
        let gate = |value: ValueId| self.dims(value) == [channels, 1, 1] && height * width > 1;
        if full(a) && full(b) {
            let elements =
                [self.made_element(a), self.made_element(b), self.wanted_element(step.output)];
            (elements != [F32; 3]).then_some(Pair::Equal { elements })
        } else if full(a) && gate(b) {
            Some(Pair::PerChannel { a, b })
        } else if gate(a) && full(b) {
            Some(Pair::PerChannel { a: b, b: a })
        } else {
            None
        }
    }

    /// Returns the 8-bit element type in which a value was computed, or single precision.
    fn made_element(&self, value: ValueId) -> Element {
        let made = self.builder.formats[value][0].0.element;
        grid_of(self.builder.plan, value).filter(|&grid| grid == made).unwrap_or(F32)
    }

    /// Returns the 8-bit element type that the readers of a value prefer, or single precision.
    fn wanted_element(&self, value: ValueId) -> Element {
        grid_of(self.builder.plan, value).filter(|_| self.preferences[value].u8).unwrap_or(F32)
    }

    fn pointwise_pair(
        &mut self,
        step: &Step,
        name: &str,
        arithmetic: Arithmetic,
        activation: paretune_base::plan::activation::Activation,
        layout: Layout,
        pair: Pair,
    ) -> Result<(), KernelError> {
        let context = self.builder.context;
        let dims = self.dims(step.output);
        let [channels, pixels] = [dims[0], dims[1..].iter().product()];
        let (values, elements, kernel) = match pair {
            Pair::Equal { elements } => {
                let len = self.builder.len(step.output);
                let kernel = pointwise_pair::equal(context, arithmetic, len, elements, activation);
                ([step.inputs[0], step.inputs[1]], elements, kernel)
            }
            Pair::PerChannel { a, b } => {
                let ends = [self.made_element(a), self.wanted_element(step.output)];
                let size = [channels, pixels];
                let kernel = pointwise_pair::per_channel(
                    context, arithmetic, size, layout, ends, activation,
                );
                ([a, b], [ends[0], F32, ends[1]], kernel)
            }
        };
        let mut inputs = Vec::with_capacity(2);
        for (value, element) in values.into_iter().zip(elements) {
            inputs.push(self.builder.get(&step.name, value, TensorFormat { layout, element })?);
        }
        let output =
            self.builder.create(step.output, TensorFormat { layout, element: elements[2] });
        // In place only if all operands have the same element size: with mixed sizes the byte
        // counts may match, but the element positions do not.
        let in_place = elements.iter().all(|element| matches!(element, Element::F32))
            || (matches!(pair, Pair::Equal { .. })
                && elements.iter().all(|element| matches!(element, Element::U8(_))));
        let integer = elements.iter().any(|element| matches!(element, Element::U8(_)));
        let name = if integer { format!("{name}_u8") } else { name.to_owned() };
        self.push(step, &name, inputs, output, in_place, kernel);
        Ok(())
    }

    fn concat(&mut self, step: &Step, axis: usize) -> Result<(), KernelError> {
        let layout = self.layout(step);
        let all_present = |&grid: &Element| {
            step.inputs.iter().all(|&input| self.builder.present_u8(input, grid).is_some())
        };
        let element = self.shared_grid(step).filter(all_present).unwrap_or(F32);
        let form = TensorFormat { layout, element };
        // The copying loops need the stated layout even for an input that all layouts store
        // identically.
        let inputs = step.inputs.iter().map(|&input| self.builder.get(&step.name, input, form));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<&[usize]> = step.inputs.iter().map(|&input| self.dims(input)).collect();
        let kernel =
            concat::prepare(self.builder.context, &shapes, axis, layout, form.element_bytes());
        let output = self.builder.create(step.output, form);
        let name = if element == F32 { "concat" } else { "concat_u8" };
        self.push(step, name, inputs, output, false, kernel);
        Ok(())
    }
}

/// Operands of an addition or multiplication that [`pointwise_pair`] supports.
#[derive(Clone, Copy)]
enum Pair {
    /// Both operands have the output's shape; holds the element types of both and of the output.
    Equal { elements: [Element; 3] },
    /// Operand `b` has one value per channel.
    PerChannel { a: ValueId, b: ValueId },
}

/// Whether a shape of fewer than three axes, extended by leading ones, is stored identically in
/// NCHW and NHWC.
fn aligned_neutral(dims: &[usize]) -> bool {
    let mut aligned = vec![1; 3_usize.saturating_sub(dims.len())];
    aligned.extend_from_slice(dims);
    is_layout_neutral(&aligned)
}
