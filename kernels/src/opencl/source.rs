//! From a kernel's source and its macros to what a compiler is given.

use std::fmt::{Display, Write as _};

use crate::activation::Activation;
use crate::operator::ConvProblem;

/// What precedes every source.
const COMMON: &str = include_str!("kernels/common.cl");

/// Macros of a kernel, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Macros(String);

impl Macros {
    /// Adds `name` with a number or a word.
    pub fn define(&mut self, name: &str, value: impl Display) -> &mut Self {
        // Writing into a string has no way to fail.
        let _ = writeln!(self.0, "#define {name} {value}");
        self
    }

    /// Adds `name` with a number, bit by bit what it is on the host.
    pub fn define_float(&mut self, name: &str, value: f32) -> &mut Self {
        self.define(name, format_args!("as_float({:#x}u)", value.to_bits()))
    }

    /// The fused end of a step.
    pub fn activation(&mut self, activation: Activation) -> &mut Self {
        let (code, alpha, beta) = match activation {
            Activation::Identity => (0, 0.0, 0.0),
            Activation::Relu => (1, 0.0, 0.0),
            Activation::Clip { low, high } => (2, low, high),
            Activation::LeakyRelu { slope } => (3, slope, 0.0),
            Activation::Sigmoid => (4, 0.0, 0.0),
            Activation::HardSigmoid { alpha, beta } => (5, alpha, beta),
            Activation::HardSwish => (6, 0.0, 0.0),
        };
        self.define("ACTIVATION", code).define_float("ALPHA", alpha).define_float("BETA", beta)
    }

    /// Sizes and geometry of a convolution with an output of `[height, width]`.
    pub fn problem(&mut self, problem: &ConvProblem, output: [usize; 2]) -> &mut Self {
        let window = &problem.window;
        self.define("BATCH", problem.batch)
            .define("CHANNELS", problem.in_channels)
            .define("OUTPUTS", problem.out_channels)
            .define("GROUP_IN", problem.group_in())
            .define("GROUP_OUT", problem.group_out())
            .define("IN_H", problem.input[0])
            .define("IN_W", problem.input[1])
            .define("OUT_H", output[0])
            .define("OUT_W", output[1])
            .define("PADDED", u8::from(window.padding != [0; 4]))
            .window(window)
    }

    /// Geometry of a window.
    pub fn window(&mut self, window: &crate::operator::Window) -> &mut Self {
        self.define("KERNEL_H", window.kernel[0])
            .define("KERNEL_W", window.kernel[1])
            .define("STRIDE_H", window.stride[0])
            .define("STRIDE_W", window.stride[1])
            .define("DILATION_H", window.dilation[0])
            .define("DILATION_W", window.dilation[1])
            .define("PAD_TOP", window.padding[0])
            .define("PAD_LEFT", window.padding[1])
    }

    /// What a compiler is given for `source`: definitions rather than options, which some compilers limit
    /// in length.
    pub fn complete(&self, source: &str) -> String {
        format!("{}\n{COMMON}\n{source}", self.0)
    }
}

/// Options for the compiler: sums may be contracted to fused multiply-adds; nothing else may be
/// rearranged.
pub(super) const OPTIONS: &str = "-cl-std=CL1.2 -cl-mad-enable -cl-denorms-are-zero";
