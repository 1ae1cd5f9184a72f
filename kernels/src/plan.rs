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
