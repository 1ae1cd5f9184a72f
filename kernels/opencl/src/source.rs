//! Assembles the text for the compiler from a kernel's source and its macros.

use std::fmt::{Display, Write as _};

use paretune_base::plan::activation::Activation;
use paretune_base::plan::operator::ConvProblem;

/// Common part that precedes every source.
const COMMON: &str = include_str!("kernels/common.cl");

/// Macros of a kernel, in order of definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Macros(String);

impl Macros {
    /// Defines `name` as a number or a word.
    pub fn define(&mut self, name: &str, value: impl Display) -> &mut Self {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "#define {name} {value}");
        self
    }

    /// Defines `name` as a number with exactly the bits of `value`.
    pub fn define_float(&mut self, name: &str, value: f32) -> &mut Self {
        self.define(name, format_args!("as_float({:#x}u)", value.to_bits()))
    }

    /// Defines the activation function of the fused epilogue.
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

    /// Defines sizes and geometry of a convolution with an output of `[height, width]`.
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

    /// Defines the geometry of a window.
    pub fn window(&mut self, window: &paretune_base::plan::operator::Window) -> &mut Self {
        self.define("KERNEL_H", window.kernel[0])
            .define("KERNEL_W", window.kernel[1])
            .define("STRIDE_H", window.stride[0])
            .define("STRIDE_W", window.stride[1])
            .define("DILATION_H", window.dilation[0])
            .define("DILATION_W", window.dilation[1])
            .define("PAD_TOP", window.padding[0])
            .define("PAD_LEFT", window.padding[1])
    }

    /// Returns the complete text for the compiler. Macros are definitions in the text, because some
    /// compilers limit the length of options.
    pub fn complete(&self, source: &str) -> String {
        format!("{}\n{COMMON}\n{source}", self.0)
    }
}

/// Compiler options: multiplications and additions may be contracted to fused multiply-adds, and
/// nothing else may be reordered.
pub(super) const OPTIONS: &str = "-cl-std=CL1.2 -cl-mad-enable -cl-denorms-are-zero";
