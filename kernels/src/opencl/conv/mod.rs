//! Convolution algorithms for OpenCL devices: one file each, listed by [`algorithms`].
//!
//! An algorithm states what it supports, what can be turned about it on a device, what must hold between
//! those, and makes of a step a list of [`Launch`]es. Activations are planar (batch, channels, height,
//! width) in single precision; weights are packed on the host once.

mod block_sparse;
mod depthwise;
mod direct;
mod half;
mod implicit_gemm;
mod int8_gemm;
mod tensor_core;
mod tile;
mod winograd;

use std::collections::BTreeMap;

use super::device::Limits;
use super::launch::{Argument, Prepared};
use super::source::Macros;
use crate::activation::Activation;
use crate::error::KernelError;
use crate::operator::ConvProblem;
use crate::plan::Quantization;
use crate::schedule::{Schedule, Tunable};
use crate::weights::{WeightFormat, Weights};

/// What an algorithm is asked to prepare.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Geometry and sizes, batch included.
    pub problem: ConvProblem,
    /// `[height, width]` of the output.
    pub output: [usize; 2],
    /// In a format that the algorithm executes.
    pub weights: &'a Weights,
    /// Fused into the store.
    pub activation: Activation,
    /// Whether a residual is added before the activation.
    pub residual: bool,
    /// The grid that an algorithm for integers rounds its input to.
    pub input_grid: Option<Quantization>,
    /// Every tunable of the algorithm present, with a value from its list.
    pub schedule: &'a Schedule,
    /// The device.
    pub limits: &'a Limits,
}

impl Request<'_> {
    /// What `kernels/common.cl` wants to know of every convolution.
    fn macros(&self) -> Macros {
        let mut macros = Macros::default();
        macros.problem(&self.problem, self.output).activation(self.activation);
        macros.define("RESIDUAL", u8::from(self.residual));
        macros
    }

    /// Input, constants (weights first), output, and the residual where there is one.
    fn arguments(&self, constants: usize) -> Vec<Argument> {
        let residual = self.residual.then_some(Argument::Input(1));
        let constants = (0..constants).map(Argument::Constant);
        std::iter::once(Argument::Input(0))
            .chain(constants)
            .chain([Argument::Output])
            .chain(residual)
            .collect()
    }
}

/// A way to compute convolutions on an OpenCL device.
pub trait Algorithm: Send + Sync {
    /// Name in schedules: `snake_case`, stable, starting with `opencl_`.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn about(&self) -> &'static str;

    /// Whether it computes on integer weights and 8-bit activations, else in single precision.
    fn integer(&self) -> bool {
        false
    }

    /// Whether it computes with fewer bits than the numbers that it is given have, so that its results show it.
    fn reduced(&self) -> bool {
        false
    }

    /// The largest weight, without its sign, that it can compute with.
    fn largest_weight(&self) -> f32 {
        f32::INFINITY
    }

    /// Whether it executes weights of `format`.
    fn executes(&self, format: WeightFormat) -> bool {
        !format.numbers.is_integer()
    }

    /// Whether it can solve `problem` on a device.
    fn supports(&self, problem: &ConvProblem, limits: &Limits) -> bool;

    /// What it leaves to the search, for this problem on this device.
    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable>;

    /// What must hold between the tunables, as expressions over their names; the device's limits are
    /// numbers in them.
    fn constraints(&self, problem: &ConvProblem, limits: &Limits) -> Vec<String>;

    /// Packs the weights and decides sizes, macros and launches.
    ///
    /// # Errors
    /// Where the request is not what the algorithm supports.
    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError>;
}

/// Every algorithm there is, in order of preference for defaults.
#[must_use]
pub fn algorithms() -> &'static [&'static dyn Algorithm] {
    &[
        &depthwise::Depthwise,
        &implicit_gemm::ImplicitGemm::Fp32,
        &direct::Direct::Fp32,
        &winograd::Winograd,
        &tensor_core::TensorCore::Fp32,
        &tensor_core::TensorCore::Tf32,
        &tensor_core::TensorCore::Fp16,
        &implicit_gemm::ImplicitGemm::Fp16,
        &direct::Direct::Fp16,
        &int8_gemm::Int8Gemm,
        &block_sparse::BlockSparse,
    ]
}

