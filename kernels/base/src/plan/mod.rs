//! A network ready to be run: values, steps, weights, and a schedule for every convolution.
//!
//! A plan is plain data. It does not contain layouts, packed weights or buffers: the executor
//! derives those deterministically when it loads the plan for a batch size and a number of threads.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plan::operator::Operator;
use crate::plan::weights::Weights;

pub mod activation;
pub mod layout;
pub mod operator;
pub mod schedule;
pub mod shape;
pub mod tensor;
pub mod tunable;
pub mod weights;

pub use paretune_simd::half;

/// Index of a value in [`Plan::values`].
pub type ValueId = usize;

/// A whole network with a single input, a single output, and steps in execution order.
///
/// # Examples
/// A dense layer from three features to two classes, with the default schedule:
///
/// ```
/// use std::sync::Arc;
///
/// use paretune_base::plan::activation::Activation;
/// use paretune_base::plan::operator::{Conv, Operator, Window};
/// use paretune_base::plan::schedule::Schedule;
/// use paretune_base::plan::weights::Weights;
/// use paretune_base::plan::{Plan, Step, ValueSpec, shape};
///
/// let value = |len| ValueSpec { dims: vec![len], quantization: None };
/// let dense = Conv {
///     window: Window::POINT,
///     groups: 1,
///     weights: 0,
///     activation: Activation::default(),
///     schedule: Schedule::default(),
/// };
/// let plan = Plan {
///     name: "classifier".into(),
///     values: vec![value(3), value(2)],
///     input: 0,
///     output: 1,
///     steps: vec![Step {
///         name: "dense".into(),
///         operator: Operator::Conv(dense),
///         inputs: vec![0],
///         output: 1,
///     }],
///     weights: vec![Weights::dense([2, 3, 1, 1], Arc::new([1.0, 0.0, 0.0, 0.0, 1.0, 1.0]), None)],
///     threads: 1,
///     ..Plan::default()
/// };
///
/// let (operator, inputs) = (&plan.steps[0].operator, [&plan.values[0].dims[..]]);
/// let dims = shape::output(operator, &inputs, &[2], &plan.weights, &plan.constants)?;
/// assert_eq!(dims, plan.values[1].dims);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the network, for people.
    pub name: String,
    /// Shapes and quantization grids of all inputs and outputs of steps.
    pub values: Vec<ValueSpec>,
    /// Value that the caller provides: `f32`, row-major `[channels, height, width]` per image.
    pub input: ValueId,
    /// Value that the caller receives: `f32`, row-major.
    pub output: ValueId,
    /// Steps in execution order: a step reads only the input and values that earlier steps wrote,
    /// and every value is written once.
    pub steps: Vec<Step>,
    /// Weights of all convolutions and dense layers.
    pub weights: Vec<Weights>,
    /// Small tensors of other operators, row-major.
    pub constants: Vec<Arc<[f32]>>,
    /// Number of threads that the plan was tuned for.
    pub threads: usize,
    /// Backend of the whole plan, or of the steps before the first of [`Plan::switches`]. It
    /// determines the meaning of algorithm names.
    pub backend: Backend,
    /// Cut points of the partition, in execution order; empty if one backend runs the whole plan.
    /// The executor changes backends at these steps only.
    pub switches: Vec<Switch>,
}

/// A cut point of a partitioned plan: another backend runs the plan from this step on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Index into [`Plan::steps`], neither 0 nor smaller than the index of an earlier cut point.
    pub step: usize,
    /// Backend from this step on, different from the previous one.
    pub backend: Backend,
}

impl Plan {
    /// Returns the backend of step `index`.
    #[must_use]
    pub fn backend_of(&self, index: usize) -> &Backend {
        let before = self.switches.iter().take_while(|switch| switch.step <= index);
        before.last().map_or(&self.backend, |switch| &switch.backend)
    }

    /// Returns whether the processor runs the whole plan.
    #[must_use]
    pub fn is_on_processor(&self) -> bool {
        self.backend == Backend::Cpu && self.switches.is_empty()
    }

    /// Assigns the whole plan to `backend`.
    pub fn run_on(&mut self, backend: Backend) {
        self.backend = backend;
        self.switches.clear();
    }
}

/// Backend that runs steps of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Backend {
    /// The processor of this machine.
    #[default]
    Cpu,
    /// An OpenCL device; convolutions use algorithms of the crate `paretune-opencl`.
    OpenCl {
        /// Name `platform/device` or a part of it. Empty for the first graphics processor, or the
        /// first device if there is none.
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

    /// Parses `cpu`, `opencl` or `opencl:PLATFORM/DEVICE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "opencl" => Ok(Self::OpenCl { device: String::new() }),
            Some(("opencl", device)) if !device.is_empty() => {
                Ok(Self::OpenCl { device: device.to_owned() })
            }
            _ => Err(format!(
                "`{text}` is no backend; there are cpu, opencl and opencl:PLATFORM/DEVICE"
            )),
        }
    }
}

/// One operator applied to values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique name for people and profiles, taken from the ONNX node.
    pub name: String,
    /// Operator that the step computes, with its attributes.
    pub operator: Operator,
    /// Values that the step reads.
    pub inputs: Vec<ValueId>,
    /// Value that the step writes.
    pub output: ValueId,
}

/// Shape and quantization grid of a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueSpec {
    /// Row-major shape of one image, without batch: `[channels, height, width]`, `[features]`, ...
    pub dims: Vec<usize>,
    /// 8-bit grid calibrated for this value, if some integer step reads or writes it. The executor
    /// decides where the value is stored in 8 bits, depending on the steps that use it.
    pub quantization: Option<Quantization>,
}

/// An unsigned 8-bit grid: `real = (quantized - zero_point) * scale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// Distance of two neighbors on the grid; positive and finite.
    pub scale: f32,
    /// Quantized value that represents zero exactly.
    pub zero_point: u8,
}

impl ValueSpec {
    /// Returns the number of elements of one image.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns whether one image has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
