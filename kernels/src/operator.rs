//! The operators of a plan and their attributes. Shapes never contain the batch: every activation has
//! it as its outermost dimension, and no operator mixes images.

use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::error::KernelError;

/// Geometry of a sliding window over height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// `[height, width]`
    pub kernel: [usize; 2],
    /// `[vertical, horizontal]`, at least 1
    pub stride: [usize; 2],
    /// `[vertical, horizontal]`, at least 1
    pub dilation: [usize; 2],
    /// `[top, left, bottom, right]`, resolved: automatic padding modes do not reach this crate
    pub padding: [usize; 4],
}

impl Window {
    /// A 1x1 window with stride 1.
    pub const POINT: Self = Self { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: [0, 0, 0, 0] };

    /// `[height, width]` of the output over an input of `[height, width]`; `None` where the window
    /// does not fit, or where sizes overflow. With `ceil`, a last partial window counts if it starts
    /// inside the input or its leading padding (ONNX `ceil_mode`).
    #[must_use]
    pub fn output(&self, input: [usize; 2], ceil: bool) -> Option<[usize; 2]> {
        let mut out = [0; 2];
        for axis in 0..2 {
            let reach = self.dilation[axis].checked_mul(self.kernel[axis].checked_sub(1)?)?.checked_add(1)?;
            let before = self.padding[axis];
            let padded = input[axis].checked_add(before)?.checked_add(self.padding[axis + 2])?;
            let free = padded.checked_sub(reach)?;
            let stride = self.stride[axis];
            let mut count = free.checked_div(stride)? + 1;
            if ceil && free % stride != 0 && count * stride < input[axis] + before {
                count += 1;
            }
            out[axis] = count;
        }
        Some(out)
    }
}

/// What one step computes. Activations are `[channels, height, width]` or `[features]` per image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operator {
    /// 2-D convolution with fused bias (in the weights), an optional residual and an activation:
    /// `activation(conv(inputs[0]) + bias + inputs[1])`, where `inputs[1]`, if there, has the shape of
    /// the output. A dense layer is a convolution over `[features, 1, 1]` (its input and output may
    /// be `[features]`).
    Conv(Conv),
    /// Largest value under the window; padding never wins.
    MaxPool {
        /// Geometry.
        window: Window,
        /// ONNX `ceil_mode`.
        ceil: bool,
    },
    /// Mean under the window.
    AveragePool {
        /// Geometry.
        window: Window,
        /// ONNX `ceil_mode`.
        ceil: bool,
        /// Whether padding counts as zeros (ONNX `count_include_pad`).
        include_padding: bool,
    },
    /// Mean over height and width: `[c, h, w]` to `[c, 1, 1]`.
    GlobalAveragePool,
    /// Mean over the given axes (of the shape without batch), kept as size 1; a [`Operator::Reshape`]
    /// removes them.
    ReduceMean {
        /// Axes, ascending, without the batch.
        axes: Vec<usize>,
    },
    /// `activation(inputs[0] + inputs[1])` with NumPy broadcasting.
    Add(Activation),
    /// `activation(inputs[0] * inputs[1])` with NumPy broadcasting.
    Mul(Activation),
    /// `activation(inputs[0])`
    Activation(Activation),
    /// `activation(inputs[0] * scale + shift)` per channel (axis 0): batch normalization that could not be folded.
    ScaleShift {
        /// Index into [`crate::Plan::constants`]; one value per channel.
        scale: usize,
        /// Index into [`crate::Plan::constants`]; one value per channel.
        shift: usize,
        /// Applied last.
        activation: Activation,
    },
    /// A tensor without batch, the same for every image. No inputs.
    Constant {
        /// Index into [`crate::Plan::constants`].
        constant: usize,
    },
    /// Inputs one after another along `axis` (without the batch).
    Concat {
        /// Axis, without the batch.
        axis: usize,
    },
    /// Constant padding, `[before, after]` per axis (without the batch).
    Pad {
        /// One pair per axis.
        padding: Vec<[usize; 2]>,
        /// What is filled in.
        value: f32,
    },
    /// Permutation of the axes (without the batch).
    Transpose {
        /// `output axis i` is `input axis permutation[i]`.
        permutation: Vec<usize>,
    },
    /// The same numbers, row-major, under the output value's shape.
    Reshape,
    /// Softmax along `axis` (without the batch).
    Softmax {
        /// Axis, without the batch.
        axis: usize,
    },
    /// Local response normalization across channels (ONNX `LRN`).
    Lrn {
        /// Number of channels summed over.
        size: usize,
        /// Scale.
        alpha: f32,
        /// Exponent.
        beta: f32,
        /// Offset.
        bias: f32,
    },
}

/// Attributes of [`Operator::Conv`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Geometry.
    pub window: Window,
    /// Number of groups; `in_channels` for a depthwise convolution.
    pub groups: usize,
    /// Index into [`crate::Plan::weights`].
    pub weights: usize,
    /// Applied after bias and residual.
    pub activation: Activation,
    /// Which algorithm, with which tunables.
    pub schedule: crate::schedule::Schedule,
}

/// The full problem that a convolution algorithm solves; everything its speed depends on but data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConvProblem {
    /// Images at a time.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Divides both.
    pub groups: usize,
    /// `[height, width]` of the input.
    pub input: [usize; 2],
    /// Geometry.
    pub window: Window,
}

impl ConvProblem {
    /// `[height, width]` of the output.
    ///
    /// # Errors
    /// Where the window does not fit into the padded input.
    pub fn output(&self) -> Result<[usize; 2], KernelError> {
        self.window.output(self.input, false).ok_or_else(|| {
            KernelError::Data(format!(
                "window {:?} does not fit into an input of {:?}",
                self.window, self.input
            ))
        })
    }

    /// Input channels that one output channel sees.
    #[must_use]
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of one group.
    #[must_use]
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// One input and one output channel per group.
    #[must_use]
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.in_channels && self.groups == self.out_channels && self.groups > 1
    }

    /// Multiply-adds of the direct algorithm for the whole batch, padding counted.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let Some([height, width]) = self.window.output(self.input, false) else { return 0 };
        let taps = self.window.kernel[0] as u64 * self.window.kernel[1] as u64;
        self.batch as u64
            * self.out_channels as u64
            * self.group_in() as u64
            * taps
            * height as u64
            * width as u64
    }
}
