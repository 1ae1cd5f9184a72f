//! The operators of a plan and their attributes. Shapes never include the batch: it is the
//! outermost dimension of every activation, and no operator mixes images.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::plan::activation::Activation;
use crate::plan::tensor::TensorOperator;

/// Geometry of a sliding window over height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Size of the window, `[height, width]`.
    pub kernel: [usize; 2],
    /// Stride as `[vertical, horizontal]`, each at least 1.
    pub stride: [usize; 2],
    /// Dilation as `[vertical, horizontal]`, each at least 1.
    pub dilation: [usize; 2],
    /// Padding as `[top, left, bottom, right]`. Automatic padding modes are resolved before they
    /// reach this crate.
    pub padding: [usize; 4],
}

impl Window {
    /// A 1x1 window with stride 1.
    pub const POINT: Self =
        Self { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: [0, 0, 0, 0] };

    /// Returns the output's `[height, width]` for an input of `[height, width]`, or `None` if the
    /// window does not fit or sizes overflow. With `ceil`, a last partial window counts if it
    /// starts inside the input or its leading padding (ONNX `ceil_mode`).
    #[must_use]
    pub fn output(&self, input: [usize; 2], ceil: bool) -> Option<[usize; 2]> {
        let mut out = [0; 2];
        for axis in 0..2 {
            let reach = self.dilation[axis]
                .checked_mul(self.kernel[axis].checked_sub(1)?)?
                .checked_add(1)?;
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

/// Operator of a step. Activations are `[channels, height, width]` or `[features]` per image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operator {
    /// 2-D convolution with fused bias (in the weights), an optional residual and an activation:
    /// `activation(conv(inputs[0]) + bias + inputs[1])`. The residual `inputs[1]`, if present, has
    /// the shape of the output. A dense layer is a convolution over `[features, 1, 1]`, whose input
    /// and output may be declared as `[features]`.
    Conv(Conv),
    /// Maximum under the window; padding never wins.
    MaxPool {
        /// Geometry of the pooling window.
        window: Window,
        /// Whether a last partial window counts (ONNX `ceil_mode`).
        ceil: bool,
    },
    /// Mean of the values under the window.
    AveragePool {
        /// Geometry of the pooling window.
        window: Window,
        /// Whether a last partial window counts (ONNX `ceil_mode`).
        ceil: bool,
        /// Whether padding counts as zeros (ONNX `count_include_pad`).
        include_padding: bool,
    },
    /// Mean over height and width: `[c, h, w]` to `[c, 1, 1]`.
    GlobalAveragePool,
    /// Mean over the given axes (of the shape without batch), kept as size 1; a
    /// [`Operator::Reshape`] removes them.
    ReduceMean {
        /// Axes, ascending, not counting the batch.
        axes: Vec<usize>,
    },
    /// `activation(inputs[0] + inputs[1])` with NumPy broadcasting.
    Add(Activation),
    /// `activation(inputs[0] * inputs[1])` with NumPy broadcasting.
    Mul(Activation),
    /// A stand-alone activation function, `activation(inputs[0])`.
    Activation(Activation),
    /// `activation(inputs[0] * scale + shift)` per channel (axis 0): batch normalization that could
    /// not be folded.
    ScaleShift {
        /// Index into [`crate::plan::Plan::constants`]; one value per channel.
        scale: usize,
        /// Index into [`crate::plan::Plan::constants`]; one value per channel.
        shift: usize,
        /// Activation that is applied last.
        activation: Activation,
    },
    /// A tensor without batch that is equal for every image. This operator has no inputs.
    Constant {
        /// Index of the tensor in [`crate::plan::Plan::constants`].
        constant: usize,
    },
    /// Concatenation of the inputs along `axis`.
    Concat {
        /// Axis of the shape, not counting the batch.
        axis: usize,
    },
    /// Constant padding, `[before, after]` per axis (without the batch).
    Pad {
        /// One `[before, after]` pair per axis.
        padding: Vec<[usize; 2]>,
        /// Value that the padding is filled with.
        value: f32,
    },
    /// Permutation of the axes (without the batch).
    Transpose {
        /// Axis of the input for each axis of the output.
        permutation: Vec<usize>,
    },
    /// Reinterpretation of the row-major elements under the output value's shape.
    Reshape,
    /// Softmax along `axis` (without the batch).
    Softmax {
        /// Axis of the shape, not counting the batch.
        axis: usize,
    },
    /// Local response normalization across channels (ONNX `LRN`).
    Lrn {
        /// Number of channels in the sum.
        size: usize,
        /// Scale of the sum (ONNX `alpha`).
        alpha: f32,
        /// Exponent of the denominator (ONNX `beta`).
        beta: f32,
        /// Offset of the denominator (ONNX `bias`).
        bias: f32,
    },
    /// An operator over values of any shape.
    Tensor(TensorOperator),
}

/// Attributes of a convolution, [`Operator::Conv`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Geometry of the kernel over the input.
    pub window: Window,
    /// Number of groups; `in_channels` for a depthwise convolution.
    pub groups: usize,
    /// Index of weights and bias in [`crate::plan::Plan::weights`].
    pub weights: usize,
    /// Activation applied after bias and residual.
    pub activation: Activation,
    /// Algorithm and tunables that compute the convolution.
    pub schedule: crate::plan::schedule::Schedule,
}

/// The full problem that a convolution algorithm solves: everything that affects its speed except
/// the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConvProblem {
    /// Number of images per run.
    pub batch: usize,
    /// Number of channels of the input.
    pub in_channels: usize,
    /// Number of channels of the output.
    pub out_channels: usize,
    /// Number of groups, a divisor of both channel counts.
    pub groups: usize,
    /// Size of the input, `[height, width]`.
    pub input: [usize; 2],
    /// Geometry of the kernel over the input.
    pub window: Window,
}

impl ConvProblem {
    /// Returns the `[height, width]` of the output.
    ///
    /// # Errors
    /// Fails if the window does not fit into the padded input.
    pub fn output(&self) -> Result<[usize; 2], KernelError> {
        self.window.output(self.input, false).ok_or_else(|| {
            KernelError::Data(format!(
                "window {:?} does not fit into an input of {:?}",
                self.window, self.input
            ))
        })
    }

    /// Returns the number of input channels that each output channel reads.
    #[must_use]
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Returns the number of output channels of one group.
    #[must_use]
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Returns the number of taps of the window.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.window.kernel.iter().product()
    }

    /// Returns the number of weights of one output channel, which is k of the matrix product.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.group_in() * self.taps()
    }

    /// Returns whether each group has one input and one output channel.
    #[must_use]
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.in_channels && self.groups == self.out_channels && self.groups > 1
    }

    /// Returns the multiply-adds of direct convolution for the whole batch, including those on
    /// padding.
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
