//! Memory planning for a device before anything is built: launches for every step, and the place
//! and lifetime of every value.

use std::sync::Arc;

use super::api::Memory;
use super::conv::Request;
use super::device::Device;
use super::launch;
use super::launch::Prepared;
use super::operators;
use paretune_base::arena::Lifetime;
use paretune_base::error::KernelError;
use paretune_base::execution::{Part, StepInfo};
use paretune_base::plan::operator::Operator;
use paretune_base::plan::shape::conv_problem;
use paretune_base::plan::{Plan, Step, ValueId};
use paretune_base::registry::{Registry, Resolved};

/// Place of a value, before memory is allocated.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Index of a buffer in the arena.
    Arena(usize),
    /// Index of an uploaded constant.
    Constant(usize),
    /// Memory at the device boundary, owned by the crossing value with this id.
    DeviceBoundary(ValueId),
}

/// A step together with the values of its arguments.
pub(super) struct PreparedStep {
    pub prepared: Prepared,
    pub inputs: Vec<ValueId>,
    pub output: ValueId,
}

/// Places and lifetimes of values.
pub(super) struct Layout {
    pub places: Vec<Option<Place>>,
    /// Sizes of arena buffers, with first and last stage (0: the upload).
    buffers: Vec<Lifetime>,
    pub constants: Vec<Vec<u8>>,
    /// Values in the order in which they become ready, with the number of stages that must have
    /// run.
    pub ready: Vec<(usize, ValueId)>,
    stages: usize,
    /// Whether each value crosses a device boundary.
    crosses: Vec<bool>,
    /// Values that leave the part.
    outputs: Vec<ValueId>,
}

impl Layout {
    /// Plans the inputs of a part. `crosses` tells whether a value has memory at the device
    /// boundary.
    pub fn new(part: &Part<'_>, batch: usize, crosses: impl Fn(ValueId) -> bool) -> Self {
        let plan = part.plan;
        let mut layout = Self {
            places: vec![None; plan.values.len()],
            buffers: Vec::new(),
            constants: Vec::new(),
            ready: part.inputs.iter().map(|&input| (0, input)).collect(),
            stages: 0,
            crosses: (0..plan.values.len()).map(crosses).collect(),
            outputs: part.outputs.clone(),
        };
        part.inputs.iter().for_each(|&input| layout.create(plan, input, batch));
        layout
    }

    fn create(&mut self, plan: &Plan, value: ValueId, batch: usize) {
        if self.crosses[value] {
            self.places[value] = Some(Place::DeviceBoundary(value));
            return;
        }
        let bytes = plan.values[value].len() * batch * 4;
        self.places[value] = Some(Place::Arena(self.buffers.len()));
        self.buffers.push(Lifetime { bytes, first: self.stages, last: self.stages });
    }

    fn touch(&mut self, value: ValueId) {
        if let Some(Some(Place::Arena(buffer))) = self.places.get(value) {
            self.buffers[*buffer].last = self.stages;
        }
    }

    /// Prepares a step. Returns `None` if its output only aliases existing memory.
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
                    device.limits.resolve(&step.name, conv, problem, weights.format())?;
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
        let moved =
            step.inputs.iter().chain([&step.output]).map(|&id| plan.values[id].len() * batch * 4);
        let bytes = moved.sum::<usize>() + prepared.constants.iter().map(Vec::len).sum::<usize>();
        let info =
            StepInfo { name: step.name.clone(), algorithm, multiply_adds, bytes: bytes as u64 };
        Ok(Some((
            info,
            PreparedStep { prepared, inputs: step.inputs.clone(), output: step.output },
        )))
    }

    /// Allocates device memory, and returns its total bytes and the memory of each arena buffer.
    /// Buffers with disjoint lifetimes share a whole piece of memory. Parts of one block
    /// (`clCreateSubBuffer`) would take less memory, but they make kernel launches three times as
    /// slow with NVIDIA's driver (580), which has also crashed when they are released.
    pub fn arena(&mut self, device: &Device) -> Result<(usize, Vec<Arc<Memory>>), KernelError> {
        self.stages += 1;
        for output in self.outputs.clone() {
            self.touch(output);
        }
        let (sizes, homes) = share(&self.buffers);
        if let Some(&largest) = sizes.iter().max()
            && largest > device.limits.largest_buffer
        {
            return Err(KernelError::System(format!(
                "an activation takes {largest} bytes; `{}` has buffers of at most {}",
                device.name, device.limits.largest_buffer
            )));
        }
        let memories = sizes
            .iter()
            .map(|&bytes| Memory::new(&device.context, bytes).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let homes = homes.into_iter().map(|home| Arc::clone(&memories[home])).collect();
        Ok((sizes.iter().sum(), homes))
    }
}

/// Assigns buffers, ordered by the beginning of their lifetimes, to shared pieces of memory.
/// Returns the size of each piece and the piece of each buffer. A buffer takes the best-fitting
/// free piece: the smallest that is large enough, else the largest, which grows.
fn share(buffers: &[Lifetime]) -> (Vec<usize>, Vec<usize>) {
    // Bytes of each piece, and the last stage that uses it.
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    let mut homes = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let free = pieces.iter().enumerate().filter(|(_, piece)| piece.1 < buffer.first);
        let best = free.min_by_key(|(_, (bytes, _))| {
            if *bytes >= buffer.bytes {
                (0, bytes - buffer.bytes)
            } else {
                (1, buffer.bytes - bytes)
            }
        });
        let home = best.map(|(home, _)| home);
        let home = home.unwrap_or_else(|| {
            pieces.push((1, 0));
            pieces.len() - 1
        });
        pieces[home] = (pieces[home].0.max(buffer.bytes), buffer.last);
        homes.push(home);
    }
    (pieces.into_iter().map(|(bytes, _)| bytes).collect(), homes)
}

/// Returns an operator's name for profiles.
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
        Operator::Tensor(operator) => operator.name(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Buffers that live at the same time are in different pieces, and each buffer fits into
        /// its piece.
        #[test]
        fn shared_memory_is_never_taken_twice(
            lives in prop::collection::vec((0_usize..1000, 0_usize..3, 0_usize..6), 0..20),
        ) {
            let mut first = 0;
            let buffers: Vec<Lifetime> = lives
                .into_iter()
                .map(|(bytes, later, span)| {
                    first += later;
                    Lifetime { bytes, first, last: first + span }
                })
                .collect();
            let (sizes, homes) = share(&buffers);
            for (index, buffer) in buffers.iter().enumerate() {
                prop_assert!(sizes[homes[index]] >= buffer.bytes);
                for (other, home) in buffers[..index].iter().zip(&homes) {
                    prop_assert!(*home != homes[index] || other.last < buffer.first);
                }
            }
        }
    }
}