/// The algorithm called `name`.
#[must_use]
pub fn algorithm(name: &str) -> Option<&'static dyn Algorithm> {
    algorithms().iter().copied().find(|algorithm| algorithm.name() == name)
}

/// The algorithms that can run `problem` with weights of `format`, best default first.
#[must_use]
pub fn candidates(
    problem: &ConvProblem,
    format: WeightFormat,
    limits: &Limits,
) -> Vec<&'static dyn Algorithm> {
    algorithms()
        .iter()
        .copied()
        .filter(|algorithm| algorithm.executes(format) && algorithm.supports(problem, limits))
        .collect()
}

/// Values of tunables, by name; each is there and positive once a schedule is resolved.
#[derive(Clone, Copy)]
struct Chosen<'a>(&'a BTreeMap<String, i64>);

impl Chosen<'_> {
    /// The value of `name`; 1 where it is not named, which no resolved schedule leaves open.
    fn get(&self, name: &str) -> usize {
        self.0.get(name).and_then(|&value| usize::try_from(value).ok()).unwrap_or(1)
    }

    /// Whether the switch `name` is on; `default` where it is not named.
    fn is_on(&self, name: &str, default: bool) -> bool {
        self.0.get(name).map_or(default, |&value| value != 0)
    }
}

/// A tunable whose values are the powers of two from `low` to `high` (both at least; `high` is cut to the
/// next power of two of what the problem can use).
fn powers(
    name: &'static str,
    about: &'static str,
    low: usize,
    high: usize,
    useful: usize,
    default: usize,
) -> Tunable {
    let high = high.min(useful.max(1).next_power_of_two()).max(low);
    let values: Vec<i64> = std::iter::successors(Some(low), |value| Some(value * 2))
        .take_while(|value| *value <= high)
        .filter_map(|value| i64::try_from(value).ok())
        .collect();
    let default = i64::try_from(default.clamp(low, high)).unwrap_or(1);
    // The largest value that is not above the wish.
    let default = values.iter().copied().rfind(|value| *value <= default).unwrap_or(default);
    Tunable { name, about, values, default }
}

/// A tunable that is off (0) or on (1).
fn switch(name: &'static str, about: &'static str, default: bool) -> Tunable {
    Tunable { name, about, values: vec![0, 1], default: i64::from(default) }
}

/// Weights in single precision, in the order of [`Weights::dims`].
fn real(weights: &Weights) -> Result<&[f32], KernelError> {
    let values = weights.values.reals().ok_or_else(|| {
        KernelError::Data("integer weights were given to an algorithm for single precision".into())
    })?;
    Ok(values)
}

/// The bias, zeros where there is none.
fn bias(weights: &Weights) -> Vec<f32> {
    weights.bias.as_ref().map_or_else(|| vec![0.0; weights.dims[0]], |bias| bias.to_vec())
}

/// Weights `[out, in, taps]` of each group as `[group][in * taps][out]`, the two inner axes padded with
/// zeros to `rows` and `columns`.
fn packed(
    weights: &[f32],
    groups: usize,
    outputs: usize,
    inner: usize,
    rows: usize,
    columns: usize,
) -> Vec<f32> {
    let mut panels = vec![0.0; groups * rows * columns];
    for (group, panel) in panels.chunks_exact_mut((rows * columns).max(1)).enumerate() {
        for output in 0..outputs {
            let row = &weights[(group * outputs + output) * inner..][..inner];
            for (k, &weight) in row.iter().enumerate() {
                panel[k * columns + output] = weight;
            }
        }
    }
    panels
}

/// An error about a schedule whose tunables do not go together.
fn unfit(name: &str, problem: &str) -> KernelError {
    KernelError::Data(format!("algorithm `{name}`: {problem}"))
}
