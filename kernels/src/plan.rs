//! A network ready to be run: values, steps, weights, and a schedule for every convolution.
//!
//! A plan is plain data. It says nothing of layouts, packed weights or buffers; the executor derives
//! those, deterministically, when it loads the plan for a batch size and a number of threads.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::operator::Operator;
use crate::weights::Weights;

/// Index into [`Plan::values`].
pub type ValueId = usize;

/// A whole network, single input, single output, steps in execution order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the network, for people.
    pub name: String,
    /// Everything that flows between steps.
    pub values: Vec<ValueSpec>,
    /// The value that the caller provides: `f32`, row-major `[channels, height, width]` per image.
    pub input: ValueId,
    /// The value that the caller wants: `f32`, row-major.
    pub output: ValueId,
    /// In execution order: a step reads only the input and what earlier steps wrote, and every value
    /// is written once.
    pub steps: Vec<Step>,
    /// Weights of convolutions.
    pub weights: Vec<Weights>,
    /// Small tensors of other operators, row-major.
    pub constants: Vec<Arc<[f32]>>,
    /// How many threads it was tuned for.
    pub threads: usize,
    /// What runs it, and so what the algorithms' names mean: all of it, or what comes before the first of
    /// [`Plan::switches`].
    pub backend: Backend,
    /// Where something else takes over, in execution order; empty where one backend runs everything. The executor
    /// changes sides at these steps and at no others.
    pub switches: Vec<Switch>,
}

/// A step from which on something else runs a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Index into [`Plan::steps`]; neither the first step nor one before an earlier switch.
    pub step: usize,
    /// Another one than before.
    pub backend: Backend,
}

impl Plan {
    /// What runs step `index`.
    #[must_use]
    pub fn backend_of(&self, index: usize) -> &Backend {
        let before = self.switches.iter().take_while(|switch| switch.step <= index);
        before.last().map_or(&self.backend, |switch| &switch.backend)
    }

    /// Whether the processor runs all of it.
    #[must_use]
    pub fn is_on_processor(&self) -> bool {
        self.backend == Backend::Cpu && self.switches.is_empty()
    }

    /// Lets `backend` run all of it.
    pub fn run_on(&mut self, backend: Backend) {
        self.backend = backend;
        self.switches.clear();
    }
}

/// What runs a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Backend {
    /// The processor.
    #[default]
    Cpu,
    /// An OpenCL device; convolutions have algorithms of [`crate::opencl::conv`].
    OpenCl {
        /// `platform/device`, or a part of that; empty for the first graphics processor, or the first
        /// device at all.
        device: String,
    },
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::OpenCl { device } if device.is_empty() => f.write_str("opencl"),
            Self::OpenCl { device } => write!(f, "opencl:{device}"),
        }
    }
}

impl std::str::FromStr for Backend {
    type Err = String;

    /// `cpu`, `opencl` or `opencl:PLATFORM/DEVICE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "opencl" => Ok(Self::OpenCl { device: String::new() }),
            Some(("opencl", device)) if !device.is_empty() => Ok(Self::OpenCl { device: device.to_owned() }),
            _ => Err(format!("`{text}` is no backend; there are cpu, opencl and opencl:PLATFORM/DEVICE")),
        }
    }
}

/// One operator applied to values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique name, for people and profiles: the ONNX node's.
    pub name: String,
    /// What is computed.
    pub operator: Operator,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// What it writes.
    pub output: ValueId,
}

/// Shape and number format of a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueSpec {
    /// Row-major shape of one image, without batch: `[channels, height, width]`, `[features]`, ...
    pub dims: Vec<usize>,
    /// The 8-bit grid calibrated for this value, if some integer step reads or writes it. The executor
    /// decides where the value really is kept in 8 bits: wherever all who touch it can.
    pub quantization: Option<Quantization>,
}

/// An unsigned 8-bit grid: `real = (quantized - zero_point) * scale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// Distance of two neighbors on the grid; positive and finite.
    pub scale: f32,
    /// What stands for zero, which is exact.
    pub zero_point: u8,
}

impl ValueSpec {
    /// How many numbers one image has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether one image has no numbers at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
