//! Convolution algorithms for OpenCL devices: one file each, listed by [`algorithms`].
//!
//! An algorithm states the problems that it supports, its tunables on a device, and the constraints
//! between them. It turns a step into a list of launches. Activations
//! are NCHW in single precision; weights are packed once on the host.

mod bsr_gemm;
mod depthwise;
mod direct;
mod half;
mod implicit_gemm;
mod implicit_gemm_i8;
pub mod registry;
mod tensor_core;
mod tile;
mod winograd;

use paretune_base::registry::AlgorithmInfo;
pub use registry::{algorithm, algorithms, candidates};
use std::collections::BTreeMap;

use super::launch::{Argument, Prepared};
use super::source::Macros;
use crate::limits::Limits;
use paretune_base::error::KernelError;
use paretune_base::plan::Quantization;
use paretune_base::plan::activation::Activation;
use paretune_base::plan::operator::ConvProblem;
use paretune_base::plan::schedule::{Schedule, Tunable, TunableValue};
use paretune_base::plan::weights::Weights;

/// A convolution that an algorithm should prepare.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Geometry and sizes, batch included.
    pub problem: ConvProblem,
    /// Size of the output, `[height, width]`.
    pub output: [usize; 2],
    /// Weights in a format that the algorithm executes.
    pub weights: &'a Weights,
    /// Activation fused into the epilogue.
    pub activation: Activation,
    /// Whether a residual is added before the activation.
    pub residual: bool,
    /// Grid to which an integer algorithm rounds its input.
    pub input_grid: Option<Quantization>,
    /// Schedule with a valid value for every tunable of the algorithm.
    pub schedule: &'a Schedule,
    /// Limits of the device that will run it.
    pub limits: &'a Limits,
}

impl Request<'_> {
    /// Defines the macros that `kernels/common.cl` needs for every convolution.
    fn macros(&self) -> Macros {
        let mut macros = Macros::default();
        macros.problem(&self.problem, self.output).activation(self.activation);
        macros.define("RESIDUAL", u8::from(self.residual));
        macros
    }

    /// Returns the arguments of a convolution kernel: input, constants (weights first), output, and
    /// the residual if any.
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

/// An algorithm for convolutions on an OpenCL device.
pub trait Algorithm: AlgorithmInfo {
    /// Returns whether the algorithm supports `problem` on a device with these limits.
    fn supports(&self, problem: &ConvProblem, limits: &Limits) -> bool;

    /// Returns the tunables for this problem on this device.
    fn tunables(&self, problem: &ConvProblem, limits: &Limits) -> Vec<Tunable>;

    /// Returns the constraints between tunables as expressions over their names, with the device's
    /// limits as numbers.
    fn constraints(&self, problem: &ConvProblem, limits: &Limits) -> Vec<String>;

    /// Packs the weights and decides sizes, macros and launches.
    ///
    /// # Errors
    /// Fails if the algorithm does not support the request.
    fn prepare(&self, request: &Request<'_>) -> Result<Prepared, KernelError>;
}

/// Values of tunables by name. A resolved schedule has a value for each tunable.
#[derive(Clone, Copy)]
struct Chosen<'a>(&'a BTreeMap<String, TunableValue>);

impl Chosen<'_> {
    /// Returns the size `name`, or 1 if it is missing, which no resolved schedule allows.
    fn get(&self, name: &str) -> usize {
        let size = self.0.get(name).and_then(|value| value.size());
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(1)
    }

    /// Returns whether the switch `name` is on, or `default` if it is missing.
    fn is_on(&self, name: &str, default: bool) -> bool {
        self.0.get(name).map_or(default, |&value| value == TunableValue::Switch(true))
    }
}

/// Creates a tunable with the powers of two from `low` to `high`, where `high` is first reduced to
/// the next power of two of the largest `useful` value, but not below `low`.
fn powers(
    name: &'static str,
    about: &'static str,
    low: usize,
    high: usize,
    useful: usize,
    default: usize,
) -> Tunable {
    let high = high.min(useful.max(1).next_power_of_two()).max(low);
    let values: Vec<usize> = std::iter::successors(Some(low), |value| Some(value * 2))
        .take_while(|value| *value <= high)
        .collect();
    let default = default.clamp(low, high);
    // Largest value that does not exceed the requested default.
    let default = values.iter().copied().rfind(|value| *value <= default).unwrap_or(default);
    Tunable::sizes(name, about, values, default)
}

/// Creates a tunable that is off or on.
fn switch(name: &'static str, about: &'static str, default: bool) -> Tunable {
    Tunable::switch(name, about, true, default)
}

/// Returns weights in single precision, in the order of [`Weights::dims`].
fn real(weights: &Weights) -> Result<&[f32], KernelError> {
    let values = weights.values.reals().ok_or_else(|| {
        KernelError::Data("integer weights were given to an algorithm for single precision".into())
    })?;
    Ok(values)
}

/// Returns the bias, or zeros without one.
fn bias(weights: &Weights) -> Vec<f32> {
    weights.bias.as_ref().map_or_else(|| vec![0.0; weights.dims[0]], |bias| bias.to_vec())
}

/// Packs weights `[out, in, taps]` of each group as `[group][in * taps][out]`, with the two inner
/// axes padded with zeros to `rows` and `columns`.
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

/// Creates an error about a schedule whose tunables do not fit together.
fn unfit(name: &str, problem: &str) -> KernelError {
    KernelError::Data(format!("algorithm `{name}`: {problem}"))
}
