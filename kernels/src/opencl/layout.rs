//! What a plan becomes before anything is built: launches for every step, and where every value lies, for
//! how long.

use std::sync::Arc;

use super::api::Memory;
use super::conv::Request;
use super::device::Device;
use super::launch::{self, Prepared};
use super::operators;
use super::resolve::{Resolved, resolve};
use crate::error::KernelError;
use crate::executor::{Lifetime, StepInfo, conv_problem, place};
use crate::operator::Operator;
use crate::plan::{Plan, Step, ValueId};

/// Where a value lies, before there is memory.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Index of a buffer in the arena.
    Arena(usize),
    /// Index of an uploaded constant.
    Constant(usize),
}

/// A step with the values that its arguments stand for.
pub(super) struct PreparedStep {
    pub prepared: Prepared,
    pub inputs: Vec<ValueId>,
    pub output: ValueId,
}

/// Where values lie, and for how long.
pub(super) struct Layout {
    pub places: Vec<Option<Place>>,
    /// Of buffers in the arena: bytes, first and last stage (0: the upload).
    buffers: Vec<Lifetime>,
    pub constants: Vec<Vec<u8>>,
    /// Values in the order in which they get ready, with the number of stages that must have run.
    pub ready: Vec<(usize, ValueId)>,
    stages: usize,
}

impl Layout {
    pub fn new(plan: &Plan, batch: usize) -> Self {
        let mut layout = Self {
            places: vec![None; plan.values.len()],
            buffers: Vec::new(),
            constants: Vec::new(),
            ready: vec![(0, plan.input)],
            stages: 0,
        };
        layout.create(plan, plan.input, batch);
        layout
    }

    fn create(&mut self, plan: &Plan, value: ValueId, batch: usize) {
        let bytes = plan.values[value].len() * batch * 4;
        self.places[value] = Some(Place::Arena(self.buffers.len()));
        self.buffers.push(Lifetime { bytes, first: self.stages, last: self.stages });
    }

    fn touch(&mut self, value: ValueId) {
        if let Some(Some(Place::Arena(buffer))) = self.places.get(value) {
            self.buffers[*buffer].last = self.stages;
        }
    }

    /// What becomes of a step; nothing where it only names what is there.
    pub fn step(
        &mut self,
        plan: &Plan,
        step: &Step,
        batch: usize,
        device: &Device,
    ) -> Result<Option<(StepInfo, PreparedStep)>, KernelError> {
        let (mut algorithm, mut multiply_adds) = (name_of(&step.operator).to_owned(), 0);
        let prepared = match &step.operator {
            Operator::Constant { constant } => {
                let bytes = launch::bytes_of(&plan.constants[*constant]).repeat(batch);
                self.places[step.output] = Some(Place::Constant(self.constants.len()));
                self.constants.push(bytes);
                self.ready.push((self.stages, step.output));
                return Ok(None);
            }
            Operator::Reshape => {
                let input = step.inputs.first().copied();
                self.places[step.output] = input.and_then(|input| self.places[input]);
                self.ready.push((self.stages, step.output));
                return Ok(None);
            }
            Operator::Conv(conv) => {
                let problem = conv_problem(plan, step, batch)
                    .ok_or_else(|| KernelError::plan(&step.name, "has no input"))?;
                let weights = &plan.weights[conv.weights];
                let Resolved { algorithm: chosen, schedule, .. } =
                    resolve(&step.name, conv, problem, weights.format(), &device.limits)?;
                chosen.name().clone_into(&mut algorithm);
                multiply_adds = problem.multiply_adds();
                let request = Request {
                    problem,
                    output: problem.output()?,
                    weights,
                    activation: conv.activation,
                    residual: step.inputs.len() > 1,
                    input_grid: plan.values[step.inputs[0]].quantization,
                    schedule: &schedule,
                    limits: &device.limits,
                };
                let named = |error: KernelError| KernelError::plan(&step.name, error.to_string());
                chosen.prepare(&request).map_err(named)?
            }
            _ => operators::prepare(plan, step, batch)?,
        };
        self.stages += 1;
        self.create(plan, step.output, batch);
        self.ready.push((self.stages, step.output));
        step.inputs.iter().for_each(|&input| self.touch(input));
        let empty = plan.values[step.output].is_empty();
        let prepared = if empty { Prepared::default() } else { prepared };
        let moved = step.inputs.iter().chain([&step.output]).map(|&id| plan.values[id].len() * batch * 4);
        let bytes = moved.sum::<usize>() + prepared.constants.iter().map(Vec::len).sum::<usize>();
        let info = StepInfo { name: step.name.clone(), algorithm, multiply_adds, bytes: bytes as u64 };
        Ok(Some((info, PreparedStep { prepared, inputs: step.inputs.clone(), output: step.output })))
    }

    /// One block of device memory, and every buffer as a part of it.
    pub fn arena(&mut self, plan: &Plan, device: &Device) -> Result<(usize, Vec<Arc<Memory>>), KernelError> {
        self.stages += 1;
        self.touch(plan.output);
        let alignment = device.limits.alignment;
        for buffer in &mut self.buffers {
            buffer.bytes = buffer.bytes.max(1).next_multiple_of(alignment);
        }
        let (offsets, total) = place(&self.buffers);
        if total > device.limits.largest_buffer {
            return Err(KernelError::System(format!(
                "activations take {total} bytes; `{}` has buffers of at most {}",
                device.name, device.limits.largest_buffer
            )));
        }
        let block = Memory::new(&device.context, total)?;
        let parts = offsets
            .iter()
            .zip(&self.buffers)
            .map(|(&offset, buffer)| block.part(offset, buffer.bytes).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok((total, parts))
    }
}

/// An operator's name for profiles.
fn name_of(operator: &Operator) -> &'static str {
    match operator {
        Operator::Conv(_) => "conv",
        Operator::MaxPool { .. } => "max_pool",
        Operator::AveragePool { .. } => "average_pool",
        Operator::GlobalAveragePool => "global_mean",
        Operator::ReduceMean { .. } => "mean",
        Operator::Add(_) => "add",
        Operator::Mul(_) => "mul",
        Operator::Activation(_) => "activation",
        Operator::ScaleShift { .. } => "scale_shift",
        Operator::Constant { .. } => "constant",
        Operator::Concat { .. } => "concat",
        Operator::Pad { .. } => "pad",
        Operator::Transpose { .. } => "transpose",
        Operator::Reshape => "reshape",
        Operator::Softmax { .. } => "softmax",
        Operator::Lrn { .. } => "lrn",
    }
}
